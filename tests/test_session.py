"""The public calls of both sessions, through one suite."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from aio.both import KINDS, Both, Kind, opened, user
from aio.held import BOUND, held_elsewhere, held_here, until_idle
from cosession import (
    BlockingSession,
    Conflict,
    CosessionError,
    InvalidMessage,
    LockTimeout,
    Message,
    ReadOnlySession,
    Revision,
    Session,
    SessionClosed,
    SessionMissing,
    UnknownCheckpoint,
    _platform,
    files,
)

Open = Callable[..., AbstractAsyncContextManager[Both]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    value: Kind = request.param
    return value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def open_session(kind: Kind, path: Path) -> Open:
    def open_it(**options: Any) -> AbstractAsyncContextManager[Both]:
        return opened(kind, path, **options)

    return open_it


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# ---- appending ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [user("a"), Message(role="user", content="a")],
    ids=["dict", "model"],
)
async def test_append_writes_one_message(open_session: Open, path: Path, message: Any) -> None:
    """One message, as plain data or as a model, becomes one line and one entry of the history."""
    async with open_session() as both:
        revision = await both.append(message)
        assert revision == both.session.revision
        assert revision.position == path.stat().st_size
        assert both.session.history == [Message(role="user", content="a")]
    assert records(path) == [{"role": "user", "content": "a"}]


async def test_append_takes_a_list(open_session: Open, path: Path) -> None:
    """A list goes in as it stands, models and plain data mixed; an empty one changes nothing."""
    async with open_session() as both:
        await both.append([user("a"), Message(role="assistant", content="b"), user("c")])
        before = both.session.revision
        assert await both.append([]) == before
        assert both.texts == ["a", "b", "c"]
    assert [record["content"] for record in records(path)] == ["a", "b", "c"]


async def test_append_refuses_a_list_with_one_invalid_message(
    open_session: Open, path: Path
) -> None:
    """One message that doesn't validate keeps the whole list out and is named by its index."""
    async with open_session() as both:
        await both.append(user("a"))
        with pytest.raises(InvalidMessage) as caught:
            await both.append([user("b"), {"content": "no role"}, user("c")])
        assert caught.value.index == 1
        assert both.texts == ["a"]
    assert len(records(path)) == 1


async def test_a_role_of_our_own_is_refused(open_session: Open) -> None:
    """A message can't pose as a checkpoint or another record with an underscore."""
    async with open_session() as both:
        with pytest.raises(InvalidMessage):
            await both.append({"role": "_checkpoint", "id": 7})
        assert both.session.checkpoints == ()


async def test_extra_fields_survive(open_session: Open) -> None:
    """Fields that the message type doesn't name come back as they were given."""
    async with open_session() as both:
        await both.append({"role": "user", "content": "a", "tags": ["x", {"y": 1}]})
    async with open_session() as both:
        assert both.session.history[0].model_extra == {"tags": ["x", {"y": 1}]}


# ---- checkpoints, usage, system prompt ------------------------------------------------------


async def test_checkpoints_count_up_across_handles(open_session: Open) -> None:
    """Two handles on one file never get the same checkpoint number."""
    async with open_session() as one, open_session() as two:
        numbers = []
        for both in (one, two, two, one, two):
            numbers.append(await both.call("checkpoint"))
        assert numbers == [0, 1, 2, 3, 4]
        await one.call("refresh")
        assert one.session.checkpoints == (0, 1, 2, 3, 4)
        assert one.session.next_checkpoint == 5


async def test_checkpoint_with_a_message_about_it(open_session: Open) -> None:
    """`then` makes the message behind the mark from its number, in the same operation."""
    async with open_session() as both:
        await both.call("checkpoint")
        number = await both.call(
            "checkpoint", then=lambda n: Message(role="user", content=f"CHECKPOINT {n}")
        )
        assert number == 1
        assert both.texts == ["CHECKPOINT 1"]


