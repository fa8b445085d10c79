"""Two real chats on one session, each on a pseudo-terminal, driven by keys."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are a thing of POSIX", allow_module_level=True)

pytest.importorskip("prompt_toolkit", reason="the line editor is prompt_toolkit's")

from chat.support import (
    CALL,
    PATIENCE,
    RESULT,
    Agent,
    contents,
    is_gone,
    messages,
    record,
    wait_until,
)
from chat.terminal import CTRL_C, CTRL_D, Terminal
from cosession import BlockingSession


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "agent")


def test_each_terminal_shows_the_others_lines_and_keeps_what_is_half_typed(path: Path) -> None:
    """What one asks and gets appears in the other, above a line that somebody is typing."""
    with Terminal(path, "ada", "--agent", "echo:0") as ada, Terminal(path, "bob") as bob:
        bob.press("I was about to")
        bob.shows_prompt("I was about to")
        ada.enter("what is 6 × 7?")
        ada.sees("user ada", "what is 6 × 7?", "assistant", "You said: what is 6 × 7?", "ada>")
        bob.sees("user ada", "what is 6 × 7?", "assistant", "You said: what is 6 × 7?")
        bob.shows_prompt("I was about to")
        bob.press(" say so\r")
        ada.sees("user bob", "I was about to say so", "You said: I was about to say so")
        ada.shows_prompt("")
        ada.enter("/who")
        ada.sees("· ada@", "this terminal", "· bob@")
        ada.press(CTRL_D)
        assert ada.ends() == 0
        bob.enter("/quit")
        assert bob.ends() == 0
    with BlockingSession(path) as session:
        assert (session.terminals(), session.interrupted) == ([], None)


@pytest.mark.deep
def test_what_one_takes_back_clears_or_compacts_the_other_sees(path: Path) -> None:
    """`/revert`, `/compact` and `/clear` are told to both, and change what both have."""
    with Terminal(path, "ada", "--agent", "echo:0") as ada, Terminal(path, "bob") as bob:
        for question in ("one", "two"):
            ada.enter(question)
            bob.sees(f"You said: {question}")
        bob.enter("/revert")
        ada.sees("reverted: ")
        bob.sees("back to before checkpoint 1; the old file is kept as context_1.jsonl")
        ada.enter("/compact")
        bob.sees("rewritten: 1 message in place of ", "The conversation so far", "you said: one")
        bob.enter("/clear")
        ada.sees("cleared")
        assert contents(path) == []
        assert sorted(file.name for file in path.parent.glob("context_*.jsonl")) == [
            "context_1.jsonl",
            "context_2.jsonl",
            "context_3.jsonl",
        ]


def test_the_turn_is_handed_over_between_a_call_and_the_next(path: Path, agent: Agent) -> None:
    """`/take` gets the turn when no call is open; the agent goes on, its answer comes behind."""
    command = agent.takes(
        [record(CALL), ["await", "result"], record(RESULT), ["await", "end"], ["print", "done"]]
    )
    with (
        Terminal(path, "ada", "--agent", command) as ada,
        Terminal(path, "bob", "--agent", "echo:0") as bob,
    ):
        ada.enter("time?")
        bob.sees("→ clock()", "it is the turn of ada@")
        bob.enter("hello?")
        bob.sees("waiting for ada@", "hello?", "bob>")
        bob.enter("/take")
        bob.sees("asked ada@")
        assert "handed over" not in ada.text()
        agent.let("result")
        ada.sees("bob@", "asks for the turn: handed over", "You said: hello?")
        agent.let("end")
        bob.sees("You said: hello?", "done")
    assert contents(path) == ["time?", None, "12:30", "hello?", "You said: hello?", "done"]


@pytest.mark.deep
def test_an_answer_whose_question_was_taken_back_is_shown_and_not_written(
    path: Path, agent: Agent
) -> None:
    """Who got the turn cleared the session: the answer has no place in it any more."""
    command = agent.takes(
        [["await", "end"], ["print", "too late"], ["touch", "printed"], ["await", "never"]]
    )

    def take_and_clear() -> None:
        with BlockingSession(path) as session, session.turn("clearing", timeout=PATIENCE):
            agent.let("end")
            wait_until((agent.folder / "printed").exists, "the agent has printed its answer")
            session.clear()

    with Terminal(path, "ada", "--agent", command) as ada:
        ada.enter("time?")
        ada.sees("the agent answers")
        clearing = Thread(target=take_and_clear)
        clearing.start()
        with BlockingSession(path) as session:
            assert session.request_turn("bob")
        clearing.join(timeout=PATIENCE)
        assert not clearing.is_alive()
        ada.sees("asks for the turn", "cleared", "its answer is not written", "too late")
        ada.shows_prompt("")
    assert contents(path) == []


def test_ctrl_c_gives_up_the_wait_and_gives_the_question_back(path: Path, agent: Agent) -> None:
    """Nothing is written, and what was typed is on the prompt again, to be sent later."""
    with Terminal(path, "bob", "--agent", "echo:0") as bob:
        with BlockingSession(path) as session, session.turn("pondering") as turn:
            turn.append({"role": "user", "content": "theirs"})
            bob.enter("my question")
            bob.sees("waiting for", "pondering")
            bob.press(CTRL_C)
            bob.sees("given up; nothing was written")
            bob.shows_prompt("my question")
        bob.press(" again\r")
        bob.sees("You said: my question again")
    assert contents(path) == ["theirs", "my question again", "You said: my question again"]


def test_ctrl_c_stops_the_agent_and_all_that_it_started(path: Path, agent: Agent) -> None:
    """What it printed is kept, its open call is closed, the turn ends, and no process is left."""
    command = agent.takes([["child"], ["print", "thinking"], record(CALL), ["await", "never"]])
    with Terminal(path, "ada", "--agent", command) as ada:
        ada.enter("time?")
        ada.sees("→ clock()", "the agent answers")
        ada.press(CTRL_C)
        ada.sees("stopped; what the agent had printed by then is kept")
        ada.shows_prompt("")
        with BlockingSession(path) as session:
            assert (session.holder, session.interrupted) == (None, None)
        history = messages(path)
        assert [message["role"] for message in history] == [
            "user",
            "assistant",
            "assistant",
            "tool",
        ]
        assert history[3]["tool_call_id"] == "c1"
        for name in ("pid-0", "child"):
            pid = int((agent.folder / name).read_text())
            wait_until(partial(is_gone, pid), f"the agent's {name} is gone")


@pytest.mark.deep
def test_a_closed_terminal_ends_the_turn_and_the_agent(path: Path, agent: Agent) -> None:
    """SIGHUP is not a crash: what was printed is kept, the call closed, and the turn ended."""
    command = agent.takes([record(CALL), ["await", "never"]])
    with Terminal(path, "ada", "--agent", command) as ada:
        ada.enter("time?")
        ada.sees("→ clock()", "the agent answers")
        ada.process.send_signal(signal.SIGHUP)
        assert ada.ends() == 0
    with BlockingSession(path) as session:
        assert (session.holder, session.interrupted, session.terminals()) == (None, None, [])
    assert [message["role"] for message in messages(path)] == ["user", "assistant", "tool"]
    pid = int((agent.folder / "pid-0").read_text())
    wait_until(partial(is_gone, pid), "the agent is gone")


@pytest.mark.deep
def test_ctrl_c_clears_the_line_and_twice_it_leaves(path: Path) -> None:
    """At the prompt it first drops what is typed, then says how to leave, then leaves."""
    with Terminal(path, "ada") as ada:
        ada.press("never mind")
        ada.shows_prompt("never mind")
        ada.press(CTRL_C)
        ada.shows_prompt("")
        ada.press(CTRL_C)
        ada.sees("Ctrl-C once more, or Ctrl-D, leaves")
        ada.press(CTRL_C)
        assert ada.ends() == 0


@pytest.mark.parametrize("decision", ["keep", pytest.param("roll back", marks=pytest.mark.deep)])
def test_the_turn_of_a_killed_chat_is_found_and_decided_about(
    path: Path, agent: Agent, decision: str
) -> None:
    """kill -9 leaves an interrupted turn; at the next question the other user is asked."""
    command = agent.takes([record(CALL), ["await", "for ever"]])
    with Terminal(path, "bob", "--agent", "echo:0") as bob:
        with Terminal(path, "ada", "--agent", command) as ada:
            ada.enter("time?")
            bob.sees("→ clock()")
            ada.kill()
        bob.sees("ada@", "died in its turn")
        bob.enter("hello?")
        bob.sees("ada@", "died in a turn, answering time?, that began at", "keep / roll back")
        bob.enter("really?")  # as if it had been typed before the question came
        bob.enter(decision)
        bob.sees("You said: hello?", "You said: really?")
    if decision == "keep":
        assert [message["role"] for message in messages(path)][:3] == ["user", "assistant", "tool"]
    asked = ["hello?", "You said: hello?", "really?", "You said: really?"]
    assert contents(path)[-4:] == asked
    assert len(contents(path)) == (7 if decision == "keep" else 4)


@pytest.mark.deep
def test_a_terminal_that_can_do_little_shows_plain_lines(path: Path) -> None:
    """With TERM=dumb lines come and go as they are, without an escape sequence; Ctrl-C leaves."""
    with Terminal(path, "ada", "--agent", "echo:0", term="dumb") as ada:
        ada.enter("hello")
        ada.sees("You said: hello", "ada>")
        ada.press(CTRL_C)
        ada.sees("Ctrl-C once more")
        ada.press(CTRL_C)
        assert ada.ends() == 0
        assert b"\x1b" not in ada.raw


@pytest.mark.deep
def test_messages_do_not_drive_the_terminal(path: Path, agent: Agent) -> None:
    """An escape sequence in a message is shown as text, also in the status line and the names."""
    evil = "\x1b]0;owned\x07\x1b[2J"
    command = agent.takes([["print", evil], ["await", "end"]])
    with Terminal(path, f"e{evil}", "--agent", command) as eve, Terminal(path, "bob") as bob:
        eve.enter("what")
        with BlockingSession(path) as session:
            wait_until(lambda: session.holder, "eve has the turn")
        bob.enter("x")
        bob.sees("waiting for e\\x1b]0;owned\\x07\\x1b[2J@")
        agent.let("end")
        bob.sees("assistant", "\\x1b]0;owned\\x07\\x1b[2J")
        assert b"\x1b]0;owned" not in bob.raw + eve.raw
