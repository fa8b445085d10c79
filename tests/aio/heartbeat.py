"""How long the event loop stands still while something is done.

No absolute time is a fair bound on a busy machine. So each measurement has two others beside it, of
the same run: how long the thing takes, which is how long a loop stands still that does it itself,
and the noise: how late the loop is while another thread does plain Python all the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

from cosession import BlockingSession, Session, files

from .both import user
from .held import Other


@dataclass(frozen=True)
class Pulse:
    longest: float
    """Seconds for which the loop stood still at the most."""
    noise: float
    took: float
    """Seconds that it all took."""

    @property
    def blocked(self) -> bool:
        """Whether the loop stood still for a good part of it, and not just because of others."""
        return self.longest > 3 * self.noise + self.took / 4

    def __str__(self) -> str:
        return (
            f"stood still for {self.longest * 1000:.1f} ms of {self.took * 1000:.0f}, "
            f"noise {self.noise * 1000:.1f}"
        )


async def pulse(work: Awaitable[Any]) -> Pulse:
    """Measure the loop while it awaits this, and then the noise for as long."""
    longest, took = await _beating(work)
    stop = threading.Event()
    threads = [threading.Thread(target=_be_busy, args=(stop,), daemon=True)]
    for thread in threads:
        thread.start()
    noise, _ = await _beating(asyncio.sleep(min(max(took, 0.1), 1.0)))
    stop.set()
    for thread in threads:
        thread.join()
    return Pulse(longest, noise, took)


async def _beating(work: Awaitable[Any]) -> tuple[float, float]:
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    heart = asyncio.ensure_future(beat())
    await asyncio.sleep(0.002)
    began = time.perf_counter()
    await work
    took = time.perf_counter() - began
    await asyncio.sleep(0.002)
    heart.cancel()
    return longest, took


def _be_busy(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


# ---- what is measured -----------------------------------------------------------------------


async def opening(folder: Path, size: int) -> Pulse:
    """A session of four times so many bytes is opened: that is over soon."""
    path = _written(folder, 4 * size)
    session = Session(path)
    found = await pulse(session.open())
    await session.close()
    return found


async def waiting(folder: Path, size: int) -> Pulse:
    """Another process has the lock for a while."""
    path, other = _written(folder, size), Other()
    try:
        async with Session(path) as session:
            with other.holding(path, 0.4):
                return await pulse(session.append(user("x")))
    finally:
        other.end()


async def writing(folder: Path, size: int) -> Pulse:
    """A megabyte is written to a disk that takes its time."""
    path = _written(folder, size)
    async with Session(path) as session:
        with _slow_disk(0.3):
            return await pulse(session.append(user("x" * 1_000_000)))


async def appending(folder: Path, size: int) -> Pulse:
    """A coroutine does nothing but append, and is never in anybody's way."""

    async def append() -> None:
        for number in range(5000):
            await session.append(user(str(number)))

    async with Session(folder / "context.jsonl") as session:
        await session.append(user("first"))
        return await pulse(append())


async def clearing(folder: Path, size: int) -> Pulse:
    """A session whose messages are all decoded is cleared, and they are freed."""
    return await _replacing(folder, size, lambda session: session.clear())


async def reverting(folder: Path, size: int) -> Pulse:
    """The same by a revert to its beginning."""
    return await _replacing(folder, size, lambda session: session.revert_to(0))


async def _replacing(folder: Path, size: int, change: Callable[[Any], Awaitable[Any]]) -> Pulse:
    path = _written(folder, size, text=10)
    async with Session(path) as session:
        await session.load()
        return await pulse(change(session))


async def first_use(folder: Path, size: int) -> Pulse:
    """The first message of a new process that is not plain: what checks it is imported late."""
    command = [sys.executable, "-m", "aio.heartbeat", str(folder), *_mutant]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = await asyncio.create_subprocess_exec(
        *command, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE
    )
    said, _ = await child.communicate()
    return Pulse(*json.loads(said))


_mutant: list[str] = []
"""The broken variant that a child is to have as well."""


async def _use_first(folder: Path) -> None:
    async with Session(folder / "context.jsonl") as session:
        found = await pulse(session.append(user("a lone surrogate: \ud800")))
    print(json.dumps(astuple(found)))


MEASURED = {
    "first use": first_use,
    "opening": opening,
    "waiting": waiting,
    "writing": writing,
    "appending": appending,
    "clearing": clearing,
    "reverting": reverting,
}


def _written(folder: Path, size: int, *, text: int = 1000) -> Path:
    path = folder / "context.jsonl"
    line = json.dumps({"role": "user", "content": [{"type": "text", "text": "x" * text}]}) + "\n"
    with path.open("w") as file:
        file.write('{"role": "_checkpoint", "id": 0}\n')
        file.writelines(line for _ in range(size // len(line)))
    with BlockingSession(path):  # whoever comes first adopts the lines
        pass
    return path


@contextmanager
def _slow_disk(seconds: float) -> Iterator[None]:
    real = files.write_all

    def slow(*arguments: Any) -> None:
        time.sleep(seconds)
        real(*arguments)

    files.write_all = cast(Any, slow)
    try:
        yield
    finally:
        files.write_all = real


def with_mutant(name: str) -> list[str]:
    """What is found with a broken variant of the library."""
    import tempfile

    import mutants

    mutants.apply(name)
    _mutant.append(name)
    found = []
    for what, measure in MEASURED.items():
        with tempfile.TemporaryDirectory() as folder:
            seen = asyncio.run(measure(Path(folder), 20_000_000))
        if seen.blocked:
            found.append(f"{what}: the loop {seen}")
    return found


if __name__ == "__main__":
    if sys.argv[2:]:
        import mutants

        mutants.apply(sys.argv[2])
    asyncio.run(_use_first(Path(sys.argv[1])))
