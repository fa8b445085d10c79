"""People and times in words."""

from __future__ import annotations

import time

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
