"""Turns: what one terminal writes in one go stays together."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aio.both import KINDS, Kind, opened, resolve, user
from cosession import (
    BlockingSession,
    Session,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
    TurnTimeout,
)

TESTS = Path(__file__).parent
BOUND = 60.0
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "call-1"}, {"id": "call-2"}]}
RESULT = {"role": "tool", "tool_call_id": "call-1", "content": "42"}

DIES_IN_ITS_TURN = """
import json, sys
from cosession import BlockingSession
session = BlockingSession(sys.argv[1])
session.open()
with session.turn("about to die") as turn:
    for message in json.loads(sys.argv[2]):
        turn.append(message)
    print("now", flush=True)
    sys.stdin.read()
"""


def dies_in_its_turn(path: Path, *messages: dict[str, Any]) -> int:
    """Have a process killed in the middle of a turn; its pid."""
    command = [sys.executable, "-c", DIES_IN_ITS_TURN, str(path), json.dumps(messages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now" + os.linesep.encode()
        process.kill()
        process.wait(BOUND)
    return process.pid


async def soon(condition: Any) -> None:
    """Wait, with a bound, until something is so."""
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.001)


# ---- who may do what ------------------------------------------------------------------------


async def test_what_is_written_in_a_turn_is_contiguous(tmp_path: Path) -> None:
    """Messages of other terminals come before or behind a turn, never inside."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as one, Session(path) as two, Awaitable(path) as three:
        async with one.turn("answering") as turn:
            await turn.append(user("a1"))
            others = [
                asyncio.ensure_future(two.append(user("b"))),
                asyncio.ensure_future(asyncio.to_thread(three.append, user("c"))),
            ]
            await asyncio.sleep(0.05)
            await turn.append([user("a2"), user("a3")])
            mark = await turn.checkpoint()
            await one.append(user("a4"))  # the object has the turn
            assert not any(other.done() for other in others)
        await asyncio.wait_for(asyncio.gather(*others), BOUND)
        await one.refresh()
        texts = [str(message.content) for message in one.history]
        assert texts[:4] == ["a1", "a2", "a3", "a4"]
        assert sorted(texts[4:]) == ["b", "c"]
        assert one.checkpoints == (mark,)


class Awaitable(BlockingSession[Any]):
    """A blocking session that can stand in an `async with`."""

    async def __aenter__(self) -> BlockingSession[Any]:
        self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_token_counts_and_reading_never_wait(tmp_path: Path, kind: Kind) -> None:
    """During a turn others can read what is there, and record token counts."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as holder, opened(kind, path) as other, holder.turn() as turn:
        await turn.append(user("a"))
        await other.call("refresh")
        assert other.texts == ["a"]
        await asyncio.wait_for(other.call("record_usage", 7), BOUND)
        await turn.append(user("b"))
        assert (holder.token_count, len(holder.history)) == (7, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "call", ["append", "checkpoint", "revert_to", "clear", "set_system_prompt"]
)
async def test_who_would_not_wait_is_told_who_has_the_turn(
    tmp_path: Path, kind: Kind, call: str
) -> None:
    """`during_turn="raise"` raises at once; a `timeout`, also of 0, ends in a `TimeoutError`."""
    path = tmp_path / "context.jsonl"
    needed: dict[str, list[Any]] = {"append": [user("b")], "revert_to": [0]}
    arguments = needed.get(call, ["x"] if call == "set_system_prompt" else [])
    async with Session(path) as holder, holder.turn("answering") as turn:
        await turn.append(user("a"))
        await turn.checkpoint()
        before = path.read_bytes()
        async with opened(kind, path, during_turn="raise") as impatient:
            for timeout in (None, 0):
                with pytest.raises(TurnHeld, match="answering") as held:
                    await impatient.call(call, *arguments, timeout=timeout)
                assert not isinstance(held.value, TimeoutError)
            assert held.value.holder is not None
            assert held.value.holder.pid == os.getpid()
        async with opened(kind, path) as patient:
            for patience in (0, 0.05):
                with pytest.raises(TurnTimeout, match="answering"):
                    await patient.call(call, *arguments, timeout=patience)
        assert path.read_bytes() == before


async def test_the_holder_is_known_to_everybody_and_gone_with_the_turn(tmp_path: Path) -> None:
    """`holder` tells who has the turn, and what for, while it lasts."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session, Session(path, read_only=True) as reader:
        assert reader.holder is None
        async with session.turn("answering") as turn:
            for one in (session, reader):
                assert one.holder is not None
                assert (one.holder.pid, one.holder.operation) == (os.getpid(), "answering")
                assert one.interrupted is None
            assert turn.began == session.revision
        assert reader.holder is None
        with pytest.raises(TurnOver):
            await turn.append(user("too late"))


