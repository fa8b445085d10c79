"""A new file in the session file's place: revert, clear, compaction, a new system prompt.

1. The new file is written under a temporary name, synced, and announced by its identity. Then the
   old one gets the next rotation name as well, and `os.replace` swaps them. At every instant the
   live name is the whole old or the whole new file.
2. Up to `os.replace` a replacement can be undone, after it only be completed: the header that
   announced it says which file is the new one, so everybody can tell on which side it stopped.
3. A failure undoes exactly what a crash at that point would have left behind. If even that fails,
   the announcement stays, and the next one to take the lock settles it.
4. All of this happens under the lock.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from zlib import crc32

from . import _platform, files, lineage
from .edits import Edit, Range
from .errors import SyncFailed
from .files import translated
from .header import Header, Identity, Replacing
from .reading import MARK, FileReader, View
from .records import Repair, Revision
from .values import replace

log = logging.getLogger("cosession")


class Overtaken(Exception):
    """A program that takes no lock got in between; what was half done is undone: do it again."""


class FileReplacer(FileReader):
    """Can put a new file in the old one's place. The lock is held."""

    repairs: tuple[Repair, ...] = ()
    """Unfinished writes of dead processes that were undone through this handle."""
    _poisoned = False
    """Whether a sync has failed: nothing more is written, then."""
    _on_disk = Revision(0, 0)
    """What is known to survive a power cut: names, generation and bytes; see `_sync`."""

    def _replace(self, header: Header, edit: Edit, name: str) -> tuple[Header, str]:
        """Put a new file in the old one's place; its header and where the old one was kept."""
        with translated(self.path, f"replace the file ({name})"):
            with self._data() as fd:
                header, rotated = self._exchange(fd, header, edit, announce=name)
            if self.durable:
                self._sync_names()
                self._on_disk = Revision(header.generation, header.committed)
        return header, rotated

    def _exchange(
        self, fd: int, header: Header, edit: Edit, *, announce: str
    ) -> tuple[Header, str]:
        """Write the new file, keep the old one, swap them; not announced if `announce` is empty.

        A failure before the swap leaves everything as it was. After it there is no way back, and
        none is needed: the announcement tells the next one how to go on.
        """
        old = os.fstat(fd)
        if old.st_size != header.committed:
            raise Overtaken
        rotated = None
        temporary, new = files.open_temporary(self.path, old)
        try:
            self._fill(fd, new, edit)
            kept = files.common_lines(fd, new) if edit.source else edit.kept
            status = os.fstat(new)
            identity = Identity.of(status.st_dev, status.st_ino)
            # What it holds is read while a failure to read it can still be undone.
            state = self._base(header.generation + 1, identity, kept, status.st_size)
            for piece in files.read_lines(new, state.position, status.st_size):
                state = state.fold(piece)
            _platform.require_replaceable(self.path)
            if announce:
                intent = Replacing(identity, kept)
                self.lock.announce(header.announcing(intent), announce, durable=False)
            rotated = files.keep_old(self.path, fd, old)
            self._note(header, announce or "repair", kept, rotated, old)
            # Whatever the durability: the new name must not be on the disk before the old file's.
            _platform.sync_folder(os.path.dirname(self.path))
            if not _platform.KEEPS_FILES_OPEN:
                os.close(new)
                new = -1
            self._close_data()
            self._require_untouched(old)
            _platform.replace_file(temporary, self.path)
        except BaseException:
            if not _platform.KEEPS_FILES_OPEN:  # and removes none that are open
                self._close_data()
                if new >= 0:
                    os.close(new)
                    new = -1
            self._undo_exchange(temporary, rotated, header if announce else None)
            raise
        finally:
            if new >= 0:
                files.close(new)
        header = Header(header.generation + 1, identity, status.st_size, kept, turn=header.turn)
        self._view = View(header.generation, identity, state, kept)
        try:
            if not announce:
                # Nothing in the header would tell whose bytes these are, were the old file back.
                _platform.sync_folder(os.path.dirname(self.path))
            with self._data() as new_fd:
                header = self._publish(new_fd, header, status.st_size, os.fstat(new_fd).st_mtime_ns)
        except OSError as error:
            log.warning("%s: replaced, but the header is not written: %s", self.path, error)
        return header, rotated

    def _cut_back(self, fd: int, length: int) -> None:
        """Cut bytes of ours off the file's end, on the disk too, before the announcement goes.

        Were they back after a power cut, nobody would know them any more.
        """
        _platform.truncate(fd, self.path, length)
        if not self._poisoned:
            _platform.sync_data(fd)

    def _fill(self, source: int, new: int, edit: Edit) -> None:
        if edit.front:
            files.write_all(new, edit.front)
        if edit.source:
            other = _platform.open_file(edit.source, os.O_RDONLY)
            try:
                files.copy_range(other, new, *edit.ranges[0])
                files.end_line(new)
            finally:
                os.close(other)
        else:
            for start, stop in edit.ranges:
                files.copy_range(source, new, start, stop)
        if edit.lines:
            files.write_all(new, b"".join(edit.lines))
        _platform.sync_data(new)

    def _note(
        self, header: Header, operation: str, kept: int, rotated: str, old: os.stat_result
    ) -> None:
        """Write the replace into the diary; it goes on without, too."""
        ended = Revision(header.generation, header.committed)
        try:
            lineage.write_replaced(self.path, operation, ended, kept, rotated, old)
        except OSError as error:
            log.warning("%s: the lineage is not written: %s", self.path, error)

    def _require_untouched(self, old: os.stat_result) -> None:
        """The last look before the swap: what others wrote since would miss the new file."""
        if not self.lock.is_current():
            raise Overtaken
        now = os.stat(self.path)
        if not os.path.samestat(now, old) or now.st_size != old.st_size:
            raise Overtaken

    def _undo_exchange(self, temporary: str, rotated: str | None, header: Header | None) -> None:
        """Clean up, unless the swap has happened, which an interrupt may hide."""
        try:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                return
            if rotated is not None:
                with files.suppress_blocked():
                    os.unlink(rotated)
            if header is not None:
                self.lock.publish(header)
        except OSError as error:
            log.warning("%s: leftovers of a failed replace stay for now: %s", self.path, error)

    # ---- what survives a power cut --------------------------------------------------------------

    def _is_on_disk(self, at: Revision) -> bool:
        return at.generation == self._on_disk.generation and at <= self._on_disk

    def _sync(self, fd: int, upto: Revision) -> None:
        """Have the session on the disk up to here."""
        with self._poisoning():
            _platform.sync_data(fd)
        if upto.generation != self._on_disk.generation:
            self._sync_names()
        self._on_disk = upto

    def _sync_names(self) -> None:
        """Have a generation on the disk that is new to us: its files' names, and its number.

        Somebody may have begun it who waited for no disk.
        """
        with self._poisoning():
            for folder in {os.path.dirname(self.path), os.path.dirname(self.lock.path)}:
                _platform.sync_folder(folder)
            self.lock.sync()

    def _require_confirmed(self) -> None:
        if self._poisoned:
            raise SyncFailed(self.path, "an earlier write was not confirmed by the disk")

    @contextmanager
    def _poisoning(self) -> Iterator[None]:
        """After a sync that failed nobody knows what is on the disk: refuse from then on.

        The next one might succeed, and prove nothing.
        """
        self._require_confirmed()
        try:
            yield
        except OSError as error:
            self._poisoned = True
            raise SyncFailed(self.path, "sync to the disk", error.errno) from error

    # ---- taking out, publishing -----------------------------------------------------------------

    def _splice(self, fd: int, header: Header, *cuts: Range) -> Header:
        """Take our bytes out from between foreign ones, by a new file without them.

        The old announcement stays until the new file is there: a crash before that finds the same
        splice to do, a crash after it a file that is whole.
        """
        size = os.fstat(fd).st_size
        header = replace(header, committed=size)
        edges = [0, *(edge for cut in cuts for edge in cut), size]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        ranges = tuple((start, stop) for start, stop in pairs if start < stop)
        open_end = ranges and _platform.pread(fd, 1, ranges[-1][1] - 1) != b"\n"
        edit = Edit(b"", ranges, (b"\n",) if open_end else (), True, (), self.state)
        new, rotated = self._exchange(fd, header, edit, announce="")
        self._repaired(cuts[0][0], sum(stop - start for start, stop in cuts), rotated)
        return new

    def _repaired(self, offset: int, length: int, where: str) -> None:
        repair = Repair(offset, length, where)
        self.repairs += (repair,)
        log.warning("%s: %s", self.path, repair)

    def _publish(
        self, fd: int, header: Header, committed: int, modified: int, mark: bytes = b""
    ) -> Header:
        """Write down that the file is good up to here; the header as written.

        `modified` is its modification time (ns), seen when it was as long as that, and `mark` what
        its last bytes are, where that is known.
        """
        mark = mark or files.read_all(fd, max(0, committed - MARK), committed)
        published = Header(
            header.generation,
            header.identity,
            committed,
            header.kept,
            modified,
            len(mark),
            crc32(mark),
            self._boot,
            None,
            self.lock.serial + 1,
            header.turn,
        )
        self.lock.publish(published)
        return published
