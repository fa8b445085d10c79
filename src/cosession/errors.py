"""Everything that cosession raises, grouped by what the caller can do about it.

Each error carries its facts as attributes and formats its own message: what happened, where,
who is in the way, and what to do next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import Holder, Revision, TurnCard


class CosessionError(Exception):
    """The base of every error raised by this package."""


# ---- wait, or ask the holder ----------------------------------------------------------------


class LockTimeout(CosessionError, TimeoutError):
    """Another process kept the session's lock for the whole of `timeout`; nothing was changed."""

    what = "the session is being written by"

    def __init__(self, path: str, waited: float, holder: Holder | None) -> None:
        self.path = path
        self.waited = waited
        """Seconds spent waiting."""
        self.holder = holder
        """Who has the lock, where that could be found out."""
        who = holder or "a program that leaves no card"
        super().__init__(
            f"{path}: {self.what} {who}; gave up after {waited:.3g} s. "
            "Nothing was changed: try again, or wait longer with timeout=."
        )


class TurnHeld(CosessionError):
    """It is another terminal's turn, and the session was opened with `during_turn="raise"`.

    Nothing was changed. No timeout: a session that waits raises `TurnTimeout`, also with
    `timeout=0`.
    """

    def __init__(self, path: str, holder: Holder | None) -> None:
        self.path = path
        self.holder = holder
        super().__init__(
            f"{path}: it is the turn of {holder or 'another terminal'}. Nothing was changed: wait "
            "for its end, or ask for the turn."
        )


class TurnTimeout(LockTimeout):
    """Another terminal's turn went on for the whole of `timeout`; nothing was changed.

    That may be no time at all: `except TimeoutError` is enough around a call with any `timeout`.
    """

    what = "it is the turn of"


# ---- re-read, then decide -------------------------------------------------------------------


class Conflict(CosessionError):
    """Messages came in since the revision that the caller expected; nothing was changed."""

    def __init__(
        self,
        path: str,
        yours: Revision,
        current: Revision,
        new_messages: int | None,
        records: Callable[[], tuple[Any, ...]] = tuple,
    ) -> None:
        self.path = path
        self.yours = yours
        self.current = current
        self.new_messages = new_messages
        """How many messages came in; `None` if the file was replaced (revert, clear, …)."""
        self._records = records
        what = "it was rewritten" if new_messages is None else f"{new_messages} new message(s)"
        super().__init__(
            f"{path}: expected revision {yours}, but the session is at {current} ({what}). "
            "Nothing was changed: look at the new history, then append again or fork."
        )

    @property
    def new_records(self) -> tuple[Any, ...]:
        """The records that came in, in their order, as `Appended.records` has them.

        If the file was replaced, all that it holds now. They are decoded when this is asked for.
        """
        return self._records()


class UnknownCheckpoint(CosessionError, LookupError):
    """There is no such checkpoint in the session as it is now; nothing was changed."""

    def __init__(self, path: str, checkpoint: int, known: tuple[int, ...]) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.known = known
        """The checkpoints that the session has."""
        have = f"it has {_ranges(known)}" if known else "it has none"
        super().__init__(
            f"{path}: the session has no checkpoint {checkpoint}; {have}. "
            "Another terminal may have reverted past it."
        )


class UnknownRevision(CosessionError, LookupError):
    """No file that is there holds the session as it was at that revision; nothing was changed."""

    def __init__(self, path: str, revision: Revision, reason: str) -> None:
        self.path = path
        self.revision = revision
        self.reason = reason
        super().__init__(f"{path}: the session can't be had as of revision {revision}: {reason}")


class UnknownRotation(CosessionError, LookupError):
    """The session has no rotated file of that number; nothing was changed."""

    def __init__(self, path: str, number: int, known: tuple[int, ...]) -> None:
        self.path = path
        self.number = number
        self.known = known
        """The numbers of the rotated files that there are."""
        have = f"it has {_ranges(known)}" if known else "it has none"
        super().__init__(f"{path}: the session has no rotated file {number}; {have}")


