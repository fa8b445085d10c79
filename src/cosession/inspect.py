"""Look at a session file line by line, without the lock and without changing anything.

1. Nothing is created, locked, written or mended. Other processes don't notice. Only where a turn
   is on, its lock is tried, for an instant: nothing else tells a turn from an interrupted one.
2. What is found was there at one moment: the header before and after the file's size must be the
   same, otherwise it is looked at again.
3. Lines are read in large pieces, so memory doesn't grow with the file. What others append
   afterwards is not seen.
4. What it finds besides the lines, and what is done about that, is put into words in `findings`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from zlib import crc32

from . import _platform, files
from .codec import (
    Broken,
    Checkpoint,
    MessageLine,
    Origin,
    Record,
    SystemPrompt,
    Unknown,
    Usage,
    classify,
)
from .errors import FileBusy, SessionMissing
from .files import translated
from .findings import (
    Finding,
    Glance,
    append_finding,
    folder_findings,
    foreign_finding,
    lock_findings,
    replace_finding,
    speaks_of,
    turn_finding,
)
from .header import Appending, Header, Identity, Replacing
from .lock import LockFile, Peek
from .records import Revision

if TYPE_CHECKING:
    from typing import Self

    from .messages import Message, MessageCodec

Kind = Literal[
    "message", "system prompt", "usage", "checkpoint", "fork", "unknown", "blank", "damaged"
]

_BATCH = 512
"""Lines that are decoded in one go."""

_KINDS: dict[type[Record], Kind] = {
    MessageLine: "message",
    SystemPrompt: "system prompt",
    Usage: "usage",
    Checkpoint: "checkpoint",
    Origin: "fork",
    Unknown: "unknown",
    Broken: "damaged",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file and what it holds."""

    number: int
    """Counted from 1, where reading began."""
    offset: int
    """Bytes from the start of the file to its first byte."""
    raw: bytes = field(repr=False)
    """The line without its newline."""
    record: Record | None
    """`None` for a blank line."""
    message: Message | None = None
    pending: bool = False
    """Whether readers don't see it yet: an unfinished write, or no newline at the end."""

    @property
    def kind(self) -> Kind:
        return "blank" if self.record is None else _KINDS[type(self.record)]

    @property
    def reason(self) -> str:
        """Why it can't be used; empty if it can."""
        return self.record.reason if isinstance(self.record, Broken) else ""

    @property
    def state(self) -> Literal["ok", "damaged", "pending"]:
        if self.pending:
            return "pending"
        return "damaged" if self.reason else "ok"


