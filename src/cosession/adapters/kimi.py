"""A stand-in for kimi-cli's `Context`: the same calls, on a session file that processes share.

    from cosession.adapters.kimi import install
    install()                     # from here on kimi-cli makes our contexts

1. Making a context touches nothing. The first call that is awaited opens the file, and makes it
   if it is missing; `restore` makes nothing.
2. Each call is one operation of a `Session`: it happens whole or not at all, with what other
   processes wrote folded in before. The properties show the file as of the last call.
3. kimi-cli never closes a context, and needn't: the file is let go of when the context is
   garbage, and nothing of ours keeps the interpreter from exiting.
4. A `Session` belongs to one event loop. Awaited in another one, a context opens the file anew.
5. Inside `turn()` the calls of one terminal stay together; `install` puts every run of kimi-cli's
   agent into one. A turn that a dead terminal left is kept by whoever writes next.
6. Errors are those that kimi-cli's own class raises, with ours as their `__cause__`.

`docs/kimi.md` lists where it differs from kimi-cli's own class, and why.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ..codec import Broken
from ..errors import (
    Conflict,
    InvalidMessage,
    NotASession,
    NotWritable,
    SessionMissing,
    StorageError,
    TurnInterrupted,
    UnknownCheckpoint,
)
from ..messages import MessageCodec
from ..records import Holder
from ..session import Session
from ._kimi_turn import Turn, around, keep_interrupted

try:
    import kimi_cli  # noqa: F401 - only to see whether it is there
    from kosong.message import Message
except ImportError as error:
    raise ImportError(
        "cosession.adapters.kimi stands in for a class of kimi-cli, which is not installed here. "
        "Install it beside cosession: uv pip install kimi-cli==1.49.0 (Python 3.12 or newer)"
    ) from error

__all__ = ["Context", "install"]

log = logging.getLogger("cosession")

R = TypeVar("R")


class Context:
    """The context of one agent, kept in a session file that other processes may be using too.

    **Other processes.** What they wrote shows in the properties after the next call.

    **Cancellation.** A cancelled call has either happened, in the file and here, or not at all.
    """

    def __init__(self, file_backend: Path) -> None:
        self._file_backend = file_backend
        self._handle: _Handle | None = None
        self._session: Session[Message] | None = None
        """The one that the properties show: the last one used."""
        self._turn: Turn | None = None
        self._in_use = False
        """Whether the history came in by a call of ours: kimi-cli then refuses to restore."""

    # ---- the state --------------------------------------------------------------------------

    @property
    def history(self) -> Sequence[Message]:
        """The messages as of the last call; later ones don't appear in it."""
        return self._session.history if self._session else ()

    @property
    def token_count(self) -> int:
        return self._session.token_count if self._session else 0

    @property
    def token_count_with_pending(self) -> int:
        """The last count, and an estimate for the messages that it doesn't cover."""
        if self._session is None:
            return 0
        from kimi_cli.soul.compaction import estimate_text_tokens

        pending: int = estimate_text_tokens(self._session.history_after_usage)
        return self._session.token_count + pending

    @property
    def n_checkpoints(self) -> int:
        """The number of the next checkpoint, unless another process is faster."""
        return self._session.next_checkpoint if self._session else 0

    @property
    def system_prompt(self) -> str | None:
        return self._session.system_prompt if self._session else None

    @property
    def file_backend(self) -> Path:
        return self._file_backend

    # ---- the calls --------------------------------------------------------------------------

    async def restore(self) -> bool:
        """Read the file; whether there was anything in it.

        Raises:
            RuntimeError: The history has been restored or added to already.
        """
        if self._in_use and self.history:
            raise RuntimeError("The context storage is already modified")
        with _errors_as_kimi_raises_them(self._file_backend):
            if not await asyncio.to_thread(_has_content, self._file_backend):
                return False
            session = await self._open_to_read()
            await session.refresh()
            self._report_damage(session)
        self._in_use = True
        return session.revision.position > 0

    async def write_system_prompt(self, prompt: str) -> None:
        """Make this the system prompt, as the first record of the file."""
        with _errors_as_kimi_raises_them(self._file_backend):
            await self._do(lambda session: _bring_system_prompt(session, prompt))

    async def checkpoint(self, add_user_message: bool) -> None:
        """Set a checkpoint, with a message that names it if asked for: both or neither."""
        then = _announcement() if add_user_message else None
        with _errors_as_kimi_raises_them(self._file_backend):
            await self._do(lambda session: session.checkpoint(then=then))
        self._in_use |= add_user_message

    async def revert_to(self, checkpoint_id: int) -> None:
        """Drop the checkpoint and everything behind it. The old file is kept beside the new one.

        Raises:
            ValueError: The file has no such checkpoint (any more). Nothing was changed.
            RuntimeError: The folder is gone.
        """
        unknown = f"Checkpoint {checkpoint_id} does not exist"
        if self._session is None and not self._file_backend.exists():
            raise ValueError(unknown)
        with _errors_as_kimi_raises_them(self._file_backend):
            try:
                await self._do(lambda session: session.revert_to(checkpoint_id))
            except UnknownCheckpoint as error:
                raise ValueError(unknown) from error
            except SessionMissing as error:
                raise RuntimeError("No available rotation path found") from error
        self._in_use = True

    async def clear(self) -> None:
        """Drop everything. The old file is kept beside the new one, unless it was empty.

        Raises:
            RuntimeError: The folder is gone.
        """
        with _errors_as_kimi_raises_them(self._file_backend):
            try:
                await self._do(lambda session: session.clear())
            except SessionMissing as error:
                raise RuntimeError("No available rotation path found") from error

    async def append_message(self, message: Message | Sequence[Message]) -> None:
        """Append one message or several: all or none, and nothing in between."""
        messages = [message] if isinstance(message, Message) else list(message)
        with _errors_as_kimi_raises_them(self._file_backend):
            await self._do(lambda session: session.append(messages))
        self._in_use |= bool(messages)

    async def update_token_count(self, token_count: int) -> None:
        """Record how many tokens the history takes."""
        with _errors_as_kimi_raises_them(self._file_backend):
            await self._do(lambda session: session.record_usage(token_count))

    # ---- turns ------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(
        self,
        label: str = "",
        *,
        timeout: float | None = None,
        on_wait: Callable[[Holder | None], object] | None = None,
        on_request: Callable[[Holder], object] | None = None,
    ) -> AsyncIterator[Turn]:
        """Have the session to oneself for as long as the block lasts.

            async with context.turn("answering", timeout=30):
                await soul.run(question)

        All that is called on this context in this event loop meanwhile is part of the turn, in
        whichever task. What others wrote before shows in the properties right away. Their calls
        wait for the end; their token counts, `restore` and reading don't. In a task that has the
        turn already, or was made by one inside the block, this is that turn once more.

        If the terminal that had the turn died, what it wrote is kept, with a result for each tool
        call that had none, and a warning is logged that names the terminal.

        Args:
            label: What the turn is for. Others read it when they ask who has the turn.
            timeout: Seconds to wait for others' turns; `None` waits, 0 tries once.
            on_wait: Called after a second of waiting, with whoever has the turn (`None` if that
                is not known), in place of a warning in the log. The turn is asked for then.
            on_request: Called with whoever asks for the turn while this block has it, in place of
                a line in the log. Nothing else comes of it: they wait for the end of the block,
                or for the `hand_over` of the turn that it gives.

        Raises:
            TimeoutError: Somebody else had the turn all that time; its `holder` says who
                (it is a `TurnTimeout`).

        **Cancellation** of the wait leaves everything as it is. Inside the block it ends the
        turn, behind what kimi-cli shields from it.

        **Another event loop.** Calls on this context in another loop wait as other terminals do.
        """
        if (outer := self.current_turn) is not None:
            yield outer
            return
        with _errors_as_kimi_raises_them(self._file_backend):
            turn = Turn(
                await self._open(),
                label,
                on_wait=on_wait or self._log_wait,
                on_request=on_request or self._log_request,
            )
        outside = around.get()
        try:
            with _errors_as_kimi_raises_them(self._file_backend):
                await turn.begin(timeout)
            self._turn = turn
            around.set((*outside, turn))
            yield turn
        finally:
            around.set(outside)
            try:
                with _errors_as_kimi_raises_them(self._file_backend):
                    await turn.end()
            finally:
                if self._turn is turn:
                    self._turn = None

    @property
    def current_turn(self) -> Turn | None:
        """The turn of this context that the calling task has, or was made in; `None` if none."""
        turn = self._turn_in_this_loop
        return turn if turn is not None and turn.is_on and turn in around.get() else None

    @property
    def _turn_in_this_loop(self) -> Turn | None:
        turn = self._turn
        return turn if turn is not None and turn.loop is asyncio.get_running_loop() else None

    def _log_wait(self, holder: Holder | None) -> None:
        who = holder or "another terminal"
        log.warning("%s: waiting, because it is the turn of %s", self._file_backend, who)

    def _log_request(self, holder: Holder) -> None:
        log.info("%s: %s asks for the turn", self._file_backend, holder)

    # ---- the session behind it --------------------------------------------------------------

    async def _do(self, change: Callable[[Session[Message]], Awaitable[R]]) -> R:
        """Make a change, and decide before about a turn whose terminal died in it."""
        if (turn := self.current_turn) is not None:
            turn.writes(asyncio.current_task())
        session = await self._open()
        while True:
            try:
                return await change(session)
            except TurnInterrupted:
                await keep_interrupted(session)

    async def _open(self) -> Session[Message]:
        """The session for the running event loop, open."""
        loop = asyncio.get_running_loop()
        if (turn := self._turn_in_this_loop) is not None:
            self._session = turn.session  # another loop may have opened the file since
            return self._session
        handle = self._handle
        if handle is None or handle.loop is not loop:
            handle = self._handle = _Handle(loop, self._file_backend)
        self._session = await handle.opened()
        return self._session

    async def _open_to_read(self) -> Session[Message]:
        """The same, but without the lock where its file can't be made (somebody else's session)."""
        try:
            return await self._open()
        except NotWritable:
            reader = _Handle(asyncio.get_running_loop(), self._file_backend, read_only=True)
            self._session = await reader.opened()
            return self._session

    def _report_damage(self, session: Session[Message]) -> None:
        if damage := session.damage:
            log.warning(
                "%s: skipping %d line(s) that can't be used; the first: %s",
                self._file_backend,
                len(damage),
                damage[0],
            )


