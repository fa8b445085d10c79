"""What threads and cancellation need of an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from .interrupts import start
from .operation import call_all


class OnLoop:
    """Calls back on the running loop's thread, from any one, as long as the loop is open."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __call__(self, callbacks: Sequence[Callable[[], object]]) -> None:
        if threading.get_ident() == self._thread:
            call_all(callbacks)
        elif callbacks:
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(call_all, callbacks)


def finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def on_own_thread(work: Callable[[], object]) -> asyncio.Future[None]:
    """Have something done on a thread of its own, which never keeps the interpreter from exiting.

    The event loop's threads may all be busy with the program's own work. And starting the first of
    them takes longer than opening a session does.
    """
    future = asyncio.get_running_loop().create_future()
    on_loop, context = OnLoop(), contextvars.copy_context()

    def run() -> None:
        try:
            context.run(work)
        except BaseException as error:
            on_loop([partial(_fail, future, error)])
        else:
            on_loop([partial(finish, future)])

    start(threading.Thread(target=run, name="cosession-open", daemon=True))
    return future


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


async def uncancelled(work: Any) -> Any:
    """Wait to the end of something short; a cancellation that comes meanwhile is raised then."""
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            if future.cancelled():
                break  # it was the work that was cancelled, not the waiting for it
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # is not raised, and not to be complained about
        raise cancelled
    return future.result()
