"""The limits: what the system itself takes for the same thing, without any care for others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .base import Blocking, Contender, JsonLines, Message, Parsed, line_of, sync_data


class BareFile(JsonLines, Blocking):
    """A file that is open for appending."""

    bare = True
    colour = "#808890"

    async def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self.descriptor = os.open(self.path, flags, 0o600)

    async def close(self) -> None:
        os.close(self.descriptor)

    def write(self, line: bytes) -> None:
        os.write(self.descriptor, line)
        if self.durable:
            sync_data(self.descriptor)


class Bare(BareFile):
    """One `write` in append mode for each message; one read; one copy."""

    title = "bare write, read, copy"
    largest = 1_000_000_000
    startup = "import asyncio\nasync def main(): pass\nasyncio.run(main())"

    def append_now(self, message: Message) -> None:
        self.write(line_of(message))

    async def usable(self) -> Sequence[Any]:
        """Read the file, and find where each line is."""
        with open(self.path, "rb") as file:
            return Parsed(file.read().splitlines())

    async def models(self) -> int:
        """Validate each line, as an instance of cosession's model."""
        from pydantic import TypeAdapter

        from cosession import Message as Model

        validate = TypeAdapter(Model).validate_json
        with open(self.path, "rb") as file:
            return len([validate(line) for line in file])

    async def revert(self, kept: int) -> None:
        """Copy the bytes in front of the mark to a new file, which takes the name."""
        with open(self.path, "rb") as file:
            data = file.read()
        with open(f"{self.path}.new", "wb") as new:
            new.write(memoryview(data)[: data.index(b'{"role": "_checkpoint"')])
        os.replace(f"{self.path}.new", self.path)


class BareJson(JsonLines):
    """Every line parsed to a dictionary, and nothing checked."""

    title = "bare json.loads of every line"
    bare = True

    async def usable(self) -> Sequence[Any]:
        with open(self.path, "rb") as file:
            return [json.loads(line) for line in file]


class BareLock(BareFile):
    """`flock` around each write."""

    title = "bare flock and write"
    shares = True

    async def open(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("flock is a call of POSIX")
        await super().open()

    def append_now(self, message: Message) -> None:
        line = line_of(message)
        with flocked(self.descriptor):
            self.write(line)

    @contextmanager
    def hold(self) -> Iterator[None]:
        with flocked(self.descriptor):
            yield


@contextmanager
def flocked(descriptor: int) -> Iterator[None]:
    """Have the kernel's lock on an open file."""
    assert sys.platform != "win32"
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class Idle(Contender):
    """Nothing at all: how long an event loop stands still that has nothing to do."""

    title = "an idle event loop"
    bare = True

    async def append(self, message: Message) -> None:
        await asyncio.sleep(0.2)

    def hold(self) -> AbstractContextManager[object]:
        return nullcontext()
