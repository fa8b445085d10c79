"""Every call of every operation fails, once or from then on, with every error: what that did.

1. An act is done by one session while a bystander has the same file open. Undisturbed, it tells
   which calls it makes and what the file holds before and after it.
2. Then it is done once for each call, error and way of failing, each time in a folder of its own.
3. Afterwards everything is compared: what was raised, memory, what a reader sees, whether others
   and the session itself can go on, descriptors, and the names in the folder.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bad import mutants
from bad.faults import EVERY_CALL, watched
from bad.operations import OPERATIONS, SEED, Blocking, message, seeded
from bad.soundness import assert_memory_is_file, fold, leftovers, open_descriptors
from cosession import (
    BlockingSession,
    CosessionError,
    NotWritable,
    SessionMissing,
    StorageError,
    StorageFull,
    SyncFailed,
    TurnInterrupted,
    Unsettled,
)

OLD = b'{"role": "user", "content": "from an older file"}\n'
"""The content of a rotated file."""

ERRORS: dict[int, type[StorageError]] = {
    errno.EIO: StorageError,
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EINTR: StorageError,
    errno.EACCES: NotWritable,
    errno.EMFILE: StorageError,
    errno.ENFILE: StorageError,
    errno.EROFS: NotWritable,
}
"""What a system call fails with, and what of ours that becomes."""

UNSURE = ("could not undo", "leftovers of a failed replace stay")
"""What is logged when a failure could not be undone: then whole or nothing is all there is."""


class Scene:
    """A session in a folder of its own, and a bystander who has it open, too."""

    def __init__(self, folder: Path, durability: str) -> None:
        folder.mkdir()
        self.path = seeded(folder / "context.jsonl")
        folder.joinpath("context_1.jsonl").write_bytes(OLD)
        self.bystander = BlockingSession(self.path)
        self.bystander.open()
        self.session: Blocking = BlockingSession(self.path, durability=durability)  # type: ignore[call-overload]
        self.kept: Any = None
        """What an act needs from its preparation."""

    def close(self) -> None:
        self.session.close()
        self.bystander.close()

    def contents(self) -> list[Any]:
        """What somebody sees who takes no lock and heals nothing."""
        with BlockingSession(self.path, read_only=True) as reader:
            assert_memory_is_file(reader)
            return [message.content for message in reader.history]


@dataclass(frozen=True, slots=True)
class Act:
    do: Callable[[Scene], object]
    prepare: Callable[[Scene], object] = lambda scene: None
    opened: bool = True
    """Whether the session is opened before."""
    steps: int = 1
    """How many operations that are whole or absent it is made of."""


def _hold_turn(scene: Scene) -> None:
    scene.kept = scene.session.turn("held")
    scene.kept.__enter__()
    scene.session.append(message("in the turn"))


def _begin_turn(scene: Scene) -> None:
    turn = scene.session.turn("begun")
    turn.__enter__()
    scene.kept = turn


def _end_turn(scene: Scene) -> None:
    kept, scene.kept = scene.kept, None
    kept.__exit__(None, None, None)


def _register(scene: Scene) -> None:
    with scene.session.present("here"):
        scene.bystander.terminals()


def _leave_half(scene: Scene) -> None:
    """Be a process that dies in the middle of an append."""
    written, real = list[str](), os.write
    with BlockingSession(scene.path) as other, watched(EVERY_CALL) as faults:

        def before(name: str, number: int) -> None:
            if written:
                raise OSError(errno.EIO, "the end")

        def write(fd: int, data: bytes) -> int:
            written.append("half")
            return real(fd, bytes(data)[:45])

        faults.replaced["write"] = write
        faults.before = before
        try:
            other.append([message(f"half {number}") for number in range(3)])
        except CosessionError:
            pass
        faults.before = lambda name, number: None
    assert scene.path.read_bytes() != SEED


def _append_foreign(scene: Scene, data: bytes = b'{"role": "user", "content": "fore') -> None:
    with scene.path.open("ab") as file:
        file.write(data)
    os.utime(scene.path, (1, 1))


def _replace_elsewhere(scene: Scene) -> None:
    scene.bystander.revert_to(1)
    scene.bystander.append(message("elsewhere"))


def _delete_lock(scene: Scene) -> None:
    os.unlink(f"{scene.path}.lock")


def _operation(name: str) -> Callable[[Scene], object]:
    return lambda scene: OPERATIONS[name](scene.session)


def _append(scene: Scene) -> None:
    scene.session.append(message("new 1"))


ACTS: dict[str, Act] = {
    **{name: Act(_operation(name)) for name in OPERATIONS},
    "append many": Act(lambda s: s.session.append([message(f"{n}" * 9) for n in range(600)])),
    "restore": Act(lambda scene: scene.session.restore(1)),
    "fork": Act(lambda scene: scene.session.fork()),
    "export": Act(lambda scene: scene.session.export(scene.path.with_name("copy.jsonl"))),
    "turn begins": Act(_begin_turn),
    "turn ends": Act(_end_turn, _hold_turn),
    "append in a turn": Act(_append, _hold_turn),
    "clear in a turn": Act(lambda scene: scene.session.clear(), _hold_turn),
    "refresh": Act(lambda scene: scene.session.refresh()),
    "refresh behind a replace": Act(lambda scene: scene.session.refresh(), _replace_elsewhere),
    "refresh heals": Act(lambda scene: scene.session.refresh(), _leave_half),
    "append behind a replace": Act(_append, _replace_elsewhere),
    "append behind half an append": Act(_append, _leave_half),
    "append behind an open line": Act(_append, _append_foreign),
    "append without a lock file": Act(_append, _delete_lock),
    "open": Act(lambda scene: scene.session.open(), opened=False),
    "open heals": Act(lambda scene: scene.session.open(), _leave_half, opened=False),
    "open without a lock file": Act(lambda scene: scene.session.open(), _delete_lock, opened=False),
    "be present": Act(_register),
    "close": Act(lambda scene: scene.session.close()),
}

TOUCHES_NOTHING = ("refresh", "refresh behind a replace", "be present", "close", "export", "fork")
"""What a failure of which may go unnoticed, since nobody depends on it, or it reads only."""


@dataclass
class Tried:
    faults: int = 0
    refused: int = 0
    unsure: int = 0
    calls: set[str] = field(default_factory=set)


class Course:
    """All the faults of one act."""

    def __init__(self, root: Path, name: str, durability: str) -> None:
        gc.collect()  # what an earlier test has left open would be closed while they are counted
        self.root, self.name, self.durability = root, name, durability
        self.act = ACTS[name]
        self.tried = Tried()
        scene = self.scene()
        self.before = scene.contents()
        with watched(EVERY_CALL) as faults:
            self.act.do(scene)
        self.calls = tuple(faults.made)
        self.after = scene.contents()
        _let_go(scene)
        scene.close()

    def scene(self) -> Scene:
        scene = Scene(self.root / f"{self.tried.faults}", self.durability)
        if self.act.opened:
            scene.session.open()
        self.act.prepare(scene)
        return scene

    def run(self, faults: Callable[[int], Iterable[tuple[int, bool]]]) -> Tried:
        """Fail at each call; `faults` says with which errors, and whether for good."""
        for number, call in enumerate(self.calls):
            for error, lasting in faults(number):
                try:
                    self.fail(number, error, lasting=lasting)
                except BaseException as failure:
                    how = "and all calls behind it" if lasting else "alone"
                    failure.add_note(f"{call}, call {number}, {how}: {os.strerror(error)}")
                    raise
        return self.tried

    def fail(self, number: int, error: int, *, lasting: bool) -> None:
        self.tried.faults += 1
        self.tried.calls.add(self.calls[number])
        descriptors = open_descriptors()
        scene = self.scene()
        raised: CosessionError | None = None
        with watched(EVERY_CALL) as faults, heard() as log:

            def before(name: str, _: int) -> None:
                at = len(faults.made) - 1
                if at == number or (lasting and at > number):
                    raise OSError(error, os.strerror(error))

            faults.before = before
            try:
                self.act.do(scene)
            except CosessionError as caught:
                raised = caught
            faults.before = lambda name, number: None
        unsure = any(sign in line for line in log for sign in UNSURE)
        self.tried.refused += raised is not None
        self.tried.unsure += unsure
        self.examine(scene, raised, error, unsure=unsure or lasting)
        scene.close()
        assert open_descriptors() == descriptors, "a descriptor is lost"

    def examine(
        self, scene: Scene, raised: CosessionError | None, error: int, *, unsure: bool
    ) -> None:
        if raised is not None:
            assert_typed(raised, error, scene)
        scene.bystander.refresh()
        if scene.session._store.generation == scene.bystander.revision.generation:
            assert_memory_is_file(scene.session)
        unsure = unsure or isinstance(raised, SyncFailed | Unsettled)
        if unsure or self.name in TOUCHES_NOTHING:
            outcomes = [self.before, self.after]
        else:
            outcomes = [self.before] if raised is not None else [self.after]
        seen = scene.contents()
        assert seen in (self.before, self.after), f"half an operation is seen: {seen}"
        for fork in scene.path.parent.glob("context.fork-*"):
            assert fork.read_bytes().startswith(SEED), "half a fork has its name"
            assert raised is None or unsure, "a fork was refused, and is there"

        _let_go(scene)
        go_on(scene.bystander, "the bystander")
        if raised is not None and isinstance(raised, SyncFailed):
            try:
                scene.session.append(message("refused"))
            except SyncFailed:
                scene.session.close()
            else:
                raise AssertionError("a session goes on after a sync has failed")
        if scene.session._queue is None:
            scene.session.open()
        go_on(scene.session, "the session")
        scene.session.close()
        scene.session.open()  # which removes what could not be removed then
        assert_sound_but_for_copies(scene.session)
        contents = fold(scene.path.read_bytes()).contents
        assert contents in [[*outcome, "the bystander", "the session"] for outcome in outcomes], (
            f"{contents} is none of {outcomes}, with {raised!r}"
        )
        scene.bystander.refresh()
        assert list(scene.bystander.history) == list(scene.session.history)


def assert_typed(raised: CosessionError, error: int, scene: Scene) -> None:
    """It is an error of ours that says where, from what, and as what the caller can handle it."""
    assert isinstance(raised, StorageError | SessionMissing), repr(raised)
    assert raised.__cause__ is not None, repr(raised)
    assert str(scene.path.parent) in str(raised)
    if isinstance(raised, StorageError) and not isinstance(raised, SyncFailed | Unsettled):
        expected = ERRORS[error] if raised.errno == error else StorageError
        assert isinstance(raised, expected), repr(raised)


def assert_sound_but_for_copies(session: Blocking) -> None:
    """Nothing is left over beside forks, exports and the lists of terminals."""
    assert_memory_is_file(session)
    assert session.revision.position == session.path.stat().st_size
    assert session.path.stat().st_nlink == 1, "the file has a second name"
    # What a fork left that could not be undone is removed by whoever opens a session of its name.
    meant = re.compile(r"context.fork-1.jsonl|.*\.(turn|queue|terminals)|\.context.fork-1.*tmp")
    left = [name for name in leftovers(session.path) if not meant.fullmatch(name)]
    assert not left, f"left over: {left}"


def go_on(session: Blocking, text: str) -> None:
    """Append at once, behind an interrupted turn that has to be settled first."""
    try:
        session.append(message(text), timeout=10)
    except TurnInterrupted:
        interrupted = session.interrupted
        assert interrupted is not None
        interrupted.keep(timeout=10)
        session.append(message(text), timeout=10)


def _let_go(scene: Scene) -> None:
    """End the turn that an act has left open."""
    kept, scene.kept = scene.kept, None
    if kept is not None:
        try:
            kept.__exit__(None, None, None)
        except SyncFailed:
            pass  # it refuses everything, until it is opened anew


@contextmanager
def heard() -> Iterator[list[str]]:
    """What the library logs inside the block."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, log = Handler(), logging.getLogger("cosession")
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)


mutants.plant()
