"""The figures of who waited for whom, and how long. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from .spans import LOCKS, Index, Lock, Span, Terminal, Trace


@dataclass(frozen=True, slots=True)
class Times:
    """Lengths of waits or holds, in microseconds. What was cut short doesn't count."""

    count: int
    median: int
    p99: int
    longest: int

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Times:
        ordered = sorted(lengths)
        if not ordered:
            return cls(0, 0, 0, 0)

        def quantile(share: float) -> int:
            return ordered[ceil(share * len(ordered)) - 1]

        return cls(len(ordered), quantile(0.5), quantile(0.99), ordered[-1])


@dataclass(frozen=True, slots=True)
class Figures:
    """One lock, as one terminal met it, or all of them together."""

    waits: Times
    holds: Times
    gave_up: int
    """Waits that a timeout or a cancellation ended, among the waits."""
    cut_short: int
    """Waits and holds without an end."""
    held: int
    """Microseconds for which it was held, in all."""
    passes: int
    """Holds that carried out operations."""
    operations: int
    most: int
    """The most operations in one pass."""
    size: int
    """Bytes written."""
    longest_wait: Span | None
    holders: dict[Terminal, int]
    """Who had the lock during the longest wait, for how many microseconds of it."""


def figures(trace: Trace, lock: Lock, terminal: Terminal | None = None) -> Figures:
    """The contention figures of a lock, for one terminal or for all."""
    index = Index(trace.spans)
    return _figures(index, [span for span in trace.spans if span.lock == lock], terminal)


def table(trace: Trace) -> dict[Lock, dict[Terminal | None, Figures]]:
    """All figures: for each lock that occurs those of its terminals, and of all as `None`."""
    index = Index(trace.spans)
    found: dict[Lock, dict[Terminal | None, Figures]] = {}
    for lock in LOCKS:
        spans: defaultdict[Terminal, list[Span]] = defaultdict(list)
        for span in trace.spans:
            if span.lock == lock:
                spans[span.terminal].append(span)
        if spans:
            rows: dict[Terminal | None, Figures] = {
                terminal: _figures(index, spans[terminal], None)
                for terminal in trace.terminals
                if terminal in spans
            }
            rows[None] = _figures(index, [s for s in trace.spans if s.lock == lock], None)
            found[lock] = rows
    return found


def _figures(index: Index, spans: Sequence[Span], terminal: Terminal | None) -> Figures:
    mine = [span for span in spans if terminal in (None, span.terminal)]
    unfinished = [span for span in mine if span.ending in ("cut short", "open")]
    waits = [s for s in mine if s.kind == "wait" and s.ending not in ("cut short", "open")]
    holds = [s for s in mine if s.kind == "hold"]
    passes = [len(hold.operations) for hold in holds if hold.operations]
    longest = max(waits, key=lambda wait: wait.length, default=None)
    return Figures(
        waits=Times.of(wait.length for wait in waits),
        holds=Times.of(hold.length for hold in holds if hold.ending == "ended"),
        gave_up=sum(wait.ending == "gave up" for wait in waits),
        cut_short=len(unfinished),
        held=covered((hold.start, hold.stop) for hold in holds),
        passes=len(passes),
        operations=sum(passes),
        most=max(passes, default=0),
        size=sum(hold.size for hold in holds),
        longest_wait=longest,
        holders=index.holders(longest) if longest else {},
    )


def covered(intervals: Iterable[tuple[int, int]]) -> int:
    """How much of the time lies in any of the intervals."""
    total, reached = 0, None
    for start, stop in sorted(intervals):
        begin = start if reached is None else max(start, reached)
        total += max(0, stop - begin)
        reached = stop if reached is None else max(stop, reached)
    return total


def waited_for(trace: Trace, lock: Lock) -> dict[tuple[Terminal, Terminal], int]:
    """For how many microseconds, in all, one terminal waited while another one held the lock."""
    index = Index(trace.spans)
    sums: defaultdict[tuple[Terminal, Terminal], int] = defaultdict(int)
    for span in trace.spans:
        if span.lock == lock and span.kind == "wait":
            for holder, share in index.holders(span).items():
                sums[span.terminal, holder] += share
    return dict(sums)
