"""One call in a history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cosession import Revision
from machine.reference import Line, Step


@dataclass(frozen=True)
class Call:
    """What a process did, and what came of it."""

    process: str
    number: int
    invoked: float
    responded: float
    """Seconds of the monotonic clock."""
    kind: str
    """`write` or `read`."""
    steps: tuple[Step, ...]
    revision: Revision
    """Where the session stood behind it; for a refusal, where it stood when it was looked at."""
    expect: Revision | None = None
    error: str = ""
    checkpoints: tuple[int, ...] = ()
    rotated: int | None = None
    seen: tuple[Any, ...] | None = None
    """What a read found: messages, system prompt, token count, checkpoints."""

    def __str__(self) -> str:
        what = "+".join(step.kind for step in self.steps) or self.kind
        result = self.error or self.revision
        return f"{self.process}#{self.number} {what} → {result}"

    def before(self, other: Call) -> bool:
        """Whether it had returned when the other one was called."""
        return self.responded < other.invoked


@dataclass(frozen=True)
class Round:
    """What happened between two moments in which nobody was at it."""

    start: tuple[Line, ...]
    rotations: int
    calls: tuple[Call, ...]
    end: tuple[Line, ...]


def from_json(process: str, event: dict[str, Any]) -> Call:
    """The call that a player tells of."""
    steps = tuple(
        Step(step["kind"], tuple(step["records"]), step["number"]) for step in event["steps"]
    )
    expect, seen = event["expect"], event["seen"]
    return Call(
        process,
        event["op"],
        event["invoked"],
        event["responded"],
        event["kind"],
        steps,
        Revision.parse(event["revision"]),
        Revision.parse(expect) if expect else None,
        event["error"],
        tuple(event["checkpoints"]),
        event["rotated"],
        None if seen is None else tuple(seen),
    )
