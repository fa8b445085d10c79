"""Run a method's tests and count what they tried; run a family's broken variants."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from . import mutants
from .methods import Method

ROOT = Path(__file__).parents[2]
SEED = 1
"""Of the deep tests, so that they try the same each time."""


@dataclass(slots=True)
class Tried:
    """What one run of a method's tests came to."""

    tried: int = 0
    by_promise: dict[str, int] = field(default_factory=dict)
    """The same by the promise, where the tests of a method say which they are about."""
    tests: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0


def run(method: Method, *, deep: bool) -> Tried | None:
    """Run its default tests, or its deep ones; `None` if it has none.

    Raises:
        LookupError: What it takes is not here.
        RuntimeError: pytest could not run them.
    """
    marked = ["-m", "deep" if deep else "not deep"]
    options = [f"--random-seed={SEED}"] if not method.windows else []
    report = ROOT / f".proof-{os.getpid()}.xml"  # a name that a Windows Python can use as well
    command = [sys.executable, "-m", "pytest", "-q"]
    environment = dict(os.environ)
    if method.windows:
        command = mutants.command(windows=True)
        environment = mutants.environment(windows=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [*command, *marked, *options, f"--junitxml={report.name}", *method.selection()],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output.seek(0)
            said = output.read()
        if done.returncode == 5:
            return None
        if done.returncode not in (0, 1) or not report.exists():
            raise RuntimeError(said)
        tried = _count(report)
    finally:
        report.unlink(missing_ok=True)
    if tried.failed:
        print(said)
    tried.seconds = time.monotonic() - began
    return tried


def _count(report: Path) -> Tried:
    found, promises = Tried(), Counter[str]()
    for case in ET.parse(report).iter("testcase"):
        if any(child.tag == "skipped" for child in case):
            found.skipped += 1
            continue
        found.tests += 1
        if any(child.tag in ("failure", "error") for child in case):
            found.failed.append(f"{case.get('classname')}::{case.get('name')}")
        said = [
            (one.get("name", ""), one.get("value", "")) for one in case.iterfind("properties/*")
        ]
        tried = sum(int(value) for name, value in said if name == "tried")
        if not any(name == "tried" for name, _ in said):
            tried = 1
        found.tried += tried
        for name, value in said:
            if name == "promise":
                promises[value] += tried
    found.by_promise = dict(sorted(promises.items()))
    return found
