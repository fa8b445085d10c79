"""Where a session comes from: who replaced it when, what it was forked from, and the way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aio.both import KINDS, Kind, opened, user
from cosession import BlockingSession, Conflict, Session, UnknownRotation
from cosession.changes import Appended, change_between
from cosession.codec import Checkpoint
from cosession.files import temporary_files
from cosession.lineage import Forked, Replaced, file_of, path_of, read
from cosession.lock import LockFile

both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


def entries(path: Path) -> list[Any]:
    return read(os.path.realpath(path))


def filled(session: BlockingSession[Any]) -> None:
    session.append(user("a"))
    session.checkpoint()
    session.append(user("b"))


# ---- the diary ------------------------------------------------------------------------------


def test_each_replace_is_written_down_with_who_and_where(path: Path) -> None:
    """Reverts, clears, system prompts and compactions, in their order; appends are not."""
    began = time.time()
    with BlockingSession(path) as session:
        filled(session)
        ended = [session.revision]
        session.revert_to(0)
        ended.append(session.revision)
        session.set_system_prompt("be brief")
        ended.append(session.revision)
        with session.transaction() as tx:
            tx.clear()
            tx.append(user("summary"))
        ended.append(session.revision)
        session.clear()
    found = entries(path)
    assert [entry.by.operation for entry in found] == [
        "revert", "set system prompt", "transaction", "clear",
    ]  # fmt: skip
    assert [entry.ended for entry in found] == ended
    assert [Path(entry.rotated).name for entry in found] == [
        f"context_{number}.jsonl" for number in (1, 2, 3, 4)
    ]
    assert [entry.generation for entry in found] == [one.generation + 1 for one in ended]
    assert found[0].kept == len(b'{"role":"user","content":"a"}\n')
    for entry, revision in zip(found, ended, strict=True):
        assert (entry.by.pid, began - 1 < entry.by.since < time.time() + 1) == (os.getpid(), True)
        assert Path(entry.rotated).stat().st_size == revision.position


def test_a_fork_is_in_its_parents_lineage(path: Path) -> None:
    """With where it left; a fork elsewhere with its whole path."""
    with BlockingSession(path) as session:
        filled(session)
        near = session.fork()
        elsewhere = path.parent / "else"
        elsewhere.mkdir()
        far = session.fork(elsewhere / "where.jsonl", at=0)
    assert [(Path(e.path), e.at) for e in entries(path) if isinstance(e, Forked)] == [
        (near.path, near.at), (far.path, far.at),
    ]  # fmt: skip
    origin = json.loads(far.path.read_bytes().splitlines()[-1])
    assert origin["parent"] == str(path)


def test_what_never_happened_or_is_gone_does_not_count(path: Path) -> None:
    """An entry whose file is missing, one that a later one overrides, rubbish and torn lines."""
    with BlockingSession(path) as session:
        filled(session)
        generation = session.revision.generation
        session.revert_to(0)
    diary = Path(path_of(str(path)))
    entry = json.loads(diary.read_text())
    missing = entry | {"rotated": "context_7.jsonl"}
    with diary.open("w") as file:
        for line in (entry, missing | {"generation": 5}, missing, entry | {"operation": "really"}):
            file.write(json.dumps(line) + "\n")
        file.write('rubbish\n[]\n{"generation": "x"}\n{"gener')
    (found,) = entries(path)
    assert found.by.operation == "really"
    with BlockingSession(path) as session:
        session.clear()
    assert [entry.by.operation for entry in entries(path)] == ["really", "clear"]
    assert file_of(str(path), found.ended) == str(path.with_name("context_1.jsonl"))
    assert found.ended.generation == generation


def test_a_session_does_without_its_diary(path: Path) -> None:
    """If it can't be written, a warning is all that happens."""
    with BlockingSession(path) as session:
        filled(session)
        Path(path_of(str(path))).mkdir()
        rotated = session.revert_to(0)
        assert rotated.exists()
        assert entries(path) == []
        assert [message.content for message in session.history] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has modes")
def test_the_diary_has_the_sessions_mode(path: Path) -> None:
    """It tells who worked when, which is nobody else's business."""
    with BlockingSession(path) as session:
        filled(session)
        session.revert_to(0)
    assert Path(path_of(str(path))).stat().st_mode & 0o777 == 0o600


# ---- the way back ---------------------------------------------------------------------------


