"""A conformance kit: what any store of shared conversations has to keep, and how to see it.

    from cosession.testing import check, clauses

    @pytest.mark.parametrize("clause", clauses(), ids=str)
    def test_conformance(clause, tmp_path):
        check("mypackage.store:candidate", clause, tmp_path)

1. A *candidate* is a small class around the store; see `Candidate`. It is named by an importable
   string, since the kit opens it in processes of its own.
2. A *clause* is one promise, played by real processes, with kills where it is about them.
3. `check` raises a `Violation` that says what was seen, or a `SkipTest` if the clause is about
   something that the candidate doesn't offer. `python -m cosession.testing` prints a table.

Nothing in here needs pytest.
"""

from __future__ import annotations

from pathlib import Path

from . import alone, crowd, deaths, turns  # noqa: F401 - where the clauses are
from .candidate import Candidate, Factory, FullCandidate, Message
from .clause import CLAUSES, Clause, NotApplicable, Violation
from .stage import Stage

__all__ = [
    "Candidate",
    "Clause",
    "Factory",
    "FullCandidate",
    "Message",
    "NotApplicable",
    "Violation",
    "check",
    "clauses",
]


def clauses() -> list[Clause]:
    """All clauses, in the order of the documentation."""
    return [*CLAUSES.values()]


def check(
    factory: str,
    clause: Clause | str,
    folder: Path,
    *,
    seed: int = 0,
    effort: float = 1.0,
    patience: float = 20.0,
) -> None:
    """See whether a candidate keeps a clause.

    Args:
        factory: `module:function` that opens the candidate; see `Factory`. It is imported by other
            processes, with this one's `sys.path`.
        clause: One of `clauses()`, or its name.
        folder: Where the processes may write. It should be empty.
        seed: What chance begins with: when to kill whom.
        effort: How long to try, as a multiple of the usual.
        patience: Seconds that an operation may take which nobody keeps waiting.

    Raises:
        Violation: It doesn't; the text says what was seen.
        NotApplicable: The candidate doesn't offer what the clause is about, or this system
            doesn't have what the clause takes.
        RuntimeError: The candidate can't be opened at all.
    """
    clause = CLAUSES[clause] if isinstance(clause, str) else clause
    if not clause.is_possible_here:
        raise NotApplicable("not possible here: it takes signals or limits of POSIX systems")
    stage = Stage(factory, Path(folder), clause.needs, seed=seed, effort=effort, patience=patience)
    try:
        clause.play(stage)
    finally:
        stage.close()