# ---- mend the call --------------------------------------------------------------------------


class InvalidMessage(CosessionError, ValueError):
    """A message can't be stored or read back; nothing was written."""

    def __init__(self, reason: str, index: int | None = None) -> None:
        self.reason = reason
        self.index = index
        """Which of the messages given in one call, counted from 0."""
        which = "message" if index is None else f"message {index}"
        super().__init__(f"{which} was not stored: {reason}")


class SessionClosed(CosessionError):
    """The session is used before it was opened, after it was closed, or in another event loop."""


class ReadOnlySession(CosessionError):
    """The session was opened with `read_only=True`, and the call would change it."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path}: the session was opened with read_only=True")


# ---- repair ---------------------------------------------------------------------------------


class NotASession(CosessionError):
    """What lies at the path can't be a session: a folder, a pipe, a device."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class HardLinked(CosessionError):
    """The file has a second name, under which another program would take another lock."""

    def __init__(self, path: str, links: int) -> None:
        self.path = path
        self.links = links
        super().__init__(
            f"{path}: the file has {links} names (hard links), so two programs could hold two "
            "different locks for it. Nothing was changed. Give the session a file of its own: "
            f"cp {path} {path}.own && mv {path}.own {path}"
        )


class SessionMissing(CosessionError):
    """The file or its folder isn't there, and the session may not create it."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


# ---- the machine's fault: free space, fix rights, give up -----------------------------------


class TurnInterrupted(CosessionError):
    """A terminal died in the middle of its turn; nothing was changed.

    Until somebody decides about what it wrote, everybody can read, and nobody writes messages.
    """

    def __init__(self, path: str, card: TurnCard) -> None:
        self.path = path
        self.card = card
        super().__init__(
            f"{path}: the turn of {card.holder} was interrupted; it began at revision "
            f"{card.began}. Nothing was changed: keep what it wrote, or roll it back."
        )


class TurnOver(CosessionError):
    """A turn is used after its end, or in a child forked inside it; nothing was changed."""


class StorageError(CosessionError):
    """The operating system refused; what was half done has been undone.

    The system's own error is the `__cause__`; `errno` is its number.
    """

    advice = "The session is unchanged and can be used again when the cause is gone."

    def __init__(self, path: str, doing: str, errno: int | None = None) -> None:
        self.path = path
        self.doing = doing
        self.errno = errno
        why = os.strerror(errno) if errno else "failed"
        super().__init__(f"{path}: {doing}: {why}. {self.advice}")


class StorageFull(StorageError):
    """No space, no quota, or the process's file size limit; the partial bytes were rolled back."""

    advice = "The partial bytes were rolled back: free some space and call again."


class NotWritable(StorageError):
    """No permission, or a read-only file, folder or file system."""

    advice = "Nothing was changed. To look without writing, open it with read_only=True."


class FileBusy(StorageError):
    """Another program keeps the file open in a way that blocks the change (on Windows)."""

    advice = "Nothing was changed: close the other program, or try again."


class Unsettled(StorageError):
    """A write failed, and so did undoing it: whether it has happened is not known yet.

    It is announced, so it has happened whole or not at all as soon as anybody can write again.
    """

    advice = (
        "It could not be undone either: refresh when the cause is gone, and see whether it has "
        "happened."
    )


class SyncFailed(StorageError):
    """The disk did not confirm a write. The session refuses to write until it is opened anew.

    After a failed fsync the system may report success the second time although the bytes are
    gone, so trying again proves nothing. The write is undone, unless somebody else has written
    behind it meanwhile: then it is in the session, and may not be there after a power cut.
    """

    advice = (
        "Nothing was acknowledged, and it is undone unless somebody has written behind it. Check "
        "the disk, then open the session anew."
    )


def _ranges(numbers: tuple[int, ...]) -> str:
    """`0–3, 5` for `(0, 1, 2, 3, 5)`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)