class Inspection:
    """What is there at one moment. Use it as a context manager: it keeps the file open.

    On Windows it opens the file for one piece at a time, since an open file blocks a replace.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lock_dir: str | os.PathLike[str] | None = None,
        patience: float = 0.25,
    ) -> None:
        """Look.

        Args:
            path: The session's file, live or rotated.
            lock_dir: Where its lock file lies, if not beside it.
            patience: Seconds for which an announced write may go on before it counts as left over
                (where the system doesn't tell who has the lock).

        Raises:
            SessionMissing: There is no such file.
            NotASession: Something other than a file is there.
            StorageError: It can't be read.
        """
        self.path = files.resolve(path)
        self._fd = -1
        self._identity = Identity(0, 0)
        self.size = 0
        """Bytes in the file."""
        self.stop = 0
        """Where `lines` ends: `size`, or, while a write is under way, where it began."""
        self.readable = 0
        """Up to where readers of the session see the file."""
        self.revision: Revision | None = None
        """Where a session stands that sees all of that; `None` if the header can't tell."""
        self.findings: tuple[Finding, ...] = ()
        if files.require_plain_file(self.path) is None:
            raise SessionMissing(self.path, "there is no such file")
        lock = _lock_file(self.path, lock_dir)
        try:
            with translated(self.path, "read the session"):
                self._look(lock, time.monotonic() + patience)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # ---- the lines --------------------------------------------------------------------------

    def lines(
        self, *, start: int = 0, progress: Callable[[int], None] | None = None
    ) -> Iterator[Line]:
        """Every line from the offset `start` on, which must be the start of one.

        Args:
            start: Bytes from the start of the file.
            progress: Called now and then with the offset reached.

        Raises:
            StorageError: The file can't be read, or (on Windows) was replaced meanwhile.
        """
        from .messages import Message, MessageCodec

        codec: MessageCodec[Message] = MessageCodec(Message)
        number, offset = 1, start
        for piece in self._pieces(start):
            rows = piece.split(b"\n")
            if not rows[-1]:
                rows.pop()
            for at in range(0, len(rows), _BATCH):
                for line in self._decoded(rows[at : at + _BATCH], number, offset, codec):
                    yield line
                    number, offset = line.number + 1, line.offset + len(line.raw) + 1
                if progress is not None:
                    progress(min(offset, self.stop))

    def start_of_last(self, messages: int) -> int:
        """The offset from which on there are that many messages; 0 if there are fewer.

        Reads the file from its end, and no more of it than is needed.
        """
        found = list[int]()
        position = self.stop
        window = files.CHUNK >> 3
        while position > 0 and len(found) < messages:
            begin = max(0, position - window)
            data = self._read(begin, position)
            if begin > 0:
                cut = data.find(b"\n") + 1
                if cut in (0, len(data)):
                    window *= 2  # one line that is longer than all of it
                    continue
                begin, data = begin + cut, data[cut:]
            found = _message_offsets(data, begin) + found
            position = begin
        if messages <= 0:
            return self.stop
        return found[-messages] if len(found) >= messages else 0

    def _decoded(
        self, rows: Sequence[bytes], number: int, offset: int, codec: MessageCodec[Message]
    ) -> Iterator[Line]:
        records = [classify(row) for row in rows]
        decoded = iter(codec.decode([r.line for r in records if isinstance(r, MessageLine)]))
        for row, record in zip(rows, records, strict=True):
            message = next(decoded) if isinstance(record, MessageLine) else None
            pending = offset + len(row) + 1 > self.readable
            if isinstance(message, Broken):
                yield Line(number, offset, row, message, None, pending)
            else:
                yield Line(number, offset, row, record, message, pending)
            number, offset = number + 1, offset + len(row) + 1

    def _pieces(self, start: int) -> Iterator[bytes]:
        """Whole lines in large pieces, and at last a line without its newline, if there is one."""
        window = files.CHUNK
        while start < self.stop:
            stop = min(start + window, self.stop)
            piece = self._read(start, stop)
            whole = piece.rfind(b"\n") + 1
            if whole:
                yield piece[:whole]
                start += whole
                window = files.CHUNK
            elif stop == self.stop or len(piece) < stop - start:
                if piece:
                    yield piece
                return
            else:
                window *= 2

    def _read(self, start: int, stop: int) -> bytes:
        with translated(self.path, "read the session"), self._data() as fd:
            return files.read_all(fd, start, stop)

    @contextmanager
    def _data(self) -> Iterator[int]:
        if self._fd < 0:
            self._fd = _platform.open_file(self.path, os.O_RDONLY)
            if _identity(os.fstat(self._fd)) != self._identity and self._identity != Identity(0, 0):
                self.close()
                raise FileBusy(self.path, "read on: the file was replaced meanwhile")
        try:
            yield self._fd
        finally:
            if not _platform.KEEPS_FILES_OPEN:
                self.close()

    # ---- the file and its lock --------------------------------------------------------------

    def _look(self, lock: LockFile | None, deadline: float) -> None:
        pause, first = 0.002, None
        while True:
            with _peeking(lock) as peek:
                writer = _platform.holder_of(peek.fd) if peek else None
                glance = self._glance(peek, writer)
                first = first or glance
                glance = glance.since(first)
                if not glance.doubtful(self._identity) or time.monotonic() >= deadline:
                    self._judge(lock, peek, glance)
                    return
            self.close()
            self._identity = Identity(0, 0)
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _glance(self, peek: Peek | None, writer: int | None) -> Glance:
        with self._data() as fd:
            header = peek() if peek else None
            status = os.fstat(fd)
            # Bytes behind *committed* that were there before this second look are announced in
            # it, or nobody's who takes the lock.
            changed = (peek() if peek else None) != header
        self._identity, self.size = _identity(status), status.st_size
        busy = writer is not None and header is not None and header.intent is not None
        torn = header is None and peek is not None and not peek.empty()
        with translated(os.path.dirname(self.path), "look for leftovers"):
            temporary = frozenset(files.temporary_files(self.path))
        return Glance(header, torn, status, writer, temporary, live=changed or busy)

    def _judge(self, lock: LockFile | None, peek: Peek | None, glance: Glance) -> None:
        self.stop = self.readable = self.size
        header = glance.header
        with self._data() as fd:
            findings = [*lock_findings(peek, glance)]
            if header is not None:
                findings += self._header_findings(fd, lock, header, glance)
            if all(finding.code != "unfinished-append" for finding in findings):
                findings += self._end_findings(fd)
            if lock is not None and header is not None and header.turn:
                findings.append(turn_finding(self.path, lock, header.turn))
        self.findings = (*findings, *folder_findings(self.path, glance))

    def _header_findings(
        self, fd: int, lock: LockFile | None, header: Header, glance: Glance
    ) -> Iterator[Finding]:
        """Compare the file with what the header says of it; moves `stop` and `readable`."""
        intent = header.intent
        if isinstance(intent, Replacing):
            yield replace_finding(intent, self._identity, lock, glance)
            if intent.identity == self._identity:
                return
        if not speaks_of(header, self._identity, self.size):
            if not glance.live:
                yield foreign_finding(header, self._identity, self.size)
            return
        mark = files.read_all(fd, header.committed - header.mark_length, header.committed)
        if crc32(mark) != header.mark:
            yield Finding(
                "rewritten",
                "the file was changed in place by a program that takes no lock",
                "it is read anew, and counts as a new generation",
                problem=True,
            )
            return
        self.readable = header.committed
        if glance.live:
            self.stop = header.committed
            self.revision = Revision(header.generation, self.stop)
        elif isinstance(intent, Appending):
            tail = files.read_all(fd, intent.start, self.size)
            yield append_finding(self.path, intent, tail, lock)
        else:
            self.readable = files.last_line_end(fd, header.committed, self.size)
            self.revision = Revision(header.generation, self.readable)
            if self.readable > header.committed:
                yield Finding(
                    "foreign-lines",
                    f"{self.readable - header.committed} bytes in whole lines at the end were "
                    "written by a program that takes no lock",
                    "they are adopted as they are",
                )

    def _end_findings(self, fd: int) -> Iterator[Finding]:
        """A last line without a newline, unless it belongs to a write that is under way."""
        if self.stop < self.size:
            return
        self.readable = files.last_line_end(fd, 0, self.size)
        if self.readable < self.size:
            yield Finding(
                "open-line",
                f"the last line, {self.size - self.readable} bytes at offset {self.readable}, "
                "has no newline",
                "it gets one",
                problem=True,
            )


def _identity(status: os.stat_result) -> Identity:
    return Identity.of(status.st_dev, status.st_ino)


def _lock_file(path: str, lock_dir: str | os.PathLike[str] | None) -> LockFile | None:
    """The handle for peeking; `None` if the folder of locks isn't there, which is not made."""
    if lock_dir is not None and not os.path.isdir(lock_dir):
        return None
    return LockFile(files.lock_path(path, lock_dir), beside=path)


@contextmanager
def _peeking(lock: LockFile | None) -> Iterator[Peek | None]:
    if lock is None:
        yield None
        return
    with lock.peeking() as peek:
        yield peek


def _message_offsets(data: bytes, offset: int) -> list[int]:
    found = []
    for row in data.split(b"\n"):
        if isinstance(classify(row), MessageLine):
            found.append(offset)
        offset += len(row) + 1
    return found
