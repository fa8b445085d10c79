"""The stand-in for kimi-cli's `Context`, against the real package in an environment of its own.

kimi-cli wants a newer Python than cosession, and other versions of what both use. So `uv` makes an
environment for it, once, in pytest's cache, and the suites in `tests/kimi` run in there. Each of
their tests is reported as one test here.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from filelock import FileLock

import cosession

REQUIREMENTS = (
    "kimi-cli==1.49.0",
    "pytest>=8.3",
    "pytest-asyncio>=0.24",
    "filelock",
    "portalocker",
)
SUITES = Path(__file__).parent / "kimi"
NAMES = ("contract", "better", "in_turns", "sharing", "command")


def behaviours(suite: str, *, deep: bool = False) -> list[str]:
    """The names of the tests in a suite, without importing it."""
    tree = ast.parse((SUITES / f"{suite}.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and deep == ("pytest.mark.deep" in map(ast.unparse, node.decorator_list))
    ]


@dataclass(frozen=True)
class Verdict:
    """What became of one test, with one set of parameters, in kimi-cli's environment."""

    name: str
    kind: str
    """passed, failed or skipped; a failure that was expected has passed."""
    text: str = ""


class Kimi:
    """kimi-cli's environment, and the verdicts of this test run; shared by the workers."""

    def __init__(self, home: Path, run: Path) -> None:
        self._home = home
        self._run = run
        self._lock = FileLock(run / "kimi.lock", timeout=900)

    def verdicts(self, suite: str, *, deep: bool = False) -> list[Verdict]:
        """Run the suite, or its deep tests, unless another worker has."""
        name = f"kimi-{suite}-deep" if deep else f"kimi-{suite}"
        with FileLock(self._run / f"{name}.lock", timeout=900):
            report, output = self._run / f"{name}.xml", self._run / f"{name}.txt"
            if not output.exists():
                which = ["--basetemp", self._run / name, "-m", "deep" if deep else "not deep"]
                which += ["--junitxml", report, SUITES / f"{suite}.py"]
                output.write_text(self._test(which), encoding="utf-8")
            try:
                return list(read_report(report))
            except (OSError, ET.ParseError) as error:
                pytest.fail(f"the suite did not end ({error}):\n{output.read_text('utf-8')}")

    def _test(self, which: list[object]) -> str:
        python, library = self._python(), self._library()
        path = os.pathsep.join(map(str, (library, SUITES)))
        command = [python, "-m", "pytest", "-c", SUITES / "pytest.ini", "--confcutdir", SUITES]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "COV_", "KIMI_", "VIRTUAL_ENV"))
        }
        return run([*command, *which], timeout=400, env={**environment, "PYTHONPATH": path})[1]

    def _library(self) -> Path:
        """A folder with nothing but the package that is under test."""
        folder = self._run / "kimi-library"
        with self._lock:
            if not folder.exists():
                package = Path(cosession.__file__).parent
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, folder / "cosession", ignore=ignore)
        return folder

    def _python(self) -> Path:
        """The environment's Python; made if it isn't there, and skipped if it can't be made."""
        unavailable = self._run / "kimi-unavailable.txt"
        with FileLock(self._home.with_suffix(".lock"), timeout=900):
            if not unavailable.exists():
                try:
                    return self._made()
                except Unavailable as error:
                    unavailable.write_text(str(error), encoding="utf-8")
        pytest.skip(f"no environment for kimi-cli: {unavailable.read_text('utf-8')}")

    def _made(self) -> Path:
        folder = "Scripts" if sys.platform == "win32" else "bin"
        python = self._home / folder / ("python.exe" if sys.platform == "win32" else "python")
        ready = self._home / "cosession-ready"
        if ready.exists() and ready.read_text() == repr(REQUIREMENTS) and python.exists():
            return python
        uv = os.environ.get("UV") or shutil.which("uv")
        if not uv:
            raise Unavailable("uv is not installed")
        attempt([uv, "venv", "--clear", "--python", newer_python(), self._home], timeout=200)
        # Not compiled: that is half a minute's work, and a twentieth of the modules is ever used.
        attempt([uv, "pip", "install", "--python", python, *REQUIREMENTS], timeout=400)
        ready.write_text(repr(REQUIREMENTS))
        return python


class Unavailable(Exception):
    """kimi-cli can't be had here, for the reason given."""


def newer_python() -> str:
    """A Python that kimi-cli runs on: this one, one of pyenv's, or one that uv finds or fetches."""
    if sys.version_info >= (3, 12):
        return str(getattr(sys, "_base_executable", sys.executable))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in sorted(root.glob("versions/3.*"), reverse=True):
        if re.fullmatch(r"3\.1[2-9]\.\d+", version.name) and (version / "bin/python").exists():
            return str(version / "bin/python")
    return ">=3.12"


def attempt(command: list[object], *, timeout: float) -> None:
    try:
        code, output = run(command, timeout=timeout, env=dict(os.environ))
    except OSError as error:
        raise Unavailable(str(error)) from error
    if code != 0:
        last = " / ".join(output.strip().splitlines()[-6:])
        raise Unavailable(f"{' '.join(map(str, command[1:3]))} failed: {last}")


def run(command: list[object], *, timeout: float, env: dict[str, str]) -> tuple[int, str]:
    """Exit status and output; a process that takes too long is killed, with its children."""
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=env,
        cwd=SUITES,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate(timeout=60)
        output += f"\nkilled after {timeout} s"
    return process.returncode, output


def read_report(report: Path) -> Iterator[Verdict]:
    for case in ET.parse(report).iter("testcase"):
        name, kind, text = case.get("name", ""), "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                kind, text = "failed", f"{text}{child.get('message')}\n{child.text}"
            elif child.tag == "skipped" and child.get("type") != "pytest.xfail":
                kind, text = "skipped", child.get("message") or ""
        yield Verdict(name, kind, text)


@pytest.fixture(scope="session")
def kimi(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Kimi:
    """kimi-cli's environment, not made yet."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the whole run
    return Kimi(pytestconfig.cache.mkdir("kimi-cli") / "venv", folder)


@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite in NAMES for name in behaviours(suite)]
)
def test_behaviour(kimi: Kimi, suite: str, name: str) -> None:
    """The test of that name passes in kimi-cli's environment, with all its parameters."""
    require_passed(name, kimi.verdicts(suite))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite in NAMES for name in behaviours(suite, deep=True)]
)
def test_deep_behaviour(kimi: Kimi, suite: str, name: str) -> None:
    """The slow test of that name passes in kimi-cli's environment, with all its parameters."""
    require_passed(name, kimi.verdicts(suite, deep=True))


def require_passed(name: str, verdicts: list[Verdict]) -> None:
    mine = [verdict for verdict in verdicts if verdict.name.partition("[")[0] == name]
    failures = [f"{verdict.name}: {verdict.text}" for verdict in mine if verdict.kind == "failed"]
    assert not failures, "\n\n".join(failures)
    assert mine, "it did not run"
    if all(verdict.kind == "skipped" for verdict in mine):
        pytest.skip(mine[0].text)


@pytest.mark.parametrize("suite", NAMES)
def test_nothing_else_ran(kimi: Kimi, suite: str) -> None:
    """Every result of a suite is reported above."""
    ran = {verdict.name.partition("[")[0] for verdict in kimi.verdicts(suite)}
    assert ran == set(behaviours(suite))
