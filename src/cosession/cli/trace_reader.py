"""A trace read: from its lines to waits and holds on one axis of time. Pure.

1. Every event counts by itself, so lines may be missing, torn, or not ours at all: they are
   counted, and the rest is used.
2. Times of all processes are put on one axis, microseconds since the epoch. Processes of one boot
   of one machine share a clock, and are compared by that; their time of day is that of the first
   of them. Others are compared by their own times of day.
3. What began and has no end was cut short, or still goes on. A hold that somebody waited for is
   taken to have lasted until the lock came to the next one; if nobody did, until the last sign of
   life of its process. If there is no next one, until the end of the trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..values import replace
from .spans import Index, Kind, Lock, Span, Terminal, Trace

_START = b'{"event":'
_TIMES = ("asked", "took", "until")


def read_trace(lines: Iterable[bytes]) -> Trace:
    """Read a trace's lines, in their order in the file."""
    reader = _Reader()
    for line in lines:
        reader.feed(line)
    return reader.finish()


@dataclass
class _Process:
    terminal: Terminal
    offset: int
    """From its clock to microseconds since the epoch."""
    last: int = 0
    """When it was last heard of."""


@dataclass(frozen=True)
class _Found:
    """A commit that was cut short, as the next one found it."""

    pid: int
    since: int
    operation: str
    session: str
    until: int


