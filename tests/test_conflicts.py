"""A stale writer is told what came in, and may rebase or fork."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aio.both import KINDS, Kind, managed, opened, resolve, user
from cosession import (
    BlockingSession,
    Conflict,
    Fork,
    Revision,
    Session,
    StorageError,
    UnknownCheckpoint,
    UnknownRevision,
)
from cosession.codec import Checkpoint, Origin, Usage
from cosession.records import Damage

BOUND = 60.0
both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def texts(path: Path) -> list[Any]:
    return [record["content"] for record in records(path) if not record["role"].startswith("_")]


# ---- what a conflict tells ------------------------------------------------------------------


@both_kinds
async def test_a_conflict_has_the_records_that_came_in(path: Path, kind: Kind) -> None:
    """All of them, in their order, decoded, and nothing from before."""
    async with opened(kind, path) as one, Session(path) as two:
        await one.append(user("old"))
        seen = one.session.revision
        await two.append(user("x"))
        await two.record_usage(7)
        await two.checkpoint()
        with path.open("ab") as file:
            file.write(b"rubbish\n")
        await two.append(user("y"))
        with pytest.raises(Conflict) as caught:
            await one.append(user("late"), expect=seen)
        x, usage, mark, damage, y = caught.value.new_records
        assert (x.content, usage, mark, y.content) == ("x", Usage(7), Checkpoint(0), "y")
        assert isinstance(damage, Damage)
        assert caught.value.new_messages == 2


@both_kinds
async def test_a_conflict_with_a_rewrite_has_all_that_is_there_now(path: Path, kind: Kind) -> None:
    """What is new can't be told apart then."""
    async with opened(kind, path) as one, Session(path) as two:
        await one.append(user("old"))
        seen = one.session.revision
        await two.clear()
        await two.append([user("a"), user("b")])
        with pytest.raises(Conflict) as caught:
            await one.append(user("late"), expect=seen)
        assert caught.value.new_messages is None
        assert [message.content for message in caught.value.new_records] == ["a", "b"]


async def test_the_records_of_a_conflict_stay_what_they_were(path: Path) -> None:
    """They are those of the moment of the conflict, whenever they are looked at."""
    async with Session(path) as one, Session(path) as two:
        seen = one.revision
        await two.append(user("x"))
        with pytest.raises(Conflict) as caught:
            await one.append(user("late"), expect=seen)
        await two.append(user("later"))
        await two.clear()
        await one.refresh()
        assert [message.content for message in caught.value.new_records] == ["x"]


# ---- inside a turn --------------------------------------------------------------------------


@both_kinds
async def test_what_a_turn_itself_writes_is_no_conflict_with_it(path: Path, kind: Kind) -> None:
    """Any revision of the turn's course will do, also across a revert of its own."""
    async with opened(kind, path) as both, managed(both.session.turn()) as turn:
        before = turn.began
        await both.append(user("a"))
        await both.append(user("b"), expect=before)
        mark = await both.call("checkpoint")
        middle = both.session.revision
        await both.append(user("c"), expect=before)
        await both.call("revert_to", mark, expect=before)
        await both.append(user("d"), expect=middle)
        assert both.texts == ["a", "b", "d"]


async def test_coroutines_of_one_turn_are_no_conflict_with_each_other(path: Path) -> None:
    """Their appends may go out in one batch, each expecting what was there before all."""
    async with Session(path) as session, session.turn() as turn:
        appends = [session.append(user(str(n)), expect=turn.began) for n in range(20)]
        await asyncio.wait_for(asyncio.gather(*appends), BOUND)
        assert len(session.history) == 20


@both_kinds
async def test_what_others_wrote_before_a_turn_is_a_conflict_with_it(
    path: Path, kind: Kind
) -> None:
    """Knowing only what was there before somebody else's message is stale, in a turn as well."""
    async with opened(kind, path) as both, Session(path) as other:
        await both.append(user("a"))
        stale = both.session.revision
        await other.record_usage(1)
        fresh = other.revision
        async with managed(both.session.turn()):
            await both.append(user("mine"), expect=stale)  # a token count came in, no message
        await other.append(user("x"))
        async with managed(both.session.turn()):
            await both.append(user("mine too"))
            for revision in (stale, fresh):
                with pytest.raises(Conflict):
                    await both.append(user("late"), expect=revision)


