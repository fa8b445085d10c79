"""Hold a session's lock: in another process, or in this one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosession import Session, _platform

BOUND = 20.0
"""Seconds after which anything here counts as hung."""

_HOLD = """
import os, sys, time
from cosession import Session, _platform
fd = _platform.open_file(sys.argv[1], os.O_RDWR | os.O_CREAT)
while not _platform.try_lock(fd):
    pass
print("held", flush=True)
line = sys.stdin.readline()          # "" if the parent died
time.sleep(float(line or 0))
_platform.unlock(fd)
print("free", flush=True)
sys.stdin.readline()
"""


class Lock:
    """The kernel's lock on a session's lock file, without any of the header."""

    def __init__(self, path: Path) -> None:
        self._fd = _platform.open_file(f"{path}.lock", os.O_RDWR | os.O_CREAT)
        self.held = _platform.try_lock(self._fd)

    def release(self) -> None:
        if self.held:
            self.held = False
            _platform.unlock(self._fd)

    def close(self) -> None:
        self.release()
        os.close(self._fd)


class Holder:
    """A process that has the lock."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, f"{path}.lock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def release(self, *, after: float = 0.0) -> None:
        """Have it let go of the lock in that many seconds; returns at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{after}\n")
        self._process.stdin.flush()

    def wait_released(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "free\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=BOUND)


_OTHER = """
import os, sys, time
from cosession import Session, _platform
for line in sys.stdin:
    path, seconds = line.rstrip("\\n").rsplit(" ", 1)
    fd = _platform.open_file(path, os.O_RDWR | os.O_CREAT)
    while not _platform.try_lock(fd):
        pass
    print("held", flush=True)
    time.sleep(float(seconds))
    _platform.unlock(fd)
    os.close(fd)
    print("free", flush=True)
"""


class Other:
    """A process that takes locks and lets go of them, again and again."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @contextmanager
    def holding(self, path: Path, seconds: float) -> Iterator[None]:
        """It has the session's lock for so long, from before the block begins; it ends with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}.lock {seconds}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            assert self._process.stdout.readline() == "free\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=BOUND)


@contextmanager
def held_elsewhere(path: Path) -> Iterator[Holder]:
    """Another process has the lock of the session at `path`, until released or the block ends."""
    holder = Holder(path)
    try:
        yield holder
    finally:
        holder.end()


@contextmanager
def held_here(path: Path) -> Iterator[Lock]:
    """Another handle in this process has the lock; `release()` lets go of it."""
    lock = Lock(path)
    try:
        assert lock.held
        yield lock
    finally:
        lock.close()


def is_free(path: Path) -> bool:
    """Whether another process could take the lock now."""
    probe = Lock(path)
    try:
        return probe.held
    finally:
        probe.close()


async def until_idle(session: Session[Any]) -> None:
    """Wait until no thread is committing: one that has settled an operation takes a moment more."""
    queue = session._queue
    assert queue is not None
    async with asyncio.timeout(BOUND):
        while not queue._exclusively(lambda: True):
            await asyncio.sleep(0.001)
