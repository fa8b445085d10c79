"""The real command, `kimi --print`, four at once on one session, with our class and without.

There is no network: the model is kimi-cli's own `_scripted_echo`, which plays a list of scripts.
Without turns the shell tool waits in every step for the other terminals, so all are at the same
step. With turns they can't meet in there: they do so right before they begin.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from kaos.path import KaosPath
from kimi_cli.session import Session
from kimi_support import (
    HERE,
    Ours,
    Theirs,
    checkpoint_ids,
    finish,
    records,
    require_named_checkpoints,
    restored,
    start,
    texts,
)

from cosession import BlockingSession

NAMES = ("Ada", "Bob", "Cy", "Dee")
STEPS = 5
"""Steps of a turn in which a tool is called; the answer is one more."""

OURS = ("-m", "cosession.adapters.kimi")
OURS_WITHOUT_TURNS = (HERE / "no_turns.py",)
THEIRS = ("-m", "kimi_cli")

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

HOOK = """\
[[hooks]]
event = "SessionStart"
command = %s
timeout = 120
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

    def kimi(
        self,
        program: Sequence[object],
        name: str,
        prompt: str,
        scripts: Sequence[str],
        *,
        start_with_all: bool = False,
    ) -> Any:
        """Start the command as one terminal."""
        played = self.folder / f"{name}.json"
        played.write_text(json.dumps(scripts))
        config = self.folder / f"{name}.toml"
        hook = HOOK % json.dumps(self.meet(name, "start")["command"]) if start_with_all else ""
        config.write_text(CONFIG % json.dumps(str(played)) + hook)
        options = {
            "--work-dir": self.folder / "work",
            "--session": "shared",
            "--config-file": config,
            "--agent-file": self.folder / "agent.yaml",
            "--prompt": prompt,
        }
        arguments = [str(word) for option in options.items() for word in option]
        return start(*program, "--print", *arguments, env=self._environment)

    def meet(self, name: str, step: object) -> dict[str, object]:
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


def four_terminals(home: Home, program: Sequence[object]) -> None:
    """Four terminals on the session, each with one turn of several steps, all at once."""
    terminals = []
    for name in NAMES:
        scripts = [
            script(f"{name} {step}", (f"{name}-{step}", "Shell", home.meet(name, step)))
            for step in range(STEPS)
        ]
        scripts.append(script(f"{name} is done"))
        terminals.append(home.kimi(program, name, f"{name} asks", scripts))
    for name, output in zip(NAMES, finish(terminals, timeout=150), strict=True):
        assert f"{name} is done" in output


def four_turns(home: Home, program: Sequence[object]) -> list[str]:
    """The same, but they meet before they begin and not in between; what they printed."""
    terminals = []
    for name in NAMES:
        pause: dict[str, object] = {"command": "sleep 0.2; echo here"}
        scripts = [
            script(f"{name} {step}", (f"{name}-{step}", "Shell", pause)) for step in range(STEPS)
        ]
        scripts.append(script(f"{name} is done"))
        terminal = home.kimi(program, name, f"{name} asks", scripts, start_with_all=True)
        terminals.append(terminal)
    outputs = finish(terminals, timeout=180)
    for name, output in zip(NAMES, outputs, strict=True):
        assert f"{name} is done" in output
    return outputs