class _Handle:
    """A session for one event loop, which is opened once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: Path, *, read_only: bool = False
    ) -> None:
        self.loop = loop
        self._session: Session[Message] = Session(path, message_type=Message, read_only=read_only)
        self._session._codec_ = _Codec()
        self._session._warns_unclosed = False  # kimi-cli closes nothing
        self._opening = asyncio.Lock()
        self._is_open = False

    async def opened(self) -> Session[Message]:
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    await self._open()
        return self._session

    async def _open(self) -> None:
        await self._session.open()
        self._is_open = True
        await self._session.load()


class _Codec(MessageCodec[Any]):
    """kosong's messages, as kimi-cli writes and reads them."""

    def __init__(self, *, with_nulls: bool = False) -> None:
        super().__init__(Message)
        if with_nulls:
            self._exclude = {"exclude_none": False}

    def encode(self, message: object, index: int | None = None) -> bytes:
        try:
            return super().encode(message, index)
        except InvalidMessage:
            # kimi-cli leaves `null` out, even from a tool call without arguments, which nobody,
            # kimi-cli included, can read then. With its nulls everybody can.
            if not self._exclude["exclude_none"]:
                raise
            return _Codec(with_nulls=True).encode(message, index)

    def _decode_line(self, line: bytes) -> Any:
        message = self._decoded(line)
        if isinstance(message, Broken):
            # kimi-cli reads bytes that aren't UTF-8 as replacement characters. A message that is
            # a little off is better than a tool call without its result.
            replaced = line.decode(errors="replace").encode()
            if replaced != line:
                return self._decoded(replaced)
        return message

    def _decoded(self, line: bytes) -> Any:
        try:
            return super()._decode_line(line)
        except Exception as error:
            # KeyError for a part that it doesn't know, TypeError for a message without content.
            return Broken(f"not a valid message: {type(error).__name__}: {error}")


