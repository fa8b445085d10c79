"""The bytes of the lock file: what processes tell each other about the data file. Pure.

1. Byte 0 is the lock byte. It is locked, never read and never written (on Windows a locked byte
   can be neither).
2. The header says how far the data file is good (*committed*), which file is meant (*identity*)
   and how often it was replaced (*generation*).
3. A write that is under way is announced first (*intent*), precisely enough that whoever finds
   the announcement left over can tell the announced bytes from anybody else's.
4. Everything is covered by a checksum. A header that fails it counts as no header at all, and is
   made anew from the data file: the header saves work and tells ours from foreign, but the data
   file alone is the session.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

from . import _json as json
from .records import Holder
from .values import value

HEADER_AT = 16
CARD_AT = 256
SPANS_AT = 512
HEADER_SIZE = CARD_AT - HEADER_AT
_CARD_SIZE = SPANS_AT - CARD_AT

_MAGIC = b"cosessn1"
_LAYOUT = struct.Struct("<8s QQQQQQ II 16s BxxxQ II QQ QQ")
_KIND_AT = struct.calcsize("<8s QQQQQQ II 16s")
_SPAN = struct.Struct("<II")
_CRC = struct.Struct("<I")
_PADDING = bytes(HEADER_SIZE - _LAYOUT.size - _CRC.size)
_NO_INTENT, _APPENDING, _REPLACING = 0, 1, 2
_APPENDING_BYTE = bytes([_APPENDING])
MASK = (1 << 64) - 1
"""Of devices and inodes, which are longer on some systems, 64 bits are compared."""


@value
class Identity:
    """Which file: device and inode (volume and file index on Windows), 64 bits of each."""

    device: int
    inode: int

    @classmethod
    def of(cls, device: int, inode: int) -> Identity:
        return cls(device & MASK, inode & MASK)


@value
class Span:
    """One announced record: its length in bytes, newline included, and its checksum."""

    length: int
    checksum: int

    @classmethod
    def of(cls, line: bytes) -> Span:
        return cls(len(line), crc32(line))


@value
class Appending:
    """These records are about to be written behind `start`."""

    start: int
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, start: int, lines: Sequence[bytes]) -> Appending:
        return cls(start, tuple([Span(len(line), crc32(line)) for line in lines]))

    @property
    def length(self) -> int:
        return sum(span.length for span in self.spans)


@value
class Replacing:
    """The file with this identity is about to take the session's name.

    Its first `kept` bytes are those of the file that it replaces.
    """

    identity: Identity
    kept: int


@value
class Header:
    """What the last process that held the lock left for the next one."""

    generation: int
    identity: Identity
    committed: int
    """Bytes of the data file that are good."""
    kept: int = 0
    """Bytes at the start that this generation shares with the one before."""
    modified: int = 0
    """The data file's modification time (ns) at `committed`: equal means nobody touched it."""
    mark_length: int = 0
    """How many bytes before `committed` the fingerprint covers."""
    mark: int = 0
    """Their checksum: unequal means that the file was rewritten by a program without our lock."""
    boot: bytes = bytes(16)
    intent: Appending | Replacing | None = None
    serial: int = 0
    """Counts the writes of the header: an equal header means that nothing happened in between."""
    turn: int = 0
    """Whose turn is on: a number drawn for it, 0 if there is none."""

    def announcing(self, intent: Appending | Replacing) -> Header:
        """The same with an intent."""
        return Header(
            self.generation,
            self.identity,
            self.committed,
            self.kept,
            self.modified,
            self.mark_length,
            self.mark,
            self.boot,
            intent,
            self.serial,
            self.turn,
        )


def pack(header: Header, serial: int | None = None) -> bytes:
    """The header's bytes, `HEADER_SIZE` of them, to be written at `HEADER_AT`.

    With `serial`, that one takes the place of the header's own.
    """
    number = header.serial if serial is None else serial
    match header.intent:
        case None:
            return _pack(header, number, _NO_INTENT, 0, 0, 0, 0, 0)
        case Replacing(identity, kept):
            return _pack(header, number, _REPLACING, kept, 0, 0, identity.device, identity.inode)
        case Appending(start, spans) as intent:
            checksum = crc32(pack_spans(intent))
            return _pack(header, number, _APPENDING, start, len(spans), checksum, 0, 0)


