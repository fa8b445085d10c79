"""The session file, to be written: commit what operations ask for. Blocking.

1. Records are appended: announced in the lock file's header, written in one write, then published
   by moving *committed* behind them. What changes anything else writes a new file (`replacing`).
2. All of that happens under the lock, and begins with settling what is found (`healing`).
3. A failure undoes exactly what a crash at that point would have left behind. If even that fails,
   the announcement stays, and the next one to take the lock settles it.
4. The state in memory changes only after the bytes are in, and is always the fold of the file's
   records up to `revision` (`reading`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from . import files
from .batch import Batch, Own, Request, Result
from .edits import Add, AddCheckpoint, Range
from .errors import (
    CosessionError,
    SessionMissing,
    StorageError,
    SyncFailed,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
    Unsettled,
)
from .files import translated
from .header import Appending, Header, Span
from .healing import FileHealer, Survey
from .reading import LOOKS, MARK, View
from .records import Outcome, Revision
from .repair import Cut, RepairPlan, Splice, plan_repair
from .replacing import Overtaken

log = logging.getLogger("cosession")

QUICK = 64 << 10
"""Bytes that may be read and written without a thread: some 30 µs of the page cache's time."""


class Store(FileHealer):
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
            return self._commit_all(requests, None, settled)

    def commit_quickly(
        self, requests: Sequence[Request], settled: dict[int, Result] | None = None
    ) -> list[Result] | None:
        """`commit`, if that takes no longer than a few short system calls; else None, and nothing.

        So an event loop may call it: no syncing, no healing, nothing large to read or to write.
        """
        if self.durable or self._poisoned or sum(map(_weight, requests)) > QUICK:
            return None
        if not self._mutex.acquire(blocking=False):
            return None
        try:
            with translated(self.path, "read the session"):
                survey = self._survey()
            header, view = survey.header, self._view
            if not survey.settled or header is None or header.generation != view.generation:
                return None
            if not 0 <= header.committed - view.state.position <= QUICK:
                return None
            return self._commit_all(requests, survey, settled)
        except CosessionError:
            return None  # the same error will come again, on a thread
        finally:
            self._mutex.release()

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
        if self._poisoned:
            raise SyncFailed(self.path, "an earlier write was not confirmed by the disk")
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
                    header = self._append(header, batch, results)
                    header = self._mark_turn(header, request)
                    batch = Batch(self.generation, self.state, self._own)
                continue
            header = self._append(header, batch, results)
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
        self._append(header, batch, results)

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

    def _append(self, header: Header, batch: Batch, results: dict[int, Result]) -> Header:
        """Write a batch's records behind the file, and note its results."""
        if batch.lines:
            data, start = b"".join(batch.lines), header.committed
            placed: list[Range] = []
            intent = Appending(start, tuple(map(Span.of, batch.lines)))
            # One record that is torn by a power cut is no record. Of several, some could survive:
            # their announcement must be on the disk before them, and so must what lies before.
            durable = self.durable and len(batch.lines) > 1
            with translated(self.path, "append"), self._data() as fd:
                if durable and not self._is_on_disk(Revision(header.generation, start)):
                    self._sync(fd, Revision(header.generation, start))
                try:
                    self.lock.announce(header.announcing(intent), batch.name, durable=durable)
                    files.write_all(fd, data, placed)
                    shift = self._place(fd, start, data)
                    stop = start + shift + len(data)
                    if self.durable:
                        self._sync(fd, Revision(header.generation, stop))
                    state = batch.state
                    if shift:
                        state = self.state
                        for piece in files.read_lines(fd, start, stop):
                            state = state.fold(piece)
                    batch.shift(shift)
                    header = self._publish(fd, header, stop, b"" if shift else data[-MARK:])
                    results.update(batch.outcomes)  # at once: Ctrl-C may come on the way out
                except BaseException as error:
                    known = placed if isinstance(error, Exception) else None
                    try:
                        undone = self._undo_append(fd, header, intent, data, known)
                    except (OSError, CosessionError, Overtaken) as worse:
                        # The announcement stays: whoever takes the lock next finishes this.
                        log.warning("%s: could not undo a failed append: %s", self.path, worse)
                        landed = sum(stop - start for start, stop in placed) == len(data)
                        if landed and isinstance(error, OSError):
                            raise Unsettled(self.path, "append", error.errno) from error
                        raise error from worse
                    if not undone:
                        results.update(batch.outcomes)
                    raise
            self._view = View(header.generation, header.identity, state, header.kept)
            # Foreign lines that came to lie before ours are not our own.
            self._own = batch.own if not shift else replace(batch.own, start=self.revision)
            self._own = replace(self._own, end=self.revision)
        results.update(batch.outcomes)
        return header

    def _place(self, fd: int, start: int, data: bytes) -> int:
        """How far behind `start` our bytes came to lie, as whole lines of their own.

        Raises:
            Overtaken: They were glued to an unfinished line of a program that takes no lock.
        """
        size = os.fstat(fd).st_size
        if size == start + len(data):
            return 0
        tail = files.read_all(fd, start, size)
        at = tail.find(data)
        if at < 0 or (at > 0 and tail[at - 1 : at] != b"\n"):
            raise Overtaken
        return at

    def _undo_append(
        self,
        fd: int,
        header: Header,
        intent: Appending,
        data: bytes,
        placed: list[Range] | None,
    ) -> bool:
        """Take back what a failed write left, and nothing that anybody else wrote meanwhile.

        `placed` says where the bytes are; `None` after an interrupt, when nobody knows. False if
        it has succeeded after all.
        """
        now = self.lock.read()
        if now and now.intent is None and now.committed > intent.start:
            return False  # an interrupt came right behind the publishing: it has happened
        size = os.fstat(fd).st_size
        if placed is not None and self._are_there(fd, placed, data):
            if len(placed) > 1 or (placed and placed[0][1] < size):
                self._splice(fd, header, *placed)
                return True
            if placed:
                self._cut_back(fd, placed[0][0])
            self.lock.publish(header)
            return True
        tail = files.read_all(fd, intent.start, size)
        at = tail.find(data)
        splice: RepairPlan = Splice(at, at + len(data))
        if data.startswith(tail) or at + len(data) == len(tail) > at >= 0:
            if tail:
                self._cut_back(fd, intent.start + max(at, 0))
        else:
            if at < 0:
                splice = plan_repair(intent, tail)
            if isinstance(splice, Splice):
                start = intent.start
                self._splice(fd, header, (start + splice.start, start + splice.stop))
                return True
            if isinstance(splice, Cut):
                return True  # the announcement stays: whoever takes the lock next cuts it
        self.lock.publish(header)
        return True

    def _are_there(self, fd: int, placed: list[Range], data: bytes) -> bool:
        """Whether these ranges of the file hold the data's beginning, as they should."""
        found = b"".join(files.read_all(fd, start, stop) for start, stop in placed)
        return data.startswith(found) and len(found) == sum(stop - start for start, stop in placed)


def _weight(request: Request) -> int:
    """Bytes that a request is going to write, as far as that is small and known."""
    return sum(
        sum(map(len, step.lines))
        if isinstance(step, Add)
        else (QUICK + 1) * (not isinstance(step, AddCheckpoint))
        for step in request.steps
    )
