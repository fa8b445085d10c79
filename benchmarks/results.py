"""What was measured, as it is kept in a file, and what is read off it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from statistics import median
from typing import Any

from contenders.base import Contender
from histogram import Histogram
from messages import Audit
from workloads.base import Column, Sample, Workload


@dataclass
class Outcome:
    """One contender in one workload, round by round."""

    samples: list[Sample] = field(default_factory=list)
    error: str = ""
    """Why there are no more of them."""
    slowest: float = 0.0
    """Seconds that a round took at most, with all that belongs to it."""

    def median(self, figure: str) -> float | None:
        """The middle of the rounds; `None` if there is no such figure."""
        values = self.values(figure)
        return median(values) if values else None

    def values(self, figure: str) -> list[float]:
        return [sample.figures[figure] for sample in self.samples if figure in sample.figures]

    @property
    def audit(self) -> Audit:
        """What was wrong in all rounds together."""
        return reduce(add, (sample.audit for sample in self.samples if sample.audit), Audit())

    @property
    def checked(self) -> bool:
        return any(sample.audit is not None for sample in self.samples)

    @property
    def complaint(self) -> str:
        return next((sample.complaint for sample in self.samples if sample.complaint), "")

    @property
    def histogram(self) -> Histogram:
        return reduce(add, (sample.histogram for sample in self.samples), Histogram())

    def to_json(self) -> dict[str, Any]:
        return {
            "error": self.error,
            "samples": [
                {
                    "figures": sample.figures,
                    "audit": sample.audit and asdict(sample.audit),
                    "histogram": sample.histogram.to_json(),
                    "complaint": sample.complaint,
                }
                for sample in self.samples
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Outcome:
        samples = [
            Sample(
                sample["figures"],
                sample["audit"] and Audit(**sample["audit"]),
                Histogram(sample["histogram"]),
                sample["complaint"],
            )
            for sample in value["samples"]
        ]
        return cls(samples, value["error"])


Outcomes = dict[str, Outcome]
"""Of one workload, by the contender's name."""


def ratio(mine: Outcome, theirs: Outcome, figure: str) -> float | None:
    """How many times theirs mine is: the middle of what it was in each round."""
    pairs = zip(mine.values(figure), theirs.values(figure), strict=False)
    ratios = [value / other for value, other in pairs if other]
    return median(ratios) if ratios else None


@dataclass(frozen=True)
class Standing:
    """A workload's contenders, looked at for one figure, beside one that is ours."""

    own: str
    workload: Workload
    outcomes: Outcomes
    contenders: Mapping[str, type[Contender]]
    column: Column
    more_is_better: bool

    def limit(self) -> str | None:
        """The first of the bare limits that has the figure."""
        return next((name for name in self._with_figure() if self.contenders[name].bare), None)

    def best_peer(self) -> str | None:
        """The best of those that do it right, like cosession."""
        peers = [name for name in self._with_figure() if self.is_peer(name)]
        best = max if self.more_is_better else min
        return best(peers, key=self._figure, default=None)

    def is_peer(self, name: str) -> bool:
        """Whether it is somebody else's, of our kind, and without a fault.

        Where several processes write, only a lock makes that so, even if nothing went wrong.
        """
        contender, outcome = self.contenders[name], self.outcomes[name]
        if contender.bare or contender.ours or outcome.error or not outcome.audit.clean:
            return False
        if self.workload.like_for_like and contender.blocks != self.contenders[self.own].blocks:
            return False
        return contender.shares or not self.workload.shared

    def _with_figure(self) -> list[str]:
        return [
            name
            for name, outcome in self.outcomes.items()
            if outcome.median(self.column.figure) is not None
        ]

    def _figure(self, name: str) -> float:
        value = self.outcomes[name].median(self.column.figure)
        assert value is not None
        return value
