"""What a probe found. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    """How a probe went."""

    OK = "ok"
    NOTE = "note"
    """It works, in a way worth knowing of."""
    OFF = "off"
    """A promise does not hold here."""
    UNKNOWN = "unknown"
    """It could not be tried."""


class Remedy(Enum):
    """What helps against something that is off."""

    FOLDER = "another folder"
    LOCK_DIR = "--lock-dir or another folder"
    ROOM = "free some space"
    HEAL = "cosession heal"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    probe: str
    state: State
    text: str
    """What was found, in words."""
    reason: str = ""
    """The same in a few words for the verdict; empty if the verdict need not mention it."""
    remedy: Remedy | None = None
    """Of what is off."""
    figures: Mapping[str, object] = field(default_factory=dict)
    """What was measured, for `--json`. Times are in seconds."""


def ok(probe: str, text: str, **figures: object) -> Finding:
    return Finding(probe, State.OK, text, figures=figures)


def note(probe: str, text: str, *, reason: str = "", **figures: object) -> Finding:
    return Finding(probe, State.NOTE, text, reason, figures=figures)


def off(probe: str, text: str, reason: str, remedy: Remedy, **figures: object) -> Finding:
    return Finding(probe, State.OFF, text, reason, remedy, figures)


def unknown(probe: str, text: str) -> Finding:
    return Finding(probe, State.UNKNOWN, text)


def duration(seconds: float) -> str:
    """`12 µs`, `3.4 ms`, `1.2 s`."""
    seconds = max(0.0, seconds)
    for limit, unit, name in ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms")):
        if seconds < 0.9995 * limit:  # which three digits would round up to the next unit
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def size(count: int) -> str:
    """`512 bytes`, `3.4 MiB`."""
    if count < 1024:
        return f"{count} bytes"
    amount = float(count)
    for name in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1024 or name == "TiB":
            break
    return f"{amount:.3g} {name}" if amount < 1000 else f"{amount:.0f} {name}"
