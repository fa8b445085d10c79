"""Where the time goes: to the system, to the disk, or to the interpreter.

    uv run python benchmarks/breakdown.py

1. Its nine system calls are made bare, in their order, on files like a session's: no protocol that
   makes these calls can be quicker than that.
2. Then each layer is called by itself, from the inside to the outside. What one takes longer than
   what it calls is its own.
3. All of them take turns in short rounds, and the lower decile of the rounds counts: what else the
   machine is at makes rounds slower, never quicker. Of opening and of a revert it is the best of a
   few, and where the disk is waited for the median, since disks have moods of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cosession import BlockingSession, Message, Session, _platform, files
from cosession.codec import encode_checkpoint
from cosession.messages import MessageCodec
from cosession.state import State

MESSAGE = {"role": "user", "content": "x" * 370}
LINE = b"x" * 399 + b"\n"
ROUNDS, CALLS = 150, 40
COROUTINES = 50
LARGE, OPENINGS = 100_000_000, 5
SYNCED = 300
REVERTED, REVERTS = 10_000_000, 15

Step = tuple[str, Callable[[], object]]


def system_calls(folder: Path) -> Callable[[], None]:
    """What an append asks of the system, and nothing else."""
    path, lock = str(folder / "bare.jsonl"), str(folder / "bare.jsonl.lock")
    data = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    locked = os.open(lock, os.O_RDWR | os.O_CREAT)
    announcement, header = b"a" * 504, b"h" * 240
    os.pwrite(locked, announcement, 16)

    def append() -> None:
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.lstat(lock)
        os.pread(locked, 240, 16)
        os.stat(path)
        os.pwrite(locked, announcement, 16)
        os.write(data, LINE)
        os.fstat(data)
        os.pwrite(locked, header, 16)
        fcntl.flock(locked, fcntl.LOCK_UN)

    return append


def bare_write(folder: Path) -> Callable[[], object]:
    """The one call that puts the bytes into the file."""
    data = os.open(folder / "written.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda: os.write(data, LINE)


def calls_of(call: Callable[[], object]) -> int:
    """How many functions a call calls, those in C included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    call()
    sys.setprofile(None)
    return count


async def measure(folder: Path) -> list[tuple[str, list[float], int]]:
    """Microseconds of every round, and calls, by what was called."""
    with BlockingSession(folder / "blocking.jsonl") as blocking:
        async with Session(folder / "async.jsonl") as session:
            await session.append(MESSAGE)
            blocking.append(MESSAGE)
            queue, codec = blocking._queue, blocking._codec
            assert queue is not None
            lines = (codec.encode(MESSAGE),)
            steps: list[Step] = [
                ("bare `write`", bare_write(folder)),
                ("the nine system calls, bare", system_calls(folder)),
                ("encoding and checking the message", lambda: codec.encode(MESSAGE)),
                ("`CommitQueue.append_now`: the protocol", lambda: queue.append_now(lines)),
                ("`BlockingSession.append`", lambda: blocking.append(MESSAGE)),
            ]
            rows: list[tuple[str, list[float], int]] = [
                (name, [], calls_of(step)) for name, step in steps
            ]
            last: tuple[str, list[float], int] = ("`await Session.append`", [], 0)
            for _ in range(ROUNDS):
                for (_, step), (_, times, _) in zip(steps, rows, strict=True):
                    began = time.perf_counter()
                    for _ in range(CALLS):
                        step()
                    times.append((time.perf_counter() - began) / CALLS * 1e6)
                last[1].append(await timed(session))
            return [*rows, last]


