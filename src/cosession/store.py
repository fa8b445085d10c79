"""The session file, to be written: commit what operations ask for. Blocking.

1. Records are appended (`appending`). What changes anything else writes a new file (`replacing`).
2. All of that happens under the lock, and begins with settling what is found (`healing`).
3. Operations that waited at the same moment go out as one batch, as far as they append (`batch`).
4. The state in memory changes only after the bytes are in, and is always the fold of the file's
   records up to `revision` (`reading`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

from . import files
from .appending import QUICK, FileAppender
from .batch import Batch, Own, Request, Result
from .edits import Add, AddCheckpoint
from .errors import (
    CosessionError,
    SessionMissing,
    StorageError,
    SyncFailed,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
)
from .files import translated
from .header import Header
from .healing import Survey
from .interrupts import insist
from .reading import LOOKS, View
from .records import Outcome, Revision
from .replacing import Overtaken
from .values import replace


class Store(FileAppender):
    """One handle on one session file.

    `commit` and `settle` need the lock (`store.lock`); `look` doesn't. Methods exclude each other
    among the threads of this process by themselves; the state may be read at any time.
    """

    _own = Own(0, Revision(0, 0), Revision(0, 0))

    def open(self) -> None:
        """Find the file, or create it, and fold it. Waits for nobody."""
        with self._mutex:
            try:
                self._open()
            except BaseException:
                self.forget()
                raise

    def _open(self) -> None:
        if files.require_plain_file(self.path) is None:
            if not self._create:
                raise SessionMissing(self.path, "there is no such file")
            self._create_file()
        self._poisoned = False
        if self.read_only:
            self.look()
            return
        with translated(self.lock.path, "open the lock file"):
            if self._options[-1] is not None:
                os.makedirs(os.path.dirname(self.lock.path), mode=0o700, exist_ok=True)
            free = self.lock.try_acquire()
        if not free:
            self.look()
            return
        try:
            self.settle()
            # Behind the settling: as long as a file is announced, nobody may get its inode.
            with translated(self.path, "look for leftovers"):
                files.remove_leftovers(self.path)
        finally:
            self.lock.release()

    def fresh(self) -> Store:
        """Another handle of the same kind. A closed one may have a thread asleep on its lock."""
        _, durable, create, read_only, lock_dir = self._options
        return Store(
            self.path, durable=durable, create=create, read_only=read_only, lock_dir=lock_dir
        )

    # ---- committing -----------------------------------------------------------------------------

    def commit(
        self, requests: Sequence[Request], settled: dict[int, Result] | None = None
    ) -> list[Result]:
        """Carry out these operations one after the other, each whole or not at all.

        The lock is held. What one of them does wrong (a conflict, an unknown checkpoint) is its
        own result; appends that follow each other go out in one write. After anything that isn't
        an error of ours (Ctrl-C, out of memory) the state is dropped and read anew next time, and
        `settled` tells which requests, by their number, have had which result; the others have
        not happened.
        """
        with self._mutex:
            with suppress(Overtaken):
                if (results := self._append_each(requests, settled)) is not None:
                    return results
            return self._commit_all(requests, None, settled)

    def commit_quickly(
        self, requests: Sequence[Request], settled: dict[int, Result] | None = None
    ) -> list[Result] | None:
        """`commit`, if that takes no longer than a few short system calls; else None, and nothing.

        So an event loop may call it: no syncing, no healing, nothing large to read or to write.
        """
        if self.durable or self._poisoned:
            return None
        try:
            if not self._mutex.acquire(blocking=False):
                return None
            if (results := self._append_each(requests, settled, at_most=QUICK)) is not None:
                return results
            if sum(map(_weight, requests)) > QUICK:
                return None
            with translated(self.path, "read the session"):
                survey = self._survey()
            header, view = survey.header, self._view
            if not survey.settled or header is None or header.generation != view.generation:
                return None
            if not 0 <= header.committed - view.state.position <= QUICK:
                return None
            return self._commit_all(requests, survey, settled)
        except (CosessionError, Overtaken):
            return None  # the same error will come again, on a thread
        finally:
            try:
                self._mutex.release()
            except RuntimeError:
                pass  # another thread has it

    def _append_each(
        self,
        requests: Sequence[Request],
        settled: dict[int, Result] | None,
        *,
        at_most: int = sys.maxsize,
    ) -> list[Result] | None:
        """`commit`, if all are appends, of few enough bytes, that meet no obstacle; else None, and
        nothing.

        Raises:
            Overtaken: A program that takes no lock was one; nothing has happened.
        """
        if self._fd < 0 or self._poisoned:
            return None
        operations = [request.appends for request in requests]
        if not all(operations):
            return None
        appends = list(chain.from_iterable(operations))
        lines = list(chain.from_iterable(appends))
        sizes = [sum(map(len, chain.from_iterable(records))) for records in operations]
        if sum(sizes) > at_most:
            return None
        header = self._quick_look()
        if header is None:
            return None
        results: dict[int, Result] = {} if settled is None else settled
        generation, start = header.generation, header.committed
        position = start
        data = b"".join(lines)
        late = self._may_sync_unlocked(generation, appends)

        def landed(shift: int) -> None:
            nonlocal position
            position = start + shift
            for number, size in enumerate(sizes):
                position += size
                results[number] = Outcome(Revision(generation, position))

        def confirm() -> None:
            try:
                self._sync_unlocked(Revision(generation, position), len(data))
            except SyncFailed as error:
                results.update(dict.fromkeys(results, error))

        try:
            with translated(self.path, "append"):
                header, _ = self._append(self._fd, header, lines, data, "append", landed, not late)
            self.lock.release()
            self._take_over(header.committed, lines, data)
            if late:
                confirm()
        except CosessionError as error:
            return [results.get(number, error) for number in range(len(requests))]
        except BaseException:
            if late and results:
                insist(confirm)  # they have happened, and are going to be acknowledged
            raise
        return [results[number] for number in range(len(requests))]

    def _commit_all(
        self,
        requests: Sequence[Request],
        survey: Survey | None,
        settled: dict[int, Result] | None,
    ) -> list[Result]:
        results: dict[int, Result] = {} if settled is None else settled
        try:
            for _ in range(LOOKS):
                with suppress(Overtaken):
                    self._commit(requests, results, survey)
                    break
                survey = None
            else:
                raise StorageError(self.path, "append between the writes of another program")
        except CosessionError as error:
            return [results.get(number, error) for number in range(len(requests))]
        except BaseException:
            self.forget()
            raise
        return [results[number] for number in range(len(requests))]

    def _commit(
        self, requests: Sequence[Request], results: dict[int, Result], survey: Survey | None
    ) -> None:
        """Carry out those that have no result yet."""
        self._require_confirmed()
        with translated(self.path, "read the session"):
            header = self._settle(survey)
        batch = Batch(self.generation, self.state, self._own_so_far())
        for number, request in enumerate(requests):
            if number in results:
                continue
            try:
                header = self._require_turn(header, request)
                edit = batch.plan(request, self.path)
            except Exception as error:  # its own mistake, or one of its callback
                results[number] = error
                continue
            if not edit.replaces:
                batch.add(number, request, edit)
                if request.begins or request.ends:
                    header = self._append_batch(header, batch, results)
                    header = self._mark_turn(header, request)
                    batch = Batch(self.generation, self.state, self._own)
                continue
            header = self._append_batch(header, batch, results)
            if header.committed != batch.state.position:
                raise Overtaken  # the edit was planned for other offsets
            try:
                header, rotated = self._replace(header, edit, request.name)
                header = self._mark_turn(header, request)
            except Exception:
                raise
            except BaseException:
                interrupted = f"{self.path}: interrupted: look whether the {request.name} happened"
                results[number] = CosessionError(interrupted)
                raise
            results[number] = Outcome(self.revision, edit.checkpoints, rotated)
            if request.turn:
                self._own = replace(self._own, end=self.revision)
            batch = Batch(self.generation, self.state, self._own)
        self._append_batch(header, batch, results)

    def _own_so_far(self) -> Own:
        """What of our turn still is ours alone: a program without our lock ends that."""
        own, current = self._own, self.revision
        if own.turn and (
            current.generation != own.end.generation or self.state.messages_since(own.end.position)
        ):
            self._own = Own(own.turn, current, current)
        return self._own

    # ---- turns ----------------------------------------------------------------------------------

    def _require_turn(self, header: Header, request: Request) -> Header:
        """Raise, unless the request may be carried out as far as turns go."""
        if request.settles and request.settles != header.turn:
            raise TurnOver(f"{self.path}: the turn is over; another terminal has settled it")
        if request.joined and request.turn != header.turn:
            raise TurnOver(f"{self.path}: the turn is over that this was to be part of")
        if request.turn and not header.turn:
            # The lock file was made anew; the turn's own lock is still ours.
            return replace(header, turn=request.turn)
        if header.turn in (0, request.turn, request.settles) or request.any_time:
            return header
        if request.turn:
            raise TurnOver(f"{self.path}: the turn is over; another terminal has settled it")
        card = self.turns.read()
        if request.alone:
            raise TurnInterrupted(self.path, card or self._unknown_turn(header))
        raise TurnHeld(self.path, card.holder if card else None)

    def _mark_turn(self, header: Header, request: Request) -> Header:
        """Note that a turn has begun, or is over."""
        if not (request.begins or request.ends):
            return header
        with translated(self.lock.path, "note the turn"):
            turn = request.begins(self.revision) if request.begins else 0
            self._own = Own(turn, self.revision, self.revision)
            header = replace(header, turn=turn)
            self.lock.publish(header)
        return header

    # ---- appending ------------------------------------------------------------------------------

    def _append_batch(self, header: Header, batch: Batch, results: dict[int, Result]) -> Header:
        """Write a batch's records behind the file, and note its results."""
        if not batch.lines:
            results.update(batch.outcomes)
        else:

            def landed(shift: int) -> None:
                results.update(batch.shifted(shift))  # at once: Ctrl-C may come on the way out

            with translated(self.path, "append"), self._data() as fd:
                data = b"".join(batch.lines)
                header, shift = self._append(fd, header, batch.lines, data, batch.name, landed)
                if shift:
                    self._catch_up(header)
                else:
                    self._view = View(header.generation, header.identity, batch.state, header.kept)
            # Foreign lines that came to lie before ours are not our own.
            start = self.revision if shift else batch.own.start
            self._own = Own(batch.own.turn, start, self.revision)
        return header


def _weight(request: Request) -> int:
    """Bytes that a request is going to write, as far as that is small and known."""
    return sum(
        sum(map(len, step.lines))
        if isinstance(step, Add)
        else (QUICK + 1) * (not isinstance(step, AddCheckpoint))
        for step in request.steps
    )
