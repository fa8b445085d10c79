"""What the command prints on rare occasions: other kinds of records, who waits, what takes long."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from chat.support import Script, contents, talk, talk_apart
from cosession import BlockingSession
from cosession.cli import output
from cosession.cli.chat import echo
from cosession.cli.chat.screen import Listener
from cosession.cli.chat.talk import Chat
from cosession.cli.demo.display import LiveDisplay, choose
from cosession.cli.exits import Exit
from cosession.cli.words import elapsed
from test_cli import call, good
from test_turns import dies_in_its_turn

BOUND = 60.0

RECORDS: list[dict[str, Any]] = [
    {"role": "_system_prompt", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "_checkpoint", "id": 4},
    {"role": "_usage", "token_count": 1234},
    {"role": "_fork", "content": "", "parent": "other.jsonl", "at": "7:8"},
    {"role": "_mine", "content": "unknown"},
]
BROKEN = b'{"role": "user", "content": "never clo\n'

posix = pytest.mark.skipif(sys.platform == "win32", reason="a file is executable by its name there")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A session with a record of each kind, and a damaged line."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in RECORDS) + BROKEN)
    os.utime(path, (1, 1))
    return path


# ---- every kind of record -----------------------------------------------------------------------


def test_tail_as_json_has_every_kind_of_record(path: Path) -> None:
    """What is known comes as it stands in the file, what is damaged as its place and reason."""
    entry = json.loads(good("tail", "--json", "--last", "9", path))
    first, one, mark, usage, fork, unknown, damaged = entry["records"]
    assert [first, one, mark, usage] == RECORDS[:4]
    assert fork == {"role": "_fork", "parent": "other.jsonl", "at": "7:8"}
    assert unknown == {"unknown": True}
    assert damaged["damaged"]["offset"] == path.read_bytes().index(BROKEN)
    assert damaged["damaged"]["reason"]


def test_verify_says_what_each_record_is(path: Path) -> None:
    """Each line with its kind and what it holds; the damaged one with its reason."""
    result = call("verify", path)
    assert result.exit_code == Exit.OFF
    lines = [line for line in result.stdout.splitlines() if line.startswith("line ")]
    for line, what in zip(
        lines,
        ("system prompt, 9 characters", "message, user", "checkpoint 4", "usage, 1234 tokens",
         "fork", "unknown", "damaged"),
        strict=True,
    ):  # fmt: skip
        assert what in line


def test_status_counts_tokens_marks_and_damage(path: Path) -> None:
    """What there is none of is not mentioned."""
    said = good("status", path)
    assert "1 message, 1,234 tokens, 1 checkpoint, 1 damaged line" in said
    empty = path.with_name("empty.jsonl")
    empty.touch()
    assert "0 messages\n" in good("status", empty)


def test_thoughts_system_messages_and_odd_calls_are_shown(tmp_path: Path) -> None:
    """What a model thought, what was said in the middle by the system, and calls of odd shapes."""
    path = tmp_path / "context.jsonl"
    calls = [{"id": "1", "type": "function", "function": {"name": "dig", "arguments": [["x"]]}}]
    with BlockingSession(path) as session:
        session.append({"role": "system", "content": "the rules"})
        session.append({"role": "assistant", "content": "so", "reasoning_content": "let me see"})
        session.append({"role": "assistant", "content": None, "tool_calls": calls})
    said = good("show", path)
    for words in ("the rules", "let me see", "dig"):
        assert words in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h"), (200_000, "2 days"), (-5, "0 s")],
)
def test_a_span_is_told_in_one_unit(seconds: float, words: str) -> None:
    """The largest that is there at least twice; never a negative one, when clocks go backwards."""
    assert elapsed(time.time() - seconds - 0.5) == words


# ---- who waits ----------------------------------------------------------------------------------


def test_who_waits_for_the_turn_is_listed(path: Path) -> None:
    """As soon as the wait is longer than a moment, with what it is for."""
    with BlockingSession(path) as holder, BlockingSession(path) as other:
        came = threading.Event()

        def wait() -> None:
            with other.turn("patient", timeout=BOUND):
                came.set()

        thread = threading.Thread(target=wait)
        with holder.turn("busy"):
            thread.start()
            deadline = time.monotonic() + BOUND
            while "waits for the turn: patient" not in (said := good("who", path)):
                assert time.monotonic() < deadline, said
                time.sleep(0.05)
            assert "has the turn: busy" in said
        thread.join(BOUND)
        assert came.is_set()


@posix
def test_a_command_that_can_not_be_run_ends_the_turn(path: Path, tmp_path: Path) -> None:
    """`hold` says why, with the shell's status for that, and the next one has the turn at once."""
    script = tmp_path / "no-program"
    script.write_bytes(b"\x7fELF but not really")
    script.chmod(0o700)
    result = call("hold", path, "--", str(script))
    assert (result.exit_code, "no-program: " in result.stderr) == (126, True)
    with BlockingSession(path) as session, session.turn(timeout=BOUND):
        pass


def test_text_that_is_no_unicode_is_refused(path: Path) -> None:
    """A shell passes on bytes that are none; nothing is written."""
    before = path.read_bytes()
    assert call("append", path, "caf\udce9").exit_code == Exit.USAGE
    assert path.read_bytes() == before


# ---- what takes long, on a terminal -------------------------------------------------------------


class Terminal(io.StringIO):
    """Standard error, as if it were one."""

    def isatty(self) -> bool:
        return True


