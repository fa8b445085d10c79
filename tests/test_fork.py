"""Forked and spawned children: what they inherit, and what they must not."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, held_here, is_free
from cosession import BlockingSession, LockTimeout, Session, _platform

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")

# Python 3.12 warns of every fork of a process with threads, which is what is tried out here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


def fork(work: Callable[[], Any]) -> int:
    """Do something in a forked child, which ends with status 0 if it worked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(int(BOUND))  # a child that hangs dies
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child: int) -> None:
    """The child has ended, and well."""
    deadline = time.monotonic() + 2 * BOUND
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"the child ended with {status}"
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


class Gate:
    """Two processes that wait for each other, by a pipe that both have."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self) -> None:
        os.write(self._write, b".")

    def wait(self) -> None:
        assert os.read(self._read, 1) == b"."

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


# ---- what a child can do --------------------------------------------------------------------


@forks
def test_parent_and_child_use_the_inherited_session(path: Path) -> None:
    """A session that was open before the fork works in both processes, each with its own lock."""
    with BlockingSession(path) as session:
        session.append(user("before"))

        def work() -> None:
            assert session.history[0].content == "before"
            for number in range(50):
                session.append(user(f"child{number}"), timeout=BOUND)
            session.close()

        child = fork(work)
        for number in range(50):
            session.append(user(f"parent{number}"), timeout=BOUND)
        wait(child)
        session.refresh()
        texts = [str(message.content) for message in session.history]
    assert texts[0] == "before"
    for name in ("child", "parent"):
        mine = [text for text in texts if text.startswith(name)]
        assert mine == [f"{name}{number}" for number in range(50)]


@forks
def test_a_child_sees_what_the_parent_knew(path: Path) -> None:
    """In a forked child the state is there at once: history, revision and the other figures."""
    with BlockingSession(path) as session:
        session.append([user("a"), user("b")])
        session.checkpoint()
        session.record_usage(5)
        revision = session.revision

        def work() -> None:
            assert session.revision == revision
            assert len(session.history) == 2
            assert session.token_count == 5
            assert session.checkpoints == (0,)
            session.append(user("c"), expect=revision, timeout=BOUND)

        wait(fork(work))


@forks
async def test_a_child_of_an_event_loop(path: Path) -> None:
    """A child forked inside a coroutine can use the session in an event loop of its own."""
    async with Session(path) as session:
        await session.append(user("a"))

        async def work() -> None:
            await asyncio.gather(*(session.append(user("c"), timeout=BOUND) for _ in range(3)))
            await session.close()

        def child_work() -> None:
            asyncio.events._set_running_loop(None)
            asyncio.run(work())

        child = fork(child_work)
        await session.append(user("b"), timeout=BOUND)
        await asyncio.to_thread(wait, child)
        await session.refresh()
        assert sorted(str(message.content) for message in session.history) == list("abccc")


@forks
def test_a_child_with_a_session_of_its_own(path: Path) -> None:
    """A child that opens the file anew and exits without closing leaves the parent alone."""
    with BlockingSession(path) as session:
        session.append(user("a"))

        def work() -> None:
            other = BlockingSession(path)
            other.open()
            other.append(user("b"), timeout=BOUND)

        wait(fork(work))
        session.append(user("c"), timeout=BOUND)
        assert [message.content for message in session.history] == ["a", "b", "c"]


# ---- locks ----------------------------------------------------------------------------------


@forks
def test_a_child_forked_in_the_middle_of_a_commit(
    path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child born while another thread commits neither has that lock nor takes it away."""
    import threading

    began, go_on = threading.Event(), threading.Event()
    sync = _platform.sync_data
    with BlockingSession(path, durability="power") as session:

        def slow(fd: int) -> None:
            began.set()
            assert go_on.wait(BOUND)
            sync(fd)

        monkeypatch.setattr(_platform, "sync_data", slow)
        thread = threading.Thread(
            target=session.append, args=(user("parent"),), kwargs={"timeout": BOUND}, daemon=True
        )
        thread.start()
        assert began.wait(BOUND)

        def work() -> None:
            monkeypatch.setattr(_platform, "sync_data", sync)
            try:
                session.append(user("too early"), timeout=0.05)
            except LockTimeout:
                pass
            else:
                raise AssertionError("the child got the lock that its parent has")
            gate.open()
            session.append(user("child"), timeout=BOUND)

        child = fork(work)
        gate.wait()
        assert not is_free(path)
        go_on.set()
        thread.join(BOUND)
        wait(child)
        session.refresh()
        assert [message.content for message in session.history] == ["parent", "child"]


