"""An opt-in trace: who had the locks of a session, who waited for them, when, and for how long.

1. `COSESSION_TRACE=FILE` in the environment switches it on, for a program and those that it starts;
   `start` does for one process. While it is off, all that it costs is a look at `sink`.
2. All processes append to the same file, each event as one line in one write, so that lines of
   two processes never mix. A commit's line is written when its lock is free again: nobody waits
   for the trace.
3. A commit takes microseconds and has one line, at its end. Turns and waits for them take seconds
   and have two, so that one that was cut short shows as begun and not ended. A commit that was cut
   short is told by the next one, which finds its announcement in the lock file.
4. Times are whole microseconds of `time.perf_counter`, one clock for all processes of a machine
   from its boot on (Linux: CLOCK_MONOTONIC, macOS: mach_absolute_time, Windows:
   QueryPerformanceCounter; `time.monotonic` counts in steps of 16 ms there before Python 3.13). The
   line with which a process introduces itself says what time of day that is.
5. A trace that can't be written is given up with one warning. The session goes on.
6. A forked child introduces itself anew. What its parent began is not the child's to end.

The events and their fields are described in `docs/trace.md`.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from itertools import count

from . import _fork, _platform
from . import _json as json
from .header import Appending, Header, Identity, Replacing
from .records import Holder

log = logging.getLogger("cosession")

FORMAT = 1


class Sink:
    """The file that this process appends its events to. It is opened for the first one."""

    def __init__(self, path: str | os.PathLike[str], label: str) -> None:
        self.path = os.fspath(path)
        self.by = ""
        """The name of this process among those in the trace."""
        self._label = label
        self._target = ""
        self._fd = -1
        self._usable = True
        self._introducing = threading.RLock()
        self._numbers = count(1)
        _fork.watch(self)
        try:
            self.path = _platform.spelled(os.path.abspath(path))
            self._target = _platform.resolve(self.path)
        except (OSError, ValueError) as error:  # the folder that we are in is gone
            self._give_up(error)

    def tell(self, event: str, facts: Mapping[str, object]) -> None:
        """Append an event, or give up the trace. Never raises an error."""
        if not self._usable:
            return
        try:
            if facts["session"] == self._target:
                raise ValueError("it is the session itself")  # whose every line counts
            if not self.by:
                self._introduce()
            self._write({"event": event, "by": self.by, **facts})
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        log.warning("%s: the trace can't be written, and ends here: %s", self.path, error)

    def number(self) -> int:
        """A number for something that has a beginning and an end."""
        return next(self._numbers)

    def close(self) -> None:
        self._usable = False
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _introduce(self) -> None:
        with self._introducing:
            if self.by:
                return
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._fd = _platform.open_file(self.path, flags)
            by = f"{os.getpid()}-{os.urandom(3).hex()}"
            self._write(
                {
                    "event": "process",
                    "by": by,
                    "format": FORMAT,
                    "pid": os.getpid(),
                    "at": now(),
                    "clock": time.time_ns() // 1000,
                    "boot": _platform.boot_id().hex(),
                    "host": socket.gethostname(),
                    "user": _platform.user(),
                    "terminal": _platform.terminal(),
                    "command": os.path.basename(sys.argv[0] if sys.argv else ""),
                    "label": self._label,
                }
            )
            self.by = by

    def _write(self, event: dict[str, object]) -> None:
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        if os.write(self._fd, line) < len(line):
            raise OSError("only a part of a line could be written")

    def after_fork_in_child(self) -> None:
        # The file stays open: both append, and share no position that would matter.
        self.by = ""
        self._introducing = threading.RLock()


def start(path: str | os.PathLike[str], *, label: str = "") -> None:
    """Trace this process from now on, into a file that other processes may be tracing into.

    The file is made if it is missing, private to this user. `label` names the process in it.
    """
    global sink  # noqa: PLW0603 - a process has one trace, as it has one environment
    stop()
    sink = Sink(path, label)


def stop() -> None:
    """End the trace of this process."""
    global sink
    ended, sink = sink, None
    if ended is not None:
        ended.close()


def now() -> int:
    """Microseconds of the clock that all processes of a machine share."""
    return time.perf_counter_ns() // 1000


class Hold:
    """A lock that is held, for the line that is written when it has been let go of."""

    def __init__(self, sink: Sink, session: str) -> None:
        self.took = now()
        self.until = 0
        self._sink, self._session = sink, session

    def tell(self) -> None:
        """Append the line."""
        raise NotImplementedError


class Commit(Hold):
    """One hold of the session's lock: a pass of the queue, or a look for what is left over."""

    def __init__(self, sink: Sink, session: str, found: Holder | None) -> None:
        super().__init__(sink, session)
        self.asked = 0
        """Since when the pass waited; 0 if it found the lock free."""
        self.operations: list[str] = []
        self.failed = 0
        self._found = found
        self._bytes = 0
        self._replacement: Identity | None = None

    def announced(self, intent: Appending | Replacing | None) -> None:
        """Note how much is being appended, or that the file is being replaced."""
        match intent:
            case Appending():
                self._bytes += intent.length
            case Replacing(identity=identity):
                self._replacement = identity

    def published(self, header: Header) -> None:
        """Note the length of a new file."""
        if header.identity == self._replacement:
            self._bytes += header.committed

    def tell(self) -> None:
        facts: dict[str, object] = {"session": self._session}
        if self.asked:
            facts["asked"] = self.asked
        facts |= {
            "took": self.took,
            "until": self.until,
            "operations": self.operations,
            "bytes": self._bytes,
        }
        if self.failed:
            facts["failed"] = self.failed
        if self._replacement is not None:
            facts["replaced"] = True
        if self._found is not None:
            facts["found"] = {
                "pid": self._found.pid,
                "operation": self._found.operation,
                "since": round(self._found.since * 1e6),
            }
        self._sink.tell("commit", facts)


class TurnHold(Hold):
    """The turn's lock, held. Where that is for one operation only, nobody says that it began."""

    def __init__(self, sink: Sink, session: str) -> None:
        super().__init__(sink, session)
        self._facts = {"session": session, "id": sink.number(), "took": self.took, "label": ""}

    def began(self, label: str) -> None:
        """Note that it is a turn, and what for."""
        self._facts["label"] = label
        self._sink.tell("turn-began", self._facts)

    def tell(self) -> None:
        self._sink.tell("turn-ended", self._facts | {"until": self.until})


class TurnWait:
    """A wait for the turn."""

    def __init__(self, sink: Sink, session: str, asked: int) -> None:
        self._sink, self._pid = sink, os.getpid()
        self._facts = {"session": session, "id": sink.number(), "asked": asked}
        sink.tell("wait-began", self._facts)

    def ended(self, outcome: str) -> None:
        """Note how it ended: `came`, `gave up` or `failed`."""
        if self._pid == os.getpid():  # else it is the parent's
            self._sink.tell("wait-ended", self._facts | {"outcome": outcome, "until": now()})


def gave_up(sink: Sink, session: str, operation: str, waited: float) -> None:
    """Note that an operation no longer waits for the session's lock, after so many seconds."""
    until = now()
    asked = until - round(waited * 1e6)
    facts = {"session": session, "asked": asked, "until": until, "operation": operation}
    sink.tell("gave-up", facts)


sink: Sink | None = None
"""Where events go; `None` while nothing is traced."""

if os.environ.get("COSESSION_TRACE"):
    start(os.environ["COSESSION_TRACE"])
