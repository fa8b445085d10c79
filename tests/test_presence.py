"""Which terminals are on a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosession import BlockingSession
from cosession.presence import folder_of, present, terminals

BOUND = 30.0

PRESENT = """
import sys
from cosession.presence import present
with present(sys.argv[1], sys.argv[2]):
    print("here", flush=True)
    sys.stdin.read()
"""


def come(path: Path, label: str) -> subprocess.Popen[str]:
    """A process that is on the session until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRESENT, str(path), label],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def labels(path: Path) -> list[str]:
    return [terminal.operation for terminal in terminals(path)]


def test_who_comes_is_on_the_list_and_who_goes_or_dies_is_not(tmp_path: Path) -> None:
    """The list has the live processes, with their cards, the longest there first."""
    path = tmp_path / "context.jsonl"
    assert terminals(path) == []
    with present(path, "mine"):
        first, second = come(path, "first"), come(path, "second")
        assert labels(path) == ["mine", "first", "second"]
        assert [card.pid for card in terminals(path)] == [os.getpid(), first.pid, second.pid]
        first.kill()
        first.communicate(timeout=BOUND)
        assert labels(path) == ["mine", "second"]
        second.communicate(timeout=BOUND)
        assert labels(path) == ["mine"]
    assert terminals(path) == []


def test_what_the_dead_left_is_removed_once_it_is_not_new(tmp_path: Path) -> None:
    """The files of a killed terminal go with the first look after a while."""
    path = tmp_path / "context.jsonl"
    dead = come(path, "dead")
    dead.kill()
    dead.communicate(timeout=BOUND)
    folder = Path(folder_of(path))
    assert terminals(path) == []
    assert len(list(folder.iterdir())) == 2
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    assert terminals(path) == []
    assert list(folder.iterdir()) == []


def test_a_session_knows_its_terminals(tmp_path: Path) -> None:
    """`present` and `terminals` of a session are about its file."""
    with BlockingSession(tmp_path / "context.jsonl") as session, session.present("chat"):
        assert [terminal.operation for terminal in session.terminals()] == ["chat"]
    assert session.terminals() == []


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has modes")
def test_the_list_is_private(tmp_path: Path) -> None:
    """Nobody else can read who is there."""
    path = tmp_path / "context.jsonl"
    with present(path):
        folder = Path(folder_of(path))
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_not_on_the_list_and_takes_nobody_off(tmp_path: Path) -> None:
    """A child that outlives its parent's presence doesn't keep it on the list."""
    path = tmp_path / "context.jsonl"
    with present(path, "parent"):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if labels(path) == ["parent"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert labels(path) == ["parent"]
