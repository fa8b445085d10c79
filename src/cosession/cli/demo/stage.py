"""The parent: starts the terminals, kills some in the middle of a write, starts them again.

1. Each terminal has a thread here that reads its pipe to the end and keeps the ledger. That
   thread also carries out a kill, because it is the first to know that an operation began.
2. A killed terminal's pipe is read to its end before it is started again: what it was told before
   it died counts.
3. At the end all of them finish; when all have, each looks at the session once more and reports.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._base import Durability
from .aim import Strike, draw
from .ledger import REPLACES, Ledger, Operation, Witness

_PATIENCE = 60.0
"""Seconds that a terminal may take for anything that it is asked for at the end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run is to be like."""

    path: Path
    """The session's file."""
    conversations: Path
    terminals: int
    seconds: float
    kills: int
    seed: int
    durability: Durability = "process"
    pace: float = 0.006

    def role(self, number: int) -> str:
        """The last terminal compacts, the one before it reverts, the others only write."""
        return {0: "compact", 1: "revert"}.get(self.terminals - number, "write")


@dataclass
class Seat:
    """One terminal as the parent sees it, over all its starts."""

    number: int
    role: str
    state: str = "starting"
    start: int = 0
    conversation: int = 0
    message: int = 0
    messages: int = 0
    kills: int = 0
    resumed: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds that each append took, sorted."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=400))


@dataclass(slots=True)
class Figures:
    """What happened on the stage."""

    operations: int = 0
    """Acknowledged ones."""
    rewrites: int = 0
    """Those of them that left a rotated file."""
    kills: int = 0
    kills_within: int = 0
    """Kills that came between an operation's beginning and its acknowledgement."""
    undone: int = 0
    """Unfinished writes that somebody undid."""
    seconds: float = 0.0


class Stage:
    """A run. `problems` tells what went wrong with the terminals themselves."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self.figures = Figures()
        self.seats = [Seat(n, plan.role(n)) for n in range(1, plan.terminals + 1)]
        self.problems: list[str] = []
        self.guard = threading.Lock()
        self.began = 0.0
        self._dice = random.Random(f"{plan.seed}/stage")
        self._running: dict[int, _Process] = {}
        self._kill_times = self._schedule()

    def play(self, show: Callable[[], None]) -> None:
        """Run it to its end. `show` is called many times a second."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.0005)  # a thread that takes aim should not wait for the others
        try:
            for seat in self.seats:
                self._start(seat)
            self._wait_for_all(show)
            while not self._over():
                self._tend()
                show()
                time.sleep(0.02)
            # The clock stops here: what follows is the orderly end.
            self.figures.seconds = self.elapsed
            if not self.problems:
                self._finish(show)
        finally:
            sys.setswitchinterval(interval)
            self.kill_all()

    def kill_all(self) -> int:
        """End every terminal that still runs; how many that were."""
        running = list(self._running.values())
        for process in running:
            process.kill()
        for process in running:
            process.wait_for_end()
        self._running.clear()
        return len(running)

    @property
    def elapsed(self) -> float:
        """Seconds since all terminals were there, up to the end of the writing."""
        return self.figures.seconds or time.monotonic() - self.began if self.began else 0.0

    # ---- while it runs ----------------------------------------------------------------------

    def _wait_for_all(self, show: Callable[[], None]) -> None:
        """Until everybody has opened the session; the clock starts then."""
        deadline = time.monotonic() + _PATIENCE
        while not self.problems and not all(p.pid for p in self._running.values()):
            self._tend()
            show()
            if time.monotonic() > deadline:
                late = [p.seat.number for p in self._running.values() if not p.pid]
                self.problems += [f"terminal {number} never started" for number in late]
            time.sleep(0.02)
        self.began = time.monotonic()

    def _schedule(self) -> list[float]:
        """When to kill: spread over the run, not at its very ends. The last one comes first."""
        plan = self.plan
        span = plan.seconds * 0.75 / max(1, plan.kills)
        first = plan.seconds * 0.12
        times = [first + span * (n + self._dice.uniform(0.1, 0.9)) for n in range(plan.kills)]
        return times[::-1]

    def _over(self) -> bool:
        if self.problems:
            return True
        if self.elapsed < self.plan.seconds:
            return False
        still_to_kill = self._kill_times or any(p.strike for p in self._running.values())
        return not still_to_kill or self.elapsed > 4 * self.plan.seconds + 30

    def _tend(self) -> None:
        """Start again who has died; see to the kills that are due."""
        for process in list(self._running.values()):
            if process.ended.is_set():
                process.wait_for_end()
                del self._running[process.seat.number]
                if process.killed:
                    self._start(process.seat)
                else:
                    self.problems.append(
                        f"terminal {process.seat.number} ended by itself with status "
                        f"{process.status}: {process.last_words}"
                    )
            elif process.overdue():
                process.kill()
        if self._kill_times and self.elapsed >= self._kill_times[-1]:
            ready = [p for p in self._running.values() if p.pid and not p.strike]
            if ready:
                self._kill_times.pop()
                process = self._dice.choice(ready)
                process.strike_soon(draw(self._dice, process.seat.role))

    def _start(self, seat: Seat) -> None:
        seat.start += 1
        seat.state = "starting"
        self._running[seat.number] = _Process(self, seat)

    # ---- the end ----------------------------------------------------------------------------

    def _finish(self, show: Callable[[], None]) -> None:
        """Have everybody finish, then report, then leave."""
        for order, reached in (("finish", "finished"), ("report", "reported")):
            for process in self._running.values():
                process.tell(order)
            deadline = time.monotonic() + _PATIENCE
            while any(seat.state != reached for seat in self.seats):
                show()
                if time.monotonic() > deadline or not self._all_alive(reached):
                    late = [seat.number for seat in self.seats if seat.state != reached]
                    self.problems += [f"terminal {number} never {reached}" for number in late]
                    return
                time.sleep(0.01)
        for process in self._running.values():
            process.leave()
        for process in self._running.values():
            if not process.ended.wait(_PATIENCE):
                self.problems.append(
                    f"terminal {process.seat.number} stayed when its stdin was closed"
                )

    def _all_alive(self, reached: str) -> bool:
        return all(
            not process.ended.is_set() or process.seat.state == reached
            for process in self._running.values()
        )


