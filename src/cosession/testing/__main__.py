"""`python -m cosession.testing mypackage.store:candidate`: a table of clauses and verdicts."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import Clause, NotApplicable, Violation, check, clauses
from .clause import CLAUSES


def verdicts(options: argparse.Namespace, chosen: Sequence[Clause]) -> Iterator[dict[str, Any]]:
    """One verdict after the other, as it comes."""
    for clause in chosen:
        verdict, seen = "kept", ""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                check(
                    options.candidate,
                    clause,
                    Path(folder),
                    seed=options.seed,
                    effort=options.effort,
                    patience=options.patience,
                )
            except NotApplicable as why:
                verdict, _, seen = str(why).partition(": ")
            except Violation as violation:
                verdict, seen = "VIOLATED", str(violation)
        yield {
            "clause": clause.name,
            "promise": clause.promise,
            "verdict": verdict,
            "seen": seen,
            "seconds": round(time.monotonic() - began, 2),
        }


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cosession.testing",
        description="See whether a store of shared conversations keeps what is promised.",
        epilog="Exit status: 0 all is kept, 1 a clause is violated, 2 it can't be tried.",
    )
    parser.add_argument("candidate", metavar="MODULE:FUNCTION", help="what opens the candidate")
    parser.add_argument("clause", nargs="*", help="these clauses only", choices=[[], *CLAUSES])
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with (0)")
    parser.add_argument(
        "--effort", type=float, default=1.0, help="how long to try, times the usual"
    )
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds after which something hangs (20)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(arguments)


def shown(verdict: dict[str, Any]) -> str:
    """A row of the table."""
    seen = f"  {verdict['seen']}" if verdict["seen"] else ""
    width = max(map(len, CLAUSES))
    return f"{verdict['clause']:{width}}  {verdict['seconds']:6.2f} s  {verdict['verdict']}{seen}"


def main(arguments: Sequence[str]) -> int:
    """Print the verdicts, and return the exit status."""
    options = parsed(arguments)
    sys.path[:0] = [path for path in [os.getcwd()] if path not in sys.path]
    chosen = [one for one in clauses() if not options.clause or one.name in options.clause]
    violated = 0
    try:
        for verdict in verdicts(options, chosen):
            violated += verdict["verdict"] == "VIOLATED"
            print(json.dumps(verdict) if options.json else shown(verdict), flush=True)  # noqa: T201
    except RuntimeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    if not options.json:
        print(f"{violated} of {len(chosen)} clauses violated" if violated else "nothing violated")  # noqa: T201
    return 1 if violated else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
