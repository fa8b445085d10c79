"""Broken variants of the library, which the tests about errors and hostile places must catch.

    python -m bad.mutants [NAME …]    runs the tests that should, and prints a table

They are written as those of `crash.mutants`, and planted by name, through the environment, so that
they reach the processes that a test starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from crash.mutants import Mutant, plant_mutant

_NAME = "COSESSION_MUTANT"
PATIENCE = 300


@dataclass(frozen=True, slots=True)
class Caught:
    """A mutant, and the test that must fail with it."""

    part: str
    where: str
    edits: dict[str, str]
    test: str

    @property
    def mutant(self) -> Mutant:
        return Mutant(self.where, self.edits, "", "")


_FAULTS = "test_faults.py::test_whatever_fails_at_whatever_call_it_is_said_and_undone"
_STRACE = "test_strace.py::test_killed_or_refused_at_any_call_of_the_kernel"

MUTANTS: dict[str, Caught] = {}


def plant() -> None:
    """Put the mutant that the environment names in the place of the real function."""
    name = os.environ.get(_NAME)
    if name:
        plant_mutant(name, MUTANTS[name].mutant)


def caught(name: str) -> bool:
    """Whether the test that must fail with this mutant does, and passes without it."""
    return not _passes(MUTANTS[name].test, name)


def _passes(test: str, mutant: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-m", "", "-p", "bad.mutants", test],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {_NAME: mutant, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode not in (0, 1) or "passed" not in done.stdout + "failed":
        raise RuntimeError(f"{test} can't be run: {done.stdout}{done.stderr}")
    if done.returncode == 0 and " skipped" in done.stdout:
        raise RuntimeError(f"{test} is skipped here")
    return done.returncode == 0


def main(names: list[str]) -> None:
    print("| part | broken variant | caught by | caught |\n|---|---|---|---|")
    missed = 0
    for name in names or MUTANTS:
        entry = MUTANTS[name]
        verdict = caught(name)
        missed += not verdict
        print(f"| {entry.part} | {name} | `{entry.test}` | {'yes' if verdict else 'NO'} |")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
else:
    plant()