async def test_an_error_of_then_reaches_the_caller_alone(open_session: Open) -> None:
    """A callback that raises costs its own call, with its own error, and nothing else."""
    async with open_session() as both:
        await both.append(user("a"))

        def then(number: int) -> Message:
            raise ZeroDivisionError

        results = await asyncio.gather(
            both.call("checkpoint", then=then),
            both.append(user("b"), timeout=BOUND),
            return_exceptions=True,
        )
        assert isinstance(results[0], ZeroDivisionError)
        assert isinstance(results[1], Revision)
        await both.append(user("c"), timeout=BOUND)
        assert both.texts == ["a", "b", "c"]
        assert both.session.checkpoints == ()


async def test_usage_is_the_last_one_recorded(open_session: Open) -> None:
    """The token count is the last recorded, and tells which messages it doesn't cover."""
    async with open_session() as both:
        assert both.session.token_count == 0
        await both.append(user("a"))
        revision = await both.call("record_usage", 12)
        assert revision == both.session.revision
        await both.append([user("b"), user("c")])
        assert both.session.token_count == 12
        assert [m.content for m in both.session.history_after_usage] == ["b", "c"]
        await both.call("record_usage", 5)
        assert both.session.token_count == 5


@pytest.mark.parametrize("count", [1.5, "3", True, None])
async def test_usage_must_be_a_whole_number(open_session: Open, path: Path, count: Any) -> None:
    """Anything but a whole number is refused before it is written."""
    async with open_session() as both:
        with pytest.raises(InvalidMessage):
            await both.call("record_usage", count)
    assert records(path) == []


async def test_system_prompt_on_an_empty_session(open_session: Open, path: Path) -> None:
    """On an empty session the prompt is just written: there is no old file to keep."""
    async with open_session() as both:
        assert await both.call("set_system_prompt", "be brief") is None
        assert both.session.system_prompt == "be brief"
    assert records(path) == [{"role": "_system_prompt", "content": "be brief"}]


async def test_system_prompt_goes_in_front(open_session: Open, path: Path) -> None:
    """On a filled session the prompt becomes the first record; the old file is kept."""
    async with open_session() as both:
        await both.append([user("a"), user("b")])
        await both.call("checkpoint")
        old = path.read_bytes()
        kept = await both.call("set_system_prompt", "one")
        assert kept.read_bytes() == old
        again = await both.call("set_system_prompt", "two")
        assert (kept.name, again.name) == ("context_1.jsonl", "context_2.jsonl")
        assert both.session.system_prompt == "two"
        assert both.texts == ["a", "b"]
        assert both.session.checkpoints == (0,)
    assert [record["role"] for record in records(path)] == [
        "_system_prompt",
        "user",
        "user",
        "_checkpoint",
    ]


async def test_system_prompt_must_be_a_string(open_session: Open) -> None:
    """A prompt that isn't a string is refused before anything is written."""
    async with open_session() as both:
        with pytest.raises(InvalidMessage):
            await both.call("set_system_prompt", None)
        assert both.session.system_prompt is None


# ---- revert and clear -----------------------------------------------------------------------


async def test_revert_drops_the_checkpoint_and_what_follows(open_session: Open, path: Path) -> None:
    """After a revert the file is its own first part, and all of the old one is kept beside it."""
    async with open_session() as both:
        await both.append(user("a"))
        mark = await both.call("checkpoint")
        kept_part = path.read_bytes()[: path.read_bytes().index(b'{"role": "_checkpoint"')]
        await both.append(user("b"))
        old = path.read_bytes()
        generation = both.session.revision.generation
        where = await both.call("revert_to", mark)
        assert isinstance(where, Path)
        assert where.name == "context_1.jsonl"
        assert where.read_bytes() == old
        assert path.read_bytes() == kept_part
        assert both.texts == ["a"]
        assert both.session.checkpoints == ()
        assert both.session.revision.generation == generation + 1
        assert await both.call("checkpoint") == mark


