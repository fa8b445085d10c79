"""Cut the power in every story, with both durabilities, and print what came of it.

`uv run python -m power.table` from `tests/`: in some minutes, each story bounded by `--seconds`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from crash.server import Campaigns

from .mutants import MUTANTS
from .stories import STORIES

DURABILITIES = ("power", "process")


class Crew:
    """So many processes that run campaigns."""

    def __init__(self, size: int) -> None:
        self.idle = SimpleQueue[Campaigns]()
        self.all = [Campaigns("power.campaign") for _ in range(size)]
        for campaigns in self.all:
            self.idle.put(campaigns)
        self.threads = ThreadPoolExecutor(size)

    def run(self, jobs: Sequence[Sequence[str]], *, timeout: float) -> list[Any]:
        def work(job: Sequence[str]) -> Any:
            campaigns = self.idle.get()
            try:
                with tempfile.TemporaryDirectory() as root:
                    return campaigns.run(Path(root), *job, timeout=timeout)
            finally:
                self.idle.put(campaigns)

        return list(self.threads.map(work, jobs))

    def close(self) -> None:
        self.threads.shutdown()
        for campaigns in self.all:
            campaigns.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deep", action="store_true", help="two deviations at a time, too")
    parser.add_argument("--seconds", type=float, default=60, help="for each story at most")
    parser.add_argument("--seed", type=int, default=1, help="of the random subsets")
    parser.add_argument("--story", choices=STORIES, action="append")
    options = parser.parse_args()
    names = options.story or list(STORIES)
    more = ["--again", f"--seconds={options.seconds}", f"--seed={options.seed}"]
    more += ["--deep", "--subsets=8"] if options.deep else []
    cases = [(name, durability) for name in names for durability in DURABILITIES]
    jobs = [(f"--story={name}", f"--durability={durability}", *more) for name, durability in cases]

    crew = Crew(os.cpu_count() or 1)
    try:
        reports = crew.run(jobs, timeout=60 + 4 * options.seconds)
        missed = _mutants(crew)
    finally:
        crew.close()
    found = dict(zip(cases, reports, strict=True))
    print(_stories(names, found))
    print(_caught(missed))
    findings = [f"{case}: {line}" for case, report in found.items() for line in report["findings"]]
    print(*findings, sep="\n")
    return bool(findings or any(missed.values()))


def _mutants(crew: Crew) -> dict[str, bool]:
    """Which of the mutants nobody noticed."""
    jobs = [
        (
            f"--story={mutant.operation}",
            f"--durability={mutant.kind}",
            f"--mutant={name}",
            "--most=1",
            *mutant.options,
        )
        for name, mutant in MUTANTS.items()
    ]
    reports = crew.run(jobs, timeout=300)
    return dict(zip(MUTANTS, (not report["findings"] for report in reports), strict=True))


def _stories(names: Sequence[str], found: dict[tuple[str, str], Any]) -> str:
    lines = [
        "| story | calls | states, power | states, process | healings cut again | findings |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    sums = [0] * 5
    for name in names:
        power, process = (found[name, durability] for durability in DURABILITIES)
        row = [
            power["events"],
            power["states"],
            process["states"],
            power["healings"] + process["healings"],
            len(power["findings"]) + len(process["findings"]),
        ]
        sums = [one + other for one, other in zip(sums, row, strict=True)]
        cut_short = "" if power["finished"] and process["finished"] else " (out of time)"
        lines.append(f"| {name}{cut_short} | {' | '.join(map(str, row))} |")
    lines.append(f"| all | {' | '.join(map(str, sums))} |")
    return "\n".join(lines) + "\n"


def _caught(missed: dict[str, bool]) -> str:
    lines = ["| left out or moved | seen in | noticed |", "|---|---|---|"]
    for name, was_missed in missed.items():
        mutant = MUTANTS[name]
        where = f"{mutant.operation}, {mutant.kind}"
        lines.append(f"| {name} | {where} | {'**no**' if was_missed else 'yes'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
