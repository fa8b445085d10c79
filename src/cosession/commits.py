"""The queue in front of a store: who waits, who commits, and what a wait can end in.

1. An operation waits in the queue until a *pass* takes it. A pass waits for the session's lock,
   takes everything that waits at that moment, commits it in one go, unlocks, and settles each.
   So what piles up behind a busy lock or a slow disk goes out as one batch.
2. While it waits, an operation can be withdrawn, by a timeout or a cancellation: it then has not
   happened. Once it is taken it can't, and is settled soon: nothing waits for others any more.
3. A pass runs on the caller's thread if the lock is free (`try_pass`), else on one daemon thread,
   which may sleep in the kernel for as long as another process pleases without keeping the
   interpreter from exiting. If nobody wants the lock any more when it comes, it is handed back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from math import isnan

from . import _fork, _platform
from .errors import CosessionError, LockTimeout, SessionClosed
from .files import translated
from .records import Outcome
from .store import Request, Result, Store

_TIME_TO_WAKE = 0.02
"""Seconds."""

_QUICK, _CAUTION = 0.005, 1.0
"""Seconds: a commit on an event loop's thread that took longer than the first (a network folder, a
disk that is busy writing back) sends everything to the commit thread for the second.
"""


def tries_once(timeout: float | None) -> bool:
    """Whether somebody with that much patience is refused if the lock isn't free at once.

    Raises:
        ValueError: It is not a number.
        TypeError: It is nothing like one.
    """
    if timeout is not None and isnan(timeout):  # it would never be over
        raise ValueError("timeout must be a number of seconds, or None")
    return timeout is not None and timeout <= 0


class Operation:
    """One request on its way through the queue."""

    __slots__ = ("_on_settled", "_result", "once", "request", "since", "withdrawn")

    def __init__(self, request: Request, *, once: bool) -> None:
        self.request = request
        self.once = once
        """Give up if the lock isn't free at the first try."""
        self.since = time.monotonic()
        self.withdrawn = False
        self._result: Result | None = None
        self._on_settled: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        return self._result is not None

    def outcome(self) -> Outcome:
        """What it did.

        Raises:
            CosessionError: Why it did not happen.
            Exception: What a callback of it raised.
        """
        assert self._result is not None
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class CommitQueue:
    """The operations of one store, from any number of threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._guard = threading.Lock()
        self._work = threading.Condition(self._guard)
        self._waiting: deque[Operation] = deque()
        self._passing = threading.Lock()
        """Held by the thread that runs a pass."""
        self._thread: threading.Thread | None = None
        self._asleep = False
        """Whether the thread's pass is waiting for another process."""
        self._closed = False
        self._slow_until = 0.0
        """When the last slow commit on an event loop's thread is forgotten."""
        _fork.watch(self)

    def add(self, request: Request, *, once: bool = False) -> Operation:
        """Queue a request.

        Raises:
            SessionClosed: The queue is closed.
        """
        operation = Operation(request, once=once)
        with self._guard:
            if self._closed:
                raise SessionClosed(f"{self.store.path}: the session is closed")
            self._waiting.append(operation)
        return operation

    def withdraw(self, operation: Operation) -> bool:
        """Take back what still waits; False if it is being committed, or settled already."""
        with self._guard:
            if operation in self._waiting:
                self._waiting.remove(operation)
                operation.withdrawn = True
            return operation.withdrawn

    def call_when_settled(self, operation: Operation, callback: Callable[[], None]) -> None:
        """Call back on the settling thread, or here and now if it is settled."""
        with self._guard:
            if not operation.settled:
                operation._on_settled = callback
                return
        callback()

    def patience(self, timeout: float | None) -> float | None:
        """How long to wait at the most for an operation with that timeout; `None` for ever.

        One that tries once is refused by the pass that finds the lock taken. If the pass is
        asleep already, the lock may have come free this instant: it gets time to wake up.
        """
        if timeout is None or timeout > 0:
            return timeout
        return _TIME_TO_WAKE if self._asleep else None

    def timeout(self, operation: Operation) -> LockTimeout:
        """The error for an operation that was withdrawn because its time was over."""
        waited = time.monotonic() - operation.since
        return LockTimeout(self.store.path, waited, self.store.lock.holder())

    # ---- passes -----------------------------------------------------------------------------

    def try_pass(self) -> bool:
        """Commit what waits on this thread, if neither another thread nor process is at it."""
        if not self._passing.acquire(blocking=False):
            return False
        try:
            return self._settle_errors(self._pass_now)
        finally:
            self._passing.release()

    def try_quick_pass(self) -> bool:
        """`try_pass`, if it takes no longer than a few short system calls: for an event loop."""
        if not _platform.KEEPS_FILES_OPEN:
            return False  # opening a file may have to wait for whoever has it open
        if time.monotonic() < self._slow_until or not self._passing.acquire(blocking=False):
            return False
        try:
            began = time.monotonic()
            done = self._pass_quickly()
            if time.monotonic() - began > _QUICK:
                self._slow_until = began + _CAUTION
            return done
        finally:
            self._passing.release()

    def _pass_quickly(self) -> bool:
        try:
            if not self.store.lock.try_acquire():
                return False
        except (CosessionError, OSError):
            return False  # a thread will find out again, and say so
        return self._commit(quickly=True)

    def try_settle(self) -> bool:
        """Heal and fold in everything, if neither another thread nor process is at it."""
        if not self._passing.acquire(blocking=False):
            return False
        try:
            with translated(self.store.lock.path, "take the lock"):
                if not self.store.lock.try_acquire():
                    return False
            try:
                self.store.settle()
            finally:
                self.store.lock.release()
            return True
        finally:
            self._passing.release()

    def start_pass(self) -> None:
        """See to it that the thread runs a pass as long as something waits."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="cosession-commit", daemon=True
                )
                self._thread.start()
            self._work.notify()

    def _pass_now(self) -> bool:
        with translated(self.store.lock.path, "take the lock"):
            if not self.store.lock.try_acquire():
                return False
        self._commit()
        return True

    def _pass_when_free(self) -> bool:
        if self._pass_now():
            return True
        with self._guard:
            self._asleep = True
            self._refuse_once()
        try:
            with translated(self.store.lock.path, "wait for the lock"):
                if not self.store.lock.acquire(wanted=lambda: bool(self._waiting)):
                    return False
        finally:
            self._asleep = False
        self._commit()
        return True

    def _commit(self, *, quickly: bool = False) -> bool:
        """Take what waits and commit it. The lock is held, and is released at the end.

        False if it could not be done quickly; then it waits again.
        """
        taken: list[Operation] = []
        results: list[Result] | None = []
        try:
            with self._guard:
                taken.extend(self._waiting)
                self._waiting.clear()
            if taken:
                commit = self.store.commit_quickly if quickly else self.store.commit
                results = commit([operation.request for operation in taken])
            if results is None:
                with self._guard:
                    self._waiting.extendleft(reversed(taken))
            self.store.lock.release()
        except BaseException as error:
            # Ctrl-C, or a defect of ours: the store has dropped what it can't be sure of.
            self.store.forget()
            reason = CosessionError(f"{self.store.path}: interrupted: {error!r}")
            self._settle(taken, [reason] * len(taken))
            raise
        if results is not None:
            self._settle(taken, results)
        return results is not None

    def _settle(self, operations: list[Operation], results: list[Result]) -> None:
        callbacks = []
        with self._guard:
            for operation, result in zip(operations, results, strict=True):
                operation._result = result
                if operation._on_settled is not None:
                    callbacks.append(operation._on_settled)
        for callback in callbacks:
            callback()

    def _settle_errors(self, a_pass: Callable[[], bool]) -> bool:
        """Run a pass; an error about the lock itself goes to everybody who waits for it."""
        try:
            return a_pass()
        except Exception as error:
            if isinstance(error, CosessionError):
                reason = error
            else:  # a defect of ours must not leave anybody waiting for ever
                reason = CosessionError(f"{self.store.path}: unexpected: {error!r}")
                reason.__cause__ = error
            with self._guard:
                taken = list(self._waiting)
                self._waiting.clear()
            self._settle(taken, [reason] * len(taken))
            return True

    def _refuse_once(self) -> None:
        """Settle what wants the lock at the first try or not at all. The guard is held."""
        refused = [operation for operation in self._waiting if operation.once]
        for operation in refused:
            self._waiting.remove(operation)
            operation._result = self.timeout(operation)
            if operation._on_settled is not None:
                operation._on_settled()

    def _run(self) -> None:
        while True:
            with self._work:
                while not self._waiting and not self._closed:
                    self._work.wait()
                if self._closed:
                    break
            with self._passing:
                self._settle_errors(self._pass_when_free)
        self._close_store()

    # ---- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse what waits and everything from now on. What is being committed ends as it does.

        If the thread sleeps in the kernel it closes the files when it wakes up.
        """
        with self._guard:
            self._closed = True
            refused = list(self._waiting)
            self._waiting.clear()
            thread = self._thread
            self._work.notify()
        error = SessionClosed(f"{self.store.path}: closed while the operation waited")
        self._settle(refused, [error] * len(refused))
        if thread is None:
            self._close_store()
        elif not self._asleep or not _platform.CAN_BLOCK:
            thread.join(timeout=5)

    def _close_store(self) -> None:
        with self._passing:
            self.store.close()

    def after_fork_in_child(self) -> None:
        # The thread is the parent's, and so is everything that waits.
        self._guard = threading.Lock()
        self._work = threading.Condition(self._guard)
        self._passing = threading.Lock()
        self._waiting = deque()
        self._thread = None
        self._asleep = False
