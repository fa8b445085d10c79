"""What the command's exit status means, and what it says of each error."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from dataclasses import dataclass
from enum import IntEnum

from ..errors import (
    Conflict,
    CosessionError,
    FileBusy,
    HardLinked,
    InvalidMessage,
    LockTimeout,
    NotASession,
    NotWritable,
    SessionMissing,
    StorageError,
    StorageFull,
    SyncFailed,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
    TurnTimeout,
    UnknownCheckpoint,
    UnknownRevision,
    UnknownRotation,
    Unsettled,
)

TURN_VARIABLE = "COSESSION_TURN"
"""Names the turn in which a command of `cosession hold` may write."""


class Exit(IntEnum):
    """The exit statuses."""

    OK = 0
    OFF = 1
    USAGE = 2
    BUSY = 3
    CONFLICT = 4
    STORAGE = 5
    NO_SESSION = 6
    DEFECT = 7
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


MEANINGS: dict[Exit, str] = {
    Exit.OK: "it is done; for verify: nothing is off",
    Exit.OFF: "something is off: damaged lines, leftovers of a process that died; for doctor: "
    "sessions should not be shared there; for who: nobody",
    Exit.USAGE: "the command line, or a message given to it, is not valid",
    Exit.BUSY: "another process kept the session busy until the timeout",
    Exit.CONFLICT: "messages came in since --expect; no such checkpoint, revision or file; no turn",
    Exit.STORAGE: "the system refused: disk full, no permission, I/O error",
    Exit.NO_SESSION: "there is no session at that path",
    Exit.DEFECT: "a defect of cosession itself",
    Exit.INTERRUPTED: "Ctrl-C; the operation has happened whole or not at all",
    Exit.OUTPUT_CLOSED: "whoever read the output went away",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What to say of an error, and with which status to end."""

    status: Exit
    text: str
    hint: str = ""


_UNCHANGED = "nothing was changed: "


def explain(error: Exception) -> Failure:
    """Put an error into the words of the command line."""
    match error:
        case TurnTimeout() | TurnHeld():
            return Failure(
                Exit.BUSY,
                f"{error.path}: it is the turn of {error.holder or 'another terminal'}",
                _UNCHANGED + "try again when it has ended, or wait longer with --timeout SECONDS",
            )
        case TurnInterrupted():
            return Failure(
                Exit.CONFLICT,
                f"{error.path}: the turn of {error.card.holder} was interrupted",
                f"{_UNCHANGED}`cosession heal --turn keep {_quoted(error.path)}` keeps what it "
                "wrote, `--turn roll-back` reverts to where it began, the old file kept",
            )
        case TurnOver():
            return Failure(
                Exit.CONFLICT,
                str(error),
                f"{_UNCHANGED}`cosession hold` that set {TURN_VARIABLE} has ended, or its turn was "
                "settled; without that variable it is an operation of its own",
            )
        case LockTimeout():
            who = f"{error.holder}" if error.holder else "another program"
            return Failure(
                Exit.BUSY,
                f"{error.path}: {who} is writing; gave up after {error.waited:.3g} s",
                _UNCHANGED + "try again, or wait longer with --timeout SECONDS",
            )
        case Conflict():
            what = (
                "it was rewritten"
                if error.new_messages is None
                else f"{error.new_messages} new message(s)"
            )
            return Failure(
                Exit.CONFLICT,
                f"{error.path}: expected revision {error.yours}, but it is at {error.current} "
                f"({what})",
                f"{_UNCHANGED}look at it with `cosession show {_quoted(error.path)}`, then call "
                f"again with --expect {error.current}",
            )
        case UnknownCheckpoint():
            return Failure(Exit.CONFLICT, str(error), f"{_UNCHANGED}{_look_at(error.path)}")
        case UnknownRevision() | UnknownRotation():
            look = f"`cosession log {_quoted(error.path)}` shows what there is"
            return Failure(Exit.CONFLICT, str(error), f"{_UNCHANGED}{look}")
        case InvalidMessage():
            return Failure(Exit.USAGE, str(error), "nothing was written")
        case HardLinked():
            own = _quoted(error.path + ".own")
            return Failure(
                Exit.NO_SESSION,
                f"{error.path}: the file has {error.links} names (hard links), so two programs "
                "could hold two different locks for it",
                f"give it a file of its own: cp {_quoted(error.path)} {own} && "
                f"mv {own} {_quoted(error.path)}",
            )
        case SessionMissing():
            return Failure(
                Exit.NO_SESSION, str(error), "`cosession append` makes one, in a folder that exists"
            )
        case NotASession():
            return Failure(Exit.NO_SESSION, str(error), "give it the path of a JSON Lines file")
        case StorageError():
            why = os.strerror(error.errno) if error.errno else "failed"
            status = Exit.BUSY if isinstance(error, FileBusy) else Exit.STORAGE
            return Failure(status, f"{error.path}: {error.doing}: {why}", _storage_hint(error))
        case CosessionError():
            return Failure(Exit.DEFECT, str(error), "--debug shows where it comes from")
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            return Failure(Exit.STORAGE, f"{name}{error.strerror or error}")
        case _:
            return Failure(
                Exit.DEFECT,
                f"unexpected {type(error).__name__}: {error}",
                "this is a defect; please report it with what --debug prints",
            )


def output_is_gone(error: OSError) -> bool:
    """Whether writing to standard output failed since nobody reads it any more."""
    # A closed pipe on Windows is "invalid argument". Errors of files are translated by then.
    return isinstance(error, BrokenPipeError) or (
        sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None
    )


def table() -> list[tuple[str, str]]:
    """The statuses and their meanings, for people."""
    return [(str(int(status)), meaning) for status, meaning in MEANINGS.items()]


def _storage_hint(error: StorageError) -> str:
    match error:
        case StorageFull():
            return "the partial bytes were rolled back: free some space and call again"
        case NotWritable():
            return (
                _UNCHANGED + "`show` and `verify` need no right to write; --lock-dir puts the "
                "lock file elsewhere"
            )
        case FileBusy():
            return _UNCHANGED + "close the other program that has it open, or try again"
        case Unsettled():
            return "it could not be undone either: look again when the cause is gone"
        case SyncFailed():
            return "the disk did not confirm the write: check it before you go on"
        case _:
            return "what was half done has been undone"


def _look_at(path: str) -> str:
    return f"`cosession show {_quoted(path)}` shows which there are"


def _quoted(path: str) -> str:
    return f'"{path}"' if sys.platform == "win32" else shlex.quote(path)
