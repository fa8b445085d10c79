"""Which terminals are on a session, and which of them wait for their turn.

1. Beside the session is a folder with two files for each entry of these lists: one that is locked
   for as long as the entry holds, and a card that says who it is. (One file would not do: on
   Windows what is locked can't be read.) So a dead terminal is off the list at once.
2. The lock is the kernel's, by way of `portalocker`, whose pace is a person's. A file that can be
   locked belongs to nobody alive, and is removed by whoever finds it.
3. They are lists for people. Nothing else here depends on them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from . import _fork, _platform, files
from . import _json as json
from .card import from_json, own_card, to_json
from .errors import CosessionError, NotASession
from .files import translated
from .interrupts import start
from .records import Holder

if TYPE_CHECKING:
    from io import BufferedRandom

Kind = Literal["present", "waiting"]

_ENTRY = re.compile(r"[0-9]+-[0-9a-f]{8}\.lock")
"""The names that are ours: others are not looked at, and never removed."""

_NEWBORN = 5.0
"""Seconds for which a file that isn't locked yet is left alone."""

_LARGEST_CARD = 1 << 16
"""Bytes."""

_WORTH_TELLING = 0.25
"""Seconds of waiting after which a terminal is on the list of those who wait."""


def folder_of(path: str | os.PathLike[str]) -> str:
    """Where the terminals of a session have their files."""
    return f"{files.resolve(path)}.terminals"


@contextmanager
def present(
    path: str | os.PathLike[str], label: str = "", *, kind: Kind = "present"
) -> Iterator[None]:
    """Be on the list of a session's terminals for as long as the block lasts.

    **Crash.** Off the list at once. **Fork.** A child is not on it.

    Raises:
        StorageError: The system refuses.
    """
    folder = folder_of(path)
    name = os.path.join(folder, f"{os.getpid()}-{os.urandom(4).hex()}")
    with translated(folder, "register this terminal"):
        _require_no_link(folder)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _write_card(f"{name}.json", label, kind)
        lock = _Locked(f"{name}.lock")
    try:
        yield
    finally:
        lock.close()
        _remove(name)


def list_as_waiting(path: str, label: str, *, until: threading.Event) -> None:
    """Be on the list of those who wait for a turn, if that lasts longer than a moment.

    On a thread of its own, since the caller's is going to sleep in the kernel. Never fails: where
    the list can't be written to, one who waits isn't on it.
    """

    def register() -> None:
        if not until.wait(_WORTH_TELLING):
            with suppress(CosessionError, OSError), present(path, label, kind="waiting"):
                until.wait()

    with suppress(RuntimeError):  # no thread can be had
        start(threading.Thread(target=register, name="cosession-waiting", daemon=True))


def terminals(path: str | os.PathLike[str], *, kind: Kind = "present") -> list[Holder]:
    """The live terminals on a session's list, the longest there first.

    Raises:
        NotASession: A link lies in the place of the list.
        StorageError: The system refuses.
    """
    folder = folder_of(path)
    with translated(folder, "look for the terminals"):
        _require_no_link(folder)
        try:
            names = [name for name in os.listdir(folder) if _ENTRY.fullmatch(name)]
        except FileNotFoundError:
            return []
    found = [_look(os.path.join(folder, name).removesuffix(".lock"), kind) for name in names]
    return sorted((card for card in found if card), key=lambda card: card.since)


def _require_no_link(folder: str) -> None:
    """Never look, write or clean up where a planted link leads."""
    if os.path.islink(folder):
        raise NotASession(folder, "the place of the list of terminals is taken by a link")


class _Locked:
    """A file that is locked while it is open."""

    def __init__(self, path: str) -> None:
        import portalocker

        self._file: BufferedRandom | None = open(path, "xb+")  # noqa: SIM115 - kept open
        portalocker.lock(self._file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        _fork.watch(self)

    def close(self) -> None:
        import portalocker

        file, self._file = self._file, None
        if file is not None:
            with suppress(portalocker.LockException, OSError):
                portalocker.unlock(file)
            file.close()

    def after_fork_in_child(self) -> None:
        file, self._file = self._file, None  # not unlocked: the lock is the parent's
        if file is not None:
            file.close()


def _look(name: str, kind: Kind) -> Holder | None:
    """The card of a terminal that is there; what one that isn't left behind is removed."""
    import portalocker

    try:
        with open(f"{name}.lock", "rb+") as file:
            newborn = abs(time.time() - os.fstat(file.fileno()).st_mtime) < _NEWBORN
            try:
                portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            except portalocker.LockException:
                return _read_card(f"{name}.json", kind)
            portalocker.unlock(file)
    except OSError:
        return None
    if not newborn:
        _remove(name)
    return None


def _remove(name: str) -> None:
    for suffix in (".lock", ".json"):
        with suppress(OSError):
            os.unlink(name + suffix)


def _write_card(path: str, label: str, kind: Kind) -> None:
    card = to_json(own_card(label)) | {"kind": kind}
    fd = _platform.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        files.write_all(fd, json.dumps(card).encode())
    finally:
        os.close(fd)


def _read_card(path: str, kind: Kind) -> Holder | None:
    try:
        fd = _platform.open_file(path, os.O_RDONLY)  # never follows a link, or waits for a pipe
        try:
            card = json.loads(files.read_all(fd, 0, _LARGEST_CARD))
        finally:
            os.close(fd)
    except (OSError, ValueError, RecursionError):
        return None
    return from_json(card) if isinstance(card, dict) and card.get("kind") == kind else None
