"""What a worker can be asked to do. Each job is measured here, in the contender's own process.

1. Nothing is measured before everything that is needed has been imported and opened. Making the
   message is measured, and the loop around it, a microsecond for everybody.
2. Clocks are the system's monotonic one, which all processes share.
3. A job returns plain figures; the command makes rates and percentiles of them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from contenders.base import Contender, Durability
from histogram import Histogram
from messages import Maker, Written, audit

if TYPE_CHECKING:
    from worker import Line

Kind = type[Contender]
now = time.perf_counter_ns

WARM_UP = 3
"""Appends of each process before the clock runs; for the check they count like any other."""
MOST_REFUSALS = 100
"""After so many appends of a writer that raise, it stops."""


class Writer:
    """Appends messages one after the other, and knows what became of each."""

    def __init__(self, store: Contender, number: int, size: int) -> None:
        self._store, self._number, self._maker = store, number, Maker(size)
        self.written = Written(size=size)
        self.durations: list[int] = []
        self.complaint = ""

    async def append(self) -> int:
        """Append the next message, and return when that was done."""
        return await self.append_until(0)

    async def append_until(self, end: int) -> int:
        """Append until that time has come, once at least; return when the last was done."""
        # One coroutine, and no more: what it takes counts for everybody.
        number, log, done = self._number, self.written, now()
        while True:
            begun = done
            try:
                await self._store.append(self._maker.message(number, log.count))
            except (ModuleNotFoundError, NotImplementedError):
                raise
            except Exception as error:
                log.refused.append(log.count)
                self.complaint = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                done = now()
            else:
                done = now()
                self.durations.append(done - begun)
            log.count += 1
            if done >= end or len(log.refused) >= MOST_REFUSALS:
                return done

    def report(self) -> dict[str, Any]:
        return {"writer": self._number, **asdict(self.written), "complaint": self.complaint}


async def create(contender: Kind, line: Line, *, path: str, durability: Durability) -> Any:
    """Make the file, so that those who open it at once need not."""
    store = contender(path, durability)
    await store.open()
    await store.close()
    return {}


async def fill(
    contender: Kind, line: Line, *, path: str, count: int, size: int, mark: int | None = None
) -> Any:
    """Make a file with so many messages."""
    contender.fill(path, Maker(size).messages(count), mark)
    return {}


async def append(
    contender: Kind,
    line: Line,
    *,
    path: str,
    durability: Durability,
    writers: list[int],
    size: int,
    seconds: float,
) -> Any:
    """Append for some time, with a coroutine for each writer."""
    store = contender(path, durability)
    await store.open()
    all_writers = [Writer(store, number, size) for number in writers]
    for writer in all_writers:
        for _ in range(WARM_UP):
            await writer.append()
        writer.durations.clear()
    begun = line.begin()
    end = begun + int(seconds * 1e9)
    await asyncio.gather(*(writer.append_until(end) for writer in all_writers))
    elapsed = now() - begun
    await store.close()
    durations = [duration for writer in all_writers for duration in writer.durations]
    return {
        "count": len(durations),
        "elapsed": elapsed / 1e9,
        "histogram": Histogram.of(durations).to_json(),
        "writers": [writer.report() for writer in all_writers],
    }


async def check(contender: Kind, line: Line, *, path: str, writers: list[dict[str, Any]]) -> Any:
    """Compare what is in the file with what was acknowledged."""
    written = {log["writer"]: Written(log["count"], log["refused"], log["size"]) for log in writers}
    return asdict(audit(contender.stored(path), written))


async def have_history(contender: Kind, line: Line, *, path: str, small: str) -> Any:
    """Open a file and have its messages; first a small one, which imports what is needed.

    A session is open when its last message has been looked at, and its history usable when it is
    known how many there are, and one in the middle has been looked at as well.
    """
    await _open_and_have(contender, small)
    at_first = peak_memory()
    figures = await _open_and_have(contender, path)
    for name in ("memory_open", "memory_usable", "memory_models"):
        if name in figures:
            figures[name] -= at_first
    return figures


async def _open_and_have(contender: Kind, path: str) -> dict[str, Any]:
    begun = now()
    store = contender(path, "os")
    await store.open()
    history = await store.usable()
    _ = history[-1]
    figures: dict[str, Any] = {"open": (now() - begun) / 1e9, "memory_open": peak_memory()}
    _ = history[len(history) // 2]
    figures |= {"usable": (now() - begun) / 1e9, "memory_usable": peak_memory()}
    figures["count"] = len(history)
    if contender.can("models"):
        count = await store.models()
        assert count == len(history)
        figures |= {"models": (now() - begun) / 1e9, "memory_models": peak_memory()}
    await store.close()
    return figures


def peak_memory() -> int:
    """Bytes of memory that this process has had at most."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