async def test_revert_to_an_unknown_checkpoint(open_session: Open, path: Path) -> None:
    """Reverting to a checkpoint that isn't there changes nothing and says what there is."""
    async with open_session() as both:
        await both.append(user("a"))
        await both.call("checkpoint")
        before = path.read_bytes()
        with pytest.raises(UnknownCheckpoint) as caught:
            await both.call("revert_to", 3)
        assert (caught.value.checkpoint, caught.value.known) == (3, (0,))
        assert path.read_bytes() == before
        assert both.texts == ["a"]
    assert os.listdir(path.parent).count("context_1.jsonl") == 0


async def test_clear_keeps_the_old_file(open_session: Open, path: Path) -> None:
    """Clear leaves an empty file and the old one beside it; of an empty session there is none."""
    async with open_session() as both:
        assert await both.call("clear") is None
        await both.call("set_system_prompt", "p")
        await both.append(user("a"))
        await both.call("record_usage", 9)
        old = path.read_bytes()
        where = await both.call("clear")
        assert where.read_bytes() == old
        assert path.read_bytes() == b""
        session = both.session
        assert (list(session.history), session.system_prompt, session.token_count) == ([], None, 0)
        assert await both.call("checkpoint") == 0


async def test_another_handle_follows_a_revert(open_session: Open) -> None:
    """A handle that was elsewhere when the file was replaced sees the new one on refresh."""
    async with open_session() as one, open_session() as two:
        await one.append([user("a")])
        mark = await one.call("checkpoint")
        await one.append([user("b")])
        await two.call("refresh")
        assert two.texts == ["a", "b"]
        await one.call("revert_to", mark)
        await one.append([user("c")])
        assert await two.call("refresh") == one.session.revision
        assert two.texts == ["a", "c"]


# ---- transactions ---------------------------------------------------------------------------


async def test_transaction_is_one_operation(open_session: Open, path: Path) -> None:
    """A compaction takes effect as a whole, with one old file kept and its figures at hand."""
    async with open_session() as both:
        await both.call("set_system_prompt", "p")
        await both.append([user("a"), user("b")])
        old = path.read_bytes()
        async with both.transaction() as tx:
            tx.clear()
            tx.set_system_prompt("q")
            tx.checkpoint()
            tx.append([user("summary")])
            tx.checkpoint()
            tx.record_usage(800)
            assert both.texts == ["a", "b"]
            assert path.read_bytes() == old
            with pytest.raises(RuntimeError):
                _ = tx.revision
        assert tx.checkpoints == (0, 1)
        assert tx.revision == both.session.revision
        assert tx.rotated is not None
        assert tx.rotated.read_bytes() == old
        assert both.texts == ["summary"]
        assert both.session.system_prompt == "q"
        assert both.session.token_count == 800
    assert [record["role"] for record in records(path)] == [
        "_system_prompt",
        "_checkpoint",
        "user",
        "_checkpoint",
        "_usage",
    ]
    assert len(list(path.parent.glob("context_*.jsonl"))) == 1


async def test_transaction_whose_block_raises_changes_nothing(
    open_session: Open, path: Path
) -> None:
    """An error inside the block comes through, and nothing of the block is written."""
    async with open_session() as both:
        await both.append(user("a"))
        before = path.read_bytes()
        with pytest.raises(ZeroDivisionError):
            async with both.transaction() as tx:
                tx.clear()
                tx.append(user("b"))
                raise ZeroDivisionError
        assert path.read_bytes() == before
        assert both.texts == ["a"]


async def test_transaction_that_fails_at_its_last_step_changes_nothing(
    open_session: Open, path: Path
) -> None:
    """A step that can't be done undoes the steps before it."""
    async with open_session() as both:
        await both.append(user("a"))
        before = path.read_bytes()
        with pytest.raises(UnknownCheckpoint):
            async with both.transaction() as tx:
                tx.append(user("b"))
                tx.checkpoint()
                tx.revert_to(7)
        assert path.read_bytes() == before
        assert both.texts == ["a"]
        assert both.session.checkpoints == ()


