"""Following: being told what anybody does to the session."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from aio.both import KINDS, Both, Kind, opened, user
from cosession import BlockingSession, Session, SessionClosed
from cosession.changes import (
    Appended,
    Change,
    Cleared,
    Reverted,
    Rewritten,
    TurnBegan,
    TurnEnded,
)
from cosession.codec import Checkpoint, SystemPrompt, Usage
from cosession.messages import Message

BOUND = 60.0
BUSY_KINDS = ["async", pytest.param("blocking", marks=pytest.mark.deep)]

WRITER = """
import random, sys, time
from cosession import BlockingSession, UnknownCheckpoint
path, name, seed = sys.argv[1:]
chance = random.Random(int(seed))
with BlockingSession(path) as session:
    for number in range(30):
        match chance.randrange(12):
            case 0: session.checkpoint()
            case 1:
                try: session.revert_to(chance.choice(session.checkpoints or (0,)))
                except UnknownCheckpoint: pass
            case 2 if chance.random() < 0.2: session.clear()
            case 3 if chance.random() < 0.3: session.set_system_prompt(f"prompt {number}")
            case 4: session.record_usage(number)
            case 5:
                with session.turn("t") as turn:
                    turn.append({"role": "user", "content": f"{name}-{number}-t"})
            case _:
                both = [f"{name}-{number}-{place}" for place in (1, 2)]
                session.append([{"role": "user", "content": text} for text in both])
        time.sleep(chance.uniform(0, 0.01))
"""


class Told:
    """A follower that keeps its own fold of what it is told, and nothing else."""

    def __init__(self, both: Both) -> None:
        self.both, self.session = both, both.session
        self.changes: list[Change] = []
        self.messages: list[Any] = list(self.session.history)
        self.wrong: list[Change] = []

    async def follow(self) -> None:
        changes = self.session.follow()  # from here on
        if isinstance(self.session, Session):
            async for change in changes:
                self.note(change)
        else:
            await asyncio.to_thread(self.note_all, changes)

    def note_all(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.note(change)

    def note(self, change: Change) -> None:
        match change:
            case Appended(records):
                self.messages = self.messages + self.of(records)
            case Reverted(kept, records):
                self.messages = self.messages[:kept] + self.of(records)
            case Rewritten(records):
                self.messages = self.of(records)
            case Cleared():
                self.messages = []
        if self.session.history != self.messages:
            self.wrong.append(change)
        self.changes.append(change)

    @staticmethod
    def of(records: tuple[Any, ...]) -> list[Any]:
        return [record for record in records if isinstance(record, Message)]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(BOUND):
            while not condition():
                await asyncio.sleep(0.005)

    def kinds(self) -> list[str]:
        return [type(change).__name__ for change in self.changes]


@asynccontextmanager
async def told_of(path: Path, kind: Kind, **options: Any) -> AsyncIterator[Told]:
    """A session that is followed; closing it ends that."""
    async with opened(kind, path, **options) as both:
        told = Told(both)
        task = asyncio.ensure_future(told.follow())
        await asyncio.sleep(0.05)
        try:
            yield told
        finally:
            await both.call("close")
            with suppress(SessionClosed):
                await asyncio.wait_for(task, BOUND)
        assert told.wrong == []


@pytest.fixture(params=["signs", "heartbeat"], autouse=True)
def signs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the system's signs, and without."""
    if request.param == "heartbeat":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    else:
        pytest.importorskip("watchfiles", reason="watchfiles is not installed")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_change_is_told_once(tmp_path: Path, kind: Kind) -> None:
    """Appends with their records in order, reverts, clears, rewrites, and turns."""
    path = tmp_path / "context.jsonl"
    async with told_of(path, kind) as told, Session(path) as other:
        await other.append(user("a"))
        await told.until(lambda: len(told.changes) == 1)
        async with other.transaction() as tx:
            tx.checkpoint()
            tx.record_usage(5)
            tx.append([user("b"), user("c")])
        await told.until(lambda: len(told.changes) == 2)
        change = told.changes[-1]
        assert isinstance(change, Appended)
        assert change.records[:2] == (Checkpoint(0), Usage(5))
        assert [message.content for message in change.records[2:]] == ["b", "c"]
        assert change.revision == other.revision
        await other.revert_to(0)
        await told.until(lambda: len(told.changes) == 3)
        assert told.changes[-1] == Reverted(1, (), other.revision)
        await other.set_system_prompt("be brief")
        await told.until(lambda: len(told.changes) == 4)
        change = told.changes[-1]
        assert isinstance(change, Rewritten)
        assert change.records[0] == SystemPrompt("be brief")
        await other.clear()
        await told.until(lambda: len(told.changes) == 5)
        assert told.changes[4] == Cleared(other.revision)
        async with other.turn("answering"):
            await told.until(lambda: len(told.changes) == 6)
        await told.until(lambda: len(told.changes) == 7)
        began, ended = told.changes[-2:]
        assert isinstance(began, TurnBegan)
        assert isinstance(ended, TurnEnded)
        assert began.card.holder.operation == "answering"
        assert began.card.token == ended.card.token


