"""The fold of a file's records: what a process knows of the session at one revision. Pure.

1. A `State` never changes. `fold` and `truncated` return another one, so a reader on one thread
   keeps a consistent view while a commit on another thread works on the next.
2. States of one line of descent share their storage, which only ever grows; each knows how much
   of it is its own. Folding one record into a session of a million costs one record. Folding into
   a state that isn't the newest (a write that failed) copies first.
3. Messages are kept as the file's bytes until somebody asks for the history.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from .codec import (
    Broken,
    Checkpoint,
    MessageLine,
    Origin,
    SystemPrompt,
    Unknown,
    Usage,
    classify,
    is_plain,
)
from .records import Damage

T_co = TypeVar("T_co", covariant=True)

_PIECE = 512
"""Messages that are decoded, or freed, in one go."""

_LARGE = 5_000
"""Messages that take more than a moment to be freed."""

Decoder = Callable[[Sequence[bytes]], "Sequence[Any]"]
"""Turns message lines into messages, or into the `Broken` that says why not; same length."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A record that isn't a message, and where it stands."""

    offset: int
    length: int
    record: SystemPrompt | Usage | Checkpoint | Origin | Unknown | Broken
    messages_before: int


class MessageLog:
    """The messages of a line of states, first as bytes, then decoded: append-only storage.

    Decoding drops the bytes. It may be asked for on any thread.
    """

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.lines: list[bytes | None] = []
        self._decoded = 0
        self._messages: list[Any] = []
        self._message_at = array("Q")
        """For each decoded message, which line it came from."""
        self._broken: list[tuple[int, int, str]] = []
        """Lines that would not decode: (line, length, reason)."""
        self._decoding = threading.Lock()
        self._burial: _Burial | None = None
        """What frees a large storage."""

    def add(self, offset: int, line: bytes) -> None:
        self.offsets.append(offset)
        self.lines.append(line)

    def copy(self, count: int) -> MessageLog:
        """The first `count` lines with what is decoded of them."""
        with self._decoding:
            return self._copy(count)

    def _copy(self, count: int) -> MessageLog:
        other = MessageLog()
        other.offsets = self.offsets[:count]
        other.lines = self.lines[:count]
        other._decoded = min(self._decoded, count)
        kept = bisect_left(self._message_at, count)
        other._messages = self._messages[:kept]
        other._message_at = self._message_at[:kept]
        other._broken = [entry for entry in self._broken if entry[0] < count]
        other._prepare_burial()
        return other

    def _prepare_burial(self) -> None:
        if self._burial is None and len(self.lines) > _LARGE:
            self._burial = _Burial(self._messages, self.lines)

    def messages(self, count: int, decode: Decoder) -> History[Any]:
        """The valid messages among the first `count` lines."""
        self._decode_to(count, decode)
        return History(self._messages, bisect_left(self._message_at, count), self)

    def between(self, start: int, stop: int, decode: Decoder) -> list[tuple[int, Any]]:
        """Lines `[start, stop)` with their offsets: messages, and `Damage` where there is none."""
        self._decode_to(stop, decode)
        first, last = bisect_left(self._message_at, start), bisect_left(self._message_at, stop)
        found = [
            (self.offsets[self._message_at[number]], self._messages[number])
            for number in range(first, last)
        ]
        found += [
            (self.offsets[at], Damage(self.offsets[at], length, reason))
            for at, length, reason in self._broken
            if start <= at < stop
        ]
        return found

    def damage(self, count: int, decode: Decoder) -> list[Damage]:
        self._decode_to(count, decode)
        return [
            Damage(self.offsets[at], length, reason)
            for at, length, reason in self._broken
            if at < count
        ]

    def _decode_to(self, count: int, decode: Decoder) -> None:
        if self._decoded >= count:
            return
        # No loop with a condition inside the `with`, but in functions of their own: CPython 3.13
        # leaves its jump back out of the block's exception table, and Ctrl-C in that instant would
        # leave the lock taken.
        with self._decoding:
            while self._decoded < count:
                self._decode_some(min(count, self._decoded + _PIECE), decode)

    def _decode_some(self, stop: int, decode: Decoder) -> None:
        start = self._decoded
        self._drop_undecided(start)
        lines = [line or b"" for line in self.lines[start:stop]]
        for at, (line, message) in enumerate(zip(lines, decode(lines), strict=True), start):
            if isinstance(message, Broken):
                self._broken.append((at, len(line), message.reason))
            else:
                self._messages.append(message)
                self._message_at.append(at)
        self._decoded = stop
        self._prepare_burial()
        self.lines[start:stop] = [None] * (stop - start)

    def _drop_undecided(self, start: int) -> None:
        """Take back what an attempt left that Ctrl-C interrupted."""
        kept = bisect_left(self._message_at, start)
        del self._messages[kept:], self._message_at[kept:]
        while self._broken and self._broken[-1][0] >= start:
            self._broken.pop()


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
    """The messages of a session at one revision; later records don't appear in it."""

    __slots__ = ("_items", "_length", "_log")

    def __init__(self, items: list[T_co], length: int, log: MessageLog | None = None) -> None:
        self._items = items
        self._length = length
        self._log = log
        """Kept alive, since its end is that of the items."""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        if isinstance(index, slice):
            return [self._items[at] for at in range(*index.indices(self._length))]
        return self._items[range(self._length)[index]]

    def __iter__(self) -> Iterator[T_co]:
        return (self._items[at] for at in range(self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._length} messages>"


@dataclass(slots=True)
class State:
    """A session at one position of one generation."""

    position: int = 0
    message_count: int = 0
    """Lines that hold messages, valid or not: validity shows when they are decoded."""
    mark_count: int = 0
    system_prompt: str | None = None
    token_count: int = 0
    messages_at_usage: int = 0
    next_checkpoint: int = 0
    log: MessageLog = field(default_factory=MessageLog, repr=False)
    _marks: list[Mark] = field(default_factory=list, repr=False)

    @property
    def marks(self) -> list[Mark]:
        return self._marks[: self.mark_count]

    def fold(self, data: bytes) -> State:
        """The state behind `data`: whole lines that stand in the file at `position`."""
        if not data:
            return self
        log, marks = self._own_storage()
        offset = self.position
        has_nul = b"\0" in data
        for line in data[:-1].split(b"\n"):
            if not has_nul and is_plain(line):
                log.add(offset, line)
            else:
                record = classify(line)
                if isinstance(record, MessageLine):
                    log.add(offset, record.line)
                elif record is not None:
                    marks.append(Mark(offset, len(line), record, len(log.lines)))
            offset += len(line) + 1
        return self._extended(offset, log, marks)

    def with_line(self, line: bytes) -> State:
        """The same as `fold`, for one line; cheap if that is a plain message."""
        text, log = line[:-1], self.log
        if (
            not is_plain(text)
            or len(log.lines) != self.message_count
            or len(self._marks) != self.mark_count
        ):
            return self.fold(line)
        log.add(self.position, text)
        return State(
            self.position + len(line),
            self.message_count + 1,
            self.mark_count,
            self.system_prompt,
            self.token_count,
            self.messages_at_usage,
            self.next_checkpoint,
            log,
            self._marks,
        )

    def truncated(self, position: int) -> State:
        """The state that this one's first `position` bytes fold to; a line must end there."""
        if position >= self.position:
            return self
        log = self.log.copy(self._message_at(position))
        return State()._extended(position, log, self._marks[: self._mark_at(position)])

    def _own_storage(self) -> tuple[MessageLog, list[Mark]]:
        """Storage that holds this state and nothing more, so that it may be appended to."""
        if len(self.log.lines) == self.message_count and len(self._marks) == self.mark_count:
            return self.log, self._marks
        return self.log.copy(self.message_count), self.marks

    def _extended(self, position: int, log: MessageLog, marks: list[Mark]) -> State:
        """The state at `position`, all of whose messages and marks are in the given storage."""
        prompt, tokens = self.system_prompt, self.token_count
        at_usage, next_checkpoint = self.messages_at_usage, self.next_checkpoint
        for mark in marks[self.mark_count :]:
            match mark.record:
                case SystemPrompt(text):
                    prompt = text
                case Usage(count):
                    tokens, at_usage = count, mark.messages_before
                case Checkpoint(number):
                    next_checkpoint = max(next_checkpoint, number + 1)
        return State(
            position,
            len(log.lines),
            len(marks),
            prompt,
            tokens,
            at_usage,
            next_checkpoint,
            log,
            marks,
        )

    # ---- questions --------------------------------------------------------------------------

    def checkpoints(self) -> tuple[int, ...]:
        return tuple(mark.record.id for mark in self.marks if isinstance(mark.record, Checkpoint))

    def checkpoint_offset(self, number: int) -> int | None:
        """Where the first checkpoint of that number stands, as kimi-cli looks for it."""
        if type(number) is not int:  # False == 0 == 0.0, and a revert drops records
            return None
        for mark in self.marks:
            if mark.record == Checkpoint(number):
                return mark.offset
        return None

    def system_prompts(self) -> list[tuple[int, int]]:
        """The byte ranges, newlines included, of the records that set a system prompt."""
        return [
            (mark.offset, mark.offset + mark.length + 1)
            for mark in self.marks
            if isinstance(mark.record, SystemPrompt)
        ]

    def messages_since(self, position: int) -> int:
        """How many messages, or changes of the system prompt, stand behind `position`."""
        marks = self._marks[self._mark_at(position) : self.mark_count]
        prompts = sum(isinstance(mark.record, SystemPrompt) for mark in marks)
        return self.message_count - self._message_at(position) + prompts

    def count_since(self, position: int) -> int:
        """How many records stand behind `position`, of whatever kind."""
        messages = self.message_count - self._message_at(position)
        return messages + self.mark_count - self._mark_at(position)

    def _message_at(self, position: int) -> int:
        """The first message at or behind a position, as a number."""
        return bisect_left(self.log.offsets, position, 0, self.message_count)

    def _mark_at(self, position: int) -> int:
        """The first mark at or behind a position, as a number."""
        return bisect_left(self._marks, position, 0, self.mark_count, key=lambda mark: mark.offset)

    def messages(self, decode: Decoder) -> History[Any]:
        """The valid messages."""
        return self.log.messages(self.message_count, decode)

    def records_since(self, position: int, decode: Decoder) -> tuple[Any, ...]:
        """The records behind a position in their order: messages, marks' records, `Damage`."""
        found = self.log.between(self._message_at(position), self.message_count, decode)
        for mark in self._marks[self._mark_at(position) : self.mark_count]:
            record = mark.record
            if isinstance(record, Broken):
                found.append((mark.offset, Damage(mark.offset, mark.length, record.reason)))
            else:
                found.append((mark.offset, record))
        return tuple(record for _, record in sorted(found, key=lambda pair: pair[0]))

    def damaged_lines(self) -> list[Damage]:
        """Damage that shows without decoding the messages."""
        return [
            Damage(mark.offset, mark.length, mark.record.reason)
            for mark in self.marks
            if isinstance(mark.record, Broken)
        ]
