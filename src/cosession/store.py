"""The session file: commit, replace, heal, read. Blocking; the state in memory follows the file.

1. Records are appended: announced in the lock file's header, written in one write, then published
   by moving *committed* behind them. Revert, clear, compaction and a new system prompt write a
   new file instead and replace the old one, which is kept under the next rotation name.
2. All of that happens under the lock. Whoever takes it first settles what it finds: a write that
   was announced and not finished is completed or undone, lines of programs that take no lock are
   adopted, and what other processes committed is folded into memory.
3. A reader takes no lock. It may see whole records up to *committed*, and foreign lines behind it
   if no write is under way.
4. A failure undoes exactly what a crash at that point would have left behind. If even that fails,
   the announcement stays, and the next one to take the lock settles it.
5. The state in memory changes only after the bytes are in, and is always the fold of the file's
   records up to `revision`. Where that can't be told any more, it is dropped and read anew.
6. Up to `os.replace` a replacement can be undone, after it only be completed: the header that
   announced it says which file is the new one, so everybody can tell on which side it stopped.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from zlib import crc32

from . import _fork, _platform, files, lineage
from .edits import Add, AddCheckpoint, Edit, Range, Step, plan_edit
from .errors import (
    Conflict,
    CosessionError,
    HardLinked,
    NotASession,
    SessionMissing,
    StorageError,
    SyncFailed,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
    UnknownRevision,
)
from .files import translated
from .header import Appending, Header, Identity, Replacing, Span
from .lock import LockFile, Peek
from .records import Holder, Outcome, Repair, Revision, TurnCard
from .repair import Cut, RepairPlan, Splice, plan_repair
from .state import Decoder, State
from .turn_lock import Turns

log = logging.getLogger("cosession")

_MARK = 256
"""How many bytes before *committed* the fingerprint covers."""

_GRACE = 0.05
"""Seconds for which an unfinished foreign line may still grow before it is closed."""

QUICK = 64 << 10
"""Bytes that may be read and written without a thread: some 30 µs of the page cache's time."""

_LOOKS = 10
"""How often a reader without the lock looks again when it meets a change under way."""


@dataclass(frozen=True, slots=True)
class Request:
    """One operation, ready to be committed: its records are encoded."""

    name: str
    steps: tuple[Step, ...]
    expect: Revision | None = None
    turn: int = 0
    """The turn that it is part of; 0 if none."""
    any_time: bool = False
    """Whether somebody else's turn is no obstacle: a token count carries no order."""
    begins: Callable[[Revision], int] | None = None
    """Makes the card of a turn that begins with this operation, and returns the turn's number."""
    ends: bool = False
    """Whether the turn that is on is over behind this operation."""
    settles: int = 0
    """The interrupted turn that this operation decides about; no other one."""
    alone: bool = False
    """Whether the caller has the turn's lock: then a turn that is on was interrupted."""
    decode: Decoder | None = None
    """What a conflict shows the records with that came in."""


Result = Outcome | Exception


@dataclass(frozen=True, slots=True)
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


