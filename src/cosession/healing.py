"""What whoever takes the lock does first: bring file, header and memory to one state.

1. A write that was announced and not finished is completed or undone; undone bytes are kept aside.
2. Lines of programs that take no lock are adopted, and an unfinished one of theirs is closed. No
   foreign byte is ever cut.
3. What other processes committed is folded into memory.
4. Usually nothing of that is needed: one stat and one read tell.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import suppress

from . import _platform, files
from .errors import HardLinked, StorageError
from .files import translated
from .header import MASK, Appending, Header, Identity, Replacing
from .reading import LOOKS, View, bears_mark
from .repair import Cut, Splice, plan_repair
from .replacing import FileReplacer, Overtaken
from .values import value

log = logging.getLogger("cosession")

_GRACE = 0.05
"""Seconds for which an unfinished foreign line may still grow before it is closed."""


@value
class Survey:
    """What is found when the lock has just been taken."""

    header: Header | None
    identity: Identity
    settled: bool
    """Whether there is nothing to heal."""


class FileHealer(FileReplacer):
    """Can settle what it finds. The lock is held."""

    def settle(self) -> None:
        """Bring file, header and memory to one state. The lock is held.

        Raises:
            HardLinked: The file has a second name.
            StorageError: The file can't be read or mended; nothing is lost.
        """
        with self._mutex, translated(self.path, "read the session"):
            for _ in range(LOOKS):
                with suppress(Overtaken):
                    self._settle()
                    return
            raise StorageError(self.path, "settle between the writes of another program")

    def _settle(self, survey: Survey | None = None) -> Header:
        survey = survey or self._survey()
        header = survey.header
        if not survey.settled or header is None:
            header = self._heal(header, survey.identity)
        self._catch_up(header)
        return header

    def _survey(self) -> Survey:
        """Compare the file with the header: one stat and one read."""
        header = self.lock.read()
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            if not self._create:
                raise
            self._create_file()
            status = os.stat(self.path)
        if not stat.S_ISREG(status.st_mode):
            files.require_plain_file(self.path)
        if status.st_nlink > 1:
            links = files.drop_second_name(self.path, status)
            if links > 1:
                raise HardLinked(self.path, links)
        identity = Identity.of(status.st_dev, status.st_ino)
        if identity != self._view.identity:
            self._close_data()
        settled = header is not None and self._is_settled(header, status)
        return Survey(header, identity, settled)

    def _is_settled(self, header: Header, status: os.stat_result) -> bool:
        """Whether nothing happened to the file but what the header says."""
        return (
            header.intent is None
            and header.committed == status.st_size
            and header.modified == status.st_mtime_ns
            and header.identity.inode == status.st_ino & MASK
            and header.identity.device == status.st_dev & MASK
            and header.boot == self._boot
        )

    def _create_file(self) -> None:
        with translated(self.path, "create the session"):
            files.create(self.path)

    def _catch_up(self, header: Header) -> None:
        """Fold in what is between the state in memory and what the header calls good."""
        if self._view.mark is not None:
            with self._data() as fd:
                self._drop_rewritten(fd)
        state = self._base(header.generation, header.identity, header.kept, header.committed)
        if state.position < header.committed:
            with self._data() as fd:
                for piece in files.read_lines(fd, state.position, header.committed):
                    state = state.fold(piece)
        self._view = View(header.generation, header.identity, state, header.kept)

    def _heal(self, header: Header | None, identity: Identity) -> Header:
        """Settle what the last one left, adopt what foreign programs wrote, publish that."""
        with self._data() as fd:
            good = self._last_good(fd, header, identity)
            intent = header.intent if header else None
            if header and isinstance(intent, Appending) and good.generation == header.generation:
                cuts = self._finish_append(fd, intent)
                if cuts:
                    good = self._splice(fd, good, *cuts)
        with self._data() as fd:
            status = self._close_last_line(fd)
            good = self._publish(fd, good, status.st_size, status.st_mtime_ns)
        if isinstance(intent, Replacing):
            files.remove_leftovers(self.path)
        return good

    def _last_good(self, fd: int, header: Header | None, identity: Identity) -> Header:
        """Where the file is known to be good, and in which generation."""
        size = os.fstat(fd).st_size
        if header is None:
            # It can't be known how many replaces there were. The clock's microseconds are more.
            return Header(max(time.time_ns() // 1000, self.generation + 1), identity, 0)
        match header.intent:
            case Replacing(identity=new, kept=kept) if new == identity:
                return Header(header.generation + 1, identity, size, kept, turn=header.turn)
        if identity == header.identity and size >= header.committed and bears_mark(fd, header):
            return header
        log.warning("%s was rewritten by a program that takes no lock; reading it anew", self.path)
        return Header(header.generation + 1, identity, 0, turn=header.turn)

    def _finish_append(self, fd: int, intent: Appending) -> list[files.Range]:
        """Settle an announced append whose process died; what a splice has to take out of the file,
        if it takes one.
        """
        tail = files.read_all(fd, intent.start, os.fstat(fd).st_size)
        match plan_repair(intent, tail):
            case Cut():
                where = files.put_aside(self.path, tail, os.fstat(fd))
                if os.fstat(fd).st_size != intent.start + len(tail):
                    raise Overtaken  # putting aside takes a sync; nobody else's bytes are cut
                self._cut_back(fd, intent.start)
                self._repaired(intent.start, len(tail), where)
            case Splice(cuts):
                return [(intent.start + start, intent.start + stop) for start, stop in cuts]
        return []

    def _close_last_line(self, fd: int) -> os.stat_result:
        """End a line that a program without our lock left open, once it no longer grows.

        Returns:
            The file's status as of when its last line had an end. The next one may have begun
            since: whoever calls that good would have the next append made the end of it.
        """
        while True:
            for _ in range(20):
                status = os.fstat(fd)
                if status.st_size == 0 or _platform.pread(fd, 1, status.st_size - 1) == b"\n":
                    return status
                if abs(time.time() - status.st_mtime) > _GRACE:
                    break
                time.sleep(_GRACE / 5)
            files.write_all(fd, b"\n")
