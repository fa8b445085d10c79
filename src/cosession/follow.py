"""Following a session: being told what anybody does to it, as it happens.

1. A follower looks at the file, tells what has changed since it last told anything, and waits for
   a sign that there may be more. Signs may come too often or get lost; looking decides.
2. Signs come from the system, by `watchfiles` on the *folder* (a watch on the file would be lost
   with the first replace), where that is installed and works. Beneath it a heartbeat looks at the
   lock file's header and the file's status, without reading either file.
3. A follower takes no lock. Only what a dead process left unfinished, it has settled.

**Cancellation** ends it cleanly, at any time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from .changes import Change, TurnBegan, TurnEnded, change_between
from .errors import SessionMissing
from .records import Revision
from .store import Store, View

if TYPE_CHECKING:
    from .session import Session

HEARTBEAT = 0.2
"""Seconds between two looks where the system gives no signs."""

_STEP = 2
"""Milliseconds for which signs are collected before they are passed on."""


async def follow(session: Session[Any]) -> AsyncIterator[Change]:
    """The changes of a session from its present state on; see `Session.follow`."""
    store = session._store
    told, turn = store.view, store.turn_that_is_on()
    async with _signs(store) as wait:
        while True:
            before = _traces(store)
            now = store.turn_that_is_on()
            if turn is None and now is not None:
                yield TurnBegan(now)
            await _look(session)
            view = store.view
            change = _change(told, view, session)
            told = view
            if change is not None:
                yield change
            if turn is not None and (now is None or now.token != turn.token):
                yield TurnEnded(turn)
                if now is not None:
                    yield TurnBegan(now)
            turn = now
            if change is None:
                await wait(before)


def _change(told: View, view: View, session: Session[Any]) -> Change | None:
    return change_between(
        told.state,
        Revision(told.generation, told.state.position),
        view.state,
        Revision(view.generation, view.state.position),
        view.kept,
        session._codec.decode,
    )


async def _look(session: Session[Any]) -> None:
    """Fold in what is there. A file that is gone for now has nothing new."""
    with suppress(SessionMissing):
        await session.refresh()


class _Wait(Protocol):
    async def __call__(self, before: object) -> None:
        """Come back when there may be something new since `before`."""


def _traces(store: Store) -> object:
    """Something that differs after everything that anybody does to the session."""
    try:
        status = os.stat(store.path)
    except OSError:
        return (store.serial(), None)
    return (store.serial(), status.st_ino, status.st_size, status.st_mtime_ns)


@asynccontextmanager
async def _signs(store: Store) -> AsyncIterator[_Wait]:
    """Watch the session's folder, for as long as the block lasts."""
    sign = asyncio.Event()

    async def wait(before: object) -> None:
        while _traces(store) == before:
            sign.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await sign.wait()

    stop = threading.Event()
    loop = asyncio.get_running_loop()

    def give() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for a sign
            loop.call_soon_threadsafe(sign.set)

    threading.Thread(
        target=_watch, args=(store, give, stop), name="cosession-follow", daemon=True
    ).start()
    try:
        yield wait
    finally:
        stop.set()  # the thread looks at it within a second, and nobody waits for that


def _watch(store: Store, give: Callable[[], None], stop: threading.Event) -> None:
    """Give a sign for everything that happens to the session's files. Ends if it can't."""
    try:
        from watchfiles import watch
    except ImportError:
        return
    names = {store.path, store.lock.path}
    folders = {os.path.dirname(name) for name in names}
    with suppress(OSError, RuntimeError):  # too many watches, no such folder: the heartbeat is left
        for changes in watch(
            *folders,
            watch_filter=None,
            step=_STEP,
            debounce=10 * _STEP,
            rust_timeout=1000,
            yield_on_timeout=True,
            stop_event=stop,
            raise_interrupt=False,
            recursive=False,
        ):
            if any(path in names for _, path in changes):
                give()
