"""The blocking session, and that the asynchronous one never blocks its event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_elsewhere, held_here, is_free
from cosession import BlockingSession, LockTimeout, Session, SessionClosed, _platform


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


class Threads:
    """Calls on threads of their own, and what became of them."""

    def __init__(self, *calls: Any) -> None:
        self.results: list[Any] = [None] * len(calls)
        self._threads = [
            threading.Thread(target=self._run, args=(at, call), daemon=True)
            for at, call in enumerate(calls)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, at: int, call: Any) -> None:
        try:
            self.results[at] = call()
        except Exception as error:
            self.results[at] = error

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(BOUND)
            assert not thread.is_alive()
        return self.results


# ---- waiting --------------------------------------------------------------------------------


def test_a_timeout_names_the_holder(path: Path) -> None:
    """A wait that is over says for how long it was and which process is in the way."""
    with BlockingSession(path) as session:
        with held_elsewhere(path) as holder:
            began = time.monotonic()
            with pytest.raises(LockTimeout) as caught:
                session.append(user("a"), timeout=0.1)
            assert 0.09 <= time.monotonic() - began < 5
            assert caught.value.waited >= 0.09
            if sys.platform == "linux":
                assert caught.value.holder is not None
                assert caught.value.holder.pid == holder.pid
            holder.release()
            holder.wait_released()
            deadline = time.monotonic() + BOUND
            while not is_free(path):
                assert time.monotonic() < deadline
        assert path.read_bytes() == b""
        session.append(user("b"), timeout=BOUND)
        assert [message.content for message in session.history] == ["b"]


def test_an_uncontended_session_starts_no_thread(path: Path) -> None:
    """A call that finds the lock free commits on its own thread."""
    before = threading.active_count()
    with BlockingSession(path) as session:
        session.append(user("a"))
        session.clear()
        assert threading.active_count() == before


def test_threads_behind_a_held_lock_go_out_in_order(path: Path) -> None:
    """Threads that wait for another process all get through once it lets go."""
    with BlockingSession(path) as session:
        with held_here(path) as lock:
            threads = Threads(*(lambda n=n: session.append(user(str(n))) for n in range(5)))
            time.sleep(0.05)
            assert threads.results == [None] * 5
            lock.release()
            revisions = threads.join()
        order = sorted(range(5), key=lambda n: revisions[n])
        assert [message.content for message in session.history] == [str(n) for n in order]


def test_threads_with_different_patience(path: Path) -> None:
    """Of threads that wait together, the impatient give up and the patient get through."""
    with BlockingSession(path) as session:
        with held_here(path) as lock:
            threads = Threads(
                lambda: session.append(user("patient")),
                lambda: session.append(user("short"), timeout=0.05),
                lambda: session.append(user("none"), timeout=0),
            )
            deadline = time.monotonic() + BOUND
            while None in threads.results[1:]:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            lock.release()
            results = threads.join()
        assert isinstance(results[1], LockTimeout)
        assert isinstance(results[2], LockTimeout)
        assert [message.content for message in session.history] == ["patient"]


def test_close_ends_the_waits_of_other_threads(path: Path) -> None:
    """Closing while threads wait ends each with `SessionClosed`; nothing of theirs happens."""
    session = BlockingSession(path)
    session.open()
    with held_here(path):
        threads = Threads(*(lambda: session.append(user("a")) for _ in range(3)))
        time.sleep(0.05)
        session.close()
        assert [type(result) for result in threads.join()] == [SessionClosed] * 3
    assert path.read_bytes() == b""


def test_close_while_threads_append(path: Path) -> None:
    """A session closed under busy threads: what was acknowledged is in the file, once."""
    for _ in range(5):
        path.unlink(missing_ok=True)
        session = BlockingSession(path)
        session.open()
        done: list[str] = []

        def write(
            name: str, session: BlockingSession[Any] = session, done: list[str] = done
        ) -> None:
            for number in range(1000):
                session.append(user(f"{name}{number}"), timeout=BOUND)
                done.append(f"{name}{number}")

        threads = Threads(lambda: write("a"), lambda: write("b"))
        deadline = time.monotonic() + BOUND
        while len(done) < 20:
            assert time.monotonic() < deadline
        session.close()
        assert {type(result) for result in threads.join()} == {SessionClosed}
        with BlockingSession(path) as reader:
            texts = [message.content for message in reader.history]
        assert len(texts) == len(set(texts))
        assert set(done) <= set(texts)


def test_a_call_from_inside_a_call_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that calls in the middle of a commit gets an error, not a deadlock."""
    from cosession import CosessionError

    with BlockingSession(path, durability="power") as session:
        sync = _platform.sync_data
        refused: list[Exception] = []

        syncs: list[int] = []

        def handler(fd: int) -> None:
            syncs.append(fd)
            sync(fd)
            for call in (lambda: session.append(user("nested")), session.close):
                try:
                    call()
                except CosessionError as error:
                    refused.append(error)

        with monkeypatch.context() as patch:
            patch.setattr(_platform, "sync_data", handler)
            session.append(user("a"), timeout=BOUND)
        assert len(refused) == 2 * len(syncs) > 0
        session.append(user("b"), timeout=BOUND)
        assert [message.content for message in session.history] == ["a", "b"]


