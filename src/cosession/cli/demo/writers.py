"""The session as a terminal uses it: the same calls over a `BlockingSession` or a `Session`.

Half of the terminals are blocking programs and half are asyncio programs, on the same file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..._base import Durability, SessionBase
from ...blocking import BlockingSession
from ...messages import Message
from ...records import Revision
from ...session import Session
from ...transaction import Transaction
from .script import JsonObject, tagged

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compaction:
    """What takes the place of the history."""

    prompt: str
    summary: JsonObject
    tokens: int

    def fill(self, transaction: Transaction[Message]) -> None:
        transaction.clear()
        transaction.set_system_prompt(self.prompt)
        transaction.checkpoint()
        transaction.append([self.summary])
        transaction.record_usage(self.tokens)


@dataclass(frozen=True, slots=True)
class CheckpointMessage:
    """Makes the message behind a checkpoint when its number is known."""

    terminal: int
    operation: str

    def __call__(self, number: int) -> Message:
        from .ledger import checkpoint_message

        plain = checkpoint_message(self.terminal, number)
        return Message.model_validate(tagged([plain], self.operation)[0])


class Writer(Protocol):
    """What a terminal does to the session. Everything waits until it is done."""

    @property
    def session(self) -> SessionBase[Message]: ...
    def append(self, messages: Sequence[JsonObject]) -> None: ...
    def checkpoint(self, then: CheckpointMessage) -> int: ...
    def record_usage(self, tokens: int) -> None: ...
    def revert_to(self, checkpoint: int) -> str: ...
    def compact(self, compaction: Compaction, expect: Revision | None) -> str | None: ...
    def refresh(self) -> None: ...
    def close(self) -> None: ...


class BlockingWriter:
    """A plain script's way."""

    def __init__(self, path: str, durability: Durability) -> None:
        self.session = BlockingSession(path, durability=durability, create=False)
        self.session.open()

    def append(self, messages: Sequence[JsonObject]) -> None:
        self.session.append(messages)

    def checkpoint(self, then: CheckpointMessage) -> int:
        return self.session.checkpoint(then=then)

    def record_usage(self, tokens: int) -> None:
        self.session.record_usage(tokens)

    def revert_to(self, checkpoint: int) -> str:
        return str(self.session.revert_to(checkpoint))

    def compact(self, compaction: Compaction, expect: Revision | None) -> str | None:
        with self.session.transaction(expect=expect) as transaction:
            compaction.fill(transaction)
        return str(transaction.rotated) if transaction.rotated else None

    def refresh(self) -> None:
        self.session.refresh()

    def close(self) -> None:
        self.session.close()


class AsyncWriter:
    """An asyncio program's way, one call after the other."""

    def __init__(self, path: str, durability: Durability) -> None:
        self.session = Session(path, durability=durability, create=False)
        self._runner = asyncio.Runner()
        self._wait(self.session.open())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def append(self, messages: Sequence[JsonObject]) -> None:
        self._wait(self.session.append(messages))

    def checkpoint(self, then: CheckpointMessage) -> int:
        return self._wait(self.session.checkpoint(then=then))

    def record_usage(self, tokens: int) -> None:
        self._wait(self.session.record_usage(tokens))

    def revert_to(self, checkpoint: int) -> str:
        return str(self._wait(self.session.revert_to(checkpoint)))

    def compact(self, compaction: Compaction, expect: Revision | None) -> str | None:
        async def work() -> str | None:
            async with self.session.transaction(expect=expect) as transaction:
                compaction.fill(transaction)
            return str(transaction.rotated) if transaction.rotated else None

        return self._wait(work())

    def refresh(self) -> None:
        self._wait(self.session.refresh())

    def close(self) -> None:
        self._wait(self.session.close())
        self._runner.close()
