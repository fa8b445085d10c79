"""A cancelled operation has happened or not, and leaves the session and its lock in order.

Every operation is cancelled at its first suspension, at its second, and so on until it completes
before it can be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_elsewhere, held_here, is_free
from aio.suspended import acting_when_suspended
from cosession import BlockingSession, LockTimeout, Message, Session, SessionClosed
from cosession.event_loop import uncancelled

SHORTLY = 0.004
"""Seconds for which a lock is held here, so that a wait for it is seen from all sides."""

Call = Callable[[Session[Message]], Awaitable[Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


async def _transact(session: Session[Message]) -> None:
    async with session.transaction() as tx:
        tx.clear()
        tx.append([user("new"), user("new")])
        tx.checkpoint()


CALLS: dict[str, Call] = {
    "append": lambda s: s.append(user("new")),
    "append many": lambda s: s.append([user("new")] * 3),
    "append much": lambda s: s.append(user("new" * 100_000)),
    "checkpoint": lambda s: s.checkpoint(),
    "record usage": lambda s: s.record_usage(77),
    "set system prompt": lambda s: s.set_system_prompt("new"),
    "revert": lambda s: s.revert_to(0),
    "clear": lambda s: s.clear(),
    "transaction": _transact,
    "refresh": lambda s: s.refresh(),
}


def snapshot(session: Any) -> tuple[Any, ...]:
    return (
        [message.content for message in session.history],
        session.system_prompt,
        session.token_count,
        session.checkpoints,
        session.revision.position,
    )


def on_disk(path: Path) -> tuple[Any, ...]:
    with BlockingSession(path) as session:
        return snapshot(session)


async def until_free(path: Path) -> None:
    deadline = time.monotonic() + BOUND
    while not is_free(path):
        assert time.monotonic() < deadline, "the lock is not let go of"
        await asyncio.sleep(0.001)


@contextmanager
def held_until_told(path: Path) -> Iterator[Callable[[], None]]:
    """Another handle has the lock, and lets go of it `SHORTLY` after what is yielded is called."""
    with held_here(path) as lock:
        timer = threading.Timer(SHORTLY, lock.release)
        try:
            yield timer.start
        finally:
            if timer.ident is not None:
                timer.join(BOUND)


@contextmanager
def held_shortly(path: Path) -> Iterator[None]:
    """The same, whatever is going on."""
    with held_until_told(path) as let_go:
        let_go()
        yield


async def cancelled_at(
    call: Awaitable[Any],
    when: tuple[int, ...],
    delay: float | None,
    at_first: Callable[[], object] = int,
) -> bool:
    """Run a call, cancelling it at these suspensions; whether it was suspended so often.

    The cancellation comes at once, or after `delay` seconds, when the call may be further on.
    `at_first` is called at the first suspension.
    """
    reached = 0
    loop = asyncio.get_running_loop()

    async def run() -> None:
        await call

    def act(suspended: int) -> None:
        nonlocal reached
        reached = suspended
        if suspended == 1:
            at_first()
        if suspended in when:
            if delay is None:
                task.cancel()
            else:
                loop.call_later(delay, task.cancel)

    task = asyncio.ensure_future(acting_when_suspended(run(), act))
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), BOUND)
    assert task.done()
    if task.cancelled():
        assert reached >= when[0]
    return reached >= when[0]


async def prepared(path: Path, **options: Any) -> Session[Message]:
    for file in path.parent.iterdir():
        file.unlink()
    session = Session(path, **options)
    await session.open()
    await session.append(user("old"))
    await session.checkpoint()
    await session.append(user("old"))
    return session


async def learn(name: str, path: Path) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What the session looks like before a call and after it, undisturbed."""
    session = await prepared(path)
    before = snapshot(session)
    await CALLS[name](session)
    after = snapshot(session)
    await session.close()
    return before, after


