"""What people write themselves: a line appended to a file, under one lock or another."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from .base import PATIENCE, Blocking, InThreads, JsonLines, Message, sync_data

START = """
import asyncio, json, sys
import {package}
async def main():
    with open(sys.argv[1]) as file:
        len([json.loads(line) for line in file])
asyncio.run(main())
"""


class WrittenByHand(JsonLines):
    """Reading and reverting as one would write it."""

    async def usable(self) -> Sequence[Any]:
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def rewrite(self, kept: int) -> None:
        """Copy the first lines to a new file, which takes the name."""
        new = f"{self.path}.new"
        with open(self.path, "rb") as source, open(new, "wb") as target:
            for number, line in enumerate(source):
                if number == kept:
                    break
                target.write(line)
        os.replace(new, self.path)


class AsyncioLock(WrittenByHand):
    """As in kimi-cli's pull request 1438."""

    title = "asyncio.Lock + aiofiles"
    package = "aiofiles"

    async def open(self) -> None:
        import aiofiles

        self.open_file, self.line = aiofiles.open, asyncio.Lock()

    async def append(self, message: Message) -> None:
        async with self.line:
            await self.write(message)

    async def write(self, message: Message) -> None:
        async with self.open_file(self.path, "a", encoding="utf-8") as file:
            await file.write(json.dumps(message) + "\n")
            if self.durable:
                await file.flush()
                await asyncio.to_thread(sync_data, file.fileno())


class FileLocked(AsyncioLock):
    """Its lock lets the same object in twice, so coroutines need a lock of their own as well."""

    title = "filelock + aiofiles"
    package = "filelock"
    shares = True
    colour = "#b08800"
    startup = START.format(package="filelock, aiofiles")

    async def open(self) -> None:
        from filelock import AsyncFileLock

        await super().open()
        self.lock = AsyncFileLock(f"{self.path}.guard", timeout=PATIENCE)

    async def append(self, message: Message) -> None:
        async with self.line, self.lock:
            await self.write(message)

    async def revert(self, kept: int) -> None:
        async with self.line, self.lock:
            await asyncio.to_thread(self.rewrite, kept)

    def hold(self) -> AbstractContextManager[object]:
        from filelock import FileLock

        return FileLock(f"{self.path}.guard")


class Portalocked(WrittenByHand, Blocking):
    title = "portalocker"
    package = "portalocker"
    shares = True
    startup = START.format(package="portalocker")

    async def open(self) -> None:
        import portalocker

        self.lock = portalocker.Lock

    def append_now(self, message: Message) -> None:
        with self.lock(self.path, "a", timeout=PATIENCE) as file:
            file.write(json.dumps(message) + "\n")
            file.flush()
            if self.durable:
                sync_data(file.fileno())

    async def revert(self, kept: int) -> None:
        """Rewrites in place: a new file under the name would not have the lock."""
        with self.lock(self.path, "r+b", timeout=PATIENCE) as file:
            for _ in range(kept):
                file.readline()
            file.truncate(file.tell())

    def hold(self) -> AbstractContextManager[object]:
        return self.lock(self.path, "a", timeout=PATIENCE)


class PortalockedInThreads(InThreads, Portalocked):
    title = "portalocker, in threads"
