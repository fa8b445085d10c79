"""The processes that do the doctor's work, and how long they are waited for."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

_START = 60.0
"""Seconds for Python to start. That says nothing about the folder, so it has a limit of its own."""

_SLICE = 0.1
"""Seconds of one wait: Windows lets no Ctrl-C interrupt a wait for a lock."""


class NoAnswer(Exception):
    """A helper did not come back in time, and was killed."""


class Refused(Exception):
    """The system refused what a helper was to do."""

    def __init__(self, text: str, errno: int | None = None, kind: str = "OSError") -> None:
        super().__init__(text)
        self.errno = errno
        self.kind = kind
        """The name of the exception's class, as it was in the helper."""


class Helper:
    """One process."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._next: bytes | None = None
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A group of its own: Ctrl-C is for the doctor, which then ends them in order.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._hear(_START)
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def ask(self, deed: str, **arguments: object) -> Any:
        """Have something done, and wait for the answer.

        Raises:
            Refused: The system said no.
            NoAnswer: It did not come back in time.
        """
        self.begin(deed, **arguments)
        return self.answer()

    def begin(self, deed: str, **arguments: object) -> None:
        """Have something done."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps({"deed": deed} | arguments).encode() + b"\n")
            self._popen.stdin.flush()
        except OSError as error:
            raise NoAnswer("the process that was to try it has died") from error

    def has_answered(self, within: float) -> bool:
        """Whether what was begun is done, after a wait of so many seconds at most."""
        if self._next is None:
            with suppress(queue.Empty):
                self._next = self._answers.get(timeout=within)
        return self._next is not None

    def answer(self) -> Any:
        """What came of what was begun; raises as `ask` does."""
        match self._hear(self._patience):
            case {"answer": answer}:
                return answer
            case {"refused": str(text), "errno": errno, "kind": str(kind)}:
                raise Refused(text, errno, kind)
            case other:
                raise RuntimeError(f"a helper failed: {other.get('defect', other)}")

    def kill(self) -> None:
        """End it now. One that hangs inside the kernel may outlive this, and is not waited for."""
        self._popen.kill()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=2)
        self._close()

    def dismiss(self) -> None:
        """Let it end by itself, which it does when nobody can tell it anything any more."""
        self._close()
        try:
            self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()

    def _close(self) -> None:
        assert self._popen.stdin is not None
        with suppress(OSError):
            self._popen.stdin.close()

    def _hear(self, within: float) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while not self.has_answered(_SLICE):
            if time.monotonic() > deadline:
                self.kill()
                raise NoAnswer(f"no answer within {within:g} s")
        line, self._next = self._next, None
        if not line:
            self.kill()
            raise NoAnswer("the process that was to try it has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as stdout:
            for line in stdout:
                self._answers.put(line)
        self._answers.put(b"")


class Crew:
    """Helpers by name, each started when it is first needed, and again after it has died."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.brief = min(2.0, patience / 5)
        """Seconds for what is tried again and again, well below the patience."""
        self._helpers: dict[str, Helper] = {}

    def __getitem__(self, name: str) -> Helper:
        helper = self._helpers.get(name)
        if helper is None or not helper.alive:
            helper = self._helpers[name] = Helper(self._patience)
        return helper

    def dismiss(self, *names: str) -> None:
        """Let these end, or all."""
        for name in names or tuple(self._helpers):
            helper = self._helpers.pop(name, None)
            if helper is not None:
                helper.dismiss()
