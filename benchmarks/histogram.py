"""How often something took how long. Buckets are two hundredths wide, so that files stay small."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

STEP = math.log(1.02)


class Histogram:
    """Durations in nanoseconds. Those of several processes can be added up."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self._counts = Counter(dict(counts))

    @classmethod
    def of(cls, durations: Iterable[int]) -> Histogram:
        rounded = Counter(round(math.log(max(duration, 1)) / STEP) for duration in durations)
        return cls(rounded.items())

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram((self._counts + other._counts).items())

    def __bool__(self) -> bool:
        return bool(self._counts)

    def quantile(self, share: float) -> float:
        """Milliseconds that this share of the durations took at most."""
        rank, below = share * self._counts.total(), 0
        for bucket, count in sorted(self._counts.items()):
            below += count
            if below >= rank:
                return math.exp(bucket * STEP) / 1e6
        return math.nan

    def to_json(self) -> list[tuple[int, int]]:
        return sorted(self._counts.items())
