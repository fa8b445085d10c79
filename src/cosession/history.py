"""The messages of a session: lines as they were read, decoded when somebody looks at them. Pure.

1. A `MessageLog` knows of each message where its line begins and ends, and has the pieces of the
   file in which the lines are. It only grows; whoever shares it knows how many lines are his.
2. A line is decoded once, and is the same object from then on. A piece whose lines are all decoded
   is dropped.
3. A line that does not decode is no message. So how many there are shows only when every line is
   decoded, or proved to be one in a cheaper way. The last ones can be had without that.
"""

from __future__ import annotations

import gc
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from .codec import BOM, MESSAGE, Broken, UsualLines
from .records import Damage

T_co = TypeVar("T_co", covariant=True)

_PIECE = 512
"""Messages that are decoded, or freed, in one go."""

_PORTION = 96 << 10
"""Bytes that are proved in one go. Many more would need memory fresh from the system each time."""

_LARGE = 5_000
"""Messages that take more than a moment to be freed."""

_UNREAD = object()
_IS_MESSAGE = bytes(kind == MESSAGE for kind in range(256))

Decoder = Callable[[Sequence[bytes]], "Sequence[Any]"]
"""Turns message lines into messages, or into the `Broken` that says why not; same length."""

Prover = Callable[[bytes], bool]
"""Tells whether each line of a text surely holds a message, or means something else to us. False
says nothing. The last line has no newline."""


def proves_nothing(text: bytes) -> bool:
    return False


