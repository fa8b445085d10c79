"""`Context.turn()`, and `KimiSoul.run` inside it; kimi-cli's own class has nothing like it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kimi_cli.soul
import kimi_cli.soul.slash
import pytest
from kimi_cli.soul.kimisoul import KimiSoul
from kimi_cli.wire import Wire
from kimi_support import Ours, Theirs, restored, several, start, texts, user
from kosong.message import Message, TextPart, ToolCall

from cosession import Holder, TurnTimeout
from cosession.adapters import _kimi_soul, _kimi_turn

BOUND = 60.0

DIES_IN_ITS_TURN = """
import sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session, session.turn("about to die") as turn:
    turn.append({"role": "user", "content": "q"})
    function = {"name": "f", "arguments": "{}"}
    calls = [{"type": "function", "id": f"call-{n}", "function": function} for n in (1, 2)]
    turn.append({"role": "assistant", "content": [], "tool_calls": calls})
    turn.append({"role": "tool", "tool_call_id": "call-1", "content": "42"})
    print("now", flush=True)
    __import__("time").sleep(600)
"""


@asynccontextmanager
async def others() -> AsyncIterator[Callable[[Any], Awaitable[asyncio.Future[Any]]]]:
    """Begin calls of other terminals inside the block, and see them end well behind it."""
    calls: list[asyncio.Future[Any]] = []

    async def begin(call: Any) -> asyncio.Future[Any]:
        calls.append(asyncio.ensure_future(call))
        await asyncio.sleep(0.05)
        return calls[-1]

    try:
        yield begin
    except BaseException:
        for call in calls:
            call.cancel()
        raise
    await asyncio.wait_for(asyncio.gather(*calls), BOUND)


def assistant(call: str) -> Message:
    function = ToolCall.FunctionBody(name="f", arguments="{}")
    return Message(role="assistant", content=[], tool_calls=[ToolCall(id=call, function=function)])


def result(call: str, text: str) -> Message:
    return Message(role="tool", content=text, tool_call_id=call)


# ---- what a turn is -------------------------------------------------------------------------


async def test_a_turn_is_in_one_piece(path: Path) -> None:
    """All calls inside the block, also those of other tasks, are together; others come behind."""
    one, other = await several(Ours, path, 2)
    async with others() as begin, one.turn("answering"):
        await one.append_message(user("a1"))
        late = await begin(other.append_message(user("b")))
        await one.checkpoint(True)
        await asyncio.create_task(one.append_message([user("a2"), user("a3")]))
        await one.update_token_count(7)
        assert not late.done()
    assert texts(other) == ["a1", "<system>CHECKPOINT 0</system>", "a2", "a3", "b"]


async def test_reverts_and_compactions_are_part_of_the_turn(path: Path) -> None:
    """A D-Mail's revert and the five calls of a compaction let nobody in between."""
    one, other = await several(Ours, path, 2)
    async with others() as begin, one.turn():
        await one.append_message(user("q"))
        await one.checkpoint(True)
        late = await begin(other.append_message(user("b")))
        await one.append_message(user("dropped"))
        await one.revert_to(0)
        await one.checkpoint(True)
        await one.append_message(user("D-Mail"))
        assert texts(one) == ["q", "<system>CHECKPOINT 0</system>", "D-Mail"]
        await one.clear()
        await one.write_system_prompt("p")
        await one.checkpoint(True)
        await one.append_message(user("summary"))
        await one.update_token_count(3)
        assert not late.done()
    assert texts(other) == ["<system>CHECKPOINT 0</system>", "summary", "b"]
    assert other.system_prompt == "p"


async def test_the_history_is_fresh(path: Path) -> None:
    """Who has waited for the turn sees what the others wrote in theirs, before any other call."""
    one, other = await several(Ours, path, 2)
    seen: list[list[str]] = []

    async def look() -> None:
        async with one.turn():
            seen.append(texts(one))

    async with others() as begin, other.turn():
        await other.append_message(user("a"))
        await begin(look())
        await other.append_message(user("b"))
    assert seen == [["a", "b"]]


async def test_reading_and_token_counts_never_wait(path: Path) -> None:
    """During another terminal's turn a session can be opened, read, and counted."""
    one = await restored(Ours, path)
    async with one.turn():
        await one.append_message(user("a"))
        other = await asyncio.wait_for(restored(Ours, path), BOUND)
        assert texts(other) == ["a"]
        await asyncio.wait_for(other.update_token_count(9), BOUND)
    await one.append_message([])
    assert one.token_count == 9


