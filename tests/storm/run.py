"""Make a storm, and check what is left.

    python -m storm.run --seconds 60              from the folder `tests`
    python -m storm.run --seed 4711               the same decisions once more

Prints what was done and what was found; the exit status is 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutants
from cosession import BlockingSession

from . import terminal
from .checker import Checker, Ledger, size

PATIENCE = 120.0
"""Seconds in which everybody has to come to an end."""

_ENOUGH = 30
"""A storm on a busy machine lasts until so many operations were acknowledged."""


class Process:
    """A terminal that runs."""

    def __init__(self, path: Path, name: str, seed: str) -> None:
        self.name = name
        self.stopped_until = 0.0
        self.limited_until = 0.0
        self.began = False
        """Whether it has said that it begins an operation, since this was reset."""
        orders, self._orders = os.pipe()
        self.told, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            os.close(self.told)
            terminal.main(path, name, seed, orders, told)
        os.close(orders)
        os.close(told)
        os.set_blocking(self.told, False)
        self._rest = b""

    def tell(self, order: bytes) -> None:
        with suppress(BrokenPipeError):
            os.write(self._orders, order)

    def hear(self) -> list[dict[str, Any]] | None:
        """What it has said since; `None` if it is gone."""
        try:
            data = os.read(self.told, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def limit(self, length: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (length, resource.RLIM_INFINITY))

    def close(self) -> int:
        """Its exit status, when it is gone."""
        os.close(self._orders)
        os.close(self.told)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass(frozen=True)
class Options:
    seed: str
    seconds: float
    terminals: int = 4
    rate: float = 25.0
    """Disturbances a second."""


class Storm:
    """One storm over one session."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.path = folder / "context.jsonl"
        self.options = options
        self.ledger = Ledger()
        self.done: Counter[str] = Counter()
        """Kinds of disturbances, and how many there were."""
        self._dice = random.Random(f"{options.seed}/weather")
        self._selector = selectors.DefaultSelector()
        self._running: dict[str, Process] = {}
        self._starts: Counter[int] = Counter()
        self._reported: set[str] = set()

    def run(self) -> list[str]:
        """What is wrong afterwards."""
        with BlockingSession(self.path):
            pass
        for seat in range(self.options.terminals):
            self._start(seat)
        try:
            self._rage()
            self._calm()
        finally:
            for process in list(self._running.values()):
                process.signal(signal.SIGKILL)
                self._gone(process)
        self.checker = Checker(self.path, self.ledger)
        return self.checker.problems()

    # ---- terminals --------------------------------------------------------------------------

    def _start(self, seat: int) -> None:
        self._starts[seat] += 1
        name = f"t{seat}.{self._starts[seat]}"
        process = Process(self.path, name, self.options.seed)
        self._running[name] = process
        self._selector.register(process.told, selectors.EVENT_READ, process)

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            process = key.data
            events = process.hear()
            if events is None:
                status = self._gone(process)
                if process.name not in self._reported:
                    self.ledger.problems.append(f"{process.name} ended by itself: {status}")
                continue
            for event in events:
                self._note(process, event)

    def _note(self, process: Process, event: dict[str, Any]) -> None:
        self.ledger.hear(process.name, event)
        process.began = event["kind"] == "begin"
        if event["kind"] in ("done", "refused"):
            self.done[event["kind"]] += 1
        if event["kind"] in ("stopped", "report"):
            self._reported.add(process.name)
            self.done[event["kind"]] += 1

    def _gone(self, process: Process) -> int:
        self._selector.unregister(process.told)
        del self._running[process.name]
        return process.close()

    # ---- weather ----------------------------------------------------------------------------

    def _rage(self) -> None:
        began = time.monotonic()
        over = began + self.options.seconds
        while not self.ledger.problems:
            enough = self.done["done"] >= _ENOUGH or time.monotonic() > began + PATIENCE
            if time.monotonic() > over and enough:
                break
            pause = time.monotonic() + self._dice.expovariate(self.options.rate)
            while (left := pause - time.monotonic()) > 0:
                self._listen(left)
            self._end_short_troubles()
            self._trouble()

    def _trouble(self) -> None:
        kinds = {"kill": 3, "stop": 8, "limit": 4, "foreign line": 10, "foreign half": 2}
        kind = self._dice.choices([*kinds], [*kinds.values()])[0]
        seat = self._dice.choice(sorted(self._running))
        process = self._running[seat]
        self.done[kind] += 1
        if kind == "kill":
            if self._dice.random() < 0.7:
                self._wait_for_a_beginning(process)
            if process.name not in self._running:
                return  # it died of itself, and that is noted
            process.signal(signal.SIGKILL)
            while (events := process.hear()) is not None:
                for event in events:
                    self._note(process, event)
                time.sleep(0.0005 * (not events))
            self._gone(process)
            self._start(int(seat[1:].partition(".")[0]))
        elif kind == "stop":
            process.signal(signal.SIGSTOP)
            process.stopped_until = time.monotonic() + self._dice.uniform(0, 0.08)
        elif kind == "limit":
            with suppress(FileNotFoundError):
                length = self.path.stat().st_size + self._dice.choice([0, 1, 40, 200, 1000])
                process.limit(length)
                process.limited_until = time.monotonic() + self._dice.uniform(0, 0.1)
        else:
            self._foreign(half=kind == "foreign half")

    def _wait_for_a_beginning(self, process: Process) -> None:
        """Return in the middle of an operation of it, as it often says when it begins one."""
        deadline = time.monotonic() + 0.05
        process.began = False
        while not process.began and time.monotonic() < deadline:
            self._listen(0.002)
        time.sleep(self._dice.uniform(0, 0.002))

    def _end_short_troubles(self, *, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        for process in self._running.values():
            if 0 < process.stopped_until <= now:
                process.stopped_until = 0
                process.signal(signal.SIGCONT)
            if 0 < process.limited_until <= now:
                process.limited_until = 0
                process.limit(resource.RLIM_INFINITY)

    def _foreign(self, *, half: bool) -> None:
        """Append as a program does that knows of no locks."""
        text = f"foreign {len(self.ledger.foreign)}."
        self.ledger.foreign[text] = half
        line = json.dumps({"role": "user", "content": text}).encode() + b"\n"
        if half:
            line = line[: line.index(b".") + 1]
        # Another terminal may be replacing the file: whichever this one is then, it is kept.
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)

    # ---- the end ----------------------------------------------------------------------------

    def _calm(self) -> None:
        self._end_short_troubles(now=float("inf"))
        if self.ledger.problems:
            return
        deadline = time.monotonic() + PATIENCE
        for process in self._running.values():
            process.tell(b"s")
        self._await("stopped", deadline)
        with BlockingSession(self.path) as session:
            if interrupted := session.interrupted:
                interrupted.keep(timeout=PATIENCE)
            session.append({"role": "user", "content": "it is over"}, timeout=PATIENCE)
        for process in self._running.values():
            process.tell(b"r")
        self._await("report", deadline)
        while self._running and time.monotonic() < deadline:
            self._listen(0.05)

    def _await(self, what: str, deadline: float) -> None:
        while self.done[what] < self.options.terminals:
            if time.monotonic() > deadline:
                self.ledger.problems.append(
                    f"not everybody came to an end: {sorted(self._running)}"
                )
                return
            if len(self._running) < self.options.terminals and what == "stopped":
                return  # somebody died, and that is noted
            self._listen(0.05)


