"""The small values that everything else passes around. Nothing here touches the disk."""

from __future__ import annotations

from functools import total_ordering
from typing import TYPE_CHECKING

from .values import frozen, value

if TYPE_CHECKING:
    from pathlib import Path


@total_ordering
@frozen
class Revision:
    """Where in the file a state stands: how often it was replaced, and how far it is read.

    Compare two of them only within one session file. `str()` and `parse` are each other's
    inverse, so that a script can keep one.
    """

    generation: int
    """Goes up at each replace (revert, clear, compaction), never down. The first one of a file is
    the microsecond at which cosession met it: a lock file made anew never repeats a generation.
    """
    position: int
    """Bytes from the start of the file."""

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Revision):
            return NotImplemented
        return (self.generation, self.position) < (other.generation, other.position)

    def __str__(self) -> str:
        return f"{self.generation}:{self.position}"

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Read `"generation:position"` back.

        Raises:
            ValueError: The text has another form.
        """
        generation, _, position = text.partition(":")
        return cls(int(generation), int(position))


@frozen
class Damage:
    """A line that can't be used. It is skipped in the state and kept in the file."""

    offset: int
    """Bytes from the start of the file to the line's first byte."""
    length: int
    """Bytes, without the newline."""
    reason: str

    def __str__(self) -> str:
        return f"{self.length} bytes at offset {self.offset}: {self.reason}"


@frozen
class Repair:
    """An unfinished write of a process that died, undone when the session was next used."""

    offset: int
    length: int
    kept_in: str
    """The file in which its bytes were kept."""

    def __str__(self) -> str:
        return (
            f"undid an unfinished write of {self.length} bytes at offset {self.offset}; "
            f"they are kept in {self.kept_in}"
        )


@frozen
class Holder:
    """A card about whoever has the lock: for people to read, never to decide by."""

    pid: int
    host: str = ""
    user: str = ""
    terminal: str = ""
    operation: str = ""
    since: float = 0.0
    """Wall-clock seconds since the epoch; 0 if unknown."""
    command: str = ""

    def __str__(self) -> str:
        parts = [f"process {self.pid}"]
        if self.command:
            parts.append(f"({self.command})")
        if self.user or self.host:
            parts.append(f"of {self.user or '?'}@{self.host or '?'}")
        if self.terminal:
            parts.append(f"on {self.terminal}")
        if self.operation:
            parts.append(f"doing {self.operation}")
        return " ".join(parts)


@frozen
class TurnCard:
    """What the holder of a turn wrote down about it."""

    holder: Holder
    began: Revision
    """Where the session stood when it began."""
    token: int
    """Which turn: a later one has another number."""


@frozen
class TurnStatus:
    """A turn that is on, as others see it."""

    holder: Holder
    """Who has it: `operation` is its label, `since` when it began."""
    began: Revision
    """Where the session stood when it began."""
    records: int | None
    """How many records have come in since; `None` if the turn has replaced the file."""
    waiting: tuple[Holder, ...]
    """Who waits for it for longer than a moment, the longest waiting first."""


@frozen
class Fork:
    """Another session, made from this one's beginning."""

    path: Path
    parent: Path
    """The session that it was made from."""
    at: Revision
    """Where it left the parent."""
    revision: Revision
    """Where it stands itself, before anybody has opened it."""


@value
class Outcome:
    """What one operation did."""

    revision: Revision
    """Where the session stood right behind the operation."""
    checkpoints: tuple[int, ...] = ()
    """The ids of the checkpoints that it made."""
    rotated: str | None = None
    """Where the old file was kept, if the operation replaced it."""
