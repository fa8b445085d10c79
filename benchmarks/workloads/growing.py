"""What an append costs when there is much in the session already."""

from __future__ import annotations

from contenders.base import Contender
from histogram import Histogram
from messages import SIZE

from .base import Column, Effort, Sample, Stage, Workload, filled

FILLING = 4000
"""Bytes of a message that is there already; those appended are like everywhere."""

COST = Column("cost", "p50", "ms", 3)


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
        size = min(self.size, FILLING)
        stage.team.ask("fill", path=stage.path, count=self.size // size, size=size)
        done = stage.team.ask("grow", path=stage.path, durability="os", size=SIZE, times=self.times)
        histogram = Histogram(done["histogram"])
        clean = stage.check([filled(self.size // size, size), *done["writers"]])
        return Sample(
            {"cost": histogram.quantile(0.5), "p99": histogram.quantile(0.99)}, clean, histogram
        )


def growing(effort: Effort) -> list[Growing]:
    """From small to large."""
    return [Growing(size) for size in effort.grown]
