"""What an operation costs: system calls, bytes and Python's calls, which no busy machine changes.

How long that takes is a matter for `benchmarks/`. These numbers may go down. One that goes up
needs a reason, and that reason a word in docs/design.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosession import BlockingSession, Message
from cost.probe import LARGE, LINE, MESSAGE, fill

TIMES = 8

INTERPRETER = {
    "brk", "mmap", "munmap", "mremap", "madvise", "futex", "getppid", "rt_sigaction",
    "rt_sigprocmask", "clock_nanosleep", "sched_yield", "getpid",
}  # fmt: skip
"""Memory, threads and our own marks; until Python 3.12 asyncio looks for forks."""

APPEND = {
    "flock": 2,  # lock, unlock
    "lstat": 1,  # is the lock still at its path?
    "pread64": 1,  # the header
    "stat": 1,  # is the session still at its path, and as the header says?
    "pwrite64": 2,  # announce, publish
    "write": 1,
    "fstat": 1,  # did others write as well? when was that?
}
"""What an append that meets no obstacle asks of the system."""


@dataclass
class Cost:
    """Of one operation, the middle of some."""

    calls: dict[str, float]
    bytes_read: float
    bytes_written: float

    @property
    def total(self) -> float:
        return sum(self.calls.values())


def cost(name: str, folder: Path, times: int = TIMES) -> Cost:
    """Count what an operation asks of the system, as strace sees it."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = folder / "strace.log"
    command = ["strace", "-f", "-qq", "-o", str(log), sys.executable, "-m", "cost.probe", name]
    child = subprocess.run(
        [*command, str(times), str(folder)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in child.stderr and "not permitted" in child.stderr:
        pytest.skip("strace may not attach to a process here")
    assert child.returncode == 0, child.stderr
    _, between, _ = re.split(r"^\d+ +getppid\(.*\n", log.read_text(), flags=re.MULTILINE)
    found = re.findall(
        r"^\d+ +(\w+)\((.*?)(?:\)| <unfinished \.\.\.>)? += (-?\d+|\?)", between, re.MULTILINE
    )
    calls: Counter[str] = Counter()
    read = written = 0
    for call, given, result in found:
        if call in INTERPRETER:
            continue
        calls[named(call, given)] += 1
        if call in ("read", "pread64"):
            read += int(result)
        if call in ("write", "pwrite64"):
            written += int(result)
    return Cost(
        {call: number / times for call, number in calls.items()}, read / times, written / times
    )


def named(call: str, given: str) -> str:
    """The name of the function that glibc has for a call, which has several by now."""
    if call in ("newfstatat", "statx"):
        if '""' in given:
            return "fstat"
        return "lstat" if "NOFOLLOW" in given else "stat"
    return call


def test_an_append_makes_nine_calls(tmp_path: Path) -> None:
    """Each of them has a reason, and there is no other one."""
    assert cost("append", tmp_path).calls == APPEND


def test_an_append_on_the_event_loop_makes_the_same_calls(tmp_path: Path) -> None:
    """No thread is woken, and the loop isn't either."""
    assert cost("append-inline", tmp_path).calls == APPEND


def test_ten_messages_at_once_cost_the_calls_of_one(tmp_path: Path) -> None:
    """They are announced together and written in one write."""
    assert cost("append-ten", tmp_path).calls == APPEND


def test_fifty_coroutines_share_the_calls_of_one(tmp_path: Path) -> None:
    """Who appends at the same moment goes out in one batch: next to nothing for each."""
    together = cost("append-fifty", tmp_path)
    assert 0 < together.calls["flock"] <= 4
    assert together.total < 3 * sum(APPEND.values())


def test_a_synced_append_waits_for_the_disk_once(tmp_path: Path) -> None:
    """One sync of the data, between the write and its publishing, and nothing else."""
    assert cost("append-synced", tmp_path).calls == {**APPEND, "fdatasync": 1}


def test_an_append_to_a_large_session_costs_what_one_to_a_small_session_does(
    tmp_path: Path,
) -> None:
    """Not one byte of what is there already is read again."""
    found = cost("append-to-large", tmp_path)
    assert found.calls == APPEND
    assert found.bytes_read < 1000
    assert found.bytes_written < len(LINE) + 1000


@pytest.mark.parametrize("name", ["append-by-turns", "refresh-large"])
def test_what_others_append_costs_what_is_new(tmp_path: Path, name: str) -> None:
    """A terminal, or a follower, reads the new bytes of a large session and no more."""
    found = cost(name, tmp_path)
    assert found.bytes_read < 4 * len(LINE) + 4000 < LARGE / 1000
    assert found.total < 4 * sum(APPEND.values())


def test_what_others_append_takes_the_memory_of_what_is_new(tmp_path: Path) -> None:
    """Neither who appends to a large session nor who follows makes a copy of any of it."""
    path = tmp_path / "context.jsonl"
    fill(path)
    with BlockingSession(path) as one, BlockingSession(path) as other:
        changes = other.follow(timeout=0)
        one.append(MESSAGE)
        assert len(list(changes)) == 1
        changes = other.follow(timeout=0)
        tracemalloc.start()
        try:
            one.append([MESSAGE] * 10)
            assert len(list(changes)) == 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The tables of where lines begin are lengthened in place, which counts as new memory.
    tables = 4 * 8 * 1.2 * LARGE / len(LINE)
    assert 10 * len(LINE) < peak < tables + 100_000 < LARGE / 8


def test_python_is_called_no_more_often_than_it_has_to_be(tmp_path: Path) -> None:
    """Most of an append's time is the interpreter's: how often functions are called is counted."""
    with BlockingSession(tmp_path / "context.jsonl") as session:
        for _ in range(3):
            session.append(MESSAGE)
        ours, all_calls = calls_of(session)
    assert 20 < ours <= 50, ours  # fewer would mean that they aren't counted
    assert all_calls <= 125, all_calls


def calls_of(session: BlockingSession[Message]) -> tuple[int, int]:
    """How many functions an append calls: those in Python, and all."""
    counted: Counter[str] = Counter()

    def count(frame: Any, event: str, argument: Any) -> None:
        counted[event] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        session.append(MESSAGE)
    finally:
        sys.setprofile(before)
    return counted["call"], counted["call"] + counted["c_call"]
