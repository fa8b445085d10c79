"""What programs do that share a file without having thought of it, as candidates.

Each class says what is wrong with it. A short sleep stands where a busy machine would interrupt
the program, so that the defect shows each time and not now and then.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosession.testing import Message
from cosession.testing.ours import Blocking

MOMENT = 0.003


def encoded(messages: list[Message]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


# ---- plain files --------------------------------------------------------------------------------


class Naive:
    """Opens the file to append, writes, closes. Nobody looks if all of it was written."""

    offers: tuple[str, ...] = ()

    def __init__(self, location: Path) -> None:
        self.path = location / "messages.jsonl"
        self.path.touch()

    def append(self, messages: list[Message]) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            data = encoded(messages)
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

    def history(self) -> list[Message]:
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n") if line]

    def clear(self) -> None:
        os.truncate(self.path, 0)

    def close(self) -> None:
        pass


class SplitsLines(Naive):
    """Reads lines with `str.splitlines`, which sees ends of lines where JSON has none."""

    def append(self, messages: list[Message]) -> None:
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in messages))

    def history(self) -> list[Message]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


class Buffered(Naive):
    """Keeps the file open, and leaves it to the buffer when to write."""

    def __init__(self, location: Path) -> None:
        super().__init__(location)
        self.file = self.path.open("ab")

    def append(self, messages: list[Message]) -> None:
        self.file.write(encoded(messages))

    def close(self) -> None:
        self.file.close()


class OneByOne(Naive):
    """Writes the messages of one append one after the other."""

    def append(self, messages: list[Message]) -> None:
        for message in messages:
            super().append([message])
            time.sleep(MOMENT / 10)


class MemoryFirst(Naive):
    """Changes what it shows before it writes. If that fails, it puts the file right, not that."""

    def __init__(self, location: Path) -> None:
        super().__init__(location)
        self.unwritten: list[Message] = []

    def append(self, messages: list[Message]) -> None:
        end = self.path.stat().st_size
        self.unwritten += messages
        try:
            super().append(messages)
        except BaseException:
            os.truncate(self.path, end)
            raise
        self.unwritten.clear()

    def history(self) -> list[Message]:
        return super().history() + self.unwritten


class ThreadLock(Naive):
    """Has a lock for its threads, and a memory that it reads once and writes back each time."""

    lock = threading.Lock()

    def __init__(self, location: Path) -> None:
        super().__init__(location)
        self.memory = super().history()

    def append(self, messages: list[Message]) -> None:
        with self.lock:
            self.memory += messages
            self.path.write_bytes(encoded(self.memory))

    def history(self) -> list[Message]:
        return self.memory

    def clear(self) -> None:
        with self.lock:
            self.memory = []
            super().clear()


class ReadModifyWrite(Naive):
    """Reads all, adds to it, and writes all back under another name that takes the first's."""

    def append(self, messages: list[Message]) -> None:
        history = self.history()
        time.sleep(MOMENT)
        new = self.path.with_name(f"{os.getpid()}-{threading.get_ident()}")
        new.write_bytes(encoded(history + messages))
        self.take_name(new)

    def take_name(self, new: Path) -> None:
        while True:
            try:
                return os.replace(new, self.path)
            except PermissionError:  # on Windows, while anybody reads
                time.sleep(MOMENT)


class LockFile(ReadModifyWrite):
    """Does the same under a lock file that exists as long as it is locked, and waits for ever."""

    offers: tuple[str, ...] = ("timeout",)

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        with self.locked():
            super().append(messages)

    @contextmanager
    def locked(self) -> Iterator[None]:
        path = self.path.with_name("lock")
        while not self.taken(path):
            time.sleep(MOMENT / 10)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def taken(self, path: Path) -> bool:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except (FileExistsError, PermissionError):
            return False
        return True


class ClearsPastTheLock(LockFile):
    """Takes its lock to append, and none to clear."""

    offers = ()


class ProcessIdFile(LockFile):
    """Takes a lock file that has its own process id in it for its own lock."""

    offers = ()

    def taken(self, path: Path) -> bool:
        if not super().taken(path):
            return self.owner(path) == str(os.getpid())
        path.write_text(str(os.getpid()))
        return True

    def owner(self, path: Path) -> str:
        try:
            return path.read_text()
        except OSError:
            return ""


class CopiesThenCuts(Naive):
    """Keeps a copy of what it drops; what is appended between copy and cut is in neither."""

    offers = ("checkpoint", "rotated")

    def rotated_histories(self) -> list[list[Message]]:
        old = [*self.path.parent.glob("old-*")]
        return [[json.loads(line) for line in path.read_bytes().splitlines()] for path in old]

    def keep(self, length: int) -> None:
        content = self.path.read_bytes()
        (self.path.parent / f"old-{time.time_ns()}").write_bytes(content)
        time.sleep(MOMENT * 3)
        os.truncate(self.path, length)

    def clear(self) -> None:
        self.keep(0)

    def checkpoint(self) -> int:
        return self.path.stat().st_size

    def revert_to(self, checkpoint: int) -> None:
        self.keep(checkpoint)


