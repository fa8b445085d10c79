"""All probes in order, and the private folder in which they work.

1. First the folder is looked at, by a process of its own. If that does not come back, nothing does.
2. Then a folder is made inside it, private and with a name that nobody else takes, and another one
   in the folder for locks, if there is one. The process that made it removes it, at the latest when
   the doctor has gone.
3. Each probe yields its findings as soon as it has them. One that does not come back is a finding;
   after two of them the rest is not tried, so that the whole is bounded, too.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ...errors import SessionMissing
from . import dialogues, filesystems, synced
from .crew import Crew, NoAnswer, Refused
from .findings import Finding, Remedy, note, off, ok, size, unknown

_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_UNTRIED = _NOT_ALLOWED | _NO_ROOM | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors that say nothing about what was to be tried."""

_TIGHT = 64 << 20
_NO_MORE = 1 << 20

_WRITING: dict[tuple[str, ...], Callable[[Crew, str], Finding | list[Finding]]] = {
    ("append",): dialogues.appending,
    ("replace",): dialogues.replacing,
    ("mode", "identity", "hard link"): dialogues.naming,
    ("mtime",): dialogues.changing,
    ("coherence",): dialogues.coherence,
    ("sync",): dialogues.syncing,
    ("a commit",): dialogues.committing,
    ("watch",): dialogues.watching,
}
"""The probes that need a folder to write in, and what they find out."""


class Examination:
    """One run of the doctor."""

    def __init__(self, path: str, *, lock_dir: str | None, patience: float) -> None:
        self._path = os.path.abspath(path)
        self._lock_dir = None if lock_dir is None else os.path.abspath(lock_dir)
        self._crew = Crew(patience)
        self._silent = 0
        """How many probes did not come back."""
        self.folder = self._path
        """The folder that is examined, once it is known."""
        self.left = list[str]()
        """Folders of ours that could not be removed."""

    def __iter__(self) -> Iterator[Finding]:
        """Every finding, as it comes.

        Raises:
            SessionMissing: There is no such folder.
        """
        try:
            yield from self._all()
        finally:
            self._crew.dismiss()

    def _all(self) -> Iterator[Finding]:
        try:
            place = self._look(self._path)
            locks = None
            if self._lock_dir is not None:  # any name inside: that folder itself must be there
                locks = self._look(os.path.join(self._lock_dir, "lock"))
        except NoAnswer as error:
            reason = "the folder does not answer"
            yield off("folder", f"{self._path}: {error}", reason, Remedy.FOLDER)
            return
        except Refused as error:
            text = f"{self._path}: {error}"
            yield off("folder", text, "the folder can't be looked at", Remedy.FOLDER)
            return
        self.folder = str(place["folder"])
        yield from _about(place, locks)
        with ExitStack() as stack:
            closed = "folder"
            try:
                mine = stack.enter_context(self._private(self.folder))
                yield ok("folder", "you may write there")
                locked = mine
                if locks is not None:
                    closed = "lock folder"
                    locked = stack.enter_context(self._private(str(locks["folder"])))
            except (Refused, NoAnswer) as error:
                yield _closed(closed, error)
                for names in (("lock", "turn's lock"), *_WRITING):
                    yield from _untried(names, "no file can be made there")
            else:
                yield from self._try_locks(locked)
                yield from self._try_files(mine)
        if place["session"] is not None:
            yield from self._try_session(str(place["session"]))

    def _look(self, path: str) -> dict[str, object]:
        try:
            found: dict[str, object] = self._crew["keeper"].ask("look", path=path)
        except Refused as error:
            if error.kind == "SessionMissing":
                raise SessionMissing(path, "the folder does not exist; create it first") from None
            raise
        return found

    @contextmanager
    def _private(self, parent: str) -> Iterator[str]:
        """A folder of our own; whatever happens, it is removed."""
        path = os.path.join(parent, f".cosession-doctor-{secrets.token_hex(6)}")
        try:
            self._crew["keeper"].ask("make_folder", path=path)
            yield path
        finally:
            self._crew.dismiss("first", "second")  # on Windows nobody may have a file open
            try:
                self._crew["keeper"].ask("remove_folder", path=path, limit=self._crew.brief)
            except (Refused, NoAnswer):
                self.left.append(path)

    def _try_locks(self, folder: str) -> Iterator[Finding]:
        for name, file in (("lock", "tried.jsonl.lock"), ("turn's lock", "tried.jsonl.turn")):
            path = os.path.join(folder, file)
            yield from self._try((name,), Remedy.LOCK_DIR, dialogues.lock, path, name)

    def _try_files(self, folder: str) -> Iterator[Finding]:
        for names, probe in _WRITING.items():
            yield from self._try(names, Remedy.FOLDER, probe, folder)

    def _try_session(self, path: str) -> Iterator[Finding]:
        try:
            yield dialogues.session(self._crew, path, self._lock_dir)
        except NoAnswer as error:
            yield unknown("session", f"{error}: `cosession verify` takes the time that it needs")
        except Refused as error:
            yield unknown("session", str(error))

    def _try(
        self,
        names: tuple[str, ...],
        remedy: Remedy,
        probe: Callable[..., Finding | list[Finding]],
        *arguments: str,
    ) -> Iterator[Finding]:
        """A probe's findings; what went wrong on the way is one as well."""
        if self._silent >= 2:
            yield from _untried(names, "two probes did not come back")
            return
        try:
            found = probe(self._crew, *arguments)
            yield from found if isinstance(found, list) else [found]
        except NoAnswer as error:
            self._silent += 1
            self._crew.dismiss("first", "second")  # whoever waits for the other one, too
            for name in names:
                reason = f"what is tried there ({name}) does not come back"
                yield off(name, str(error), reason, remedy)
        except Refused as error:
            self._crew.dismiss("first", "second")  # they may have been left in the middle
            for name in names:
                if error.errno in _UNTRIED:
                    yield unknown(name, f"could not be tried: {error}")
                else:
                    yield off(name, f"refused: {error}", f"{name}: {error}", remedy)


