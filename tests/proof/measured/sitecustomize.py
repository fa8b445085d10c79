"""Loaded by every Python process while lines are counted: who is killed gives its count first.

A process that gets SIGKILL can't write down which lines it has run. So what would send it sends
SIGUSR1 instead to whoever has a handler for that, as each process here has; the handler writes them
down and kills its process. Whoever hasn't died after some seconds, or can't, is killed as it would
have been.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_PATIENCE = 3.0


def _save_and_die(*_: object) -> None:
    from coverage import Coverage  # type: ignore[import-not-found,unused-ignore]

    measuring = Coverage.current()
    try:
        if measuring is not None:
            measuring.save()
    finally:
        _kill(os.getpid(), signal.SIGKILL)


def _would_save(pid: int) -> bool:
    """Whether that process has a handler for SIGUSR1, and is not stopped."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            facts = dict(line.split(":", 1) for line in status)
    except (OSError, ValueError):
        return False
    caught = int(facts["SigCgt"], 16) >> (signal.SIGUSR1 - 1) & 1
    return bool(caught) and facts["State"].split()[0] in "RSD"


def _kill_in_the_end(pid: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if not _would_save(pid):
            break
    try:
        _kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill(pid: int, number: int) -> None:
    """`os.kill`, but for SIGKILL, which waits until the process is dead or nearly so."""
    if number == signal.SIGKILL and pid > 0 and pid != os.getpid() and _would_save(pid):
        _kill(pid, signal.SIGUSR1)
        _kill_in_the_end(pid)
        return
    _kill(pid, number)


def killpg(group: int, number: int) -> None:
    """`os.killpg`, the leader of the group first."""
    if number == signal.SIGKILL and group != os.getpgrp():
        try:
            kill(group, number)
        except ProcessLookupError:
            pass
    _killpg(group, number)


if sys.platform == "linux" and "COVERAGE_PROCESS_CONFIG" in os.environ:
    _kill = os.kill
    os.kill = kill
    _killpg = os.killpg
    os.killpg = killpg
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _save_and_die)
