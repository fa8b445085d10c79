"""What the tests of the chat share: its command line, scripted agents, and waiting."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click.testing
import pytest

from cosession import BlockingSession
from cosession.cli.app import app
from cosession.cli.chat.screen import Listener

COMMAND = [sys.executable, "-m", "cosession", "chat"]
PATIENCE = 120.0
"""Seconds for anything to happen; the machine may be busy with other tests."""

SCRIPTED = Path(__file__).with_name("scripted.py")

CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12:30"}


def command_line(words: Sequence[str]) -> str:
    """One string, as `--agent` takes it."""
    if sys.platform == "win32":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


class Agent:
    """A scripted agent of a test, and its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def takes(self, *runs: list[list[Any]]) -> str:
        """Write down the steps of each run; the agent's command line."""
        (self.folder / "steps.json").write_text(json.dumps(runs))
        return command_line([sys.executable, str(SCRIPTED), str(self.folder)])

    def seen(self, number: int = 0) -> dict[str, Any]:
        """What it read, in which run."""
        path = self.folder / f"seen-{number}.json"
        wait_until(path.exists, "the agent has read the conversation")
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def let(self, name: str) -> None:
        """End an `await`."""
        (self.folder / name).touch()


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about that {what}"
        time.sleep(0.02)


class Script:
    """A screen whose input is a list of lines, for a chat in the process of the test."""

    interactive = False
    shows_status = False

    def __init__(self, lines: str) -> None:
        self._lines = lines.splitlines()

    async def read(self, listener: Listener) -> None:
        for line in self._lines:
            listener.entered(line)

    def write(self, text: str) -> None:
        click.echo(text, nl=False)

    def clear_line(self) -> bool:
        return False

    def restore(self, line: str) -> None: ...

    def leave(self) -> None: ...

    async def close(self) -> None: ...


def talk(
    path: Path, lines: str, *options: str, screen: type[Script] = Script
) -> click.testing.Result:
    """A chat in this process, with these lines as its input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosession.cli.chat.command.choose", lambda prompt: screen(lines))
        arguments = ["chat", str(path), *options]
        return click.testing.CliRunner().invoke(app, arguments, prog_name="cosession")


def talk_apart(path: Path, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A chat in a process of its own, with its input from a pipe."""
    return subprocess.run(
        [*COMMAND, str(path), *options],
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        env=os.environ | {"PYTHONUTF8": "1", "COLUMNS": "200"},
        check=False,
    )


def messages(path: Path) -> list[dict[str, Any]]:
    """The messages in the file."""
    with BlockingSession(path, read_only=True) as session:
        return [message.model_dump(exclude_unset=True) for message in session.history]


def contents(path: Path) -> list[Any]:
    """What the messages say."""
    return [message["content"] for message in messages(path)]


def record(value: dict[str, Any]) -> list[Any]:
    """The step that prints a record."""
    return ["print", json.dumps(value)]


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only a zombie. For Linux and macOS."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return state.startswith("Z")
