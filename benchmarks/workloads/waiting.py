"""Appends that have to wait, and what becomes of the event loop meanwhile."""

from __future__ import annotations

from contenders.base import Contender
from measure import Failed, soon
from messages import SIZE

from .base import Column, Effort, Goal, Question, Sample, Stage, Workload, complaint_of

STALL = Column("stall", "longest stall", "ms", 2)
P50 = Column("wakeup", "p50", "ms", 2)
MOST = Column("longest", "longest", "ms", 2)

NOISE = Goal("stall", "≤", 5, "limit", plus=True)


class WakeUp(Workload):
    """A process appends while another one holds the lock."""

    name = "wakeup"
    title = "wake-up after another process's unlock"
    text = (
        "A process holds the contender's lock for 30 ms, in the middle of which another one "
        "begins to append. Counted is from right before the lock is let go until that append has "
        "returned."
    )
    columns: tuple[Column, ...] = (P50, MOST)
    questions = (Question(title, P50, more_is_better=False, goals=(Goal("wakeup", "≤", 4),)),)
    shared = True
    ticks = False
    seconds = 0.03

    def __init__(self, effort: Effort) -> None:
        self.rounds = min(effort.rounds, 3)
        self.times = effort.times

    def enters(self, contender: type[Contender]) -> bool:
        return contender.can("hold") and contender.can("stored") and not contender.in_threads

    def measure(self, stage: Stage) -> Sample:
        stage.team.ask("create", path=stage.path, durability="os")
        holder, writer = stage.team.workers(2)
        holder.tell(job="hold", path=stage.path, seconds=self.seconds, times=self.times)
        writer.tell(
            job="append_beside",
            path=stage.path, size=SIZE, times=self.times, turns=True, ticks=self.ticks,
        )  # fmt: skip
        for _ in range(self.times):
            holder.hear()
            writer.hear()  # it has done the last one
            holder.tell(at=soon())
            holder.hear()  # it has the lock
            at = soon()
            holder.tell(at=at)
            writer.tell(at=at)
        released, done = holder.hear()["released"], writer.hear()
        waits = sorted(
            (end - free) / 1e6
            for begun, free, end in zip(done["begun"], released, done["done"], strict=True)
            if begun < free
        )
        if not waits:
            raise Failed("it never came to a wait")
        return Sample(
            {
                "wakeup": waits[len(waits) // 2],
                "longest": waits[-1],
                "stall": 1e3 * done["stall"],
            },
            stage.check(done["writers"]),
            complaint=complaint_of(done["writers"]),
        )


class StallBehindLock(WakeUp):
    """The same, with something else on the event loop."""

    name = "stall-lock"
    title = "longest stall of the loop while another process has the lock"
    text = (
        "The same, for 200 ms. Something else runs on the event loop that sleeps for a "
        "millisecond, again and again, and counts by how much it is late."
    )
    columns = (STALL,)
    questions = (Question(title, STALL, more_is_better=False, goals=(NOISE,)),)
    ticks = True
    seconds = 0.2

    def __init__(self, effort: Effort) -> None:
        super().__init__(effort)
        self.times = max(effort.times // 5, 2)

    def enters(self, contender: type[Contender]) -> bool:
        return contender.can("hold") and not contender.blocks


class StallInWrite(Workload):
    """A message of a megabyte is appended, with something else on the event loop."""

    name = "stall-write"
    title = "longest stall of the loop while 1 MB is written"
    text = "The same while messages of 1 MB are appended, and nobody has the lock."
    columns = (STALL,)
    questions = (Question(title, STALL, more_is_better=False, goals=(NOISE,)),)

    def __init__(self, effort: Effort) -> None:
        self.rounds = min(effort.rounds, 3)
        self.times = effort.times

    def enters(self, contender: type[Contender]) -> bool:
        return contender.can("append") and not contender.blocks and "os" in contender.durabilities

    def measure(self, stage: Stage) -> Sample:
        done = stage.team.ask(
            "append_beside",
            path=stage.path, size=1_000_000, times=self.times, turns=False, ticks=True,
        )  # fmt: skip
        return Sample(
            {"stall": 1e3 * done["stall"]},
            stage.check(done["writers"]),
            complaint=complaint_of(done["writers"]),
        )
