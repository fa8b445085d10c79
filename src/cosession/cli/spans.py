"""Waits for the locks of sessions, and holds; who held while another one waited. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from ..values import replace

Lock = Literal["turn", "commit"]
Kind = Literal["wait", "hold"]
Ending = Literal["ended", "gave up", "failed", "cut short", "open"]

LOCKS: tuple[Lock, ...] = ("turn", "commit")


@dataclass(frozen=True, slots=True)
class Terminal:
    """A process in the trace."""

    by: str
    """How the trace names it."""
    pid: int
    name: str
    """For people: its label or program, and its process id."""
    tty: str = ""
    user: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A wait for a lock of a session, or a hold of one. Times are microseconds since the epoch."""

    terminal: Terminal
    session: str
    lock: Lock
    kind: Kind
    start: int
    stop: int
    label: str = ""
    """What a turn was for."""
    operations: tuple[str, ...] = ()
    """What went out in a commit, in one pass."""
    size: int = 0
    """Bytes that a commit wrote."""
    ending: Ending = "ended"

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that has been read."""

    terminals: tuple[Terminal, ...]
    """In the order in which they appear."""
    spans: tuple[Span, ...]
    """By their beginning."""
    events: int = 0
    torn: int = 0
    """Lines that are no JSON, or not all of it."""
    foreign: int = 0
    """Lines that are JSON, and no event of a trace."""

    @property
    def start(self) -> int:
        return min((span.start for span in self.spans), default=0)

    @property
    def stop(self) -> int:
        return max((span.stop for span in self.spans), default=0)

    @property
    def sessions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(span.session for span in self.spans))

    def of(self, session: str) -> Trace:
        """Only what is about this session."""
        spans = tuple(span for span in self.spans if span.session == session)
        there = {span.terminal for span in spans}
        return replace(self, spans=spans, terminals=tuple(t for t in self.terminals if t in there))


# ---- who held while others waited -------------------------------------------------------------


@dataclass
class _Row:
    """The holds of one lock, by their beginning."""

    holds: list[Span]
    starts: list[int] = field(default_factory=list)
    reach: list[int] = field(default_factory=list)
    """The latest end of those up to each."""

    def __post_init__(self) -> None:
        self.holds.sort(key=lambda hold: (hold.start, hold.stop))
        self.starts = [hold.start for hold in self.holds]
        self.reach = list(accumulate((hold.stop for hold in self.holds), max))


class Index:
    """Finds holds by their time."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        holds: defaultdict[tuple[str, Lock], list[Span]] = defaultdict(list)
        self._waits: defaultdict[tuple[Terminal, str, Lock], list[Span]] = defaultdict(list)
        for span in spans:
            if span.kind == "hold":
                holds[span.session, span.lock].append(span)
            else:
                self._waits[span.terminal, span.session, span.lock].append(span)
        self._rows = {key: _Row(some) for key, some in holds.items()}

    def holds_during(self, span: Span) -> list[Span]:
        """The holds of the same lock that overlap a span, by their beginning."""
        row = self._rows.get((span.session, span.lock))
        if row is None:
            return []
        at = bisect_left(row.starts, span.stop)
        found = []
        while at > 0 and row.reach[at - 1] > span.start:
            at -= 1
            if row.holds[at].stop > span.start:
                found.append(row.holds[at])
        return found[::-1]

    def next_hold(self, span: Span) -> Span | None:
        """The hold of the same lock that begins behind this one."""
        row = self._rows[span.session, span.lock]
        at = bisect_right(row.starts, span.start)
        return row.holds[at] if at < len(row.holds) else None

    def waited(self, hold: Span) -> bool:
        """Whether the terminal had to wait for this hold."""
        waits = self._waits[hold.terminal, hold.session, hold.lock]
        return any(wait.start < hold.start <= wait.stop for wait in waits)

    def holders(self, wait: Span) -> dict[Terminal, int]:
        """Who had the lock during a wait, and for how many microseconds of it; the longest first.

        What is missing from the length of the wait, nobody in the trace had it.
        """
        shares: defaultdict[Terminal, int] = defaultdict(int)
        for hold in self.holds_during(wait):
            shares[hold.terminal] += min(hold.stop, wait.stop) - max(hold.start, wait.start)
        return dict(sorted(shares.items(), key=lambda share: -share[1]))
