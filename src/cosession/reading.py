"""The session file as it can be read without the lock; the state in memory follows the file.

1. A reader takes no lock. It may see whole records up to *committed*, and foreign lines behind it
   if no write is under way.
2. What it reads is right however long that takes: committed bytes never change within a file, and
   a file that is replaced meanwhile stays open. The header, read before and after, tells.
3. The state in memory changes only to what the file's records up to `revision` fold to. Where that
   can't be told any more, it is dropped and read anew.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from zlib import crc32

from . import _fork, _platform, files, lineage
from .errors import NotASession, StorageError, UnknownRevision
from .files import translated
from .header import Appending, Header, Identity, Replacing
from .lock import LockFile, Peek
from .records import Holder, Revision, TurnCard
from .repair import Adopt, plan_repair
from .state import State
from .turn_lock import Turns
from .values import replace, value

MARK = 256
"""How many bytes before *committed* the fingerprint covers."""

LOOKS = 10
"""How often a reader without the lock looks again when it meets a change under way."""


@value
class View:
    """What is known of the file, replaced as one, since other threads read it at any time."""

    generation: int
    identity: Identity | None
    state: State
    kept: int = 0
    """How many bytes at the start this generation shares with the one before."""
    mark: int | None = None
    """The checksum of the last bytes that were read, where no header vouches for them: `None` if
    one does."""


NOTHING = View(0, None, State())


class FileReader:
    """One handle on one session file, and what it has read of it.

    Methods exclude each other among the threads of this process by themselves; the state may be
    read at any time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: bool = False,
        create: bool = True,
        read_only: bool = False,
        lock_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options = (path, durable, create, read_only, lock_dir)
        self.path = files.resolve(path)
        self.durable = durable
        self.read_only = read_only
        self._create = create and not read_only
        lock_path = files.lock_path(self.path, lock_dir)
        self.lock = LockFile(lock_path, beside=self.path)
        self.turns = Turns(lock_path.removesuffix(".lock") + ".turn", beside=self.path)
        self._view = NOTHING
        self._fd = -1
        self._mutex = threading.RLock()
        _fork.watch(self)

    @property
    def view(self) -> View:
        return self._view

    @property
    def state(self) -> State:
        return self._view.state

    @property
    def knows_nothing(self) -> bool:
        """Whether the state was dropped, or never read."""
        return self._view is NOTHING

    @property
    def generation(self) -> int:
        """0 while nothing is known of any: no lock file, or one that can't be read."""
        return self._view.generation

    @property
    def revision(self) -> Revision:
        view = self._view
        return Revision(view.generation, view.state.position)

    # ---- opening and closing --------------------------------------------------------------------

    def close(self) -> None:
        with self._mutex:
            self.lock.close()
            self._close_data()

    def forget(self) -> None:
        """Let go of everything, so that the next operation starts from the file."""
        with self._mutex:
            self.close()
            self._view = NOTHING

    def after_fork_in_child(self) -> None:
        # Another thread may have been in the middle of anything. The lock file looks after itself.
        self._mutex = threading.RLock()
        self._close_data()
        self._view = NOTHING

    @contextmanager
    def _data(self) -> Iterator[int]:
        """The data file, open. Where open files don't block anybody it stays open."""
        if self._fd < 0:
            access = os.O_RDONLY if self.read_only else os.O_RDWR | os.O_APPEND
            fd = _platform.open_file(self.path, access)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise NotASession(self.path, "its place is taken by something not a file")
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
        try:
            yield self._fd
        finally:
            if not _platform.KEEPS_FILES_OPEN:
                self._close_data()

    def _close_data(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            files.close(fd)

    # ---- reading --------------------------------------------------------------------------------

    def look(self, *, turn: int | None = None) -> bool:
        """Fold in what others wrote, without the lock. Tells whether all of the file was seen.

        With `turn`, no further than to where another turn than that one began, if one is on.

        Where not all was seen, a change is under way, or was left over by a process that died, or a
        program that takes no lock replaced the file: `settle` sees the rest.
        """
        with self._mutex, translated(self.path, "read the session"):
            for attempt in range(LOOKS):
                if self._create and not os.path.exists(self.path):
                    return False
                with self.lock.peeking() as peek:
                    header = peek() if peek else None
                    torn = header is None and peek is not None and not peek.empty()
                    still = partial(self._still, peek, header)
                    if not torn and (seen := self._look(header, still, turn)) is not None:
                        return seen
                time.sleep(0.0002 * 2**attempt)
            # The header stays unreadable or speaks of another file: the file itself counts.
            self._look(None, lambda: True)
            return False

    def _still(self, peek: Peek | None, header: Header | None) -> bool:
        """Whether header and lock file are as they were: none of us has written meanwhile.

        A lock file that was unlinked stays as it is for ever, whatever is written under the next
        one; and where there was none, whoever writes makes one.
        """
        if peek is None:
            with self.lock.peeking() as now:
                return now is None
        return self.lock.is_at_its_path(peek.fd) and peek() == header

    def _look(
        self, header: Header | None, still: Callable[[], bool], turn: int | None = None
    ) -> bool | None:
        """One attempt; None if the header and the file that was found don't belong together."""
        self._follow_path()
        with self._data() as fd:
            status = os.fstat(fd)
            identity, size = Identity.of(status.st_dev, status.st_ino), status.st_size
            match header:
                case None:
                    generation, kept, committed = 0, 0, 0
                case Header(intent=Replacing(identity=new, kept=kept)) if new == identity:
                    if not still():
                        return None  # the size may include half of what others append by now
                    generation, committed = header.generation + 1, size
                case _:
                    generation, kept, committed = header.generation, header.kept, header.committed
                    if identity != header.identity or size < committed:
                        return None
                    touched = header.intent is None and header.modified != status.st_mtime_ns
                    if touched and not bears_mark(fd, header):
                        # Rewritten in place by a program that takes no lock.
                        header = None
                        generation, kept, committed = 0, 0, 0
            self._drop_rewritten(fd)
            state = self._base(generation, identity, kept, size)
            if header and turn is not None and header.turn not in (0, turn):
                card = self.turns.read()
                if card and card.token == header.turn and card.began.generation == generation:
                    size = committed = max(state.position, card.began.position)
            for piece in files.read_lines(fd, state.position, committed):
                state = state.fold(piece)
            if size > state.position and self._is_quiet(fd, header, size):
                # Lines of a program that takes no lock, unless one of ours is just being written:
                # then its announcement shows in the header by now.
                stop = files.last_line_end(fd, state.position, size)
                pieces = list(files.read_lines(fd, state.position, stop))
                if still():
                    for piece in pieces:
                        state = state.fold(piece)
                elif header is None:
                    return None  # nothing else says how far the file is good
            vouched = generation and state.position <= committed
            mark = None if vouched else checksum_before(fd, state.position)
        self._view = View(generation, identity, state, kept, mark)
        return header is not None and header.intent is None and state.position == size

    def _is_quiet(self, fd: int, header: Header | None, size: int) -> bool:
        """Whether what is behind *committed* will stay, as far as the header knows."""
        if header is None or header.intent is None:
            return True
        if header.boot == self._boot or not isinstance(header.intent, Appending):
            return False
        # It was announced before a power cut, which may have kept all of it but the publishing.
        tail = files.read_all(fd, header.intent.start, size)
        return isinstance(plan_repair(header.intent, tail), Adopt)

    @cached_property
    def _boot(self) -> bytes:
        return _platform.boot_id()

    def _base(self, generation: int, identity: Identity, kept: int, limit: int) -> State:
        """What of the state in memory still holds, to fold the rest into."""
        view = self._view
        if generation == view.generation:
            holds = identity == view.identity and view.state.position <= limit
            return view.state if holds else State()
        if generation == view.generation + 1 and kept and view.generation and view.identity:
            return view.state.truncated(kept)
        return State()

    def _drop_rewritten(self, fd: int) -> None:
        """Don't build on foreign lines that were read before anybody adopted them, and are gone."""
        view = self._view
        if view.mark is not None and checksum_before(fd, view.state.position) != view.mark:
            self._view = replace(view, identity=None)

    def _follow_path(self) -> None:
        """Open the file anew if its name leads to another one now."""
        if self._fd < 0:
            return
        if not os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
            self._close_data()

    def serial(self) -> int:
        """A number that changes with everything that anybody does to the session."""
        with self.lock.peeking() as peek:
            header = peek() if peek else None
        return header.serial if header else 0

    def turn_that_is_on(self) -> TurnCard | None:
        """The card of the turn that the header names, live or interrupted. Takes no lock."""
        header = self._glimpse()
        while header is not None and header.turn:
            card = self.turns.read()
            if card and card.token == header.turn:
                return card
            last, header = header, self._glimpse()
            if header == last:  # otherwise it is over, and the card was that of the next one
                return self._unknown_turn(header)
        return None

    def _glimpse(self) -> Header | None:
        """The header, without the lock; a few looks if it is just being written."""
        with self.lock.peeking() as peek:
            for _ in range(LOOKS):
                header = peek() if peek else None
                if header is not None or peek is None or peek.empty():
                    return header
                time.sleep(0.0002)
        return None

    def _unknown_turn(self, header: Header) -> TurnCard:
        """A turn whose card is lost: it is taken to begin where the session stands."""
        return TurnCard(Holder(0), self.revision, header.turn)

    # ---- copies ---------------------------------------------------------------------------------

    def open_snapshot(self) -> tuple[int, int]:
        """The session as it is now: an open descriptor, for the caller to close, and its length.

        The bytes up to there stay as they are, whatever happens to the session. On Windows nobody
        can replace the file before the descriptor is closed.
        """
        for _ in range(LOOKS):
            self.look()
            view = self._view
            with translated(self.path, "read the session"):
                fd = _platform.open_file(self.path, os.O_RDONLY)
                try:
                    status = os.fstat(fd)
                except BaseException:
                    os.close(fd)
                    raise
            if Identity.of(status.st_dev, status.st_ino) == view.identity:
                return fd, view.state.position
            os.close(fd)
        raise StorageError(self.path, "read the session while it is replaced again and again")

    def open_at(self, at: Revision) -> int:
        """A file that holds the session as of a revision, open, for the caller to close.

        The live file, or the rotated one of that generation. The bytes up to `at` stay as they
        are.

        Raises:
            UnknownRevision: There is no such file, or no record ends there.
        """
        with translated(self.path, "read the session"):
            for _ in range(LOOKS):
                self.look()
                if (fd := self._open_at(at)) is not None:
                    return fd
        raise StorageError(self.path, "read the session while it is replaced again and again")

    def _open_at(self, at: Revision) -> int | None:
        """One attempt; None if the file was replaced meanwhile."""
        view = self._view
        live = at.generation == view.generation
        path = self.path if live else lineage.file_of(self.path, at)
        if path is None:
            raise UnknownRevision(self.path, at, "no file is known to hold it")
        fd = _platform.open_file(path, os.O_RDONLY)
        try:
            status = os.fstat(fd)
            if live and not self._is_still(view, Identity.of(status.st_dev, status.st_ino)):
                os.close(fd)
                return None
            known = view.state.position if live else status.st_size
            ends = _platform.pread(fd, 1, at.position - 1) if at.position > 0 else b"\n"
            if ends != b"\n" or not 0 <= at.position <= known:
                raise UnknownRevision(self.path, at, "no record ends there")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _is_still(self, view: View, identity: Identity) -> bool:
        """Whether a file that was just opened is the one that was looked at.

        Its inode may have been given to the next generation's file meanwhile.
        """
        if identity != view.identity:
            return False
        with self.lock.peeking() as peek:
            header = peek() if peek else None
        return header is None or view.generation in (0, header.generation)


def checksum_before(fd: int, position: int) -> int:
    """A checksum of the file's bytes before a position."""
    return crc32(files.read_all(fd, max(0, position - MARK), position))


def bears_mark(fd: int, header: Header) -> bool:
    """Whether the bytes before *committed* are still those of then."""
    start = header.committed - header.mark_length
    return crc32(files.read_all(fd, start, header.committed)) == header.mark
