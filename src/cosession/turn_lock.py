"""Whose turn it is: a second lock, held from the first to the last record of a turn.

1. The turn's lock is the kernel's, on `context.jsonl.turn`, and dies with its process. While a turn
   is on, the header of the session's own lock file says so as well. That costs nobody anything
   while there is none, and tells an end from a death: a turn that is in the header, and whose lock
   is free, was interrupted.
2. A turn begins and ends under the session's lock: first the turn's lock, then the session's.
   Whoever holds the session's lock alone may rely on what the header says.
3. The card behind the locked byte says who has the turn, for people, and where it began, for
   whoever has to decide about an interrupted one. It is written before the header names the turn.
4. Whoever wants the turn may leave a note behind the card. The holder may look at it, and need not.
5. Waiting is in the kernel, on a daemon thread for each wait, and a lock that nobody wants any more
   by the time it comes is handed on. Who waits for longer than a moment is on a list.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial

from . import _json as json
from . import _platform, presence, trace
from .card import from_json, own_card, to_json
from .files import translated
from .interrupts import start
from .kernel_lock import KernelLock
from .records import Holder, Revision, TurnCard

_COURTESY = 0.25
"""Seconds for which a terminal that hands its turn over waits for somebody to take it."""

_CARD_AT, _NOTE_AT, _SIZE = 16, 1024, 1008


class Turns:
    """The file of a session's turns."""

    def __init__(self, path: str, *, beside: str) -> None:
        self.path = path
        self._beside = beside

    def handle(self) -> TurnLock:
        """A handle of its own on the turn's lock."""
        return TurnLock(self.path, beside=self._beside)

    def read(self) -> TurnCard | None:
        """The card of the turn that is on, or was the last; `None` if there is none."""
        match self._read(_CARD_AT):
            case {
                "turn": int(token),
                "generation": int(generation),
                "position": int(position),
                **rest,
            }:
                return TurnCard(from_json(rest) or Holder(0), Revision(generation, position), token)
        return None

    def note(self, token: int) -> Holder | None:
        """Who asks for this turn."""
        match self._read(_NOTE_AT):
            case {"turn": int(asked), **rest} if asked == token:
                return from_json(rest) or Holder(0)
        return None

    def ask(self, token: int, label: str) -> None:
        """Leave a note that asks for this turn."""
        fd = _platform.open_file(self.path, os.O_RDWR, permanent=True)
        try:
            _platform.pwrite(fd, _packed({"turn": token} | to_json(own_card(label))), _NOTE_AT)
        finally:
            os.close(fd)

    def held(self) -> bool:
        """Whether anybody has the turn's lock at this moment."""
        with KernelLock(self.path, beside=self._beside).opened() as fd:
            if fd is None:
                return False
            if not _platform.try_lock(fd):
                return True
            _platform.unlock(fd)
            return False

    def _read(self, offset: int) -> object:
        with KernelLock(self.path, beside=self._beside).opened() as fd:
            if fd is None:
                return None
            try:
                return json.loads(_platform.pread(fd, _SIZE, offset).rstrip(b"\0"))
            except (ValueError, RecursionError):
                return None


class _TracedLock(KernelLock):
    traced: trace.TurnHold | None

    def _trace(self, sink: trace.Sink) -> None:
        self.traced = trace.TurnHold(sink, self._beside)


