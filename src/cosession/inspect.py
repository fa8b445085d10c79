"""Look at a session file line by line, without the lock and without changing anything.

1. Nothing is created, locked, written or mended. Other processes don't notice. Only where a turn
   is on, its lock is tried, for an instant: nothing else tells a turn from an interrupted one.
2. What is found was there at one moment: the header before and after the file's size must be the
   same, otherwise it is looked at again.
3. Lines are read in large pieces, so memory doesn't grow with the file. What others append
   afterwards is not seen.
4. What `settle` would do to leftovers is told by the same code that does it (`plan_repair`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
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
from .header import Appending, Header, Identity, Replacing
from .lock import LockFile, Peek
from .records import Revision
from .repair import Adopt, Cut, Splice, plan_repair
from .turn_lock import Turns

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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the file and its lock that isn't as a finished operation leaves it."""

    code: str
    """A word for scripts."""
    text: str
    remedy: str = ""
    """What the next opening for writing does about it; empty if there is nothing to do."""
    problem: bool = False
    """Whether it is more than a remark."""


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

    def _glance(self, peek: Peek | None, writer: int | None) -> _Glance:
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
        return _Glance(header, torn, status, writer, temporary, live=changed or busy)

    def _judge(self, lock: LockFile | None, peek: Peek | None, glance: _Glance) -> None:
        self.stop = self.readable = self.size
        header = glance.header
        with self._data() as fd:
            findings = [*_lock_findings(peek, glance)]
            if header is not None:
                findings += self._header_findings(fd, lock, header, glance)
            if all(finding.code != "unfinished-append" for finding in findings):
                findings += self._end_findings(fd)
            if lock is not None and header is not None and header.turn:
                findings.append(_turn_finding(self.path, lock, header.turn))
        self.findings = (*findings, *_folder_findings(self.path, glance))

    def _header_findings(
        self, fd: int, lock: LockFile | None, header: Header, glance: _Glance
    ) -> Iterator[Finding]:
        """Compare the file with what the header says of it; moves `stop` and `readable`."""
        intent = header.intent
        if isinstance(intent, Replacing):
            yield self._replace_finding(intent, lock, glance)
            if intent.identity == self._identity:
                return
        if not _speaks_of(header, self._identity, self.size):
            if not glance.live:
                yield self._foreign_finding(header)
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
            yield self._append_finding(fd, intent, lock)
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

    def _append_finding(self, fd: int, intent: Appending, lock: LockFile | None) -> Finding:
        tail = files.read_all(fd, intent.start, self.size)
        match plan_repair(intent, tail):
            case Cut():
                remedy = f"they are cut off and kept in {self.path}.torn"
            case Splice(start, stop):
                remedy = (
                    f"{stop - start} of them are taken out from between the lines of another "
                    "program; the file as it is now is kept as a rotated one"
                )
            case Adopt():
                remedy = "they stay" if tail else "the announcement is withdrawn"
        text = (
            f"a write of {intent.length} bytes at offset {intent.start} was announced and not "
            f"finished{_by(lock)}: {len(tail)} bytes are there"
        )
        return Finding("unfinished-append", text, remedy, problem=True)

    def _replace_finding(
        self, intent: Replacing, lock: LockFile | None, glance: _Glance
    ) -> Finding:
        if glance.live:
            return Finding("replacing", "the file is just being replaced")
        if intent.identity == self._identity:
            done = "the new file is in place", "it is taken as it is"
        else:
            done = "it did not come to that", "what was prepared for it is removed"
        text = f"a replacement of the file was announced and not finished{_by(lock)}: {done[0]}"
        return Finding("unfinished-replace", text, done[1], problem=True)

    def _foreign_finding(self, header: Header) -> Finding:
        if header.identity == self._identity:
            return Finding(
                "truncated",
                f"{header.committed - self.size} acknowledged bytes are gone from the end: a "
                "program that takes no lock cut them off",
                "what is left is read anew, and counts as a new generation",
                problem=True,
            )
        return Finding(
            "replaced-by-others",
            "the lock file speaks of another file: this one was copied here, or put in its place "
            "by a program that takes no lock",
            "it is read anew, and counts as a new generation",
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


@dataclass(frozen=True, slots=True)
class _Glance:
    """The header and the file's status as they were at about the same moment."""

    header: Header | None
    torn: bool
    """Whether there is a header that can't be read."""
    status: os.stat_result
    writer: int | None
    """The process that has the lock, where the system tells."""
    temporary: frozenset[str]
    """The names of temporary files, of a replacement under way or left over."""
    live: bool
    """Whether somebody is writing right now."""

    def since(self, first: _Glance) -> _Glance:
        """This look in the light of an earlier one: what changes is alive."""
        live = self.live or self.header != first.header
        return replace(self, live=live, temporary=self.temporary & first.temporary)

    def doubtful(self, identity: Identity) -> bool:
        """Whether a second look may show something better."""
        header = self.header
        if self.temporary and not self.live:
            return True
        if header is None:
            return self.torn
        if not _speaks_of(header, identity, self.status.st_size):
            return True
        return header.intent is not None and not self.live


def _turn_finding(path: str, lock: LockFile, token: int) -> Finding:
    turns = Turns(lock.path.removesuffix(".lock") + ".turn", beside=path)
    card = turns.read()
    known = card if card is not None and card.token == token else None
    who = known.holder if known else "a terminal that left no card"
    try:
        held = turns.held()
    except OSError:  # a reader who can't even try the lock gives it the benefit of the doubt
        held = True
    if held:
        return Finding("turn", f"it is the turn of {who}")
    where = f", which began at revision {known.began}," if known else ""
    return Finding(
        "interrupted-turn",
        f"the turn of {who}{where} was interrupted, and nobody can write messages before "
        "`cosession heal --turn keep` or `--turn roll-back` has settled it",
        problem=True,
    )


def _identity(status: os.stat_result) -> Identity:
    return Identity.of(status.st_dev, status.st_ino)


def _speaks_of(header: Header, identity: Identity, size: int) -> bool:
    if isinstance(header.intent, Replacing) and header.intent.identity == identity:
        return True
    return header.identity == identity and header.committed <= size


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


def _by(lock: LockFile | None) -> str:
    holder = lock.holder() if lock else None
    return f" (by {holder})" if holder else ""


def _lock_findings(peek: Peek | None, glance: _Glance) -> Iterator[Finding]:
    if glance.writer is not None:
        yield Finding("locked", f"process {glance.writer} has the lock")
    elif glance.live:
        yield Finding("locked", "another process is writing")
    if peek is None:
        yield Finding("no-lock-file", "there is no lock file: it was not opened for writing yet")
    elif glance.torn:
        yield Finding(
            "no-header",
            "the lock file's header can't be read",
            "it is made anew from the session's file",
        )


def _folder_findings(path: str, glance: _Glance) -> Iterator[Finding]:
    """Other files of the session in its folder."""
    busy = glance.live or glance.writer is not None
    if glance.status.st_nlink > 1:
        yield _names_finding(path, glance.status, busy)
    temporary = sorted(glance.temporary)
    if temporary and not busy:
        yield Finding(
            "temporary-files",
            f"{len(temporary)} temporary file(s) of processes that died: {', '.join(temporary)}",
            "they are removed",
            problem=True,
        )
    aside = f"{path}.torn"
    try:
        size = os.stat(aside).st_size
    except OSError:
        return
    yield Finding("put-aside", f"{size} bytes of undone writes were kept earlier, in {aside}")


def _names_finding(path: str, status: os.stat_result, busy: bool) -> Finding:
    twins = []
    for _, rotated in files.rotations(path):
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(rotated, follow_symlinks=False), status):
                twins.append(rotated)
    if status.st_nlink == 1 + len(twins):
        return Finding(
            "second-name",
            f"the file is also named {', '.join(twins)}: a replacement stopped half-way",
            "that name is removed",
            problem=not busy,
        )
    return Finding(
        "hard-linked",
        f"the file has {status.st_nlink} names (hard links), and would have as many locks",
        problem=not busy,
    )


def _message_offsets(data: bytes, offset: int) -> list[int]:
    found = []
    for row in data.split(b"\n"):
        if isinstance(classify(row), MessageLine):
            found.append(offset)
        offset += len(row) + 1
    return found
