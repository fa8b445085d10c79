"""A clause: one promise, and how to see whether it is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import SkipTest

if TYPE_CHECKING:
    from .stage import Stage


class Violation(AssertionError):
    """A promise was broken; the text says what was seen."""


class NotApplicable(SkipTest):
    """The clause says nothing about this candidate, or nothing on this system.

    Being a `SkipTest`, it makes pytest and unittest report a skipped test with the reason.
    """


@dataclass(frozen=True, slots=True)
class Clause:
    """One promise that a store is tested for."""

    name: str
    promise: str
    """Which one, in the words of the README."""
    says: str
    """What is expected, in a sentence."""
    needs: frozenset[str]
    """What a candidate has to offer for it."""
    posix: bool
    """Whether it takes signals or limits that Windows doesn't have."""
    play: Callable[[Stage], None]

    def __str__(self) -> str:
        return self.name

    @property
    def is_possible_here(self) -> bool:
        return not self.posix or sys.platform != "win32"


CLAUSES: dict[str, Clause] = {}
"""All of them, in the order in which they are written down."""


def clause(
    promise: str, *needs: str, posix: bool = False
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Make a clause of a function; its name and its docstring's first paragraph describe it."""

    def register(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = play.__name__.replace("_", "-")
        says = " ".join((play.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
        CLAUSES[name] = Clause(name, promise, says, frozenset(needs), posix, play)
        return play

    return register


def require(truth: object, seen: str) -> None:
    """Raise a `Violation` that says what was seen, unless it is true."""
    if not truth:
        raise Violation(seen)
