"""A witness that knows nothing of our code: strace kills and refuses at the kernel's door."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("strace is Linux's", True)

from bad.strace_campaign import CALLS
from conftest import Tally
from crash.shim import CHANGING, READING

HERE = Path(__file__).parent
ACTS = ("append-one", "append-many", "revert", "restore")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EMFILE")

AS_SYSTEM_CALLS = {
    "open": {"openat"},
    "pwrite": {"pwrite64"},
    "pread": {"pread64"},
    "link": {"linkat", "link"},
    "replace": {"rename"},
    "remove": {"unlink"},
    "stat": {"newfstatat", "statx"},
    "fstat": {"newfstatat", "fstat"},
    "listdir": {"openat", "getdents64", "close"},
}
"""What the shim's names are in the kernel, where they are other ones."""

UNWRAPPED = {
    "the test's own": {"recvfrom", "sendto", "exit_group", "restart_syscall"},
    "asks where the file's position is, and moves nothing": {"lseek"},
    "reads of /proc and of the user database, for the card": {"read", "fstat"},
    "who and where we are, for the card": {"uname", "getuid", "getpid", "ioctl", "gettid"},
    "a temporary name": {"getrandom"},
    "the interpreter's memory, threads and clock": {
        "brk", "mmap", "munmap", "madvise", "mremap", "futex", "rt_sigaction", "rt_sigprocmask",
        "clock_nanosleep", "sched_yield",
    },
}  # fmt: skip
"""What the shim lets through, by why that is no instant at which a death could matter."""


@pytest.fixture(scope="module")
def strace() -> Iterator[subprocess.Popen[str]]:
    """The process that runs the campaigns, if strace may attach to a process here."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        command = ["strace", "-e", "inject=close:error=EIO:when=99", "-p", str(sleeper.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        tracer.terminate()
        tracer.communicate(timeout=20)
    finally:
        sleeper.kill()
        sleeper.communicate(timeout=20)
    if "attached" not in said:
        pytest.skip(f"strace may not trace here: {said.strip()}")
    server = subprocess.Popen(
        [sys.executable, "-m", "bad.strace_campaign"],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield server
    server.kill()
    server.communicate(timeout=20)


def campaign(server: subprocess.Popen[str], timeout: float, *arguments: str) -> Any:
    assert server.stdin is not None
    assert server.stdout is not None
    too_long = threading.Timer(timeout, server.kill)
    too_long.start()
    try:
        server.stdin.write(json.dumps(arguments) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
    finally:
        too_long.cancel()
    assert answer, f"no answer within {timeout} s"
    report = json.loads(answer)
    assert "traceback" not in report, report["traceback"]
    print(f"{arguments[1:]}: {report['cases']} injections, calls {report['calls']}")
    assert report["findings"] == []
    stepped = [name for name in CALLS if set(name.split(",")) & set(report["calls"])]
    assert report["untouched"] >= len(stepped), "it was not stepped to the end"
    return report


def calls_stepped(report: Any) -> int:
    """How many calls the undisturbed act makes of those that are stepped through."""
    calls = report["calls"]
    return sum(calls.get(name, 0) for names in CALLS for name in names.split(","))


@pytest.mark.parametrize("act", ["append-many", "revert"])
def test_killed_or_refused_at_any_call_of_the_kernel(
    strace: subprocess.Popen[str], tally: Tally, tmp_path: Path, act: str
) -> None:
    """SIGKILL at each write, rename, link, sync, truncation and open: whole, or nothing."""
    report = campaign(strace, 60, str(tmp_path), act, "kill")
    tally(report["cases"])
    assert report["cases"] == calls_stepped(report) >= 3


def test_the_shim_wraps_every_call_that_matters(
    strace: subprocess.Popen[str], tmp_path: Path
) -> None:
    """What the kernel sees of an act, and the shim doesn't count, can't matter: here is why."""
    wrapped = set[str]()
    for name in (*CHANGING, *READING, "flock"):
        wrapped |= AS_SYSTEM_CALLS.get(name, {name})
    seen = set[str]()
    for act in ("append-many", "restore"):
        for durability in ("process", "power"):
            seen |= set(campaign_calls(strace, tmp_path, act, durability))
    assert {"pwrite64", "write", "linkat", "rename", "fdatasync"} <= seen
    assert seen - wrapped - set().union(*UNWRAPPED.values()) == set()


def campaign_calls(
    server: subprocess.Popen[str], root: Path, act: str, durability: str
) -> dict[str, int]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([str(root), act, "look", durability]) + "\n")
    server.stdin.flush()
    calls: dict[str, int] = json.loads(server.stdout.readline())["calls"]
    return calls


@pytest.mark.deep
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("act", ACTS)
def test_killed_at_any_call_of_the_kernel(
    strace: subprocess.Popen[str], tally: Tally, tmp_path: Path, act: str, durability: str
) -> None:
    """The same for every act and both durabilities."""
    report = campaign(strace, 300, str(tmp_path), act, "kill", durability)
    tally(report["cases"])
    assert report["cases"] == calls_stepped(report)


@pytest.mark.deep
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("act", ACTS)
def test_refused_at_any_call_of_the_kernel(
    strace: subprocess.Popen[str], tally: Tally, tmp_path: Path, act: str, durability: str
) -> None:
    """The kernel refuses one call: a typed error and the state before, or the state after."""
    report = campaign(strace, 600, str(tmp_path), act, "refuse", durability, *ERRORS)
    tally(report["cases"])
    assert report["cases"] >= len(ERRORS) * 3
