"""The queue in front of a store: who waits, who commits, and what a wait can end in.

1. An operation waits in the queue until a *pass* takes it. A pass waits for the session's lock,
   takes everything that waits at that moment, commits it in one go, unlocks, and settles each.
   So what piles up behind a busy lock or a slow disk goes out as one batch.
2. While it waits, an operation can be withdrawn, by a timeout or a cancellation: it then has not
   happened. Once it is taken it can't, and is settled soon: nothing waits for others any more.
3. A pass runs on the caller's thread if the lock is free (`try_pass`), or soon is
   (`short_pauses`), else on one daemon thread, which may sleep in the kernel for as long as another
   process pleases without keeping the interpreter from exiting. If nobody wants the lock any more
   when it comes, it is handed back.
4. Ctrl-C may interrupt a pass on the caller's thread behind any call that it makes. The pass then
   lets go of everything, settles what has happened and queues up the rest again: the caller
   withdraws its own operation, and the commit thread sees to those of other threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar

from . import _fork, _platform, trace
from .batch import Result
from .errors import CosessionError, LockTimeout, SessionClosed
from .files import translated
from .interrupts import insist, start
from .operation import Callback, Operation, call_all
from .records import Outcome, Revision
from .store import Store

if TYPE_CHECKING:
    from queue import SimpleQueue

T = TypeVar("T")

_TIME_TO_WAKE = 0.02
"""Seconds."""

_PAUSES = 0.0005, 0.001, 0.002, 0.004
"""Seconds, at most, after which a caller tries again himself. A terminal at work keeps the lock for
some 20 µs at a time, and a thread that sleeps in the kernel would wake at the end of each.
"""

_QUICK, _CAUTION = 0.005, 20
"""A commit on an event loop's thread that took longer than these seconds (a network folder, a disk
that is busy writing back) sends everything to the commit thread for so many times as long, and a
second at most.
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