def pieces(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Whose records follow each other, named once for each piece."""
    owners = [what[0] for what in map(turn_of, lines) if what]
    return [owner for owner, _ in groupby(owners)]


def repeated(ids: list[int]) -> int:
    """How many of these have been there before."""
    return len(ids) - len(set(ids))


@pytest.mark.deep
def test_four_terminals_with_ours(home: Home) -> None:
    """Without turns: no checkpoint id repeats, no record is lost, and every line is whole."""
    four_terminals(home, OURS_WITHOUT_TURNS)
    ids = checkpoint_ids(home.path)
    print(f"with cosession {repeated(ids)} of {len(ids)} checkpoint ids repeat")
    assert ids == list(range(len(NAMES) * (STEPS + 2)))
    lines = records(home.path)
    assert [line["role"] for line in lines].count("_system_prompt") == 1
    assert lines[0]["role"] == "_system_prompt"
    require_named_checkpoints(home.path)
    results = [str(line["content"]) for line in lines if line["role"] == "tool"]
    assert all("met" in result for result in results)  # the terminals did wait for each other
    assert len(pieces(lines)) > len(NAMES)
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


@pytest.mark.deep
def test_four_turns(home: Home) -> None:
    """Each terminal's run is one piece: its checkpoints, question, calls, results and answer."""
    outputs = four_turns(home, OURS)
    lines = [line for line in records(home.path) if line["role"] != "_usage"]
    assert lines.pop(0)["role"] == "_system_prompt"
    print(f"with turns, {len(NAMES)} turns are in {len(pieces(lines))} pieces")
    mark = ["_checkpoint", "user"]
    turn = [*mark, "user", *[*mark, "assistant", "tool"] * STEPS, *mark, "assistant"]
    names = set()
    for begin in range(0, len(lines), len(turn)):
        piece = lines[begin : begin + len(turn)]
        assert [line["role"] for line in piece] == turn
        (name,) = {what[0] for what in map(turn_of, piece) if what}
        names.add(name)
    assert names == set(NAMES)
    assert checkpoint_ids(home.path) == list(range(len(NAMES) * (STEPS + 2)))
    require_named_checkpoints(home.path)
    last = pieces(lines)[-1]  # has waited for three others
    assert "Another terminal is answering in this session" in outputs[NAMES.index(last)]
    assert not list(home.path.parent.glob("context_*"))


@pytest.mark.deep
def test_four_turns_without(home: Home) -> None:
    """The same terminals without turns write in more pieces than one each."""
    four_turns(home, OURS_WITHOUT_TURNS)
    found = pieces(records(home.path))
    print(f"without turns, {len(NAMES)} turns are in {len(found)} pieces")
    assert len(found) > len(NAMES)


@pytest.mark.deep
def test_commands_that_write_nothing(home: Home) -> None:
    """They don't wait for another terminal's turn, and leave the session as it is."""
    context = Ours(home.path)
    asyncio.run(context.write_system_prompt("Be brief."))
    with BlockingSession(home.path) as session, session.turn("long"):
        before = home.path.read_bytes()
        for command in ("/yolo", "/plan on", f"/export {home.folder / 'export.md'}"):
            finish([home.kimi(OURS, "Ada", command, [])], timeout=120)
        assert home.path.read_bytes() == before


@pytest.mark.deep
def test_killed_in_its_turn(home: Home) -> None:
    """A kimi-cli that is killed while its tool runs holds nobody up, and its question stays."""
    scripts = [script("Ada kills", ("1", "Shell", {"command": "kill -9 $PPID; sleep 100"}))]
    killed = home.kimi(OURS, "Ada", "Ada asks", scripts)
    assert killed.communicate(timeout=120)
    assert killed.returncode == -9
    with BlockingSession(home.path) as session:
        assert session.interrupted is not None
    finish([home.kimi(OURS, "Bob", "Bob asks", [script("Bob is done")])], timeout=120)
    lines = records(home.path)
    assert [what for what in map(turn_of, lines) if what] == [
        ("Ada", "asks"),
        ("Bob", "asks"),
        ("Bob", "is done"),
    ]
    assert checkpoint_ids(home.path) == list(range(4))


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
        name, _, step = line["tool_call_id"].partition("-")
        return name, f"result of {step}"
    return None


@pytest.mark.deep
def test_four_terminals_without(home: Home) -> None:
    """What kimi-cli's own class does with the same turns: ids repeat."""
    four_terminals(home, THEIRS)
    ids = [
        int(line.split(b'"id": ')[1].split(b"}")[0])
        for line in home.path.read_bytes().splitlines()
        if line.startswith(b'{"role": "_checkpoint"')
    ]
    print(f"without cosession {repeated(ids)} of {len(ids)} checkpoint ids repeat")
    assert repeated(ids) > 0


@pytest.mark.deep
def test_d_mail(home: Home) -> None:
    """The command reverts to a checkpoint, keeps the old file, and goes on from there."""
    message = {"message": "skip that", "checkpoint_id": 1}
    scripts = [
        script("Looking.", ("1", "Shell", {"command": "echo looked"})),
        script("Going back.", ("2", "SendDMail", message)),
        script("Here again."),
    ]
    finish([home.kimi(OURS, "Ada", "Ada asks", scripts)], timeout=120)
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
    finish([home.kimi(OURS, "Ada", "/clear", [])], timeout=120)
    assert records(home.path) == [{"role": "_system_prompt", "content": "Be brief."}]
    assert (home.path.parent / "context_1.jsonl").read_bytes() == whole
    asyncio.run(context.append_message([]))
    assert (texts(context), context.system_prompt) == ([], "Be brief.")