def held(folder: Path) -> float:
    """Microseconds for which an append has the lock: no two processes do that at once."""
    times: list[float] = []
    with BlockingSession(folder / "held.jsonl") as session:
        session.append(MESSAGE)
        lock = session._store.lock
        try_shortly, release, taken = lock.try_shortly, lock.release, 0.0

        def take() -> bool:
            nonlocal taken
            got = try_shortly()
            taken = time.perf_counter()
            return got

        def let_go() -> None:
            times.append(time.perf_counter() - taken)
            release()

        lock.try_shortly, lock.release = take, let_go  # type: ignore[method-assign]
        for _ in range(ROUNDS * CALLS // 4):
            session.append(MESSAGE)
    return sorted(times)[len(times) // 10] * 1e6


async def together(folder: Path) -> list[tuple[str, float]]:
    """Microseconds for each append where many coroutines append at the same moment."""
    waiting: list[asyncio.Future[None]] = []
    loop = asyncio.get_running_loop()

    def wake() -> None:
        woken = waiting.copy()
        waiting.clear()
        for future in woken:
            future.set_result(None)

    async def wait(_: object) -> None:
        future = loop.create_future()
        waiting.append(future)
        if len(waiting) == 1:
            loop.call_soon(wake)
        await future

    async def with_many(do: Callable[[Any], Awaitable[object]]) -> float:
        async def one() -> None:
            for _ in range(CALLS):
                await do(MESSAGE)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(COROUTINES)))
        return (time.perf_counter() - began) / COROUTINES / CALLS * 1e6

    async with Session(folder / "together.jsonl") as session:
        await session.load()
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(await with_many(wait))
            ours.append(await with_many(session.append))
    return [
        (f"{COROUTINES} coroutines that are woken together, bare", sorted(bare)[ROUNDS // 10]),
        ("`await Session.append` of each", sorted(ours)[ROUNDS // 10]),
    ]


async def synced(folder: Path) -> list[tuple[str, float]]:
    """Seconds for an append that waits for the disk, and for what it waits for."""
    flags = os.O_RDWR | os.O_CREAT
    appended = os.open(folder / "appended", flags | os.O_APPEND)
    filled = os.open(folder / "filled", flags)
    os.write(filled, LINE * SYNCED)
    os.fsync(filled)
    places = iter(range(0, len(LINE) * SYNCED, len(LINE)))

    def append() -> None:
        os.write(appended, LINE)
        os.fdatasync(appended)

    def overwrite() -> None:
        os.pwrite(filled, LINE, next(places))
        os.fdatasync(filled)

    with BlockingSession(folder / "synced.jsonl", durability="power") as blocking:
        async with Session(folder / "synced-async.jsonl", durability="power") as session:
            steps: list[Step] = [
                ("`write` behind the file and `fdatasync`, bare", append),
                ("`write` into a filled file and `fdatasync`, bare: a write-ahead log", overwrite),
                ("a call on another thread, bare", lambda: asyncio.to_thread(int)),
                ("`BlockingSession.append`", lambda: blocking.append(MESSAGE)),
                ("`await Session.append`", lambda: session.append(MESSAGE)),
            ]
            times: list[list[float]] = [[] for _ in steps]
            for _ in range(SYNCED):
                for (_, step), taken in zip(steps, times, strict=True):
                    began = time.perf_counter()
                    done = step()
                    if inspect.isawaitable(done):
                        await done
                    taken.append(time.perf_counter() - began)
    return [(name, statistics.median(taken)) for (name, _), taken in zip(steps, times, strict=True)]


async def timed(session: Session[Message]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        await session.append(MESSAGE)
    return (time.perf_counter() - began) / CALLS * 1e6


def opening(folder: Path) -> list[tuple[str, float]]:
    """Seconds for what opening a session of 100 MB takes, each with what comes before it."""
    path = folder / "large.jsonl"
    path.write_bytes(MessageCodec(Message).encode(MESSAGE) * (LARGE // 400))
    validate = TypeAdapter(Message).validate_json

    def pieces() -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            yield from files.read_lines(file.fileno(), 0, path.stat().st_size)

    def index() -> State:
        state = State()
        for piece in pieces():
            state = state.fold(piece)
        return state

    def opened(use: Callable[[BlockingSession[Message]], object]) -> None:
        with BlockingSession(path) as session:
            use(session)

    steps: list[Step] = [
        ("reading it in pieces, all of which are kept", lambda: list(pieces())),
        ("and telling its lines apart: the index", index),
        ("`BlockingSession.open`", lambda: opened(lambda _: None)),
        ("and looking at the last message", lambda: opened(lambda session: session.history[-1])),
        ("and how many there are", lambda: opened(lambda session: len(session.history))),
        ("and at every message instead", lambda: opened(lambda session: list(session.history))),
        (
            "pydantic's `validate_json` of every line, bare",
            lambda: [validate(line) for piece in pieces() for line in piece.splitlines()],
        ),
    ]
    rounds = [[duration(step) for _, step in steps] for _ in range(OPENINGS)]
    return [(name, min(times)) for (name, _), *times in zip(steps, *rounds, strict=True)]


def reverting(folder: Path) -> list[tuple[str, float]]:
    """Seconds for a revert to the middle of 10 MB, each with what comes before it."""
    path, half = folder / "long.jsonl", REVERTED // 2
    line = MessageCodec(Message).encode(MESSAGE)
    lines = line * (half // len(line))
    content = lines + encode_checkpoint(0) + lines
    path.write_bytes(content)
    source = os.open(path, os.O_RDONLY)

    def copied(target: int) -> None:
        files.copy_range(source, target, 0, half)

    def on_disk(target: int) -> None:
        copied(target)
        os.fdatasync(target)

    def named(target: int) -> None:
        on_disk(target)
        os.link(path, folder / "kept")
        _platform.sync_folder(str(folder))
        os.replace(folder / "copy", folder / "put in place")
        os.unlink(folder / "kept")

    def to_copy(step: Callable[[int], object]) -> float:
        target = os.open(folder / "copy", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            return duration(lambda: step(target))
        finally:
            os.close(target)

    def revert(path: Path) -> float:
        path.write_bytes(content)
        with BlockingSession(path) as session:
            return duration(lambda: session.revert_to(0))

    rounds = [
        (to_copy(copied), to_copy(on_disk), to_copy(named), revert(folder / f"{at}.jsonl"))
        for at in range(REVERTS)
    ]
    names = (
        "copying its first half",
        "and having it on the disk",
        "and a second name for the old file, its folder on the disk, and the swap",
        "`BlockingSession.revert_to`",
    )
    return [(name, min(times)) for name, *times in zip(names, *rounds, strict=True)]


def duration(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as name:
        folder = Path(name)
        rows = asyncio.run(measure(folder))
        lock = held(folder)
        crowd = asyncio.run(together(folder))
        on_disk = asyncio.run(synced(folder))
        reverts = reverting(folder)
        openings = opening(folder)
    print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}\n")
    print("| | µs | calls of functions |\n|---|--:|--:|")
    for name, times, calls in rows:
        decile = sorted(times)[len(times) // 10]
        print(f"| {name} | {decile:.1f} | {calls or ''} |")
    print(f"| the lock is held meanwhile | {lock:.1f} | |")
    for name, microseconds in crowd:
        print(f"| {name} | {microseconds:.1f} | |")
    print('\n| with `durability="power"` | µs |\n|---|--:|')
    for name, seconds in on_disk:
        print(f"| {name} | {seconds * 1e6:.0f} |")
    print("\n| of a revert to the middle of 10 MB | ms |\n|---|--:|")
    for name, seconds in reverts:
        print(f"| {name} | {seconds * 1e3:.1f} |")
    print("\n| of a session of 100 MB | ms | MB/s |\n|---|--:|--:|")
    for name, seconds in openings:
        print(f"| {name} | {seconds * 1e3:,.0f} | {LARGE / 1e6 / seconds:,.0f} |")


if __name__ == "__main__":
    main()
