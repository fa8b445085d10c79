"""Appends, by one process or several, with one coroutine or several."""

from __future__ import annotations

from functools import reduce
from operator import add
from statistics import mean

from contenders.base import Contender, Durability
from histogram import Histogram
from messages import SIZE

from .base import Column, Effort, Goal, Of, Question, Sample, Stage, Workload, complaint_of

RATE = Column("rate", "messages", "per second", 0)
VOLUME = Column("volume", "volume", "MB/s")
P50 = Column("p50", "p50", "ms", 3)
P99 = Column("p99", "p99", "ms", 3)
FAIRNESS = Column("fairness", "slowest / mean", digits=2)


class Appending(Workload):
    """Processes append to one file for some time, each message awaited before the next."""

    like_for_like = True
    axis = "processes"

    def __init__(
        self,
        effort: Effort,
        name: str,
        title: str,
        durability: Durability,
        *,
        processes: int = 1,
        coroutines: int = 1,
        size: int = SIZE,
        goals: tuple[Goal, ...] | None = None,
        rounds: int | None = None,
        seconds: float | None = None,
        in_series: bool = False,
    ) -> None:
        self.name, self.title = name, title
        self.durability = durability
        self.processes, self.coroutines, self.size = processes, coroutines, size
        self.shared = processes > 1
        if in_series:
            self.series, self.at = "processes", processes
        self.rounds = rounds or effort.rounds
        self.seconds = seconds or effort.seconds
        main = RATE if size == SIZE else VOLUME
        self.columns = (main, P50, P99, *([FAIRNESS] if self.shared else []))
        if goals is not None:
            self.questions = (Question(title, main, more_is_better=True, goals=goals),)

    @property
    def text(self) -> str:  # type: ignore[override]
        who = "one process" if self.processes == 1 else f"{self.processes} processes"
        many = f", {self.coroutines} coroutines" if self.coroutines > 1 else ""
        kept = {"os": "in the system's hands", "disk": "synced to the disk"}[self.durability]
        size = f"{self.size} bytes" if self.size < 10_000 else f"{self.size / 1e6:.0f} MB"
        return f"{who}{many}; messages of {size}, {kept} when the call returns."

    def enters(self, contender: type[Contender]) -> bool:
        """Whoever blocks the event loop has no use for a second coroutine."""
        able = contender.can("append") and contender.can("stored")
        alone = self.coroutines > 1 and contender.blocks and not contender.bare
        return able and self.durability in contender.durabilities and not alone

    def prepare(self, stage: Stage) -> None:
        stage.team.ask("create", path=stage.kept("first"), durability=self.durability)
        stage.team.assemble(
            self.processes, "create", path=stage.kept("first"), durability=self.durability
        )

    def measure(self, stage: Stage) -> Sample:
        stage.team.ask("create", path=stage.path, durability=self.durability)
        request = {
            "path": stage.path,
            "durability": self.durability,
            "size": self.size,
            "seconds": self.seconds,
        }
        first = [self.coroutines * number for number in range(self.processes)]
        done = stage.team.together(
            "append",
            [request | {"writers": list(range(n, n + self.coroutines))} for n in first],
        )
        writers = [log for report in done for log in report["writers"]]
        counts = [report["count"] for report in done]
        histogram = reduce(add, (Histogram(report["histogram"]) for report in done))
        rate = sum(report["count"] / report["elapsed"] for report in done)
        return Sample(
            {
                "rate": rate,
                "volume": rate * self.size / 1e6,
                "p50": histogram.quantile(0.5),
                "p99": histogram.quantile(0.99),
                "fairness": min(counts) / mean(counts) if any(counts) else 0.0,
            },
            stage.check(writers),
            histogram,
            complaint_of(writers),
        )


def appending(effort: Effort) -> list[Appending]:
    """All workloads of this kind."""
    peer: Of = "best peer"
    many = effort.processes
    of_many = f"{many} processes"

    return [
        Appending(
            effort, "sequential-os", "one process, one append after the other, os", "os",
            goals=(Goal("rate", "≥", 6, peer),),
        ),
        Appending(
            effort, "sequential-disk", "one process, one append after the other, disk", "disk",
            goals=(Goal("rate", "≥", 1.2, peer),),
        ),
        Appending(
            effort, "coroutines-os", "50 coroutines, os", "os", coroutines=50,
            goals=(Goal("rate", "≥", 6, peer),),
        ),
        Appending(
            effort, "coroutines-disk", "50 coroutines, disk", "disk", coroutines=50,
            goals=(Goal("rate", "≥", 15, peer),),
        ),
        Appending(
            effort, "processes-os", f"{of_many}, os", "os", processes=many,
            goals=(
                Goal("rate", "≥", 3, peer), Goal("p99", "≤", 5), Goal("fairness", "≥", 0.5),
            ),
            seconds=2 * effort.seconds, in_series=True,
        ),
        Appending(
            effort, "processes-disk", f"{of_many}, disk", "disk", processes=many,
            goals=(Goal("rate", "≥", 1.5, peer), Goal("p99", "≤", 40)),
            seconds=2 * effort.seconds,
        ),
        Appending(
            effort, "large", "4 processes, messages of 1 MB, os", "os", processes=4,
            size=1_000_000, goals=(Goal("volume", "≥", 150),), seconds=2 * effort.seconds,
            rounds=min(effort.rounds, 3),
        ),
    ]  # fmt: skip


class Scaling(Appending):
    """For the plot alone."""

    def enters(self, contender: type[Contender]) -> bool:
        return super().enters(contender) and bool(contender.colour)


def scaling(effort: Effort) -> list[Appending]:
    """Fewer processes than above."""
    return [
        Scaling(
            effort, f"scaling-{count}", f"{count} processes, os" if count > 1 else "1 process, os",
            "os", processes=count, rounds=min(effort.rounds, 2), in_series=True,
        )
        for count in effort.fewer
    ]  # fmt: skip