async def test_transaction_with_expect(open_session: Open) -> None:
    """A transaction that expects an older revision is refused as a whole."""
    async with open_session() as one, open_session() as two:
        await one.append(user("a"))
        seen = one.session.revision
        await two.append(user("b"))
        with pytest.raises(Conflict) as caught:
            async with one.transaction(expect=seen) as tx:
                tx.clear()
        assert caught.value.new_messages == 1
        await one.call("refresh")
        assert one.texts == ["a", "b"]


async def test_an_empty_transaction_changes_nothing(open_session: Open, path: Path) -> None:
    """A block without steps is no change."""
    async with open_session() as both:
        await both.append(user("a"))
        before = path.read_bytes()
        async with both.transaction() as tx:
            pass
        assert tx.revision == both.session.revision
        assert path.read_bytes() == before


# ---- expect ---------------------------------------------------------------------------------


async def test_a_stale_writer_is_told(open_session: Open, path: Path) -> None:
    """`expect` fails once messages came in, says how many, and memory then has them."""
    async with open_session() as one, open_session() as two:
        await one.append(user("a"))
        seen = one.session.revision
        await one.append(user("mine"), expect=seen)
        await two.append([user("x"), user("y")])
        before = path.read_bytes()
        with pytest.raises(Conflict) as caught:
            await one.append(user("late"), expect=seen)
        assert caught.value.new_messages == 3
        assert caught.value.yours == seen
        assert caught.value.current == two.session.revision
        assert path.read_bytes() == before
        assert one.texts == ["a", "mine", "x", "y"]
        await one.append(user("rebased"), expect=one.session.revision)


async def test_token_counts_never_conflict(open_session: Open) -> None:
    """Other people's token counts and checkpoints don't make a writer stale."""
    async with open_session() as one, open_session() as two:
        await one.append(user("a"))
        seen = one.session.revision
        await two.call("record_usage", 10)
        await two.call("checkpoint")
        await one.append(user("b"), expect=seen)
        assert one.session.token_count == 10


async def test_a_replaced_file_conflicts(open_session: Open) -> None:
    """After a revert or clear of somebody else every older revision is stale."""
    async with open_session() as one, open_session() as two:
        await one.append(user("a"))
        seen = one.session.revision
        await two.call("clear")
        await two.append(user("a"))
        with pytest.raises(Conflict) as caught:
            await one.append(user("b"), expect=seen)
        assert caught.value.new_messages is None


@pytest.mark.parametrize("name", ["checkpoint", "record_usage", "set_system_prompt", "clear"])
async def test_every_call_takes_expect(open_session: Open, path: Path, name: str) -> None:
    """Every mutating call is refused, and changes nothing, when it expects an older revision."""
    arguments: dict[str, tuple[Any, ...]] = {"record_usage": (1,), "set_system_prompt": ("p",)}
    async with open_session() as one, open_session() as two:
        await one.append(user("a"))
        seen = one.session.revision
        await two.append(user("b"))
        before = path.read_bytes()
        with pytest.raises(Conflict):
            await one.call(name, *arguments.get(name, ()), expect=seen)
        assert path.read_bytes() == before


# ---- timeout --------------------------------------------------------------------------------

