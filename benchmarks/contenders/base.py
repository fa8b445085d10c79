"""What a contender is: a store for messages, behind the same few calls.

1. A contender imports its package when it is opened, and not before: so the command knows all of
   them, also where one isn't installed, and a worker pays for one only.
2. Everything that is measured is a method here. What a contender can't do it leaves out, and the
   workloads that ask for it pass it over.
3. `stored` reads the file with the plainest means there are, and not through the contender, which
   might hide what is looked for. It is what the check for lost and torn messages looks at.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from inspect import getattr_static
from typing import Any, ClassVar, Literal

Message = dict[str, str]
Durability = Literal["os", "disk"]
"""What an acknowledged message survives: the death of its process, or a power cut too."""

PATIENCE = 60.0
"""Seconds that a contender may wait for a lock: the fairest thing is to let nobody give up."""

sync_data = getattr(os, "fdatasync", os.fsync)


class Contender:
    """One way to keep messages in a file; an object is one process's handle."""

    title: ClassVar[str]
    package: ClassVar[str | None] = None
    """Whose version the report gives."""
    ours: ClassVar[bool] = False
    bare: ClassVar[bool] = False
    """Whether it is a limit to compare with, and nobody's way to keep messages."""
    shares: ClassVar[bool] = False
    """Whether it takes a lock that other processes respect."""
    blocks: ClassVar[bool] = False
    """Whether its calls keep the thread of the event loop until they are done."""
    in_threads: ClassVar[bool] = False
    """Whether it is another one that blocks, called in threads: only of interest for appends."""
    durabilities: ClassVar[tuple[Durability, ...]] = ("os", "disk")
    remark: ClassVar[str] = ""
    colour: ClassVar[str] = ""
    """Of its line in the plots. All would be a thicket: who has none isn't drawn."""
    file: ClassVar[str] = "context.jsonl"
    """The name of its file or folder."""
    largest: ClassVar[int] = 10_000_000
    """The largest file, in bytes, that is made to see what an append to it costs."""
    startup: ClassVar[str | None] = None
    """A program that opens the session named by its argument and ends.

    If another argument says `all`, it has all messages in between; some have to read them anyway.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        self.path = path
        self.durable = durability == "disk"

    async def open(self) -> None:
        """Open the file, or make it."""

    async def append(self, message: Message) -> None:
        """Store a message; it has the durability that was asked for when this returns."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of the file."""

    async def usable(self) -> Sequence[Any]:
        """The messages of a file just opened, any of which can be had at once."""
        raise NotImplementedError

    async def models(self) -> int:
        """Have every message as an object whose type was checked, and count them."""
        raise NotImplementedError

    async def revert(self, kept: int) -> None:
        """Drop all messages but the first `kept`, behind which `fill` has put a mark.

        Whoever keeps the messages in memory has them: `usable` was called before.
        """
        raise NotImplementedError

    async def catch_up(self) -> None:
        """Have what others have appended since."""
        raise NotImplementedError

    def hold(self) -> AbstractContextManager[object]:
        """Keep every other process from appending."""
        raise NotImplementedError

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        """Make a file with these messages, quickly; with a mark in front of number `mark`."""
        raise NotImplementedError

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        """The content of each message in the file, in order; `None` for what is no message."""
        raise NotImplementedError

    @classmethod
    def can(cls, operation: str) -> bool:
        """Whether it has a method of that name."""
        return getattr_static(cls, operation) is not getattr_static(Contender, operation)


class Blocking(Contender):
    """A contender without asyncio: its calls are made right where they stand."""

    blocks = True

    def append_now(self, message: Message) -> None:
        """Store a message, on this thread."""
        raise NotImplementedError

    async def append(self, message: Message) -> None:
        self.append_now(message)


class InThreads(Blocking):
    """Mixed into a blocking contender: its appends leave the event loop alone."""

    blocks = False
    in_threads = True

    async def append(self, message: Message) -> None:
        await asyncio.to_thread(self.append_now, message)


class JsonLines(Contender):
    """A contender whose file holds one message a line, and kimi-cli's marks."""

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        with open(path, "wb") as file:
            for number, message in enumerate(messages):
                if number == mark:
                    file.write(b'{"role": "_checkpoint", "id": 0}\n')
                file.write(line_of(message))
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        with open(path, "rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    if not record["role"].startswith("_"):
                        yield record["content"]
                except (ValueError, TypeError, KeyError):
                    yield None


class Parsed(Sequence[Any]):
    """Pieces of JSON, each parsed when it is asked for."""

    def __init__(self, pieces: Sequence[bytes | str]) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: Any) -> Any:
        return json.loads(self._pieces[index])


def line_of(message: Message) -> bytes:
    """The message's line in a file of JSON Lines."""
    return json.dumps(message).encode() + b"\n"
