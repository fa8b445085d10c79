"""Cancel an operation at its first suspension, at its second, and so on, and look what is left.

1. An `Act` prepares a scene, and then does one operation of the asyncio session. Undisturbed, it
   marks every state through which the files go: those are the outcomes that there may be.
2. A task that does it is cancelled at its k-th suspension, for k = 1, 2, 3, … until it ends before.
3. Afterwards the files must be in a marked state, in the last one if it was not cancelled; memory
   must be the file; both locks must be free; nothing may run on, and nothing may lie about; and
   the next operation must work.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bad.soundness import assert_memory_is_file
from cosession import BlockingSession, Message, Session, turn_lock
from cosession.event_loop import uncancelled
from cosession.files import rotations
from cosession.header import Header
from cosession.lock import LockFile
from machine.reference import parse

from .both import user
from .held import BOUND, is_free
from .suspended import acting_when_suspended

State = dict[str, Any]


@dataclass
class Scene:
    """A session, another handle on it, and what has become of the files."""

    folder: Path
    session: Session[Message]
    other: BlockingSession[Message]
    marks: list[State] = field(default_factory=list)
    turn_of_other: Any = None

    @property
    def path(self) -> Path:
        return self.session.path

    def mark(self) -> None:
        self.marks.append(self.state())

    def state(self) -> State:
        """The files, as records; a fork's record of its origin has another revision each time."""
        names = ["context.jsonl", "context.fork-1.jsonl", "copy.jsonl"]
        names += [os.path.basename(path) for _, path in rotations(str(self.path))]
        return {
            name: [
                {**record, "at": ""} if isinstance(record := parse(line), dict) else record
                for line in file.read_bytes().split(b"\n")[:-1]
            ]
            for name in names
            if (file := self.folder / name).exists()
        }


@dataclass(frozen=True)
class Act:
    do: Callable[[Scene], Awaitable[Any]]
    prepare: Callable[[Scene], Any] = lambda scene: None
    tidy: Callable[[Scene], Any] = lambda scene: None
    """What the other handle does in any case, when all is over."""


# ---- operations -----------------------------------------------------------------------------


async def _transact(scene: Scene) -> None:
    async with scene.session.transaction() as transaction:
        transaction.clear()
        transaction.append([user("new"), user("new")])
        transaction.checkpoint()


async def _take_a_turn(scene: Scene) -> None:
    async with scene.session.turn("short") as turn:
        for _ in range(2):
            await turn.append(user("in the turn"))
            scene.mark()


async def _hand_over(scene: Scene) -> None:
    async with scene.session.turn("long") as turn:
        await turn.append(user("before"))
        scene.mark()
        await turn.hand_over()
        await turn.append(user("behind"))
        scene.mark()


async def _follow(scene: Scene) -> None:
    later = asyncio.get_running_loop().call_later(0.002, scene.other.append, user("followed"))
    try:
        async with aclosing(scene.session.follow()) as changes:
            async for _ in changes:
                break
    finally:
        if not later.cancelled() and later.when() > asyncio.get_running_loop().time():
            later.cancel()


async def _fork_on_conflict(scene: Scene) -> None:
    stale = scene.session.revision
    scene.other.append(user("came in"))
    scene.mark()
    await scene.session.append(user("new"), expect=stale, on_conflict="fork")


async def _reopen(scene: Scene) -> None:
    await scene.session.close()
    await scene.session.open()


async def _append_among_others(scene: Scene, *, leads: bool) -> None:
    """While two others do, who rely on it if it is the first to come, and to whom it is no harm."""
    session = scene.session
    session._open_together()._stays_until = 0.0  # nobody goes on the spot
    theirs = [user(f"other {number}") for number in range(2)]
    without = scene.state()
    without["context.jsonl"] += [{**message, "at": ""} for message in theirs]
    scene.marks.append(without)
    others = [asyncio.ensure_future(session.append(message)) for message in theirs]
    try:
        if not leads:
            await asyncio.sleep(0)
        await session.append(user("mine"))
    finally:
        await uncancelled(asyncio.wait(others))
        for task in others:
            task.result()
        texts = [str(message.content) for message in session.history]
        assert [text for text in texts if "other" in text] == ["other 0", "other 1"]


