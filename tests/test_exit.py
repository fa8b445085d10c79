"""The interpreter exits at once and quietly, whatever is pending; what is dropped is let go of."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aio.both import user
from aio.held import BOUND, held_elsewhere, held_here, is_free
from cosession import BlockingSession, Session

NOISE = ("Exception ignored", "was destroyed", "never retrieved", "never awaited", "Fatal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


# ---- exit with something pending ------------------------------------------------------------

_PRELUDE = """
import asyncio, sys, threading, time
from cosession import BlockingSession, Session
path = sys.argv[1]
message = {"role": "user", "content": "never"}
def bye(): print(time.time(), flush=True)
"""

PENDING = {
    "async, sys.exit": """
async def main():
    async with Session(path) as session:
        task = asyncio.create_task(session.append(message))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.sleep(0.05)
        bye()
        sys.exit(0)
asyncio.run(main())
""",
    "async, an exception": """
async def main():
    async with Session(path) as session:
        task = asyncio.create_task(session.append(message))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.sleep(0.05)
        bye()
        raise SystemExit
asyncio.run(main())
""",
    "async, Ctrl-C": """
import signal
async def main():
    async with Session(path) as session:
        asyncio.get_running_loop().call_later(0.05, lambda: (bye(), signal.raise_signal(2)))
        await session.append(message)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
""",
    "async, never closed": """
async def main():
    session = Session(path)
    await session.open()
    task = asyncio.create_task(session.append(message))
    await asyncio.sleep(0.05)
    bye()
asyncio.run(main())
""",
    "blocking, after a timeout": """
with BlockingSession(path) as session:
    try:
        session.append(message, timeout=0.05)
    except TimeoutError:
        pass
    bye()
""",
    "blocking, never closed": """
session = BlockingSession(path)
session.open()
try:
    session.append(message, timeout=0.05)
except TimeoutError:
    pass
bye()
""",
    "blocking, in a daemon thread": """
session = BlockingSession(path)
session.open()
threading.Thread(target=session.append, args=(message,), daemon=True).start()
while not any(thread.name == "cosession-commit" for thread in threading.enumerate()):
    time.sleep(0.001)  # until it waits: pydantic aborts a thread that exits inside of it
bye()
""",
    "blocking, closed under a thread": """
session = BlockingSession(path)
session.open()
def wait():
    try:
        session.append(message)
    except Exception as error:
        assert type(error).__name__ == "SessionClosed", error
threading.Thread(target=wait).start()
time.sleep(0.05)
bye()
session.close()
""",
}


def run(path: Path, code: str) -> tuple[float, str]:
    """Run a program; how long it took to exit once it had said goodbye, and its errors."""
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, str(path)],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    now = time.time()
    assert done.returncode == 0, done.stderr
    return now - float(done.stdout), done.stderr


@pytest.mark.parametrize("name", PENDING)
def test_exit_with_a_wait_pending(path: Path, name: str) -> None:
    """A program exits in a moment although another process has the lock that it waits for."""
    path.write_bytes(b"")
    with held_elsewhere(path):
        took, errors = run(path, PENDING[name])
    assert took < 10
    assert errors == ""
    assert path.read_bytes() == b""


QUIET = {
    "async": """
async def main():
    global session
    session = Session(path)
    await session.open()
    await session.append([message] * 3)
    bye()
asyncio.run(main())
""",
    "blocking": """
session = BlockingSession(path)
session.open()
session.append([message] * 3)
bye()
""",
    "in a cycle": """
session = BlockingSession(path)
session.self = session
session.open()
session.append([message] * 3)
bye()
""",
    "in atexit": """
import atexit
session = BlockingSession(path)
session.open()
def last():
    session.append([message] * 3)
    bye()