_NOTHING = View(0, None, State())


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is found when the lock has just been taken."""

    header: Header | None
    identity: Identity
    settled: bool
    """Whether nothing happened to the file but what the header says."""


@dataclass(frozen=True, slots=True)
class _Own:
    """What this handle has written in its turn, with nobody else's messages in between.

    Whoever expects a revision of its course knows all of it, and so expects its end.
    """

    turn: int
    start: Revision
    end: Revision

    def __contains__(self, revision: Revision) -> bool:
        return self.start <= revision <= self.end


class _Overtaken(Exception):
    """A program that takes no lock got in between; what was half done is undone: do it again."""


class Store:
    """One handle on one session file.

    `commit` and `settle` need the lock (`store.lock`); `look` doesn't. Methods exclude each other
    among the threads of this process by themselves; the state may be read at any time.
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
        self._view = _NOTHING
        self.repairs: tuple[Repair, ...] = ()
        self._fd = -1
        self._poisoned = False
        self._own = _Own(0, Revision(0, 0), Revision(0, 0))
        self._boot = _platform.boot_id()
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
        return self._view is _NOTHING

    @property
    def generation(self) -> int:
        """0 while nothing is known of any: no lock file, or one that can't be read."""
        return self._view.generation

    @property
    def revision(self) -> Revision:
        view = self._view
        return Revision(view.generation, view.state.position)

    # ---- opening and closing ----------------------------------------------------------------

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
            with translated(self.path, "look for leftovers"):
                files.remove_leftovers(self.path)
                if self.durable:  # announcements are no use if the lock file itself is lost
                    _platform.sync_folder(os.path.dirname(self.lock.path))
            self.settle()
        finally:
            self.lock.release()

    def fresh(self) -> Store:
        """Another handle of the same kind. A closed one may have a thread asleep on its lock."""
        _, durable, create, read_only, lock_dir = self._options
        return Store(
            self.path, durable=durable, create=create, read_only=read_only, lock_dir=lock_dir
        )

    def close(self) -> None:
        with self._mutex:
            self.lock.close()
            self._close_data()

    def forget(self) -> None:
        """Let go of everything, so that the next operation starts from the file."""
        with self._mutex:
            self.close()
            self._view = _NOTHING

    def after_fork_in_child(self) -> None:
        # Another thread may have been in the middle of anything. The lock file looks after itself.
        self._mutex = threading.RLock()
        self._close_data()
        self._view = _NOTHING

    def _create_file(self) -> None:
        with translated(self.path, "create the session"):
            files.create(self.path)
            if self.durable:
                _platform.sync_folder(os.path.dirname(self.path))

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
            os.close(fd)

    # ---- reading without the lock -----------------------------------------------------------

    def look(self) -> bool:
        """Fold in what others wrote, without the lock. Tells whether all of the file was seen.

        Where it wasn't, a change is under way, or was left over by a process that died, or a
        program that takes no lock replaced the file: `settle` sees the rest.
        """
        with self._mutex, self.lock.peeking() as peek, translated(self.path, "read the session"):
            for attempt in range(_LOOKS):
                if self._create and not os.path.exists(self.path):
                    return False
                header = peek() if peek else None
                torn = header is None and peek is not None and not peek.empty()
                if not torn and (seen := self._look(header, peek)) is not None:
                    return seen
                time.sleep(0.0002 * 2**attempt)
            # The header stays unreadable or speaks of another file: the file itself counts.
            self._look(None, None)
            return False

    def _look(self, header: Header | None, peek: Peek | None) -> bool | None:
        """One attempt; None if the header and the file that was found don't belong together."""
        self._follow_path()
        with self._data() as fd:
            status = os.fstat(fd)
            identity, size = Identity.of(status.st_dev, status.st_ino), status.st_size
            match header:
                case None:
                    generation, kept, committed = 0, 0, 0
                case Header(intent=Replacing(identity=new, kept=kept)) if new == identity:
                    generation, committed = header.generation + 1, size
                case _:
                    generation, kept, committed = header.generation, header.kept, header.committed
                    if identity != header.identity or size < committed:
                        return None
                    touched = header.intent is None and header.modified != status.st_mtime_ns
                    if touched and not _bears_mark(fd, header):
                        # Rewritten in place by a program that takes no lock.
                        header = peek = None
                        generation, kept, committed = 0, 0, 0
            self._drop_rewritten(fd)
            state = self._base(generation, identity, kept, size)
            for piece in files.read_lines(fd, state.position, committed):
                state = state.fold(piece)
            if size > state.position and (header is None or header.intent is None):
                # Lines of a program that takes no lock, unless one of ours is just being written:
                # then its announcement shows in the header by now.
                stop = files.last_line_end(fd, state.position, size)
                pieces = list(files.read_lines(fd, state.position, stop))
                if peek is None or peek() == header:
                    for piece in pieces:
                        state = state.fold(piece)
            vouched = generation and state.position <= committed
            mark = None if vouched else _mark(fd, state.position)
        self._view = View(generation, identity, state, kept, mark)
        return header is not None and header.intent is None and state.position == size

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
        if view.mark is not None and _mark(fd, view.state.position) != view.mark:
            self._view = replace(view, identity=None)

    def _follow_path(self) -> None:
        """Open the file anew if its name leads to another one now."""
        if self._fd < 0:
            return
        if not os.path.samestat(os.fstat(self._fd), os.stat(self.path)):
            self._close_data()

    def open_snapshot(self) -> tuple[int, int]:
        """The session as it is now: an open descriptor, for the caller to close, and its length.

        The bytes up to there stay as they are, whatever happens to the session. On Windows nobody
        can replace the file before the descriptor is closed.
        """
        for _ in range(_LOOKS):
            self.look()
            view = self._view
            with translated(self.path, "read the session"):
                fd = _platform.open_file(self.path, os.O_RDONLY)
            status = os.fstat(fd)
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
            for _ in range(_LOOKS):
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

    def serial(self) -> int:
        """A number that changes with everything that anybody does to the session."""
        with self.lock.peeking() as peek:
            header = peek() if peek else None
        return header.serial if header else 0

    def turn_that_is_on(self) -> TurnCard | None:
        """The card of the turn that the header names, live or interrupted. Takes no lock."""
        with self.lock.peeking() as peek:
            header = peek() if peek else None
        if header is None or not header.turn:
            return None
        card = self.turns.read()
        return card if card and card.token == header.turn else self._unknown_turn(header)

    # ---- settling, under the lock -----------------------------------------------------------

    def settle(self) -> None:
        """Bring file, header and memory to one state. The lock is held.

        Raises:
            HardLinked: The file has a second name.
            StorageError: The file can't be read or mended; nothing is lost.
        """
        with self._mutex, translated(self.path, "read the session"):
            for _ in range(_LOOKS):
                with suppress(_Overtaken):
                    self._settle()
                    return
            raise StorageError(self.path, "settle between the writes of another program")

    def _settle(self, survey: _Survey | None = None) -> Header:
        survey = survey or self._survey()
        header = survey.header
        if not survey.settled or header is None:
            header = self._heal(header, survey.identity)
        self._catch_up(header)
        return header

    def _survey(self) -> _Survey:
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
        settled = (
            header is not None
            and header.intent is None
            and header.identity == identity
            and header.committed == status.st_size
            and header.modified == status.st_mtime_ns
            and header.boot == self._boot
        )
        return _Survey(header, identity, settled)

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
            if isinstance(intent, Replacing):
                files.remove_leftovers(self.path)
            elif intent is not None and header and good.generation == header.generation:
                splice = self._finish_append(fd, intent)
                if splice is not None:
                    good = self._splice(fd, good, (splice.start, splice.stop))
        with self._data() as fd:
            self._close_last_line(fd)
            return self._publish(fd, good, os.fstat(fd).st_size)

    def _last_good(self, fd: int, header: Header | None, identity: Identity) -> Header:
        """Where the file is known to be good, and in which generation."""
        size = os.fstat(fd).st_size
        if header is None:
            # It can't be known how many replaces there were. The clock's microseconds are more.
            return Header(max(time.time_ns() // 1000, self.generation + 1), identity, 0)
        match header.intent:
            case Replacing(identity=new, kept=kept) if new == identity:
                return Header(header.generation + 1, identity, size, kept, turn=header.turn)
        if identity == header.identity and size >= header.committed and _bears_mark(fd, header):
            return header
        log.warning("%s was rewritten by a program that takes no lock; reading it anew", self.path)
        return Header(header.generation + 1, identity, 0, turn=header.turn)

    def _finish_append(self, fd: int, intent: Appending) -> Splice | None:
        """Settle an announced append whose process died; the splice if that is what it takes."""
        tail = files.read_all(fd, intent.start, os.fstat(fd).st_size)
        match plan_repair(intent, tail):
            case Cut():
                where = files.put_aside(self.path, tail, os.fstat(fd))
                _platform.truncate(fd, self.path, intent.start)
                self._repaired(intent.start, len(tail), where)
            case Splice(start, stop):
                return Splice(intent.start + start, intent.start + stop)
        return None

    def _repaired(self, offset: int, length: int, where: str) -> None:
        repair = Repair(offset, length, where)
        self.repairs += (repair,)
        log.warning("%s: %s", self.path, repair)

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

    def _close_last_line(self, fd: int) -> None:
        """End a line that a program without our lock left open, once it no longer grows."""
        for _ in range(20):
            status = os.fstat(fd)
            if status.st_size == 0 or _platform.pread(fd, 1, status.st_size - 1) == b"\n":
                return
            if abs(time.time() - status.st_mtime) > _GRACE:
                break
            time.sleep(_GRACE / 5)
        files.write_all(fd, b"\n")

    def _publish(self, fd: int, header: Header, committed: int, mark: bytes = b"") -> Header:
        """Write down that the file is good up to here; the header as written.

        `mark` is what its last bytes are, where that is known.
        """
        mark = mark or files.read_all(fd, max(0, committed - _MARK), committed)
        published = Header(
            header.generation,
            header.identity,
            committed,
            header.kept,
            os.fstat(fd).st_mtime_ns,
            len(mark),
            crc32(mark),
            self._boot,
            turn=header.turn,
        )
        self.lock.publish(published)
        return published

    # ---- committing, under the lock ---------------------------------------------------------

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
        survey: _Survey | None,
        settled: dict[int, Result] | None,
    ) -> list[Result]:
        results: dict[int, Result] = {} if settled is None else settled
        try:
            for _ in range(_LOOKS):
                with suppress(_Overtaken):
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
        self, requests: Sequence[Request], results: dict[int, Result], survey: _Survey | None
    ) -> None:
        """Carry out those that have no result yet."""
        if self._poisoned:
            raise SyncFailed(self.path, "an earlier write was not confirmed by the disk")
        with translated(self.path, "read the session"):
            header = self._settle(survey)
        batch = _Batch(self.generation, self.state, self._own_so_far())
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
                    batch = _Batch(self.generation, self.state, self._own)
                continue
            header = self._append(header, batch, results)
            if header.committed != batch.state.position:
                raise _Overtaken  # the edit was planned for other offsets
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
            batch = _Batch(self.generation, self.state, self._own)
        self._append(header, batch, results)

    def _own_so_far(self) -> _Own:
        """What of our turn still is ours alone: a program without our lock ends that."""
        own, current = self._own, self.revision
        if own.turn and (
            current.generation != own.end.generation or self.state.messages_since(own.end.position)
        ):
            self._own = _Own(own.turn, current, current)
        return self._own

    def _require_turn(self, header: Header, request: Request) -> Header:
        """Raise, unless the request may be carried out as far as turns go."""
        if request.settles and request.settles != header.turn:
            raise TurnOver(f"{self.path}: the turn is over; another terminal has settled it")
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

    def _unknown_turn(self, header: Header) -> TurnCard:
        """A turn whose card is lost: it is taken to begin where the session stands."""
        return TurnCard(Holder(0), self.revision, header.turn)

    def _mark_turn(self, header: Header, request: Request) -> Header:
        """Note that a turn has begun, or is over."""
        if not (request.begins or request.ends):
            return header
        with translated(self.lock.path, "note the turn"):
            turn = request.begins(self.revision) if request.begins else 0
            self._own = _Own(turn, self.revision, self.revision)
            header = replace(header, turn=turn)
            self.lock.publish(header)
        return header

    def _append(self, header: Header, batch: _Batch, results: dict[int, Result]) -> Header:
        """Write a batch's records behind the file, and note its results."""
        if batch.lines:
            data, start = b"".join(batch.lines), header.committed
            placed: list[Range] = []
            intent = Appending(start, tuple(map(Span.of, batch.lines)))
            with translated(self.path, "append"), self._data() as fd:
                try:
                    # One record that is torn by a power cut is no record. Of several, some could
                    # survive: their announcement must be on the disk before them.
                    durable = self.durable and len(batch.lines) > 1
                    self.lock.announce(header.announcing(intent), batch.name, durable=durable)
                    files.write_all(fd, data, placed)
                    shift = self._place(fd, start, data)
                    if self.durable:
                        self._sync(fd)
                    stop = start + shift + len(data)
                    state = batch.state
                    if shift:
                        state = self.state
                        for piece in files.read_lines(fd, start, stop):
                            state = state.fold(piece)
                    batch.shift(shift)
                    header = self._publish(fd, header, stop, b"" if shift else data[-_MARK:])
                    results.update(batch.outcomes)  # at once: Ctrl-C may come on the way out
                except BaseException as error:
                    known = placed if isinstance(error, Exception) else None
                    if not self._undo_append(fd, header, intent, data, known):
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
            _Overtaken: They were glued to an unfinished line of a program that takes no lock.
        """
        size = os.fstat(fd).st_size
        if size == start + len(data):
            return 0
        tail = files.read_all(fd, start, size)
        at = tail.find(data)
        if at < 0 or (at > 0 and tail[at - 1 : at] != b"\n"):
            raise _Overtaken
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
        try:
            now = self.lock.read()
            if now and now.intent is None and now.committed > intent.start:
                return False  # an interrupt came right behind the publishing: it has happened
            size = os.fstat(fd).st_size
            if placed is not None and self._are_there(fd, placed, data):
                if len(placed) > 1 or (placed and placed[0][1] < size):
                    self._splice(fd, header, *placed)
                    return True
                if placed:
                    _platform.truncate(fd, self.path, placed[0][0])
                self.lock.publish(header)
                return True
            tail = files.read_all(fd, intent.start, size)
            at = tail.find(data)
            splice: RepairPlan = Splice(at, at + len(data))
            if data.startswith(tail) or at + len(data) == len(tail) > at >= 0:
                if tail:
                    _platform.truncate(fd, self.path, intent.start + max(at, 0))
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
        except (OSError, CosessionError, _Overtaken) as error:
            # The announcement stays: whoever takes the lock next finishes this.
            log.warning("%s: could not undo a failed append yet: %s", self.path, error)
        return True

    def _are_there(self, fd: int, placed: list[Range], data: bytes) -> bool:
        """Whether these ranges of the file hold the data's beginning, as they should."""
        found = b"".join(files.read_all(fd, start, stop) for start, stop in placed)
        return data.startswith(found) and len(found) == sum(stop - start for start, stop in placed)

    def _sync(self, fd: int) -> None:
        try:
            _platform.sync_data(fd)
        except OSError as error:
            self._poisoned = True
            raise SyncFailed(self.path, "sync to the disk", error.errno) from error

    def _replace(self, header: Header, edit: Edit, name: str) -> tuple[Header, str]:
        """Put a new file in the old one's place; its header and where the old one was kept."""
        with translated(self.path, f"replace the file ({name})"):
            with self._data() as fd:
                header, rotated = self._exchange(fd, header, edit, announce=name)
            if self.durable:
                try:
                    _platform.sync_folder(os.path.dirname(self.path))
                except OSError as error:
                    self._poisoned = True
                    raise SyncFailed(self.path, "sync the folder", error.errno) from error
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
            raise _Overtaken
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
            if self.durable:
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
                os.close(new)
        header = Header(header.generation + 1, identity, status.st_size, kept, turn=header.turn)
        self._view = View(header.generation, identity, state, kept)
        try:
            with self._data() as new_fd:
                header = self._publish(new_fd, header, status.st_size)
        except OSError as error:
            log.warning("%s: replaced, but the header is not written: %s", self.path, error)
        return header, rotated

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
            raise _Overtaken
        now = os.stat(self.path)
        if not os.path.samestat(now, old) or now.st_size != old.st_size:
            raise _Overtaken

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


