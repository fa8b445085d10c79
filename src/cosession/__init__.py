"""Many terminals, one session file.

    from cosession import Message, Session

    async with Session("context.jsonl") as session:
        await session.append(Message(role="user", content="hi"))

Several processes may do this at once: their records stay whole and in one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .blocking import BlockingSession
from .errors import (
    Conflict,
    CosessionError,
    FileBusy,
    HardLinked,
    InvalidMessage,
    LockTimeout,
    NotASession,
    NotWritable,
    ReadOnlySession,
    SessionClosed,
    SessionMissing,
    StorageError,
    StorageFull,
    SyncFailed,
    TurnHeld,
    TurnInterrupted,
    TurnOver,
    TurnTimeout,
    UnknownCheckpoint,
)
from .records import Damage, Holder, Repair, Revision, TurnCard
from .session import Session

if TYPE_CHECKING:
    from .messages import Message

__all__ = [
    "BlockingSession",
    "Conflict",
    "CosessionError",
    "Damage",
    "FileBusy",
    "HardLinked",
    "Holder",
    "InvalidMessage",
    "LockTimeout",
    "Message",
    "NotASession",
    "NotWritable",
    "ReadOnlySession",
    "Repair",
    "Revision",
    "Session",
    "SessionClosed",
    "SessionMissing",
    "StorageError",
    "StorageFull",
    "SyncFailed",
    "TurnCard",
    "TurnHeld",
    "TurnInterrupted",
    "TurnOver",
    "TurnTimeout",
    "UnknownCheckpoint",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # pydantic takes longer to import than all the rest; who only looks at a session's figures
    # does without it.
    if name == "Message":
        from .messages import Message

        return Message
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
