"""The blocking session: the same operations for threads and plain scripts.

1. A call commits on its own thread if the lock is free: no hop, no waiting thread.
2. If another process has the lock, the queue's daemon thread waits for it, and the caller waits
   for that thread: with a bound, and with Ctrl-C working at once.
3. Ctrl-C in the middle of a commit undoes it or leaves it whole, and the lock is free afterwards.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ._base import (
    Durability,
    DuringTurn,
    OnConflict,
    SessionBase,
    as_path,
    rotated_path,
    system_prompt,
)
from .batch import Request
from .commits import CommitQueue, tries_once
from .edits import Clear, RevertTo
from .errors import Conflict, SessionClosed, TurnHeld, TurnOver
from .files import translated
from .interrupts import insist
from .operation import Operation
from .records import Fork, Holder, Outcome, Revision, TurnStatus
from .transaction import Transaction
from .turn import BlockingInterruptedTurn, BlockingTurn
from .turn_lock import Ticket, TurnLock
from .values import replace

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from pydantic import TypeAdapter

    from .changes import Change
    from .messages import Message

T = TypeVar("T")

_SLICE = 0.1
"""Seconds that Ctrl-C may take on Windows."""


class BlockingSession(SessionBase[T], Generic[T]):
    """A session file that other processes may be using too, for threads and plain scripts.

        with BlockingSession("context.jsonl") as session:
            session.append({"role": "user", "content": "hi"})

    The calls are those of `Session`, with the same arguments and errors; its documentation says
    what happens on a crash and when other processes act. An object may be used by several threads
    at once.

    **Ctrl-C.** An interrupted call has happened whole or not at all; the session can be used
    again, and nobody is left waiting for its lock.
    """

    @overload
    def __init__(
        self: BlockingSession[Message],
        path: str | os.PathLike[str],
        *,
        durability: Durability = ...,
        create: bool = ...,
        read_only: bool = ...,
        lock_dir: str | os.PathLike[str] | None = ...,
        during_turn: DuringTurn = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        message_type: type[T] | TypeAdapter[T],
        durability: Durability = ...,
        create: bool = ...,
        read_only: bool = ...,
        lock_dir: str | os.PathLike[str] | None = ...,
        during_turn: DuringTurn = ...,
    ) -> None: ...
    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(path, **options)
        self._turn_owner: int | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open or create the file, heal what a dead process left, and fold it."""
        self._open()

    def close(self) -> None:
        """Let go of the file. Calls of other threads that still wait raise `SessionClosed`."""
        queue = self._queue
        if queue is not None:
            queue.close()
            self._forget_queue(queue)

    # ---- changing the session ---------------------------------------------------------------

    @overload
    def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = ...,
        expect: Revision | None = ...,
        on_conflict: Literal["raise", "rebase"] = ...,
    ) -> Revision: ...
    @overload
    def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = ...,
        expect: Revision | None = ...,
        on_conflict: OnConflict,
    ) -> Revision | Fork: ...
    def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        expect: Revision | None = None,
        on_conflict: OnConflict = "raise",
    ) -> Revision | Fork:
        """Append one message, or a list of them: all or none, and nothing in between."""
        add = self._add(messages)
        if expect is None and on_conflict == "raise" and not self._turn:
            if timeout is not None:
                tries_once(timeout)
            if (revision := self._open_queue().append_now(add.lines)) is not None:
                return revision
        request = self._request("append", self._expectation(expect, on_conflict), add)
        try:
            return self._perform(request, timeout).revision
        except Conflict as conflict:
            if on_conflict != "fork":
                raise
            left = conflict.yours
        return self._fork_now(None, left, add.lines)

    def checkpoint(
        self,
        *,
        then: Callable[[int], T] | None = None,
        timeout: float | None = None,
        expect: Revision | None = None,
    ) -> int:
        """Set a mark to revert to, and return its number."""
        request = self._request("checkpoint", expect, self._add_checkpoint(then))
        return self._perform(request, timeout).checkpoints[0]

    def record_usage(
        self, token_count: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Revision:
        """Record how many tokens the history takes."""
        request = self._usage_request(token_count, expect)
        return self._perform(request, timeout).revision

    def set_system_prompt(
        self, text: str, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path | None:
        """Make this the first record of the file; where the old file was kept."""
        request = self._request("set system prompt", expect, system_prompt(text))
        return rotated_path(self._perform(request, timeout))

    def revert_to(
        self, checkpoint: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path:
        """Drop the checkpoint and everything behind it; where the old file was kept."""
        request = self._request("revert", expect, RevertTo(checkpoint))
        rotated = rotated_path(self._perform(request, timeout))
        assert rotated is not None
        return rotated

    def clear(self, *, timeout: float | None = None, expect: Revision | None = None) -> Path | None:
        """Drop everything; where the old file was kept, if there was anything in it."""
        return rotated_path(self._perform(self._request("clear", expect, Clear()), timeout))

    def restore(
        self, number: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path:
        """Bring a rotated file back; where the file was kept that was there before."""
        request = self._request("restore", expect, self._restoring(number))
        rotated = rotated_path(self._perform(request, timeout))
        assert rotated is not None
        return rotated

    def fork(
        self, path: str | os.PathLike[str] | None = None, *, at: int | Revision | None = None
    ) -> Fork:
        """Make a new session of this one's beginning. Waits for nobody, changes nothing here."""
        self._open_queue()
        return self._fork_now(path, at)

    @contextmanager
    def transaction(
        self, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Iterator[Transaction[T]]:
        """Collect changes, and make them in one atomic operation when the block ends."""
        transaction = Transaction(self)
        yield transaction
        request = self._request("transaction", expect, *transaction._steps)
        transaction._outcome = self._perform(request, timeout)

    # ---- turns ------------------------------------------------------------------------------

    @contextmanager
    def turn(
        self,
        label: str = "",
        *,
        timeout: float | None = None,
        expect: Revision | None = None,
        on_conflict: OnConflict = "raise",
    ) -> Iterator[BlockingTurn[T]]:
        """Have the session to oneself, from the first to the last record of the block.

        Everything that this object writes meanwhile, on any thread, is part of the turn.
        """
        turn = BlockingTurn(self, label, self._expectation(expect, on_conflict))
        if self._turn_owner == threading.get_ident():
            raise TurnOver(f"{self.path}: this thread has the turn already")
        left: Revision | None = None
        try:
            self._begin_turn(turn, timeout)
        except Conflict as conflict:
            if on_conflict != "fork":
                raise
            left = conflict.yours
        if left is not None:
            fork = self.fork(at=left)
            with self._on(fork) as session, session.turn(label) as turn:
                turn.fork = fork
                yield turn
            return
        self._turn_owner = threading.get_ident()
        try:
            yield turn
        finally:
            self._turn_owner = None
            self._end_turn(turn)

    @property
    def interrupted(self) -> BlockingInterruptedTurn[T] | None:
        """A turn whose process died, for `keep()` or `roll_back()`; `None` if there is none."""
        card = self._interrupted_card()
        return None if card is None else BlockingInterruptedTurn(self, card)

    def request_turn(self, label: str = "") -> Holder | None:
        """Ask whoever has the turn to hand it over; whom that is, or `None` if nobody has it."""
        return self._ask_for_turn(label)

    def turn_status(self) -> TurnStatus | None:
        """The turn that is on: whose it is, how far it is, who waits; `None` if there is none."""
        self.refresh()
        return self._turn_status()

    def _begin_turn(
        self,
        turn: BlockingTurn[T],
        timeout: float | None,
        *,
        behind: Callable[[], bool] | None = None,
    ) -> None:
        lock = self._turn_lock(turn._label or "a turn", timeout, behind=behind)
        try:
            outcome = self._commit(turn._begin_request(lock), timeout)
        except BaseException:
            # Ctrl-C right behind the commit: it may have begun, and then ends at once.
            turn._lock = lock
            if turn._token:
                self._end_turn(turn)
            lock.close()
            raise
        turn._has_begun(lock, outcome)

    def _end_turn(self, turn: BlockingTurn[T]) -> None:
        try:
            if turn._token and turn._pid in (0, os.getpid()):
                self._commit(turn._end_request(), None)
        finally:
            turn._is_over()

    def _settle_turn(self, request: Request, timeout: float | None) -> Outcome:
        lock = self._turn_lock(request.name, timeout)
        try:
            return self._commit(request, timeout)
        finally:
            lock.close()

    def _turn_lock(
        self, label: str, timeout: float | None, *, behind: Callable[[], bool] | None = None
    ) -> TurnLock:
        """Wait for the turn's lock."""
        began = time.monotonic()
        ticket = Ticket(self._store.turns.handle(), label)
        try:
            with translated(self._store.turns.path, "take the turn"):
                if behind is None and ticket.try_now():
                    return ticket.lock
            if tries_once(timeout):
                raise self._turn_held()
            came = threading.Event()
            ticket.wait(came.set, behind=behind)
            if not came.wait(timeout):
                raise self._turn_timeout(time.monotonic() - began)
            ticket.require_lock()
        except BaseException:
            ticket.give_up()
            raise
        return ticket.lock

    # ---- reading ----------------------------------------------------------------------------

    def refresh(self) -> Revision:
        """Fold in what other processes wrote. Waits for nobody; heals if that is needed and free.

        Returns:
            Where the session stands now.
        """
        queue = self._open_queue()
        if not queue.look() and not self._store.read_only:
            queue.try_settle()
        return self.revision

    def follow(self, *, timeout: float | None = None) -> Generator[Change, None, None]:
        """Be told what anybody does to the session, from its present state on, as it happens.

            for change in session.follow():
                match change:
                    case Appended(records): ...

        What is told, and when, is as in `Session.follow`. Ctrl-C ends it at once; closing the
        session, on another thread, by `SessionClosed`.

        Args:
            timeout: Seconds after which it ends if nothing comes; `None` goes on, 0 tells what
                there is.
        """
        from .follow import follow_blocking

        self._open_queue()
        return follow_blocking(self, timeout)

    def export(self, target: str | os.PathLike[str]) -> Path:
        """Copy the session, with what others wrote, into a new private file. Waits for nobody."""
        from . import transfer

        return as_path(transfer.export_blocking(self._store, target))

    # ---- the way through the queue ----------------------------------------------------------

    def _open_queue(self) -> CommitQueue:
        if self._queue is None:
            raise SessionClosed(f"{self.path}: the session is not open")
        return self._queue

    def _perform(self, request: Request, timeout: float | None) -> Outcome:
        """Commit a request, behind the turn of another terminal if one is on."""
        try:
            return self._commit(request, timeout)
        except TurnHeld as held:
            if self._during_turn == "raise" or tries_once(timeout):
                raise self._refusal(held) from None
        lock = self._turn_lock(request.name, timeout)
        try:
            return self._commit(replace(request, alone=True), timeout)
        finally:
            lock.close()

    def _commit(self, request: Request, timeout: float | None) -> Outcome:
        queue = self._open_queue()
        operation = Operation(request, once=tries_once(timeout))
        try:
            queue.add(operation)
            queue.try_pass()
            for pause in queue.short_pauses(operation, timeout):
                time.sleep(pause)
                queue.try_pass()
            if not operation.settled:
                self._wait(queue, operation, timeout)
        except BaseException:
            # Ctrl-C. What waits is withdrawn; what is being committed is settled in a moment.
            if not insist(lambda: queue.withdraw(operation)) and not operation.settled:
                self._wait(queue, operation, None)
            raise
        return operation.outcome()

    def _wait(self, queue: CommitQueue, operation: Operation, timeout: float | None) -> None:
        # A bare lock: Ctrl-C in the middle of an `Event` may leave that unusable.
        settled = threading.Lock()
        settled.acquire()

        def settle() -> None:
            with suppress(RuntimeError):  # told a second time
                settled.release()

        queue.call_when_settled(operation, settle)
        queue.start_pass()
        if _acquired(settled, queue.patience(timeout)):
            return
        if queue.withdraw(operation):
            raise queue.timeout(operation)
        _acquired(settled, None)


def _acquired(lock: threading.Lock, patience: float | None) -> bool:
    """Wait for a lock, in slices: Windows lets Ctrl-C through only between two waits."""
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        left = _SLICE if deadline is None else deadline - time.monotonic()
        if lock.acquire(timeout=max(0.0, min(left, _SLICE))):
            return True
        if left <= 0:
            return False