def _mark(fd: int, position: int) -> int:
    """A checksum of the file's bytes before a position."""
    return crc32(files.read_all(fd, max(0, position - _MARK), position))


def _bears_mark(fd: int, header: Header) -> bool:
    """Whether the bytes before *committed* are still those of then."""
    start = header.committed - header.mark_length
    return crc32(files.read_all(fd, start, header.committed)) == header.mark


def _weight(request: Request) -> int:
    """Bytes that a request is going to write, as far as that is small and known."""
    return sum(
        sum(map(len, step.lines))
        if isinstance(step, Add)
        else (QUICK + 1) * (not isinstance(step, AddCheckpoint))
        for step in request.steps
    )


class _Batch:
    """Appends that go out in one write, and the state that they would lead to."""

    def __init__(self, generation: int, state: State, own: _Own) -> None:
        self.state = state
        self.own = own
        self.lines: list[bytes] = []
        self.outcomes: dict[int, Outcome] = {}
        self.name = ""
        self._generation = generation

    @property
    def revision(self) -> Revision:
        return Revision(self._generation, self.state.position)

    def plan(self, request: Request, path: str) -> Edit:
        """What the request does behind the batch so far.

        Raises:
            Conflict: It expects an older revision.
            UnknownCheckpoint: It reverts to one that isn't there.
        """
        self._require_expected(request, path)
        return plan_edit(self.state, request.steps, path=path)

    def _require_expected(self, request: Request, path: str) -> None:
        expect, current = request.expect, self.revision
        if expect is None or self._is_own(request, expect):
            return
        known = expect.generation == current.generation and expect.position <= current.position
        new = self.state.messages_since(expect.position) if known else None
        if new == 0:
            return
        assert request.decode is not None
        start = expect.position if known else 0
        records = partial(self.state.records_since, start, request.decode)
        raise Conflict(path, expect, current, new, records)

    def _is_own(self, request: Request, expect: Revision) -> bool:
        """Whether what came since is the turn's own."""
        own = self.own
        if not request.turn or request.turn != own.turn:
            return False
        if expect.generation == own.start.generation and expect < own.start:
            since = self.state.messages_since
            if own.start.generation != self._generation:
                return False
            return since(expect.position) == since(own.start.position)
        return expect in own

    def add(self, number: int, request: Request, edit: Edit) -> None:
        self.state = edit.state
        self.lines += edit.lines
        self.name = self.name or request.name
        if request.turn:
            self.own = replace(self.own, end=self.revision)
        self.outcomes[number] = Outcome(self.revision, edit.checkpoints)

    def shift(self, by: int) -> None:
        """Foreign lines came to lie before ours."""
        self.outcomes = {
            number: replace(
                outcome,
                revision=Revision(self._generation, outcome.revision.position + by),
            )
            for number, outcome in self.outcomes.items()
        }
