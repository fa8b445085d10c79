"""A turn on a `Context`: what kimi-cli does from a question to its answer, in one piece.

1. It is a turn of the session behind the context. Whatever is called on the context in the same
   event loop meanwhile is part of it, whichever task calls.
2. A turn whose terminal died is kept, its tool calls without a result get one that says so, and a
   warning names the terminal. kimi-cli could not go on otherwise, nor could a model's API.
3. Tasks made inside the block belong to it. In them `turn()` is the turn that is on, and the end
   of the block waits for those that have written: kimi-cli shields its last records from a
   cancellation, and doesn't wait for them itself. They would come behind somebody else's turn.
4. Whoever waits is told for whom, once, after a second, and asks for the turn. Whoever has it is
   told that, within another second: it may be a person who has left an approval unanswered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from ..errors import StorageError, TurnInterrupted, TurnOver
from ..records import Holder
from ..session import Session
from ..turn import Turn as SessionTurn

log = logging.getLogger("cosession")

_QUIET = 1.0
"""Seconds of waiting about which nobody needs to be told, and between two looks for who asks."""

_PATIENCE = 10.0
"""Seconds for which the end of a turn waits for what its tasks still write."""

around: ContextVar[tuple[Turn, ...]] = ContextVar("cosession_kimi_turns", default=())
"""The turns that the running task was made in, or has begun; some of them may be over."""


class Turn:
    """A turn of a `Context`, which has it for as long as the block lasts."""

    def __init__(
        self,
        session: Session[Any],
        label: str,
        on_wait: Callable[[Holder | None], object],
        on_request: Callable[[Holder], object],
    ) -> None:
        self.session = session
        self.loop = asyncio.get_running_loop()
        self._label = label
        self._on_wait = on_wait
        self._on_request = on_request
        self._asked: Holder | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stack = AsyncExitStack()
        self._turn: SessionTurn[Any] | None = None
        self._writers: set[asyncio.Task[Any]] = set()

    @property
    def is_on(self) -> bool:
        """Whether it has begun, and is not over."""
        return self._turn is not None

    @property
    def has_records(self) -> bool:
        """Whether anything has been written since it began."""
        return self._turn is not None and self.session.revision != self._turn.began

    @property
    def requested(self) -> Holder | None:
        """Who asked for the turn meanwhile (`Session.request_turn`)."""
        return None if self._turn is None else self._turn.requested

    async def hand_over(self, *, timeout: float | None = None) -> None:
        """End the turn here, let those who wait go first, and begin another one behind them.

        Raises:
            TurnTimeout: The others took longer than `timeout` seconds. The turn is over then.
        """
        if self._turn is None:
            raise TurnOver(f"{self.session.path}: the turn is over")
        # Who waits stands at the turnstile already, so beginning at once is no cutting in.
        await self.end()
        await self.begin(timeout)

    async def begin(self, timeout: float | None) -> None:
        """Wait for the turn, and have in memory what others wrote in theirs."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._telling():
            while self._turn is None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                turn = self.session.turn(self._label, timeout=left)
                try:
                    self._turn = await self._stack.enter_async_context(turn)
                except TurnInterrupted:
                    await keep_interrupted(self.session, timeout=left)
        self._timer = self.loop.call_later(_QUIET, self._look_who_asks)
        await self.session.load()

    async def end(self) -> None:
        """Wait for what the turn's tasks are writing, and let the others go on."""
        others = self._writers - {asyncio.current_task()}
        try:
            if others:
                await asyncio.wait(others, timeout=_PATIENCE)
        finally:
            self._turn = None
            self._stop_timer()
            await self._stack.aclose()

    def writes(self, task: asyncio.Task[Any] | None) -> None:
        """Note that a task of the turn writes."""
        if task is not None and task not in self._writers:
            self._writers.add(task)
            task.add_done_callback(self._writers.discard)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        self._timer = self.loop.call_later(_QUIET, self._tell_and_ask)
        try:
            yield
        finally:
            self._stop_timer()

    def _tell_and_ask(self, *, told: bool = False, asked: Holder | None = None) -> None:
        """Tell for whom we wait, once, and ask each one who has the turn meanwhile."""
        holder = self.session.holder
        again = partial(self._tell_and_ask, told=True, asked=holder)
        self._timer = self.loop.call_later(_QUIET, again)
        if not told:
            self._on_wait(holder)
        if holder != asked:
            with suppress(StorageError):  # it is a courtesy
                self.session._ask_for_turn(self._label)

    def _look_who_asks(self) -> None:
        self._timer = self.loop.call_later(_QUIET, self._look_who_asks)
        asks = self.requested
        if asks is not None and asks != self._asked:
            self._asked = asks
            self._on_request(asks)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def keep_interrupted(session: Session[Any], *, timeout: float | None = None) -> None:
    """Decide about a turn whose terminal died in it, unless another terminal is faster."""
    interrupted = session.interrupted
    if interrupted is None:
        return
    try:
        await interrupted.keep(timeout=timeout)
    except TurnOver:
        return
    log.warning(
        "%s: %s died in the middle of its turn. What it wrote stays; tool calls that had no "
        "result got one that says so.",
        session.path,
        interrupted.holder,
    )
