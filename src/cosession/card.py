"""Cards: who somebody is, for people to read. Nothing is ever decided by one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from . import _platform
from .records import Holder


def own_card(operation: str) -> Holder:
    """A card about this process, as of now."""
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname()[:64],
        user=_platform.user()[:32],
        terminal=_platform.terminal()[:32],
        operation=operation[:128],
        since=round(time.time(), 3),
    )


def to_json(card: Holder) -> dict[str, object]:
    """What is written down of a card."""
    return {
        "pid": card.pid,
        "host": card.host,
        "user": card.user,
        "terminal": card.terminal,
        "operation": card.operation,
        "since": card.since,
    }


def from_json(value: Mapping[Any, Any]) -> Holder | None:
    """A card that was written down; `None` if that isn't one."""
    match value:
        case {
            "pid": int(pid),
            "host": str(host),
            "user": str(user),
            "terminal": str(terminal),
            "operation": str(operation),
            "since": int(since) | float(since),
        }:
            return Holder(pid, host, user, terminal, operation, float(since))
    return None
