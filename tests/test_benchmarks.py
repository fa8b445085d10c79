"""The command that measures: its tables, and that it notices when messages are lost.

How quick anything is, is no matter of these tests.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FAULTS = {"lost", "torn", "repeated", "disordered"}

pytestmark = pytest.mark.skipif(
    not (BENCHMARKS / "run.py").exists(), reason="benchmarks/ is not beside the tests"
)


def measured(tmp_path: Path, *arguments: str, python: str = sys.executable) -> tuple[str, Any]:
    """What the command prints, and the outcomes that it keeps, by workload and contender."""
    kept = tmp_path / "kept.json"
    command = [python, str(BENCHMARKS / "run.py"), "--here", "--quick", "--json", str(kept)]
    command += ["--folder", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    return done.stdout, json.loads(kept.read_text("utf-8"))["workloads"]


def faults(outcome: Any) -> set[str]:
    """What the check found in any round."""
    return {
        name for sample in outcome["samples"] for name, count in sample["audit"].items() if count
    }


def loaded(name: str) -> ModuleType:
    """A module of the benchmarks, without their folder being where all imports look."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def test_figures_for_all_and_faults_of_those_that_have_any(tmp_path: Path) -> None:
    """A table has rates for each contender; what a lossy one did is said, what isn't there too."""
    names = ["bare-lock", "cosession", "lossy", "missing"]
    printed, outcomes = measured(
        tmp_path,
        *("--only", "processes-os", "--contenders", ",".join(names)),
        *("--seconds", "0.3"),  # enough for some appends, however busy the machine is
    )

    by_name = outcomes["processes-os"]
    assert list(by_name) == names
    for name in names[:3]:
        assert by_name[name]["error"] == ""
        assert all(sample["figures"]["rate"] > 0 for sample in by_name[name]["samples"])
    assert faults(by_name["cosession"]) == faults(by_name["bare-lock"]) == set()
    assert faults(by_name["lossy"]) == FAULTS
    assert by_name["missing"]["error"] == "not installed: missing"
    assert re.search(r"\| \*\*cosession\*\* +\| +[\d,]+ \([\d,]+–[\d,]+\) .* all there", printed)
    assert re.search(r"\| a lossy one +\| .*\d+ lost, \d+ torn, \d+ repeated, \d+ out of", printed)
    assert re.search(r"\| a missing one +\| +– .* not installed: missing", printed)
    assert re.search(r"\| 4 processes, os +\| +[\d,]+/s \| none .* ≥ 3 × the best peer", printed)


def test_what_is_kept_makes_the_same_tables(tmp_path: Path) -> None:
    """A file of figures can be printed again, without anything being measured."""
    arguments = (
        *("--only", "revert", "--only", "sequential-os"),
        *("--contenders", "bare,cosession,missing"),
    )
    printed, _ = measured(tmp_path, *arguments)
    again, _ = measured(tmp_path, *arguments, "--load", str(tmp_path / "kept.json"))
    assert again == printed
    assert "≤ 6 ms" in printed
    assert "not installed: missing" in printed


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        ([(0, 0), (0, 1), (1, 0)], None),
        ([(1, 0), (0, 0), (0, 1)], None),
        ([(0, 0), (1, 0)], "lost"),
        ([(0, 0), (0, 1), (1, 0), (1, 0)], "repeated"),
        ([(0, 1), (0, 0), (1, 0)], "disordered"),
        ([(0, 0), (0, 1), (1, 0), None], "torn"),
        ([(0, 0), (0, 1), (1, 0), (7, 0)], "torn"),
    ],
)
def test_each_fault_is_told_from_the_others(
    stored: list[tuple[int, int] | None], fault: str | None
) -> None:
    """Writers may mix in any way; each one's messages are there once, whole, and in order."""
    messages = loaded("messages")
    maker = messages.Maker()
    contents = [None if place is None else maker.content(*place) for place in stored]
    written = {0: messages.Written(2), 1: messages.Written(2, refused=[1])}
    found = messages.audit(contents, written)
    assert [name for name in FAULTS if getattr(found, name)] == ([fault] if fault else [])


def test_half_a_message_is_torn_and_lost() -> None:
    """One that was cut is no message, and the one that it should be is missing."""
    messages = loaded("messages")
    content = messages.Maker().content(0, 0)
    found = messages.audit([content[:-1]], {0: messages.Written(1)})
    assert (found.torn, found.lost) == (1, 1)


def test_percentiles_of_several_processes_together() -> None:
    """Histograms add up, and know each percentile to within the width of a bucket."""
    histogram = loaded("histogram").Histogram
    both = histogram.of(range(1_000_000, 2_000_000, 1000)) + histogram.of([50_000_000] * 10)
    kept = histogram(both.to_json())
    assert kept.quantile(0.5) == pytest.approx(1.5, rel=0.02)
    assert kept.quantile(0.98) == pytest.approx(1.99, rel=0.02)
    assert kept.quantile(0.999) == pytest.approx(50, rel=0.02)


@pytest.mark.deep
def test_all_workloads_with_all_that_is_installed(tmp_path: Path) -> None:
    """Everybody whose package is here does everything, and nobody with a lock loses anything."""
    names = (
        "bare,bare-lock,bare-json,idle,cosession,cosession-blocking,asyncio-lock,filelock,"
        "portalocker,portalocker-threads,sqlite3,sqlite3-threads"
    )
    _, outcomes = measured(tmp_path, "--contenders", names)
    for by_name in outcomes.values():
        for name, outcome in by_name.items():
            assert outcome["error"] == "", name
            for sample in outcome["samples"]:
                assert sample["figures"], name
                assert not any((sample["audit"] or {}).values()), name


@pytest.mark.deep
def test_plots_are_drawn(tmp_path: Path) -> None:
    """Each is an SVG with the contenders' names as text; one point makes no line."""
    folder = BENCHMARKS / ".environment" / ("Scripts" if sys.platform == "win32" else "bin")
    if not (folder / "python").exists():
        pytest.skip("the benchmarks' environment has not been made: uv run benchmarks/run.py")
    plots = tmp_path / "plots"
    measured(
        tmp_path,
        *("--only", "processes-os", "--only", "grown", "--only", "open"),
        *("--contenders", "bare,cosession", "--plots", str(plots)),
        python=str(folder / "python"),
    )
    drawn = {path.name: path.read_text("utf-8") for path in plots.iterdir()}
    assert set(drawn) == {"latency.svg", "growing.svg"}
    assert all(">cosession</text>" in picture for picture in drawn.values())


def test_figures_take_the_place_of_older_ones_and_nothing_else(tmp_path: Path) -> None:
    """What is outside of the marks stays; a page without marks is left alone."""
    page = tmp_path / "page.md"
    put = "import sys, pathlib, page; page.put(pathlib.Path(sys.argv[1]), sys.argv[2:])"
    command = [sys.executable, "-c", put, str(page)]
    page.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n", "utf-8")
    subprocess.run([*command, "new", "newer"], cwd=BENCHMARKS, check=True, timeout=60)
    begin, end = "<!-- figures: begin -->", "<!-- figures: end -->"
    assert page.read_text("utf-8") == f"before\n{begin}\n\nnew\n\nnewer\n\n{end}\nafter\n"
    page.write_text("no marks\n", "utf-8")
    refused = subprocess.run(
        [*command, "new"], cwd=BENCHMARKS, check=False, timeout=60, capture_output=True, text=True
    )
    assert "no place for figures" in refused.stderr
    assert page.read_text("utf-8") == "no marks\n"