class MessageLog:
    """The messages of a line of states: append-only storage.

    Decoding may be asked for on any thread.
    """

    def __init__(self) -> None:
        self.end = 0
        """How far into the file the newest state reaches; -1 while that is being made."""
        self.offsets = array("Q")
        """Where in the file each message's line begins."""
        self._stops = array("Q")
        """Where the line behind it begins."""
        self._pieces: list[bytes] = []
        """The file's bytes in which the lines are, and nothing in place of those not needed."""
        self._bases = array("Q")
        """Where in the file each piece begins."""
        self._items: list[Any] = []
        """What the lines hold, as far as it was asked for: messages, or why there is none."""
        self._decoded = 0
        """So many lines at the start are decoded."""
        self._known = 0
        """Of so many lines at the start it is known whether they hold messages."""
        self._broken: list[int] = []
        """Which of them hold none."""
        self._dropped = 0
        """So many pieces at the start are."""
        self._decoding = threading.Lock()
        self._burial: _Burial | None = None
        """What frees a large storage."""

    # ---- growing --------------------------------------------------------------------------------

    def keep(self, offset: int, piece: bytes) -> None:
        """Have these bytes of the file for the lines that are going to be added."""
        self._pieces.append(piece)
        self._bases.append(offset)

    def add(self, offset: int, stop: int) -> None:
        self.offsets.append(offset)
        self._stops.append(stop)

    def add_usual(self, lines: UsualLines) -> None:
        """The messages among these lines."""
        starts, stops = lines.places(_IS_MESSAGE)
        self.offsets.extend(starts)
        self._stops.extend(stops)

    def copy(self, count: int, end: int) -> MessageLog:
        """The first `count` lines with what is decoded of them."""
        with self._decoding:
            return self._copy(count, end)

    def _copy(self, count: int, end: int) -> MessageLog:
        other = MessageLog()
        other.end = end
        other.offsets = self.offsets[:count]
        other._stops = self._stops[:count]
        pieces = bisect_left(self._bases, self._stops[count - 1]) if count else 0
        other._pieces = self._pieces[:pieces]
        other._bases = self._bases[:pieces]
        other._items = self._items[:count]
        other._decoded = min(self._decoded, count)
        other._known = min(self._known, count)
        other._broken = self._broken[: bisect_left(self._broken, count)]
        other._prepare_burial()
        return other

    def _prepare_burial(self) -> None:
        if self._burial is None and len(self._items) > _LARGE:
            self._burial = _Burial(self._items, self._pieces)

    # ---- looking --------------------------------------------------------------------------------

    @property
    def lines(self) -> list[bytes]:
        """The lines; empty ones in place of those that were decoded and dropped."""
        return self._lines(0, len(self.offsets))

    def messages(
        self, count: int, decode: Decoder, proves: Prover = proves_nothing
    ) -> History[Any]:
        """The valid messages among the first `count` lines."""
        return History(self, count, decode, proves)

    def length(self, count: int, decode: Decoder, proves: Prover) -> int:
        """How many valid messages are among the first `count` lines."""
        self._know_to(count, decode, proves)
        return count - bisect_left(self._broken, count)

    def message(self, number: int, count: int, decode: Decoder) -> Any:
        """A valid message by its number among those of the first `count` lines, which are known.

        Decodes those around it too, which costs little more, and is what is looked at next.
        """
        at = self._line_of(number) if self._broken else number
        items = self._items
        if at >= len(items) or items[at] is _UNREAD:
            start = at - at % _PIECE
            self._between(start, min(start + _PIECE, count), decode)
        return items[at]

    def _line_of(self, number: int) -> int:
        """The line of a valid message: as many further on as lines before it hold none."""
        broken = self._broken
        return number + bisect_right(
            range(len(broken)), number, key=lambda which: broken[which] - which
        )

    def last(self, count: int, wanted: int, decode: Decoder) -> list[Any]:
        """The last valid messages among the first `count` lines. Decodes none far before them."""
        found: list[Any] = []
        while count and len(found) < wanted:
            start = max(0, count - wanted + len(found))
            found[:0] = self.messages_between(start, count, decode)
            count = start
        return found

    def messages_between(self, start: int, stop: int, decode: Decoder) -> list[Any]:
        """The valid messages among lines `[start, stop)`."""
        items = self._between(start, stop, decode)
        return [item for item in items if not isinstance(item, Broken)]

    def between(self, start: int, stop: int, decode: Decoder) -> list[tuple[int, Any]]:
        """Lines `[start, stop)` with their offsets: messages, and `Damage` where there is none."""
        items = self._between(start, stop, decode)
        return [
            (self.offsets[at], self._damage(at, item) if isinstance(item, Broken) else item)
            for at, item in enumerate(items, start)
        ]

    def damage(self, count: int, decode: Decoder, proves: Prover = proves_nothing) -> list[Damage]:
        """The lines among the first `count` ones that hold no message."""
        self._know_to(count, decode, proves)
        return [self._damage(at, self._items[at]) for at in self._broken if at < count]

    def _damage(self, at: int, broken: Broken) -> Damage:
        offset = self.offsets[at]
        return Damage(offset, self._stops[at] - 1 - offset, broken.reason)

    # ---- decoding -------------------------------------------------------------------------------

    def _know_to(self, count: int, decode: Decoder, proves: Prover) -> None:
        missing = count - self._known
        if missing <= 0:
            return
        if missing <= _PIECE:
            proves = proves_nothing  # they may as well be decoded
        with self._decoding, _collector_at_rest(missing > _LARGE):
            while self._known < count:
                start = self._known
                behind = bisect_left(self.offsets, self.offsets[start] + _PORTION, start + 1)
                self._know(start, min(behind, count), decode, proves)

    def _know(self, start: int, stop: int, decode: Decoder, proves: Prover) -> None:
        is_unread = set(map(id, self._items[start:stop])) <= {id(_UNREAD)}
        if is_unread and all(proves(text) for text, _, _ in self._texts(start, stop)):
            self._note_broken(stop)
        elif self._decoded == start:
            self._advance(stop, decode)
        else:
            self._decode_ahead(start, stop, decode)
            self._note_broken(stop)

    def decode_to(self, count: int, decode: Decoder) -> None:
        """Decode the first `count` lines."""
        if self._decoded >= count:
            return
        with self._decoding, _collector_at_rest(count - self._decoded > _LARGE):
            self._advance(count, decode)

    def _advance(self, count: int, decode: Decoder) -> None:
        while self._decoded < count:
            stop = min(count, self._decoded + _PIECE)
            self._decode(self._decoded, stop, decode)
            if stop > self._known:
                self._note_broken(stop)
            self._decoded = stop
            self._dropped = self._drop_pieces(self._dropped, stop)
        self._prepare_burial()

    def _note_broken(self, stop: int) -> None:
        """Have the lines up to here known: decoded, or proved to be messages."""
        start, items = self._known, self._items
        while self._broken and self._broken[-1] >= start:
            self._broken.pop()  # an attempt that Ctrl-C interrupted
        if Broken in set(map(type, items[start:stop])):
            self._broken += [at for at in range(start, stop) if isinstance(items[at], Broken)]
        self._known = stop

    def _between(self, start: int, stop: int, decode: Decoder) -> list[Any]:
        """What lines `[start, stop)` hold, decoded without those before them."""
        if start <= self._decoded:
            self.decode_to(stop, decode)
        else:
            with self._decoding:
                self._decode_ahead(start, stop, decode)
        return self._items[start:stop]

    def _decode_ahead(self, start: int, stop: int, decode: Decoder) -> None:
        first = bisect_left(self._bases, self._stops[start - 1])
        for at in range(start, stop, _PIECE):
            behind = min(stop, at + _PIECE)
            self._decode(at, behind, decode)
            first = self._drop_pieces(first, behind)

    def _decode(self, start: int, stop: int, decode: Decoder) -> None:
        """Decode those of these lines that aren't yet."""
        items = self._items
        if len(items) < stop:
            items += [_UNREAD] * (stop - len(items))
        unread = [at for at in range(start, stop) if items[at] is _UNREAD]
        if len(unread) == stop - start:
            items[start:stop] = self._decoded_lines(start, stop, decode)
            return
        for at in unread:
            items[at : at + 1] = self._decoded_lines(at, at + 1, decode)

    def _decoded_lines(self, start: int, stop: int, decode: Decoder) -> Sequence[Any]:
        messages = decode(self._lines(start, stop))
        if len(messages) != stop - start:
            raise ValueError("a decoder returns a message for each line")
        return messages

    def _lines(self, start: int, stop: int) -> list[bytes]:
        lines: list[bytes] = []
        for text, first, behind in self._texts(start, stop):
            some = text.split(b"\n")
            if len(some) != behind - first or BOM in text:  # marks in between, or it is dropped
                base = self.offsets[first]
                some = [
                    text[start - base : stop - base - 1].removeprefix(BOM)
                    for start, stop in zip(
                        self.offsets[first:behind], self._stops[first:behind], strict=True
                    )
                ]
            lines += some
        return lines

    def _texts(self, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
        """The file from line `start` to line `stop`, a piece at a time: text, first and last line.

        Other records that stand between them are in it too.
        """
        while start < stop:
            at = bisect_right(self._bases, self.offsets[start]) - 1
            piece, base = self._pieces[at], self._bases[at]
            end = self._bases[at + 1] if at + 1 < len(self._bases) else self._stops[stop - 1]
            behind = bisect_left(self.offsets, end, start, stop)
            text = piece[self.offsets[start] - base : self._stops[behind - 1] - base - 1]
            yield text, start, behind
            start = behind

    def _drop_pieces(self, first: int, stop: int) -> int:
        """Drop the pieces from this one on that end before line `stop`; the next piece."""
        end = self._stops[stop - 1]
        while first < len(self._bases) and self._bases[first] + len(self._pieces[first]) <= end:
            self._pieces[first] = b""
            first += 1
        return first


@contextmanager
def _collector_at_rest(wanted: bool) -> Iterator[None]:
    """Make very many objects that are no garbage, without the garbage collector.

    It would look at each of them several times while there are ever more, which takes as long as
    making them. In the end they are given to the oldest generation, or it would begin with a look
    at all of them at once, and no thread runs meanwhile.
    """
    if not wanted or not gc.isenabled():
        yield
        return
    try:
        gc.disable()
        yield
    finally:
        try:
            if not gc.get_freeze_count():  # what somebody has frozen stays so
                gc.freeze()
                gc.unfreeze()
        finally:
            gc.enable()


class _Burial:
    """Frees long lists in pieces: no thread runs while one of a hundred thousand is freed.

    For long ones only, since a Ctrl-C that comes in here gets lost.
    """

    def __init__(self, *storages: list[Any]) -> None:
        self._storages = storages

    def __del__(self) -> None:
        for storage in self._storages:
            while storage:
                del storage[-_PIECE:]


class History(Sequence[T_co], Generic[T_co]):
    """The messages of a session at one revision; later records don't appear in it.

    They are decoded when they are asked for: the last ones by themselves, all of them when they are
    iterated over. For anything else every line has to be looked at, since one that holds no message
    doesn't count; with messages of the default type that takes half the time of decoding them, and
    no memory.
    """

    __slots__ = ("_count", "_decode", "_length", "_log", "_proves")

    def __init__(self, log: MessageLog, count: int, decode: Decoder, proves: Prover) -> None:
        self._log = log
        self._count = count
        """Lines that hold messages, valid or not."""
        self._decode = decode
        self._proves = proves
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            self._length = self._log.length(self._count, self._decode, self._proves)
        return self._length

    def __bool__(self) -> bool:
        return bool(self[-1:])

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        if self._length is None and (wanted := _from_the_end(index)):
            last = self._log.last(self._count, wanted, self._decode)
            return last[index]
        if isinstance(index, slice):
            if index.start is index.stop is None:
                self._decode_all()
            return [self._message(at) for at in range(*index.indices(len(self)))]
        return self._message(range(len(self))[index])

    def __iter__(self) -> Iterator[T_co]:
        self._decode_all()
        return map(self._message, range(len(self)))

    def _message(self, number: int) -> T_co:
        message: T_co = self._log.message(number, self._count, self._decode)
        return message

    def _decode_all(self) -> None:
        self._log.decode_to(self._count, self._decode)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} messages>"


def _from_the_end(index: int | slice) -> int:
    """How many messages at the end are all that is asked for; 0 if it is more than a few."""
    match index:
        case slice(start=int(start), stop=None, step=None) if -_PIECE <= start < 0:
            return -start
        case int(start) if -_PIECE <= start < 0:
            return -start
    return 0