async def test_a_program_that_takes_no_lock_is_a_conflict_inside_a_turn(path: Path) -> None:
    """Its lines are nobody's own."""
    async with Session(path) as session, session.turn() as turn:
        await turn.append(user("a"))
        with path.open("ab") as file:
            file.write(b'{"role": "user", "content": "foreign"}\n')
        with pytest.raises(Conflict) as caught:
            await session.append(user("b"), expect=turn.began)
        assert [m.content for m in caught.value.new_records] == ["a", "foreign"]
        known = session.revision
        await session.append(user("b"), expect=known)
        await session.append(user("c"), expect=known)


async def test_after_a_turn_its_writes_are_a_conflict_as_anybodys(path: Path) -> None:
    """Outside a turn, whoever expects something expects it of everybody."""
    async with Session(path) as session:
        async with session.turn() as turn:
            await turn.append(user("a"))
        with pytest.raises(Conflict):
            await session.append(user("b"), expect=turn.began)
        async with session.turn():
            with pytest.raises(Conflict):
                await session.append(user("b"), expect=turn.began)


# ---- rebase and fork ------------------------------------------------------------------------


@both_kinds
async def test_rebase_appends_behind_what_came_in(path: Path, kind: Kind) -> None:
    """The caller has said that it doesn't mind."""
    async with opened(kind, path) as one, Session(path) as two:
        seen = one.session.revision
        await two.append(user("x"))
        revision = await one.append(user("y"), expect=seen, on_conflict="rebase")
        assert isinstance(revision, Revision)
        assert one.texts == ["x", "y"]


@both_kinds
async def test_fork_writes_a_new_session_that_names_its_parent(path: Path, kind: Kind) -> None:
    """It holds what the writer knew, then what it wrote; the session itself is as it was."""
    async with opened(kind, path) as one, Session(path) as two:
        await one.append(user("common"))
        await one.call("record_usage", 5)
        seen = one.session.revision
        await two.append(user("theirs"))
        before = path.read_bytes()
        fork: Any = await one.call(
            "append", [user("mine 1"), user("mine 2")], expect=seen, on_conflict="fork"
        )
        assert isinstance(fork, Fork)
        assert fork.path == path.with_name("context.fork-1.jsonl")
        assert (fork.parent, fork.at) == (path, seen)
        assert path.read_bytes() == before
        assert texts(fork.path) == ["common", "mine 1", "mine 2"]
        assert fork.path.read_bytes().startswith(before[: seen.position])
        assert records(fork.path)[2] == {
            "role": "_fork",
            "content": "",
            "parent": "context.jsonl",
            "at": str(seen),
        }
        async with Session(fork.path) as forked:
            assert (len(forked.history), forked.token_count, forked.damage) == (3, 5, ())
            assert forked._state.marks[-1].record == Origin("context.jsonl", str(seen))
            assert forked.revision.position == fork.revision.position
            await forked.append(user("it is a session like any other"))


@both_kinds
async def test_without_a_conflict_the_fork_policy_appends(path: Path, kind: Kind) -> None:
    """A policy is for conflicts only."""
    async with opened(kind, path) as one:
        for policy in ("raise", "rebase", "fork"):
            result = await one.append(user(policy), expect=one.session.revision, on_conflict=policy)
            assert result == one.session.revision
        assert [file.name for file in path.parent.glob("*fork*")] == []


@both_kinds
async def test_an_unknown_policy_is_refused(path: Path, kind: Kind) -> None:
    """A typing mistake must not mean anything."""
    async with opened(kind, path) as one:
        with pytest.raises(ValueError, match="on_conflict"):
            await one.append(user("a"), on_conflict="frok")
        assert one.texts == []


@both_kinds
async def test_a_fork_leaves_where_somebody_reverted_since(path: Path, kind: Kind) -> None:
    """What the writer knew is in a rotated file by now, and is found there."""
    async with opened(kind, path) as one, Session(path) as two:
        await one.append(user("a"))
        await one.call("checkpoint")
        await one.append(user("b"))
        seen = one.session.revision
        await two.revert_to(0)
        await two.append(user("c"))
        await two.clear()
        await two.append(user("d"))
        fork: Any = await one.call("append", user("mine"), expect=seen, on_conflict="fork")
        assert texts(fork.path) == ["a", "b", "mine"]
        assert texts(path) == ["d"]


@both_kinds
async def test_a_session_forks_at_a_checkpoint_a_revision_or_now(path: Path, kind: Kind) -> None:
    """A checkpoint stays out, as when reverting to it; names count up."""
    async with opened(kind, path) as one:
        await one.append(user("a"))
        early = one.session.revision
        await one.append(user("b"))
        await one.call("checkpoint")
        await one.append(user("c"))
        now = await one.call("fork")
        marked = await one.call("fork", at=0)
        then = await one.call("fork", at=early)
        named = await one.call(
            "fork", path.with_name("other.jsonl"), at=Revision(early.generation, 0)
        )
        assert [texts(fork.path) for fork in (now, marked, then, named)] == [
            ["a", "b", "c"], ["a", "b"], ["a"], [],
        ]  # fmt: skip
        assert [fork.path.name for fork in (now, marked, then, named)] == [
            "context.fork-1.jsonl", "context.fork-2.jsonl", "context.fork-3.jsonl", "other.jsonl",
        ]  # fmt: skip
        assert one.texts == ["a", "b", "c"]


