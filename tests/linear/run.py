"""Record histories, and check them both ways."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mutants

from . import by_revision, by_search
from .history import Round
from .recorder import record


@dataclass(frozen=True)
class Found:
    calls: int
    overlapping: int
    """Calls during which another process had one under way."""
    states: int
    """That the search looked at."""
    problems: list[str]


def check(rounds: Sequence[Round]) -> Found:
    """Both checks of one run."""
    calls = [call for one in rounds for call in one.calls]
    problems = [f"by revision: {one}" for one in by_revision.problems(calls, rounds[-1].end)]
    states = 0
    for number, one in enumerate(rounds):
        verdict = by_search.search(one)
        states += verdict.looked_at
        if not verdict.explained:
            problems.append(f"by search: no order explains round {number}")
    return Found(len(calls), _overlapping(rounds), states, problems)


def _overlapping(rounds: Sequence[Round]) -> int:
    return sum(
        any(
            not one.before(other) and not other.before(one) and one.process != other.process
            for other in found.calls
        )
        for found in rounds
        for one in found.calls
    )


def with_mutant(name: str) -> list[str]:
    """What is found with a broken variant of the library, in the players."""
    mutants.apply(name)  # in vain, but for a mutant that doesn't fit the code any more
    for attempt in range(5):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "context.jsonl")
            rounds = record(path, seed=f"{attempt}", players=4, rounds=10, calls=6, mutant=name)
            if problems := check(rounds).problems:
                return problems
    return []