def pack_appending(header: Header, serial: int, lines: Sequence[bytes]) -> tuple[bytes, bytes]:
    """A header that announces these records behind *committed*, and their table."""
    if len(lines) == 1:
        table = _SPAN.pack(len(lines[0]), crc32(lines[0]))
    else:
        table = b"".join(map(_SPAN.pack, map(len, lines), map(crc32, lines)))
    start, checksum = header.committed, crc32(table)
    return _pack(header, serial, _APPENDING, start, len(lines), checksum, 0, 0), table


def _pack(
    header: Header,
    serial: int,
    kind: int,
    start: int,
    count: int,
    checksum: int,
    device: int,
    inode: int,
) -> bytes:
    identity = header.identity
    body = _LAYOUT.pack(
        _MAGIC,
        header.generation,
        identity.device,
        identity.inode,
        header.committed,
        header.kept,
        header.modified & MASK,
        header.mark_length,
        header.mark,
        header.boot,
        kind,
        start,
        count,
        checksum,
        device,
        inode,
        serial,
        header.turn,
    )
    return body + _CRC.pack(crc32(body)) + _PADDING


def pack_spans(intent: Appending) -> bytes:
    """The table of announced records, to be written at `SPANS_AT`."""
    return b"".join([_SPAN.pack(span.length, span.checksum) for span in intent.spans])


def announces_append(head: bytes) -> bool:
    """Whether these bytes, if they are a header, announce an append."""
    return head[_KIND_AT : _KIND_AT + 1] == _APPENDING_BYTE


def spans_size(head: bytes) -> int:
    """How many bytes of the table belong to a header; 0 if it announces no append."""
    if len(head) < _LAYOUT.size or head[: len(_MAGIC)] != _MAGIC:
        return 0
    if len(head) < _LAYOUT.size + _CRC.size or not _intact(head):
        return 0  # a torn one could claim any number
    fields = _LAYOUT.unpack_from(head)
    return int(fields[12]) * _SPAN.size if fields[10] == _APPENDING else 0


def unpack(head: bytes, table: bytes = b"") -> Header | None:
    """Read a header back; `None` if it is missing, torn, or of another version."""
    size = _LAYOUT.size
    if len(head) < size + _CRC.size or head[: len(_MAGIC)] != _MAGIC:
        return None
    if not _intact(head):
        return None
    (
        _,
        generation,
        device,
        inode,
        committed,
        kept,
        modified,
        mark_length,
        mark,
        boot,
        kind,
        start,
        count,
        spans_crc,
        other_device,
        other_inode,
        serial,
        turn,
    ) = _LAYOUT.unpack_from(head)
    intent: Appending | Replacing | None = None
    if kind == _APPENDING:
        table = table[: count * _SPAN.size]
        if len(table) != count * _SPAN.size or crc32(table) != spans_crc:
            return None
        intent = Appending(start, tuple(Span(*pair) for pair in _SPAN.iter_unpack(table)))
    elif kind == _REPLACING:
        intent = Replacing(Identity(other_device, other_inode), start)
    return Header(
        generation,
        Identity(device, inode),
        committed,
        kept,
        modified,
        mark_length,
        mark,
        boot,
        intent,
        serial,
        turn,
    )


def _intact(head: bytes) -> bool:
    checksum: int = _CRC.unpack_from(head, _LAYOUT.size)[0]
    return checksum == crc32(head[: _LAYOUT.size])


def card_tail(holder: Holder) -> bytes:
    """The part of a holder's card that stays the same from one operation to the next."""
    texts = [
        holder.operation[:24],
        holder.terminal[:24],
        holder.user[:24],
        holder.host[:48],
        holder.command[:64],
    ]
    while len(tail := json.dumps(texts)[1:].encode()) > _CARD_SIZE - 40:
        texts[-1] = texts[-1][:-8]
        if not texts[-1]:
            texts.pop()
    return tail


def pack_card(pid: int, since: float, tail: bytes) -> bytes:
    """A holder's card, to be written at `CARD_AT`: JSON, padded with NULs."""
    return (b"[%d,%.3f," % (pid, since) + tail).ljust(_CARD_SIZE, b"\0")


def unpack_card(card: bytes) -> Holder | None:
    """Read a card back; `None` if there is none or it can't be read."""
    try:
        pid, since, *texts = json.loads(card.rstrip(b"\0").decode())
        operation, terminal, user, host, command = [*map(str, texts), "", "", "", "", ""][:5]
        return Holder(int(pid), host, user, terminal, operation, float(since), command)
    except (ValueError, TypeError, RecursionError):
        return None