async def test_what_the_follower_itself_writes_is_told_too(tmp_path: Path) -> None:
    """Own operations and others' come in the one order of the file."""
    async with told_of(tmp_path / "context.jsonl", "async") as told:
        for number in range(5):
            await told.session.append(user(str(number)))
        await told.until(lambda: len(told.messages) == 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_read_only_follower_changes_nothing(tmp_path: Path, kind: Kind) -> None:
    """It needs no lock, and leaves the folder as it is."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(b'{"role": "user", "content": "a"}\n')
    async with told_of(path, kind, read_only=True) as told:
        assert os.listdir(tmp_path) == ["context.jsonl"]
        with path.open("ab") as file:  # by a program that takes no lock
            file.write(b'{"role": "user", "content": "b"}\n{"role": "us')
        await told.until(lambda: len(told.messages) == 2)
        assert os.listdir(tmp_path) == ["context.jsonl"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_follower_survives_the_file_being_deleted_and_made_again(
    tmp_path: Path, kind: Kind
) -> None:
    """What comes afterwards is told."""
    path = tmp_path / "context.jsonl"
    async with told_of(path, kind) as told:
        await told.both.append(user("a"))
        await told.until(lambda: len(told.messages) == 1)
        for name in os.listdir(tmp_path):
            with suppress(OSError):
                os.unlink(tmp_path / name)
        with BlockingSession(path) as other:
            other.append([user("b"), user("c")])
        await told.until(lambda: [m.content for m in told.messages] == ["b", "c"])


async def test_following_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """No task of the follower is left over."""
    path = tmp_path / "context.jsonl"
    async with opened("async", path) as session:
        for _ in range(5):
            task = asyncio.ensure_future(Told(session).follow())
            await asyncio.sleep(random.uniform(0, 0.03))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, BOUND)
    async with asyncio.timeout(BOUND):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", BUSY_KINDS)
async def test_a_follower_of_a_busy_session_tells_exactly_its_history(
    tmp_path: Path, kind: Kind
) -> None:
    """Under load, with reverts, clears and rewrites: nothing missed, nothing told twice."""
    path = tmp_path / "context.jsonl"
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    async with told_of(path, kind) as told:
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"w{n}", str(seed + n)])
            for n in range(3)
        ]
        codes = [await asyncio.to_thread(writer.wait, BOUND) for writer in writers]
        assert codes == [0, 0, 0]
        with BlockingSession(path) as last:
            history = list(last.history)
        await told.until(lambda: told.messages == history)
        assert told.changes != []


TAKES_TURNS = """
import sys, time
from cosession import BlockingSession
path, name = sys.argv[1:]
with BlockingSession(path) as session:
    for number in range(16):
        for half in "ab":  # the second one begins as soon as somebody else's ends
            tag = f"{name}-{number}{half}"
            with session.turn(tag) as turn:
                for _ in range(3):
                    turn.append({"role": "user", "content": tag})
        session.append({"role": "user", "content": "outside"})
        time.sleep(0.02)
"""


@pytest.mark.parametrize("kind", BUSY_KINDS)
async def test_a_turn_is_told_around_what_it_brings(tmp_path: Path, kind: Kind) -> None:
    """However quickly turns follow each other, one that is told has all its messages inside."""
    path = tmp_path / "context.jsonl"
    async with told_of(path, kind) as told:
        writers = [
            subprocess.Popen([sys.executable, "-c", TAKES_TURNS, str(path), f"w{number}"])
            for number in range(3)
        ]
        codes = [await asyncio.to_thread(writer.wait, BOUND) for writer in writers]
        assert codes == [0, 0, 0]
        await told.until(lambda: len(told.messages) == 3 * 16 * 7)
        # Those may all have been over between two looks. This one waits to be seen.
        async with Session(path) as session, session.turn("seen") as turn:
            await turn.append(user("seen"))
            await told.until(lambda: len(told.messages) == 3 * 16 * 7 + 1)
    on = ""
    turns: list[str] = []
    during: dict[str, set[str]] = {}
    for change in told.changes:
        match change:
            case TurnBegan(card):
                assert on == ""
                on = card.holder.operation
                turns.append(on)
            case TurnEnded(card):
                assert card.holder.operation == on
                on = ""
            case Appended(records):
                for message in records:
                    during.setdefault(message.content, set()).add(on)
    assert "seen" in turns
    assert len(set(turns)) == len(turns)
    assert [during[turn] for turn in turns] == [{turn} for turn in turns]


def test_what_a_turn_brought_before_it_was_seen_is_told_while_it_is_on(tmp_path: Path) -> None:
    """The look that finds a turn sees no further than to its beginning: another one follows."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        changes = session.follow(timeout=0)
        with other.turn() as turn:
            turn.append(user("a"))
            assert [type(change) for change in changes] == [TurnBegan, Appended]


def test_a_blocking_follower_ends_when_nothing_comes(tmp_path: Path) -> None:
    """After `timeout` seconds of silence, or at once with 0; what is there is told before."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        changes = session.follow(timeout=0)
        other.append(user("a"))
        assert [type(change) for change in changes] == [Appended]
        assert list(changes) == []
        began = time.monotonic()
        assert list(session.follow(timeout=0.3)) == []
        assert 0.3 <= time.monotonic() - began < BOUND


def test_closing_the_session_ends_a_blocking_follower(tmp_path: Path) -> None:
    """On another thread, by SessionClosed; a session opened again is not that one."""
    session = BlockingSession(tmp_path / "context.jsonl")
    session.open()
    ended: list[BaseException] = []
    changes = session.follow()  # here, and not on the thread: it may be late

    def follow() -> None:
        try:
            for _ in changes:
                pass
        except SessionClosed as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.05)
    session.close()
    session.open()
    thread.join(BOUND)
    session.close()
    assert [str(error) for error in ended] == [f"{session.path}: closed while it was followed"]


def test_a_follower_settles_what_a_dead_process_left(tmp_path: Path) -> None:
    """After a heartbeat in which nothing moves; a line without its end is closed, and told."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        changes = session.follow(timeout=BOUND)
        with path.open("ab") as file:
            file.write(b'{"role": "us')
        change = next(changes)
        assert isinstance(change, Appended)
        assert len(change.records) == 1
        assert session.damage == change.records
        changes.close()


@pytest.mark.deep
def test_the_wake_up_figures_can_be_measured() -> None:
    """The command that the README names prints a row for each case."""
    script = Path(__file__).parent.parent / "benchmarks" / "wakeup.py"
    if not script.exists():
        pytest.skip("benchmarks/ is not beside the tests")
    command = [sys.executable, str(script), "--samples", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 9