def with_mutant(name: str) -> list[str]:
    """What is found with a broken variant of the library, in the terminals and the checks."""
    mutants.apply(name)
    for attempt in range(6):
        with tempfile.TemporaryDirectory() as folder:
            if found := Storm(Path(folder), Options(f"{name}/{attempt}", 4)).run():
                return found
    return []


def report(storm: Storm, found: list[str]) -> dict[str, Any]:
    operations = storm.ledger.operations.values()
    return {
        "seed": storm.options.seed,
        "operations": len(operations),
        "acknowledged": storm.done["done"],
        "refused": Counter(said.why for said in operations if said.state == "refused"),
        "never told": sum(said.state == "begun" for said in operations),
        "kinds": Counter(said.what for said in operations),
        "disturbances": {
            kind: storm.done[kind]
            for kind in ("kill", "stop", "limit", "foreign line", "foreign half")
        },
        "restarts": sum(storm._starts.values()) - storm.options.terminals,
        "torn": storm.checker.torn,
        "bytes": size(storm.path.parent),
        "findings": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a storm, and check what is left.")
    parser.add_argument("--seed", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--terminals", type=int, default=4)
    parser.add_argument("--storms", type=int, default=1, help="so many, one after the other")
    parser.add_argument("--mutant", default="", choices=["", *mutants.MUTANTS])
    parser.add_argument("--keep", type=Path, help="keep the files in this folder")
    options = parser.parse_args()
    first = options.seed or str(random.randrange(1_000_000))
    if options.mutant:
        mutants.apply(options.mutant)
    wrong = 0
    for number in range(options.storms):
        seed = first if number == 0 else f"{first}+{number}"
        folder = options.keep or Path(tempfile.mkdtemp(prefix="cosession-storm-"))
        folder.mkdir(exist_ok=True)
        storm = Storm(folder, Options(seed, options.seconds, options.terminals))
        found = storm.run()
        print(json.dumps(report(storm, found)), flush=True)
        wrong += bool(found)
        if not options.keep:
            shutil.rmtree(folder)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
