"""The workloads, in the order in which they are done."""

from __future__ import annotations

from .appending import appending, scaling
from .base import Effort, Workload
from .growing import growing
from .opening import opening
from .reverting import Reverting
from .starting import Starting
from .waiting import StallBehindLock, StallInWrite, WakeUp


def workloads(effort: Effort) -> list[Workload]:
    """All of them. What fills the disk comes last, since the system goes on writing for a while."""
    return [
        *appending(effort),
        *scaling(effort),
        Starting(effort, "open"),
        Starting(effort, "all"),
        WakeUp(effort),
        StallBehindLock(effort),
        StallInWrite(effort),
        Reverting(effort),
        *opening(effort),
        *growing(effort),
    ]
