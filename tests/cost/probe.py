"""A process whose operations are counted: it makes itself ready, then marks where they are.

    strace -f python -m cost.probe append 5 /tmp/somewhere

Between two `getppid`, which nothing else calls, the operation is done as often as asked for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cosession.messages  # noqa: F401 - now, and not on a thread that is counted as well
from cosession import BlockingSession, Message, Session, commits

MESSAGE = {"role": "user", "content": "x" * 370}
LINE = b'{"role":"user","content":"' + b"x" * 370 + b'"}\n'
LARGE = 20_000_000
"""Bytes of a session next to which a few messages are nothing."""


def append(path: Path) -> tuple[Any, Callable[[], object]]:
    """Append to a small session."""
    session = opened(path, durability="process")
    return session, lambda: session.append(MESSAGE)


def append_synced(path: Path) -> tuple[Any, Callable[[], object]]:
    """Append to a small session, onto the disk."""
    session = opened(path, durability="power")
    return session, lambda: session.append(MESSAGE)


def append_ten(path: Path) -> tuple[Any, Callable[[], object]]:
    """Append ten messages at once."""
    session = opened(path, durability="process")
    return session, lambda: session.append([MESSAGE] * 10)


def append_to_large(path: Path) -> tuple[Any, Callable[[], object]]:
    """Append to a large session."""
    fill(path)
    session = opened(path, durability="process")
    return session, lambda: session.append(MESSAGE)


def append_by_turns(path: Path) -> tuple[Any, Callable[[], object]]:
    """Append to a large session to which another one has just appended, too."""
    fill(path)
    one, other = opened(path, durability="process"), opened(path, durability="process")
    return (one, other), lambda: (one.append(MESSAGE), other.append(MESSAGE))


def refresh_large(path: Path) -> tuple[Any, Callable[[], object]]:
    """Read on in a large session behind what another one has appended."""
    fill(path)
    one, other = opened(path, durability="process"), opened(path, durability="process")
    return (one, other), lambda: (one.append(MESSAGE), other.refresh())


BLOCKING = {
    "append": append,
    "append-synced": append_synced,
    "append-ten": append_ten,
    "append-to-large": append_to_large,
    "append-by-turns": append_by_turns,
    "refresh-large": refresh_large,
}


async def append_inline(session: Session[Message]) -> None:
    """Append on the event loop's thread."""
    await session.append(MESSAGE)


async def append_fifty(session: Session[Message]) -> None:
    """Fifty coroutines append at the same time."""
    await asyncio.gather(*(session.append(MESSAGE) for _ in range(50)))


ASYNCHRONOUS: dict[str, Callable[[Session[Message]], Awaitable[None]]] = {
    "append-inline": append_inline,
    "append-fifty": append_fifty,
}


def opened(path: Path, **options: Any) -> BlockingSession[Message]:
    session = BlockingSession(path, **options)
    session.open()
    session.append(MESSAGE)
    return session


def fill(path: Path) -> None:
    path.write_bytes(LINE * (LARGE // len(LINE)))


def mark() -> None:
    os.getppid()


def measure(name: str, times: int, folder: Path) -> None:
    path = folder / "context.jsonl"
    gc.disable()
    if name in ASYNCHRONOUS:
        asyncio.run(measure_async(name, times, path))
        return
    session, operation = BLOCKING[name](path)
    for _ in range(3):
        operation()
    mark()
    for _ in range(times):
        operation()
    mark()
    for each in session if isinstance(session, tuple) else (session,):
        each.close()


async def measure_async(name: str, times: int, path: Path) -> None:
    async with Session(path) as session:
        for _ in range(3):
            await ASYNCHRONOUS[name](session)
        # strace slows everything down
        assert session._queue is not None
        session._queue._slow_until = 0.0
        session._open_together()._stays_until = commits._QUICK = float("inf")
        mark()
        for _ in range(times):
            await ASYNCHRONOUS[name](session)
        mark()


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
