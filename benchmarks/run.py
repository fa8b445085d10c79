"""Measure cosession, what else there is, and the bare system, side by side in one run.

    uv run benchmarks/run.py            # all of it; a quarter of an hour
    uv run benchmarks/run.py --quick    # a look; a minute or two

1. The contenders take turns within each round, and another one begins each round: whatever the
   machine is at meanwhile meets all of them.
2. Each round has a fresh folder on the same file system. What counts is the middle of the rounds,
   and ratios are taken within a round.
3. What is in the file afterwards is compared with what was acknowledged.
4. A contender that fails, or isn't installed, is a row that says so.

The contenders' packages are in an environment of their own, which is made when it is missing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import environment
import page
from contenders import CONTENDERS, HIDDEN
from measure import Team
from place import Place
from report import Report
from results import Outcome, Outcomes
from workloads import workloads
from workloads.base import QUICK, Effort, Stage, Workload

SLOW = 10.0
"""Who takes more seconds than that for a round has had its last one."""


def main() -> int:
    """Measure, and print the tables."""
    given = arguments()
    if not given.here and not environment.is_this():
        return environment.run_there(sys.argv)
    effort = effort_of(given)
    chosen = [
        workload
        for workload in workloads(effort)
        if not given.only or workload.name.startswith(tuple(given.only))
    ]
    if not chosen:
        sys.exit(f"no such workload; of {', '.join(w.name for w in workloads(effort))}")
    if given.load:
        report, place = load(given.load, chosen)
    else:
        place = Place.here(given.folder, CONTENDERS.values())
        if place.in_memory and given.folder == Path():
            sys.exit(f"{place.file_system} is no disk; name a folder with --folder")
        print(*place.lines(), sep="\n", file=sys.stderr)
        report = Report(chosen, measure(chosen, given.contenders, given.folder), CONTENDERS)
    if given.json:
        save(given.json, report, place)
    if given.plots:
        from plots import draw

        draw(report, given.plots)
    if given.write:
        page.write(report, place)
    print("", *place.lines(), "", report.summary(), report.blocking_summary(), sep="\n")
    print(report.details())
    return 0


def arguments() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    shown = [name for name in CONTENDERS if name not in HIDDEN]
    parser.add_argument("--quick", action="store_true", help="a look, of a minute or two")
    parser.add_argument(
        "--only", action="append", metavar="WORKLOAD", help="those whose names begin so; repeatable"
    )
    parser.add_argument("--rounds", type=int, help="of each workload, at most")
    parser.add_argument("--seconds", type=float, help="that are appended in each round")
    parser.add_argument(
        "--contenders", type=names_of_contenders, default=shown, metavar="NAME,…",
        help=f"these only; of {', '.join(shown)}",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files are made")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    parser.add_argument("--load", type=Path, metavar="FILE", help="read such a file instead")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw into a folder")
    parser.add_argument("--write", action="store_true", help="make docs/benchmarks.md anew")
    parser.add_argument("--here", action="store_true", help="use this Python, and what it has")
    return parser.parse_args()


def effort_of(given: argparse.Namespace) -> Effort:
    """How much to do."""
    effort = QUICK if given.quick else Effort()
    return replace(
        effort,
        rounds=given.rounds or effort.rounds,
        seconds=given.seconds or effort.seconds,
    )


def names_of_contenders(text: str) -> list[str]:
    """The contenders that are named, in the order of the tables."""
    names = text.split(",")
    unknown = set(names) - set(CONTENDERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such contender: {', '.join(sorted(unknown))}")
    return [name for name in CONTENDERS if name in names]


# ---- measuring ------------------------------------------------------------------------------


def measure(chosen: list[Workload], names: list[str], folder: Path) -> dict[str, Outcomes]:
    """Do the workloads, one after the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and nothing stays behind
    teams = {name: Team(name) for name in names}
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=folder) as scratch:
            results = {}
            for workload in chosen:
                elapsed = time.monotonic() - began
                print(f"{elapsed:4.0f} s  {workload.title}", file=sys.stderr, flush=True)
                results[workload.name] = in_rounds(workload, teams, Path(scratch))
            return results
    finally:
        for team in teams.values():
            team.end()


def in_rounds(workload: Workload, teams: dict[str, Team], scratch: Path) -> Outcomes:
    """Have all contenders that can do a workload, by turns."""
    outcomes: Outcomes = {}
    with tempfile.TemporaryDirectory(prefix=f"{workload.name}-", dir=scratch) as folder:
        stages = {}
        for name, team in teams.items():
            if workload.enters(CONTENDERS[name]):
                stages[name] = Stage(CONTENDERS[name], team, Path(folder) / name)
                stages[name].home.mkdir()
                outcomes[name] = Outcome()
                attempt(workload, stages[name], outcomes[name], measures=False)
        for number in range(workload.rounds):
            for name in turned(list(stages), number):
                if not outcomes[name].error and outcomes[name].slowest < SLOW:
                    attempt(workload, stages[name], outcomes[name])
    return outcomes


def attempt(workload: Workload, stage: Stage, outcome: Outcome, *, measures: bool = True) -> None:
    """Prepare or measure; if it fails, that is noted."""
    began = time.monotonic()
    try:
        if measures:
            with stage.round() as fresh:
                outcome.samples.append(workload.measure(fresh))
        else:
            workload.prepare(stage)
    except Exception as error:
        outcome.error = str(error) or repr(error)
        stage.team.dismiss()
    if measures:
        outcome.slowest = max(outcome.slowest, time.monotonic() - began)


def turned(names: Sequence[str], number: int) -> list[str]:
    """The same names in the same order, beginning elsewhere."""
    at = number * 5 % len(names) if names else 0
    return [*names[at:], *names[:at]]


# ---- keeping --------------------------------------------------------------------------------


def save(path: Path, report: Report, place: Place) -> None:
    """Write all figures to a file."""
    kept = {
        "place": place.to_json(),
        "workloads": {
            workload: {name: outcome.to_json() for name, outcome in outcomes.items()}
            for workload, outcomes in report.outcomes.items()
        },
    }
    path.write_text(json.dumps(kept), encoding="utf-8")


def load(path: Path, chosen: list[Workload]) -> tuple[Report, Place]:
    """Read what `save` has written."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    outcomes = {
        workload: {name: Outcome.from_json(value) for name, value in by_name.items()}
        for workload, by_name in kept["workloads"].items()
    }
    return Report(chosen, outcomes, CONTENDERS), Place(**kept["place"])


if __name__ == "__main__":
    sys.exit(main())