@forks
def test_a_childs_doings_dont_release_the_parents_lock(path: Path) -> None:
    """Whatever the child does with the inherited session, the parent keeps the lock it has."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        assert session._store.lock.try_acquire()

        def work() -> None:
            try:
                session.append(user("b"), timeout=0)
            except LockTimeout:
                pass
            session.refresh()
            session.close()

        wait(fork(work))
        assert not is_free(path)
        session._store.lock.release()
        assert is_free(path)


_PARENT = """
import os, signal, sys, threading, time, warnings
from cosession import BlockingSession, _platform
warnings.simplefilter("ignore")
path = sys.argv[1]
session = BlockingSession(path, durability="power")
session.open()
began = threading.Event()
def slow(fd):
    began.set()
    time.sleep(60)
_platform.sync_data = slow
message = {"role": "user", "content": "x"}
threading.Thread(target=session.append, args=(message,), daemon=True).start()
assert began.wait(20)
child = os.fork()
if not child:
    print(os.getpid(), flush=True)  # by now it has let go of what is its parent's
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@forks
def test_a_dead_parents_lock_doesnt_live_on_in_its_child(path: Path) -> None:
    """A parent killed while it has the lock leaves it free, though a child of its lives on."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(path)], stdout=subprocess.PIPE, text=True
    )
    child = 0
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_free(path)
        parent.kill()
        parent.wait(BOUND)
        os.kill(child, 0)  # it lives
        assert is_free(path)
        with BlockingSession(path) as session:
            session.append(user("next"), timeout=0)
            assert [m.content for m in session.history][-1] == "next"
    finally:
        parent.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        parent.communicate(timeout=BOUND)


@forks
def test_a_child_of_a_waiting_parent(path: Path) -> None:
    """A child forked while the parent's thread waits for the lock isn't caught in that wait."""
    import threading

    with BlockingSession(path) as session:
        with held_here(path) as lock:
            thread = threading.Thread(target=session.append, args=(user("parent"),), daemon=True)
            thread.start()
            deadline = time.monotonic() + BOUND
            while not any("cosession" in t.name for t in threading.enumerate()):
                assert time.monotonic() < deadline

            def work() -> None:
                lock.close()
                session.append(user("child"), timeout=BOUND)

            child = fork(work)
            time.sleep(0.05)
            lock.release()
            wait(child)
            thread.join(BOUND)
        session.refresh()
        texts = sorted(str(message.content) for message in session.history)
        assert texts == ["child", "parent"]


# ---- multiprocessing ------------------------------------------------------------------------


def write_from_a_process(path: str, name: str, count: int) -> None:
    with BlockingSession(path) as session:
        for number in range(count):
            session.append(user(f"{name}{number}"), timeout=BOUND)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_multiprocessing(path: Path, method: str) -> None:
    """Children of every start method share the file with a parent whose session is open."""
    context: Any = multiprocessing.get_context(method)
    with BlockingSession(path) as session:
        session.append(user("before"))
        children = [
            context.Process(target=write_from_a_process, args=(str(path), name, 20))
            for name in "ab"
        ]
        for child in children:
            child.start()
        for number in range(20):
            session.append(user(f"c{number}"), timeout=BOUND)
        for child in children:
            child.join(2 * BOUND)
            assert child.exitcode == 0
            child.close()
        session.refresh()
        texts = [str(message.content) for message in session.history]
    assert len(texts) == 61
    for name in "abc":
        mine = [text for text in texts if text.startswith(name) and text != "before"]
        assert mine == [f"{name}{number}" for number in range(20)]
