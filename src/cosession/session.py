"""The asynchronous session: an `asyncio.Lock`, at most one hop into a thread, and every await
accounted for.

1. Within one session object, whoever finds the `asyncio.Lock` free leads: it has the queue run a
   pass, here if that takes no longer than a few short system calls, else on the commit thread. The
   pass takes along what others have queued meanwhile; they wait for their own operations.
2. The lock is not left before the leader's operation is settled or withdrawn: an `asyncio.Lock`
   alone would be free as soon as an awaited thread is abandoned, with the write still going on.
   Whoever is left in the queue then is handed to the thread.
3. A cancelled operation is withdrawn if it still waits, and has then not happened. If it is being
   committed, the cancellation is held back until that has ended, which is a matter of one write.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ._base import (
    Durability,
    DuringTurn,
    OnConflict,
    SessionBase,
    as_path,
    rotated_path,
    system_prompt,
)
from .batch import Request
from .commits import CommitQueue, tries_once
from .edits import Clear, RevertTo
from .errors import Conflict, CosessionError, SessionClosed, TurnHeld, TurnOver
from .event_loop import OnLoop, finish, on_own_thread, uncancelled
from .files import translated
from .operation import Operation
from .records import Fork, Holder, Outcome, Revision, TurnStatus
from .together import AppendingTogether, settlement
from .transaction import Transaction
from .turn import InterruptedTurn, Turn
from .turn_lock import Ticket, TurnLock
from .values import replace

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from pydantic import TypeAdapter

    from .changes import Change
    from .messages import Message

T = TypeVar("T")
R = TypeVar("R")


_AT_HOME = 0.2
"""Seconds for which a session is open that will be so for longer: what messages need is imported
then, on a thread, so that `history` needn't do that on the event loop's."""


class Session(SessionBase[T], Generic[T]):
    """A session file that other processes may be using too, for asyncio.

        async with Session("context.jsonl") as session:
            await session.append(Message(role="user", content="hi"))

    Every call that changes the session takes `timeout` (seconds to wait for another process;
    `None` waits, 0 tries once; when it is over, a `TimeoutError` that names the holder) and
    `expect` (the revision that the caller knows).

    **Cancellation.** A cancelled call has either happened, in the file and in memory, or not at
    all. It ends at once while it waits for another process, and after one write at the latest.

    **Crash.** Killed at any instant, an operation is in the file whole or not at all; the next
    process to open or change the session cleans up.

    **Other processes.** Before a change, what they wrote is folded in. In between, `refresh` does
    that. One object belongs to one event loop; make one for each loop, thread or process.
    """

    @overload
    def __init__(
        self: Session[Message],
        path: str | os.PathLike[str],
        *,
        durability: Durability = ...,
        create: bool = ...,
        read_only: bool = ...,
        lock_dir: str | os.PathLike[str] | None = ...,
        during_turn: DuringTurn = ...,
        inline: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        message_type: type[T] | TypeAdapter[T],
        durability: Durability = ...,
        create: bool = ...,
        read_only: bool = ...,
        lock_dir: str | os.PathLike[str] | None = ...,
        during_turn: DuringTurn = ...,
        inline: bool = ...,
    ) -> None: ...
    def __init__(
        self, path: str | os.PathLike[str], *, inline: bool = True, **options: Any
    ) -> None:
        """Name a session file, as `SessionBase` does.

        Args:
            inline: Whether small changes that meet no obstacle at all are made on the event loop's
                thread, in some 30 µs each, instead of on another one. It never waits for a disk.
        """
        super().__init__(path, **options)
        self._options["inline"] = inline
        self._inline = inline
        self._lock = asyncio.Lock()
        self._line = asyncio.Lock()
        """Held by the coroutine that waits for another terminal's turn."""
        self._turn_owner: asyncio.Task[Any] | None = None
        self._codec_timer: asyncio.TimerHandle | None = None
        self._together: AppendingTogether | None = None
        """On the event loop that the session belongs to."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open or create the file, heal what a dead process left, and fold it. Waits for nobody.

        Raises:
            NotASession: Something else lies at the path.
            SessionMissing: The folder is missing, or the file with `create=False`.
            HardLinked: The file has a second name.
            StorageError: The system refuses.
        """
        opened: list[CommitQueue] = []
        try:
            await uncancelled(on_own_thread(lambda: opened.append(self._open_ready())))
        except asyncio.CancelledError:
            if opened:
                await self.close()
            raise
        self._lock = asyncio.Lock()  # an earlier one may belong to an earlier event loop
        loop = self._join_loop(opened[0]).loop
        if self._codec_ is None:
            self._codec_timer = loop.call_later(
                _AT_HOME, loop.run_in_executor, None, self._make_codec
            )

    def _open_ready(self) -> CommitQueue:
        if "pydantic" in sys.modules:  # else a small program may do without
            self._make_codec()
        return self._open()

    async def close(self) -> None:
        """Let go of the file. Operations of other tasks that still wait raise `SessionClosed`."""
        queue = self._queue
        if queue is not None:
            if self._codec_timer is not None:
                self._codec_timer.cancel()
            try:
                await uncancelled(on_own_thread(queue.close))
            finally:
                self._forget_queue(queue)

    # ---- changing the session ---------------------------------------------------------------

    @overload
    async def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = ...,
        expect: Revision | None = ...,
        on_conflict: Literal["raise", "rebase"] = ...,
    ) -> Revision: ...
    @overload
    async def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = ...,
        expect: Revision | None = ...,
        on_conflict: OnConflict,
    ) -> Revision | Fork: ...
    async def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        expect: Revision | None = None,
        on_conflict: OnConflict = "raise",
    ) -> Revision | Fork:
        """Append one message, or a list of them: all or none, and nothing in between.

        Args:
            messages: Instances of the session's message type, or what makes them.
            timeout: Seconds to wait for other processes; `None` waits, 0 tries once.
            expect: What the caller knows. Messages of others that came in since are a conflict;
                token counts are none, and inside a turn neither is what the turn has written.
            on_conflict: `"raise"` raises `Conflict`, `"rebase"` appends behind what came in, and
                `"fork"` writes a new session instead: what there was at `expect`, then these.

        Returns:
            Where the session stands right behind them; the `Fork`, if it came to that.

        Raises:
            InvalidMessage: One of them can't be stored. Nothing was written.
            LockTimeout: Another process kept the lock, or (`TurnTimeout`) the turn, for as long as
                `timeout` says. Nothing was written.
            TurnHeld: It is another terminal's turn, and the session has `during_turn="raise"`.
            Conflict: Messages came in since `expect`. Nothing was written.
            StorageError: The system refuses. What was half done has been undone.
        """
        add = self._add_at_once(messages)
        if add is None:
            await asyncio.to_thread(self._make_codec)
            add = self._add(messages)
        if expect is None and on_conflict == "raise" and not self._turn:
            if timeout is not None:
                tries_once(timeout)
            together = self._open_together()
            if (revision := together.append_now(add.lines)) is not None:
                if together.awaits_disk:
                    await together.disk()
                return revision
            part = None
            try:
                if timeout is None and (part := together.join(add)) is not None:
                    if part.leads:
                        await together.lead(part)
                    result = await part
            except BaseException as error:
                await together.leave(part, error)
                raise
            if part is not None:
                if isinstance(result, Revision):
                    return result
                if not isinstance(result, TurnHeld):  # which is waited for below
                    raise result
        request = self._request("append", self._expectation(expect, on_conflict), add)
        try:
            return (await self._perform(request, timeout)).revision
        except Conflict as conflict:
            if on_conflict != "fork":
                raise
            left = conflict.yours
        return await self._fork_uncancelled(None, left, add.lines)

    async def checkpoint(
        self,
        *,
        then: Callable[[int], T] | None = None,
        timeout: float | None = None,
        expect: Revision | None = None,
    ) -> int:
        """Set a mark to revert to, and return its number.

        Numbers count up from 0 and don't repeat across processes, until a revert or a clear
        starts from an earlier one again. `then` makes a message that mentions the number and goes
        right behind the mark, in the same operation.
        """
        request = self._request("checkpoint", expect, self._add_checkpoint(then))
        return (await self._perform(request, timeout)).checkpoints[0]

    async def record_usage(
        self, token_count: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Revision:
        """Record how many tokens the history takes. Never makes anybody's `expect` fail."""
        request = self._usage_request(token_count, expect)
        return (await self._perform(request, timeout)).revision

    async def set_system_prompt(
        self, text: str, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path | None:
        """Make this the first record of the file, in place of any system prompt that is there.

        Returns:
            Where the old file was kept; `None` if there was nothing in it.
        """
        request = self._request("set system prompt", expect, system_prompt(text))
        return rotated_path(await self._perform(request, timeout))

    async def revert_to(
        self, checkpoint: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path:
        """Drop the checkpoint and everything behind it.

        Returns:
            Where the old file was kept: `context_1.jsonl`, `context_2.jsonl`, …

        Raises:
            UnknownCheckpoint: The session has no such checkpoint (any more).
        """
        request = self._request("revert", expect, RevertTo(checkpoint))
        rotated = rotated_path(await self._perform(request, timeout))
        assert rotated is not None
        return rotated

    async def clear(
        self, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path | None:
        """Drop everything.

        Returns:
            Where the old file was kept; `None` if there was nothing in it.
        """
        return rotated_path(await self._perform(self._request("clear", expect, Clear()), timeout))

    async def restore(
        self, number: int, *, timeout: float | None = None, expect: Revision | None = None
    ) -> Path:
        """Bring a rotated file back, as the session's new generation: the undo of a revert.

        Args:
            number: Which: 3 for `context_3.jsonl`. The rotated file itself stays as it is.

        Returns:
            Where the file was kept that was there before.

        Raises:
            UnknownRotation: There is no such file.
        """
        step = await asyncio.to_thread(self._restoring, number)
        request = self._request("restore", expect, step)
        rotated = rotated_path(await self._perform(request, timeout))
        assert rotated is not None
        return rotated

    async def fork(
        self, path: str | os.PathLike[str] | None = None, *, at: int | Revision | None = None
    ) -> Fork:
        """Make a new session of this one's beginning. Waits for nobody, and changes nothing here.

        Args:
            path: The new session's file; without it `context.fork-1.jsonl` or the next free number.
            at: Up to where: a checkpoint (without it, as `revert_to` has it), a revision, also one
                before a revert, or, by default, what `history` shows.

        Raises:
            UnknownCheckpoint: The session has no such checkpoint (any more).
            UnknownRevision: No file holds the session as of that revision.
            StorageError: The path is taken, or the system refuses. Nothing of a fork stays.
        """
        return await self._fork_uncancelled(path, at)

    async def _fork_uncancelled(
        self,
        path: str | os.PathLike[str] | None,
        at: int | Revision | None,
        lines: Sequence[bytes] = (),
    ) -> Fork:
        self._open_queue()
        fork: Fork = await uncancelled(asyncio.to_thread(self._fork_now, path, at, lines))
        return fork

    @asynccontextmanager
    async def transaction(
        self, *, timeout: float | None = None, expect: Revision | None = None
    ) -> AsyncIterator[Transaction[T]]:
        """Collect changes, and make them in one atomic operation when the block ends."""
        transaction = Transaction(self)
        yield transaction
        request = self._request("transaction", expect, *transaction._steps)
        transaction._outcome = await self._perform(request, timeout)

    # ---- turns ------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(
        self,
        label: str = "",
        *,
        timeout: float | None = None,
        expect: Revision | None = None,
        on_conflict: OnConflict = "raise",
    ) -> AsyncIterator[Turn[T]]:
        """Have the session to oneself, from the first to the last record of the block.

            async with session.turn("answering", timeout=30) as turn:
                await turn.append(question)
                await turn.append(answer)

        Other terminals' messages, reverts and clears wait for the end, their token counts and
        their reading don't. Everything that this object writes meanwhile is part of the turn.
        Terminals that wait for a turn get it in their order.

        Args:
            label: What the turn is for. Others read it when they ask who has the turn.
            timeout: Seconds to wait for others' turns; `None` waits, 0 tries once.
            expect: What the caller knows of the session: messages that came in since, also while
                waiting for the turn, are a conflict.
            on_conflict: `"raise"` raises `Conflict` and begins no turn; `"rebase"` begins it all
                the same; `"fork"` begins it in a new session with what there was at `expect`:
                `turn.fork` then says which, and `turn.session` is open for as long as the block.

        Raises:
            TurnTimeout: Somebody else had the turn all that time; with 0, has it.
            TurnInterrupted: The terminal that had it died; see `interrupted`.
            Conflict: Messages came in since `expect`.
        """
        turn = Turn(self, label, self._expectation(expect, on_conflict))
        if self._turn_owner is asyncio.current_task():
            raise TurnOver(f"{self.path}: this task has the turn already")
        left: Revision | None = None
        try:
            await self._begin_turn(turn, timeout)
        except Conflict as conflict:
            if on_conflict != "fork":
                raise
            left = conflict.yours
        if left is not None:
            fork = await self.fork(at=left)
            async with self._on(fork) as session, session.turn(label) as turn:
                turn.fork = fork
                yield turn
            return
        self._turn_owner = asyncio.current_task()
        try:
            yield turn
        finally:
            self._turn_owner = None
            await self._end_turn(turn)

    @property
    def interrupted(self) -> InterruptedTurn[T] | None:
        """A turn whose process died, for `keep()` or `roll_back()`; `None` if there is none."""
        card = self._interrupted_card()
        return None if card is None else InterruptedTurn(self, card)

    async def request_turn(self, label: str = "") -> Holder | None:
        """Ask whoever has the turn to hand it over; whom that is, or `None` if nobody has it.

        It is a note to the holder (`Turn.requested`), nothing more. Wait with `turn()`.
        """
        return await asyncio.to_thread(self._ask_for_turn, label)

    async def turn_status(self) -> TurnStatus | None:
        """The turn that is on: whose it is, how far it is, who waits; `None` if there is none."""
        await self.refresh()
        return await asyncio.to_thread(self._turn_status)

    async def _begin_turn(
        self, turn: Turn[T], timeout: float | None, *, behind: Callable[[], bool] | None = None
    ) -> None:
        lock = await self._turn_lock(turn._label or "a turn", timeout, behind=behind)
        try:
            outcome = await self._commit(turn._begin_request(lock), timeout)
        except BaseException:
            # Cancelled right behind the commit, it may have begun: then it ends at once.
            turn._lock = lock
            if turn._token:
                await self._end_turn(turn)
            lock.close()
            raise
        turn._has_begun(lock, outcome)

    async def _end_turn(self, turn: Turn[T]) -> None:
        """Note the end, and let go. A cancellation waits: else the turn would look interrupted."""
        try:
            if turn._token and turn._pid in (0, os.getpid()):
                await uncancelled(self._commit(turn._end_request(), None))
        finally:
            turn._is_over()

    async def _settle_turn(self, request: Request, timeout: float | None) -> Outcome:
        lock = await self._turn_lock(request.name, timeout)
        try:
            return await self._commit(request, timeout)
        finally:
            lock.close()

    async def _turn_lock(
        self, label: str, timeout: float | None, *, behind: Callable[[], bool] | None = None
    ) -> TurnLock:
        """Wait for the turn's lock."""
        began = time.monotonic()
        ticket = Ticket(self._store.turns.handle(), label)
        try:
            with translated(self._store.turns.path, "take the turn"):
                if behind is None and ticket.try_now():
                    return ticket.lock
            if tries_once(timeout):
                raise self._turn_held()
            # Coroutines of one object line up here, so that only one of them waits on a thread.
            async with asyncio.timeout(timeout), self._line:
                came = asyncio.get_running_loop().create_future()
                on_loop = OnLoop()
                ticket.wait(lambda: on_loop([partial(finish, came)]), behind=behind)
                await came
            ticket.require_lock()
        except BaseException as error:
            ticket.give_up()
            if isinstance(error, TimeoutError) and not isinstance(error, CosessionError):
                raise self._turn_timeout(time.monotonic() - began) from None
            raise
        return ticket.lock

    # ---- reading ----------------------------------------------------------------------------

    async def refresh(self) -> Revision:
        """Fold in what other processes wrote. Waits for nobody; heals if that is needed and free.

        Returns:
            Where the session stands now.
        """
        queue = self._open_queue()
        seen = await uncancelled(asyncio.to_thread(queue.look))
        if not seen and not self._store.read_only:
            await uncancelled(asyncio.to_thread(queue.try_settle))
        return self.revision

    def follow(self) -> AsyncGenerator[Change, None]:
        """Be told what anybody does to the session, from its present state on, as it happens.

            async for change in session.follow():
                match change:
                    case Appended(records): ...

        Whenever a change is told, `history` is the fold of what has been told. Nothing is told
        twice or left out, whatever happens to the file: what happens between two looks is told in
        one. A turn is told to begin before what it brings, and to end behind it; one that begins
        and ends between two looks is not told.

        Where `watchfiles` is installed (`pip install cosession[follow]`), it wakes within some
        milliseconds of a change, else within a quarter of a second.

        **Cancellation** ends it. So does closing the session, by `SessionClosed`.
        """
        from .follow import follow

        self._open_queue()
        return follow(self)

    async def _on_thread(self, work: Callable[[], R]) -> R:
        """Have something short done on a thread, to its end."""
        done: R = await uncancelled(asyncio.to_thread(work))
        return done

    async def load(self) -> None:
        """Decode every message on a thread, so that `history` costs the event loop nothing."""
        await asyncio.to_thread(self.history._decode_all)

    async def export(self, target: str | os.PathLike[str]) -> Path:
        """Copy the session, with what others wrote, into a new private file. Waits for nobody.

        Returns:
            The new file's path, absolute.

        Raises:
            StorageError: There is a file at the target, or the system refuses. Nothing of an
                unfinished copy stays.
        """
        from . import transfer

        return as_path(await transfer.export(self._store, target))

    # ---- the way through the queue ----------------------------------------------------------

    def _open_queue(self) -> CommitQueue:
        return self._open_together().queue

    def _open_together(self) -> AppendingTogether:
        if self._queue is None:
            raise SessionClosed(f"{self.path}: the session is not open")
        together = self._together
        if together is None:  # in a forked child
            return self._join_loop(self._queue)
        if together.loop is not asyncio.get_running_loop():
            raise SessionClosed(
                f"{self.path}: the session belongs to another event loop; make one for each"
            )
        return together

    def _join_loop(self, queue: CommitQueue) -> AppendingTogether:
        """Belong to the running event loop from now on."""
        queue.tell = OnLoop()
        self._together = AppendingTogether(queue, self._lock, inline=self._inline)
        return self._together

    async def _perform(self, request: Request, timeout: float | None) -> Outcome:
        """Commit a request, behind the turn of another terminal if one is on."""
        try:
            return await self._commit(request, timeout)
        except TurnHeld as held:
            if self._during_turn == "raise" or tries_once(timeout):
                raise self._refusal(held) from None
        lock = await self._turn_lock(request.name, timeout)
        try:
            return await self._commit(replace(request, alone=True), timeout)
        finally:
            lock.close()

    async def _commit(self, request: Request, timeout: float | None) -> Outcome:
        together, waits, settle = self._open_together(), None, None
        queue = together.queue
        if self._lock.locked():  # somebody leads: all there is to do is wait
            waits = asyncio.get_running_loop().create_future()
            settle = partial(finish, waits)
        operation = Operation(request, once=tries_once(timeout), on_settled=settle)
        try:
            together.line_up()  # who called before is committed before
            queue.add(operation)
            settled = waits or self._settle(together, operation)
            if timeout is None or (patience := queue.patience(timeout)) is None:
                await settled
            else:
                async with asyncio.timeout(patience):
                    await settled
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and queue.withdraw(operation):
                raise queue.timeout(operation) from None
            if not queue.withdraw(operation):
                await uncancelled(settlement(queue, operation))
            if isinstance(error, asyncio.CancelledError):
                raise
        except BaseException:
            queue.withdraw(operation)  # no thread can be had, or the event loop is torn down
            raise
        return operation.outcome()

    async def _settle(self, together: AppendingTogether, operation: Operation) -> None:
        """Lead until the operation is settled."""
        queue = together.queue
        async with self._lock:
            try:
                await self._lead(together, operation)
            except BaseException:
                queue.withdraw(operation)
                raise
            finally:
                if queue.waiting:  # who came meanwhile relies on us
                    queue.start_pass()

    async def _lead(self, together: AppendingTogether, operation: Operation) -> None:
        """Have a pass run, and stay until the operation is settled, or withdrawn."""
        queue = together.queue
        if together.commits_inline:
            await asyncio.sleep(0)  # the others that are ready queue up, and go out with this one
            together.has_yielded(crowded=queue.waiting > 1)
            await together.commit_soon(operation)
        if operation.settled:
            return
        settled = settlement(queue, operation)
        queue.start_pass()
        try:
            await settled
        except asyncio.CancelledError:
            if not queue.withdraw(operation):
                await uncancelled(settlement(queue, operation))
            raise

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._lock = asyncio.Lock()
        self._line = asyncio.Lock()
        self._turn_owner = None
        self._together = None
