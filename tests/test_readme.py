"""What the README says is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
pytestmark = pytest.mark.skipif(not README, reason="the README is not beside the tests")

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line[2:]
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]
SETUP = ("uv run cosession demo", "uv run pytest")


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell line with this interpreter's `cosession` and `python` first on the path."""
    scripts = os.path.dirname(sys.executable)
    environment = os.environ | {
        "PATH": scripts + os.pathsep + os.environ["PATH"],
        "PYTHONUTF8": "1",
        "COLUMNS": "100",
    }
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_every_program_runs(program: str, tmp_path: Path) -> None:
    """Every Python block runs as it stands, one after another in one folder's session."""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    (tmp_path / "context.jsonl").write_text('{"role": "user", "content": "before"}\n')
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_runs(tmp_path: Path) -> None:
    """Every shell line but the two for the set-up succeeds, in the order of the page."""
    others = [command for command in COMMANDS if command not in SETUP]
    assert len(others) >= 5
    for command in others:
        done = run(command, tmp_path)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.mark.deep
def test_the_demo_of_the_readme_ends_with_a_clean_verdict(tmp_path: Path) -> None:
    """The first command's program runs, here without uv around it."""
    assert SETUP[0] in COMMANDS
    done = run(SETUP[0].removeprefix("uv run "), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_continuous_integration_passes_the_tests_by_the_very_command_of_the_readme() -> None:
    """The second command is the one that `.ci/run` calls."""
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip(".ci/run is not beside the tests")
    assert SETUP[1] in COMMANDS
    assert re.search(
        rf"^\s*{re.escape(SETUP[1])}(\s+2>&1 \|.*)?$", script.read_text(), re.MULTILINE
    )
