"""One test body for both sessions: a `Session`, or a `BlockingSession` on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from cosession import BlockingSession, Revision, Session
from cosession.transaction import Transaction

Kind = Literal["async", "blocking"]
KINDS: tuple[Kind, ...] = ("async", "blocking")


class Both:
    """A session of either kind with awaitable calls; `session` has the figures."""

    def __init__(self, kind: Kind, path: Path, **options: Any) -> None:
        kinds: dict[Kind, Callable[..., Any]] = {"async": Session, "blocking": BlockingSession}
        self.session: Any = kinds[kind](path, **options)
        self._blocking = kind == "blocking"

    async def call(self, name: str, *args: Any, **options: Any) -> Any:
        method = getattr(self.session, name)
        if self._blocking:
            return await asyncio.to_thread(method, *args, **options)
        return await method(*args, **options)

    async def append(self, messages: Any, **options: Any) -> Revision:
        revision = await self.call("append", messages, **options)
        assert isinstance(revision, Revision)
        return revision

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncIterator[Transaction[Any]]:
        if not self._blocking:
            async with self.session.transaction(**options) as transaction:
                yield transaction
            return
        with self.session.transaction(**options) as transaction:
            yield transaction

    @property
    def texts(self) -> list[Any]:
        return [message.content for message in self.session.history]


@asynccontextmanager
async def opened(kind: Kind, path: Path, **options: Any) -> AsyncIterator[Both]:
    both = Both(kind, path, **options)
    await both.call("open")
    try:
        yield both
    finally:
        await both.call("close")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


class managed:  # noqa: N801 - stands in an `async with` for either kind
    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        enter = getattr(self._manager, "__aenter__", None)
        return await enter() if enter else self._manager.__enter__()

    async def __aexit__(self, *error: object) -> Any:
        leave = getattr(self._manager, "__aexit__", None)
        return await leave(*error) if leave else self._manager.__exit__(*error)


async def resolve(value: Any) -> Any:
    """What a call of either kind returns."""
    return await value if asyncio.iscoroutine(value) else value
