"""Who waits for the disk keeps nobody else waiting, and is told what the disk said."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_here, is_free, until_idle
from bad.soundness import assert_memory_is_file, assert_sound
from cosession import (
    BlockingSession,
    CosessionError,
    Message,
    Session,
    SessionClosed,
    SyncFailed,
    _platform,
    files,
)
from cosession.changes import Appended, Reverted
from cosession.commits import CommitQueue
from cosession.operation import Operation
from cosession.store import Store

pytestmark = pytest.mark.skipif(
    not _platform.KEEPS_FILES_OPEN,
    reason="where no file stays open, what is written is synced before the lock is free",
)

Hook = Callable[[int], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Hook], None]]:
    """Have this done in place of a sync of data; behind the hook it is what it was."""

    def put(hook: Hook) -> None:
        monkeypatch.setattr(_platform, "sync_data", hook)

    with monkeypatch.context():
        yield put


def refuse(fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def warm(path: Path) -> Iterator[BlockingSession[Message]]:
    """A session that has seen to it that what is there is on the disk."""
    with BlockingSession(path, durability="power") as session:
        session.append(user("old"))
        yield session


def contents(session: BlockingSession[Message]) -> list[object]:
    return [message.content for message in session.history]


def queued(session: BlockingSession[Message], messages: Any) -> Operation:
    """An append of another thread's, which waits for somebody to commit it."""
    operation = Operation(session._request("append", None, session._add(messages)), once=False)
    assert session._queue is not None
    session._queue.add(operation)
    return operation


def noting_the_lock(path: Path, disk: Callable[[Hook], None]) -> list[bool]:
    """Whether it is free at each sync from now on."""
    real = _platform.sync_data
    free: list[bool] = []

    def note(fd: int) -> None:
        free.append(is_free(path))
        real(fd)

    disk(note)
    return free