def _die_in_a_turn(scene: Scene) -> None:
    manager = scene.other.turn("about to die")
    turn = manager.__enter__()
    turn.append({"role": "assistant", "content": None, "tool_calls": [{"id": "call"}]})
    turn._is_over()  # its lock is gone, and nothing is said
    manager.__exit__(None, None, None)


async def _settle(scene: Scene, how: str) -> None:
    found = scene.session.interrupted
    assert found is not None
    await getattr(found, how)()


def _settle_after_all(scene: Scene) -> None:
    found = scene.other.interrupted
    if found is not None:
        found.keep(close_tool_calls=False)


def _begin_turn_of_another(scene: Scene) -> None:
    manager = scene.other.turn("of the other one")
    manager.__enter__()
    scene.turn_of_other = manager


async def _behind_a_turn(scene: Scene, work: Awaitable[Any]) -> None:
    assert scene.turn_of_other is not None
    loop = asyncio.get_running_loop()
    loop.call_later(0.003, scene.turn_of_other.__exit__, None, None, None)
    await work


def _clear(scene: Scene) -> None:
    scene.other.clear()


ACTS: dict[str, Act] = {
    "append": Act(lambda s: s.session.append([user("new")] * 3)),
    "append, and lead others": Act(lambda s: _append_among_others(s, leads=True)),
    "append, and be led": Act(lambda s: _append_among_others(s, leads=False)),
    "checkpoint": Act(lambda s: s.session.checkpoint()),
    "usage": Act(lambda s: s.session.record_usage(7)),
    "system prompt": Act(lambda s: s.session.set_system_prompt("new")),
    "revert": Act(lambda s: s.session.revert_to(0)),
    "clear": Act(lambda s: s.session.clear()),
    "restore": Act(lambda s: s.session.restore(1), prepare=_clear),
    "transaction": Act(_transact),
    "fork": Act(lambda s: s.session.fork()),
    "fork on a conflict": Act(_fork_on_conflict),
    "export": Act(lambda s: s.session.export(s.folder / "copy.jsonl")),
    "turn": Act(_take_a_turn),
    "hand over": Act(_hand_over),
    "append behind a turn": Act(
        lambda s: _behind_a_turn(s, s.session.append(user("new"))),
        prepare=_begin_turn_of_another,
    ),
    "turn behind a turn": Act(
        lambda s: _behind_a_turn(s, _take_a_turn(s)), prepare=_begin_turn_of_another
    ),
    "keep": Act(lambda s: _settle(s, "keep"), prepare=_die_in_a_turn, tidy=_settle_after_all),
    "roll back": Act(
        lambda s: _settle(s, "roll_back"), prepare=_die_in_a_turn, tidy=_settle_after_all
    ),
    "turn status": Act(lambda s: s.session.turn_status()),
    "request turn": Act(lambda s: s.session.request_turn("please")),
    "refresh": Act(lambda s: s.session.refresh()),
    "follow": Act(_follow),
    "load": Act(lambda s: s.session.load()),
    "close and open": Act(_reopen),
}


# ---- the driver -----------------------------------------------------------------------------


class SlowCommits:
    """From now on every commit takes a while, and something can be done in the middle of one."""

    def __init__(self) -> None:
        self._act = noop
        publish = LockFile.publish

        def slowly(lock: LockFile, header: Header) -> None:
            act, self._act = self._act, noop
            act()
            time.sleep(0.004)
            publish(lock, header)

        LockFile.publish = slowly  # type: ignore[assignment, method-assign]

    def at_the_next(self, act: Callable[[], object]) -> None:
        self._act = act


def noop() -> object:
    """Nothing."""


@dataclass
class Tried:
    cancellations: int = 0
    outcomes: set[int] = field(default_factory=set)
    """Which of the marked states were come upon."""


async def cancel_everywhere(
    name: str,
    folder: Path,
    *,
    durability: Any = "process",
    delay: float | SlowCommits | None = None,
    held: Callable[[Path], AbstractContextManager[None]] = lambda path: nullcontext(),
    most: int = 400,
) -> Tried:
    """Cancel an operation at each of its suspensions, or `delay` seconds after it.

    With slow commits for a delay, in the middle of the next one.

    Raises:
        AssertionError: Something was left that must not be.
    """
    act = ACTS[name]
    marks = await _learn(act, folder / "undisturbed", durability)
    tried = Tried()
    for suspension in range(1, most):
        scene = await _prepared(act, folder / f"{suspension}", durability)
        tasks = asyncio.all_tasks()
        try:
            with held(scene.path):
                cancelled = await _cancelled(act, scene, suspension, delay)
            await _soon(lambda: is_free(scene.path), "the lock is not let go of")
            await _look(act, scene, marks, tried, cancelled=cancelled)
        finally:
            await _closed(scene)
        await _soon(lambda: asyncio.all_tasks() <= tasks, "a task goes on")
        if not cancelled:
            return tried
        tried.cancellations += 1
    raise AssertionError(f"{name} is suspended {most} times")


