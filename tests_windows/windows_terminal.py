"""A second process for the tests: `python windows_terminal.py ROLE PATH [ARGUMENT …]`.

Each role says on its standard output how far it is, and goes on when a line comes in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cosession import BlockingSession, files, lock

PATIENCE = 60.0
"""Seconds after which a process that says nothing is taken for hung."""


# ---- the test's side ------------------------------------------------------------------------


class Terminal:
    """A process in one of the roles below."""

    def __init__(self, role: str, path: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, str(path), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUTF8": "1"},
            encoding="utf-8",
        )

    def hear(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, f"the process ended (status {self.process.wait(PATIENCE)})"
        return line.strip()

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Let it go on, wait for its end, and return all that it said."""
        said, _ = self.process.communicate("\n", timeout=PATIENCE)
        assert self.process.returncode == 0, f"status {self.process.returncode}"
        return said.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@contextmanager
def terminal(role: str, path: Path, *arguments: object) -> Iterator[Terminal]:
    """A process that doesn't outlive the block."""
    process = Terminal(role, path, *arguments)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()
        for pipe in (process.process.stdin, process.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass  # what was still to be flushed had nobody to read it


# ---- the process's side ---------------------------------------------------------------------


def say(text: object) -> None:
    print(text, flush=True)


def wait() -> None:
    sys.stdin.readline()


def hold(path: str, times: str = "1") -> None:
    """Hold the session's lock and no more; say when it was given back."""
    lock_file = lock.LockFile(f"{path}.lock", beside=path)
    for _ in range(int(times)):
        assert lock_file.acquire(wanted=lambda: True)
        say("holding")
        wait()
        released = time.time()
        lock_file.release()
        say(released)
        wait()


def stick(path: str) -> None:
    """Stop in the middle of an append: announced, and half of its bytes written."""
    write_all = files.write_all

    def write_half(fd: int, data: bytes, placed: list[tuple[int, int]] | None = None) -> None:
        write_all(fd, data[: len(data) // 2], placed)
        say("stuck")
        wait()
        write_all(fd, data[len(data) // 2 :], placed)

    with BlockingSession(path) as session:
        files.write_all = write_half
        session.append({"role": "user", "content": "from the stuck one"})
    say("done")


def append(path: str, name: str, count: str) -> None:
    """Append messages, and say which were acknowledged."""
    with BlockingSession(path) as session:
        say("ready")
        wait()
        for number in range(int(count)):
            text = f"{name}-{number}"
            session.append({"role": "user", "content": text})
            say(text)


def revert(path: str, count: str) -> None:
    """Set a checkpoint and revert to it, again and again."""
    with BlockingSession(path) as session:
        say("ready")
        wait()
        for _ in range(int(count)):
            session.revert_to(session.checkpoint())
        say("done")


def read(path: str) -> None:
    """Read the session in turn through a read-only session and as a plain file, until told.

    Says how many times; the state must never hold a damaged line.
    """
    stop = threading.Event()

    def stop_when_told() -> None:
        wait()
        stop.set()

    threading.Thread(target=stop_when_told, daemon=True).start()
    rounds = 0
    with BlockingSession(path, read_only=True) as session:
        say("reading")
        while not stop.is_set():
            session.refresh()
            assert not session.damage, session.damage
            for _ in range(200):
                try:
                    Path(path).read_bytes()
                    break
                except PermissionError:
                    time.sleep(0.001)  # it was just being replaced
            rounds += 1
    say(rounds)


def keep_open(path: str) -> None:
    """Have the file open as any program does that just reads it."""
    with open(path, encoding="utf-8") as file:
        file.readline()
        say("open")
        wait()
    say("closed")
    wait()


ROLES: dict[str, Callable[..., None]] = {
    role.__name__: role for role in (hold, stick, append, revert, read, keep_open)
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