atexit.register(last)
""",
}


@pytest.mark.parametrize("name", QUIET)
def test_exit_without_close(path: Path, name: str) -> None:
    """A program that never closes its session exits without a word, and everything is written."""
    took, errors = run(path, QUIET[name])
    assert took < 10
    assert errors == ""
    with BlockingSession(path) as session:
        assert len(session.history) == 3
        assert session.repairs == ()


def test_a_follower_s_watch_ends_before_the_interpreter(path: Path) -> None:
    """No thread is in the middle of watchfiles when Python is torn down: that could be SIGABRT."""
    pytest.importorskip("watchfiles", reason="without watchfiles there is no such thread")
    code = """
import atexit
def watches(): return any(t.name == "cosession-follow" for t in threading.enumerate())
atexit.register(lambda: print("left over" if watches() else "over", file=sys.stderr))
session = BlockingSession(path)
session.open()
changes = session.follow()
session.append(message)
next(changes)
if watches(): bye()
"""
    took, errors = run(path, code)
    assert took < 10
    assert errors == "over\n"


def test_a_thread_of_the_callers_is_waited_for(path: Path) -> None:
    """A thread that isn't a daemon ends its append, as Python has it, though the main one ended."""
    code = """
session = BlockingSession(path)
session.open()
def work():
    session.append(message)
    session.close()
threading.Thread(target=work).start()
bye()
"""
    path.write_bytes(b"")
    with held_elsewhere(path) as holder:
        holder.release(after=1.0)
        run(path, code)
    with BlockingSession(path) as session:
        assert len(session.history) == 1


# ---- dropped without close ------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def settle(reached: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + BOUND
    while not reached() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.005)
    return reached()


@pytest.mark.filterwarnings("ignore:the session .* was not closed:ResourceWarning")
@pytest.mark.parametrize("contended", [False, True], ids=["free", "after a wait"])
def test_dropped_blocking_sessions_leak_nothing(path: Path, contended: bool) -> None:
    """Sessions that are dropped without `close` give back their files and their threads."""
    path.write_bytes(b"")
    files, threads = descriptors(), threading.active_count()
    for number in range(50):
        session = BlockingSession(path)
        session.open()
        if contended and number % 10 == 0:
            with held_here(path):
                try:
                    session.append(user("a"), timeout=0.01)
                except TimeoutError:
                    pass
        session.append(user("a"), timeout=BOUND)
        del session
    assert settle(lambda: descriptors() <= files)
    assert settle(lambda: threading.active_count() <= threads)
    assert is_free(path)


@pytest.mark.filterwarnings("ignore:the session .* was not closed:ResourceWarning")
async def test_dropped_sessions_leak_nothing(path: Path) -> None:
    """The same for the asynchronous session, which has a thread more often."""
    async with Session(path, durability="power") as first:
        await first.append(user("a"))
    files, threads = descriptors(), set(threading.enumerate())
    for _ in range(50):
        session = Session(path, durability="power")
        await session.open()
        await session.append(user("a"), timeout=BOUND)
        del session
    assert settle(lambda: descriptors() <= files)

    def ours() -> list[threading.Thread]:
        return [t for t in set(threading.enumerate()) - threads if "cosession" in t.name]

    assert settle(lambda: not ours())


def test_a_dropped_session_is_reported(path: Path) -> None:
    """Dropping an open session is a `ResourceWarning`, as with files; a closed one is none."""
    session = BlockingSession(path)
    session.open()
    with pytest.warns(ResourceWarning, match="was not closed"):
        del session
    closed = BlockingSession(path)
    closed.open()
    closed.close()
    del closed
    never_opened = BlockingSession(path)
    del never_opened
    gc.collect()


def test_noise_would_be_seen(path: Path) -> None:
    """The programs above are heard when they complain: with warnings on, the unclosed one is."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "always::ResourceWarning",
            "-c",
            _PRELUDE + "session = BlockingSession(path)\nsession.open()\ndel session\nbye()\n",
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    assert "was not closed" in done.stderr
    assert not any(noise in done.stderr for noise in NOISE)
