"""Coroutines that append at the same moment: one operation to the file, and each its own.

How many calls to the system that takes is tested in `test_cost.py`, cancelling every call at every
await in `test_cancellation.py`; here are many callers, one of whom fares differently.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import json
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cosession
from aio.both import user
from aio.held import BOUND, held_here, is_free
from bad.soundness import assert_memory_is_file
from cosession import (
    BlockingSession,
    LockTimeout,
    Message,
    ReadOnlySession,
    Revision,
    Session,
    SessionClosed,
    StorageFull,
    SyncFailed,
    TurnHeld,
    _platform,
)

MANY = 12
PACKAGE = os.path.dirname(cosession.__file__)
KINDS = pytest.mark.parametrize(
    "options", [{}, {"inline": False}, {"durability": "power"}], ids=["inline", "thread", "power"]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


def texts(session: Any) -> list[str]:
    return [str(message.content) for message in session.history]


def all_at_once(session: Session[Message], count: int = MANY) -> list[asyncio.Task[Revision]]:
    return [asyncio.create_task(session.append(user(f"{number}"))) for number in range(count)]


async def ends(tasks: list[asyncio.Task[Revision]]) -> list[Revision | BaseException]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), BOUND)


@KINDS
async def test_each_is_told_where_its_own_record_ends(path: Path, options: Any) -> None:
    """Also those of several records, and of none."""
    given = [user("one"), [user("two"), user("three")], [], user("four" * 9), [user("five")]]
    async with Session(path, **options) as session:
        for _ in range(3):
            start = path.stat().st_size
            revisions = await asyncio.gather(*(session.append(each) for each in given))
            lines = path.read_bytes()[start:].splitlines(keepends=True)
            lengths = [len(line) for line in lines]
            ends = [start + sum(lengths[:count]) for count in (1, 3, 3, 4, 5)]
            assert [revision.position for revision in revisions] == ends
        assert session.revision == revisions[-1]
        assert_memory_is_file(session)


@KINDS
async def test_what_is_called_in_between_comes_in_between(path: Path, options: Any) -> None:
    """A checkpoint and a revert have the appends before them before them."""
    async with Session(path, **options) as session:
        for _ in range(3):  # once with whoever comes first on the spot, and then not
            await session.clear()
            _, first, _, second, _ = await asyncio.gather(
                session.append(user("a")),
                session.checkpoint(),
                session.append(user("b")),
                session.checkpoint(),
                session.append(user("c")),
            )
            assert (first, second) == (0, 1)
            _, rotated, _ = await asyncio.gather(
                session.append(user("d")), session.revert_to(1), session.append(user("e"))
            )
            assert texts(session) == ["a", "b", "e"]
            kept = BlockingSession(rotated, read_only=True)
            kept.open()
            assert texts(kept) == ["a", "b", "c", "d"]
            kept.close()


@KINDS
@pytest.mark.parametrize("leavers", [{0}, {3, 4}, {MANY - 1}, set(range(MANY))], ids=str)
async def test_who_leaves_while_the_lock_is_held_has_not_appended(
    path: Path, options: Any, leavers: set[int]
) -> None:
    """And ends at once, while the others wait on."""
    async with Session(path, **options) as session:
        with held_here(path):
            tasks = all_at_once(session)
            await asyncio.sleep(0.03)
            for number in leavers:
                tasks[number].cancel()
            left = [tasks[number] for number in leavers]
            await asyncio.wait_for(asyncio.wait(left), BOUND)
            assert all(task.cancelled() for task in left)
            assert not any(task.done() for at, task in enumerate(tasks) if at not in leavers)
        await ends(tasks)
        stayed = [str(number) for number in range(MANY) if number not in leavers]
        assert texts(session) == stayed
        await session.append(user("next"))
        assert_memory_is_file(session)


async def test_who_leaves_before_anything_is_done_has_not_appended(path: Path) -> None:
    """Cancelled in the same turn of the event loop in which it was called."""
    async with Session(path) as session:
        await asyncio.gather(*all_at_once(session, 2))
        tasks = all_at_once(session)
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await ends(tasks)
        assert texts(session)[2:] == [str(number) for number in range(1, MANY, 2)]


@pytest.mark.parametrize("fails", [False, True])
async def test_who_leaves_while_it_is_committed_waits_for_that(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """It has happened by the time the cancellation is raised; unless it failed for all."""
    began, go_on = threading.Event(), threading.Event()
    real = os.write

    def slow(fd: int, data: bytes) -> int:
        if threading.current_thread() is not threading.main_thread() and b"content" in data:
            began.set()
            assert go_on.wait(BOUND)
            if fails:
                raise OSError(errno.ENOSPC, "full")
        return real(fd, data)

    async with Session(path, inline=False) as session:
        monkeypatch.setattr(os, "write", slow)
        tasks = all_at_once(session)
        assert await asyncio.to_thread(began.wait, BOUND)
        for task in tasks[:4]:
            task.cancel()
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks)
        go_on.set()
        results = await ends(tasks)
        assert all(task.cancelled() for task in tasks[:4])
        assert {type(result) for result in results[4:]} == {StorageFull if fails else Revision}
        assert texts(session) == ([] if fails else [str(number) for number in range(MANY)])
        assert_memory_is_file(session)


@KINDS
async def test_closed_with_appends_on_the_way(path: Path, options: Any) -> None:
    """Those that wait for the lock, and those that nobody has sent on their way yet."""
    session = Session(path, **options)
    await session.open()
    with held_here(path):
        tasks = all_at_once(session)
        await asyncio.sleep(0.01)
        tasks += all_at_once(session)
        closing = asyncio.create_task(session.close())
        results = await ends(tasks)
        await closing
    assert {type(result) for result in results} == {SessionClosed}
    async with session:
        assert texts(session) == []
        await asyncio.gather(*all_at_once(session))
        assert len(texts(session)) == MANY


def test_opened_again_on_another_event_loop(path: Path) -> None:
    """What was called on one that has stopped is no concern of the next one's."""
    session = Session(path)
    first = asyncio.new_event_loop()

    async def leave_one_behind() -> asyncio.Task[Revision]:
        await session.open()
        await asyncio.gather(*all_at_once(session))
        task = asyncio.create_task(session.append(user("left behind")))
        first.call_soon(first.stop)
        return task

    async def go_on() -> None:
        await session.close()
        async with session:
            results = await ends(all_at_once(session))
            assert all(isinstance(result, Revision) for result in results)
            assert texts(session) == [str(number) for number in range(MANY)] * 2

    async def come_back(task: asyncio.Task[Revision]) -> None:
        [result] = await ends([task])
        assert isinstance(result, SessionClosed)

    left_behind = first.run_until_complete(leave_one_behind())
    asyncio.run(go_on())
    first.run_until_complete(come_back(left_behind))
    first.close()


