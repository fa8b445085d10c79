"""Records behind the file: announced in the lock file's header, written in one write, published.

1. The announcement says which bytes are about to come, so that whoever finds it left over can tell
   them from anybody else's. Publishing moves *committed* behind them.
2. A failure undoes exactly what a crash at that point would have left behind. If even that fails,
   the announcement stays, and the next one to take the lock settles it.
3. Usually the lock is free, the file is as the header says, and nobody's turn is on: then
   `append_now` does the same with nothing around it. It is the one fast path.
4. All of this happens under the lock.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from . import files
from .edits import Range
from .errors import CosessionError, SyncFailed, Unsettled
from .header import Appending, Header
from .healing import FileHealer
from .reading import MARK, View
from .records import Revision
from .repair import Cut, RepairPlan, Splice, plan_repair
from .replacing import Overtaken
from .values import replace

log = logging.getLogger("cosession")

QUICK = 64 << 10
"""Bytes that may be read and written without a thread: some 30 µs of the page cache's time."""


class FileAppender(FileHealer):
    """Can append records. The lock is held."""

    _owed: tuple[Revision, int] | None = None
    """What `append_now` has left to `confirm`: up to where it goes, and its length."""

    def append_now(self, lines: Sequence[bytes], sync: bool = True) -> Revision | None:
        """Append records on the spot, if nothing at all stands in the way; else None, and nothing.

        Takes the lock and releases it. An event loop may call this with `sync=False`: there is no
        waiting, syncing or healing, no turn, nothing large to read or to write. Where the disk is
        waited for, it then has to `confirm` that, before the caller is told.

        Raises:
            CosessionError: The append has failed, and is undone.
            SyncFailed: The disk refuses; see `_sync_unlocked`.
        """
        if self.read_only or self._poisoned or self._fd < 0:
            return None
        try:
            if not self._mutex.acquire(blocking=False):
                return None
            data = b"".join(lines)
            try:
                if len(data) > QUICK or not self._try_lock():
                    return None
                if (header := self._quick_look()) is None:
                    return None
                if self.durable and not self._may_sync_unlocked(header.generation, (lines,)):
                    return None
                header, _ = self._append(self._fd, header, lines, data, "append", sync=False)
            finally:
                self.lock.release()
            self._take_over(header.committed, lines, data)
            revision = Revision(header.generation, header.committed)
            if self.durable:
                if sync:
                    self._sync_unlocked(revision, len(data))
                else:
                    self._owed = revision, len(data)
            return revision
        except OSError as error:
            raise files.ours(error, self.path, "append") from error
        except Overtaken:
            return None  # it is undone
        finally:
            try:
                self._mutex.release()
            except RuntimeError:
                pass  # another thread has it

    def confirm(self) -> None:
        """Wait for the disk, for what `append_now` has left to that. The lock is free.

        Raises:
            SyncFailed: The disk refuses; see `_sync_unlocked`.
        """
        with self._mutex:
            self._require_confirmed()
            owed, self._owed = self._owed, None
            if owed is not None:
                self._sync_unlocked(*owed)

    def _close_data(self) -> None:
        # What is owed is in the file that is open now, whatever has its name.
        if self._owed is not None:
            with suppress(SyncFailed):  # which `confirm` is going to say
                self._sync(self._fd, self._owed[0])
            self._owed = None
        super()._close_data()

    def after_fork_in_child(self) -> None:
        self._owed = None  # by the parent
        super().after_fork_in_child()

    def _try_lock(self) -> bool:
        try:
            return self.lock.try_shortly()
        except (OSError, CosessionError):
            return False  # whoever takes his time will find out again, and say so

    def _quick_look(self) -> Header | None:
        """The header, if the file is as it says, and the state in memory is up to it, or can be
        brought up to it at once.
        """
        try:
            view, header, status = self._view, self.lock.read(), os.stat(self.path)
        except OSError:
            return None  # as above
        if (
            header is None
            or header.turn
            or header.generation != view.generation
            or (header.identity is not view.identity and header.identity != view.identity)
            or status.st_nlink != 1
            or not self._is_settled(header, status)
            or view.mark is not None
        ):
            return None
        return header if 0 <= header.committed - view.state.position <= QUICK else None

    def _take_over(self, stop: int, lines: Sequence[bytes], data: bytes) -> None:
        """Fold in what others wrote up to our lines, `data` in one, and these, which end at `stop`.

        Nobody changes them any more, so the lock needn't be held. If this fails, the state stays
        behind, and the next look catches up.
        """
        view, state = self._view, self._view.state
        if state.position + len(data) == stop:
            state = state.with_line(data) if len(lines) == 1 else state.fold(data)
        else:
            try:
                for piece in files.read_lines(self._fd, state.position, stop):
                    state = state.fold(piece)
            except OSError:
                return
        self._view = View(view.generation, view.identity, state, view.kept)

    def _append(
        self,
        fd: int,
        header: Header,
        lines: Sequence[bytes],
        data: bytes,
        name: str,
        landed: Callable[[int], None] | None = None,
        sync: bool = True,
    ) -> tuple[Header, int]:
        """Write records behind the file; the state in memory is left to the caller.

        Args:
            data: The lines in one.
            landed: Is told as soon as they are in how many bytes of a program that takes no lock
                came to lie before them.
            sync: Whether to wait for the disk, if that is this handle's way.

        Returns:
            The header as published, and what `landed` is told.

        Raises:
            OSError, CosessionError: It has failed, and is undone, or is going to be.
            Overtaken: So it is, and may be tried again.
        """
        start = header.committed
        shift, placed = 0, list[Range]()
        # An operation of one record that is torn by a power cut has not happened. Of several, some
        # could survive: their announcement must be on the disk before them, and so must what lies
        # before.
        sync = sync and self.durable
        durable = sync and len(lines) > 1
        if durable and not self._is_on_disk(Revision(header.generation, start)):
            self._sync(fd, Revision(header.generation, start))
        try:
            self.lock.announce_append(header, lines, name, durable=durable)
            files.write_all(fd, data, placed)
            status = os.fstat(fd)
            if status.st_size != start + len(data):
                shift = self._place(fd, start, status.st_size, data)
            stop = start + shift + len(data)
            if sync:
                self._sync(fd, Revision(header.generation, stop))
            mark = b"" if shift else data[-MARK:]
            header = self._publish(fd, header, stop, status.st_mtime_ns, mark)
            if landed is not None:
                landed(shift)
        except BaseException as error:
            known = None
            if isinstance(error, Exception):
                known = files.located(fd, placed, len(data))
            try:
                intent = Appending.of(start, lines)
                undone = self._undo_append(fd, header, intent, data, known)
            except (OSError, CosessionError, Overtaken) as worse:
                # The announcement stays: whoever takes the lock next finishes this.
                log.warning("%s: could not undo a failed append: %s", self.path, worse)
                all_in = sum(stop - at for at, stop in known or ()) == len(data)
                if all_in and isinstance(error, OSError):
                    raise Unsettled(self.path, "append", error.errno) from error
                raise error from worse
            published = None if undone else self.lock.read()
            if published is not None and landed is not None:
                landed(shift)
            if published is None or not isinstance(error, Exception):
                raise
            return published, shift  # all that failed came behind the bytes that count
        return header, shift

    def _may_sync_unlocked(self, generation: int, operations: Sequence[Sequence[bytes]]) -> bool:
        """Whether these may be published before they are on the disk, where that is waited for.

        If a power cut then takes some of their records, none of them is there in part. So others'
        go to the disk at the same time as ours.
        """
        if not self.durable or generation != self._on_disk.generation:
            return False
        return max(map(len, operations)) <= 1

    def _sync_unlocked(self, upto: Revision, length: int) -> None:
        """Have on the disk what was just published up to here. The lock is free.

        Raises:
            SyncFailed: The disk refuses. These last bytes are undone, unless somebody else has
                written behind them or has the lock.
        """
        try:
            self._sync(self._fd, upto)
        except SyncFailed:
            with suppress(OSError, CosessionError):
                if self.lock.try_shortly():
                    self._take_back(upto, length)
            raise
        finally:
            self.lock.release()

    def _take_back(self, upto: Revision, length: int) -> None:
        """Cut published bytes off again, if they still are the last ones.

        Others may have read them, to whom that is a next generation.
        """
        header = self._settle()
        if (header.generation, header.committed) == (upto.generation, upto.position):
            start = upto.position - length
            self._cut_back(self._fd, start)
            kept = replace(header, generation=header.generation + 1, kept=start)
            modified = os.fstat(self._fd).st_mtime_ns
            self._catch_up(self._publish(self._fd, kept, start, modified))

    def _place(self, fd: int, start: int, size: int, data: bytes) -> int:
        """How far behind `start` our bytes came to lie, as whole lines of their own.

        Raises:
            Overtaken: They were glued to an unfinished line of a program that takes no lock.
        """
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
        splice: RepairPlan = Splice(((at, at + len(data)),))
        if data.startswith(tail) or at + len(data) == len(tail) > at >= 0:
            if tail:
                self._cut_back(fd, intent.start + max(at, 0))
        else:
            if at < 0:
                splice = plan_repair(intent, tail)
            if isinstance(splice, Splice):
                base = intent.start
                cuts = [(base + start, base + stop) for start, stop in splice.cuts]
                self._splice(fd, header, *cuts)
                return True
            if isinstance(splice, Cut):
                return True  # the announcement stays: whoever takes the lock next cuts it
        self.lock.publish(header)
        return True

    def _are_there(self, fd: int, placed: list[Range], data: bytes) -> bool:
        """Whether these ranges of the file hold the data's beginning, as they should."""
        found = b"".join(files.read_all(fd, start, stop) for start, stop in placed)
        return data.startswith(found) and len(found) == sum(stop - start for start, stop in placed)
