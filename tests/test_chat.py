"""`cosession chat` with its input from a pipe, and its agents: on every system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from chat.support import (
    CALL,
    COMMAND,
    PATIENCE,
    RESULT,
    Agent,
    Script,
    command_line,
    contents,
    is_gone,
    messages,
    record,
    talk,
    talk_apart,
    wait_until,
)
from cosession import BlockingSession, Message, Session
from cosession.cli.chat.agent import Agent as Program
from cosession.cli.chat.agent import Run, Tell
from cosession.cli.chat.exchange import open_calls
from cosession.cli.chat.screen import Listener
from cosession.cli.exits import Exit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk, gewöhnlich.jsonl"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "agent of the test")


@pytest.fixture
def interrupted(path: Path) -> Path:
    """A session whose last turn was left by a terminal that died, with a tool call open."""
    program = (
        "import os, sys; from cosession import BlockingSession\n"
        "with BlockingSession(sys.argv[1]) as session:\n"
        "    with session.turn('answering') as turn:\n"
        f"        turn.append([{{'role': 'user', 'content': 'left'}}, {CALL!r}])\n"
        "        os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False)
    assert done.returncode == 9
    return path


# ---- questions and answers ----------------------------------------------------------------------


def test_each_line_is_a_question_that_the_echo_answers(path: Path) -> None:
    """Questions and answers are in the file and on standard output, and the status is 0."""
    done = talk_apart(path, "hello\r\n\nwörld", "--agent", "echo:0")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(path) == ["hello", "You said: hello", "wörld", "You said: wörld"]
    shown = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in shown if "said" in line] == ["You said: hello", "You said: wörld"]


def test_an_agent_gets_the_session_as_one_document(path: Path, agent: Agent) -> None:
    """It has the messages as they are stored, the question last, and what else it needs."""
    with BlockingSession(path) as session:
        session.set_system_prompt("Be brief.")
        session.append([{"role": "user", "content": "é\ud800", "x": [1]}, CALL, RESULT])
        session.record_usage(77)
    done = talk(path, "and?\n", "--agent", agent.takes([["print", "so"]]), "--name", "ada")
    assert done.exit_code == 0, done.stderr
    assert agent.seen() == {
        "task": "answer",
        "session": str(path),
        "system_prompt": "Be brief.",
        "token_count": 77,
        "messages": [
            {"role": "user", "content": "é\ud800", "x": [1]},
            CALL,
            RESULT,
            {"role": "user", "content": "and?", "name": "ada"},
        ],
    }


@pytest.mark.skipif(sys.platform == "win32", reason="looks for processes as POSIX has them")
@pytest.mark.parametrize("deaf", [False, True], ids=["ends when asked to", "is made to end"])
def test_a_chat_that_is_killed_takes_its_agent_with_it(
    path: Path, agent: Agent, deaf: bool
) -> None:
    """kill -9: the agent, which prints nothing, and what it has started end at once."""
    steps = [["child"], ["touch", "on"], ["await", "for ever"]]
    command = agent.takes([["deaf"], *steps] if deaf else steps)
    process = subprocess.Popen(
        [*COMMAND, str(path), "--agent", command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    try:
        process.stdin.write(b"time?\n")
        process.stdin.flush()
        wait_until((agent.folder / "on").exists, "the agent is at work")
    finally:
        process.kill()
        process.stdin.close()
        process.wait(timeout=PATIENCE)
    for name in ("pid-0", "child"):
        pid = int((agent.folder / name).read_text())
        wait_until(partial(is_gone, pid), f"{name} is gone", seconds=PATIENCE / 2)


def test_records_are_appended_one_by_one_and_text_between_them_is_a_message(
    path: Path, agent: Agent
) -> None:
    """A record is in the file while the agent goes on; lines of text together are one message."""
    command = agent.takes(
        [
            ["print", "let me\n\nlook"],
            record({"role": "_usage", "token_count": 9}),
            record(CALL),
            ["await", "go"],
            record(RESULT),
            ["print", '{"no": "role"}'],
            ["print", "{not json"],
        ]
    )
    process = subprocess.Popen(
        [*COMMAND, str(path), "--agent", command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    try:
        process.stdin.write(b"time?\n")
        process.stdin.close()
        wait_until(lambda: path.exists() and CALL in messages(path), "the call is in the file")
        with BlockingSession(path, read_only=True) as session:
            assert session.holder is not None
            assert session.token_count == 9
        assert RESULT not in messages(path)
        agent.let("go")
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait(timeout=PATIENCE)
    said = [{"role": "assistant", "content": "let me\n\nlook"}, CALL, RESULT]
    assert messages(path)[1:] == [
        *said,
        {"role": "assistant", "content": '{"no": "role"}\n{not json'},
    ]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([["complain", "no key"], ["exit", 3]], ["agent: no key", "ended with status 3: no key"]),
        ([], ["printed nothing"]),
        ([record(CALL), ["exit", 1]], ["ended with status 1"]),
        ([record({"role": 1}), record({"role": "_checkpoint", "id": 7})], ["not for an agent"]),
        ([record({"role": "user", "content": 5})], ["neither a string nor a list"]),
    ],
    ids=["status", "nothing", "open call", "checkpoint", "invalid"],
)
def test_a_failing_agent_is_shown_and_leaves_a_history_that_a_model_takes(
    path: Path, agent: Agent, steps: list[list[object]], words: list[str]
) -> None:
    """What it said is kept, its open calls get a result, and the next question is answered."""
    command = agent.takes(steps, [["print", "fine"]])
    done = talk(path, "one\ntwo\n", "--agent", command)
    for word in words:
        assert word in done.stderr
    failed = "not for" not in done.stderr and "neither" not in done.stderr
    assert done.exit_code == (Exit.OFF if failed else Exit.OK)
    history = [Message(**message) for message in messages(path)]
    assert open_calls(history) == []
    assert [message.content for message in history][-2:] == ["two", "fine"]
    if record(CALL) in steps:
        assert "ended before it had one" in str(history[2].content)


def test_an_agent_that_is_not_there_is_shown(path: Path) -> None:
    """The question stays, the turn ends, and the status says that something was off."""
    done = talk(path, "one\n", "--agent", "no-such-program --at-all")
    assert done.exit_code == Exit.OFF
    assert "'no-such-program' can't be started" in done.stderr
    with BlockingSession(path) as session:
        assert (session.holder, session.interrupted) == (None, None)


def test_an_agent_need_not_read_its_input(path: Path, agent: Agent) -> None:
    """A conversation that nobody reads hinders nothing."""
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "x" * 1_000_000})
    (agent.folder / "blind.py").write_text("print('done')")
    program = [sys.executable, str(agent.folder / "blind.py")]
    done = talk(path, "one\n", "--agent", command_line(program))
    assert (done.exit_code, done.stderr) == (0, "")
    assert contents(path)[-1] == "done"


def test_escape_sequences_do_not_reach_the_terminal(path: Path, agent: Agent) -> None:
    """What a message or an agent's complaint would do to the terminal is written as escapes."""
    command = agent.takes([["print", "\x1b[2Jboo\x07"], ["complain", "\x1b]0;title\x07"]])
    done = talk_apart(
        path, "one\x1b[31m\n/revert \x1b[0m\n", "--agent", command, "--name", "\x1b[1m"
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "\\x1b[2Jboo\\x07" in done.stdout
    assert "\\x1b]0;title" in done.stderr


# ---- commands -----------------------------------------------------------------------------------


def test_revert_clear_and_compact_keep_what_was_there(path: Path) -> None:
    """`/revert` takes back the last question, `/compact` leaves a summary, `/clear` nothing."""
    with BlockingSession(path) as session:
        session.set_system_prompt("Be brief.")
    lines = "one\ntwo\n/revert\nthree\n/revert 1\nfour\n/compact\n"
    done = talk(path, lines, "--agent", "echo:0")
    assert (done.exit_code, done.stdout.count("reverted: ")) == (0, 2), done.stderr
    (summary,) = contents(path)
    assert summary.endswith("So far you said: one / four")
    with BlockingSession(path, read_only=True) as session:
        assert session.system_prompt == "Be brief."
    done = talk(path, "/clear\n/clear\n/revert\n/compact\n")
    assert "kept as" in done.stderr
    assert "there was nothing to clear" in done.stderr
    assert "no checkpoint" in done.stderr
    assert "nothing to compact" in done.stderr
    assert done.exit_code == Exit.USAGE
    assert contents(path) == []


def test_a_compaction_whose_agent_fails_changes_nothing(path: Path, agent: Agent) -> None:
    """Without a summary, the history stays as it is."""
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "one"})
    done = talk(path, "/compact\n", "--agent", agent.takes([["print", "half"], ["exit", 1]]))
    assert done.exit_code == Exit.OFF
    assert agent.seen()["task"] == "compact"
    assert contents(path) == ["one"]


