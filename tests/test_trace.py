"""The trace: what is written of waits and holds, by whom, and that it never gets in the way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from aio.held import BOUND, Lock
from cosession import (
    BlockingSession,
    LockTimeout,
    Session,
    TurnTimeout,
    _platform,
    files,
    trace,
)

DOCS = Path(__file__).parent.parent / "docs" / "trace.md"

Event = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The trace of this process, which is on during the test."""
    file = tmp_path / "trace.jsonl"
    trace.start(file, label="tester")
    yield file
    trace.stop()


def events(log: Path, *names: str, by: str | None = None) -> list[Event]:
    """The events of a trace, every line of which must be one."""
    found: list[Event] = [json.loads(line) for line in log.read_bytes().splitlines()]
    return [
        event
        for event in found
        if (not names or event["event"] in names) and by in (None, event["by"])
    ]


def operations(commits: list[Event]) -> list[str]:
    return [name for commit in commits for name in commit["operations"]]


def run(program: str, log: Path, *arguments: object, check: bool = True) -> int:
    """Run a program in a process of its own, with the trace on by the environment."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"COSESSION_TRACE": str(log)},
        stdin=subprocess.DEVNULL,
        timeout=6 * BOUND,
        check=False,
    )
    assert not check or done.returncode == 0
    return done.returncode


# ---- what is written --------------------------------------------------------------------------


def test_the_environment_switches_it_on(path: Path, tmp_path: Path) -> None:
    """A program that knows nothing of it tells who it is, and what it held when."""
    log = tmp_path / "trace.jsonl"
    program = """
import sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session:
    session.append({"role": "user", "content": "hi"})
    with session.turn("answering"):
        session.append([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
"""
    before = time.time()
    run(program, log, path)
    process, look, commit, began, begin, append, end, ended = events(log)
    assert process["event"] == "process"
    assert process["by"].startswith(f"{process['pid']}-")
    assert before - 60 < process["clock"] / 1e6 < time.time() + 60
    assert {event["by"] for event in events(log)} == {process["by"]}
    sessions = {
        event["session"] for event in events(log) if event is not process and "session" in event
    }
    assert sessions == {files.resolve(path)}
    assert [look["operations"], commit["operations"]] == [[], ["append"]]
    assert [look["bytes"], commit["bytes"]] == [0, len('{"role":"user","content":"hi"}\n')]
    assert [e["operations"] for e in (begin, append, end)] == [
        ["begin a turn"],
        ["append"],
        ["end a turn"],
    ]
    assert (began["event"], began["label"]) == ("turn-began", "answering")
    assert (ended["event"], ended["label"], ended["id"]) == ("turn-ended", "answering", began["id"])
    assert look["took"] <= look["until"] <= commit["took"] <= commit["until"] <= began["took"]
    assert began["took"] == ended["took"] <= append["took"] <= append["until"] <= ended["until"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_file_is_private(path: Path, log: Path) -> None:
    """It is made for its user alone."""
    with BlockingSession(path) as session:
        session.append(user("hi"))
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_nothing_happens_while_it_is_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the module is called, not even the clock."""
    assert trace.sink is None, "COSESSION_TRACE is set for the tests"

    def called(*arguments: object) -> None:
        raise AssertionError("called although nothing is traced")

    for name in ("now", "gave_up", "Commit", "TurnWait", "TurnHold"):
        monkeypatch.setattr(trace, name, called)
    with BlockingSession(path) as one, BlockingSession(path) as other:
        with one.turn() as turn:
            turn.append(user("a"))
            with pytest.raises(TurnTimeout):
                other.append(user("b"), timeout=0.05)
        other.append(user("c"))


def test_start_and_stop_are_for_this_process(path: Path, log: Path) -> None:
    """The label is that of `start`; behind `stop` nothing is written; a second start goes on."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        (process,) = events(log, "process")
        assert (process["label"], process["pid"]) == ("tester", os.getpid())
        trace.stop()
        seen = log.read_bytes()
        session.append(user("b"))
        assert log.read_bytes() == seen
        trace.start(log)
        session.append(user("c"))
    assert len(events(log, "process")) == 2
    assert [e["operations"] for e in events(log, "commit")] == [[], ["append"], ["append"]]


def test_a_new_file_counts_with_its_length(path: Path, log: Path) -> None:
    """A revert says that the file was replaced, and how long the new one is."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        mark = session.checkpoint()
        session.append(user("b" * 1000))
        session.revert_to(mark)
    revert = events(log, "commit")[-1]
    assert (revert["operations"], revert["replaced"]) == (["revert"], True)
    assert revert["bytes"] == path.stat().st_size


def test_an_operation_that_fails_counts_as_failed(path: Path, log: Path) -> None:
    """What was refused in a pass is among its operations, and among its failures."""
    with BlockingSession(path) as session, pytest.raises(Exception, match="checkpoint"):
        session.revert_to(7)
    assert events(log, "commit")[-1]["failed"] == 1


# ---- waits --------------------------------------------------------------------------------------


def test_a_commit_says_since_when_it_waited(path: Path, log: Path) -> None:
    """The wait begins when the lock is found taken, and ends when it comes."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        lock = Lock(path)
        assert lock.held
        queue = session._queue
        assert queue is not None
        waiter = threading.Thread(target=session.append, args=(user("b"),))
        began = trace.now()
        waiter.start()
        until = time.monotonic() + BOUND
        while not queue._refused:  # a few tries in a row are one
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(0.05)
        released = trace.now()
        lock.close()
        waiter.join(BOUND)
        session.append(user("c"))
    free, waited, free_again = events(log, "commit")[-3:]
    assert "asked" not in free
    assert began <= waited["asked"] <= released - 45_000
    assert released <= waited["took"] <= waited["until"]
    assert "asked" not in free_again


async def test_what_goes_out_in_one_pass_is_one_event(path: Path, log: Path) -> None:
    """The names of all operations of a batch are in its event."""
    async with Session(path) as session:
        await session.append(user("a"))
        lock = Lock(path)
        assert lock.held
        tasks = [asyncio.ensure_future(session.append(user(str(n)))) for n in range(5)]
        tasks.append(asyncio.ensure_future(session.record_usage(1)))
        await asyncio.sleep(0.05)
        lock.close()
        await asyncio.wait_for(asyncio.gather(*tasks), BOUND)
    behind = events(log, "commit")[2:]
    assert operations(behind) == ["append"] * 5 + ["record usage"]
    assert len(behind) < 6


async def test_what_takes_too_long_for_the_event_loop_is_told_once(path: Path, log: Path) -> None:
    """It goes to the thread: the hold that came to nothing says so, and that of the thread what."""
    async with Session(path) as session:
        await session.append(user("x" * 100_000))
    held = [event["operations"] for event in events(log, "commit")]
    assert held.count(["append"]) == 1
    assert held.index(["append"]) == len(held) - 1
    assert held.count([]) == len(held) - 1 >= 1 + _platform.KEEPS_FILES_OPEN  # opening, the loop


def test_who_gives_up_waiting_for_the_lock_says_so(path: Path, log: Path) -> None:
    """A timeout leaves an event with the length of the wait, and the name of the operation."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        lock = Lock(path)
        assert lock.held
        with pytest.raises(LockTimeout):
            session.append(user("b"), timeout=1)  # by then the thread sleeps in the kernel
        lock.close()
        deadline = time.monotonic() + BOUND
        while _platform.CAN_BLOCK and len(events(log, "commit")) < 3:  # it comes too late
            assert time.monotonic() < deadline
            time.sleep(0.002)
        session.append(user("c"))
    (gave_up,) = events(log, "gave-up")
    assert gave_up["operation"] == "append"
    assert 900_000 <= gave_up["until"] - gave_up["asked"] < BOUND * 1e6
    # Nor do those say that they waited: the lock that came too late, and what found it free.
    assert [event for event in events(log, "commit") if "asked" in event] == []


def test_turns_and_waits_for_them_have_a_beginning_and_an_end(path: Path, log: Path) -> None:
    """Who waits for a turn says so at once, and how it ended; holds don't overlap."""
    with BlockingSession(path) as one, BlockingSession(path) as other:
        with one.turn("first"):
            with pytest.raises(TurnTimeout), other.turn("never", timeout=0.1):
                pass
            waiter = threading.Thread(target=other.append, args=(user("b"),))
            waiter.start()
            deadline = time.monotonic() + BOUND
            while len(events(log, "wait-began")) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.002)
        waiter.join(BOUND)
    gave_up, came = events(log, "wait-ended")
    assert [gave_up["outcome"], came["outcome"]] == ["gave up", "came"]
    began = {event["id"]: event["asked"] for event in events(log, "wait-began")}
    assert began == {event["id"]: event["asked"] for event in (gave_up, came)}
    assert gave_up["until"] - gave_up["asked"] >= 90_000
    # Each is written behind the unlocking, so the next one's may be there first.
    first, second = sorted(events(log, "turn-ended"), key=lambda event: event["until"])
    assert [first["label"], second["label"]] == ["first", ""]
    assert first["until"] <= second["took"] <= came["until"]
    assert [event["label"] for event in events(log, "turn-began")] == ["first"]


async def test_a_cancelled_wait_for_a_turn_has_an_end(path: Path, log: Path) -> None:
    """It ends when it is given up, not when the lock would have come."""
    async with Session(path) as one, Session(path) as other, one.turn("first"):
        waiter = asyncio.ensure_future(other.append(user("b")))
        async with asyncio.timeout(BOUND):
            while not events(log, "wait-began"):
                await asyncio.sleep(0.002)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        (ended,) = events(log, "wait-ended")
        assert ended["outcome"] == "gave up"
    assert [event["label"] for event in events(log, "turn-ended")] == ["first"]


# ---- processes that fork and die ----------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_a_process_of_its_own(path: Path, log: Path) -> None:
    """It introduces itself, and doesn't end its parent's turn."""
    with BlockingSession(path) as session, session.turn("mine") as turn:
        turn.append(user("a"))
        assert trace.sink is not None
        wait = trace.TurnWait(trace.sink, str(path), trace.now())
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(int(BOUND))
                session.record_usage(7)
                wait.ended("gave up")
                turn._is_over()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert events(log, "turn-ended", "wait-ended") == []
        turn.append(user("b"))
    parent, forked = events(log, "process")
    assert (parent["pid"], forked["pid"]) == (os.getpid(), child)
    assert [e["operations"] for e in events(log, "commit", by=forked["by"])] == [["record usage"]]
    assert [e["by"] for e in events(log, "turn-ended")] == [parent["by"]]
    assert events(log, "commit", by=parent["by"])[-1]["operations"] == ["end a turn"]


def test_a_turn_whose_process_dies_has_begun_and_not_ended(path: Path, log: Path) -> None:
    """That it is missing its end is what shows."""
    program = """
import os, sys
from cosession import BlockingSession
session = BlockingSession(sys.argv[1])
session.open()
with session.turn("about to die") as turn:
    turn.append({"role": "user", "content": "a"})
    os._exit(9)
"""
    assert run(program, log, path, check=False) == 9
    (began,) = events(log, "turn-began")
    assert began["label"] == "about to die"
    assert events(log, "turn-ended") == []


DIES_COMMITTING = """
import os, sys
from cosession import BlockingSession, files
session = BlockingSession(sys.argv[1])
session.open()
session.append({"role": "user", "content": "a"})
files.write_all = lambda *arguments: os._exit(9)
session.append({"role": "user", "content": "b"})
"""


def test_a_commit_whose_process_dies_is_told_by_the_next_one(path: Path, log: Path) -> None:
    """It has no event of its own; whoever finds its announcement says whose it was."""
    before = time.time() * 1e6
    assert run(DIES_COMMITTING, log, path, check=False) == 9
    (dead,) = events(log, "process")
    assert [e["operations"] for e in events(log, "commit")] == [[], ["append"]]
    with BlockingSession(path) as session:
        session.append(user("c"))
    found = [event["found"] for event in events(log, "commit") if "found" in event]
    assert [(f["pid"], f["operation"]) for f in found] == [(dead["pid"], "append")]
    assert before - 1e6 < found[0]["since"] < time.time() * 1e6 + 1e6


def test_lines_of_many_processes_never_mix(path: Path, tmp_path: Path) -> None:
    """However many write at once, each event is a line, and none is missing."""
    log = tmp_path / "trace.jsonl"
    program = """
import sys, threading
from cosession import BlockingSession
def work():
    with BlockingSession(sys.argv[1]) as session:
        for number in range(50):
            session.record_usage(number)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            env=os.environ | {"COSESSION_TRACE": str(log)},
        )
        for _ in range(3)
    ]
    assert [child.wait(6 * BOUND) for child in children] == [0, 0, 0]
    assert operations(events(log, "commit")) == ["record usage"] * 300
    assert len(events(log, "process")) == 3
    holds = sorted((e["took"], e["until"]) for e in events(log, "commit") if e["operations"])
    assert all(a[1] <= b[0] + 1 for a, b in pairwise(holds))


# ---- a trace that can't be written --------------------------------------------------------------


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def use(path: Path) -> None:
    """Do what would be traced."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        with session.turn() as turn:
            turn.append(user("b"))
        assert len(session.history) == 2


@pytest.mark.parametrize("place", ["no such folder", "a folder", "a link"])
def test_a_trace_that_cannot_be_opened_is_given_up(
    path: Path, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The session works as ever, and one warning says that there is no trace."""
    log = tmp_path / "trace.jsonl"
    if place == "no such folder":
        log = tmp_path / "missing" / "trace.jsonl"
    elif place == "a folder":
        log.mkdir()
    elif sys.platform == "win32":
        pytest.skip("links need rights on Windows")
    else:
        log.symlink_to(tmp_path / "somebody's")
    trace.start(log)
    try:
        use(path)
    finally:
        trace.stop()
    (warning,) = warnings_in(caplog)
    assert "the trace can't be written" in warning
    assert not (tmp_path / "somebody's").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_ends_the_trace_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No space for an event is no error of the session."""
    trace.start("/dev/full")
    try:
        use(path)
    finally:
        trace.stop()
    assert len(warnings_in(caplog)) == 1


def test_half_a_line_ends_the_trace(
    path: Path, log: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a write that was cut off nothing is appended: it would be part of that line."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        seen = log.read_bytes()
        write = os.write
        descriptor = trace.sink._fd if trace.sink else -1

        def cut(fd: int, data: bytes) -> int:
            return write(fd, data[:10] if fd == descriptor else data)

        monkeypatch.setattr(os, "write", cut)
        session.append(user("b"))
        monkeypatch.undo()
        session.append(user("c"))
        assert len(session.history) == 3
    assert log.read_bytes() == seen + b'{"event":"'
    assert len(warnings_in(caplog)) == 1


def test_the_session_itself_takes_no_trace(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every line of it counts, so a trace into it is refused."""
    trace.start(path)
    try:
        use(path)
    finally:
        trace.stop()
    assert len(warnings_in(caplog)) == 1
    assert b"event" not in path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder that is in use stays there")
@pytest.mark.skipif(
    sys.version_info[:2] == (3, 13),
    reason="CPython 3.13.0 itself can't import `socket` in a folder that is gone",
)
def test_a_folder_that_is_gone_keeps_nobody_from_importing(tmp_path: Path, path: Path) -> None:
    """A relative name that means nothing any more ends the trace, not the program."""
    program = f"""
import os
os.mkdir({str(tmp_path / "gone")!r}); os.chdir({str(tmp_path / "gone")!r}); os.rmdir(os.getcwd())
from cosession import BlockingSession
with BlockingSession({str(path)!r}) as session:
    session.append({{"role": "user", "content": "a"}})
"""
    run(program, Path("trace.jsonl"))
    assert path.stat().st_size > 0


# ---- the page -----------------------------------------------------------------------------------


@pytest.mark.skipif(not DOCS.exists(), reason="docs/ is not beside the tests")
def test_the_events_on_the_page_are_those_that_are_written(path: Path, log: Path) -> None:
    """Each event shown has just the fields that a real one of its kind has."""
    with BlockingSession(path) as one, BlockingSession(path) as other:
        lock = Lock(path)
        with pytest.raises(LockTimeout):
            one.append(user("a"), timeout=0.05)
        lock.close()
        with one.turn("answering"), pytest.raises(TurnTimeout):
            other.append(user("b"), timeout=0.05)
    real = {frozenset(event) for event in events(log)}
    (block,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    shown = [json.loads(line) for line in block.splitlines()]
    optional = {"asked", "failed", "replaced", "found"}
    assert {event["event"] for event in shown} == {event["event"] for event in events(log)}
    for event in shown:
        keys = frozenset(event)
        assert keys in real or (event["event"] == "commit" and keys - optional in real), event
    named = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    assert {key for event in events(log) for key in event} <= named


def test_the_clock_is_the_same_for_all_processes() -> None:
    """Times of two processes can be compared: another one's now lies between two of ours."""
    before = trace.now()
    program = "from cosession import trace; print(trace.now())"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=6 * BOUND, check=True
    )
    assert before <= int(said.stdout) <= trace.now()
