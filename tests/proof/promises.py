"""What is promised, in the words of the README and of the conformance kit."""

from __future__ import annotations

PROMISES = {
    1: "All or nothing",
    2: "Nothing acknowledged is lost",
    3: "One order",
    4: "Memory equals file",
    5: "A stale writer is told",
    6: "Turns stay together",
    7: "Locks die with their process",
    8: "Waits end",
    9: "The event loop is not blocked",
    10: "Cancellation has an outcome",
    11: "Old programs are tolerated",
    12: "Failures are told",
    13: "The same on Windows",
    14: "Private",
}
