"""Appends on an event loop: on the spot, or together with others that are ready as well.

1. One append after the other is made on the loop's thread while nothing is in the way. If the disk
   is waited for, another thread does that.
2. Coroutines that append at the same moment join one operation. The first of them leads: at the
   loop's next turn it has that committed, so that fifty cost little more than one. Each still takes
   back its own by itself, and has a result of its own.
3. Whoever called first is committed first, also if the next call is no append: that lines up what
   was joined before.
4. Only the loop's thread is here, but for `Together.request`. Ctrl-C may come behind any call of
   its: who is interrupted leaves, and the others' appends are committed all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf

from . import trace
from .batch import Request
from .commits import CommitQueue
from .edits import Add
from .errors import SessionClosed
from .event_loop import finish, uncancelled
from .interrupts import insist
from .operation import Operation, call_all
from .records import Revision

_STAY = 0.002
"""Seconds for which a coroutine that only appends keeps the event loop to itself."""


class Part(asyncio.Future["Revision | Exception"]):
    """One coroutine's append: where the session stands behind it, or why it has not happened.

    An error is a value, since nobody may be left who wants to be told.
    """

    __slots__ = ("add", "leads", "together")

    add: Add
    together: Together
    leads: bool
    """Whether the others rely on this one's caller."""


class Together(Operation):
    """Appends that are committed as one operation."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        super().__init__(None, on_settled=self._hand_out)
        self.parts: list[Part] = []

    @property
    def request(self) -> Request:
        return Request("append", tuple([part.add for part in self.parts]), apart=True)

    def drop_what_was_left(self) -> None:
        """Go on without those whose callers have stopped waiting."""
        self.parts = [part for part in self.parts if not part.done()]

    def fail(self, error: Exception) -> None:
        """Tell all that it has not happened."""
        self.settle(error)
        call_all(self.on_settled)

    def _hand_out(self) -> None:
        """May be called again, if it was interrupted."""
        result, parts = self._result, self.parts
        assert result is not None
        if isinstance(result, Exception):
            for part in parts:
                if not part.done():
                    part.set_result(result)
        else:
            sizes = [
                len(lines[0]) if len(lines := part.add.lines) == 1 else sum(map(len, lines))
                for part in parts
            ]
            generation = result.revision.generation
            position = result.revision.position - sum(sizes)
            for part, size in zip(parts, sizes, strict=True):
                position += size
                if not part.done():
                    part.set_result(Revision(generation, position))
        self.parts = []  # which refer to this one


class AppendingTogether:
    """What the coroutines of one session append."""

    def __init__(self, queue: CommitQueue, lock: asyncio.Lock, *, inline: bool) -> None:
        """Belong to the running event loop.

        Args:
            lock: Is held while somebody leads, who takes along what is in the queue.
            inline: Whether the loop's thread may do what takes it no longer than a moment.
        """
        self.queue = queue
        self.loop = asyncio.get_running_loop()
        self.awaits_disk = queue.store.durable
        self.commits_inline = inline and not self.awaits_disk
        """Whether the loop's thread may commit more than an append on the spot."""
        self._lock = lock
        self._inline = inline
        self._is_read_only = queue.store.read_only
        self._joined: Together | None = None
        """What is joined until the loop's next turn."""
        self._crowded = False
        """Whether several were ready at its last turn."""
        self._stays_until = 0.0
        """How long its thread may be used without a break."""
        self._stay = inf if self.awaits_disk else _STAY
        """Who waits for the disk gives the loop its turn meanwhile."""

    def append_now(self, lines: Sequence[bytes]) -> Revision | None:
        """Append on the spot, if nothing is in the way; else None, and nothing.

        Not while others are ready too, who go out in one write, and not for longer than a moment
        without the event loop getting its turn.
        """
        if (
            not self._inline
            or self._crowded
            or self._joined is not None
            or self._lock.locked()
            or time.monotonic() > self._stays_until
        ):
            return None
        return self.queue.append_quickly(lines)

    async def disk(self) -> None:
        """Wait for the disk, for what was just appended on the spot; if cancelled, too.

        Raises:
            SyncFailed: It refuses.
        """
        future = self.loop.create_future()
        confirmation = self.queue.confirm(partial(finish, future))
        try:
            await future
        except asyncio.CancelledError:
            await uncancelled(settlement(self.queue, confirmation))
            raise
        confirmation.outcome()

    def join(self, add: Add) -> Part | None:
        """Append with whoever else is ready; None if this session's appends don't do that.

        Whoever stops waiting for the part, for whatever reason, has to `leave`; and so has who
        doesn't get it because of Ctrl-C.
        """
        if self._is_read_only or trace.sink is not None:
            return None
        together = self._joined
        if together is None or together.queued:
            self._joined = together = Together()
        part = Part(loop=self.loop)
        part.add, part.together, part.leads = add, together, not together.parts
        together.parts.append(part)
        return part

    async def lead(self, part: Part) -> None:
        """Commit at the loop's next turn what is joined by then: here if that is quick, and
        possible now or soon, else on the thread.
        """
        together, queue = part.together, self.queue
        if (others := queue.unconfirmed) is None:
            await asyncio.sleep(0)
        else:  # whose caller may be about to append the next one, and comes along
            await settlement(queue, others)
        self.line_up()
        if together.settled or self._lock.locked():
            return  # whoever has the lock takes along what is in the queue
        await self.commit_soon(together)
        if not together.settled:
            queue.start_pass()

    async def commit_soon(self, operation: Operation) -> None:
        """Commit what is in the queue on the loop's thread, if that can be done within a moment."""
        queue = self.queue
        if self.commits_inline and not queue.try_quick_pass():
            for pause in queue.short_pauses(operation):
                await asyncio.sleep(pause)
                queue.try_quick_pass()

    async def leave(self, part: Part | None, error: BaseException) -> None:
        """Take an append back because of that; if it is too late, wait until it has happened."""
        queue, is_late = self.queue, False
        if part is not None:
            with suppress(RuntimeError):  # the loop is closed
                part.cancel()
            together = part.together
            is_late = not queue.while_it_waits(together, together.drop_what_was_left)
            if together.queued and not together.parts and not is_late:
                queue.withdraw(together)
        if part is None or part.leads:
            insist(self.line_up)
            if queue.waiting:
                insist(queue.start_pass)
        if is_late and isinstance(error, asyncio.CancelledError):
            await uncancelled(settlement(queue, together))

    def line_up(self) -> None:
        """Queue what has been joined."""
        together = self._joined
        if together is None:
            return
        if not together.queued:
            self.has_yielded(crowded=len(together.parts) > 1)
            together.drop_what_was_left()
            if together.parts:
                try:
                    self.queue.add(together)
                except SessionClosed as error:
                    together.fail(error)
        self._joined = None

    def has_yielded(self, *, crowded: bool) -> None:
        """The loop has had its turn; whether several were ready then."""
        self._crowded = crowded
        self._stays_until = time.monotonic() + self._stay


def settlement(queue: CommitQueue, operation: Operation) -> asyncio.Future[None]:
    """A future that is done when the operation is settled, on whatever thread that happens."""
    future = asyncio.get_running_loop().create_future()
    queue.call_when_settled(operation, partial(finish, future))
    return future