def test_others_append_while_one_waits_for_the_disk(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """The lock is free by then, and both are there in the order in which they had it."""
    began, go_on = threading.Event(), threading.Event()
    real = _platform.sync_data

    def slow(fd: int) -> None:
        began.set()
        assert go_on.wait(BOUND)
        real(fd)

    with warm(path) as one, BlockingSession(path) as other:
        disk(slow)
        waiting = threading.Thread(target=one.append, args=(user("one"),))
        waiting.start()
        try:
            assert began.wait(BOUND)
            assert is_free(path)
            other.append(user("other"), timeout=0)
            assert waiting.is_alive()
        finally:
            go_on.set()
            waiting.join(BOUND)
        one.refresh()
        assert contents(one) == contents(other) == ["old", "one", "other"]


def test_what_the_disk_refuses_is_taken_back(path: Path, disk: Callable[[Hook], None]) -> None:
    """File and memory are as before, and so is the memory of who has read it meanwhile."""
    real = _platform.sync_data
    with warm(path) as session, BlockingSession(path) as reader:
        before, revision = path.read_bytes(), session.revision
        changes = reader.follow(timeout=0)

        def seen_and_refused(fd: int) -> None:
            assert isinstance(next(changes), Appended)
            assert contents(reader) == ["old", "new"]
            refuse(fd)

        disk(seen_and_refused)
        with pytest.raises(SyncFailed):
            session.append(user("new"))
        assert path.read_bytes() == before
        assert contents(session) == ["old"]
        assert_memory_is_file(session)
        assert session.revision.generation == revision.generation + 1  # whoever has read it is told
        [change] = list(changes)
        assert isinstance(change, Reverted)
        assert (change.messages_kept, change.records) == (1, ())
        assert contents(reader) == ["old"]
        disk(real)
        with pytest.raises(SyncFailed, match="an earlier write"):
            session.append(user("refused"))
        session.close()
        session.open()
        session.append(user("again"))
        assert_sound(session)
        reader.append(user("and on"))
        assert contents(reader) == ["old", "again", "and on"]


def test_what_others_have_built_on_stays(path: Path, disk: Callable[[Hook], None]) -> None:
    """Their messages are not taken away, and so neither is the one before them."""
    with warm(path) as session, BlockingSession(path) as other:

        def built_on_and_refused(fd: int) -> None:
            other.append(user("other"))
            refuse(fd)

        disk(built_on_and_refused)
        with pytest.raises(SyncFailed):
            session.append(user("new"))
        assert_memory_is_file(session)
        assert contents(session) == contents(other) == ["old", "new", "other"]


def test_it_stays_where_somebody_else_has_the_lock(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """A disk that refuses is no reason to wait for anybody."""
    with warm(path) as session:
        held = None

        def locked_and_refused(fd: int) -> None:
            nonlocal held
            held = held_here(path)
            held.__enter__()
            refuse(fd)

        disk(locked_and_refused)
        try:
            with pytest.raises(SyncFailed):
                session.append(user("new"))
        finally:
            assert held is not None
            held.__exit__(None, None, None)
        session.refresh()
        assert contents(session) == ["old", "new"]


def test_several_records_are_on_the_disk_before_anybody_sees_them(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """A power cut might leave some of them, so they are synced under the lock."""
    with warm(path) as session:
        free = noting_the_lock(path, disk)
        session.append([user("one"), user("two")])
        assert free
        assert not any(free)
        free.clear()
        session.append(user("three"))
        assert free == [True]


def test_what_is_single_on_the_average_is_not(path: Path, disk: Callable[[Hook], None]) -> None:
    """Two records and none, by two operations that go out together, are two of one operation."""
    with warm(path) as session:
        queued(session, [user("one"), user("two")])
        queued(session, [])
        free = noting_the_lock(path, disk)
        assert session._queue is not None
        assert session._queue.try_pass()
        assert len(free) == 2  # the announcement, and the records
        assert not any(free)


def test_ctrl_c_while_it_is_taken_back_acknowledges_nothing(
    path: Path, disk: Callable[[Hook], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that is repeated then could succeed, and would prove nothing."""
    real, truncate = _platform.sync_data, _platform.truncate

    def interrupted(fd: int, name: str, length: int) -> None:
        disk(real)
        monkeypatch.setattr(_platform, "truncate", truncate)
        raise KeyboardInterrupt

    with warm(path) as session:
        theirs = queued(session, user("b"))
        disk(refuse)
        monkeypatch.setattr(_platform, "truncate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.append(user("mine"))
        assert theirs.settled
        with pytest.raises(SyncFailed):
            theirs.outcome()


async def test_many_coroutines_wait_for_one_sync_and_hear_the_same(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """If the disk refuses, none of them is acknowledged and none is there."""
    async with Session(path, durability="power") as session:
        await session.append(user("old"))
        syncs: list[int] = []

        def note(fd: int) -> None:
            syncs.append(fd)
            refuse(fd)

        disk(note)
        async with asyncio.timeout(BOUND):
            together = [session.append(user(str(number))) for number in range(20)]
            results = await asyncio.gather(*together, return_exceptions=True)
        assert all(isinstance(result, SyncFailed) for result in results)
        assert len(syncs) == 1
        assert [message.content for message in session.history] == ["old"]
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("disk_is_well", [True, False])
def test_ctrl_c_acknowledges_nothing_that_is_not_on_the_disk(
    path: Path, disk: Callable[[Hook], None], disk_is_well: bool
) -> None:
    """What a pass has appended for another thread as well is synced, before that is told so."""
    real = _platform.sync_data
    syncs: list[int] = []

    def interrupted_once(fd: int) -> None:
        syncs.append(fd)
        if len(syncs) == 1:
            raise KeyboardInterrupt
        (real if disk_is_well else refuse)(fd)

    with warm(path) as session:
        theirs = queued(session, user("b"))
        disk(interrupted_once)
        with pytest.raises(KeyboardInterrupt):
            session.append(user("mine"))
        assert theirs.settled
        assert len(syncs) == 2
        with suppress(SyncFailed):
            theirs.outcome()
            assert disk_is_well
        session.close()
        session.open()
        assert (contents(session) == ["old", "b", "mine"]) is disk_is_well
        assert (contents(session) == ["old"]) is not disk_is_well


# ---- on an event loop -----------------------------------------------------------------------


def queue_of(session: Session[Message]) -> CommitQueue:
    assert session._queue is not None
    return session._queue


@asynccontextmanager
async def warm_on_the_loop(path: Path) -> AsyncIterator[Session[Message]]:
    """A session whose next append goes out on the spot: it has its thread, and nobody else came."""
    async with Session(path, durability="power") as session:
        await session.append(user("old"))
        await until_idle(session)
        yield session


async def test_one_alone_appends_on_the_spot_and_waits_on_the_thread(
    path: Path, disk: Callable[[Hook], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written at once, others may go on, and it is acknowledged when the disk has it."""
    writers, syncers = list[int](), list[int]()
    began, go_on = threading.Event(), threading.Event()
    real, write_all = _platform.sync_data, files.write_all

    def written(*given: Any) -> None:
        writers.append(threading.get_ident())
        write_all(*given)

    def slow(fd: int) -> None:
        syncers.append(threading.get_ident())
        began.set()
        assert go_on.wait(BOUND)
        real(fd)

    async with warm_on_the_loop(path) as session:
        with BlockingSession(path) as other:
            disk(slow)
            monkeypatch.setattr(files, "write_all", written)
            task = asyncio.ensure_future(session.append(user("new")))
            await asyncio.sleep(0)
            assert path.read_bytes().count(b"\n") == 2
            assert await asyncio.to_thread(began.wait, BOUND)
            other.append(user("other"), timeout=0)
            assert not task.done()
            go_on.set()
            revision = await asyncio.wait_for(task, BOUND)
            assert contents(other) == ["old", "new", "other"]
        assert revision.position < path.stat().st_size
    here = threading.get_ident()
    assert writers[0] == here
    assert here not in syncers


async def test_one_alone_hears_that_the_disk_refuses(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """It is taken back, and nothing more is written until the session is opened anew."""
    real = _platform.sync_data
    async with warm_on_the_loop(path) as session:
        before = path.read_bytes()
        disk(refuse)
        with pytest.raises(SyncFailed):
            await session.append(user("new"))
        disk(real)
        assert path.read_bytes() == before
        assert [message.content for message in session.history] == ["old"]
        with pytest.raises(SyncFailed, match="an earlier write"):
            await session.append(user("refused"))


async def test_cancelled_while_the_disk_is_waited_for(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """It has happened; the task ends when the disk has it, so nothing goes on behind its back."""
    began, go_on = threading.Event(), threading.Event()
    real = _platform.sync_data

    def slow(fd: int) -> None:
        began.set()
        assert go_on.wait(BOUND)
        real(fd)

    async with warm_on_the_loop(path) as session:
        disk(slow)
        task = asyncio.ensure_future(session.append(user("new")))
        assert await asyncio.to_thread(began.wait, BOUND)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), BOUND)
        assert [message.content for message in session.history] == ["old", "new"]
        disk(real)
        await asyncio.wait_for(session.append(user("next")), BOUND)


async def test_closed_while_the_disk_is_waited_for(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """What has been written ends as it does, and is acknowledged."""
    began, real = threading.Event(), _platform.sync_data

    def slow(fd: int) -> None:
        began.set()
        time.sleep(0.05)
        real(fd)

    async with warm_on_the_loop(path) as session:
        disk(slow)
        task = asyncio.ensure_future(session.append(user("new")))
        assert await asyncio.to_thread(began.wait, BOUND)
        await session.close()
        revision = await asyncio.wait_for(task, BOUND)
        assert revision.position == path.stat().st_size


async def test_two_that_append_in_turns_come_to_share_a_sync(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """Who began a moment later doesn't wait for a sync of his own, again and again."""
    syncs: list[int] = []
    real = _platform.sync_data

    def note(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    async def some(session: Session[Message], name: str) -> None:
        for number in range(20):
            await session.append(user(f"{name} {number}"))

    async with warm_on_the_loop(path) as session:
        disk(note)
        async with asyncio.timeout(BOUND):
            await asyncio.gather(some(session, "one"), some(session, "other"))
        assert len(session.history) == 41
        assert 20 <= len(syncs) <= 24


def owing(session: Session[Message], text: str) -> None:
    """Append on the spot, with nobody to wait for the disk as yet."""
    assert queue_of(session).append_quickly(session._add(user(text)).lines) is not None


async def confirmed(session: Session[Message]) -> None:
    queue = queue_of(session)
    settled = asyncio.Event()
    confirmation = queue.confirm(settled.set)
    await asyncio.wait_for(settled.wait(), BOUND)
    confirmation.outcome()


@pytest.mark.parametrize("disk_is_well", [True, False])
async def test_what_is_owed_to_a_file_is_paid_before_it_is_closed(
    path: Path, disk: Callable[[Hook], None], disk_is_well: bool
) -> None:
    """Another terminal puts a new file in its place: what is acknowledged is in the old one."""
    synced: list[int] = []
    real = _platform.sync_data

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        (real if disk_is_well else refuse)(fd)

    async with warm_on_the_loop(path) as session:
        with BlockingSession(path) as other:
            inode = path.stat().st_ino
            owing(session, "new")
            other.clear()
        disk(note)
        await session.refresh()
        assert synced == [inode]
        assert path.stat().st_ino != inode
        if disk_is_well:
            await confirmed(session)
        else:
            with pytest.raises(SyncFailed):
                await confirmed(session)
        assert synced == [inode]
        disk(real)


async def test_what_is_owed_is_not_paid_by_a_child(
    path: Path, disk: Callable[[Hook], None]
) -> None:
    """The parent waits for the disk; the child, which only closes, doesn't."""
    async with warm_on_the_loop(path) as session:
        owing(session, "new")
        disk(refuse)
        session._store.after_fork_in_child()
        assert not session._store._poisoned


async def test_a_closed_queue_confirms_nothing(path: Path) -> None:
    """Nobody waits for a thread that has ended."""
    async with warm_on_the_loop(path) as session:
        queue = queue_of(session)
        owing(session, "new")
    with pytest.raises(SessionClosed, match="before the disk had it"):
        queue.confirm(int)
    with BlockingSession(path) as reader:
        assert contents(reader) == ["old", "new"]


async def test_what_is_to_be_confirmed_is_before_the_thread_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is closed before the thread has so much as heard of it."""
    async with warm_on_the_loop(path) as session:
        queue = queue_of(session)
        owing(session, "new")
        settled = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(queue, "_ring", int)
            confirmation = queue.confirm(settled.set)
        await session.close()
        await asyncio.wait_for(settled.wait(), BOUND)
        confirmation.outcome()


async def test_a_defect_in_a_confirmation_ends_the_call_and_not_the_session(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is wrapped, with its cause; the next append goes on."""

    def broken(_: object) -> None:
        raise ZeroDivisionError("a defect")

    async with warm_on_the_loop(path) as session:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "confirm", broken)
            with pytest.raises(CosessionError, match="unexpected") as caught:
                await asyncio.wait_for(session.append(user("new")), BOUND)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await asyncio.wait_for(session.append(user("next")), BOUND)
        assert [message.content for message in session.history] == ["old", "new", "next"]
