"""Who waits for the disk keeps nobody else waiting, and is told what the disk said."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_here, is_free
from bad.soundness import assert_memory_is_file, assert_sound
from cosession import BlockingSession, Message, Session, SyncFailed, _platform
from cosession.changes import Appended, Reverted
from cosession.operation import Operation

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