def test_who_help_and_what_is_no_command(path: Path) -> None:
    """`/who` and `/help` print what they are asked for; `//` begins a question with a slash."""
    done = talk(path, "/who\n/help\n/nonsense\n//tmp?\n/quit\nnever\n", "--agent", "echo:0")
    assert "this terminal" in done.stdout
    assert "/take [QUESTION]" in done.stdout
    assert "no command /nonsense" in done.stderr
    assert done.exit_code == Exit.USAGE
    assert contents(path) == ["/tmp?", "You said: /tmp?"]


def test_the_last_messages_are_shown_on_request(path: Path) -> None:
    """`--last N` begins with them, and says how many there are before."""
    with BlockingSession(path) as session:
        session.append([{"role": "user", "content": f"m{number}"} for number in range(5)])
    assert talk(path, "").output == ""
    done = talk(path, "", "--last", "2")
    assert done.exit_code == 0
    assert "3 earlier messages" in done.stdout
    assert [line.strip() for line in done.stdout.splitlines() if "  m" in line] == ["m3", "m4"]


# ---- with others --------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a chat left behind."""

    status: int
    shown: str
    complaints: str


def after_a_turn(path: Path, line: str, *options: str) -> Ended:
    """A chat in a process of its own, whose only line waited for another one's turn."""
    with ExitStack() as running:
        with BlockingSession(path) as session, session.turn("pondering") as turn:
            turn.append({"role": "user", "content": "theirs"})
            process = running.enter_context(
                subprocess.Popen(
                    [*COMMAND, str(path), *options],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    env=os.environ | {"PYTHONUTF8": "1"},
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(f"{line}\n")
            process.stdin.close()
            waiting = process.stderr.readline()
            assert "waiting for" in waiting
            assert "pondering" in waiting
            turn.append({"role": "assistant", "content": "their answer"})
        shown, complaints = process.stdout.read(), process.stderr.read()
    return Ended(process.returncode, shown, complaints)


def test_it_waits_for_another_terminals_turn_and_shows_what_came_in_it(
    path: Path, agent: Agent
) -> None:
    """It says for whom it waits; the other's turn stays together, and its agent sees all of it."""
    command = agent.takes([["print", "mine"]])
    done = after_a_turn(path, "ours", "--agent", command)
    assert (done.status, done.complaints) == (0, "")
    assert contents(path) == ["theirs", "their answer", "ours", "mine"]
    assert done.shown.index("their answer") < done.shown.index("ours") < done.shown.index("mine")
    assert len(agent.seen()["messages"]) == 3


def test_what_others_wrote_is_shown_before_the_agent_starts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that came in a moment before the question is on the screen by then."""
    written: list[str] = []
    by_then: list[str] = []
    start = Program.start

    async def observed(self: Program, document: bytes, tell: Tell) -> Run:
        by_then.extend(written)
        return await start(self, document, tell)

    class Late(Script):
        async def read(self, listener: Listener) -> None:
            async with Session(path) as other:
                await other.append({"role": "user", "content": "just before"})
            await super().read(listener)

        def write(self, text: str) -> None:
            written.append(text)

    monkeypatch.setattr(Program, "start", observed)
    assert talk(path, "mine", "--agent", "echo:0", screen=Late).exit_code == 0
    assert "just before" in "".join(by_then)
    assert "mine" in "".join(by_then)
    assert "You said" in "".join(written)


def test_what_was_not_seen_is_not_taken_back(path: Path) -> None:
    """A `/revert` that waited for a turn finds new messages, and is refused."""
    with BlockingSession(path) as session:
        session.checkpoint()
    done = after_a_turn(path, "/revert 0")
    assert done.status == Exit.CONFLICT
    assert "messages came in in between: look, and say it again" in done.complaints
    assert contents(path) == ["theirs", "their answer"]


def test_chats_at_once_write_turns_that_stay_together(path: Path) -> None:
    """Three scripts of questions on one session: every answer is right behind its question."""
    chats = [
        subprocess.Popen(
            [*COMMAND, str(path), "--agent", "echo:0.05", "--name", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for name in "abc"
    ]
    for name, process in zip("abc", chats, strict=True):
        assert process.stdin is not None
        process.stdin.write("".join(f"{name}{number}\n" for number in range(3)).encode())
        process.stdin.close()
    assert [process.wait(timeout=PATIENCE) for process in chats] == [0, 0, 0]
    said = contents(path)
    assert sorted(said[::2]) == sorted(f"{name}{number}" for name in "abc" for number in range(3))
    assert said[1::2] == [f"You said: {question}" for question in said[::2]]


def test_an_interrupted_turn_is_kept_with_its_calls_closed(interrupted: Path) -> None:
    """`--interrupted keep` leaves what the dead terminal wrote, in a form that a model takes."""
    done = talk(interrupted, "next\n", "--agent", "echo:0", "--interrupted", "keep")
    assert (done.exit_code, "kept" in done.stderr) == (0, True)
    history = messages(interrupted)
    assert [message["content"] for message in history[-2:]] == ["next", "You said: next"]
    assert history[:2] == [{"role": "user", "content": "left"}, CALL]
    assert history[2]["tool_call_id"] == "c1"


def test_an_interrupted_turn_is_rolled_back(interrupted: Path) -> None:
    """`--interrupted roll-back` takes out what the dead terminal wrote, and keeps the old file."""
    done = talk(interrupted, "next\n", "--agent", "echo:0", "--interrupted", "roll-back")
    assert done.exit_code == 0, done.stderr
    assert "kept as talk, gewöhnlich_1.jsonl" in done.stderr
    assert contents(interrupted) == ["next", "You said: next"]


def test_a_script_is_not_asked_about_an_interrupted_turn(interrupted: Path) -> None:
    """Without being told what to do, it changes nothing, and says who died and what to give."""
    before = interrupted.read_bytes()
    done = talk_apart(interrupted, "next\n")
    assert done.returncode == Exit.CONFLICT
    assert "was interrupted" in done.stderr
    assert "--interrupted keep" in done.stderr
    assert interrupted.read_bytes() == before


# ---- pieces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "echo:soon", "echo:nan", "echo:-1", "'open"])
def test_a_command_that_is_none_is_refused(command: str, path: Path) -> None:
    """An agent's command line is looked at before anything is touched."""
    if command == "'open" and sys.platform == "win32":
        pytest.skip("an apostrophe is an ordinary character there")
    with pytest.raises(ValueError):
        Program.parse(command)


def test_open_calls_are_those_without_a_result() -> None:
    """In their order; a result for an unknown call, and calls of odd shapes, are passed over."""
    first = Message(role="assistant", tool_calls=[{"id": "a"}, {"id": "b"}, 5, {"id": 6}])
    result = Message(role="tool", tool_call_id="a", content="")
    other = Message(role="tool", tool_call_id="z", content="")
    assert open_calls([first]) == ["a", "b"]
    assert open_calls([first, result, other]) == ["b"]
    assert json.dumps(open_calls([])) == "[]"
