"""Following a session: being told what anybody does to it, as it happens.

1. A follower looks at the file, tells what has changed since it last told anything, and waits for
   a sign that there may be more. Signs may come too often or get lost; looking decides.
2. Signs come from the system, by `watchfiles` on the *folder* (a watch on the file would be lost
   with the first replace), where that is installed and works. Beneath it a heartbeat looks at the
   lock file's header and the file's status, without reading either file.
3. A follower takes no lock. Only what stays unfinished for a heartbeat, since the process that
   wrote it is dead, it has settled.
4. A look goes no further than to where a turn began that has not been told yet. So a turn is told
   to begin before what it brings, and to end behind it.
5. One `Follower` looks; two thin skins wait, one for asyncio and one for threads.

**Cancellation** ends it cleanly, at any time.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .changes import Change, TurnBegan, TurnEnded, change_between
from .errors import SessionClosed, SessionMissing
from .interrupts import start
from .reading import View
from .records import Revision, TurnCard
from .store import Store

if TYPE_CHECKING:
    from ._base import SessionBase
    from .blocking import BlockingSession
    from .session import Session

HEARTBEAT = 0.2
"""Seconds between two looks where the system gives no signs."""

_UNDER_WAY = 0.01
"""Seconds between two looks at a write under way: the sign for its end gets lost now and then."""

_STEP = 1
"""Milliseconds for which signs are collected before they are passed on."""

_AT_EXIT = 1.0
"""Seconds that the interpreter's exit waits for a watching thread at the most."""


class _Sight(NamedTuple):
    """What one look has seen."""

    before: TurnCard | None
    """The turn that was on when it began,"""
    view: View
    after: TurnCard | None
    """and when it ended."""


class Follower:
    """Looks, and says what has changed since it last said anything."""

    def __init__(self, session: SessionBase[Any]) -> None:
        self._session = session
        self._queue = session._queue
        self._store = session._store
        self._told = self._store.view
        self._turn = self._store.turn_that_is_on()
        self._traces: object = None
        self._whole = True
        """Whether the last look saw everything,"""
        self._looked = 0.0
        """when that was,"""
        self._mend_at = 0.0
        """and when it is time to do something about what it did not see."""
        self._sight = _Sight(self._turn, self._told, self._turn)
        self._found: list[Change] = []

    def look(self) -> bool:
        """See whether there is something to `take`. Blocking, on any thread, but one at a time.

        Raises:
            SessionClosed: The session was closed.
            StorageError: The file can't be read.
        """
        while True:
            queue = self._queue
            if queue is None or self._session._queue is not queue:
                raise SessionClosed(f"{self._store.path}: closed while it was followed")
            traces = _traces(self._store)
            if traces == self._traces and not (self._store.knows_nothing or self._mend()):
                return False
            self._traces = traces
            before, self._whole = self._store.turn_that_is_on(), False
            with suppress(SessionMissing):  # a file that is gone for now has nothing new
                self._whole = queue.look(turn=self._turn.token if self._turn else 0)
            self._looked = time.monotonic()
            self._mend_at = self._looked + HEARTBEAT
            self._sight = _Sight(before, self._store.view, self._store.turn_that_is_on())
            self._found = self._compare(self._sight)
            if self._found or self._store.knows_nothing:
                return bool(self._found)

    def take(self) -> list[Change]:
        """What the last look found, in its order; `history` of the session is the fold of it."""
        view = self._store.view
        if view is not self._sight.view and not self._store.knows_nothing:
            # The session has done something itself meanwhile: then that is told with it.
            self._sight = self._sight._replace(view=view)
            self._found = self._compare(self._sight)
        self._told = self._sight.view
        for change in self._found:
            match change:
                case TurnBegan(card):
                    self._turn = card
                    self._traces = None  # what it has brought already was not looked at
                case TurnEnded():
                    self._turn = None
        found, self._found = self._found, []
        return found

    @property
    def patience(self) -> float:
        """Seconds to wait for a sign at most."""
        under_way = not self._whole and time.monotonic() - self._looked < HEARTBEAT
        return _UNDER_WAY if under_way else HEARTBEAT

    def _mend(self) -> bool:
        """Settle what a look could not see, if nothing has moved since. Never waits."""
        if self._whole or self._store.read_only or time.monotonic() < self._mend_at:
            return False
        self._mend_at = time.monotonic() + HEARTBEAT
        with suppress(SessionMissing):
            return self._queue is not None and self._queue.try_settle()
        return False

    def _compare(self, sight: _Sight) -> list[Change]:
        """What leads from what has been told to what has been seen."""
        view, told, turn = sight.view, self._told, self._turn
        if self._store.knows_nothing:  # dropped by a Ctrl-C: the next look reads it anew
            return []
        change = change_between(
            told.state, _at(told), view.state, _at(view), view.kept, self._session._decode
        )
        changes = [] if change is None else [change]
        marks: list[Change] = []
        began = sight.after
        unseen = began is not None and view.generation > 0 and _at(view) < began.began
        if unseen or _same(began, turn):
            began = None  # what came before it has yet to be told, or it has been told itself
        if turn is not None and (began is not None or not _same(sight.before, turn)):
            marks.append(TurnEnded(turn))
        if began is not None:
            marks.append(TurnBegan(began))
            if _at(view) > began.began:  # an operation of this session's own has seen further
                return marks + changes
        return changes + marks


