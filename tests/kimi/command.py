"""The real command, `kimi --print`, four at once on one session, with our class and without.

There is no network: the model is kimi-cli's own `_scripted_echo`, which plays a list of scripts.
In every script the shell tool waits for the other terminals, so all are at the same step.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kaos.path import KaosPath
from kimi_cli.session import Session
from kimi_support import HERE, Ours, Theirs, checkpoint_ids, finish, records, restored, start, texts

NAMES = ("Ada", "Bob", "Cy", "Dee")
STEPS = 5
"""Steps of a turn in which a tool is called; the answer is one more."""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="kimi-cli's shell tool runs another shell on Windows"
)

AGENT = """\
version: 1
agent:
  name: test
  system_prompt_path: ./system.md
  tools: ["kimi_cli.tools.shell:Shell", "kimi_cli.tools.dmail:SendDMail"]
  subagents: {}
"""

CONFIG = """\
default_model = "echo"
telemetry = false
[models.echo]
provider = "echo"
model = "echo"
max_context_size = 100000
[providers.echo]
type = "_scripted_echo"
base_url = ""
api_key = ""
[providers.echo.env]
KIMI_SCRIPTED_ECHO_SCRIPTS = %s
"""


class Home:
    """A place where kimi-cli keeps its things, with one session that is still empty."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._environment = {**os.environ, "KIMI_SHARE_DIR": str(folder / "share")}
        (folder / "work").mkdir()
        (folder / "agent.yaml").write_text(AGENT)
        (folder / "system.md").write_text("You are one of several terminals.")
        monkeypatch.setenv("KIMI_SHARE_DIR", str(folder / "share"))
        session = asyncio.run(Session.create(KaosPath(str(folder / "work")), "shared"))
        self.path: Path = session.context_file

    def kimi(self, module: str, name: str, prompt: str, scripts: Sequence[str]) -> Any:
        """Start the command as one terminal."""
        played = self.folder / f"{name}.json"
        played.write_text(json.dumps(scripts))
        config = self.folder / f"{name}.toml"
        config.write_text(CONFIG % json.dumps(str(played)))
        options = {
            "--work-dir": self.folder / "work",
            "--session": "shared",
            "--config-file": config,
            "--agent-file": self.folder / "agent.yaml",
            "--prompt": prompt,
        }
        arguments = [str(word) for option in options.items() for word in option]
        return start("-m", module, "--print", *arguments, env=self._environment)

    def meet(self, name: str, step: int) -> dict[str, object]:
        """A call of the shell tool that waits until all the terminals are at this step."""
        words = [sys.executable, "-S", HERE / "meet.py", self.folder / "met" / str(step)]
        command = shlex.join([*map(str, words), name, str(len(NAMES))])
        return {"command": command, "timeout": 120}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path, monkeypatch)


def script(said: str, *calls: tuple[str, str, dict[str, object]], tokens: int = 10) -> str:
    """What the model streams in one step: text, and tool calls as (id, name, arguments)."""
    lines = [f"usage: input_other={tokens} output=5", f"text: {said}"]
    lines += [
        "tool_call: " + json.dumps({"id": id_, "name": name, "arguments": json.dumps(arguments)})
        for id_, name, arguments in calls
    ]
    return "\n".join(lines)


def four_terminals(home: Home, module: str) -> None:
    """Four terminals on the session, each with one turn of several steps, all at once."""
    terminals = []
    for name in NAMES:
        scripts = [
            script(f"{name} {step}", (f"{name}-{step}", "Shell", home.meet(name, step)))
            for step in range(STEPS)
        ]
        scripts.append(script(f"{name} is done"))
        terminals.append(home.kimi(module, name, f"{name} asks", scripts))
    for name, output in zip(NAMES, finish(terminals, timeout=150), strict=True):
        assert f"{name} is done" in output


def repeated(ids: list[int]) -> int:
    """How many of these have been there before."""
    return len(ids) - len(set(ids))