WAYS: dict[str, dict[str, Any]] = {
    "inline": {},
    "on a thread": {"inline": False},
    "power": {"durability": "power"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("delay", [None, 0.0, 0.001], ids=["at once", "next", "later"])
@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_on_a_free_lock(
    path: Path, name: str, delay: float | None, way: str
) -> None:
    """Cancelled at any await, an operation has happened whole or not at all, and nothing hangs."""
    before, after = await learn(name, path)
    suspension, goes_on = 1, True
    while goes_on:
        session = await prepared(path, **WAYS[way])
        goes_on = await cancelled_at(CALLS[name](session), (suspension,), delay)
        now = snapshot(session)
        assert session.revision.position == path.stat().st_size
        assert now in (before, after)
        if not goes_on:
            assert now == after
        await until_free(path)
        assert now == on_disk(path)
        await session.append(user("next"), timeout=BOUND)
        assert snapshot(session) == on_disk(path)
        await session.close()
        suspension += 1
    assert suspension > 2 or way == "inline"  # where an append may not be suspended at all


@pytest.mark.parametrize("delay", [None, 0.002], ids=["at once", "later"])
@pytest.mark.parametrize("name", [name for name in CALLS if name != "refresh"])
async def test_cancelled_while_another_holds_the_lock(
    path: Path, name: str, delay: float | None
) -> None:
    """Cancelled while it waits for another handle, an operation lets go of a lock it still gets."""
    before, after = await learn(name, path)
    suspension, goes_on = 1, True
    while goes_on:
        session = await prepared(path)
        with held_until_told(path) as let_go:
            goes_on = await cancelled_at(CALLS[name](session), (suspension,), delay, let_go)
            now = snapshot(session)
            assert now in (before, after)
            if not goes_on:
                assert now == after
        await until_free(path)
        assert snapshot(session) == now == on_disk(path)
        await session.append(user("next"), timeout=BOUND)
        assert snapshot(session) == on_disk(path)
        await session.close()
        suspension += 1
    assert suspension > 2


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
@pytest.mark.parametrize("victim", [0, 1, 3], ids=["leader", "follower", "last"])
async def test_cancelling_one_of_many_harms_no_other(path: Path, victim: int, held: bool) -> None:
    """Of several operations in one batch one is cancelled; all the others happen, in order."""
    suspension, goes_on = 1, True
    while goes_on:
        session = await prepared(path, inline=False)
        calls: list[asyncio.Task[Any]] = []
        goes_on = False

        def start(session: Session[Message], index: int, at: int) -> asyncio.Task[Any]:
            async def run() -> None:
                await session.append(user(f"{index}"))

            def act(suspended: int) -> None:
                nonlocal goes_on
                if index == victim and suspended == at:
                    goes_on = True
                    task.cancel()

            task = asyncio.ensure_future(acting_when_suspended(run(), act))
            return task

        with held_shortly(path) if held else suppress():
            calls = [start(session, index, suspension) for index in range(4)]
            await asyncio.wait_for(asyncio.wait(calls), BOUND)
        for index, task in enumerate(calls):
            if index != victim:
                await task
        texts = [str(message.content) for message in session.history][2:]
        others = [str(index) for index in range(4) if index != victim]
        assert [text for text in texts if text != str(victim)] == others
        assert texts.count(str(victim)) <= 1
        if not calls[victim].cancelled():
            assert str(victim) in texts
        await until_free(path)
        assert snapshot(session) == on_disk(path)
        await session.append(user("next"), timeout=BOUND)
        await session.close()
        suspension += 1
    assert suspension > 2


@pytest.mark.parametrize("name", ["append", "append much", "clear"])
async def test_cancelled_twice(path: Path, name: str) -> None:
    """A second cancellation while the first is being settled changes nothing about the outcome."""
    before, after = await learn(name, path)
    for held in (False, True):
        suspension, goes_on = 1, True
        while goes_on:
            session = await prepared(path, durability="power")
            with held_shortly(path) if held else suppress():
                twice = (suspension, suspension + 1, suspension + 2)
                goes_on = await cancelled_at(CALLS[name](session), twice, None)
            now = snapshot(session)
            assert now in (before, after)
            await until_free(path)
            assert now == on_disk(path)
            await session.append(user("next"), timeout=BOUND)
            await session.close()
            suspension += 1


async def test_a_commit_in_progress_is_not_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled during a slow sync, an append ends when that ends, and has happened."""
    from cosession import _platform

    began, go_on = threading.Event(), threading.Event()
    session = await prepared(path, durability="power")
    sync = _platform.sync_data

    def slow(fd: int) -> None:
        began.set()
        assert go_on.wait(BOUND)
        sync(fd)

    monkeypatch.setattr(_platform, "sync_data", slow)
    task = asyncio.ensure_future(session.append(user("new")))
    assert await asyncio.to_thread(began.wait, BOUND)
    task.cancel()
    follower = asyncio.ensure_future(session.append(user("behind")))
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not task.done()
    assert is_free(path) == _platform.KEEPS_FILES_OPEN  # then nobody else waits for our disk
    assert not follower.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), BOUND)
    assert [message.content for message in session.history][:3] == ["old", "old", "new"]
    await asyncio.wait_for(follower, BOUND)
    assert snapshot(session) == on_disk(path)
    await session.close()


# ---- asyncio's own tools --------------------------------------------------------------------


async def test_wait_for_and_timeout(path: Path) -> None:
    """asyncio's time limits end a wait like any cancellation: not happened, lock handed back."""
    session = await prepared(path)
    before = snapshot(session)
    with held_here(path):
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(session.append(user("new")), 0.02)
        assert not isinstance(caught.value, LockTimeout)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await session.clear()
    await until_free(path)
    assert snapshot(session) == on_disk(path) == before
    await session.close()


async def test_the_shorter_of_two_time_limits_counts(path: Path) -> None:
    """An operation's own timeout inside a longer limit of the caller's raises `LockTimeout`."""
    session = await prepared(path)
    with held_here(path):
        async with asyncio.timeout(BOUND):
            with pytest.raises(LockTimeout):
                await session.append(user("new"), timeout=0.02)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    await session.close()


async def test_a_task_group_cancels_its_members(path: Path) -> None:
    """An error in a task group ends the siblings' waits; none of them happens later."""
    session = await prepared(path)
    before = snapshot(session)

    async def fail() -> None:
        await asyncio.sleep(0.02)
        raise ZeroDivisionError

    with held_here(path):
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(session.append(user("new")))
                group.create_task(fail())
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    await until_free(path)
    assert snapshot(session) == on_disk(path) == before
    await session.append(user("next"), timeout=BOUND)
    await session.close()


# ---- opening and closing --------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


async def test_cancelled_open(path: Path) -> None:
    """A cancelled open leaves the session closed, with no file open, and able to open again."""
    session = await prepared(path)
    await session.close()
    before = descriptors()
    for suspension in range(1, 4):
        for delay in (None, 0.0):
            session = Session(path)
            reached = await cancelled_at(session.open(), (suspension,), delay)
            if not reached:
                await session.close()
                continue
            with pytest.raises(SessionClosed):
                await session.append(user("new"))
            assert descriptors() == before
            await session.open()
            assert len(session.history) == 2
            await session.close()


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
async def test_cancelled_close(path: Path, held: bool) -> None:
    """A cancelled close has closed: what waits is refused, and no file stays open."""
    before = 0
    for suspension in range(1, 4):
        session = await prepared(path)
        waiting = None
        with held_here(path) if held else suppress():
            if held:
                waiting = asyncio.ensure_future(session.append(user("new")))
                await asyncio.sleep(0.005)
            await cancelled_at(session.close(), (suspension,), None)
            with pytest.raises(SessionClosed):
                await session.append(user("new"))
            if waiting is not None:
                with pytest.raises(SessionClosed):
                    await asyncio.wait_for(waiting, BOUND)
        await until_free(path)
        await session.close()
        deadline = time.monotonic() + BOUND
        while before and descriptors() > before and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
        before = before or descriptors()
        assert descriptors() <= before
        assert on_disk(path)[0] == ["old", "old"]


# ---- late winners ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_waiter_that_wins_late_hands_the_lock_back(path: Path, how: str) -> None:
    """A wait given up while another process has the lock doesn't take it when it comes free."""
    session = await prepared(path)
    before = path.read_bytes()
    with held_elsewhere(path) as holder:
        if how == "timeout":
            began = time.monotonic()
            with pytest.raises(LockTimeout) as caught:
                await session.append(user("new"), timeout=0.1)
            assert 0.09 <= time.monotonic() - began < 5
            if sys.platform == "linux":
                assert caught.value.holder is not None
                assert caught.value.holder.pid == holder.pid
                assert str(holder.pid) in str(caught.value)
        else:
            task = asyncio.ensure_future(session.append(user("new")))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        holder.release()
        holder.wait_released()
        await until_free(path)
        with held_elsewhere(path):
            pass
    assert path.read_bytes() == before
    await session.append(user("next"), timeout=BOUND)
    await session.close()


async def test_many_waits_given_up_leave_one_thread(path: Path) -> None:
    """However many waits are given up, one session has one thread, and none when it is closed."""
    started = set(threading.enumerate())
    session = await prepared(path)
    with held_here(path):
        for _ in range(20):
            with pytest.raises(LockTimeout):
                await session.append(user("new"), timeout=0.001)
        mine = [t for t in set(threading.enumerate()) - started if "cosession" in t.name]
        assert len(mine) <= 1
    await session.append(user("next"), timeout=BOUND)
    assert [message.content for message in session.history] == ["old", "old", "next"]
    await session.close()
    for thread in mine:
        thread.join(BOUND)
        assert not thread.is_alive()


async def test_no_thread_to_be_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, the call fails, hasn't happened, and can be repeated."""
    session = await prepared(path)
    await session.close()  # a slow disk may have given it a thread
    await session.open()
    before = path.read_bytes()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with held_here(path), monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            await session.append(user("new"), timeout=BOUND)
    assert path.read_bytes() == before
    await session.append(user("next"), timeout=BOUND)
    assert [message.content for message in session.history] == ["old", "old", "next"]
    await session.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_in_the_instant_in_which_the_work_ends_is_not_lost(
    fails: bool,
) -> None:
    """Work that must not be cut short ends, and then the cancellation is raised."""
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(uncancelled(work))
    await asyncio.sleep(0)
    if fails:
        work.set_exception(ValueError())
    else:
        work.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
