"""Who is who: the names under which terminals are present, and cards in words."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from ...records import Holder
from ...session import Session
from ..words import elapsed


class People:
    """The terminals on a session, as of the last look."""

    def __init__(self, session: Session[Any]) -> None:
        self._session = session
        self._names: dict[tuple[str, int], str] = {}

    async def look(self) -> list[Holder]:
        """The terminals that are there now, the longest there first."""
        there = await asyncio.to_thread(self._session.terminals)
        self._names |= {(card.host, card.pid): card.operation for card in there}
        return there

    def name(self, holder: Holder) -> str:
        """`ada@host`: the name under which it is present, else its user's."""
        name = self._names.get((holder.host, holder.pid)) or holder.user or "somebody"
        return f"{name}@{holder.host}" if holder.host else name

    def at_work(self, holder: Holder) -> str:
        """Who has the turn, with what, for how long."""
        what = f"{holder.operation}, " if holder.operation else ""
        return f"{self.name(holder)} ({what}{elapsed(holder.since)})"


def is_me(holder: Holder) -> bool:
    """Whether it is this process's card."""
    host = socket.gethostname()
    return holder.pid == os.getpid() and holder.host in (host, host[:64])  # as cards have it
