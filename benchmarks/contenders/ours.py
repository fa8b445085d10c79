"""cosession itself, by its public names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from .bare import flocked
from .base import Blocking, Contender, JsonLines, Message

START = """
import asyncio, sys
from cosession import Session
async def main():
    async with Session(sys.argv[1]) as session:
        if sys.argv[2] == "all":
            list(session.history)
asyncio.run(main())
"""
START_BLOCKING = """
import sys
from cosession import BlockingSession
with BlockingSession(sys.argv[1]) as session:
    if sys.argv[2] == "all":
        list(session.history)
"""


class Ours(JsonLines, Contender):
    """What the two have in common."""

    package = "cosession"
    ours = True
    colour = "#e8590c"
    shares = True

    @property
    def durability(self) -> Literal["process", "power"]:
        return "power" if self.durable else "process"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Have the lock that every commit takes."""
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR)
        try:
            with flocked(descriptor):
                yield
        finally:
            os.close(descriptor)


class Asynchronous(Ours):
    title = "cosession"
    largest = 1_000_000_000
    startup = START

    async def open(self) -> None:
        from cosession import Session

        self.session = Session(self.path, durability=self.durability)
        await self.session.open()

    async def append(self, message: Message) -> None:
        await self.session.append(message)

    async def close(self) -> None:
        await self.session.close()

    async def usable(self) -> Sequence[Any]:
        return self.session.history

    async def models(self) -> int:
        await self.session.load()
        return len(list(self.session.history))

    async def revert(self, kept: int) -> None:
        await self.session.revert_to(0)

    async def catch_up(self) -> None:
        await self.session.refresh()


class Plain(Ours, Blocking):
    title = "cosession, BlockingSession"
    startup = START_BLOCKING

    async def open(self) -> None:
        from cosession import BlockingSession

        self.session = BlockingSession(self.path, durability=self.durability)
        self.session.open()

    def append_now(self, message: Message) -> None:
        self.session.append(message)

    async def close(self) -> None:
        self.session.close()

    async def usable(self) -> Sequence[Any]:
        return self.session.history

    async def models(self) -> int:
        return len(list(self.session.history))

    async def revert(self, kept: int) -> None:
        self.session.revert_to(0)

    async def catch_up(self) -> None:
        self.session.refresh()