class _Reader:
    def __init__(self) -> None:
        self._processes: dict[str, _Process] = {}
        self._offsets: dict[tuple[str, str], int] = {}
        self._begun: dict[tuple[str, int], Span] = {}
        self._found: dict[tuple[str, int, int], _Found] = {}
        self._spans: list[Span] = []
        self._rest: list[Any] = []
        self._events = self._torn = self._foreign = 0

    def feed(self, line: bytes) -> None:
        if not line.strip():
            return
        event = _parsed(line)
        if event is None:
            self._torn += 1
            # A line that was cut off has the next one, whole, on its heels.
            at = line.rfind(_START, 1)
            event = _parsed(line[at:]) if at > 0 else None
            if event is None:
                return
        # Who they are is wanted first, wherever in the file they say so.
        if self._introduced(event):
            self._events += 1
        else:
            self._rest.append(event)

    def _introduced(self, event: Any) -> bool:
        match event:
            case {"event": "process", "by": str(by), "pid": int(pid), "at": at, "clock": clock}:
                if not (_is_time(at) and _is_time(clock)):
                    return False
                if by not in self._processes:
                    self._introduce(by, pid, event)
                return True
        return False

    def _take(self, event: Any) -> bool:
        match event:
            case {"event": str(name), "by": str(by), "session": str(session)}:
                times = [event[key] for key in _TIMES if key in event]
                return all(map(_is_time, times)) and self._take_span(name, by, session, event)
        return False

    def _take_span(self, name: str, by: str, session: str, event: dict[str, Any]) -> bool:
        process = self._process(by)

        def span(lock: Lock, kind: Kind, since: str, **more: Any) -> Span:
            start = event[since] + process.offset
            stop = event.get("until", event[since]) + process.offset
            return Span(process.terminal, session, lock, kind, start, max(start, stop), **more)

        match name, event:
            case "commit", {"took": took, "until": _, "operations": list(done), "bytes": int(size)}:
                operations = tuple(map(str, done))
                waited = event.get("asked", 0)
                if waited:
                    wait = span("commit", "wait", "asked", operations=operations)
                    self._spans.append(replace(wait, stop=took + process.offset))
                hold = span("commit", "hold", "took", operations=operations, size=size)
                self._spans.append(hold)
                self._note_found(session, event.get("found"), hold.start if waited else 0)
            case "gave-up", {"asked": _, "until": _}:
                operations = (str(event.get("operation", "")),)
                wait = span("commit", "wait", "asked", operations=operations, ending="gave up")
                self._spans.append(wait)
            case "wait-began", {"asked": _, "id": int(number)}:
                self._begun[by, number] = span("turn", "wait", "asked", ending="open")
            case "wait-ended", {"asked": _, "until": _, "id": int(number)}:
                self._begun.pop((by, number), None)
                ending = {"came": "ended", "gave up": "gave up"}.get(
                    str(event.get("outcome")), "failed"
                )
                self._spans.append(span("turn", "wait", "asked", ending=ending))
            case "turn-began", {"took": _, "id": int(number), "label": str(label)}:
                self._begun[by, number] = span("turn", "hold", "took", label=label, ending="open")
            case "turn-ended", {"took": _, "until": _, "id": int(number), "label": str(label)}:
                self._begun.pop((by, number), None)
                self._spans.append(span("turn", "hold", "took", label=label))
            case _:
                return False
        last = max(event[key] for key in _TIMES if key in event)
        process.last = max(process.last, last + process.offset)
        return True

    def _introduce(self, by: str, pid: int, event: dict[str, Any]) -> None:
        def text(key: str) -> str:
            return str(event.get(key) or "")

        name = f"{text('label') or text('command') or 'process'} {pid}"
        terminal = Terminal(by, pid, name, text("terminal"), text("user"), text("host"))
        offset = event["clock"] - event["at"]
        offset = self._same_clock(text("host"), text("boot"), offset)
        self._processes[by] = _Process(terminal, offset, event["at"] + offset)

    def _same_clock(self, host: str, boot: str, offset: int) -> int:
        """The offset of the first process that had the same clock."""
        if boot.strip("0"):
            return self._offsets.setdefault((host, boot), offset)
        for (other, _), known in self._offsets.items():  # a system that doesn't count its boots
            if other == host and abs(known - offset) < 1_000_000:
                return known
        return self._offsets.setdefault((host, str(offset)), offset)

    def _process(self, by: str) -> _Process:
        """A process; one whose introduction is lost has its clock in common with the first one."""
        if by not in self._processes:
            pid = by.partition("-")[0]
            terminal = Terminal(by, int(pid) if pid.isdecimal() else 0, f"process {pid}")
            offset = next(iter(self._offsets.values()), 0)
            self._processes[by] = _Process(terminal, offset)
        return self._processes[by]

    def _note_found(self, session: str, found: object, until: int) -> None:
        match found:
            case {"pid": int(pid), "since": int(since), "operation": str(operation)} if _is_time(
                since
            ):
                # If nobody waited, it is not known how long it held the lock.
                left = _Found(pid, since, operation, session, max(since, until))
                self._found.setdefault((session, pid, since), left)

    # ---- what has no end ------------------------------------------------------------------

    def finish(self) -> Trace:
        for event in self._rest:
            if self._take(event):
                self._events += 1
            else:
                self._foreign += 1
        self._spans += [self._cut_short(found) for found in self._found.values()]
        self._spans += self._ended(list(self._begun.items()))
        spans = sorted(_clipped(self._spans), key=lambda span: (span.start, span.stop))
        terminals = tuple(process.terminal for process in self._processes.values())
        return Trace(terminals, tuple(spans), self._events, self._torn, self._foreign)

    def _cut_short(self, found: _Found) -> Span:
        process = self._owner(found)
        return Span(
            process.terminal,
            found.session,
            "commit",
            "hold",
            found.since,
            found.until,
            operations=(found.operation,),
            ending="cut short",
        )

    def _owner(self, found: _Found) -> _Process:
        """The process of that number that was last heard of before."""
        own = [p for p in self._processes.values() if p.terminal.pid == found.pid]
        if not own:
            return self._process(f"{found.pid}-")
        return max(own, key=lambda p: (p.last <= found.since + 1_000_000, p.last))

    def _ended(self, begun: list[tuple[tuple[str, int], Span]]) -> Iterator[Span]:
        known = Index([*self._spans, *(span for _, span in begun)])
        end = max((span.stop for span in known.spans), default=0)
        for (by, _), span in begun:
            last = max(self._process(by).last, span.start)
            if span.kind == "wait":
                alive = last > span.start
                yield replace(span, stop=last if alive else end)
                continue
            after = known.next_hold(span)
            if after is None:
                yield replace(span, stop=max(end, span.start))
            elif known.waited(after):
                yield replace(span, stop=after.start, ending="cut short")
            else:
                yield replace(span, stop=min(last, after.start), ending="cut short")


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 62


def _parsed(line: bytes) -> object | None:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value


def _clipped(spans: Sequence[Span]) -> Iterator[Span]:
    """A wait for the turn is over when the terminal has it, not when it has noted that."""
    known = Index(spans)
    for span in spans:
        came = span.lock == "turn" and span.kind == "wait" and span.ending == "ended"
        own = [hold for hold in known.holds_during(span) if hold.terminal == span.terminal]
        yield replace(span, stop=own[-1].start) if came and own else span