async def test_a_wait_for_the_turn_can_be_cancelled_and_the_lock_is_handed_on(
    tmp_path: Path,
) -> None:
    """Whoever gave up waiting doesn't keep the turn when it comes."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as holder, Session(path) as two, Session(path) as three:
        async with holder.turn() as turn:
            gone = [
                asyncio.ensure_future(two.append(user("never"))),
                asyncio.ensure_future(enter(two)),
            ]
            await asyncio.sleep(0.05)
            for waiter in gone:
                waiter.cancel()
            assert [type(e) for e in await asyncio.gather(*gone, return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 2
            await turn.append(user("a"))
        await three.append(user("b"), timeout=BOUND)
        async with three.turn(timeout=BOUND):
            await two.record_usage(1)
        assert [message.content for message in three.history] == ["a", "b"]


async def enter(session: Session[Any]) -> None:
    async with session.turn():
        pytest.fail("nobody is to get here")


async def test_a_turn_ends_with_its_block_however_that_ends(tmp_path: Path) -> None:
    """An exception, or a cancellation, ends the turn; what was written stays."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session, Session(path) as other:
        with pytest.raises(KeyError):
            async with session.turn() as turn:
                await turn.append(user("a"))
                raise KeyError
        assert (other.holder, other.interrupted) == (None, None)

        async def takes_long() -> None:
            async with session.turn() as turn:
                await turn.append(user("b"))
                await asyncio.sleep(BOUND)

        task = asyncio.ensure_future(takes_long())
        await soon(lambda: len(session.history) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (other.holder, other.interrupted) == (None, None)
        await other.append(user("c"), timeout=0)
        assert [message.content for message in other.history] == ["a", "b", "c"]


async def test_a_beginning_that_is_cancelled_anywhere_leaves_no_turn(tmp_path: Path) -> None:
    """However often it has been suspended by then: nobody has the turn afterwards."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session, Session(path) as other:
        for turns in range(12):
            task = asyncio.ensure_future(hold(session))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (other.holder, other.interrupted) == (None, None)
            await other.append(user("x"), timeout=BOUND)


async def hold(session: Session[Any]) -> None:
    async with session.turn() as turn:
        await turn.append(user("held"))
        await asyncio.sleep(BOUND)


async def test_a_turn_within_a_turn_of_the_same_task_is_refused(tmp_path: Path) -> None:
    """It would wait for itself for ever."""
    async with Session(tmp_path / "context.jsonl") as session, session.turn():
        with pytest.raises(TurnOver, match="already"):
            async with session.turn():
                pytest.fail("nobody is to get here")


def test_a_holder_that_is_stopped_keeps_the_turn_and_goes_on_when_it_wakes(tmp_path: Path) -> None:
    """SIGSTOP, a closed lid: others wait, are told for whom, and come behind it."""
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("this system can't stop a process")
    path = tmp_path / "context.jsonl"
    command = [sys.executable, "-c", TWO_RECORDS, str(path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        BlockingSession(path) as other,
    ):
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"now\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(TurnTimeout, match="stopped") as error:
            other.append(user("x"), timeout=1.0)
        assert error.value.holder is not None
        assert error.value.holder.pid == holder.pid
        assert other.interrupted is None
        holder.send_signal(signal.SIGCONT)
        holder.stdin.close()
        other.append(user("x"), timeout=BOUND)
        assert holder.wait(BOUND) == 0
        assert [message.content for message in other.history] == ["a", "b", "x"]


TWO_RECORDS = """
import sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session, session.turn("stopped") as turn:
    turn.append({"role": "user", "content": "a"})
    print("now", flush=True)
    sys.stdin.read()
    turn.append({"role": "user", "content": "b"})
"""


@pytest.mark.parametrize("kind", KINDS)
async def test_others_see_how_far_a_turn_is_and_who_waits_for_it(
    tmp_path: Path, kind: Kind
) -> None:
    """Who waits for longer than a moment is on the list, and off it when the wait is over."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as holder, opened(kind, path) as other:
        assert await other.call("turn_status") is None
        await holder.append(user("before"))
        async with holder.turn("answering") as turn:
            await turn.append([user("a"), user("b")])
            await turn.record_usage(1)
            status = await other.call("turn_status")
            assert (status.holder.operation, status.records) == ("answering", 3)
            assert (status.began, status.waiting) == (turn.began, ())
            waits = asyncio.ensure_future(other.append(user("c")))
            async with Session(path) as third:
                gives_up = asyncio.ensure_future(enter(third))
                await soon(lambda: len(holder.waiting()) == 2)
                assert {one.operation for one in holder.waiting()} == {"append", "a turn"}
                assert {one.pid for one in holder.waiting()} == {os.getpid()}
                gives_up.cancel()
                await soon(lambda: len(holder.waiting()) == 1)
            assert holder.terminals() == []
            await holder.clear()
            status = await other.call("turn_status")
            assert (status.records, [one.operation for one in status.waiting]) == (None, ["append"])
        await asyncio.wait_for(waits, BOUND)
        await soon(lambda: holder.waiting() == [])
        assert await other.call("turn_status") is None


# ---- handing over ---------------------------------------------------------------------------


async def test_the_turn_is_handed_over_between_records_to_who_asked(tmp_path: Path) -> None:
    """The holder sees the note, lets the other one go first, and goes on behind it."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as one, Session(path) as two:
        assert await two.request_turn("nobody is there") is None
        async with one.turn("long") as turn:
            await turn.append(user("a1"))
            assert turn.requested is None
            asked = await two.request_turn("urgent")
            assert asked is not None
            assert asked.operation == "long"
            assert turn.requested is not None
            assert turn.requested.operation == "urgent"

            async def other() -> None:
                async with two.turn("urgent", timeout=BOUND) as mine:
                    await mine.append([user("b1"), user("b2")])

            task = asyncio.ensure_future(other())
            await asyncio.sleep(0.05)
            await turn.hand_over(timeout=BOUND)
            assert turn.requested is None
            await turn.append(user("a2"))
            await task
        assert [message.content for message in one.history] == ["a1", "b1", "b2", "a2"]


# ---- interrupted turns ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interrupted_turn_is_found_and_kept_with_its_calls_closed(
    tmp_path: Path, kind: Kind
) -> None:
    """Messages wait for a decision, reading doesn't; the calls without a result get one."""
    path = tmp_path / "context.jsonl"
    async with opened(kind, path) as session:
        await session.append(user("before"))
        began = session.session.revision
        pid = dies_in_its_turn(path, user("q"), CALL, RESULT)
        for attempt in ("append", "turn"):
            with pytest.raises(TurnInterrupted, match="about to die") as error:
                if attempt == "append":
                    await session.append(user("x"))
                else:
                    with BlockingSession(path) as blocking, blocking.turn():
                        pytest.fail("nobody is to get here")
            assert (error.value.card.holder.pid, error.value.card.began) == (pid, began)
        await session.call("refresh")
        assert len(session.texts) == 4
        interrupted = session.session.interrupted
        assert (interrupted.holder.pid, interrupted.began) == (pid, began)
        await resolve(interrupted.keep())
        assert session.session.interrupted is None
        last = session.session.history[-1]
        assert (len(session.texts), last.role, last.tool_call_id) == (5, "tool", "call-2")
        await session.append(user("after"))
        with pytest.raises(TurnOver):
            await resolve(interrupted.roll_back())


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interrupted_turn_can_be_rolled_back_and_is_kept_in_a_rotated_file(
    tmp_path: Path, kind: Kind
) -> None:
    """The session is where it was when the turn began; nothing is lost."""
    path = tmp_path / "context.jsonl"
    async with opened(kind, path) as session:
        await session.append(user("before"))
        dies_in_its_turn(path, user("q"), CALL)
        rotated = await resolve(session.session.interrupted.roll_back())
        assert session.texts == ["before"]
        assert rotated.read_bytes().count(b"\n") == 3
        assert session.session.interrupted is None
        await session.append(user("after"))
        assert session.texts == ["before", "after"]


async def test_a_turn_survives_a_new_lock_file(tmp_path: Path) -> None:
    """If somebody removes the lock file, the turn's own lock still says whose turn it is."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session, Session(path) as other, session.turn() as turn:
        if os.name != "posix":
            pytest.skip("an open lock file can't be removed on this system")
        os.unlink(f"{path}.lock")
        await turn.append(user("a"))
        with pytest.raises(TurnTimeout):
            await other.append(user("b"), timeout=0)
        await turn.append(user("c"))
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_in_a_turn_has_no_part_in_it(tmp_path: Path) -> None:
    """The child can't write in the turn, doesn't end it, and its death changes nothing."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        with session.turn("the parent's") as turn:
            turn.append(user("a"))
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    turn.append(user("the child's"))
                except TurnOver:
                    try:
                        session.append(user("the child's"), timeout=0)
                    except TurnTimeout:
                        status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            with pytest.raises(TurnTimeout):
                other.append(user("b"), timeout=0)
            turn.append(user("c"))
        other.append(user("d"), timeout=0)
        assert [message.content for message in other.history] == ["a", "c", "d"]


@pytest.mark.parametrize("kind", KINDS)
async def test_only_calls_of_the_interrupted_turn_are_closed(tmp_path: Path, kind: Kind) -> None:
    """A call from before it stays open, also if the turn holds lines that are no messages."""
    path = tmp_path / "context.jsonl"
    async with opened(kind, path) as session:
        await session.append(CALL)
        dies_in_its_turn(path, user("q"))
        with open(path, "ab") as file:
            file.write(b'{"role":"user", no message}\n{"role":"_usage","token_count":7}\n')
        await session.call("refresh")
        await resolve(session.session.interrupted.keep())
        assert (len(session.texts), len(session.session.damage)) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interrupted_turn_that_replaced_the_file_can_be_rolled_back(
    tmp_path: Path, kind: Kind
) -> None:
    """What the turn found is in a rotated file, and comes back from there."""
    path = tmp_path / "context.jsonl"
    async with opened(kind, path) as session:
        await session.append([user("before"), user("too")])
        before = path.read_bytes()
        command = [sys.executable, "-c", CLEARS_AND_DIES, str(path)]
        assert subprocess.run(command, timeout=BOUND, check=False).returncode == 9
        await session.call("refresh")
        assert session.texts == ["summary"]
        await resolve(session.session.interrupted.roll_back())
        assert path.read_bytes() == before
        assert session.texts == ["before", "too"]
        assert session.session.interrupted is None


CLEARS_AND_DIES = """
import os, sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session, session.turn("compacting") as turn:
    turn.append({"role": "user", "content": "compact this"})
    session.clear()
    turn.append({"role": "user", "content": "summary"})
    os._exit(9)
"""


# ---- many processes -------------------------------------------------------------------------


def test_turns_of_many_processes_stay_whole_while_some_are_killed(tmp_path: Path) -> None:
    """Finished turns are contiguous, interrupted ones are found once, nobody is left behind."""
    run_many(tmp_path, seed=random.randrange(1 << 30), terminals=4, turns=10, kills=3)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(10))
