"""Ctrl-C at every instant: the call has happened or not, and nobody waits for our lock.

The interpreter raises `KeyboardInterrupt` where a Python function begins or behind a call of a C
function, nowhere else but at a loop's back edge. A profile function is called at just these
points, so raising at the first of them, at the second and so on is Ctrl-C at every instant.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_elsewhere, held_here, is_free
from cosession import BlockingSession, LockTimeout, Message
from cosession.interrupts import start
from cosession.operation import Operation

# A file object that Ctrl-C meets inside `open` is closed by the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

posix_only = pytest.mark.skipif(
    sys.platform == "win32", reason="a process can't send Ctrl-C to one other process on Windows"
)

Call = Callable[[BlockingSession[Message]], Any]


def _transact(session: BlockingSession[Message]) -> None:
    with session.transaction() as tx:
        tx.clear()
        tx.append([user("new"), user("new")])
        tx.checkpoint()


CALLS: dict[str, Call] = {
    "append": lambda s: s.append(user("new")),
    "append many": lambda s: s.append([user("new")] * 3),
    "checkpoint": lambda s: s.checkpoint(),
    "record usage": lambda s: s.record_usage(77),
    "set system prompt": lambda s: s.set_system_prompt("new"),
    "revert": lambda s: s.revert_to(0),
    "clear": lambda s: s.clear(),
    "transaction": _transact,
    "refresh": lambda s: s.refresh(),
    "history": lambda s: list(s.history),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture(autouse=True)
def bound() -> Iterator[None]:
    """A hang fails the test instead of stopping the run."""
    if sys.platform == "win32":
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError("hung")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Interrupt:
    """Raises `KeyboardInterrupt` at the n-th point of a block; `came` tells if it got there."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.came = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or frame.f_code.co_filename == __file__:
            return
        if frame.f_back is not None and frame.f_back.f_code.co_filename == __file__:
            return  # `armed` itself, or a call that has not begun
        if frame.f_code.co_name == "_remove":
            return  # a weak reference's callback, out of which nothing can be raised
        self.at -= 1
        if self.at == 0:
            self.came = True
            sys.setprofile(None)
            raise KeyboardInterrupt

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Run a block and swallow the interrupt."""
        gc.disable()
        sys.setprofile(self)
        try:
            yield
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
            gc.enable()


def snapshot(session: BlockingSession[Message]) -> tuple[Any, ...]:
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


def prepare(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    with BlockingSession(path) as session:
        session.append(user("old"))
        session.checkpoint()


@contextmanager
def prepared(path: Path) -> Iterator[BlockingSession[Message]]:
    """A session in which somebody else's messages are still to be folded."""
    prepare(path)
    with BlockingSession(path) as session:
        with BlockingSession(path) as other:
            other.append([user("old"), user("old")])
        yield session


def learn(call: Call, path: Path) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    with prepared(path) as session:
        session.refresh()
        before = snapshot(session)
        call(session)
        return before, snapshot(session)


def every_point(stride: int = 1, start: int = 1) -> Iterator[Interrupt]:
    """An interrupt at each point in turn, until one comes too late."""
    at = start
    while True:
        interrupt = Interrupt(at)
        yield interrupt
        if not interrupt.came:
            assert at > 2 * stride
            return
        at += stride


@pytest.mark.parametrize("name", CALLS)
def test_interrupted_at_many_points(path: Path, name: str) -> None:
    """Whatever Ctrl-C interrupts: whole or not at all, lock free at once, memory as the file."""
    _interrupt(path, name, {"append": 5, "history": 1}.get(name, 11))


@pytest.mark.deep
@pytest.mark.parametrize("name", CALLS)
def test_interrupted_at_every_point(path: Path, name: str) -> None:
    """The same at every single point."""
    _interrupt(path, name, 1)


def _interrupt(path: Path, name: str, stride: int) -> None:
    call = CALLS[name]
    before, after = learn(call, path)
    start = 1 + zlib.crc32(name.encode()) % stride  # elsewhere for every call
    for interrupt in every_point(stride, start):
        with prepared(path) as session:
            stale = snapshot(session)
            with interrupt.armed():
                call(session)
            assert is_free(path), interrupt.at
            now = snapshot(session)
            assert now in (stale, before, after)
            with BlockingSession(path) as other:
                assert snapshot(other) == now or now == stale
                assert snapshot(other) in (before, after)
                if not interrupt.came:
                    assert now == after or name == "history"
                other.append(user("other"), timeout=0)
            session.append(user("next"), timeout=5)
            assert [m.content for m in session.history][-2:] == ["other", "next"]
            assert snapshot(session) == on_disk(path)