@both_kinds
async def test_a_fork_that_cannot_be_is_refused_and_leaves_nothing(path: Path, kind: Kind) -> None:
    """An unknown place, a place within a record, a taken name: nothing is made."""
    async with opened(kind, path) as one:
        await one.append(user("a"))
        generation, end = one.session.revision.generation, one.session.revision.position
        files = set(os.listdir(path.parent))
        with pytest.raises(UnknownCheckpoint):
            await one.call("fork", at=3)
        for revision in (
            Revision(generation, end - 1),
            Revision(generation, end + 1),
            Revision(generation, -1),
            Revision(generation - 1, end),
            Revision(generation + 1, 0),
        ):
            with pytest.raises(UnknownRevision):
                await one.call("fork", at=revision)
        with pytest.raises(StorageError, match="exists"):
            await one.call("fork", path)
        assert set(os.listdir(path.parent)) == files
        assert one.texts == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has modes")
async def test_a_fork_has_its_parents_mode(path: Path) -> None:
    """Private stays private, and shared stays shared."""
    async with Session(path) as session:
        for mode in (0o600, 0o640):
            path.chmod(mode)
            fork = await session.fork()
            assert fork.path.stat().st_mode & 0o777 == mode


async def test_a_reader_forks_without_touching_the_session(path: Path) -> None:
    """A read-only session can be forked; its folder gets the fork and nothing else."""
    path.write_bytes(b'{"role": "user", "content": "a"}\n')
    async with Session(path, read_only=True) as session:
        fork = await session.fork()
    assert sorted(os.listdir(path.parent)) == ["context.fork-1.jsonl", "context.jsonl"]
    assert texts(fork.path) == ["a"]


# ---- turns with an expectation --------------------------------------------------------------


@both_kinds
async def test_a_turn_begins_only_if_nothing_came_in(path: Path, kind: Kind) -> None:
    """`expect` is checked when the turn comes; if it fails, nobody has the turn."""
    async with opened(kind, path) as one, Session(path) as two:
        seen = one.session.revision
        await two.append(user("x"))
        with pytest.raises(Conflict) as caught:
            async with managed(one.session.turn("mine", expect=seen)):
                pytest.fail("nobody is to get here")
        assert [message.content for message in caught.value.new_records] == ["x"]
        assert (two.holder, two.interrupted) == (None, None)
        async with managed(one.session.turn("mine", expect=seen, on_conflict="rebase")) as turn:
            assert turn.fork is None
            await one.append(user("y"))
        assert one.texts == ["x", "y"]


@both_kinds
async def test_a_turn_that_meets_a_conflict_can_go_to_a_fork(path: Path, kind: Kind) -> None:
    """All of it is written there, contiguous, under the label; the session stays as it is."""
    async with opened(kind, path) as one, Session(path) as two:
        await one.append(user("a"))
        seen = one.session.revision
        await two.append(user("x"))
        async with managed(one.session.turn("mine", expect=seen, on_conflict="fork")) as turn:
            assert turn.fork is not None
            assert turn.session.path == turn.fork.path
            assert turn.session.holder.operation == "mine"
            await resolve(turn.append(user("b")))
            await resolve(turn.session.append(user("c")))
            assert two.holder is None
            await two.append(user("y"), timeout=0)
        assert texts(turn.fork.path) == ["a", "b", "c"]
        assert texts(path) == ["a", "x", "y"]
        with BlockingSession(turn.fork.path) as forked:
            assert (forked.holder, forked.interrupted) == (None, None)


async def test_what_came_in_while_waiting_for_the_turn_is_a_conflict(path: Path) -> None:
    """The expectation is about the moment at which the turn begins."""
    async with Session(path) as one, Session(path) as two:
        seen = one.revision

        async def ask() -> Any:
            async with one.turn("question", expect=seen, on_conflict="fork") as turn:
                await turn.append(user("mine"))
                return turn.fork

        async with two.turn() as turn:
            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(0.05)
            assert not asking.done()
            await turn.append(user("theirs"))
        fork = await asyncio.wait_for(asking, BOUND)
        assert texts(fork.path) == ["mine"]
        assert texts(path) == ["theirs"]