def test_eight_processes_take_fifty_turns_each(tmp_path: Path, seed: int) -> None:
    """The same with eight processes, fifty turns each and more kills, ten times."""
    run_many(tmp_path, seed=seed, terminals=8, turns=50, kills=6)


def run_many(folder: Path, *, seed: int, terminals: int, turns: int, kills: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    killed: set[str] = set()
    path = folder / "context.jsonl"
    incarnations = itertools.count(1)
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str) -> None:
        command = [sys.executable, "-m", "turns.terminal", str(path), name]
        command += [str(turns), str(next(incarnations)), str(folder / f"{name}.log")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        running[name] = subprocess.Popen(command, env=environment)

    names = [f"t{number}" for number in range(terminals)]
    for name in names:
        start(name)
    deadline = time.monotonic() + 30 + terminals * turns / 4
    for _ in range(kills):
        before = progress(folder)
        while progress(folder) < before + 3 and any(p.poll() is None for p in running.values()):
            assert time.monotonic() < deadline, "no progress"
            time.sleep(chance.uniform(0.001, 0.02))
        victim = chance.choice(names)
        if running[victim].poll() is None:
            running[victim].kill()
            running[victim].wait(BOUND)
            killed.add(victim)
            start(victim)
    for process in running.values():
        assert process.wait(max(1.0, deadline - time.monotonic())) == 0
    check(folder, path, names)
    if turns >= 50:
        check_fairness(path, [name for name in names if name not in killed])


def check_fairness(path: Path, names: list[str]) -> None:
    """While all of them took turns, nobody had less than half of the mean."""
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    turns = [
        tag.split("-")[0]
        for tag, _ in itertools.groupby(r["content"] for r in records if r["role"] == "user")
    ]
    began = max(turns.index(name) for name in names)
    ended = min(len(turns) - turns[::-1].index(name) for name in names)
    shares = Counter(turn for turn in turns[began:ended] if turn in names)
    print(f"turns while all were there: {dict(shares)}")
    assert sum(shares.values()) >= 20 * len(names)
    assert min(shares[name] for name in names) >= sum(shares.values()) / len(names) / 2


def progress(folder: Path) -> int:
    return sum(log.read_bytes().count(b"finished") for log in folder.glob("*.log"))


def check(folder: Path, path: Path, names: list[str]) -> None:
    said: dict[str, list[str]] = {"began": [], "finished": [], "kept": [], "rolled-back": []}
    for log in folder.glob("*.log"):
        for line in log.read_text().splitlines():
            word, _, tag = line.partition(" ")
            said[word].append(tag)
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    messages = [record for record in records if record["role"] == "user"]
    blocks = [
        (tag, [message["place"] for message in block])
        for tag, block in itertools.groupby(messages, key=lambda message: message["content"])
    ]
    assert max(Counter(tag for tag, _ in blocks).values()) == 1, "a turn is in two pieces"
    whole = dict(blocks)
    for tag in said["finished"]:
        assert whole.pop(tag) == list(range(6)), tag
    decided = Counter(said["kept"] + said["rolled-back"])
    assert not decided or max(decided.values()) == 1, "an interrupted turn was settled twice"
    for tag, places in whole.items():  # began, not finished: killed in between
        assert places == list(range(len(places)))
        assert tag in said["kept"] or places == list(range(6)), tag
    assert not set(said["rolled-back"]) & {tag for tag, _ in blocks}
    with BlockingSession(path) as session:
        if interrupted := session.interrupted:
            interrupted.keep()
        assert session.damage == ()
        assert len(session.history) >= len(messages)