def test_interrupted_while_it_waits_for_the_disk(path: Path) -> None:
    """Written or not, nobody was told; the lock is free, and memory is as the file."""
    for interrupt in every_point(stride=2):
        prepare(path)
        with BlockingSession(path, durability="power") as session:
            session.append(user("old"))
            before = snapshot(session)
            with interrupt.armed():
                session.append(user("new"))
            assert is_free(path), interrupt.at
            now = snapshot(session)
            assert now in (before, on_disk(path))
            session.append(user("next"), timeout=5)
            texts = [message.content for message in session.history]
            assert texts in (["old", "old", "new", "next"], ["old", "old", "next"])
            assert interrupt.came or "new" in texts
            assert snapshot(session) == on_disk(path)


@pytest.mark.parametrize("name", ["append", "clear"])
def test_interrupted_while_another_holds_the_lock(path: Path, name: str) -> None:
    """Ctrl-C in a wait for another process ends it: not happened, nor does it happen later."""
    call = CALLS[name]
    for interrupt in every_point(stride=5):
        with prepared(path) as session:
            session.refresh()
            before = snapshot(session)
            session_call = {"append": session.append, "clear": session.clear}[name]
            with held_here(path):
                arguments = (user("new"),) if name == "append" else ()
                with interrupt.armed(), suppress(LockTimeout):
                    session_call(*arguments, timeout=0.01)  # type: ignore[operator]
            deadline = time.monotonic() + BOUND
            while not is_free(path):
                assert time.monotonic() < deadline
            assert snapshot(session) == before == on_disk(path)
            call(session)


@pytest.mark.parametrize("other", ["append", "clear"])
def test_another_threads_operation_is_not_harmed(path: Path, other: str) -> None:
    """Ctrl-C in a thread that commits for another one too: the other's happens exactly once."""
    for interrupt in every_point(stride=5):
        with prepared(path) as session:
            queue = session._queue
            assert queue is not None
            request = session._request("append", None, session._add(user("theirs")))
            theirs = Operation(request, once=False)
            queue.add(theirs)
            settled = threading.Lock()  # an Event would suffer from Ctrl-C itself
            settled.acquire()
            queue.call_when_settled(theirs, _releasing(settled))
            with interrupt.armed():
                CALLS[other](session)
            queue.start_pass()
            assert settled.acquire(timeout=BOUND), interrupt.at
            theirs.outcome()
            with BlockingSession(path):
                pass  # opening removes the second name that an interrupted replace leaves
            everything = b"".join(file.read_bytes() for file in path.parent.glob("*.jsonl"))
            assert everything.count(b"theirs") == 1


def _releasing(lock: threading.Lock) -> Callable[[], None]:
    def release() -> None:
        with suppress(RuntimeError):  # told a second time
            lock.release()

    return release


def test_interrupted_open(path: Path) -> None:
    """After Ctrl-C in `open` the lock is free and the object can be opened, or is open."""
    for interrupt in every_point(stride=2):
        prepare(path)
        session = BlockingSession(path)
        with interrupt.armed():
            session.open()
        assert is_free(path), interrupt.at
        if session._queue is None:
            session.open()
        session.append(user("next"), timeout=5)
        session.close()
        assert on_disk(path)[0] == ["old", "next"]


def test_interrupted_close(path: Path) -> None:
    """After Ctrl-C in `close` another `close` finishes it, and the lock is free."""
    for interrupt in every_point():
        prepare(path)
        session = BlockingSession(path)
        session.open()
        with interrupt.armed():
            session.close()
        assert is_free(path)
        session.close()
        session.open()
        session.append(user("next"), timeout=5)
        session.close()


def test_interrupted_start_of_a_thread() -> None:
    """Ctrl-C while a thread is started is Ctrl-C, not an error about a lock of the library's."""
    for interrupt in every_point():
        with interrupt.armed():
            start(threading.Thread(target=int, daemon=True))


def test_interrupted_while_decoding(path: Path) -> None:
    """Ctrl-C while a long history is decoded doesn't double or lose messages."""
    lines = b"".join(b'{"role":"user","content":"%d"}\n' % number for number in range(700))
    path.write_bytes(lines)
    came = True
    at = 1
    while came:
        with BlockingSession(path) as session:
            interrupt = Interrupt(at)
            with interrupt.armed():
                len(session.history)
            assert [m.content for m in session.history] == [str(n) for n in range(700)]
            assert session.damage == ()
        came = interrupt.came
        at = at * 5 // 4 + 1