@contextmanager
def on_a_terminal(patch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal()
    patch.setattr(sys, "stderr", terminal)
    patch.setattr(output, "NOTICE_AFTER", 0.0)
    patch.setenv("TERM", "xterm")
    patch.delenv("NO_COLOR", raising=False)
    yield terminal


def test_what_takes_long_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it is about; markup in a file's name is no markup."""
    with on_a_terminal(monkeypatch) as terminal:
        with output.Progress("reading [bold]", 100) as done:
            done(10)
            done(100)
        assert "reading [bold]" in terminal.getvalue()
        with output.Progress("unwanted", 100, wanted=False) as done:
            done(100)
        assert "unwanted" not in terminal.getvalue()


def test_a_long_wait_says_what_is_going_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for whom, if it is for somebody."""
    with on_a_terminal(monkeypatch) as terminal, output.patience(str(path), None, "opening"):
        deadline = time.monotonic() + BOUND
        while "opening" not in terminal.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.02)


# ---- the demo's table ---------------------------------------------------------------------------


def test_the_demo_draws_a_table_on_a_terminal(tmp_path: Path) -> None:
    """A row for each terminal, what was killed, and how far it is."""
    seats = [
        SimpleNamespace(conversation=0, number=n, role=role, state=state, messages=7, start=3,
                        message=2, recent=[0.001], waits=[0.002])
        for n, role, state in ((1, "write", "writing"), (2, "revert", "killed"))
    ]  # fmt: skip
    figures = SimpleNamespace(operations=50, kills=2, kills_within=1, rewrites=3, undone=0)
    plan = SimpleNamespace(path=str(tmp_path / "none"), kills=4, seconds=10.0)
    stage = SimpleNamespace(guard=threading.Lock(), seats=seats, figures=figures, plan=plan,
                            elapsed=5.0)  # fmt: skip
    talks = [SimpleNamespace(id="talk-1", messages=[1, 2, 3])]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    display = choose(console, cast(Any, stage), cast(Any, SimpleNamespace(conversations=talks)))
    assert isinstance(display, LiveDisplay)
    display.show()
    display.close()
    said = screen.getvalue()
    for words in ("1 writes", "2 reverts", "killed", "2/3 talk-1", "5 of 10 s", "2 of 4 kills",
                  "14 messages in 50 operations", "? live, 3 rotated files"):  # fmt: skip
        assert words in said


# ---- chat ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["answer", "compact"])
def test_the_echo_says_what_it_was_told(task: str) -> None:
    """The last question, or all of them before the one that asks for a summary."""
    parts = [{"type": "text", "text": "two"}, {"type": "picture"}]
    told = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "You said: one"},
        {"role": "user", "content": parts},
    ]
    said = echo.answer({"task": task, "messages": told})
    assert said == {"answer": "You said: two", "compact": "So far you said: one"}[task]


def test_the_turn_is_asked_for_of_whoever_has_it(path: Path) -> None:
    """`/take` names whom it asked, and `/who` whose turn it is; or that it is nobody's."""
    with BlockingSession(path) as session:
        with session.turn("thinking") as turn:
            done = talk_apart(path, "/take\n/who\n", "--agent", "echo:0", "--name", "bob")
            assert (done.returncode, "asked " in done.stderr) == (0, True), done.stderr
            assert "has the turn since" in done.stdout
            assert ", thinking" in done.stdout
            assert turn.requested is not None
            assert turn.requested.operation == "bob asks"
        done = talk_apart(path, "/take\n/take three?\n", "--agent", "echo:0")
        assert "nobody has the turn" in done.stderr
        assert done.returncode == 0
    assert contents(path)[-2:] == ["three?", "You said: three?"]


class Typing(Script):
    """A user at a terminal, who waits for what comes of each line. `^C` is a key."""

    interactive = True

    def ready(self, chat: Chat, line: str) -> bool:
        """Whether the line is typed now; the empty one is the end of the input."""
        raise NotImplementedError

    async def read(self, listener: Listener) -> None:
        chat = cast(Chat, listener)
        for line in [*self._lines, ""]:
            async with asyncio.timeout(BOUND):
                while not self.ready(chat, line):
                    await asyncio.sleep(0.01)
            if line == "^C":
                listener.interrupted()
            else:
                listener.entered(line)


def test_ctrl_c_at_an_empty_prompt_leaves_at_the_second_time(path: Path) -> None:
    """The first time it says how to leave; nothing is written either way."""

    class Leaving(Typing):
        def ready(self, chat: Chat, line: str) -> bool:
            return chat._left or (chat._work is not None and chat._work.done())

    before = path.read_bytes()
    done = talk(path, "^C\n^C\n", "--agent", "echo:0", screen=Leaving)
    assert done.output.count("Ctrl-C once more, or Ctrl-D, leaves") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("answer", ["keep", "roll back"])
def test_a_user_says_what_becomes_of_an_interrupted_turn(tmp_path: Path, answer: str) -> None:
    """What is typed meanwhile and is no answer to that is a question, and not lost."""
    path = tmp_path / "context.jsonl"
    dies_in_its_turn(path, {"role": "user", "content": "left"})

    class User(Typing):
        def ready(self, chat: Chat, line: str) -> bool:
            if line:
                return chat._replies is not None and chat._replies.empty() and not chat._at_once
            return "You said: early question" in contents(path)

    done = talk(path, f"/who\nearly question\n{answer}\n", "--agent", "echo:0", screen=User)
    assert done.output.count("(keep / roll back)") >= 1
    assert "died in its turn, which began at" in done.output
    said = contents(path)
    assert said[-2:] == ["early question", "You said: early question"]
    assert said[:-2] == (["left"] if answer == "keep" else [])
