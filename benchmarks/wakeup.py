"""How long it takes from one process's commit, or the end of its turn, until another one knows.

    uv run python benchmarks/wakeup.py

1. A follower is a process of its own, and so is the writer, which appends a message, pauses for
   10 to 50 ms, and so on. Both read the same clock of the system.
2. "from the write" counts from right before the writer calls `append`, "from the commit" from
   where that has returned. A follower that is told meanwhile makes the latter negative.
3. For turns two processes take them by turns, each waiting while the other one has it. Counted is
   from right before the one leaves its turn to the first statement inside the other's.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cosession.messages  # noqa: F401 - the first message would wait for it
from cosession import BlockingSession, Session
from cosession.changes import Appended

_now = time.perf_counter_ns


# ---- what the processes do ------------------------------------------------------------------


def write(path: str, samples: int) -> None:
    """Append messages with pauses; print when each was begun and done."""
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "-1"})  # imports what it needs
        for number in range(samples):
            time.sleep(random.uniform(0.01, 0.05))
            begun = _now()
            session.append({"role": "user", "content": str(number)})
            print(number, begun, _now())


def follow(path: str, samples: int) -> None:
    """Print when each message was told, by a blocking follower."""
    with BlockingSession(path) as session:
        changes = session.follow(timeout=60)
        print("ready", flush=True)
        for change in changes:
            if isinstance(change, Appended) and _told(change, _now()) == samples - 1:
                return


async def follow_async(path: str, samples: int) -> None:
    """Print when each message was told, by an asynchronous follower."""
    async with Session(path) as session:
        changes = session.follow()
        print("ready", flush=True)
        async for change in changes:
            if isinstance(change, Appended) and _told(change, _now()) == samples - 1:
                return


def _told(change: Appended, now: int) -> int:
    for message in change.records:
        print(message.content, now)
    return int(change.records[-1].content)


def take_turns(path: str, samples: int) -> None:
    """Take turns; print when each was asked for, had, and given up."""
    with BlockingSession(path) as session, session.present("measuring"):
        deadline = time.monotonic() + 30
        while len(session.terminals()) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        for _ in range(samples):
            asked = _now()
            with session.turn("measuring"):
                begun = _now()
                time.sleep(random.uniform(0.005, 0.02))
                ended = _now()
            print(asked, begun, ended)


ROLES: dict[str, Callable[[str, int], object]] = {
    "write": write,
    "blocking": follow,
    "async": lambda path, samples: asyncio.run(follow_async(path, samples)),
    "turns": take_turns,
}


# ---- what is measured -----------------------------------------------------------------------


def start(role: str, path: Path, samples: int, *, signs: bool = True) -> subprocess.Popen[str]:
    """Start a process; without `signs` it has no watchfiles."""
    command = [sys.executable, __file__, "--role", role, str(path), "--samples", str(samples)]
    if not signs:
        command.append("--no-signs")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wakeups(kind: str, samples: int, *, signs: bool) -> tuple[list[float], list[float]]:
    """Milliseconds from each write, and from each commit, until a follower was told."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "context.jsonl"
        with start(kind, path, samples, signs=signs) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "ready\n"
            time.sleep(0.5)  # watchfiles is imported on the follower's thread
            with start("write", path, samples) as writer:
                written = _numbers(writer.communicate()[0])
            told = {pair[0]: pair[1] for pair in _numbers(follower.communicate()[0])}
    assert len(written) == samples
    from_write = [(told[number] - begun) / 1e6 for number, begun, _ in written]
    from_commit = [(told[number] - done) / 1e6 for number, _, done in written]
    return from_write, from_commit


def turn_waits(samples: int) -> list[float]:
    """Milliseconds from the end of a turn until somebody who waited for it has the next one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "context.jsonl"
        both = [start("turns", path, samples) for _ in range(2)]
        turns = sorted(
            (begun, asked, ended)
            for process in both
            for asked, begun, ended in _numbers(process.communicate()[0])
        )
    return [
        (begun - ended) / 1e6
        for (_, _, ended), (begun, asked, _) in itertools.pairwise(turns)
        if asked < ended
    ]


def _numbers(text: str) -> list[list[int]]:
    return [list(map(int, line.split())) for line in text.splitlines()]


# ---- the report -----------------------------------------------------------------------------


class Row(NamedTuple):
    """Milliseconds: half of the samples are below `p50`, 99 of 100 below `p99`."""

    what: str
    samples: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, what: str, values: Sequence[float]) -> Row:
        ranked = sorted(values)
        p50, p99 = (ranked[int(share * (len(ranked) - 1))] for share in (0.5, 0.99))
        return cls(what, len(ranked), p50, p99, ranked[-1])

    def __str__(self) -> str:
        figures = " | ".join(f"{value:5.1f}" for value in (self.p50, self.p99, self.max))
        return f"| {self.what:56} | {self.samples:7} | {figures} |"


HEAD = f"| {'':56} | samples |   p50 |   p99 |   max |\n|{'-' * 58}|--------:|{'------:|' * 3}"


def main() -> None:
    """Measure, and print a table, or with --json one object per row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--no-signs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        if given.no_signs:
            sys.modules["watchfiles"] = None  # type: ignore[assignment]
        ROLES[given.role](given.path, given.samples)
        return
    rows = []
    for signs in (True, False):
        for kind in ("async", "blocking"):
            by = "watchfiles" if signs else "the heartbeat alone"
            from_write, from_commit = wakeups(kind, given.samples, signs=signs)
            rows.append(Row.of(f"{kind} follower, {by}, from the write", from_write))
            rows.append(Row.of(f"{kind} follower, {by}, from the commit", from_commit))
    rows.append(Row.of("end of a turn to the next one's beginning", turn_waits(given.samples)))
    if given.json:
        for entry in rows:
            print(json.dumps(entry._asdict()))
        return
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} "
        f"processors{load}, Python {platform.python_version()}; milliseconds\n"
    )
    print(HEAD)
    for entry in rows:
        print(entry)


if __name__ == "__main__":
    main()
