"""The asynchronous session: an `asyncio.Lock`, one hop into a thread, and every await accounted
for.

1. Within one session object, coroutines line up at an `asyncio.Lock`. Whoever has it leads: it
   has the queue run a pass on the commit thread, which takes along what the others have queued.
   They find their operations settled when the lock reaches them.
2. The lock is not left before the leader's operation is settled or withdrawn: an `asyncio.Lock`
   alone would be free as soon as an awaited thread is abandoned, with the write still going on.
3. A cancelled operation is withdrawn if it still waits, and has then not happened. If it is being
   committed, the cancellation is held back until that has ended, which is a matter of one write.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ._base import (
    Durability,
    SessionBase,
    Transaction,
    rotated_path,
    system_prompt,
    usage,
)
from .commits import CommitQueue, Operation, tries_once
from .edits import Clear, RevertTo
from .errors import SessionClosed
from .records import Outcome, Revision
from .store import Request

if TYPE_CHECKING:
    from typing import Self

    from pydantic import TypeAdapter

    from .messages import Message

T = TypeVar("T")


class Session(SessionBase[T], Generic[T]):
    """A session file that other processes may be using too, for asyncio.

        async with Session("context.jsonl") as session:
            await session.append(Message(role="user", content="hi"))

    Every call that changes the session takes `timeout` (seconds to wait for another process;
    `None` waits, 0 tries once) and `expect` (the revision that the caller knows).

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
    ) -> None: ...
    def __init__(self, path: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(path, **options)
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

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
            await _uncancelled(asyncio.to_thread(lambda: opened.append(self._open())))
        except asyncio.CancelledError:
            if opened:
                await self.close()
            raise
        self._lock = asyncio.Lock()  # an earlier one may belong to an earlier event loop
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Let go of the file. Operations of other tasks that still wait raise `SessionClosed`."""
        queue = self._queue
        if queue is not None:
            try:
                await _uncancelled(asyncio.to_thread(queue.close))
            finally:
                self._forget_queue(queue)

    # ---- changing the session ---------------------------------------------------------------

    async def append(
        self,
        messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]],
        *,
        timeout: float | None = None,
        expect: Revision | None = None,
    ) -> Revision:
        """Append one message, or a list of them: all or none, and nothing in between.

        Returns:
            Where the session stands right behind them.

        Raises:
            InvalidMessage: One of them can't be stored. Nothing was written.
            LockTimeout: Another process kept the lock. Nothing was written.
            Conflict: Messages came in since `expect`. Nothing was written.
            StorageError: The system refuses. What was half done has been undone.
        """
        request = self._request("append", expect, self._add(messages))
        return (await self._perform(request, timeout)).revision

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
        request = self._request("record usage", expect, usage(token_count))
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

    @asynccontextmanager
    async def transaction(
        self, *, timeout: float | None = None, expect: Revision | None = None
    ) -> AsyncIterator[Transaction[T]]:
        """Collect changes, and make them in one atomic operation when the block ends."""
        transaction = Transaction(self)
        yield transaction
        request = self._request("transaction", expect, *transaction._steps)
        transaction._outcome = await self._perform(request, timeout)

    # ---- reading ----------------------------------------------------------------------------

    async def refresh(self) -> Revision:
        """Fold in what other processes wrote. Waits for nobody; heals if that is needed and free.

        Returns:
            Where the session stands now.
        """
        queue = self._open_queue()
        seen = await _uncancelled(asyncio.to_thread(queue.look))
        if not seen and not self._store.read_only:
            await _uncancelled(asyncio.to_thread(queue.try_settle))
        return self.revision

    async def load(self) -> None:
        """Decode every message on a thread, so that `history` costs the event loop nothing."""
        await asyncio.to_thread(lambda: self.history)

    async def export(self, target: str | os.PathLike[str]) -> Path:
        """Copy the session, with what others wrote, into a new private file. Waits for nobody.

        Returns:
            The new file's path, absolute.

        Raises:
            StorageError: There is a file at the target, or the system refuses. Nothing of an
                unfinished copy stays.
        """
        from . import transfer

        return Path(await transfer.export(self._store, target))

    # ---- the way through the queue ----------------------------------------------------------

    def _open_queue(self) -> CommitQueue:
        if self._queue is None:
            raise SessionClosed(f"{self.path}: the session is not open")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise SessionClosed(
                f"{self.path}: the session belongs to another event loop; make one for each"
            )
        return self._queue

    async def _perform(self, request: Request, timeout: float | None) -> Outcome:
        queue = self._open_queue()
        operation = Operation(request, once=tries_once(timeout))
        try:
            queue.add(operation)
            async with asyncio.timeout(queue.patience(timeout)):
                async with self._lock:
                    if not operation.settled:
                        await self._lead(queue, operation)
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and queue.withdraw(operation):
                raise queue.timeout(operation) from None
            if not queue.withdraw(operation):
                await _uncancelled(self._settlement(queue, operation))
            if isinstance(error, asyncio.CancelledError):
                raise
        except BaseException:
            queue.withdraw(operation)  # no thread can be had, or the event loop is torn down
            raise
        return operation.outcome()

    async def _lead(self, queue: CommitQueue, operation: Operation) -> None:
        """Have a pass run, and stay until the operation is settled, or withdrawn."""
        await asyncio.sleep(0)  # the others that are ready queue up, and go out with this one
        if operation.settled or (queue.try_quick_pass() and operation.settled):
            return
        settlement = self._settlement(queue, operation)
        queue.start_pass()
        try:
            await settlement
        except asyncio.CancelledError:
            if not queue.withdraw(operation):
                await _uncancelled(self._settlement(queue, operation))
            raise

    def _settlement(self, queue: CommitQueue, operation: Operation) -> asyncio.Future[None]:
        """A future that is done when the operation is settled, on whatever thread that happens."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def settled() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # the loop is closed: nobody is left to be told

        queue.call_when_settled(operation, settled)
        return future

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._lock = asyncio.Lock()
        self._loop = None


async def _uncancelled(work: Any) -> Any:
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