@KINDS
async def test_the_turn_of_another_terminal_is_waited_for(path: Path, options: Any) -> None:
    """Whoever appends during it comes behind it, and each once."""
    async with Session(path, **options) as session:
        with BlockingSession(path) as other:
            with other.turn("long") as turn:
                turn.append(user("begin"))
                tasks = all_at_once(session)
                await asyncio.sleep(0.02)
                tasks[1].cancel()
                await asyncio.sleep(0.02)
                assert [task.done() for task in tasks] == [at == 1 for at in range(MANY)]
                turn.append(user("end"))
            await ends(tasks)
            other.refresh()
            appended = [str(number) for number in range(MANY) if number != 1]
            assert texts(other)[:2] == ["begin", "end"]
            assert sorted(texts(other)[2:], key=int) == appended


async def test_the_turn_of_another_terminal_is_an_error_for_all(path: Path) -> None:
    """With `during_turn="raise"` nobody waits, and nothing is written."""
    async with Session(path, during_turn="raise") as session:
        with BlockingSession(path) as other, other.turn("long"):
            before = path.read_bytes()
            results = await ends(all_at_once(session))
            assert {type(result) for result in results} == {TurnHeld}
            assert path.read_bytes() == before


async def test_a_read_only_session_refuses_all(path: Path) -> None:
    path.write_text('{"role": "user", "content": "there"}\n')
    async with Session(path, read_only=True) as session:
        results = await ends(all_at_once(session))
        assert {type(result) for result in results} == {ReadOnlySession}


async def test_time_limits_are_each_callers_own(path: Path) -> None:
    """One has none, one tries once, one waits a little."""
    async with Session(path) as session:
        await asyncio.gather(*all_at_once(session, 2))
        with held_here(path):
            patient = all_at_once(session, 2)
            for timeout in (0, 0.01):
                with pytest.raises(LockTimeout):
                    await session.append(user("hasty"), timeout=timeout)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await session.append(user("hasty"))
            assert not any(task.done() for task in patient)
        await ends(patient)
        assert texts(session) == ["0", "1", "0", "1"]


