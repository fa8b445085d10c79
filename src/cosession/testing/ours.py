"""cosession's own two sessions as candidates: `cosession.testing.ours:blocking`, `…:asynchronous`.

`python -m cosession.testing cosession.testing.ours:blocking` shows how they do on your machine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any

from ..blocking import BlockingSession
from ..errors import Conflict
from ..records import Revision
from ..session import Session
from .candidate import Message

OFFERS = (
    "checkpoint", "rotated", "replace", "expect", "turn", "settle", "timeout", "follow", "shared",
)  # fmt: skip


class Blocking:
    """A `BlockingSession`."""

    offers: tuple[str, ...] = OFFERS

    def __init__(self, location: Path) -> None:
        self.session: BlockingSession[Any] = BlockingSession(location / "context.jsonl")
        self.session.open()
        self._turn: AbstractContextManager[object] | None = None

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        self.session.append(messages, timeout=timeout)

    def history(self) -> list[Message]:
        self.session.refresh()
        return plain(self.session.history)

    def clear(self) -> None:
        self.session.clear()

    def close(self) -> None:
        self.session.close()

    def checkpoint(self) -> int:
        return self.session.checkpoint()

    def revert_to(self, checkpoint: int) -> None:
        self.session.revert_to(checkpoint)

    def rotated_histories(self) -> list[list[Message]]:
        found = []
        for path in rotated(self.session.path):
            with BlockingSession(path, read_only=True) as old:
                found.append(plain(old.history))
        return found

    def replace(self, messages: list[Message]) -> None:
        with self.session.transaction() as tx:
            tx.clear()
            tx.append(messages)

    def revision(self) -> str:
        return str(self.session.revision)

    def try_append(self, messages: list[Message], revision: str) -> bool:
        try:
            self.session.append(messages, expect=Revision.parse(revision))
        except Conflict:
            return False
        return True

    def begin_turn(self, *, timeout: float | None = None) -> None:
        turn = self.session.turn(timeout=timeout)
        turn.__enter__()
        self._turn = turn

    def end_turn(self) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        turn.__exit__(None, None, None)

    def settle(self, *, keep: bool) -> bool:
        self.session.refresh()
        interrupted = self.session.interrupted
        if interrupted is None:
            return False
        if keep:
            interrupted.keep()
        else:
            interrupted.roll_back()
        return True

    def wait(self, timeout: float) -> bool:
        return next(self.session.follow(timeout=timeout), None) is not None


class Asynchronous:
    """A `Session`."""

    offers = OFFERS

    def __init__(self, session: Session[Any]) -> None:
        self.session = session
        self._turn: AbstractAsyncContextManager[object] | None = None

    async def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        await self.session.append(messages, timeout=timeout)

    async def history(self) -> list[Message]:
        await self.session.refresh()
        return plain(self.session.history)

    async def clear(self) -> None:
        await self.session.clear()

    async def close(self) -> None:
        await self.session.close()

    async def checkpoint(self) -> int:
        return await self.session.checkpoint()

    async def revert_to(self, checkpoint: int) -> None:
        await self.session.revert_to(checkpoint)

    async def rotated_histories(self) -> list[list[Message]]:
        found = []
        for path in rotated(self.session.path):
            async with Session(path, read_only=True) as old:
                found.append(plain(old.history))
        return found

    async def replace(self, messages: list[Message]) -> None:
        async with self.session.transaction() as tx:
            tx.clear()
            tx.append(messages)

    async def revision(self) -> str:
        return str(self.session.revision)

    async def try_append(self, messages: list[Message], revision: str) -> bool:
        try:
            await self.session.append(messages, expect=Revision.parse(revision))
        except Conflict:
            return False
        return True

    async def begin_turn(self, *, timeout: float | None = None) -> None:
        turn = self.session.turn(timeout=timeout)
        await turn.__aenter__()
        self._turn = turn

    async def end_turn(self) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None
        await turn.__aexit__(None, None, None)

    async def settle(self, *, keep: bool) -> bool:
        await self.session.refresh()
        interrupted = self.session.interrupted
        if interrupted is None:
            return False
        if keep:
            await interrupted.keep()
        else:
            await interrupted.roll_back()
        return True

    async def wait(self, timeout: float) -> bool:
        changes = self.session.follow()
        try:
            await asyncio.wait_for(anext(changes), timeout)
        except TimeoutError:
            return False
        finally:
            await changes.aclose()
        return True


def blocking(location: Path) -> Blocking:
    """Open a `BlockingSession` in that folder."""
    return Blocking(location)


async def asynchronous(location: Path) -> Asynchronous:
    """Open a `Session` in that folder."""
    session: Session[Any] = Session(location / "context.jsonl")
    await session.open()
    return Asynchronous(session)


def plain(messages: Iterable[Any]) -> list[Message]:
    """Messages as the kit has them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def rotated(path: Path) -> Sequence[Path]:
    """The files that were taken out of use."""
    name = re.compile(rf"{re.escape(path.stem)}_\d+{re.escape(path.suffix)}")
    return sorted(file for file in path.parent.iterdir() if name.fullmatch(file.name))
