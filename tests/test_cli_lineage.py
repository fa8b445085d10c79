"""The commands that tell where a session stands and comes from, and that go back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aio.both import user
from cosession import BlockingSession
from test_cli import call

BOUND = 60.0


def lines(*arguments: object) -> list[dict[str, Any]]:
    done = call(*map(str, arguments), "--json")
    assert done.exit_code in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A session with a past."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        session.append(user("a"))
        session.checkpoint()
        session.append([user("b"), user("c")])
        session.revert_to(0)
        session.append(user("d"))
        session.checkpoint()
        session.record_usage(1234)
    return path


def contents(path: Path) -> list[Any]:
    with BlockingSession(path, read_only=True) as session:
        return [message.content for message in session.history]


def test_log_tells_the_past_and_what_can_be_gone_back_to(path: Path) -> None:
    """Reverts with what they took away, files of other programs, forks, checkpoints, now."""
    with BlockingSession(path) as session:
        fork = session.fork(at=0)
    path.with_name("context_9.jsonl").write_bytes(b"")
    os.utime(path.with_name("context_9.jsonl"), (1e9, 1e9))
    by_others, revert, forked, mark, now = lines("log", path)
    assert by_others == {
        "event": "rotated", "rotated": "context_9.jsonl", "number": 9, "when": 1e9,
    }  # fmt: skip
    assert (revert["event"], revert["number"], revert["messages"]) == ("revert", 1, 2)
    assert revert["by"]["pid"] == os.getpid()
    assert (forked["event"], forked["fork"]) == ("fork", str(fork.path))
    assert mark == {"event": "checkpoint", "checkpoint": 0, "messages": 2}
    assert (now["event"], now["messages"]) == ("now", 2)
    (origin, *_, end) = lines("log", fork.path)
    assert (origin["event"], origin["parent"]) == ("forked", str(path))
    assert end["messages"] == 2
    shown = call("log", path).stdout.splitlines()
    assert "by a program without cosession" in shown[0]
    assert "2 messages left the session; it is kept as context_1.jsonl" in shown[1]
    fork.path.unlink()
    assert "context.fork-1.jsonl, which is gone" in call("log", path).stdout


def test_restore_brings_a_rotated_file_back(path: Path) -> None:
    """It prints where the present one is kept; an unknown number is refused with what there is."""
    done = call("restore", path, "1")
    assert (done.exit_code, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).name == "context_2.jsonl"
    assert contents(path) == ["a", "b", "c"]
    done = call("restore", path, "7")
    assert done.exit_code == 4
    assert "it has 1–2" in done.stderr
    assert "cosession log" in done.stderr
    assert contents(path) == ["a", "b", "c"]


def test_fork_makes_a_session_of_a_beginning(path: Path) -> None:
    """At a checkpoint, at a revision from before the revert, or of all of it."""
    ended = lines("log", path)[0]["ended"]
    made = [
        Path(call("fork", path, *options).stdout.strip())
        for options in ([], ["--at", 0], [path.with_name("old.jsonl"), "--at", ended])
    ]
    assert [contents(fork) for fork in made] == [["a", "d"], ["a", "d"], ["a", "b", "c"]]
    assert [fork.name for fork in made] == [
        "context.fork-1.jsonl", "context.fork-2.jsonl", "old.jsonl",
    ]  # fmt: skip
    for place, status in (("1:2", 4), ("7", 4), ("x", 2), ("1:x", 2)):
        assert call("fork", path, "--at", place).exit_code == status
    assert call("fork", path, made[0]).exit_code == 5


def test_status_tells_where_a_session_stands(path: Path) -> None:
    """Figures, and nobody's turn; a reader without rights may ask."""
    (status,) = lines("status", path)
    assert (status["messages"], status["token_count"], status["checkpoints"]) == (2, 1234, [0])
    assert (status["turn"], status["interrupted"], status["terminals"]) == (None, None, [])
    shown = call("status", path)
    assert shown.exit_code == 0
    assert "messages     2 messages, 1,234 tokens, 1 checkpoint" in shown.stdout
    assert "turn         nobody's" in shown.stdout
    assert call("status", path.with_name("nothing.jsonl")).exit_code == 6
    assert not path.with_name("nothing.jsonl").exists()


def test_status_tells_whose_turn_it_is_and_who_waits(path: Path) -> None:
    """With labels and how far the turn is; who waits is another process."""
    waits = "import sys; from cosession import BlockingSession\n"
    waits += "with BlockingSession(sys.argv[1]) as s, s.turn('me too'): print('now')"
    with BlockingSession(path) as session, session.present("chat"):
        with session.turn("answering") as turn:
            turn.append(user("e"))
            command = [sys.executable, "-c", waits, str(path)]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as other:
                deadline = time.monotonic() + BOUND
                while not session.waiting():
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                (status,) = lines("status", path)
                shown = call("status", path).stdout
                turn.append(user("f"))
                session._end_turn(turn)
                assert other.wait(BOUND) == 0
        assert status["turn"]["holder"]["label"] == "answering"
        assert status["turn"]["records"] == 1
        assert [card["label"] for card in status["turn"]["waiting"]] == ["me too"]
        assert [card["pid"] for card in status["turn"]["waiting"]] == [other.pid]
        assert [card["label"] for card in status["terminals"]] == ["chat"]
        assert ": answering, for " in shown
        assert "1 record so far" in shown
        assert ": me too, for " in shown


def test_status_tells_of_an_interrupted_turn(path: Path) -> None:
    """Exit status 1: somebody has to settle it."""
    dies = "import os, sys; from cosession import BlockingSession\n"
    dies += "s = BlockingSession(sys.argv[1]); s.open()\n"
    dies += "with s.turn('about to die') as t: t.append({'role': 'user', 'content': 'q'})"
    dies += "; os._exit(9)"
    died = subprocess.run([sys.executable, "-c", dies, str(path)], timeout=BOUND, check=False)
    assert died.returncode == 9
    done = call("status", path)
    assert done.exit_code == 1
    assert "INTERRUPTED" in done.stdout
    assert "about to die" in done.stdout
    (status,) = lines("status", path)
    assert status["interrupted"]["holder"]["label"] == "about to die"
