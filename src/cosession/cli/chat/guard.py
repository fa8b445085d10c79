"""Ends an agent whose chat was killed: a process of its own, with a pipe from the chat as input.

1. The first line of the input names the agent's process group, a second one says that it is over.
2. If the input ends before that, the chat is gone, however it ended: the system closes a pipe whose
   writer was killed. Then the whole group is asked to end, and after two seconds made to.
3. It is started for each agent, so it loads nothing of the package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

GRACE = 2.0
"""Seconds that an agent gets to end when it is asked to."""

if sys.platform == "win32":
    KILL = signal.SIGTERM
else:
    KILL = signal.SIGKILL


def signal_group(pid: int, number: int) -> None:
    """Send a signal to an agent and all that it started; on Windows, end them.

    Raises:
        OSError: They are gone.
    """
    if sys.platform != "win32":
        os.killpg(pid, number)
    else:
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(pid)],  # noqa: S607
            capture_output=True,
            timeout=GRACE,
            check=False,
        )


def end(pid: int) -> None:
    """End an agent, and all that it started."""
    with suppress(OSError, subprocess.TimeoutExpired):  # they are gone
        signal_group(pid, signal.SIGTERM)
        if sys.platform != "win32":
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline:
                os.killpg(pid, 0)
                time.sleep(GRACE / 100)
        signal_group(pid, KILL)


def main() -> None:
    agent = sys.stdin.readline().strip()
    if agent and not sys.stdin.readline():
        end(int(agent))


if __name__ == "__main__":
    main()
