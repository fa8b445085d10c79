"""The records that aren't messages, and where they stand. Pure.

Nearly all of them are token counts and checkpoints, so they are kept as numbers: an object for each
would take several times the room of its line.
"""

from __future__ import annotations

from array import array
from itertools import compress

from .codec import (
    CHECKPOINT,
    MESSAGE,
    OTHER,
    USAGE,
    Broken,
    Checkpoint,
    Origin,
    SystemPrompt,
    Unknown,
    Usage,
    UsualLines,
)
from .records import Damage
from .values import value

MarkRecord = SystemPrompt | Usage | Checkpoint | Origin | Unknown | Broken

_PROMPT = 0
_IS_CHECKPOINT = bytes(kind == CHECKPOINT for kind in range(256))
_IS_NUMBER = bytes(kind in (USAGE, CHECKPOINT) for kind in range(256))


@value
class Mark:
    """A record that isn't a message, and where it stands."""

    offset: int
    length: int
    record: MarkRecord
    messages_before: int


class MarkLog:
    """The marks of a line of states: append-only storage. Who shares it knows how many are his."""

    def __init__(self) -> None:
        self.offsets = array("Q")
        self._stops = array("Q")
        """Where the line behind each begins."""
        self._kinds = bytearray()
        self._values = array("q")
        """A count, a checkpoint's number, or which of the others it is."""
        self._others: list[MarkRecord] = []

    def add(self, offset: int, stop: int, record: MarkRecord) -> None:
        match record:
            case Usage(value):
                kind = USAGE
            case Checkpoint(value):
                kind = CHECKPOINT
            case _:
                kind = _PROMPT if isinstance(record, SystemPrompt) else OTHER
                value = len(self._others)
                self._others.append(record)
        self.offsets.append(offset)
        self._stops.append(stop)
        self._kinds.append(kind)
        self._values.append(value)

    def add_usual(self, lines: UsualLines) -> None:
        """The token counts and checkpoints among these lines."""
        starts, stops = lines.places(_IS_NUMBER)
        self.offsets.extend(starts)
        self._stops.extend(stops)
        self._kinds += lines.kinds.translate(None, bytes([MESSAGE]))
        self._values.extend(lines.numbers)

    def copy(self, count: int) -> MarkLog:
        """The first `count` of them."""
        other = MarkLog()
        other.offsets = self.offsets[:count]
        other._stops = self._stops[:count]
        other._kinds = self._kinds[:count]
        other._values = self._values[:count]
        other._others = self._others[:]
        return other

    def record(self, number: int) -> MarkRecord:
        kind, value = self._kinds[number], self._values[number]
        if kind == USAGE:
            return Usage(value)
        if kind == CHECKPOINT:
            return Checkpoint(value)
        return self._others[value]

    def length(self, number: int) -> int:
        """How long the line is, without its newline."""
        return self._stops[number] - 1 - self.offsets[number]

    def damage(self, number: int, broken: Broken) -> Damage:
        return Damage(self.offsets[number], self.length(number), broken.reason)

    # ---- what the marks say ---------------------------------------------------------------------

    def last_usage(self, start: int, count: int) -> tuple[int, int] | None:
        """The last token count in marks `[start, count)`: where it stands, and the count."""
        at = self._kinds.rfind(USAGE, start, count)
        return None if at < 0 else (self.offsets[at], self._values[at])

    def last_prompt(self, start: int, count: int) -> str | None:
        """The last system prompt in marks `[start, count)`."""
        at = self._kinds.rfind(_PROMPT, start, count)
        record = None if at < 0 else self.record(at)
        return record.text if isinstance(record, SystemPrompt) else None

    def damages(self, count: int) -> list[Damage]:
        """The broken lines among the first `count` marks."""
        marks = ((at, self.record(at)) for at in range(count) if self._kinds[at] == OTHER)
        return [self.damage(at, record) for at, record in marks if isinstance(record, Broken)]

    def prompts(self, start: int, count: int) -> list[int]:
        """Those of marks `[start, count)` that set a system prompt."""
        return [at for at in range(start, count) if self._kinds[at] == _PROMPT]

    def span(self, number: int) -> tuple[int, int]:
        """Where the line begins, and where the one behind it does."""
        return self.offsets[number], self._stops[number]

    def checkpoints(self, start: int, count: int) -> tuple[int, ...]:
        """The numbers of the checkpoints among marks `[start, count)`."""
        are_checkpoints = self._kinds[start:count].translate(_IS_CHECKPOINT)
        return tuple(compress(self._values[start:count], are_checkpoints))

    def checkpoint(self, number: int, count: int) -> int | None:
        """The first checkpoint of that number among the first `count` marks."""
        at = -1
        try:
            while self._kinds[at := self._values.index(number, at + 1, count)] != CHECKPOINT:
                pass
        except ValueError:
            return None
        return at
