"""After a storm over a session everything is as it was promised to each of its terminals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Tally

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="a storm takes SIGSTOP, fork and limits set from outside; kills run everywhere in "
    "test_crash.py and test_demo.py",
)

HERE = Path(__file__).parent


def storm(*options: str, timeout: float) -> dict[str, Any]:
    """Make one in a process of its own, which has no threads; its report."""
    child = subprocess.run(
        [sys.executable, "-m", "storm.run", *options],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert child.stdout, child.stderr
    print(child.stdout)
    report: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return report


def test_a_short_storm_breaks_no_promise(tally: Tally) -> None:
    """Kills, stops, full disks, foreign lines and slow system calls, all at once, for seconds."""
    report = storm("--seed=1", "--seconds=4", timeout=200)
    tally(report["operations"])
    assert report["findings"] == []
    assert report["acknowledged"] >= 20, "hardly anything was done"
    assert report["disturbances"]["kill"]
    assert report["disturbances"]["stop"]


@pytest.mark.deep
def test_a_long_storm_breaks_no_promise(
    tally: Tally, random_seed: int, deep_seconds: float
) -> None:
    """Storms of ten seconds, one after the other, by few terminals and by many."""
    began, number = 0.0, 0
    while began < deep_seconds:
        terminals = [2, 4, 8][number % 3]
        options = ("--seconds=10", f"--terminals={terminals}", f"--seed={random_seed + number}")
        report = storm(*options, timeout=600)
        tally(report["operations"])
        assert report["findings"] == [], f"once more: python -m storm.run {' '.join(options)}"
        began, number = began + 10, number + 1