# ---- the real signal ------------------------------------------------------------------------

_WAIT = """
import asyncio, signal, sys
from cosession import BlockingSession, Message, Session, _platform
path = sys.argv[2]
message = Message(role="user", content="never")  # and what is imported for it: no import is hit
lock = _platform.lock
def wait_in_kernel(fd):
    print("waiting", flush=True)
    lock(fd)
_platform.lock = wait_in_kernel
async def main():
    # For its side effect: without a handler of the loop's own `asyncio.run` sleeps through a Ctrl-C
    # that comes in the instant before the loop goes to sleep, until the next one.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, int)
    async with Session(path) as session:
        await session.append(message)
if sys.argv[1] == "async":
    asyncio.run(main())
else:
    with BlockingSession(path) as session:
        session.append(message)
"""


@posix_only
@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_sigint_ends_a_wait(path: Path, kind: str) -> None:
    """A program that waits for another one's lock ends at once on Ctrl-C, and quietly."""
    path.write_bytes(b"")
    with held_elsewhere(path):
        child = subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", _WAIT, kind, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "waiting\n"
            began = time.monotonic()
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=BOUND)
            took = time.monotonic() - began
        finally:
            child.kill()
            child.communicate(timeout=BOUND)
        assert took < 10
        assert child.returncode == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert ", in append\n" in errors  # it was hit in the call, not on the way there
        for noise in ("Exception ignored", "was destroyed", "never retrieved", "Warning"):
            assert noise not in errors
    assert path.read_bytes() == b""


_STORM = """
import json, os, signal, sys
from cosession import BlockingSession, InvalidMessage
path, seconds = sys.argv[1], float(sys.argv[2])
armed = False
interrupts = 0
def handler(number, frame):
    global interrupts
    if armed:
        interrupts += 1
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, handler)
session = BlockingSession(path)
session.open()
session.append({"role": "user", "content": "first"})  # and what is imported on the way
session.clear()
print("ready", flush=True)
import time
acknowledged, tried = [], 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    tried += 1
    try:
        try:
            armed = True
            session.append({"role": "user", "content": str(tried)}, timeout=10)
            acknowledged.append(tried)
            if tried % 10 == 0:
                session.clear(timeout=10)
        finally:
            armed = False
    except (KeyboardInterrupt, InvalidMessage):  # pydantic hides some that come in its callbacks
        armed = False
signal.signal(signal.SIGINT, signal.SIG_IGN)
armed = False
session.append({"role": "user", "content": "last"}, timeout=10)
memory = [message.content for message in session.history]
session.close()
print(json.dumps([acknowledged, tried, interrupts, memory]), flush=True)
"""


@posix_only
@pytest.mark.parametrize("pause", [0.003, 0.0003], ids=["storm", "hail"])
def test_a_storm_of_signals(path: Path, pause: float) -> None:
    """Under a storm of Ctrl-C no acknowledged append is lost or doubled, and nothing hangs."""
    import json

    child = subprocess.Popen(
        [sys.executable, "-c", _STORM, str(path), "0.5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stop = threading.Event()

    def rain() -> None:
        while not stop.wait(pause) and child.poll() is None:
            child.send_signal(signal.SIGINT)

    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        thread = threading.Thread(target=rain, daemon=True)
        thread.start()
        output, errors = child.communicate(timeout=BOUND)
    finally:
        stop.set()
        child.kill()
        child.communicate(timeout=BOUND)
    assert child.returncode == 0, errors
    acknowledged, tried, interrupts, memory = json.loads(output)
    assert interrupts > 10
    written: list[str] = []
    for file in [*path.parent.glob("context_*.jsonl"), path]:
        written += [json.loads(line)["content"] for line in file.read_bytes().splitlines()]
    assert len(written) == len(set(written))
    assert {str(number) for number in acknowledged} <= set(written)
    assert tried >= len(acknowledged)
    assert memory == [json.loads(line)["content"] for line in path.read_bytes().splitlines()]
    with BlockingSession(path):
        pass  # opening removes what an interrupted replace left
    assert [name for name in os.listdir(path.parent) if name.endswith(".tmp")] == []