# ---- the event loop -------------------------------------------------------------------------


class Heart:
    """Beats every millisecond, and remembers the longest time between two beats."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.beats = 0

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self._beat())
        await asyncio.sleep(0.005)
        self.longest = 0.0
        try:
            yield
        finally:
            task.cancel()

    async def _beat(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            self.beats += 1
            last = now


async def test_a_held_lock_doesnt_block_the_loop(path: Path) -> None:
    """While another process has the lock, the event loop goes on."""
    heart = Heart()
    async with Session(path) as session:
        with held_elsewhere(path) as holder:
            holder.release(after=0.5)
            began = time.perf_counter()
            async with heart.beating():
                await session.append(user("a"), timeout=BOUND)
            blocked = time.perf_counter() - began
    assert blocked > 0.4
    assert heart.longest < blocked / 2


@pytest.mark.parametrize("name", ["append", "clear", "close"])
async def test_a_slow_sync_doesnt_block_the_loop(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk takes its time to sync, the event loop goes on."""
    heart = Heart()
    sync, syncing = _platform.sync_data, threading.Event()

    def slow(fd: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        syncing.set()
        time.sleep(0.3)
        sync(fd)

    session = Session(path, durability="power")
    await session.open()
    await session.append(user("a"))
    monkeypatch.setattr(_platform, "sync_data", slow)
    began = time.perf_counter()
    async with heart.beating():
        if name == "clear":
            await session.clear()
        else:
            pending = asyncio.ensure_future(session.append(user("b")))
            while not (syncing.is_set() or pending.done()):
                await asyncio.sleep(0.001)
            if name == "close":
                await session.close()
            await asyncio.gather(pending, return_exceptions=True)
    blocked = time.perf_counter() - began
    await session.close()
    assert blocked > 0.25
    assert heart.longest < blocked / 2


async def test_large_sessions_dont_block_the_loop(path: Path) -> None:
    """Opening, following and decoding 20 MB, and writing 20 MB, leave the event loop its turns.

    A machine may stand still for reasons of its own; not three times in a row just here.
    """
    blocked: dict[str, tuple[float, float]] = {}
    for attempt in range(3):
        blocked = await blocked_by_a_large_session(path.with_name(f"{attempt}.jsonl"))
        if not blocked:
            return
    pytest.fail(f"the whole, and for how long of it the loop stood still: {blocked}")


async def blocked_by_a_large_session(path: Path) -> dict[str, tuple[float, float]]:
    """What keeps the loop from going on, how long it takes, and for how long of that."""
    line = b'{"role":"user","content":"' + b"x" * 300 + b'"}\n'
    path.write_bytes(line * (20_000_000 // len(line)))
    heart = Heart()
    took: dict[str, tuple[float, float]] = {}

    async def timed(name: str, call: Any) -> None:
        began = time.perf_counter()
        async with heart.beating():
            await call
        took[name] = (time.perf_counter() - began, heart.longest)

    async with Session(path) as follower:
        with BlockingSession(path) as other:
            other.append([user("x" * 300)] * 30_000)
        await timed("refresh", follower.refresh())
        await timed("load", follower.load())
        await timed("append", follower.append([user("x" * 1_000_000)] * 20))
    path.write_bytes(line * (20_000_000 // len(line)))
    session = Session(path)
    await timed("open", session.open())
    await session.close()
    return {
        # Encoding before the lock is the caller's own work; what takes half a second on a busy
        # machine proves nothing.
        name: (whole, longest)
        for name, (whole, longest) in took.items()
        if longest >= max(whole * 0.75, 0.5)
    }