@both_kinds
async def test_restore_undoes_a_revert(path: Path, kind: Kind) -> None:
    """The rotated file is the session again, as a new generation; what was there is kept."""
    async with opened(kind, path) as both, Session(path) as other:
        await both.append(user("a"))
        await both.call("checkpoint")
        await both.append(user("b"))
        whole = path.read_bytes()
        await both.call("revert_to", 0)
        await both.append(user("c"))
        generation = both.session.revision.generation
        rotated = await both.call("restore", 1)
        assert path.read_bytes() == whole
        assert both.texts == ["a", "b"]
        assert both.session.checkpoints == (0,)
        assert both.session.revision.generation == generation + 1
        assert rotated == path.with_name("context_2.jsonl")
        assert [json.loads(line)["content"] for line in rotated.read_text().splitlines()] == [
            "a", "c",
        ]  # fmt: skip
        assert path.with_name("context_1.jsonl").read_bytes() == whole
        await other.refresh()
        assert [message.content for message in other.history] == ["a", "b"]
        await both.call("restore", 2)
        assert both.texts == ["a", "c"]
        await both.append(user("d"))
        assert both.texts == ["a", "c", "d"]


@both_kinds
async def test_restore_knows_its_files_and_its_expectations(path: Path, kind: Kind) -> None:
    """A number that isn't there, or messages that came in: nothing is changed."""
    async with opened(kind, path) as both, Session(path) as other:
        await both.append(user("a"))
        await both.call("clear")
        seen = both.session.revision
        await other.append(user("x"))
        before = path.read_bytes()
        with pytest.raises(UnknownRotation) as unknown:
            await both.call("restore", 2)
        assert unknown.value.known == (1,)
        with pytest.raises(Conflict):
            await both.call("restore", 1, expect=seen)
        assert path.read_bytes() == before
        await both.call("restore", 1, expect=other.revision)
        assert both.texts == ["a"]


def test_restoring_shares_what_is_common(path: Path) -> None:
    """Whoever follows is told what comes back, not the whole session anew."""
    with BlockingSession(path) as session, BlockingSession(path) as other:
        filled(session)
        session.revert_to(0)
        other.refresh()
        session.restore(1)
        (entry,) = [e for e in entries(path) if e.by.operation == "restore"]
        assert isinstance(entry, Replaced)
        assert entry.kept == len(b'{"role":"user","content":"a"}\n')
        before, revision = other._store.view, other.revision
        other.refresh()
        view = other._store.view
        change = change_between(
            before.state, revision, view.state, other.revision, view.kept, other._decode
        )
        assert isinstance(change, Appended)
        assert change.records[0] == Checkpoint(0)
        assert [message.content for message in change.records[1:]] == ["b"]


def test_a_rotated_file_with_an_open_end_comes_back_closed(path: Path) -> None:
    """Another program may have left its last line unfinished: it is kept, and reported."""
    path.with_name("context_3.jsonl").write_bytes(b'{"role": "user", "content": "a"}\n{"half')
    with BlockingSession(path) as session:
        session.append(user("x"))
        session.restore(3)
        assert path.read_bytes() == b'{"role": "user", "content": "a"}\n{"half\n'
        assert len(session.damage) == 1
        session.append(user("b"))
        assert [message.content for message in session.history] == ["a", "b"]


def test_an_empty_session_can_be_restored(path: Path) -> None:
    """Also when nothing is there that would be replaced."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        session.clear()
        session.restore(1)
        assert [message.content for message in session.history] == ["a"]
        session.restore(2)
        assert list(session.history) == []


# ---- leftovers ------------------------------------------------------------------------------

DIES_BEFORE_THE_SWAP = """
import os, sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session:
    session.append({"role": "user", "content": "a"})
    os.replace = lambda *_: os._exit(9)
    session.clear()
"""


@both_kinds
async def test_a_dead_ones_file_goes_after_its_announcement(
    path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file is announced as the next one, nobody else's may get its inode."""
    command = [sys.executable, "-c", DIES_BEFORE_THE_SWAP, str(path)]
    died = subprocess.run(command, timeout=60, check=False)
    assert died.returncode == 9
    assert len(temporary_files(str(path))) == 1
    lock = LockFile(f"{path}.lock", beside=str(path))
    intents: list[Any] = []
    unlink = os.unlink

    def watched(name: str) -> None:
        if str(name).endswith(".tmp"):
            with lock.peeking() as peek:
                header = peek() if peek else None
            intents.append(header and header.intent)
        unlink(name)

    monkeypatch.setattr(os, "unlink", watched)
    async with opened(kind, path) as both:
        assert both.texts == ["a"]
    assert intents == [None]
    assert sorted(os.listdir(path.parent)) == [
        "context.jsonl", "context.jsonl.lineage", "context.jsonl.lock",
    ]  # fmt: skip
    assert entries(path) == []


def test_a_fork_that_died_between_its_two_names_gets_one(path: Path) -> None:
    """Opening it removes the temporary name."""
    with BlockingSession(path) as session:
        filled(session)
        fork = session.fork()
    other = fork.path.with_name(f".{fork.path.name}.0123456789ab.tmp")
    try:
        os.link(fork.path, other)
    except (NotImplementedError, OSError):
        pytest.skip("no hard links here")
    with BlockingSession(fork.path) as session:
        session.append(user("goes on"))
        assert len(session.history) == 3
    assert not other.exists()
