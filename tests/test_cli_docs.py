"""docs/command.md is what the command says of itself, and its examples work."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cosession.cli import docs
from cosession.cli.app import COMMANDS

FILE = Path(__file__).parent.parent / "docs" / "command.md"
NEWER = "run `python -m cosession.cli.docs > docs/command.md`"

EXAMPLES = [
    # Those in the help texts begin a process each, and are many.
    pytest.param(block, marks=[pytest.mark.deep] if language == "text" else [], id=str(number))
    for number, (language, block) in enumerate(
        re.findall(r"```(\w+)\n(.*?)```", docs.page(), re.DOTALL)
    )
    if "$ " in block
]

END = "\x1e"
"""Printed behind each command of a block, before its status."""


def test_the_page_is_up_to_date() -> None:
    """Every help text on the page is the command's own."""
    if not FILE.exists():
        pytest.skip("docs/ is not beside the tests")
    assert FILE.read_text(encoding="utf-8") == docs.page(), NEWER


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_page_has_the_help_that_a_user_sees(name: str) -> None:
    """What the generator takes for the help text is what `--help` prints."""
    from click.testing import CliRunner

    from cosession.cli.app import app

    result = CliRunner().invoke(
        app, [name, "--help"], prog_name="cosession", terminal_width=80, color=False
    )
    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") in docs.page()


def split(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with the output shown below it.

    In a help text, whose lines are indented, none is shown.
    """
    found: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        if line.lstrip().startswith("$ "):
            found.append((line.strip()[2:], ""))
        elif found and block.startswith("$ "):
            command, shown = found.pop()
            found.append((command, shown + line))
    return found


def prepare(folder: Path) -> None:
    """The files that the examples speak of."""
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:30"},
    ]
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    (folder / "messages.jsonl").write_text(lines)
    marks = "".join(json.dumps({"role": "_checkpoint", "id": number}) + "\n" for number in range(3))
    for name in ("context.jsonl", "context_1.jsonl", "context_2.jsonl"):
        (folder / name).write_text(lines + marks)


@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
@pytest.mark.parametrize("block", EXAMPLES)
def test_every_example_works(block: str, tmp_path: Path) -> None:
    """Each command succeeds, and prints what the page shows (`...` stands for anything)."""
    commands = split(block)
    assert commands
    prepare(tmp_path)
    script = tmp_path / "bin" / "cosession"  # in the commands of `hold`, too
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cosession "$@"\n')
    script.chmod(0o755)
    program = "".join(f"{command}\nprintf '{END}%s{END}' $?\n" for command, _ in commands)
    done = subprocess.run(
        ["/bin/sh", "-c", program],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "PYTHONUTF8": "1",
            "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}",
        },
        timeout=120,
        check=False,
    )
    pieces = done.stdout.decode().split(END)
    assert len(pieces) == 2 * len(commands) + 1
    checker = doctest.OutputChecker()
    for (command, shown), said, status in zip(commands, pieces[::2], pieces[1::2], strict=False):
        assert status == "0", f"{command}: {said}"
        if shown:
            same = checker.check_output(shown, said, doctest.ELLIPSIS)
            assert same, f"{command}\nsays\n{said}\nand not\n{shown}"