def _about(place: dict[str, object], locks: dict[str, object] | None) -> Iterator[Finding]:
    """What can be said without trying anything."""
    mount = place["mount"]
    if isinstance(mount, dict):
        elsewhere = locks["mount"] if locks is not None else None
        yield filesystems.judge(
            filesystems.Mount.from_json(mount),
            locks=filesystems.Mount.from_json(elsewhere) if isinstance(elsewhere, dict) else None,
        )
    else:
        yield unknown("file system", "the system does not tell")
    match place["synced"]:
        case {"by": str(by), "root": str(root), "sign": str(sign)}:
            yield synced.judge(synced.Synced(by, root, sign))
        case _:
            yield synced.judge(None)
    match place["room"]:
        case {"free": int(free), "files": int() | None as files, "read_only": bool(read_only)}:
            yield room(free, files, read_only=read_only)


def room(free: int, files: int | None, *, read_only: bool) -> Finding:
    """What to say of the space that is left."""
    figures = {"free": free, "files": files, "read_only": read_only}
    text = f"{size(free)} free" + ("" if files is None else f", and room for {files} more files")
    if read_only:
        reason = "the file system is read-only"
        return off("room", "the file system is mounted read-only", reason, Remedy.FOLDER, **figures)
    if free < _NO_MORE or (files is not None and files < 8):
        return off("room", text, "the disk is full", Remedy.ROOM, **figures)
    if free < _TIGHT or (files is not None and files < 512):
        return note("room", text, reason=f"the disk is nearly full ({text})", **figures)
    return ok("room", text, **figures)


def _closed(probe: str, error: Refused | NoAnswer) -> Finding:
    """What to say if no file can be made in a folder."""
    number = error.errno if isinstance(error, Refused) else None
    if number in _NO_ROOM:
        reason, remedy = "no file can be made there: the disk is full", Remedy.ROOM
    elif number in _NOT_ALLOWED:
        reason, remedy = "you may not write there", Remedy.FOLDER
    else:
        reason, remedy = "no file can be made there", Remedy.FOLDER
    return off(probe, f"{reason} ({error})", reason, remedy)


def _untried(names: tuple[str, ...], why: str) -> Iterator[Finding]:
    for name in names:
        yield unknown(name, f"not tried: {why}")
