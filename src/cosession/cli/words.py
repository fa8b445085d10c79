"""People and times in words."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from math import floor, log10

from ..records import Holder


def elapsed(since: float) -> str:
    """`8 s`, `3 min`, `2 h`, `5 days`: how long ago that was."""
    seconds = max(0, int(time.time() - since))
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // unit} {name}"
    return f"{seconds // 86400} days"


def clock(since: float) -> str:
    """`14:02:11`, with the date in front if that isn't today."""
    then = time.localtime(since)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def who(card: Holder) -> str:
    """`ada@host, process 17 on /dev/pts/3`."""
    name = "@".join(part for part in (card.user, card.host) if part)
    process = f"process {card.pid}" if card.pid else ""
    terminal = f" on {card.terminal}" if card.terminal else ""
    return ", ".join(part for part in (name, process + terminal) if part) or "somebody"


def duration(microseconds: int) -> str:
    """A length of time for people."""
    for unit, name in ((10**6, "s"), (1000, "ms")):
        if microseconds >= unit:
            value = microseconds / unit
            return f"{value:.0f} {name}" if value >= 100 else f"{value:.3g} {name}"
    return f"{microseconds} µs"


def of_day(time: int) -> datetime:
    """The local time at so many microseconds since the epoch."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
        return moment.astimezone()
    except (ValueError, OverflowError, OSError):
        # No year has it, or the system doesn't: Windows takes nothing before 1970, here or abroad.
        return datetime(1970, 1, 1, tzinfo=UTC)


def ticks(length: int) -> list[tuple[int, str]]:
    """Round times within so many microseconds, at most ten, with their labels."""
    step = 1
    if length > 0:
        rough = length / 9
        power = 10 ** floor(log10(max(rough, 1)))
        step = int(next(n * power for n in (1, 2, 5, 10) if n * power >= rough))
    unit, name = next((u, n) for u, n in ((10**6, "s"), (1000, "ms"), (1, "µs")) if step >= u // 10)
    decimals = 1 if step % unit else 0
    return [(time, f"{time / unit:.{decimals}f} {name}") for time in range(0, length + 1, step)]
