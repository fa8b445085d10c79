"""What an append costs when there is much in the session already."""

from __future__ import annotations

from typing import Any

from contenders.base import Contender
from histogram import Histogram
from messages import SIZE

from .base import Column, Effort, Sample, Stage, Workload, filled

FILLING = 4000
"""Bytes of a message that is there already; those appended are like everywhere."""

COST = Column("cost", "p50", "ms", 3)


def fill(stage: Stage, total: int) -> dict[str, Any]:
    """Make the round's file of about so many bytes; what the check has to know of it."""
    size = min(total, FILLING)
    stage.team.ask("fill", path=stage.path, count=total // size, size=size)
    return filled(total // size, size)


class Growing(Workload):
    """A process opens a session of some size, and appends messages."""

    text = "A process opens a session of that size and appends messages; the opening doesn't count."
    columns = (COST, Column("p99", "p99", "ms", 3))
    times = 300
    rounds = 1
    series = "grown"
    axis = "size of the session"

    def __init__(self, size: int) -> None:
        self.name = f"grown-{size}"
        self.title = f"an append to a session of {size / 1e6:g} MB, os"
        self.size = self.at = size

    def enters(self, contender: type[Contender]) -> bool:
        """Those who would take minutes, and tell nothing new, are let off."""
        able = contender.can("append") and contender.can("fill") and contender.can("stored")
        return able and bool(contender.colour) and self.size <= contender.largest

    def measure(self, stage: Stage) -> Sample:
        before = fill(stage, self.size)
        done = stage.team.ask("grow", path=stage.path, durability="os", size=SIZE, times=self.times)
        histogram = Histogram(done["histogram"])
        clean = stage.check([before, *done["writers"]])
        return Sample(
            {"cost": histogram.quantile(0.5), "p99": histogram.quantile(0.99)}, clean, histogram
        )


class Catching(Workload):
    """A handle of a large session catches up with what another one has appended."""

    text = (
        "Two handles of one process have opened a session of that size; the opening doesn't count. "
        "One appends a message, the other one catches up with it, again and again. Memory is by "
        "how many bytes the process has grown for each byte that was appended, for both handles "
        "together."
    )
    columns = (
        Column("cost", "catching up, p50", "ms", 3),
        Column("append", "append, p50", "ms", 3),
        Column("memory", "memory / new bytes"),
    )
    times = 3000
    rounds = 1

    def __init__(self, size: int) -> None:
        self.name = f"catch-{size}"
        self.title = f"catching up in a session of {size / 1e6:g} MB, os"
        self.size = size

    def enters(self, contender: type[Contender]) -> bool:
        able = contender.can("catch_up") and contender.can("fill")
        return able and self.size <= contender.largest

    def measure(self, stage: Stage) -> Sample:
        before = fill(stage, self.size)
        done = stage.team.ask_newcomer("catch_up", path=stage.path, size=SIZE, times=self.times)
        clean = stage.check([before, *done["writers"]])
        figures = {
            "cost": Histogram(done["catching"]).quantile(0.5),
            "append": Histogram(done["appending"]).quantile(0.5),
        }
        if done["grown"] is not None:
            figures["memory"] = done["grown"] / (self.times * SIZE)
        return Sample(figures, clean)


def growing(effort: Effort) -> list[Workload]:
    """From small to large, and the largest and the smallest once more for who catches up."""
    ends = (effort.grown[0], effort.grown[-1])
    return [*(Growing(size) for size in effort.grown), *(Catching(size) for size in ends)]