async def test_a_turn_in_a_turn_is_the_same(path: Path) -> None:
    """A task that has the turn, or was made inside the block, doesn't wait for itself."""
    one, other = await several(Ours, path, 2)

    async def again(text: str) -> None:
        async with one.turn("inner"):
            await one.append_message(user(text))

    async with asyncio.timeout(BOUND), one.turn("outer") as turn:
        async with one.turn("inner") as inner:
            assert inner is turn
        await again("a1")
        await asyncio.gather(again("a2"), again("a3"))
        with pytest.raises(TimeoutError):
            async with other.turn(timeout=0):
                pytest.fail("the turn has ended with an inner block")
    assert one.current_turn is None
    assert _kimi_turn.around.get() == ()  # a task that takes turns for ever collects nothing
    async with other.turn(timeout=BOUND):
        assert sorted(texts(other)) == ["a1", "a2", "a3"]


async def test_tasks_of_one_context_take_turns(path: Path) -> None:
    """Two tasks that were not made inside the block have one turn after the other."""
    one = await restored(Ours, path)

    async def take(name: str) -> None:
        async with one.turn(name, timeout=BOUND):
            for number in range(3):
                await one.append_message(user(f"{name}{number}"))
                await asyncio.sleep(0.001)

    await asyncio.gather(take("a"), take("b"))
    assert sorted([texts(one)[:3], texts(one)[3:]]) == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


# ---- how it ends ----------------------------------------------------------------------------


async def test_an_exception_ends_the_turn(path: Path) -> None:
    """What was written stays, and others go on."""
    one, other = await several(Ours, path, 2)
    with pytest.raises(KeyError):
        async with one.turn():
            await one.append_message(user("a"))
            raise KeyError
    async with other.turn(timeout=0):
        assert texts(other) == ["a"]


async def test_what_is_shielded_from_a_cancellation_is_in_the_turn(path: Path) -> None:
    """kimi-cli doesn't wait for its last records when a run is cancelled; the turn does."""
    one, other = await several(Ours, path, 2)
    half = asyncio.Event()

    async def grow() -> None:
        await one.append_message(assistant("1"))
        half.set()
        await asyncio.sleep(0.1)
        await one.append_message([result("1", "done")])

    async def run() -> None:
        async with one.turn():
            await asyncio.shield(grow())

    task = asyncio.create_task(run())
    await asyncio.wait_for(half.wait(), BOUND)
    async with others() as begin:
        await begin(other.append_message(user("b")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert texts(other) == ["", "done", "b"]


async def test_a_wait_that_is_cancelled_leaves_nothing(path: Path) -> None:
    """However far it has come: nobody has the turn afterwards, and the file is as it was."""
    one, other = await several(Ours, path, 2)

    async def take() -> None:
        async with one.turn():
            await asyncio.sleep(BOUND)

    for steps in range(15):
        task = asyncio.create_task(take())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=BOUND)
        async with other.turn(timeout=BOUND):
            await other.append_message(user(str(steps)))
    assert len(texts(other)) == 15


async def test_who_gives_up_is_told_who_has_the_turn(path: Path) -> None:
    """It is a `TimeoutError`, at once or in time, and nothing has changed."""
    one, other = await several(Ours, path, 2)
    async with one.turn("answering"):
        await one.append_message(user("a"))
        before = path.read_bytes()
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError, match="doing answering") as caught:
                async with other.turn(timeout=timeout):
                    pytest.fail("nobody is to get here")
            assert isinstance(caught.value, TurnTimeout)
        assert path.read_bytes() == before
    async with other.turn(timeout=BOUND):  # the wait that was given up may still be in the way
        assert texts(other) == ["a"]


async def test_the_folder_is_gone(tmp_path: Path) -> None:
    """A turn needs the file, like any call: the error is the system's."""
    with pytest.raises(FileNotFoundError):
        async with Ours(tmp_path / "gone" / "context.jsonl").turn():
            pytest.fail("nobody is to get here")