def test_four_terminals_with_ours(home: Home) -> None:
    """No checkpoint id repeats, no record is lost, and every line is whole."""
    four_terminals(home, "cosession.adapters.kimi")
    ids = checkpoint_ids(home.path)
    print(f"with cosession {repeated(ids)} of {len(ids)} checkpoint ids repeat")
    assert ids == list(range(len(NAMES) * (STEPS + 2)))
    lines = records(home.path)
    assert [line["role"] for line in lines].count("_system_prompt") == 1
    assert lines[0]["role"] == "_system_prompt"
    for mark, message in pairwise(lines):
        if mark["role"] == "_checkpoint":
            assert message["content"] == f"<system>CHECKPOINT {mark['id']}</system>"
    assert [line["role"] for line in lines].count("_usage") == len(NAMES) * 2 * (STEPS + 1)
    everything = Counter(turn_of(line) for line in lines if turn_of(line))
    for name in NAMES:
        mine = [what for what in map(turn_of, lines) if what and what[0] == name]
        steps = [
            what
            for step in range(STEPS)
            for what in ((name, f"says {step}"), (name, f"result of {step}"))
        ]
        assert mine == [(name, "asks"), *steps, (name, "is done")]
    assert set(everything.values()) == {1}
    assert not list(home.path.parent.glob("context_*"))
    assert len(asyncio.run(restored(Theirs, home.path)).history) == len(ids) + len(everything)


def turn_of(line: dict[str, Any]) -> tuple[str, str] | None:
    """Whose turn a record belongs to, and what it says there."""
    content = line.get("content")
    if line["role"] == "user" and not str(content).startswith("<system>"):
        name, _, what = str(content).partition(" ")
        return name, what
    if line["role"] == "assistant":
        name, _, what = str(content).partition(" ")
        return (name, f"says {what}") if line.get("tool_calls") else (name, what)
    if line["role"] == "tool":
        assert "met" in str(content), content  # the terminals did wait for each other
        name, _, step = line["tool_call_id"].partition("-")
        return name, f"result of {step}"
    return None


@pytest.mark.deep
def test_four_terminals_without(home: Home) -> None:
    """What kimi-cli's own class does with the same turns: ids repeat."""
    four_terminals(home, "kimi_cli")
    ids = [
        int(line.split(b'"id": ')[1].split(b"}")[0])
        for line in home.path.read_bytes().splitlines()
        if line.startswith(b'{"role": "_checkpoint"')
    ]
    print(f"without cosession {repeated(ids)} of {len(ids)} checkpoint ids repeat")
    assert repeated(ids) > 0


def test_d_mail(home: Home) -> None:
    """The command reverts to a checkpoint, keeps the old file, and goes on from there."""
    message = {"message": "skip that", "checkpoint_id": 1}
    scripts = [
        script("Looking.", ("1", "Shell", {"command": "echo looked"})),
        script("Going back.", ("2", "SendDMail", message)),
        script("Here again."),
    ]
    finish([home.kimi("cosession.adapters.kimi", "Ada", "Ada asks", scripts)], timeout=120)
    assert checkpoint_ids(home.path) == [0, 1, 2]
    said = [str(line.get("content")) for line in records(home.path)]
    assert "Here again." in said
    assert "Going back." not in said
    rotated = [str(line.get("content")) for line in records(home.path.parent / "context_1.jsonl")]
    assert "Going back." in rotated


def test_slash_clear(home: Home) -> None:
    """`/clear` leaves a session that has its system prompt and nothing else, and the old file."""
    context = Ours(home.path)
    asyncio.run(context.write_system_prompt("Be brief."))
    asyncio.run(context.checkpoint(True))
    whole = home.path.read_bytes()
    finish([home.kimi("cosession.adapters.kimi", "Ada", "/clear", [])], timeout=120)
    assert records(home.path) == [{"role": "_system_prompt", "content": "Be brief."}]
    assert (home.path.parent / "context_1.jsonl").read_bytes() == whole
    asyncio.run(context.append_message([]))
    assert (texts(context), context.system_prompt) == ([], "Be brief.")