async def _learn(act: Act, folder: Path, durability: Any) -> list[State]:
    scene = await _prepared(act, folder, durability)
    scene.mark()
    await act.do(scene)
    await _turn_is_free(scene)
    scene.mark()
    await _closed(scene)
    return scene.marks


async def _prepared(act: Act, folder: Path, durability: Any) -> Scene:
    folder.mkdir()
    other: BlockingSession[Message] = BlockingSession(folder / "context.jsonl")
    other.open()
    session = Session(folder / "context.jsonl", durability=durability)
    await session.open()
    scene = Scene(folder, session, other)
    await session.append(user("old"))
    await session.checkpoint()
    await session.append(user("old"))
    act.prepare(scene)
    await session.refresh()
    return scene


async def _cancelled(act: Act, scene: Scene, when: int, delay: float | SlowCommits | None) -> bool:
    """Do it, cancelling it then; whether it came to that."""
    reached = 0
    loop = asyncio.get_running_loop()

    async def run() -> None:
        await act.do(scene)

    def strike(suspended: int) -> None:
        nonlocal reached
        reached = suspended
        if suspended == when:
            if delay is None:
                task.cancel()
            elif isinstance(delay, SlowCommits):
                delay.at_the_next(lambda: loop.call_soon_threadsafe(task.cancel))
            else:
                loop.call_later(delay, task.cancel)

    task = asyncio.ensure_future(acting_when_suspended(run(), strike))
    done, _ = await asyncio.wait([task], timeout=BOUND)
    assert done, "it hangs"
    if not task.cancelled():
        task.result()
    return reached >= when


async def _look(
    act: Act, scene: Scene, marks: list[State], tried: Tried, *, cancelled: bool
) -> None:
    session = scene.session
    if session._queue is None:  # it was the opening or the closing that was cancelled
        await session.open()
    assert_memory_is_file(session)
    await _turn_is_free(scene)
    now = scene.state()
    assert now in marks, f"neither happened nor not: {now}"
    # What follows may repeat a state, so what is looked for comes last.
    tried.outcomes.add(len(marks) - 1 - marks[::-1].index(now))
    if not cancelled:
        assert now == marks[-1]
    act.tidy(scene)
    assert (scene.other.holder, scene.other.interrupted) == (None, None)
    await session.refresh()
    count = len(session.history)
    await session.append(user("next"), timeout=BOUND)
    assert_memory_is_file(session)
    scene.other.append(user("and next"), timeout=BOUND)
    await session.refresh()
    assert len(session.history) == count + 2, "what was cancelled happens all the same, later"
    assert session.revision == scene.other.revision
    assert_memory_is_file(session)
    assert not [name for name in os.listdir(scene.folder) if name.endswith(".tmp")]


async def _turn_is_free(scene: Scene) -> None:
    other = scene.other
    await _soon(
        lambda: other.holder is None and not other._store.turns.held(), "the turn is not let go of"
    )


async def _closed(scene: Scene) -> None:
    await scene.session.close()
    scene.other.close()


async def _soon(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.001)


def with_mutant(name: str) -> list[str]:
    """What is found with a broken variant of the library."""
    import tempfile

    import mutants

    from .held import Other

    mutants.apply(name)
    turn_lock._COURTESY = 0.01
    commits = SlowCommits()
    moments = ((0.0, None), (0.0, 0.0005), (0.0, commits), (0.004, None), (0.004, 0.002))
    other = Other()
    try:
        for act in ACTS:
            for holds, delay in moments:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    work = cancel_everywhere(
                        act,
                        Path(folder),
                        durability="process" if holds else "power",
                        delay=delay,
                        held=partial(other.holding, seconds=holds),
                    )
                    try:
                        asyncio.run(asyncio.wait_for(work, BOUND))
                    except Exception as error:
                        return [f"{act}: {error!r}".splitlines()[0]]
    finally:
        other.end()
    return []