class TurnLock:
    """The turn's lock, and the turnstile in front of it.

    Who waits stands at the turnstile, one process after the other. Otherwise a terminal that ends
    a turn and begins the next one at once would win against all those who have yet to wake up.
    """

    def __init__(self, path: str, *, beside: str) -> None:
        self.path = path
        self.beside = beside
        self._turnstile = KernelLock(f"{path}.queue", beside=beside)
        self._lock = _TracedLock(path, beside=beside)

    @property
    def held(self) -> bool:
        return self._lock.held

    def try_acquire(self) -> bool:
        """Take the lock if it is free and nobody waits for it."""
        if not self._turnstile.try_acquire():
            return False
        try:
            return self._lock.try_acquire()
        finally:
            self._turnstile.release()

    def acquire(self, *, wanted: Callable[[], bool]) -> bool:
        """Wait for the lock, behind those who wait already, for as long as it is `wanted`."""
        if not self._turnstile.acquire(wanted=wanted):
            return False
        try:
            came = self._lock.acquire(wanted=wanted)
            if not wanted():
                self._lock.traced = None  # it is handed on at once
            return came
        finally:
            self._turnstile.release()

    def close(self) -> None:
        """Unlock, if it is locked, and close."""
        self._turnstile.close()
        self._lock.close()

    def write_card(self, token: int, label: str, began: Revision) -> None:
        """Say who has the turn, and where it begins. The lock is held."""
        card = {"turn": token, "generation": began.generation, "position": began.position}
        self._lock.write_at(_CARD_AT, _packed(card | to_json(own_card(label))))
        if self._lock.traced is not None:
            self._lock.traced.began(label)


def new_token() -> int:
    """A number for a turn: not 0, and never drawn twice."""
    return int.from_bytes(os.urandom(7), "little") + 1


def _packed(card: dict[str, object]) -> bytes:
    """A card in the place that there is for it; a label that is too long loses its end."""
    while len(packed := json.dumps(card).encode()) > _SIZE:
        card = card | {"operation": str(card["operation"])[:-16]}
    return packed.ljust(_SIZE, b"\0")


class Ticket:
    """One wait for a turn's lock, that can be given up."""

    def __init__(self, lock: TurnLock, label: str) -> None:
        self.lock = lock
        self._label = label
        self._guard = threading.Lock()
        self._waiting = False
        self._given_up = False
        self._error: OSError | None = None
        self._over = threading.Event()
        """Set when nobody waits any more."""
        self._asked = 0 if trace.sink is None else trace.now()
        self._traced: trace.TurnWait | None = None

    def try_now(self) -> bool:
        """Take the lock if it is free and nobody waits for it."""
        return self.lock.try_acquire()

    def wait(
        self, when_it_comes: Callable[[], object], *, behind: Callable[[], bool] | None = None
    ) -> None:
        """Wait on a daemon thread, and call back on it, unless the ticket is given up before.

        With `behind`, which tells whether somebody else has had the lock by now, the others get a
        moment to take it first.
        """
        self._waiting = True
        if trace.sink is not None:
            asked = self._asked or trace.now()
            self._traced = trace.TurnWait(trace.sink, self.lock.beside, asked)
        waiting = partial(self._wait, when_it_comes, behind)
        start(threading.Thread(target=waiting, name="cosession-turn", daemon=True))

    def require_lock(self) -> None:
        """Raise what went wrong with the wait, if anything."""
        if self._error is not None:
            with translated(self.lock.path, "wait for the turn"):
                raise self._error

    def give_up(self) -> None:
        """Let go of the lock, or of the wait for it. The lock is handed on when it comes."""
        self._over.set()
        with self._guard:
            self._given_up = True
            self._wait_is_over("gave up")
            if not self._waiting:
                self.lock.close()

    def _wait_is_over(self, outcome: str) -> None:
        traced, self._traced = self._traced, None
        if traced is not None:
            traced.ended(outcome)

    def _wait(self, when_it_comes: Callable[[], object], behind: Callable[[], bool] | None) -> None:
        try:
            deadline = time.monotonic() + _COURTESY
            while behind and not behind() and not self._given_up and time.monotonic() < deadline:
                time.sleep(_COURTESY / 100)
            presence.list_as_waiting(self.lock.beside, self._label, until=self._over)
            self.lock.acquire(wanted=lambda: not self._given_up)
        except OSError as error:
            self._error = error
        self._over.set()
        with self._guard:
            self._waiting = False
            if self._given_up:
                self.lock.close()
                return
            self._wait_is_over("failed" if self._error else "came")
        when_it_comes()
