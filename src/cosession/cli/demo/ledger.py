"""What the terminals said that they began, and what was acknowledged to them. Pure.

This is the ground truth: a terminal says *begin* on its own pipe before it calls the session, and
*done* after the call returned, so both survive its death. What is done must be in the files; what
was only begun must be there whole or not at all; what was refused must not be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import Revision
from .script import JsonObject, Script

REPLACES = ("revert", "compact")
"""The kinds of operations that leave a rotated file, always."""


@dataclass(slots=True)
class Operation:
    """One call to the session."""

    terminal: int
    start: int
    """How often the terminal had been started by then, from 1."""
    number: int
    kind: str
    """"append", "bulk", "checkpoint", "usage", "revert" or "compact"."""
    conversation: int = 0
    first: int = 0
    count: int = 0
    """How many messages it appends."""
    text: str = ""
    """What it writes, if that isn't from a conversation."""
    value: int = 0
    """A token count, or the checkpoint that it reverts to."""
    state: str = "begun"
    """"begun", "done" or "refused"."""
    revision: Revision | None = None
    checkpoint: int | None = None
    rotated: str | None = None
    seconds: float = 0.0

    @property
    def id(self) -> str:
        return operation_id(self.terminal, self.start, self.number)

    @property
    def order(self) -> tuple[int, int]:
        """Its place among the operations of its terminal."""
        return (self.start, self.number)

    def __str__(self) -> str:
        return f"{self.kind} {self.id} of terminal {self.terminal}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a terminal saw at the end."""

    terminal: int
    digest: str
    messages: int
    damage: int


@dataclass(slots=True)
class Ledger:
    """Everything that the terminals said."""

    operations: dict[str, Operation] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)

    def __iter__(self) -> Iterator[Operation]:
        return iter(list(self.operations.values()))

    def acknowledged(self, *kinds: str) -> list[Operation]:
        """The operations that are done, of these kinds or of all."""
        return [
            operation
            for operation in self
            if operation.state == "done" and (not kinds or operation.kind in kinds)
        ]


class Witness:
    """Puts down in a ledger what one start of a terminal says."""

    def __init__(self, ledger: Ledger, terminal: int, start: int = 1) -> None:
        self.under_way: Operation | None = None
        self._ledger = ledger
        self._terminal = terminal
        self._start = start

    def hear(self, event: dict[str, Any]) -> Operation | None:
        """Note an event; the operation that it is about, if it is about one."""
        match event["is"]:
            case "begin":
                self.under_way = self._begin(event)
                return self.under_way
            case "done" | "refused":
                operation, self.under_way = self.under_way, None
                assert operation is not None
                assert operation.number == event["op"]
                self._end(operation, event)
                return operation
            case "report":
                self._ledger.reports.append(
                    Report(self._terminal, event["digest"], event["messages"], event["damage"])
                )
        return None

    def _begin(self, event: dict[str, Any]) -> Operation:
        fields = ("conversation", "first", "count", "text", "value")
        operation = Operation(
            self._terminal,
            self._start,
            int(event["op"]),
            str(event["kind"]),
            **{name: event[name] for name in fields if name in event},
        )
        self._ledger.operations[operation.id] = operation
        return operation

    def _end(self, operation: Operation, event: dict[str, Any]) -> None:
        if event["is"] == "refused":
            operation.state = "refused"
            return
        operation.state = "done"
        operation.revision = Revision.parse(event["revision"])
        operation.checkpoint = event.get("checkpoint")
        operation.rotated = event.get("rotated")
        operation.seconds = float(event["seconds"])


def operation_id(terminal: int, start: int, number: int) -> str:
    return f"{terminal}.{start}.{number}"


def messages_of(operation: Operation, script: Script) -> Sequence[JsonObject]:
    """What an operation writes, without the tags."""
    match operation.kind:
        case "append":
            return script.excerpt(operation.conversation, operation.first, operation.count)
        case "bulk":
            return script.transcript(operation.conversation, operation.count)
        case "compact":
            return [{"role": "assistant", "content": operation.text}]
        case "checkpoint":
            return [checkpoint_message(operation.terminal, operation.checkpoint)]
    return []


def checkpoint_message(terminal: int, number: int | None) -> JsonObject:
    """The message that goes right behind a checkpoint and mentions its number."""
    return {"role": "user", "content": f"Checkpoint {number}, set by terminal {terminal}."}
