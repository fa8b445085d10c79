"""A terminal's turn, as the sessions hand it out, and one that was interrupted.

Everything that a session object writes while it has the turn is part of it, so code that is called
inside the block and knows nothing of turns needs no change.

**Cancellation and exceptions** inside the block end the turn; what was written stays. A wait for
the turn can be cancelled at any time. **A fork** inside the block leaves the turn with the parent.
**Stopped** (SIGSTOP, a closed lid), the holder keeps the turn, and goes on when it wakes up.
**Killed**, it leaves an interrupted turn, for the next one to keep or to roll back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._base import rotated_path
from .batch import Request
from .edits import Step
from .errors import TurnOver
from .records import Fork, Holder, Outcome, Revision, TurnCard
from .turn_lock import TurnLock, new_token
from .values import replace

if TYPE_CHECKING:
    from pathlib import Path

    from ._base import SessionBase
    from .blocking import BlockingSession
    from .session import Session

T = TypeVar("T")


class TurnBase(Generic[T]):
    """What the two kinds of turns have in common."""

    def __init__(self, base: SessionBase[T], label: str, expect: Revision | None = None) -> None:
        if base._joined:
            raise TurnOver(f"{base.path}: in another process's turn there are no turns")
        self._base = base
        self._label = label
        self._expect = expect
        self._lock: TurnLock | None = None
        self._token = 0
        self._pid = 0
        self._began: Revision | None = None
        self.fork: Fork | None = None
        """Where the turn is written, if that is a fork of the session, because of a conflict."""

    @property
    def began(self) -> Revision:
        """Where the session stood when the turn began."""
        if self._began is None:
            raise TurnOver(f"{self._base.path}: the turn has not begun")
        return self._began

    @property
    def key(self) -> str:
        """What a child process needs to write in this turn; see `join_turn`."""
        self._require_on()
        return f"{self._token}:{self._base.path}"

    @property
    def requested(self) -> Holder | None:
        """Who asked for the turn meanwhile. A look into a file: some ten microseconds."""
        return self._base._store.turns.note(self._token) if self._token else None

    def _begin_request(self, lock: TurnLock) -> Request:
        def begin(revision: Revision) -> int:
            # The card comes before the header names the turn: a death in between leaves a card
            # that nobody looks at.
            self._token = new_token()
            lock.write_card(self._token, self._label, revision)
            return self._token

        return replace(self._base._request("begin a turn", self._expect), alone=True, begins=begin)

    def _has_begun(self, lock: TurnLock, outcome: Outcome) -> None:
        self._lock, self._pid, self._began = lock, os.getpid(), outcome.revision
        self._base._turn = self._token
        self._expect = None  # once it has begun, it is a matter of the past

    def _end_request(self) -> Request:
        return replace(self._base._request("end a turn", None), turn=self._token, ends=True)

    def _is_over(self) -> None:
        """Let go of the lock. Where the end could not be noted, the turn now looks interrupted."""
        self._token = self._base._turn = 0
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _somebody_since(self) -> Callable[[], bool]:
        """Tells, from now on, whether anybody has done anything to the session."""
        store = self._base._store
        serial = store.serial()
        return lambda: store.serial() != serial

    def _require_on(self) -> None:
        if not self._token or self._pid != os.getpid():
            raise TurnOver(f"{self._base.path}: the turn is over, or is the parent process's")


class Turn(TurnBase[T]):
    """A turn of a `Session`: what is written in it is contiguous, for ever."""

    def __init__(self, session: Session[T], label: str, expect: Revision | None = None) -> None:
        super().__init__(session, label, expect)
        self._session = session

    @property
    def session(self) -> Session[T]:
        """The session that it is written to: the one that it was asked of, or its fork."""
        return self._session

    async def append(
        self, messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]]
    ) -> Revision:
        """Append to the session; durable and visible to everybody when this returns."""
        self._require_on()
        return await self._session.append(messages)

    async def checkpoint(self, *, then: Callable[[int], T] | None = None) -> int:
        """Set a checkpoint inside the turn."""
        self._require_on()
        return await self._session.checkpoint(then=then)

    async def record_usage(self, token_count: int) -> Revision:
        """Record a token count inside the turn."""
        self._require_on()
        return await self._session.record_usage(token_count)

    async def hand_over(self, *, timeout: float | None = None) -> None:
        """End the turn here, let whoever waits go first, and begin another one behind them.

        Raises:
            TurnTimeout: The others took longer than `timeout` seconds. The turn is over then.
        """
        self._require_on()
        await self._session._end_turn(self)
        await self._session._begin_turn(self, timeout, behind=self._somebody_since())


class BlockingTurn(TurnBase[T]):
    """A turn of a `BlockingSession`: what is written in it is contiguous, for ever."""

    def __init__(
        self, session: BlockingSession[T], label: str, expect: Revision | None = None
    ) -> None:
        super().__init__(session, label, expect)
        self._session = session

    @property
    def session(self) -> BlockingSession[T]:
        """The session that it is written to: the one that it was asked of, or its fork."""
        return self._session

    def append(self, messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]]) -> Revision:
        """Append to the session; durable and visible to everybody when this returns."""
        self._require_on()
        return self._session.append(messages)

    def checkpoint(self, *, then: Callable[[int], T] | None = None) -> int:
        """Set a checkpoint inside the turn."""
        self._require_on()
        return self._session.checkpoint(then=then)

    def record_usage(self, token_count: int) -> Revision:
        """Record a token count inside the turn."""
        self._require_on()
        return self._session.record_usage(token_count)

    def hand_over(self, *, timeout: float | None = None) -> None:
        """End the turn here, let whoever waits go first, and begin another one behind them."""
        self._require_on()
        self._session._end_turn(self)
        self._session._begin_turn(self, timeout, behind=self._somebody_since())


class InterruptedBase(Generic[T]):
    """A turn whose process died in the middle of it.

    Until it is settled, everybody can read, and nobody can write messages.
    """

    def __init__(self, base: SessionBase[T], card: TurnCard) -> None:
        self._base = base
        self.holder = card.holder
        self.began = card.began
        self.card = card

    def _keep_request(self, *, close_tool_calls: bool) -> Request:
        if not close_tool_calls:
            return self._settle_request("keep a turn")
        # A child of the dead process may still be writing in the turn, the result of a call even.
        return replace(
            self._settle_request("keep a turn", self._base._closing(self.began)),
            expect=self._base.revision,
        )

    def _settle_request(self, name: str, *steps: Step) -> Request:
        request = self._base._request(name, None, *steps)
        return replace(request, alone=True, ends=True, settles=self.card.token)


class InterruptedTurn(InterruptedBase[T]):
    """An interrupted turn, found by a `Session`."""

    def __init__(self, session: Session[T], card: TurnCard) -> None:
        super().__init__(session, card)
        self._session = session

    async def keep(self, *, close_tool_calls: bool = True, timeout: float | None = None) -> None:
        """Leave what the turn wrote.

        With `close_tool_calls`, its calls that have no result get one that says so: without that,
        no model's API takes the conversation any more.

        Raises:
            TurnOver: Somebody else has settled it.
            Conflict: A child of the process that died, which has joined the turn, wrote meanwhile,
                or a program that takes no lock.
        """
        await self._session.refresh()
        request = self._keep_request(close_tool_calls=close_tool_calls)
        await self._session._settle_turn(request, timeout)

    async def roll_back(self, *, timeout: float | None = None) -> Path | None:
        """Revert to where the turn began, also if it has replaced the file since.

        Returns:
            Where the old file was kept; `None` if the turn wrote nothing.
        """
        await self._session.refresh()
        session, began = self._session, self.began
        step = await session._on_thread(lambda: session._back_to(began))
        request = self._settle_request("roll back a turn", step)
        return rotated_path(await self._session._settle_turn(request, timeout))


class BlockingInterruptedTurn(InterruptedBase[T]):
    """An interrupted turn, found by a `BlockingSession`."""

    def __init__(self, session: BlockingSession[T], card: TurnCard) -> None:
        super().__init__(session, card)
        self._session = session

    def keep(self, *, close_tool_calls: bool = True, timeout: float | None = None) -> None:
        """Leave what the turn wrote, with a result for each of its calls that has none."""
        self._session.refresh()
        request = self._keep_request(close_tool_calls=close_tool_calls)
        self._session._settle_turn(request, timeout)

    def roll_back(self, *, timeout: float | None = None) -> Path | None:
        """Revert to where the turn began; where the old file was kept."""
        self._session.refresh()
        step = self._session._back_to(self.began)
        request = self._settle_request("roll back a turn", step)
        return rotated_path(self._session._settle_turn(request, timeout))