async def revert(
    contender: Kind, line: Line, *, path: str, template: str, durability: Durability, kept: int
) -> Any:
    """Drop the messages behind the mark of a copy of a file, whose history is in memory."""
    copy(template, path)
    store = contender(path, durability)
    await store.open()
    await store.usable()
    begun = now()
    await store.revert(kept)
    elapsed = now() - begun
    await store.close()
    return {"elapsed": elapsed / 1e9}


def copy(template: str, path: str) -> None:
    """Copy a file or a folder."""
    if os.path.isdir(template):
        shutil.copytree(template, path)
    else:
        shutil.copyfile(template, path)


async def hold(contender: Kind, line: Line, *, path: str, seconds: float, times: int) -> Any:
    """Keep others from appending for so long, so many times; when each time was over.

    It is told when to take the lock, and says when it has it.
    """
    store = contender(path, "os")
    await store.open()
    released = []
    for _ in range(times):
        line.begin()
        with store.hold():
            line.begin(held=True)
            time.sleep(seconds)
            released.append(now())
    await store.close()
    return {"released": released}


async def append_beside(
    contender: Kind, line: Line, *, path: str, size: int, times: int, turns: bool, ticks: bool
) -> Any:
    """Append one message at a time; when each was begun and done, and how the event loop fared.

    With `turns` each append begins when it is told to, otherwise one follows the other. Where
    `ticks` are counted, something else runs on the event loop that wants to go on each millisecond.
    """
    store = contender(path, "os")
    await store.open()
    writer = Writer(store, 0, size)
    await writer.append()
    ticker = Ticker()
    begun, done = [], []
    for _ in range(times):
        if turns:
            line.begin()
        begun.append(now())
        await (ticker.beside(writer.append) if ticks else writer.append())
        done.append(now())
    await store.close()
    return {
        "begun": begun, "done": done, "stall": ticker.longest / 1e9, "writers": [writer.report()]
    }  # fmt: skip


class Ticker:
    """Something else on the event loop, which notices when it is kept from running."""

    PERIOD = 0.001

    def __init__(self) -> None:
        self.longest = 0
        """Nanoseconds that it was late at most."""

    async def beside(self, work: Callable[[], Awaitable[object]]) -> None:
        """Tick until that is done."""
        ticking = asyncio.create_task(self._tick())
        await asyncio.sleep(2 * self.PERIOD)
        await work()
        await asyncio.sleep(2 * self.PERIOD)
        ticking.cancel()

    async def _tick(self) -> None:
        due = now() + int(self.PERIOD * 1e9)
        while True:
            await asyncio.sleep(self.PERIOD)
            self.longest = max(self.longest, now() - due)
            due = now() + int(self.PERIOD * 1e9)


async def grow(
    contender: Kind, line: Line, *, path: str, durability: Durability, size: int, times: int
) -> Any:
    """Open a large file, and append some messages; how long each took."""
    store = contender(path, durability)
    await store.open()
    writer = Writer(store, 1, size)
    await writer.append()
    writer.durations.clear()
    for _ in range(times):
        await writer.append()
    await store.close()
    return {"histogram": Histogram.of(writer.durations).to_json(), "writers": [writer.report()]}


async def catch_up(contender: Kind, line: Line, *, path: str, size: int, times: int) -> Any:
    """Open a large file twice; one handle appends, the other one catches up.

    How long either took each time, and by how many bytes the process has grown meanwhile, if the
    system says how large it is.
    """
    store, other = contender(path, "os"), contender(path, "os")
    await store.open()
    await other.open()
    writer = Writer(store, 1, size)
    for _ in range(100):  # what is imported and made once
        await writer.append()
        await other.catch_up()
        _ = (await other.usable())[-1]
    writer.durations.clear()
    before, catching = resident(), []
    for _ in range(times):
        await writer.append()
        begun = now()
        await other.catch_up()
        catching.append(now() - begun)
    after = resident()
    await store.close()
    await other.close()
    return {
        "catching": Histogram.of(catching).to_json(),
        "appending": Histogram.of(writer.durations).to_json(),
        "grown": None if before is None or after is None else after - before,
        "writers": [writer.report()],
    }


def resident() -> int | None:
    """Bytes of memory that this process has now; `None` where the system doesn't say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


JOBS: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    job.__name__: job
    for job in (
        create,
        fill,
        append,
        check,
        have_history,
        revert,
        hold,
        append_beside,
        grow,
        catch_up,
    )
}
