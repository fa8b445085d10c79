"""Changes that take effect together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._base import SessionBase, rotated_path, system_prompt, usage
from .edits import AddCheckpoint, Clear, RevertTo, Step
from .records import Outcome, Revision

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


class Transaction(Generic[T]):
    """Changes that take effect together when the block ends, or, if it raises, not at all.

    Nothing is locked inside the block: what others write meanwhile comes before the changes.
    Give `expect=session.revision` to be told about that instead.
    """

    def __init__(self, base: SessionBase[T]) -> None:
        self._base = base
        self._steps: list[Step] = []
        self._outcome: Outcome | None = None

    def append(self, messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]]) -> None:
        """Append one message, or a list of them."""
        self._steps.append(self._base._add(messages))

    def checkpoint(self) -> None:
        """Set a checkpoint; `checkpoints` has its number afterwards."""
        self._steps.append(AddCheckpoint())

    def record_usage(self, token_count: int) -> None:
        """Record a token count."""
        self._steps.append(usage(token_count))

    def set_system_prompt(self, text: str) -> None:
        """Put a system prompt in front, in place of any that is there."""
        self._steps.append(system_prompt(text))

    def revert_to(self, checkpoint: int) -> None:
        """Drop a checkpoint and everything behind it."""
        self._steps.append(RevertTo(checkpoint))

    def clear(self) -> None:
        """Drop everything that is in the session so far."""
        self._steps.append(Clear())

    @property
    def revision(self) -> Revision:
        """Where the session stood right behind the changes. Only after the block."""
        return self._done().revision

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The numbers of the checkpoints set, in order. Only after the block."""
        return self._done().checkpoints

    @property
    def rotated(self) -> Path | None:
        """Where the old file was kept, if it was replaced. Only after the block."""
        return rotated_path(self._done())

    def _done(self) -> Outcome:
        if self._outcome is None:
            raise RuntimeError("the transaction has not taken effect (yet)")
        return self._outcome