class CommitQueue:
    """The operations of one store, from any number of threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tell: Callable[[Sequence[Callback]], object] = call_all
        """Has those called back whose operations are settled: on whatever thread that happens."""
        self._guard = threading.Lock()
        self._bell: SimpleQueue[None] | None = None
        """Wakes the thread, if there is one; it looks for itself what there is to do."""
        self._waiting: deque[Operation] = deque()
        self._passing = threading.RLock()
        """Held by the thread that runs a pass. An RLock, because that one can be let go of without
        knowing whether one has it, and right behind an interrupted `acquire` nobody knows."""
        self._passer = 0
        """That thread's id."""
        self._thread: threading.Thread | None = None
        self.unconfirmed: Operation | None = None
        """What the thread is to confirm before it does anything else."""
        self._asleep = False
        """Whether the thread's pass is waiting for another process."""
        self._closed = False
        self._slow_until = 0.0
        """When the last slow commit on an event loop's thread is forgotten."""
        self._refused = 0
        """For the trace: since when what waits has waited for another process; 0 if it hasn't."""
        _fork.watch(self)

    def add(self, operation: Operation) -> None:
        """Queue an operation. Withdraw it if this raises, be it Ctrl-C.

        Raises:
            SessionClosed: The queue is closed.
        """
        with self._guard:
            if self._closed:
                raise SessionClosed(f"{self.store.path}: the session is closed")
            if not self._waiting:
                self._refused = 0
            operation.queued = True  # behind this no Ctrl-C comes before it is
            self._waiting.append(operation)

    def while_it_waits(self, operation: Operation, action: Callable[[], object]) -> bool:
        """Do that, which changes the operation; False, and nothing, once it is being committed."""
        with self._guard:
            is_here = operation in self._waiting or operation.withdrawn or not operation.queued
            if not is_here:
                return False
            action()
        return True

    @property
    def waiting(self) -> int:
        """How many operations wait."""
        return len(self._waiting)

    def withdraw(self, operation: Operation) -> bool:
        """Take back what still waits; False if it is being committed, or settled already."""
        gave_up = False
        with self._guard:
            if operation in self._waiting:
                rest = deque(filter(lambda other: other is not operation, self._waiting))
                # In one go: Ctrl-C comes behind calls only, and finds it withdrawn, or waiting.
                operation.withdrawn, self._waiting = True, rest
                gave_up = self._refused > 0
            elif not operation.queued:
                operation.withdrawn = True
        if gave_up and trace.sink is not None:
            waited = time.monotonic() - operation.since
            trace.gave_up(trace.sink, self.store.path, operation.request.name, waited)
        return operation.withdrawn

    def call_when_settled(self, operation: Operation, callback: Callback) -> None:
        """Call back on the settling thread too, or here and now if it is settled."""
        with self._guard:
            if not operation.settled:
                operation.on_settled += (callback,)
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
        return self._exclusively(self._settle_errors, self._pass_now) or False

    def try_quick_pass(self) -> bool:
        """`try_pass`, if it takes no longer than a few short system calls: for an event loop."""
        if not _platform.KEEPS_FILES_OPEN:
            return False  # opening a file may have to wait for whoever has it open
        if time.monotonic() < self._slow_until:
            return False
        return self._exclusively(self._pass_quickly) or False

    def _pass_quickly(self) -> bool:
        began = time.monotonic()
        try:
            if not self.store.lock.try_shortly():
                self._is_refused()
                return False
        except (CosessionError, OSError):
            return False  # a thread will find out again, and say so
        done = self._commit(quickly=True)
        self._mind(began)
        return done

    def _mind(self, began: float) -> None:
        """Be cautious for a while if a commit has taken its time."""
        now, lock = time.monotonic(), self.store.lock
        taken = now - max(began, lock.tried_until)
        if taken > _QUICK:
            self._slow_until = now + min(1, _CAUTION * taken)
        lock.give_way()

    def append_now(self, lines: Sequence[bytes]) -> Revision | None:
        """Append records on this thread, if no thread, process or turn is in the way.

        Else None, and nothing has happened. Nobody who waits is overtaken.

        Raises:
            CosessionError: Nothing was in the way, and yet it failed; nothing has happened.
        """
        revision = self._append_now(lines, sync=True)
        self.store.lock.give_way()
        return revision

    def _append_now(self, lines: Sequence[bytes], *, sync: bool) -> Revision | None:
        if self._waiting or self._passer or trace.sink is not None:
            return None
        try:
            return self._exclusively(self.store.append_now, lines, sync)
        except CosessionError:
            raise
        except Exception as error:  # a defect of ours
            self.store.forget()
            raise self._unexpected(error) from error

    def append_quickly(self, lines: Sequence[bytes]) -> Revision | None:
        """`append_now` for an event loop, if no disk has been slow lately.

        Where the disk is waited for, that is left to the thread, by `confirm`.
        """
        began = time.monotonic()
        if began < self._slow_until:
            return None
        if self.store.durable and (self._thread is None or self.unconfirmed is not None):
            return None
        revision = self._append_now(lines, sync=False)
        self._mind(began)
        return revision

    def confirm(self, on_settled: Callback) -> Operation:
        """Have the thread wait for the disk, for what `append_quickly` has just appended.

        What is returned is settled then, with an error if the disk refuses. It can't be withdrawn.

        Raises:
            SessionClosed: The queue is closed, and the disk may have it or not.
        """
        confirmation = Operation(None, on_settled=on_settled)
        with self._guard:
            if self._closed:
                raise SessionClosed(f"{self.store.path}: closed before the disk had it for certain")
            self.unconfirmed = confirmation
        self._ring()
        return confirmation

    def _confirm(self, confirmation: Operation) -> None:
        result: Result
        with self._passing:
            try:
                self.store.confirm()
                result = Outcome(self.store.revision)
            except CosessionError as error:
                result = error
            except Exception as error:
                result = self._unexpected(error)
        self.unconfirmed = None
        self._settle([confirmation], [result])

    def short_pauses(self, operation: Operation, timeout: float | None = None) -> Iterator[float]:
        """Seconds to sleep before the next try, as long as another process is just at work."""
        if operation.once or (timeout is not None and timeout < sum(_PAUSES)):
            return
        from random import uniform  # not for a program that has nobody to wait for

        for pause in _PAUSES:
            if operation.settled or not self.store.lock.refused:
                return
            yield uniform(0.3, 1) * pause

    def try_settle(self) -> bool:
        """Heal and fold in everything, if neither another thread nor process is at it."""
        return self._exclusively(self._settle_now) or False

    def _settle_now(self) -> bool:
        with translated(self.store.lock.path, "take the lock"):
            if not self.store.lock.try_acquire():
                return False
        try:
            self.store.settle()
        finally:
            self.store.lock.release()
        return True

    def look(self, *, turn: int | None = None) -> bool:
        """Fold in what can be seen without the lock. Tells whether that is everything."""
        try:
            return self.store.look(turn=turn)
        finally:
            if self._closed:  # meanwhile, and nobody else would close what this opened
                self._close_store()

    def _exclusively(self, a_pass: Callable[..., T], *given: Any, wait: bool = False) -> T | None:
        """Run a pass, if no other thread is at it; with `wait`, once none is. Else None.

        Raises:
            CosessionError: This very thread is at it: a signal handler called.
        """
        me = threading.get_ident()
        if self._passer == me:
            self._refuse_nested(me)
        try:
            if not self._passing.acquire(blocking=wait):
                return None
            self._passer = me
            # What comes late to a closed session would open its files again, for good.
            return None if self._closed else a_pass(*given)
        except Exception:
            raise
        except BaseException:
            if self._passer == me:
                insist(self.store.forget)
            raise
        finally:
            # In place, not in a function or a `with`: on the way into those Ctrl-C gets through.
            if self._passer == me:
                self._passer = 0
            try:
                self._passing.release()
            except RuntimeError:
                pass  # another thread has it

    def _refuse_nested(self, me: int) -> None:
        if self._passer == me:
            raise CosessionError(
                f"{self.store.path}: called in the middle of another call, by a signal handler?"
            )

    def start_pass(self) -> None:
        """See to it that the thread runs a pass as long as something waits.

        If no thread can be had, all that waits is settled with the system's error.
        """
        try:
            self._start_thread()
        except RuntimeError as error:
            self._refuse(error)
        self._ring()

    def _start_thread(self) -> None:
        with self._guard:
            if self._thread is None:
                from queue import SimpleQueue  # not for a program that needs no thread

                self._bell = self._bell or SimpleQueue()
                thread = threading.Thread(target=self._run, name="cosession-commit", daemon=True)
                start(thread)
                self._thread = thread  # not before: there may be none to be had, or Ctrl-C comes

    def _ring(self) -> None:
        if self._bell is not None:
            self._bell.put(None)

    def _is_refused(self) -> None:
        """Note that what waits waits for another process by now."""
        if trace.sink is not None:
            self._refused = self._refused or trace.now()

    def _pass_now(self, *, shortly: bool = True) -> bool:
        lock = self.store.lock
        with translated(lock.path, "take the lock"):
            if not (lock.try_shortly() if shortly else lock.try_acquire()):
                self._is_refused()
                return False
        self._commit()
        return True

    def _pass_when_free(self) -> bool:
        with self._guard:
            hurried = any(operation.once for operation in self._waiting)
        # Who may sleep needn't keep the processor from who has the lock.
        if self._pass_now(shortly=hurried):
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
        taken, fresh = deque[Operation](), deque[Operation]()
        settled: dict[int, Result] = {}
        results: list[Result] | None = []
        try:
            with self._guard:
                taken, self._waiting = self._waiting, fresh
            if taken:
                traced = self.store.lock.traced
                if traced is not None:
                    self._note(traced, taken)
                commit = self.store.commit_quickly if quickly else self.store.commit
                results = commit([operation.request for operation in taken], settled)
                if traced is not None:
                    self._note_results(traced, results)
            if results is None:
                self._queue_again(taken, settled)
            self.store.lock.release()
            if results is not None:
                self._settle(taken, results)
        except Exception as error:  # a defect of ours: nobody must wait for ever because of it
            self.store.forget()
            reason = self._unexpected(error)
            self._settle(taken, [settled.get(at, reason) for at in range(len(taken))])
        except BaseException:
            insist(self.store.forget)
            insist(lambda: self._queue_again(taken, settled))
            raise
        return results is not None

    def _note(self, traced: trace.Commit, taken: Sequence[Operation]) -> None:
        """Add to the trace's line what the pass does, and since when it waited."""
        traced.asked = self._refused
        traced.operations = [operation.request.name for operation in taken]

    def _note_results(self, traced: trace.Commit, results: Sequence[Result] | None) -> None:
        """Add what came of it, if the line isn't written yet: then nothing has failed."""
        if results is None:
            traced.asked, traced.operations = 0, []
        else:
            self._refused = 0
            traced.failed = sum(isinstance(result, Exception) for result in results)

    def _queue_again(self, taken: Sequence[Operation], settled: dict[int, Result]) -> None:
        """Settle those that have a result, and let the others wait as before."""
        undone = [operation for at, operation in enumerate(taken) if at not in settled]
        rest = deque[Operation]()
        # No loop with a condition inside the `with`: CPython 3.13 leaves its jump back out of the
        # block's exception table, and Ctrl-C in that instant would leave the guard locked.
        with self._guard:
            rest.extend(filter(lambda operation: operation not in self._waiting, undone))
            rest.extend(self._waiting)
            self._waiting = rest
        self._ring()
        self._settle([taken[at] for at in settled], list(settled.values()))

    def _settle(self, operations: Sequence[Operation], results: Sequence[Result]) -> None:
        with self._guard:
            for operation, result in zip(operations, results, strict=True):
                operation.settle(result)
        # Nobody asks to be called back any more.
        self.tell([call for operation in operations for call in operation.on_settled])
        for operation in operations:
            operation.on_settled = ()  # they may refer to it

    def _settle_errors(self, a_pass: Callable[[], bool]) -> bool:
        """Run a pass; an error about the lock itself goes to everybody who waits for it."""
        try:
            return a_pass()
        except CosessionError as error:
            self._refuse(error)
        except Exception as error:
            self._refuse(self._unexpected(error))
        return True

    def _refuse(self, reason: Exception) -> None:
        """Settle everything that waits with an error."""
        refused, fresh = deque[Operation](), deque[Operation]()
        try:
            with self._guard:
                refused, self._waiting = self._waiting, fresh
            self._settle(refused, [reason] * len(refused))
        except BaseException:
            insist(lambda: self._settle(refused, [reason] * len(refused)))
            raise

    def _unexpected(self, error: Exception) -> CosessionError:
        reason = CosessionError(f"{self.store.path}: unexpected: {error!r}")
        reason.__cause__ = error
        return reason

    def _refuse_once(self) -> None:
        """Settle what wants the lock at the first try or not at all. The guard is held."""
        refused = [operation for operation in self._waiting if operation.once]
        for operation in refused:
            self._waiting.remove(operation)
            operation.settle(self.timeout(operation))
        self.tell([call for operation in refused for call in operation.on_settled])

    def _run(self) -> None:
        bell = self._bell
        assert bell is not None
        while True:
            if self.unconfirmed is not None:
                self._confirm(self.unconfirmed)
            elif self._closed:
                break
            elif self._waiting:
                self._exclusively(self._settle_errors, self._pass_when_free, wait=True)
            else:
                bell.get()
        bell.put(None)  # for another one, if Ctrl-C came when the first had just been started
        self._close_store()

    # ---- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse what waits and everything from now on. What is being committed ends as it does.

        If the thread sleeps in the kernel it closes the files when it wakes up.
        """
        self._refuse_nested(threading.get_ident())
        with self._guard:
            self._closed = True
            thread = self._thread
        self._ring()
        self._refuse(SessionClosed(f"{self.store.path}: closed while the operation waited"))
        if thread is None:
            self._close_store()
        elif not self._asleep or not _platform.CAN_BLOCK:
            thread.join(timeout=5)

    def abandon(self) -> None:
        """Close without waiting, on a thread of its own.

        The garbage collector may call this in the middle of anything.
        """
        self._closed = True
        try:
            threading.Thread(target=self.close, name="cosession-close", daemon=True).start()
        except RuntimeError:
            pass  # the interpreter is exiting, and so are the files

    def _close_store(self) -> None:
        with self._passing:
            self.store.close()

    def after_fork_in_child(self) -> None:
        # The thread is the parent's, and so is everything that waits.
        self._guard = threading.Lock()
        self._bell = None
        self._passing = threading.RLock()
        self._passer = 0
        self._waiting = deque()
        self.unconfirmed = None
        self._thread = None
        self._asleep = False
