"""A session as a list of records, in the plainest code that can keep the promises. Pure.

1. Lines are parsed records; a line that is no JSON is its bytes. A new file is a new list, and the
   old one goes into `rotated`.
2. Everything that makes an `expect` fail is an *event* with an author: a turn's number, or one of
   its own for whatever is written outside of a turn. `Point` remembers how many events there
   were; a conflict is an event since then that isn't the turn's own.
3. An *epoch* is what the library calls a generation, but counted from 0, and also when the library
   has no occasion to notice that there was one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Record = dict[str, Any]
Line = Record | bytes

NO_RESULT = "No result: the program that made this call ended before it had one."


class NoCheckpoint(Exception):
    """A step reverts to a checkpoint that isn't there."""


@dataclass(frozen=True)
class Point:
    """What somebody knows: the lines at one moment, and what had happened by then."""

    epoch: int
    lines: tuple[Line, ...]
    events: int


@dataclass(frozen=True)
class Event:
    author: int
    doubtful: bool = False
    """A damaged line: nobody can say whether it was to be a message."""


@dataclass(frozen=True)
class Effect:
    """What an operation did."""

    checkpoints: tuple[int, ...] = ()
    rotated: int | None = None


@dataclass(frozen=True)
class Step:
    kind: Literal["append", "checkpoint", "usage", "prompt", "revert", "clear"]
    records: tuple[Record, ...] = ()
    number: int = 0
    then: Callable[[int], Record] | None = field(default=None, compare=False)


def parse(line: bytes) -> Line:
    """The record of a line; its bytes if it holds none."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or not isinstance(record.get("role"), str):
        return line
    return record


def role(line: Line) -> str:
    return "" if isinstance(line, bytes) else str(line["role"])


def is_message(line: Line) -> bool:
    """Whether it stands in the history: a role, and a content that can be one."""
    if isinstance(line, bytes) or role(line).startswith("_"):
        return False
    return isinstance(line.get("content"), str | list | None)


def checkpoints(lines: Sequence[Line]) -> list[int]:
    return [x["id"] for x in lines if isinstance(x, dict) and role(x) == "_checkpoint"]


def unanswered(lines: Sequence[Line]) -> list[str]:
    """The tool calls that have no result."""
    calls: dict[str, None] = {}
    for line in lines:
        if isinstance(line, dict) and is_message(line):
            calls |= {call["id"]: None for call in line.get("tool_calls") or ()}
            calls.pop(str(line.get("tool_call_id")), None)
    return list(calls)


class Reference:
    """The session as it ought to be."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.tail = b""
        """An unfinished line of a program that takes no lock."""
        self.rotated: dict[int, tuple[Line, ...]] = {}
        self.epoch = 0
        self.kept_as: dict[int, int] = {}
        """Under which number an epoch's file is kept, if the library kept it."""
        self.events: list[Event] = []
        self._authors = 0

    def point(self) -> Point:
        return Point(self.epoch, tuple(self.lines), len(self.events))

    # ---- what the library does --------------------------------------------------------------

    def conflicts(self, expect: Point, turn: int) -> bool | None:
        """Whether an operation that expects this is refused; `None` if nobody can say."""
        since = [x for x in self.events[expect.events :] if not turn or x.author != turn]
        if any(not event.doubtful for event in since):
            return True
        return None if since else False

    def close_tail(self) -> None:
        """A writer has found an unfinished line, and ended it."""
        if self.tail:
            tail, self.tail = self.tail, b""
            self._adopt(parse(tail))

    def apply(self, steps: Sequence[Step], turn: int = 0) -> Effect:
        """Do all the steps, or none.

        Raises:
            NoCheckpoint: One of them can't be done.
        """
        old = [(line, True) for line in self.lines]
        draft = list(old)
        made: list[int] = []
        for step in steps:
            draft = self._stepped(draft, step, made)
        lines = [line for line, _ in draft]
        if old and [pair for pair in draft if pair[1]] != old:
            return Effect(tuple(made), self._replace(lines, turn))
        if old and draft[: len(old)] != old:
            return Effect(tuple(made), self._replace(lines, turn))
        self._note([line for line, _ in draft[len(old) :]], turn)
        self.lines = lines
        return Effect(tuple(made))

    def _stepped(
        self, draft: list[tuple[Line, bool]], step: Step, made: list[int]
    ) -> list[tuple[Line, bool]]:
        match step.kind:
            case "append" | "usage":
                return draft + [(record, False) for record in step.records]
            case "checkpoint":
                number = max([-1, *checkpoints([line for line, _ in draft])]) + 1
                made.append(number)
                new: list[Line] = [{"role": "_checkpoint", "id": number}]
                if step.then is not None:
                    new.append(step.then(number))
                return draft + [(line, False) for line in new]
            case "prompt":
                rest = [pair for pair in draft if role(pair[0]) != "_system_prompt"]
                return [(step.records[0], False), *rest]
            case "revert":
                for at, (line, _) in enumerate(draft):
                    if checkpoints([line]) == [step.number]:
                        return draft[:at]
                raise NoCheckpoint(step.number)
            case "clear":
                return []

    def restore(self, number: int, turn: int) -> int:
        """Bring a rotated file back; under which number the live one is kept."""
        return self._replace(list(self.rotated[number]), turn)

    def roll_back(self, began: Point) -> int | None:
        """Undo a turn that was interrupted; under which number the file is kept.

        Raises:
            LookupError: Another program has rewritten the file: nobody has what there was.
        """
        if began.epoch != self.epoch:
            self.rotated[self.kept_as[began.epoch]]
        elif len(began.lines) == len(self.lines):
            return None
        return self._replace(list(began.lines), 0)

    def keep(self, began: Point) -> None:
        """Accept a turn that was interrupted, with results for its calls that have none."""
        same = began.epoch == self.epoch
        calls = unanswered(self.lines[len(began.lines) :] if same else self.lines)
        results = [{"role": "tool", "tool_call_id": x, "content": NO_RESULT} for x in calls]
        self.apply([Step("append", tuple(results))])

    def _replace(self, lines: list[Line], turn: int) -> int:
        number = max([0, *self.rotated]) + 1
        self.rotated[number] = tuple(self.lines)
        self.kept_as[self.epoch] = number
        self.lines = lines
        self._new_epoch(turn)
        return number

    # ---- what others do ---------------------------------------------------------------------

    def append_foreign(self, data: bytes) -> None:
        """A program that takes no lock appends bytes."""
        *whole, self.tail = (self.tail + data).split(b"\n")
        for line in whole:
            self._adopt(parse(line))

    def rewrite_foreign(self, lines: list[Line]) -> None:
        """It puts something else in the file's place. What was there is gone."""
        self.lines, self.tail = lines, b""
        self._new_epoch(0)

    def forget_generation(self) -> None:
        """The lock file is lost, and with it what led to the file as it is."""
        self._new_epoch(0)

    def _adopt(self, line: Line) -> None:
        self.lines.append(line)
        self._note([line], 0)

    def _new_epoch(self, turn: int) -> None:
        self.epoch += 1
        self.events.append(Event(turn or self._author()))

    def _note(self, lines: Sequence[Line], turn: int) -> None:
        for line in lines:
            if isinstance(line, bytes) or (not role(line).startswith("_") and not is_message(line)):
                self.events.append(Event(turn or self._author(), doubtful=True))
            elif role(line) == "_system_prompt" or is_message(line):
                self.events.append(Event(turn or self._author()))

    def _author(self) -> int:
        self._authors -= 1
        return self._authors