@contextmanager
def _errors_as_kimi_raises_them(path: Path) -> Iterator[None]:
    """Raise what the system said, as a plain `OSError`."""
    try:
        yield
    except SessionMissing as error:
        raise FileNotFoundError(errno.ENOENT, str(error), str(path)) from error
    except NotASession as error:
        number = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(number, str(error), str(path)) from error
    except StorageError as error:
        raise OSError(error.errno or errno.EIO, str(error), str(path)) from error


async def _bring_system_prompt(session: Session[Message], prompt: str) -> None:
    """Terminals that start together all bring the same prompt: the first one writes it."""
    for _ in range(3):
        await session.refresh()
        if session.system_prompt == prompt:
            return
        with suppress(Conflict):
            await session.set_system_prompt(prompt, expect=session.revision)
            return
    await session.set_system_prompt(prompt)


def _has_content(path: Path) -> bool:
    try:
        return os.stat(path).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def _announcement() -> Callable[[int], Message]:
    from kimi_cli.soul.message import system

    return lambda number: Message(role="user", content=[system(f"CHECKPOINT {number}")])


def install(*, turns: bool = True) -> None:
    """Put `Context` in the place of kimi-cli's own, wherever kimi-cli has imported it or will.

    Only in this process: kimi-cli's that are started by it, or beside it, use their own.

    Args:
        turns: Whether each run of kimi-cli's agent is a turn, so that a question, its tool calls,
            their results and the answer stay together. The last call decides.

    Raises:
        ImportError: This kimi-cli has something that ours doesn't know. Nothing was changed.
    """
    import kimi_cli.soul.context

    from . import _kimi_soul

    theirs = kimi_cli.soul.context.Context
    unknown = sorted(
        name for name in vars(theirs) if not name.startswith("_") and not hasattr(Context, name)
    )
    if unknown:
        raise ImportError(
            f"this kimi-cli's Context has {', '.join(unknown)}, which cosession doesn't know yet: "
            "use kimi-cli 1.49.0, or its own Context"
        )
    if turns:
        _kimi_soul.put_into_turns()
    else:
        _kimi_soul.take_out_of_turns()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "kimi_cli" and vars(module).get("Context") is theirs:
            vars(module)["Context"] = Context


if __name__ == "__main__":
    # `python -m cosession.adapters.kimi …` is the command `kimi …`. Run so, this module is called
    # `__main__`; what is installed must be the class that everybody else can import.
    from kimi_cli.__main__ import main

    from cosession.adapters.kimi import install as install_once

    install_once()
    sys.exit(main())
