"""Many terminals, one session file.

    from cosession import Message, Session

    async with Session("context.jsonl") as session:
        await session.append(Message(role="user", content="hi"))

Several processes may do this at once: their records stay whole and in one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    UnknownRevision,
    UnknownRotation,
)
from .records import Damage, Fork, Holder, Repair, Revision, TurnCard, TurnStatus

if TYPE_CHECKING:
    from .blocking import BlockingSession
    from .messages import Message
    from .session import Session

__all__ = [
    "BlockingSession",
    "Conflict",
    "CosessionError",
    "Damage",
    "FileBusy",
    "Fork",
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
    "TurnStatus",
    "TurnTimeout",
    "UnknownCheckpoint",
    "UnknownRevision",
    "UnknownRotation",
]

__version__ = "0.1.0"


_WHERE = {"BlockingSession": "blocking", "Message": "messages", "Session": "session"}


def __getattr__(name: str) -> object:
    # What takes time to import comes when it is asked for; above all pydantic, with the messages.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