CALLS: dict[str, tuple[Any, ...]] = {
    "append": (user("b"),),
    "checkpoint": (),
    "record_usage": (1,),
    "set_system_prompt": ("p",),
    "revert_to": (0,),
    "clear": (),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_every_call_takes_timeout(
    open_session: Open, path: Path, name: str, timeout: float
) -> None:
    """While somebody else has the lock a bounded call ends in time and changes nothing."""
    async with open_session() as both:
        await both.append(user("a"))
        await both.call("checkpoint")
        before = path.read_bytes()
        with held_here(path):
            with pytest.raises(LockTimeout) as caught:
                await both.call(name, *CALLS[name], timeout=timeout)
            assert timeout * 0.9 <= caught.value.waited < BOUND
        assert path.read_bytes() == before
        await both.call(name, *CALLS[name], timeout=BOUND)


async def test_timeout_of_nothing_succeeds_on_a_free_lock(open_session: Open) -> None:
    """`timeout=0` tries once, which is enough when nobody has the lock, time after time."""
    async with open_session() as both:
        for _ in range(50):
            await both.append(user("a"), timeout=0)
        assert len(both.texts) == 50


async def test_no_timeout_waits_until_the_lock_is_free(open_session: Open, path: Path) -> None:
    """Without a timeout a call waits for another process and then goes through."""
    async with open_session() as both:
        with held_elsewhere(path) as holder:
            call = asyncio.ensure_future(both.append(user("a")))
            await asyncio.sleep(0.05)
            assert not call.done()
            holder.release()
            await asyncio.wait_for(call, BOUND)
        assert both.texts == ["a"]


async def test_a_transaction_takes_a_timeout(open_session: Open, path: Path) -> None:
    """A transaction's timeout counts from the end of its block and leaves nothing behind."""
    async with open_session() as both:
        with held_here(path), pytest.raises(LockTimeout):
            async with both.transaction(timeout=0) as tx:
                tx.append(user("a"))
        assert path.read_bytes() == b""


# ---- options --------------------------------------------------------------------------------


async def test_create_false_wants_a_file(open_session: Open, path: Path) -> None:
    """With `create=False` a missing file is an error and stays missing."""
    with pytest.raises(SessionMissing):
        async with open_session(create=False):
            pass
    assert not path.exists()
    path.write_bytes(b"")
    async with open_session(create=False) as both:
        await both.append(user("a"))


async def test_a_missing_folder_is_an_error(kind: Kind, tmp_path: Path) -> None:
    """The folder of a session is never made by the way."""
    with pytest.raises(SessionMissing):
        async with opened(kind, tmp_path / "no" / "context.jsonl"):
            pass
    assert os.listdir(tmp_path) == []


async def test_read_only_changes_nothing(open_session: Open, path: Path) -> None:
    """A read-only session refuses every change, follows others, and makes no file of its own."""
    path.write_bytes(b'{"role": "user", "content": "a"}\n')
    async with open_session(read_only=True) as reader:
        assert reader.texts == ["a"]
        for name, arguments in CALLS.items():
            with pytest.raises(ReadOnlySession):
                await reader.call(name, *arguments)
        with pytest.raises(ReadOnlySession):
            async with reader.transaction() as tx:
                tx.clear()
        assert os.listdir(path.parent) == [path.name]
        async with open_session() as writer:
            await writer.append(user("b"))
            await reader.call("refresh")
            assert reader.texts == ["a", "b"]


async def test_read_only_of_nothing_is_an_error(open_session: Open, path: Path) -> None:
    """A reader doesn't create what it wants to read."""
    with pytest.raises(SessionMissing):
        async with open_session(read_only=True):
            pass
    assert not path.exists()


async def test_a_reader_is_not_kept_out_by_the_lock(open_session: Open, path: Path) -> None:
    """Opening and refreshing wait for nobody, whoever has the lock."""
    async with open_session() as writer:
        await writer.append(user("a"))
        with held_here(path):
            async with open_session() as both:
                assert both.texts == ["a"]
                await both.call("refresh")


async def test_power_durability_syncs_before_it_acknowledges(
    open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `durability="power"` every append is synced; by default none is."""
    synced: list[int] = []
    sync = _platform.sync_data

    def noted(fd: int) -> None:
        synced.append(fd)
        sync(fd)

    monkeypatch.setattr(_platform, "sync_data", noted)
    async with open_session() as both:
        await both.append(user("a"))
    assert synced == []
    async with open_session(durability="power") as both:
        for number in range(3):
            await both.append(user("b"))
            assert len(synced) > number
        assert both.texts == ["a", "b", "b", "b"]


def test_an_unknown_durability_is_refused(path: Path) -> None:
    """A misspelt durability is an error, not the weaker promise."""
    with pytest.raises(ValueError, match="durability"):
        Session(path, durability="powder")  # type: ignore[call-overload]


async def test_lock_dir_holds_the_lock(open_session: Open, path: Path, tmp_path: Path) -> None:
    """With `lock_dir` the lock lies there, and handles that name it exclude each other."""
    locks = tmp_path / "locks"
    async with open_session(lock_dir=locks) as one, open_session(lock_dir=locks) as two:
        await one.append(user("a"))
        await two.append(user("b"))
        await one.call("refresh")
        assert one.texts == two.texts == ["a", "b"]
        (lock,) = locks.iterdir()
        with held_here(lock.with_suffix("")), pytest.raises(LockTimeout):
            await one.append(user("c"), timeout=0)
    assert not Path(f"{path}.lock").exists()


class Note(BaseModel):
    role: str
    stars: int


class Memo(BaseModel):
    role: str
    text: str


async def test_a_message_type_of_the_callers(open_session: Open) -> None:
    """A pydantic model decodes the history; what isn't one is damage, not an error."""
    async with open_session(message_type=Note) as both:
        await both.append([Note(role="note", stars=3), {"role": "note", "stars": 4}])
        with pytest.raises(InvalidMessage):
            await both.append({"role": "note", "stars": "many"})
    async with open_session() as both:
        await both.append(user("not a note"))
    async with open_session(message_type=Note) as both:
        assert both.session.history == [Note(role="note", stars=3), Note(role="note", stars=4)]
        (damage,) = both.session.damage
        assert "stars" in damage.reason


async def test_a_type_adapter_as_message_type(open_session: Open) -> None:
    """A `TypeAdapter` serves as the message type, for instance of a union."""
    adapter: TypeAdapter[Note | Memo] = TypeAdapter(Note | Memo)
    async with open_session(message_type=adapter) as both:
        await both.append([Memo(role="memo", text="t"), Note(role="note", stars=1)])
    async with open_session(message_type=adapter) as both:
        assert both.session.history == [Memo(role="memo", text="t"), Note(role="note", stars=1)]


async def test_damage_is_reported_and_kept(open_session: Open, path: Path) -> None:
    """A line that can't be used is named with its place and stays in the file."""
    path.write_bytes(b'{"role": "user", "content": "a"}\nnot json\n{"role": "user"}\n')
    async with open_session() as both:
        await both.append(user("b"))
        (damage,) = both.session.damage
        assert (damage.offset, damage.length) == (33, 8)
        assert both.texts == ["a", None, "b"]
    assert b"\nnot json\n" in path.read_bytes()


# ---- opening, closing, sharing --------------------------------------------------------------


async def test_reopening_finds_everything(open_session: Open) -> None:
    """What one session wrote, the next one on the file has, figure by figure."""
    async with open_session() as both:
        await both.call("set_system_prompt", "p")
        await both.append([user("a"), user("b")])
        await both.call("checkpoint")
        await both.call("record_usage", 3)
        revision = both.session.revision
    async with open_session() as both:
        session = both.session
        assert both.texts == ["a", "b"]
        assert (session.system_prompt, session.token_count) == ("p", 3)
        assert (session.checkpoints, session.revision) == ((0,), revision)
        assert (session.damage, session.repairs) == ((), ())


async def test_one_object_can_be_opened_again(open_session: Open) -> None:
    """A closed session may be opened again, and then has what was written meanwhile."""
    async with open_session() as both:
        await both.append(user("a"))
    async with open_session() as other:
        await other.append(user("b"))
    await both.call("open")
    assert both.texts == ["a", "b"]
    await both.append(user("c"))
    await both.call("close")
    assert both.texts == ["a", "b", "c"]


async def test_reopened_while_a_waiter_of_before_still_sleeps(
    open_session: Open, path: Path
) -> None:
    """A wait left over from before a close doesn't disturb the lock of the reopened session."""
    async with open_session() as both:
        with held_here(path) as lock:
            with pytest.raises(LockTimeout):
                await both.append(user("a"), timeout=0.05)
            await both.call("close")
            await both.call("open")
            appends = [asyncio.ensure_future(both.append(user(str(n)))) for n in range(3)]
            await asyncio.sleep(0.02)
            lock.release()
            await asyncio.wait_for(asyncio.gather(*appends), BOUND)
        for n in range(3, 50):
            await both.append(user(str(n)), timeout=BOUND)
        assert sorted(both.texts[:3]) == ["0", "1", "2"]  # threads have no order
        assert both.texts[3:] == [str(n) for n in range(3, 50)]


async def test_opening_twice_is_refused(open_session: Open) -> None:
    """An open session refuses to be opened again and stays usable."""
    async with open_session() as both:
        with pytest.raises(SessionClosed):
            await both.call("open")
        await both.append(user("a"))


async def test_opening_twice_at_once_opens_once(kind: Kind, path: Path) -> None:
    """Of two simultaneous opens of one object one succeeds and the other is refused."""
    both = Both(kind, path)
    results = await asyncio.gather(*(both.call("open") for _ in range(4)), return_exceptions=True)
    assert sorted(isinstance(result, SessionClosed) for result in results) == [0, 1, 1, 1]
    await both.append(user("a"))
    await both.call("close")


@pytest.mark.parametrize("name", [*CALLS, "refresh"])
async def test_use_before_open_and_after_close(kind: Kind, path: Path, name: str) -> None:
    """A session that isn't open says so in every call, and writes nothing."""
    both = Both(kind, path)
    arguments = CALLS.get(name, ())
    with pytest.raises(SessionClosed):
        await both.call(name, *arguments)
    assert not path.exists()
    await both.call("open")
    await both.append(user("a"))
    await both.call("close")
    await both.call("close")
    with pytest.raises(SessionClosed):
        await both.call(name, *arguments)
    assert both.texts == ["a"]


async def test_close_refuses_what_waits(open_session: Open, path: Path) -> None:
    """Closing while an operation waits for another process ends that with `SessionClosed`."""
    async with open_session() as both:
        with held_elsewhere(path):
            call = asyncio.ensure_future(both.append(user("a")))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(both.call("close"), BOUND)
            with pytest.raises(SessionClosed):
                await asyncio.wait_for(call, BOUND)
    assert path.read_bytes() == b""


async def test_handles_of_both_kinds_share_a_file(path: Path) -> None:
    """Several sessions of both kinds in one process write one file in one order."""
    async with (
        opened("async", path) as one,
        opened("async", path) as two,
        opened("blocking", path) as three,
        opened("blocking", path) as four,
    ):
        handles = [one, two, three, four]

        async def write(index: int) -> None:
            for number in range(25):
                await handles[index].append(user(f"{index}:{number}"), timeout=BOUND)

        await asyncio.gather(*map(write, range(4)))
        for handle in handles:
            await handle.call("refresh")
        assert one.texts == two.texts == three.texts == four.texts
        for index in range(4):
            mine = [text for text in one.texts if text.startswith(f"{index}:")]
            assert mine == [f"{index}:{number}" for number in range(25)]


async def test_many_coroutines_of_one_session(path: Path) -> None:
    """Coroutines of one session that append at once each get a revision of their own."""
    async with Session(path) as session:
        revisions = await asyncio.gather(*(session.append(user(str(n))) for n in range(100)))
        assert len(set(revisions)) == 100
        order = sorted(range(100), key=lambda n: revisions[n])
        assert [message.content for message in session.history] == [str(n) for n in order]


def test_two_event_loops_in_two_threads(path: Path) -> None:
    """Event loops in several threads, each with its own session, share a file."""

    async def write(name: str) -> None:
        async with Session(path) as session, asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(session.append(user(f"{name}{number}"), timeout=BOUND))

    threads = [
        threading.Thread(target=lambda name=name: asyncio.run(write(name)), daemon=True)
        for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
        assert not thread.is_alive()
    with BlockingSession(path) as session:
        texts = {message.content for message in session.history}
    assert texts == {f"{name}{number}" for name in "ab" for number in range(40)}


def test_one_event_loop_after_another(path: Path) -> None:
    """One object may be opened in one event loop after another, with operations queueing up."""
    session = Session(path)

    async def write() -> None:
        async with session:
            await asyncio.gather(*(session.append(user("a"), timeout=BOUND) for _ in range(5)))

    asyncio.run(write())
    asyncio.run(write())
    assert len(session.history) == 10


def test_a_session_belongs_to_one_event_loop(path: Path) -> None:
    """A session that is open in one event loop refuses another, instead of hanging in it."""
    session = Session(path)
    asyncio.run(session.open())

    async def use() -> None:
        with pytest.raises(SessionClosed, match="event loop"):
            await session.append(user("a"))
        await session.close()

    asyncio.run(use())


def test_many_threads_of_one_blocking_session(path: Path) -> None:
    """Threads that share one blocking session lose nothing and keep each thread's order."""
    with BlockingSession(path) as session:
        failures: list[BaseException] = []

        def write(index: int) -> None:
            try:
                for number in range(30):
                    session.append(user(f"{index}:{number}"), timeout=BOUND)
                    if number % 10 == 0:
                        session.checkpoint(timeout=BOUND)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
            assert not thread.is_alive()
        assert failures == []
        assert session.checkpoints == tuple(range(18))
        texts = [str(message.content) for message in session.history]
        for index in range(6):
            mine = [text for text in texts if text.startswith(f"{index}:")]
            assert mine == [f"{index}:{number}" for number in range(30)]
        assert len(path.read_bytes().splitlines()) == 6 * 33


async def test_errors_have_one_base(open_session: Open, path: Path) -> None:
    """A caller who catches `CosessionError` catches a closed session, a conflict and a timeout."""

    async def failures() -> list[Awaitable[Any]]:
        both = Both("async", path)
        return [both.append(user("a"))]

    for call in await failures():
        with pytest.raises(CosessionError):
            await call
    async with open_session() as both:
        await both.append(user("a"))
        with held_here(path), pytest.raises(CosessionError):
            await both.append(user("b"), timeout=0)
        with pytest.raises(CosessionError):
            await both.append(user("b"), expect=Revision(1, 0))


@pytest.mark.parametrize("options", [{}, {"inline": False}, {"durability": "power"}])
async def test_which_thread_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A small append may be made on the event loop's thread, which never waits for the disk."""
    writing, syncing = set[int](), set[int]()
    write_all, sync_data = files.write_all, _platform.sync_data

    def write(*given: Any) -> None:
        writing.add(threading.get_ident())
        write_all(*given)

    def sync(fd: int) -> None:
        syncing.add(threading.get_ident())
        sync_data(fd)

    async with Session(path, **options) as session:
        await session.append(user("first"))
        await until_idle(session)
        monkeypatch.setattr(files, "write_all", write)
        monkeypatch.setattr(_platform, "sync_data", sync)
        for number in range(20):
            await session.append(user(str(number)))
    here = threading.get_ident()
    inline = "inline" not in options and _platform.KEEPS_FILES_OPEN
    assert (here in writing) is inline  # a busy disk may have sent some to the other one
    assert here not in syncing
    assert bool(syncing) is ("durability" in options)


async def test_who_calls_first_is_first_on_whatever_path(path: Path) -> None:
    """Appends that begin in some order are in the file in that order, inline ones and batches."""
    async with Session(path) as session:
        for at in range(0, 600, 20):
            if at % 3:
                session._open_together()._stays_until = 0.0  # the loop's turn: they go together
            await asyncio.gather(*(session.append(user(str(at + n))) for n in range(20)))
        assert [message.content for message in session.history] == [str(n) for n in range(600)]
