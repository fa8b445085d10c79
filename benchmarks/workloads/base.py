"""What a workload is: something that every contender is asked to do, a few times, and its goals."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from contenders.base import Contender
from histogram import Histogram
from measure import Team
from messages import SIZE, Audit


@dataclass(frozen=True)
class Effort:
    """How much is done for a figure."""

    rounds: int = 5
    seconds: float = 0.3
    """How long contenders append."""
    processes: int = 8
    fewer: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes for the plot."""
    large_file: int = 100_000_000
    """Bytes of the session that is opened."""
    smaller_files: tuple[int, ...] = (1_000_000, 10_000_000)
    times: int = 15
    """How often it is waited for a lock in each round."""
    grown: tuple[int, ...] = tuple(10**exponent for exponent in range(3, 10))
    """Bytes of the sessions that are appended to."""


QUICK = Effort(
    rounds=2,
    seconds=0.05,
    processes=4,
    fewer=(),
    large_file=2_000_000,
    smaller_files=(),
    times=3,
    grown=(1_000, 1_000_000),
)


@dataclass(frozen=True)
class Sample:
    """What one contender did in one round."""

    figures: dict[str, float]
    audit: Audit | None = None
    histogram: Histogram = field(default_factory=Histogram)
    complaint: str = ""
    """What an append raised."""


Of = Literal["", "best peer", "limit"]


@dataclass(frozen=True)
class Goal:
    """What a figure has to be: so much, so many times another's, or so much more than another's."""

    figure: str
    relation: Literal["≥", "≤"]
    bound: float
    of: Of = ""
    plus: bool = False
    """Whether the bound is a difference, and no ratio."""

    def is_met(self, value: float) -> bool:
        """Whether a figure, a ratio or a difference is good enough."""
        return value >= self.bound if self.relation == "≥" else value <= self.bound


@dataclass(frozen=True)
class Column:
    """One figure of a workload."""

    figure: str
    title: str
    unit: str = ""
    digits: int = 1


@dataclass(frozen=True)
class Question:
    """A line of the summary: whose figure is best, and what cosession is to reach."""

    title: str
    column: Column
    more_is_better: bool
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Where a contender does a workload, and with which processes."""

    contender: type[Contender]
    team: Team
    home: Path
    """A folder of its own, that stays for all rounds."""
    fresh: Path | None = None
    """An empty folder for one round."""

    @property
    def path(self) -> str:
        """The contender's file of this round."""
        assert self.fresh is not None
        return str(self.fresh / self.contender.file)

    def kept(self, name: str) -> str:
        """A file or folder that stays."""
        (self.home / name).mkdir(exist_ok=True)
        return str(self.home / name / self.contender.file)

    @contextmanager
    def round(self) -> Iterator[Stage]:
        """The same with an empty folder, which is removed afterwards."""
        fresh = Path(tempfile.mkdtemp(dir=self.home))
        try:
            yield replace(self, fresh=fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def check(self, writers: Sequence[dict[str, Any]]) -> Audit | None:
        """Compare this round's file with what was acknowledged, if there is one."""
        if not self.contender.can("stored"):
            return None
        return Audit(**self.team.ask("check", path=self.path, writers=list(writers)))


class Workload:
    """Something that every contender is asked to do."""

    name: str
    title: str
    text: str
    """What it is, in a sentence or two."""
    columns: tuple[Column, ...]
    questions: tuple[Question, ...] = ()
    shared: bool = False
    """Whether several processes write to the file: who takes no lock has no say then."""
    like_for_like: bool = False
    """Whether a call that blocks its thread can't be compared with one that is awaited."""
    rounds: int
    series: str = ""
    """Which workloads it is compared with that differ in size."""
    at: float = 0
    """Its place among them."""
    axis: str = ""
    """What `at` is."""

    def enters(self, contender: type[Contender]) -> bool:
        """Whether the contender can do it."""
        raise NotImplementedError

    def prepare(self, stage: Stage) -> None:
        """Make what all rounds need."""

    def measure(self, stage: Stage) -> Sample:
        """Have it done once."""
        raise NotImplementedError


def filled(count: int, size: int = SIZE) -> dict[str, Any]:
    """What the check has to know of the messages that a file was filled with."""
    return {"writer": 0, "count": count, "refused": [], "size": size}


def complaint_of(writers: Sequence[dict[str, Any]]) -> str:
    """How many appends were refused, and the last reason."""
    refused = sum(len(log["refused"]) for log in writers)
    reasons = [log["complaint"] for log in writers if log["complaint"]]
    return f"{refused} refused ({reasons[-1]})" if refused else ""
