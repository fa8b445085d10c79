"""The fold of a file's records: what a process knows of the session at one revision. Pure.

1. A `State` never changes. `fold` and `truncated` return another one, so a reader on one thread
   keeps a consistent view while a commit on another thread works on the next.
2. States of one line of descent share their storage, which only ever grows; each knows how much
   of it is its own. Folding one record into a session of a million costs one record. Folding into
   a state that isn't the newest (a write that failed) copies first.
3. Of a message only the place is noted. Its line stays in the piece of the file that was folded,
   and is decoded when somebody asks for it (`history`).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from .codec import Broken, MessageLine, classify, is_plain, usual_lines
from .history import Decoder, History, MessageLog, Prover, proves_nothing
from .marks import Mark, MarkLog
from .records import Damage
from .values import field, value

_FEW = 1 << 14
"""Bytes that may as well be looked at line by line,"""
_LONG = 1 << 12
"""and lines of which there are few in many bytes."""


@value
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
    log: MessageLog = field(default_factory=MessageLog, shown=False)
    _marks: MarkLog = field(default_factory=MarkLog, shown=False)

    @property
    def marks(self) -> list[Mark]:
        marks = self._marks
        return [
            Mark(offset, marks.length(at), marks.record(at), self._message_at(offset))
            for at, offset in enumerate(marks.offsets[: self.mark_count])
        ]

    def fold(self, data: bytes) -> State:
        """The state behind `data`: whole lines that stand in the file at `position`."""
        if not data:
            return self
        log, marks = self._own_storage()
        log.end = -1
        are_many = len(data) > _FEW and data.find(b"\n", 0, _LONG) >= 0
        usual = usual_lines(data, self.position) if are_many else None
        if usual is not None:
            log.add_usual(usual)
            marks.add_usual(usual)
        else:
            self._sort(data, log, marks)
        if len(log.offsets) > self.message_count:
            log.keep(self.position, data)
        log.end = self.position + len(data)
        return self._extended(log.end, log, marks)

    def _sort(self, data: bytes, log: MessageLog, marks: MarkLog) -> None:
        """Look at each line by itself."""
        base, start = self.position, 0
        while (end := data.find(b"\n", start)) >= 0:  # several times as fast as to split long ones
            offset, stop = base + start, base + end + 1
            if is_plain(data, start, end) or _is_message(data[start:end], offset, stop, marks):
                log.add(offset, stop)
            start = end + 1

    def with_line(self, line: bytes) -> State:
        """The same as `fold`, for one line; cheap if that is a plain message."""
        log = self.log
        if log.end != self.position or not is_plain(line, 0, len(line) - 1):
            return self.fold(line)
        log.end = -1
        log.keep(self.position, line)
        log.add(self.position, self.position + len(line))
        log.end = self.position + len(line)
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
        log = self.log.copy(self._message_at(position), position)
        return State()._extended(position, log, self._marks.copy(self._mark_at(position)))

    def _own_storage(self) -> tuple[MessageLog, MarkLog]:
        """Storage that holds this state and nothing more, so that it may be appended to."""
        if self.log.end == self.position:
            return self.log, self._marks
        return self.log.copy(self.message_count, self.position), self._marks.copy(self.mark_count)

    def _extended(self, position: int, log: MessageLog, marks: MarkLog) -> State:
        """The state at `position`, all of whose messages and marks are in the given storage."""
        prompt, tokens = self.system_prompt, self.token_count
        at_usage, next_checkpoint = self.messages_at_usage, self.next_checkpoint
        start, stop = self.mark_count, len(marks.offsets)
        if start < stop:
            if (new_prompt := marks.last_prompt(start, stop)) is not None:
                prompt = new_prompt
            if (usage := marks.last_usage(start, stop)) is not None:
                offset, tokens = usage
                at_usage = bisect_left(log.offsets, offset)
            number = max(marks.checkpoints(start, stop), default=-1)
            next_checkpoint = max(next_checkpoint, number + 1)
        return State(
            position,
            len(log.offsets),
            stop,
            prompt,
            tokens,
            at_usage,
            next_checkpoint,
            log,
            marks,
        )

    # ---- questions --------------------------------------------------------------------------

    def checkpoints(self) -> tuple[int, ...]:
        return self._marks.checkpoints(0, self.mark_count)

    def checkpoint_offset(self, number: int) -> int | None:
        """Where the first checkpoint of that number stands, as kimi-cli looks for it."""
        if type(number) is not int:  # False == 0 == 0.0, and a revert drops records
            return None
        at = self._marks.checkpoint(number, self.mark_count)
        return None if at is None else self._marks.offsets[at]

    def system_prompts(self) -> list[tuple[int, int]]:
        """The byte ranges, newlines included, of the records that set a system prompt."""
        return [self._marks.span(at) for at in self._marks.prompts(0, self.mark_count)]

    def messages_since(self, position: int) -> int:
        """How many messages, or changes of the system prompt, stand behind `position`."""
        prompts = self._marks.prompts(self._mark_at(position), self.mark_count)
        return self.message_count - self._message_at(position) + len(prompts)

    def count_since(self, position: int) -> int:
        """How many records stand behind `position`, of whatever kind."""
        messages = self.message_count - self._message_at(position)
        return messages + self.mark_count - self._mark_at(position)

    def _message_at(self, position: int) -> int:
        """The first message at or behind a position, as a number."""
        return bisect_left(self.log.offsets, position, 0, self.message_count)

    def _mark_at(self, position: int) -> int:
        """The first mark at or behind a position, as a number."""
        return bisect_left(self._marks.offsets, position, 0, self.mark_count)

    def messages(self, decode: Decoder, proves: Prover = proves_nothing) -> History[Any]:
        """The valid messages."""
        return self.log.messages(self.message_count, decode, proves)

    def records_since(self, position: int, decode: Decoder) -> tuple[Any, ...]:
        """The records behind a position in their order: messages, marks' records, `Damage`."""
        found = self.log.between(self._message_at(position), self.message_count, decode)
        marks = self._marks
        for at in range(self._mark_at(position), self.mark_count):
            record = marks.record(at)
            what = marks.damage(at, record) if isinstance(record, Broken) else record
            found.append((marks.offsets[at], what))
        return tuple(record for _, record in sorted(found, key=lambda pair: pair[0]))

    def damaged_lines(self) -> list[Damage]:
        """Damage that shows without decoding the messages."""
        return self._marks.damages(self.mark_count)


def _is_message(line: bytes, offset: int, stop: int, marks: MarkLog) -> bool:
    """Whether the line holds a message. If it holds another record, that goes to the marks."""
    record = classify(line)
    if record is None:
        return False
    if isinstance(record, MessageLine):
        return True
    marks.add(offset, stop, record)
    return False