def _at(view: View) -> Revision:
    return Revision(view.generation, view.state.position)


def _same(card: TurnCard | None, turn: TurnCard | None) -> bool:
    return card is not None and turn is not None and card.token == turn.token


def _traces(store: Store) -> object:
    """Something that differs after everything that anybody does to the session."""
    try:
        status = os.stat(store.path)
    except OSError:
        return (store.serial(), None)
    return (store.serial(), status.st_ino, status.st_size, status.st_mtime_ns)


# ---- the two skins: how they wait -----------------------------------------------------------


def follow(session: Session[Any]) -> AsyncGenerator[Change, None]:
    """The changes of a session from now on; see `Session.follow`."""
    return _follow(session, Follower(session))


async def _follow(session: Session[Any], follower: Follower) -> AsyncGenerator[Change, None]:
    sign = asyncio.Event()
    loop = asyncio.get_running_loop()

    def give() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for a sign
            loop.call_soon_threadsafe(sign.set)

    with _watching(session._store, give):
        while True:
            sign.clear()  # before the look: a sign that comes meanwhile counts
            while await session._on_thread(follower.look):
                for change in follower.take():
                    yield change
            with suppress(TimeoutError):
                async with asyncio.timeout(follower.patience):
                    await sign.wait()


def follow_blocking(
    session: BlockingSession[Any], timeout: float | None
) -> Generator[Change, None, None]:
    """The changes of a session from now on; see `BlockingSession.follow`."""
    return _follow_blocking(session, Follower(session), timeout)


def _follow_blocking(
    session: BlockingSession[Any], follower: Follower, timeout: float | None
) -> Generator[Change, None, None]:
    # A bare lock: Ctrl-C in the middle of an `Event` may leave that unusable.
    sign = threading.Lock()
    sign.acquire()

    def give() -> None:
        with suppress(RuntimeError):  # there is a sign already
            sign.release()

    with _watching(session._store, give):
        since = time.monotonic()
        while True:
            while follower.look():
                yield from follower.take()
                since = time.monotonic()
            patience = follower.patience
            if timeout is not None:
                patience = min(patience, since + timeout - time.monotonic())
            if patience <= 0:
                return
            sign.acquire(timeout=patience)


@contextmanager
def _watching(store: Store, give: Callable[[], None]) -> Iterator[None]:
    """Watch the session's folder, for as long as the block lasts."""
    stop = threading.Event()

    def watch() -> None:
        try:
            _watch(store, give, stop)
        finally:
            atexit.unregister(end)

    def end() -> None:
        """Let the thread end before the interpreter does.

        Python makes a thread that asks for the interpreter afterwards exit where it is, which in
        the middle of watchfiles' Rust ends the process by SIGABRT.
        """
        if thread.is_alive():
            stop.set()
            thread.join(_AT_EXIT)

    thread = threading.Thread(target=watch, name="cosession-follow", daemon=True)
    atexit.register(end)
    start(thread)
    try:
        yield
    finally:
        stop.set()  # the thread looks at it within milliseconds, and nobody waits for that


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
