"""One terminal in a storm: random operations, and what was said to each of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import select
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bad.soundness import fold
from cosession import (
    BlockingSession,
    Conflict,
    CosessionError,
    LockTimeout,
    Revision,
    Session,
    StorageError,
    TurnInterrupted,
    TurnOver,
    UnknownCheckpoint,
    UnknownRevision,
    UnknownRotation,
)
from cosession.files import rotations
from cosession.header import Identity

from . import delays

TAG = "storm"
PATIENCE = 60.0
"""Seconds after which a wait counts as endless: nobody is stopped for longer than a moment."""

_REFUSALS = (
    Conflict, LockTimeout, StorageError, UnknownCheckpoint, UnknownRotation, UnknownRevision,
    TurnInterrupted,
)  # fmt: skip

_write = os.write  # before anything is slowed down


class Terminal:
    """A process's session, and the pipe on which it tells what it does."""

    def __init__(self, path: Path, name: str, seed: str, orders: int, told: int) -> None:
        self.path = path
        self.name = name
        self.dice = random.Random(f"{seed}/{name}")
        self._orders, self._told = orders, told
        self._number = 0
        self._turn = ""
        """The piece of a turn that is on: what is written in it must stay together."""
        self._runner = asyncio.Runner()
        self._asynchronous = self.dice.random() < 0.5
        kind: Any = Session if self._asynchronous else BlockingSession
        self.session: Any = kind(path, create=False)

    def say(self, **event: Any) -> None:
        _write(self._told, json.dumps(event).encode() + b"\n")

    def wait(self, value: Any) -> Any:
        return self._runner.run(_awaited(value)) if hasattr(value, "__await__") else value

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        return self.wait(getattr(self.session, name)(*args, **options))

    # ---- a life -----------------------------------------------------------------------------

    def live(self) -> None:
        """Until told to stop; then report, and leave."""
        self.open()
        self.say(kind="ready")
        while not self._order(self.dice.choice([0, 0, 0.001, 0.003])):
            self._choose()()
            if self.dice.random() < 0.1:
                self.look_at_memory()
        self.say(kind="stopped")
        while not self._order(PATIENCE):
            pass
        self.call("refresh")
        self.look_at_memory()
        self.say(kind="report", digest=digest(self.session))
        self.call("close")
        self._runner.close()

    def _order(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._orders], [], [], seconds)
        if not ready:
            return b""
        order = os.read(self._orders, 1)
        if not order:
            os._exit(0)  # the weather is over
        return order

    def _choose(self) -> Callable[[], None]:
        acts: dict[Callable[[], None], int] = {
            self.append: 30, self.append_expecting: 15, self.batch: 4, self.checkpoint: 6,
            self.usage: 8, self.prompt: 3, self.revert: 4, self.clear: 1, self.compact: 3,
            self.restore: 2, self.fork: 1, self.turn: 8, self.refresh: 8, self.reopen: 2,
        }  # fmt: skip
        return self.dice.choices([*acts], [*acts.values()])[0]

    # ---- operations -------------------------------------------------------------------------

    def append(self) -> None:
        size = self.dice.choice([1, 1, 1, 2, 3, 12])
        self.do("append", size, lambda records: self._write("append", records))

    def append_expecting(self) -> None:
        """A stale writer is told, and one that isn't stale finds nothing in between."""
        if self.dice.random() < 0.7:
            self.refresh()
        expect, before = self.session.revision, len(self.session.history)
        size = self.dice.choice([1, 2])

        def act(records: list[Any]) -> Any:
            try:
                revision = self._write("append", records, expect=expect)
            except Conflict as conflict:
                if conflict.new_messages == 0:
                    self.problem("a conflict without a new message")
                raise
            history = self.session.history
            come = [message.model_dump(exclude_unset=True) for message in history[before:]]
            # A program without locks may have written in the very same moment.
            come = [message for message in come if TAG in message]
            if revision.generation != expect.generation or come != records:
                self.problem(f"expected {expect}, was written behind {len(come)} messages")
            return revision

        self.do("append", size, act)

    def batch(self) -> None:
        """Several at once, one of them cancelled; a blocking session writes one after the other."""
        if not self._asynchronous:
            return self.append()
        victim = self.dice.randrange(6)

        calls = [self._begin("batch", 1) for _ in range(4)]

        async def all_of_them() -> list[Any]:
            tasks = [
                asyncio.ensure_future(self.session.append(records, timeout=PATIENCE))
                for _, records in calls
            ]
            await asyncio.sleep(self.dice.choice([0, 0, 0.0005, 0.002]))
            if victim < len(tasks):
                tasks[victim].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        results = self._runner.run(all_of_them())
        for (operation, _), result in zip(calls, results, strict=True):
            self._settle(operation, result)
        return None

    def checkpoint(self) -> None:
        def act(records: list[Any]) -> Any:
            from cosession import Message

            def then(number: int) -> Any:
                return Message.model_validate(records[0] | {"content": f"behind {number}"})

            return self._write("checkpoint", then=then)

        self.do("checkpoint", 1, act)

    def usage(self) -> None:
        self.do("usage", 0, lambda _: self._write("record_usage", self.dice.randrange(9999)))

    def prompt(self) -> None:
        self.do("prompt", 0, lambda _: self._write("set_system_prompt", f"of {self.name}"))

    def revert(self) -> None:
        marks = self.session.checkpoints[-3:] or (0,)
        self.do("revert", 0, lambda _: self._write("revert_to", self.dice.choice(marks)))

    def clear(self) -> None:
        self.do("clear", 0, lambda _: self._write("clear"))

    def compact(self) -> None:
        expect = self.session.revision if self.dice.random() < 0.7 else None

        def fill(transaction: Any, records: list[Any]) -> None:
            transaction.clear()
            transaction.set_system_prompt(f"compacted by {self.name}")
            transaction.checkpoint()
            transaction.append(records)
            transaction.record_usage(1)

        async def asynchronously(records: list[Any]) -> None:
            async with self.session.transaction(timeout=PATIENCE, expect=expect) as transaction:
                fill(transaction, records)

        def act(records: list[Any]) -> Any:
            if self._asynchronous:
                return self._runner.run(asynchronously(records))
            with self.session.transaction(timeout=PATIENCE, expect=expect) as transaction:
                return fill(transaction, records)

        self.do("compact", 2, act)

    def restore(self) -> None:
        known = [number for number, _ in rotations(str(self.path))][-3:] or [1]
        self.do("restore", 0, lambda _: self._write("restore", self.dice.choice(known)))

    def fork(self) -> None:
        self.do("fork", 0, lambda _: self.call("fork"))

    def refresh(self) -> None:
        with suppress(StorageError):  # a line that must be ended, on a full disk
            self.call("refresh")

    def reopen(self) -> None:
        self.call("close")
        self.open()

    def open(self) -> None:
        """As soon as there is room for what may have to be healed."""
        while True:
            try:
                self.call("open")
                return
            except StorageError:
                time.sleep(0.005)

    def _write(self, name: str, *args: Any, **options: Any) -> Any:
        """With patience for everybody, or with none, or for an instant."""
        timeout = PATIENCE if self._turn else self.dice.choice([PATIENCE] * 8 + [0, 0.003])
        try:
            return self.call(name, *args, timeout=timeout, **options)
        except LockTimeout as error:
            if timeout == PATIENCE:
                self.problem(f"{name} waited {error.waited:.0f} s for {error.holder}")
            raise

    # ---- turns ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Some records that must stay together, also over a death of somebody else."""
        self._number += 1
        label = f"{self.name}.turn{self._number}"
        piece = 0
        manager = self.session.turn(label, timeout=self.dice.choice([PATIENCE, 0.05]))
        try:
            turn = self._enter(manager)
        except CosessionError as error:
            self._not_done(error)
            return
        try:
            for _ in range(self.dice.randrange(1, 5)):
                self._turn = f"{label}.{piece}"
                self.append()
                if turn.requested is not None and self.dice.random() < 0.5:
                    self._turn, piece = "", piece + 1
                    self.wait(turn.hand_over(timeout=PATIENCE))
        except CosessionError as error:
            self._not_done(error)
        finally:
            self._turn = ""
            with suppress(StorageError):  # its end could not be noted: others find it interrupted
                self._leave(manager)

    def _enter(self, manager: Any) -> Any:
        return self.wait(manager.__aenter__() if self._asynchronous else manager.__enter__())

    def _leave(self, manager: Any) -> None:
        leave = manager.__aexit__ if self._asynchronous else manager.__exit__
        self.wait(leave(None, None, None))

    def settle_turn(self) -> None:
        """Somebody died in a turn: keep what it wrote, or roll it back."""
        found = self.session.interrupted
        if found is None:
            return
        with suppress(Conflict, TurnOver, StorageError, UnknownRevision, TurnInterrupted):
            if self.dice.random() < 0.6:
                self.wait(found.keep(timeout=PATIENCE))
            else:
                self.wait(found.roll_back(timeout=PATIENCE))

    # ---- what is said -----------------------------------------------------------------------

    def do(self, kind: str, count: int, act: Callable[[list[Any]], Any]) -> None:
        operation, records = self._begin(kind, count)
        try:
            result = act(records)
        except Exception as error:
            result = error
        self._settle(operation, result)

    def _begin(self, kind: str, count: int) -> tuple[str, list[Any]]:
        self._number += 1
        operation = f"{self.name}.{self._number}"
        records = [self._record(operation, part, count) for part in range(count)]
        self.say(kind="begin", op=operation, what=kind, count=count, turn=self._turn)
        return operation, records

    def _record(self, operation: str, part: int, count: int) -> dict[str, Any]:
        padding = "x" * self.dice.choice([0, 0, 0, 0, 0, 30, 300, 60_000])
        tag = {"op": operation, "part": part, "of": count, "turn": self._turn}
        return {"role": "user", "content": padding, TAG: tag}

    def _settle(self, operation: str, result: object) -> None:
        if isinstance(result, asyncio.CancelledError):
            return  # it happened or not: nobody was told
        if isinstance(result, Exception):
            self.say(kind="refused", op=operation, why=type(result).__name__)
            self._not_done(result)
            return
        self.say(kind="done", op=operation, revision=str(result) if _is_revision(result) else "")

    def _not_done(self, error: Exception) -> None:
        if not isinstance(error, (*_REFUSALS, TurnOver)):
            said = "".join(traceback.format_exception(error))
            self.problem(f"an error that is no refusal: {error!r}\n{said}")
        self.look_at_memory()
        if isinstance(error, TurnInterrupted):
            self.settle_turn()

    def problem(self, text: str) -> None:
        self.say(kind="problem", text=text)

    def look_at_memory(self) -> None:
        """Memory is the fold of the file up to its revision, if this is still that file."""
        view = self.session._store.view
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if Identity.of(status.st_dev, status.st_ino) != view.identity or not view.generation:
                return
            data = file.read(view.state.position)
            if self.session._store.view is not view:
                return  # a commit of another task
            folded = fold(data)
            history = [m.model_dump(exclude_unset=True) for m in self.session.history]
            if len(data) != view.state.position or history != folded.messages:
                self.problem(f"memory is not the file's fold at {self.session.revision}")


async def _awaited(value: Any) -> Any:
    return await value


def _is_revision(value: object) -> bool:
    return isinstance(value, Revision)


def digest(session: Any) -> str:
    """A fingerprint of everything that a session holds."""
    return digest_of(
        [message.model_dump(exclude_unset=True) for message in session.history],
        session.system_prompt,
        session.token_count,
        list(session.checkpoints),
    )


def digest_of(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def main(path: Path, name: str, seed: str, orders: int, told: int) -> None:
    """Run in a process that was just forked; never returns."""
    status = 1
    try:
        logging.getLogger("cosession").addHandler(logging.NullHandler())
        terminal = Terminal(path, name, seed, orders, told)
        delays.install(random.Random(f"{seed}/{name}/delays"), chance=0.03, longest=0.004)
        terminal.live()
        status = 0
    except BaseException as error:
        with suppress(OSError):
            terminal.problem(f"it died: {error!r}\n{traceback.format_exc()}")
    finally:
        os._exit(status)
