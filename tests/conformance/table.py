"""Which broken store shows that a clause can fail: `python tests/conformance/table.py`.

Each pair is tried, and the table of docs/conformance.md printed, with `MISSED` at a store that the
clause did not catch; then what the clauses saw. Exit status 1: one was missed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from conformance import broken
from cosession.testing import Clause, Violation, check, clauses

CAUGHT = {
    "texts-come-back-as-they-went-in": ("SplitsLines",),
    "an-append-is-there-when-it-returns": ("Buffered",),
    "an-open-handle-shows-what-others-wrote": ("ThreadLock",),
    "what-can-not-be-stored-leaves-nothing": ("OneByOne", "MemoryFirst"),
    "a-failed-write-leaves-nothing": ("Naive", "MemoryFirst"),
    "a-revert-drops-what-is-behind-the-mark": ("RevertsForItself",),
    "a-replace-is-seen-whole": ("ClearsThenAppends",),
    "processes-lose-nothing": ("ReadModifyWrite", "ThreadLock"),
    "appends-are-not-mixed": ("OneByOne",),
    "readers-see-one-history-grow": ("OneByOne", "ReadModifyWrite"),
    "handles-of-one-process-lose-nothing": ("ProcessIdFile",),
    "callers-of-one-handle-lose-nothing": ("interleaves",),
    "what-was-cleared-does-not-come-back": ("ClearsPastTheLock",),
    "what-is-cleared-is-kept": ("CopiesThenCuts",),
    "what-is-reverted-is-kept": ("CopiesThenCuts",),
    "no-checkpoint-number-is-given-twice": ("RevertsForItself",),
    "a-stale-writer-is-told": ("ChecksThenAppends",),
    "a-killed-append-is-there-whole-or-not-at-all": ("OneByOne",),
    "whoever-is-killed-blocks-nobody": ("LockFile",),
    "a-wait-for-one-who-stands-still-ends": ("LockFile",),
    "a-killed-replace-leaves-the-old-or-the-new": ("ClearsThenAppends",),
    "turns-are-not-mixed": ("TurnIsAFlag",),
    "readers-read-along": ("TellsAtTheEnd",),
    "a-turn-ends-with-its-process": ("TurnIsAFile",),
    "a-wait-for-a-turn-ends": ("TurnIsAFile", "GoesOnInTheBackground"),
    "a-waiter-is-woken-at-once": ("Polls",),
    "whoever-waits-gets-the-turn": ("Polls",),
    "the-event-loop-goes-on": ("blocks_the_loop",),
    "a-cancelled-wait-leaves-nothing": ("leaves_the_thread",),
    "a-cancelled-append-is-settled": ("leaves_the_thread",),
    "a-follower-is-told": ("LooksLate",),
}
"""For each clause, stores that break it."""

PAIRS = [(clause, name) for clause, names in CAUGHT.items() for name in names]

PATIENCE = 1.5
"""Seconds. What hangs in here hangs for ever."""


def caught(clause: str, name: str, folder: Path) -> str | None:
    """What the clause saw of that store; `None` if it saw nothing wrong.

    A store that is unmasked by chance has another try with another chance.
    """
    for seed in range(3):
        try:
            check(
                f"{broken.__name__}:{name}",
                clause,
                folder / str(seed),
                seed=seed,
                patience=PATIENCE,
            )
        except Violation as violation:
            return str(violation)
    return None


def row(clause: Clause, names: Sequence[str]) -> str:
    """The clause's row in the documentation."""
    mark = "°" if clause.posix else ""
    needs = ", ".join(sorted(clause.needs)) or "–"
    stores = ", ".join(f"`{name}`" for name in names)
    return f"| `{clause}`{mark} | {clause.promise} | {clause.says} | {needs} | {stores} |"


def main() -> int:
    all_seen = []
    print("| clause | promise | what is expected | needs | caught by it |")
    print("|---|---|---|---|---|")
    for clause in clauses():
        names = []
        for name in CAUGHT[clause.name]:
            seen: str | None = "not possible on this system"
            if clause.is_possible_here:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    seen = caught(clause.name, name, Path(folder))
            names.append(name if seen else f"MISSED {name}")
            all_seen.append(f"{clause}, {names[-1]}: {seen}")
        print(row(clause, names), flush=True)
    print("", *all_seen, sep="\n")
    return 1 if any(", MISSED " in seen for seen in all_seen) else 0


if __name__ == "__main__":
    raise SystemExit(main())
