"""What people see: a live table on a terminal, a line now and then elsewhere, and the verdict."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .checker import Findings
from .ledger import REPLACES
from .script import Script
from .stage import Stage

_COLOURS = {"writing": "green", "starting": "yellow", "killed": "red"}


class Display(Protocol):
    """Shows a stage while it plays."""

    def show(self) -> None: ...
    def close(self) -> None: ...


def choose(console: Console, stage: Stage, script: Script) -> Display:
    """The table on a terminal, lines elsewhere."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, stage, script)
    return PlainDisplay(console, stage)


class LiveDisplay:
    """A table that is drawn anew a few times a second."""

    def __init__(self, console: Console, stage: Stage, script: Script) -> None:
        self._stage = stage
        self._script = script
        self._pace = _Pace(0.12)
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self) -> None:
        if self._pace.due():
            self._live.update(self._picture(), refresh=True)

    def close(self) -> None:
        self._live.update(self._picture(), refresh=True)
        self._live.stop()

    def _picture(self) -> Group:
        with self._stage.guard:
            return Group(self._table(), _bar(self._stage), *_session_lines(self._stage))

    def _table(self) -> Table:
        table = Table(expand=False)
        table.add_column("terminal")
        table.add_column("state", min_width=8)
        table.add_column("conversation", min_width=22, max_width=30, no_wrap=True)
        for heading in ("messages", "restarts", "append p50", "max"):
            table.add_column(heading, justify="right", no_wrap=True)
        for seat in self._stage.seats:
            conversation = self._script.conversations[seat.conversation]
            length = len(conversation.messages)
            at = f"{min(seat.message, length)}/{length} {conversation.id}"
            table.add_row(
                f"{seat.number} {_ROLES[seat.role]}",
                Text(seat.state, style=_COLOURS.get(seat.state, "")),
                Text(at),
                str(seat.messages),
                Text(str(seat.start - 1), style="red" if seat.state == "killed" else ""),
                _time(statistics.median(seat.recent) if seat.recent else 0),
                _time(seat.waits[-1] if seat.waits else 0),
            )
        return table


_ROLES = {"write": "writes", "revert": "reverts", "compact": "compacts"}


class PlainDisplay:
    """One line every two seconds."""

    def __init__(self, console: Console, stage: Stage) -> None:
        self._console = console
        self._stage = stage
        self._pace = _Pace(2.0)

    def show(self) -> None:
        if self._pace.due():
            with self._stage.guard:
                print_line(self._console, self._line())

    def _line(self) -> str:
        elapsed = self._stage.elapsed
        if not elapsed:
            return "the terminals are starting"
        if self._stage.figures.seconds:
            return "the terminals are finishing"
        return f"{elapsed:4.0f} s  " + "; ".join(_session_lines(self._stage))

    def close(self) -> None:
        pass


class _Pace:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = time.monotonic() + min(seconds, 0.5)

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def _bar(stage: Stage) -> Text:
    width = 40
    done = min(width, int(width * stage.elapsed / max(stage.plan.seconds, 0.001)))
    return Text.assemble(
        ("-" * done, "green"),
        ("-" * (width - done), "dim"),
        f" {min(stage.elapsed, 999):.0f} of {stage.plan.seconds:.0f} s",
    )


def _session_lines(stage: Stage) -> list[str]:
    figures, messages = stage.figures, sum(seat.messages for seat in stage.seats)
    rate = figures.operations / max(stage.elapsed, 0.001)
    kills = (
        f"{figures.kills} of {stage.plan.kills} kills, {figures.kills_within} within an operation"
    )
    return [
        f"{messages} messages in {figures.operations} operations acknowledged ({rate:.0f}/s)",
        f"{_size_of(stage)} live, {figures.rewrites} rotated files",
        f"{kills}, {figures.undone} unfinished writes undone",
    ]


def _size_of(stage: Stage) -> str:
    try:
        return _bytes(os.stat(stage.plan.path).st_size)
    except OSError:
        return "?"


# ---- the verdict ----------------------------------------------------------------------------


def verdict(console: Console, stage: Stage, findings: Findings, problems: Sequence[str]) -> None:
    """Print the figures and what is off, if anything is."""
    for name, value in _figures(stage, findings).items():
        print_line(console, f"  {name:<22}{value}")
    if not problems:
        print_line(
            console,
            "CLEAN: all that was acknowledged is there, whole, once, and in one order for all.",
            "bold green",
        )
        return
    print_line(console, f"OFF: {len(problems)} problem(s)", "bold red")
    for problem in problems:
        print_line(console, f"  - {problem}", "red")


def _figures(stage: Stage, findings: Findings) -> dict[str, str]:
    ledger, figures, seconds = stage.ledger, stage.figures, max(stage.elapsed, 0.001)
    done = ledger.acknowledged()
    messages = sum(operation.count for operation in done)
    restarts = sum(seat.start - 1 for seat in stage.seats)
    resumed = sum(seat.resumed for seat in stage.seats)
    refused = sum(seat.refused for seat in stage.seats)
    reverts, compactions = (len(ledger.acknowledged(kind)) for kind in REPLACES)
    waits = sorted(wait for seat in stage.seats for wait in seat.waits)
    p50, p99, longest = (_time(_quantile(waits, share)) for share in (0.5, 0.99, 1))
    completed, absent = findings.completed, findings.absent
    return {
        "acknowledged": f"{messages} messages in {len(done)} operations, "
        f"{len(done) / seconds:.0f} operations/s",
        "kills": f"{figures.kills}, {figures.kills_within} of them within an operation",
        "unacknowledged": f"{completed} appends whole in the file, {absent} not in it at all",
        "unfinished writes": f"{figures.undone} undone, {_bytes(findings.put_aside)} kept aside",
        "restarts": f"{restarts}, {resumed} of them went on where the session says",
        "rewrites": f"{reverts} reverts, {compactions} compactions, "
        f"{refused} refused because somebody was faster",
        "checkpoints": str(len(ledger.acknowledged("checkpoint"))),
        "files": f"{findings.files} ({findings.files - 1} rotated), {_bytes(findings.size)}, "
        f"{findings.lines} lines read",
        "append took": f"p50 {p50}, p99 {p99}, max {longest}",
        "took": f"{seconds:.1f} s, seed {stage.plan.seed}",
    }


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print one line, whatever the output's encoding is."""
    encoding = console.encoding or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    console.print(Text(printable, style=style), soft_wrap=True)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(size: int) -> str:
    for unit in ("bytes", "kB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} MB"