class Interleaves:
    """Reads, adds, writes: as coroutines, which take turns in between."""

    offers = ("shared",)

    def __init__(self, inner: ReadModifyWrite) -> None:
        self.inner = inner

    async def append(self, messages: list[Message]) -> None:
        history = self.inner.history()
        await asyncio.sleep(0)
        self.inner.path.write_bytes(encoded(history + messages))

    async def history(self) -> list[Message]:
        return self.inner.history()

    async def clear(self) -> None:
        self.inner.clear()

    async def close(self) -> None:
        self.inner.close()


async def interleaves(location: Path) -> Interleaves:
    return Interleaves(ReadModifyWrite(location))


# ---- cosession's own session, with one thing done as it should not be ---------------------------


class RevertsForItself(Blocking):
    """Numbers a mark by how much there is, and reverts what it shows itself; nobody hears of it."""

    end: int | None = None

    def history(self) -> list[Message]:
        return super().history()[: self.end]

    def checkpoint(self) -> int:
        return len(self.history())

    def revert_to(self, checkpoint: int) -> None:
        self.end = checkpoint


class ClearsThenAppends(Blocking):
    """Replaces a history in two steps."""

    def replace(self, messages: list[Message]) -> None:
        self.clear()
        time.sleep(MOMENT)
        self.append(messages)


class ChecksThenAppends(Blocking):
    """Looks if anything came in, and then appends."""

    def try_append(self, messages: list[Message], revision: str) -> bool:
        self.session.refresh()
        if str(self.session.revision) != revision:
            return False
        self.append(messages)
        return True


class TurnIsAFlag(Blocking):
    """Knows in its own memory that it has a turn."""

    has_turn = False

    def begin_turn(self, *, timeout: float | None = None) -> None:
        self.has_turn = True

    def end_turn(self) -> None:
        self.has_turn = False


class TellsAtTheEnd(Blocking):
    """Writes what it said within a turn when the turn ends."""

    collected: list[Message] | None = None

    def begin_turn(self, *, timeout: float | None = None) -> None:
        super().begin_turn(timeout=timeout)
        self.collected = []

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        if self.collected is None:
            super().append(messages, timeout=timeout)
        else:
            self.collected += messages

    def end_turn(self) -> None:
        collected, self.collected = self.collected, None
        super().append(collected or [])
        super().end_turn()


class TurnIsAFile(Blocking):
    """Has a turn as long as there is a file that says so."""

    offers = ("turn", "timeout")
    mine = False

    def begin_turn(self, *, timeout: float | None = None) -> None:
        while True:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except (FileExistsError, PermissionError):
                time.sleep(MOMENT)
            else:
                self.mine = True
                return

    @property
    def flag(self) -> Path:
        return self.session.path.with_name("turn")

    def end_turn(self) -> None:
        self.mine = False
        self.flag.unlink()

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        while self.flag.exists() and not self.mine:
            time.sleep(MOMENT)
        super().append(messages)


class GoesOnInTheBackground(Blocking):
    """Gives up after its timeout, while a thread goes on to wait and then writes."""

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        write = super().append
        thread = threading.Thread(target=write, args=(messages,), daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError


class Polls(Blocking):
    """Waits for others' turns by looking every second."""

    def append(self, messages: list[Message], *, timeout: float | None = None) -> None:
        while True:
            try:
                return super().append(messages, timeout=0)
            except TimeoutError:
                time.sleep(1)

    def begin_turn(self, *, timeout: float | None = None) -> None:
        while True:
            try:
                return super().begin_turn(timeout=0)
            except TimeoutError:
                time.sleep(1)


class LooksLate(Blocking):
    """Looks for news when the time is up."""

    def wait(self, timeout: float) -> bool:
        known = self.session.revision
        time.sleep(timeout)
        self.session.refresh()
        return self.session.revision != known


class BlocksTheLoop:
    """Has `async` before its calls, and no `await` within."""

    offers = ("turn",)

    def __init__(self, inner: Blocking) -> None:
        self.inner = inner

    async def append(self, messages: list[Message]) -> None:
        self.inner.append(messages)

    async def history(self) -> list[Message]:
        return self.inner.history()

    async def clear(self) -> None:
        self.inner.clear()

    async def close(self) -> None:
        self.inner.close()

    async def begin_turn(self, *, timeout: float | None = None) -> None:
        self.inner.begin_turn(timeout=timeout)

    async def end_turn(self) -> None:
        self.inner.end_turn()


async def blocks_the_loop(location: Path) -> BlocksTheLoop:
    return BlocksTheLoop(Blocking(location))


class LeavesTheThread(BlocksTheLoop):
    """Writes in a thread, which goes on when the coroutine that waits for it is cancelled."""

    async def append(self, messages: list[Message]) -> None:
        await asyncio.to_thread(self.write, messages)

    def write(self, messages: list[Message]) -> None:
        time.sleep(MOMENT * 10)
        self.inner.append(messages)


async def leaves_the_thread(location: Path) -> LeavesTheThread:
    return LeavesTheThread(Blocking(location))
