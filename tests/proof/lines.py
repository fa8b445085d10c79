"""Which lines and branches of the library the tests run.

    uv run --group coverage python -m proof.lines [--write] [PYTEST ARGUMENTS]
    uv run --group coverage python -m proof.lines --again [--write]     of the last run

From `tests`; `--write` makes docs/coverage.md.

1. The default suite runs under coverage.py, and so does every Python process that it starts: those
   that are killed (`measured`), and those of kimi-cli's own environment.
2. Tests whose subject is which system calls a process makes, or how soon, are left out: counting
   makes calls of its own.
3. What was not run is listed by function. A function that has nothing to say for itself in
   `unrun.REASONS` is printed. A share below 95 % makes it fail.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .unrun import REASONS

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".coverage"
LIBRARY = ROOT / "src" / "cosession"
PAGE = ROOT / "docs" / "coverage.md"
LEAST = 95.0

LEFT_OUT = ("test_strace.py", "test_interrupt.py::test_a_storm_of_signals", "test_import.py",
            "test_heartbeat.py")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unrun:
    """What of a function was not run."""

    file: str
    function: str
    lines: tuple[int, ...]
    branches: tuple[tuple[int, int], ...]
    """From which line to which; those whose target is a line that wasn't run are left out."""

    def places(self) -> str:
        shown = [*_spans(self.lines)]
        shown += [f"{one}→{'end' if other < 0 else other}" for one, other in self.branches]
        return ", ".join(shown)


def measure(arguments: list[str]) -> int:
    """Run the suite; the status of pytest."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent / "measured")])
    deselected = [f"--deselect=tests/{name}" for name in LEFT_OUT]
    done = subprocess.run(
        [sys.executable, "-m", "coverage", "run", "-m", "pytest", *deselected, *arguments],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": path, "COVERAGE_CORE": "ctrace", "COSESSION_SRC": str(ROOT / "src")},
        check=False,
    )
    _coverage("combine", "--quiet")
    return done.returncode


def _coverage(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, check=True)


def report() -> dict[str, Any]:
    """What coverage.py has to say about the last run."""
    written = DATA / "report.json"
    _coverage("json", "--quiet", "-o", str(written))
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def unrun(found: dict[str, Any]) -> Iterator[Unrun]:
    """What was not run, function by function."""
    for name, facts in sorted(found["files"].items()):
        places = _functions(ROOT / name)
        lines = set(facts["missing_lines"])
        by_function: dict[str, tuple[set[int], set[tuple[int, int]]]] = {}
        for line in lines:
            by_function.setdefault(places.get(line, ""), (set(), set()))[0].add(line)
        for start, stop in facts["missing_branches"]:
            if start not in lines and stop not in lines:
                where = by_function.setdefault(places.get(start, ""), (set(), set()))
                where[1].add((start, stop))
        file = str(Path(name).relative_to("src/cosession"))
        for function, (missing, branches) in sorted(by_function.items()):
            yield Unrun(file, function, tuple(sorted(missing)), tuple(sorted(branches)))


def _functions(path: Path) -> dict[int, str]:
    """For each line, the qualified name of the innermost function around it."""
    found: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
                for line in range(child.lineno, (child.end_lineno or child.lineno) + 1):
                    found[line] = inner
            visit(child, inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def _spans(lines: tuple[int, ...]) -> Iterator[str]:
    start = previous = -1
    for line in (*lines, 1 << 30):
        if line != previous + 1:
            if start > 0:
                yield str(start) if start == previous else f"{start}–{previous}"
            start = line
        previous = line


def page(found: dict[str, Any], missing: list[Unrun]) -> str:
    """docs/coverage.md."""
    totals = found["totals"]
    core = _share(found, lambda name: "/" not in name)
    lines = [
        "# Which lines the tests run",
        "",
        "Written by `uv run --group coverage python -m proof.lines --write` in `tests/`: the",
        "default tests are run, with every process that they start, and lines and branches are",
        "counted. Windows' own module is not in it.",
        "",
        "| part | lines | run | branches | run | share |",
        "|---|--:|--:|--:|--:|--:|",
        _row("the core: modules at the top", core),
        _row("all of it", totals),
        "",
        "What was not run, and why. Branches are shown as *from*→*to*. The reasons are in",
        "`tests/proof/unrun.py`.",
    ]
    by_reason: dict[str, list[Unrun]] = {}
    for one in missing:
        by_reason.setdefault(reason_for(one) or "not explained", []).append(one)
    for reason, places in sorted(by_reason.items()):
        lines += ["", f"## {reason[0].upper()}{reason[1:]}", ""]
        lines += ["| where | lines and branches |", "|---|---|"]
        lines += [f"| {_place(one)} | {one.places()} |" for one in places]
    return "\n".join(lines) + "\n"


def _place(one: Unrun) -> str:
    return f"`{one.file}`" + (f" `{one.function}`" if one.function else "")


def _share(found: dict[str, Any], wanted: Any) -> dict[str, int]:
    names = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    sums = dict.fromkeys(names, 0)
    for name, facts in found["files"].items():
        if wanted(str(Path(name).relative_to("src/cosession"))):
            for each in names:
                sums[each] += facts["summary"][each]
    return sums


def percent(sums: dict[str, int]) -> float:
    """Of lines and branches together."""
    run = sums["covered_lines"] + sums["covered_branches"]
    return 100 * run / (sums["num_statements"] + sums["num_branches"])


def _row(what: str, sums: dict[str, int]) -> str:
    cells = (sums["num_statements"], sums["covered_lines"], sums["num_branches"],
             sums["covered_branches"])  # fmt: skip
    return f"| {what} | {' | '.join(f'{cell:,}' for cell in cells)} | {percent(sums):.1f} % |"


def reason_for(one: Unrun) -> str:
    """Why that is so; empty if nobody has said."""
    folders = [str(folder) for folder in Path(one.file).parents]
    places = [(one.file, one.function), (one.file, ""), *((folder, "") for folder in folders)]
    return next((REASONS[place] for place in places if place in REASONS), "")


def main(arguments: list[str]) -> int:
    write = "--write" in arguments
    again = "--again" in arguments
    status = 0
    if not again:
        status = measure([word for word in arguments if word != "--write"])
    found = report()
    missing = list(unrun(found))
    unexplained = [one for one in missing if not reason_for(one)]
    for one in unexplained:
        print(f"no reason: {one.file} {one.function}: {one.places()}")
    share = percent(found["totals"])
    print(f"{share:.1f} % of lines and branches; {len(unexplained)} places without a reason")
    if write:
        PAGE.write_text(page(found, missing), encoding="utf-8")
    return status or int(share < LEAST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