class _Process:
    """One start of a terminal, and the thread that reads what it says."""

    def __init__(self, stage: Stage, seat: Seat) -> None:
        self.seat = seat
        self.pid = 0
        self.strike: Strike | None = None
        self.killed = False
        self.ended = threading.Event()
        self._armed = 0.0
        self._noise: deque[str] = deque(maxlen=20)
        self._repairs = 0
        self._stage = stage
        self._witness = Witness(stage.ledger, seat.number, seat.start)
        plan = stage.plan
        options = {
            "number": seat.number,
            "start": seat.start,
            "terminals": plan.terminals,
            "seed": plan.seed,
            "role": seat.role,
            "pace": plan.pace,
            "durability": plan.durability,
        }
        self._popen = subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"{__package__}.terminal",
                str(plan.path),
                str(plan.conversations),
                json.dumps(options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C is for the parent, which then ends them in order.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def status(self) -> int | None:
        return self._popen.returncode

    @property
    def last_words(self) -> str:
        return " / ".join(list(self._noise)[-4:]) or "it said nothing"

    def tell(self, order: str) -> None:
        """Write an order to its stdin; nothing if it is gone."""
        assert self._popen.stdin is not None
        with suppress(OSError):
            self._popen.stdin.write(order.encode() + b"\n")
            self._popen.stdin.flush()

    def leave(self) -> None:
        """Close its stdin, at which it ends."""
        assert self._popen.stdin is not None
        with suppress(OSError):
            self._popen.stdin.close()

    def strike_soon(self, strike: Strike) -> None:
        """Kill it in its next operation of the strike's kind, and have it do one."""
        self._armed = time.monotonic()
        self.strike = strike
        if strike.kind:
            self.tell(strike.kind)

    def overdue(self) -> bool:
        """Whether a strike found no operation to come with."""
        return bool(self.strike) and not self.killed and time.monotonic() - self._armed > 3

    def kill(self) -> None:
        self.killed = True
        self._popen.kill()

    def wait_for_end(self) -> None:
        """Until it is gone and everything that it said is noted."""
        self._popen.wait(_PATIENCE)
        self._thread.join(_PATIENCE)
        self.leave()
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    # ---- on the thread ----------------------------------------------------------------------

    def _listen(self) -> None:
        for event in self._events():
            with self._stage.guard:
                operation = self._witness.hear(event)
                self._follow(event, operation)
            if event["is"] == "begin":
                self._strike_if_due(str(event["kind"]))
        if self.strike and self.killed:
            self._count_kill()
        self._popen.wait()
        self.ended.set()

    def _events(self) -> Iterator[dict[str, Any]]:
        """What it says; anything that isn't an event (a traceback) is its last words."""
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            try:
                event = json.loads(line)
                event["is"]
            except (ValueError, TypeError, LookupError):
                self._noise.append(line.decode(errors="replace").strip())
                continue
            yield event

    def _follow(self, event: dict[str, Any], operation: Operation | None) -> None:
        """Keep the figures that are shown."""
        seat = self.seat
        match event["is"]:
            case "ready":
                self.pid = int(event["pid"])
                seat.state = "writing"
                seat.resumed += bool(event["resumed"])
            case "done" if operation:
                seat.messages += operation.count
                self._stage.figures.operations += 1
                self._stage.figures.rewrites += operation.kind in REPLACES
                if operation.kind == "append":
                    insort(seat.waits, operation.seconds)
                    seat.recent.append(operation.seconds)
            case "refused":
                seat.refused += 1
            case "stopped":
                seat.state = "finished"
            case "report":
                seat.state = "reported"
        if "conversation" in event and event["is"] != "begin":
            seat.conversation, seat.message = event["conversation"], event["message"]
            self._stage.figures.undone += event["repairs"] - self._repairs
            self._repairs = event["repairs"]

    def _strike_if_due(self, kind: str) -> None:
        strike = self.strike
        if strike is None or self.killed or strike.kind not in ("", kind):
            return
        strike.wait_for_the_moment(f"{self._stage.plan.path}.lock", self.pid)
        self.kill()

    def _count_kill(self) -> None:
        self.seat.state = "killed"
        with self._stage.guard:
            self.seat.kills += 1
            self._stage.figures.kills += 1
            self._stage.figures.kills_within += self._witness.under_way is not None