async def test_the_turn_goes_round(path: Path) -> None:
    """Handing over lets those go first who wait, and comes back behind them."""
    one, other = await several(Ours, path, 2)

    async def take() -> None:
        async with other.turn():
            await other.append_message([user("b1"), user("b2")])

    async with others() as begin, one.turn() as turn:
        assert not turn.has_records
        await one.append_message(user("a1"))
        assert turn.has_records
        await begin(take())
        await turn.hand_over(timeout=BOUND)
        assert texts(one) == ["a1", "b1", "b2"]
        assert not turn.has_records
        await one.append_message(user("a2"))
    assert texts(one) == ["a1", "b1", "b2", "a2"]


# ---- who dies, who waits --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["turn", "append"])
async def test_a_dead_terminal_holds_nobody_up(
    how: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it wrote stays, its open call is closed, a warning names it, and work goes on."""
    one, other = await several(Ours, path, 2)
    with start("-c", DIES_IN_ITS_TURN, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.kill()
        process.communicate(timeout=BOUND)
    assert len((await restored(Ours, path)).history) == 3  # anybody can read
    async with asyncio.timeout(BOUND):
        if how == "turn":
            async with one.turn():
                assert len(one.history) == 4
                await one.append_message(user("after"))
        else:
            await asyncio.gather(*(c.append_message(user("after")) for c in (one, other)))
    await one.append_message([])
    assert texts(one)[:3] == ["q", "", "42"]
    closing = one.history[3]
    assert (closing.role, closing.tool_call_id) == ("tool", "call-2")
    assert closing.extract_text().startswith("No result")
    assert set(texts(one)[4:]) == {"after"}
    assert list((await restored(Theirs, path)).history) == list(one.history)
    (warning,) = caplog.records
    assert f"process {process.pid} " in warning.getMessage()
    assert "doing about to die" in warning.getMessage()


async def test_who_waits_is_told_for_whom(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, once, by a warning or by the callback; and not if there is no wait."""
    monkeypatch.setattr(_kimi_turn, "_QUIET", 0.02)
    one, loud, quiet = await several(Ours, path, 3)
    told: list[Any] = []

    async def take(context: Any, **options: Any) -> None:
        async with context.turn(**options):
            await asyncio.sleep(0.05)

    async with others() as begin, one.turn("answering"):
        await begin(take(loud))
        await begin(take(quiet, on_wait=told.append))
        async with asyncio.timeout(BOUND):
            while not (told and caplog.records):
                await asyncio.sleep(0.01)
    assert [holder.operation for holder in told] == ["answering"]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "waiting, because it is the turn of process" in warning.getMessage()


async def test_who_has_the_turn_is_told_who_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each who asks, also in a wait for something else, such as an approval."""
    monkeypatch.setattr(_kimi_turn, "_QUIET", 0.02)
    one, other, last = await several(Ours, path, 3)
    told: list[str] = []

    async def take(context: Any, label: str) -> None:
        def tell(holder: Any) -> None:
            told.append(f"{holder.operation} asks {label}")

        async with context.turn(label, on_request=tell), asyncio.timeout(BOUND):
            while label != "3" and not any(line.endswith(label) for line in told):
                await asyncio.sleep(0.01)

    async with others() as begin:
        await begin(take(one, "1"))
        await begin(take(other, "2"))
        while not told:
            await asyncio.sleep(0.01)
        await begin(take(last, "3"))
    assert (told[0], told[-1]) == ("2 asks 1", "3 asks 2")
    assert len(set(told)) == len(told)


async def test_another_event_loop_waits_like_another_terminal(path: Path) -> None:
    """It gets the file behind the turn, and does the one that has the turn no harm."""
    one = await restored(Ours, path)

    def elsewhere() -> None:
        asyncio.run(asyncio.wait_for(one.append_message(user("b")), BOUND))

    async with one.turn():
        await one.append_message(user("a1"))
        thread = threading.Thread(target=elsewhere)  # knows of no block that it was started in
        inside = asyncio.ensure_future(asyncio.to_thread(elsewhere))
        thread.start()
        await asyncio.sleep(0.2)
        async with asyncio.timeout(BOUND):
            await one.append_message(user("a2"))
            assert texts(one) == ["a1", "a2"]
        assert thread.is_alive()
        assert not inside.done()
    await inside
    await asyncio.to_thread(thread.join, BOUND)
    await one.append_message([])
    assert texts(one) == ["a1", "a2", "b", "b"]


# ---- KimiSoul -------------------------------------------------------------------------------


@pytest.fixture
def soul(monkeypatch: pytest.MonkeyPatch) -> type:
    """kimi-cli's class, with other methods in it, which say whose turn it is."""

    async def run(self: Any, user_input: Any, *, skip_user_prompt_hook: bool = False) -> None:
        """Run."""
        for question in user_input if isinstance(user_input, list) else [user_input]:
            await KimiSoul._turn(self, question)

    async def _turn(self: Any, user_message: Any) -> None:
        await self.say(getattr(self.context, "current_turn", None))

    monkeypatch.setattr(KimiSoul, "run", run)
    monkeypatch.setattr(KimiSoul, "_turn", _turn)
    return KimiSoul  # type: ignore[no-any-return]


async def test_a_run_is_a_turn(soul: Any, path: Path) -> None:
    """Every run has the turn while it lasts, but for commands that write nothing."""
    own = soul.run, soul._turn
    _kimi_soul.put_into_turns()
    ours = soul.run, soul._turn
    _kimi_soul.put_into_turns()
    assert (soul.run, soul._turn) == ours != own
    assert soul.run.__doc__ == "Run."
    turns: list[bool] = []

    async def say(turn: Any) -> None:
        turns.append(turn is not None)

    for words in ("hi", "/clear", "/planet", "/yolo", " /plan off", "/export x"):
        agent = SimpleNamespace(context=Ours(path), say=say)
        await soul.run(agent, words, skip_user_prompt_hook=True)
    await soul.run(SimpleNamespace(context=Theirs(path), say=say), "hi")
    assert turns == [True, True, True, False, False, False, False]
    _kimi_soul.take_out_of_turns()
    assert (soul.run, soul._turn) == own


async def test_a_run_with_several_questions_lets_others_in_between(soul: Any, path: Path) -> None:
    """A loop that goes on for ever keeps nobody waiting for longer than one question."""
    _kimi_soul.put_into_turns()
    one, other = await several(Ours, path, 2)
    waiters: list[asyncio.Task[None]] = []

    async def ask() -> None:
        async with other.turn():
            await other.append_message([user("b1"), user("b2")])

    async def say(turn: Any) -> None:
        await one.append_message(user("a1"))
        if not waiters:
            waiters.append(asyncio.create_task(ask()))
            async with asyncio.timeout(BOUND):
                while not one._session.waiting():  # it stands at the turnstile
                    await asyncio.sleep(0.01)
        await one.append_message(user("a2"))

    await soul.run(SimpleNamespace(context=one, say=say), [TextPart(text="1"), TextPart(text="2")])
    await asyncio.wait_for(waiters[0], BOUND)
    assert texts(one) == ["a1", "a2", "b1", "b2", "a1", "a2"]


async def test_waits_are_shown_as_notifications() -> None:
    """Where a run has a UI, it shows who waits for whom; where it has none, nothing happens."""
    holder = Holder(7, "here", "me", "pts/1", "answering")
    _kimi_soul._tell_for_whom(holder)
    wire = Wire()
    shown = wire.ui_side(merge=False)
    token = kimi_cli.soul._current_wire.set(wire)
    try:
        _kimi_soul._tell_for_whom(None)
        _kimi_soul._tell_who_asks(holder)
    finally:
        kimi_cli.soul._current_wire.reset(token)
    first, second = await shown.receive(), await shown.receive()
    assert (first.title, second.title) == (
        "Another terminal is answering in this session",
        "Another terminal waits for its turn in this session",
    )
    assert "a terminal that left no card" in first.body
    assert "process 7 of me@here on pts/1" in second.body


def test_the_commands_that_write_nothing_exist() -> None:
    """They are commands of kimi-cli's agent, under these names."""
    names = {command.name for command in kimi_cli.soul.slash.registry.list_commands()}
    assert names > _kimi_soul._WRITE_NOTHING


@pytest.mark.parametrize("name", ["run", "_turn"])
def test_another_soul_is_refused(soul: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kimi-cli whose methods take something else is left as it is, and the error says so."""
    monkeypatch.setattr(soul, name, lambda self, question: None)
    before = soul.run, soul._turn
    with pytest.raises(ImportError, match=f"KimiSoul has no {name}"):
        _kimi_soul.put_into_turns()
    assert (soul.run, soul._turn) == before