@KINDS
async def test_a_full_disk_is_told_to_all_and_nothing_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    """Each may be tried again."""
    async with Session(path, **options) as session:
        await asyncio.gather(*all_at_once(session))
        before, real = path.read_bytes(), os.write

        def full(fd: int, data: bytes) -> int:
            if b"content" in data:
                raise OSError(errno.ENOSPC, "full")
            return real(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            results = await ends(all_at_once(session))
        assert {type(result) for result in results} == {StorageFull}
        assert path.read_bytes() == before
        assert is_free(path)
        await asyncio.gather(*all_at_once(session))
        assert texts(session) == [str(number) for number in range(MANY)] * 2
        assert_memory_is_file(session)


async def test_a_disk_that_refuses_is_told_to_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are taken back together."""
    async with Session(path, durability="power") as session:
        await asyncio.gather(*all_at_once(session))
        before = path.read_bytes()

        def refuse(fd: int) -> None:
            raise OSError(errno.EIO, "refused")

        with monkeypatch.context() as patch:
            patch.setattr(_platform, "sync_data", refuse)
            results = await ends(all_at_once(session))
        assert {type(result) for result in results} == {SyncFailed}
        assert path.read_bytes() == before


async def test_one_sync_is_enough_for_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of one record, they are written in one write, and wait for the disk once."""
    syncs: list[int] = []
    real = _platform.sync_data

    def note(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    async with Session(path, durability="power") as session:
        await asyncio.gather(*all_at_once(session))
        monkeypatch.setattr(_platform, "sync_data", note)
        await asyncio.gather(*all_at_once(session))
        assert len(syncs) == 1


@pytest.mark.parametrize("options", [{}, {"inline": False}], ids=["inline", "thread"])
async def test_no_thread_to_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    """Where the system gives no thread, all fail, nothing has happened, and it can be repeated."""
    async with Session(path, **options) as session:
        before = path.read_bytes()

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with held_here(path), monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            results = await ends(all_at_once(session))
        assert {type(result) for result in results} == {RuntimeError}
        assert path.read_bytes() == before
        await ends(all_at_once(session))
        assert len(texts(session)) == MANY


def test_an_event_loop_that_is_torn_down(path: Path) -> None:
    """Tasks that will never go on have not appended once the session is closed."""
    session = Session(path)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await session.open()
        await asyncio.gather(*all_at_once(session))

    async def wait() -> list[asyncio.Task[Revision]]:
        tasks = all_at_once(session)
        await asyncio.sleep(0.02)
        return tasks

    async def go_on() -> None:
        async with session:
            assert texts(session) == [str(number) for number in range(MANY)]
            await asyncio.gather(*all_at_once(session))
            assert len(texts(session)) == 2 * MANY

    loop.run_until_complete(begin())
    with held_here(path):
        tasks = loop.run_until_complete(wait())
        assert not any(task.done() for task in tasks)
        loop.set_exception_handler(lambda loop, context: None)  # "destroyed but it is pending"
        loop.close()
        asyncio.run(session.close())
        del tasks
        gc.collect()
    asyncio.run(go_on())


# ---- Ctrl-C ---------------------------------------------------------------------------------


def test_interrupted_at_every_point(path: Path) -> None:
    """Ctrl-C in what the loop does for many: whoever isn't interrupted is told, and it is true."""

    class Interrupt:
        def __init__(self, at: int) -> None:
            self.at = at
            self.came = False
            self.begun: set[FrameType] = set()

        def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
            # The event loop itself is not made to be interrupted.
            if event not in ("call", "c_return") or PACKAGE not in frame.f_code.co_filename:
                return
            if event == "call" and frame.f_code.co_flags & inspect.CO_COROUTINE:
                if frame in self.begun:
                    return  # goes on behind an await: the interpreter doesn't look there
                self.begun.add(frame)
            self.at -= 1
            if self.at == 0:
                self.came = True
                sys.setprofile(None)
                raise KeyboardInterrupt

    async def opened(session: Session[Message]) -> None:
        await session.open()
        await session.load()
        await asyncio.gather(*all_at_once(session, 2))

    def step(loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    at = 0
    while True:
        at += 1
        for file in path.parent.iterdir():
            file.unlink()
        loop = asyncio.new_event_loop()
        session = Session(path)
        loop.run_until_complete(opened(session))
        tasks = [loop.create_task(session.append(user(f"{n}"))) for n in range(4)]
        interrupt = Interrupt(at)
        gc.disable()
        sys.setprofile(interrupt)
        try:
            for _ in range(4):
                step(loop)
        except KeyboardInterrupt:
            step(loop)  # which meets the stop that was to come
        finally:
            sys.setprofile(None)
            gc.enable()
        results = loop.run_until_complete(ends(tasks))
        written = [json.loads(line)["content"] for line in path.read_bytes().splitlines()][2:]
        for number, result in enumerate(results):
            if isinstance(result, Revision):
                assert written.count(str(number)) == 1, at
            else:
                assert isinstance(result, KeyboardInterrupt), at
                assert written.count(str(number)) <= 1, at
        assert is_free(path), at
        loop.run_until_complete(session.append(user("next"), timeout=BOUND))
        loop.run_until_complete(ends([loop.create_task(session.append(user("and next")))]))
        assert texts(session)[-2:] == ["next", "and next"]
        assert_memory_is_file(session)
        loop.run_until_complete(session.close())
        loop.close()
        if not interrupt.came:
            break
    assert at > 200
