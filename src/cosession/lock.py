"""The session's lock, and the header in its file: what processes tell each other about the session.

Everything is read and written under the lock, but for `Peek`, and for `holder`, which is for people
to read.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from . import _platform, trace
from .header import (
    CARD_AT,
    HEADER_AT,
    HEADER_SIZE,
    SPANS_AT,
    Appending,
    Header,
    announces_append,
    card_tail,
    pack,
    pack_appending,
    pack_card,
    pack_spans,
    spans_size,
    unpack,
    unpack_card,
)
from .kernel_lock import KernelLock
from .records import Holder

_PAGE = 4096
"""Bytes from a multiple of this on are written in one go or, by a killed process, not at all."""


class LockFile(KernelLock):
    """The session's lock, and the header in its file."""

    traced: trace.Commit | None

    def __init__(self, path: str, *, beside: str) -> None:
        super().__init__(path, beside=beside)
        self._card_tails: dict[str, bytes] = {}
        self._card, self._card_for, self._card_until = b"", "", 0.0
        self.serial = 0
        """That of the header as last read or written; the next one gets one more."""
        self._known: tuple[bytes, Header] | None = None
        """A header without an intent, as last read or written: its bytes, and what they say."""

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._card_tails.clear()
        self._card_for = ""

    def _trace(self, sink: trace.Sink) -> None:
        self.traced = trace.Commit(sink, self._beside, self._left_over())

    def _left_over(self) -> Holder | None:
        """Whose announcement has been left over, by a process that died; the lock is held."""
        try:
            header = _read_header(self._fd)
            if header is None or header.intent is None:
                return None
            return _read_card(self._fd)
        except OSError:
            return None  # whoever settles it will say so

    def holder(self) -> Holder | None:
        """Who seems to have the lock, for a message to people. May be called on any thread."""
        with self.peeking() as peek:
            if peek is None:
                return None
            pid = _platform.holder_of(peek.fd)
            card = _read_card(peek.fd)
            header = peek()
        if header and header.intent and (pid is None or (card and card.pid == pid)):
            return card
        # The card is that of an earlier operation: what the kernel says is all there is.
        return Holder(pid, socket.gethostname(), command=_command_of(pid)) if pid else None

    @contextmanager
    def peeking(self) -> Iterator[Peek | None]:
        """Read headers without the lock, on any thread; `None` if there is no lock file."""
        with self.opened() as fd:
            yield None if fd is None else Peek(fd)

    def read(self) -> Header | None:
        """The header, under the lock; `None` if there is none that can be used."""
        head = _platform.pread(self._fd, HEADER_SIZE, HEADER_AT)
        if self._known is not None and head == self._known[0]:
            return self._known[1]
        header = _parse_header(self._fd, head)
        self.serial = header.serial if header else 0
        self._known = (head, header) if header and header.intent is None else None
        return header

    def announce(self, header: Header, operation: str, *, durable: bool) -> None:
        """Write a header with an intent, and who has it, in one go; synced if `durable`."""
        table = pack_spans(header.intent) if isinstance(header.intent, Appending) else b""
        self.serial += 1
        self._announce(pack(header, self.serial), table, operation, durable=durable)
        if self.traced is not None:
            self.traced.announced(header.intent)

    def announce_append(
        self, header: Header, lines: Sequence[bytes], operation: str, *, durable: bool
    ) -> None:
        """The same for records behind *committed*."""
        self.serial += 1
        head, table = pack_appending(header, self.serial, lines)
        self._announce(head, table, operation, durable=durable)
        if self.traced is not None:
            self.traced.announced(Appending.of(header.committed, lines))

    def _announce(self, head: bytes, table: bytes, operation: str, *, durable: bool) -> None:
        if len(table) > _PAGE - SPANS_AT:
            # A kill may cut a write between two pages. The table means nothing before its header.
            self.write_at(SPANS_AT, table)
            table = b""
        if operation != self._card_for or time.monotonic() > self._card_until:
            self._make_card(operation)
        self.write_at(HEADER_AT, head + self._card + table)
        if durable:
            self.sync()

    def sync(self) -> None:
        """Have on the disk what has been written."""
        _platform.sync_data(self._fd)

    def publish(self, header: Header) -> None:
        """Write a header without an intent."""
        self.serial += 1
        head = pack(header, self.serial)
        self.write_at(HEADER_AT, head)
        self._known = (head, header) if header.serial == self.serial else None
        if self.traced is not None:
            self.traced.published(header)

    def _make_card(self, operation: str) -> None:
        """This process's card, for a second: since when it has the lock is no more exact."""
        tail = self._card_tails.get(operation)
        if tail is None:
            tail = self._card_tails[operation] = card_tail(
                Holder(
                    0,
                    socket.gethostname(),
                    _platform.user(),
                    _platform.terminal(),
                    operation,
                    command=os.path.basename(sys.argv[0] if sys.argv else ""),
                )
            )
        self._card = pack_card(os.getpid(), time.time(), tail)
        self._card_for, self._card_until = operation, time.monotonic() + 1


class Peek:
    """Reads headers while others may be writing them."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def empty(self) -> bool:
        return os.fstat(self.fd).st_size == 0

    def __call__(self) -> Header | None:
        """The header as it is now; `None` if there is none, or it was just being written."""
        return _read_header(self.fd)


def _read_header(fd: int) -> Header | None:
    return _parse_header(fd, _platform.pread(fd, HEADER_SIZE, HEADER_AT))


def _parse_header(fd: int, head: bytes) -> Header | None:
    size = spans_size(head) if announces_append(head) else 0
    return unpack(head, _platform.pread(fd, size, SPANS_AT) if size else b"")


def _read_card(fd: int) -> Holder | None:
    return unpack_card(_platform.pread(fd, SPANS_AT - CARD_AT, CARD_AT))


def _command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace").strip()[:64]
