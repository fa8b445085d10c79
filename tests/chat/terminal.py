"""A real pseudo-terminal with a chat on it, and a screen that shows what a person would see."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyte

from cosession.cli.output import printable

from .support import PATIENCE

_ROWS, _COLUMNS = 60, 100

_PROGRAM = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from cosession.cli import main; main()"
)

CTRL_C, CTRL_D, CTRL_U = "\x03", "\x04", "\x15"


class Terminal:
    """A chat with a keyboard and a screen. Use it as a context manager."""

    def __init__(self, path: Path, name: str, *options: str, term: str = "xterm-256color") -> None:
        self._screen = pyte.Screen(_COLUMNS, _ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._guard = threading.Lock()
        self.raw = b""
        """Every byte that the chat has written."""
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        environment = os.environ | {"TERM": term, "PYTHONUTF8": "1"}
        for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            environment.pop(variable, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "chat", str(path), "--name", name, *options],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._prompt = f"{printable(name)}>"

    def __enter__(self) -> Terminal:
        self.sees(self._prompt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=PATIENCE)
        os.close(self._master)
        if error is not None:
            print(f"---- {self._prompt}\n{self.text()}")

    def _read(self) -> None:
        with suppress(OSError):  # on Linux the end of the last process is an I/O error
            while data := os.read(self._master, 65536):
                with self._guard:
                    self.raw += data
                    self._stream.feed(data)

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._master, keys.encode())

    def enter(self, line: str) -> None:
        """Type a line, and the return key."""
        self.press(f"{line}\r")

    def text(self) -> str:
        """What is on the screen, without trailing space."""
        with self._guard:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def prompt(self) -> str:
        """The line with the prompt, and what is typed there."""
        return self.text().rpartition("\n")[2]

    def sees(self, *wanted: str) -> str:
        """Wait until all of this is on the screen, in this order; the screen."""
        deadline = time.monotonic() + PATIENCE
        while True:
            at, text = 0, self.text()
            for part in wanted:
                at = text.find(part, at) + 1
                if not at:
                    break
            if at:
                return text
            assert time.monotonic() < deadline, f"{wanted} are not on the screen:\n{text}"
            time.sleep(0.02)

    def shows_prompt(self, line: str) -> None:
        """Wait until the prompt is there with this behind it."""
        wanted = f"{self._prompt} {line}".rstrip()
        deadline = time.monotonic() + PATIENCE
        while self.prompt() != wanted:
            assert time.monotonic() < deadline, f"{wanted!r} is not the prompt:\n{self.text()}"
            time.sleep(0.02)

    def kill(self) -> None:
        """Have the chat die at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)

    def ends(self) -> int:
        """Wait for the end of the chat; its exit status."""
        return self.process.wait(timeout=PATIENCE)
