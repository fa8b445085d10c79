"""Every error at every system call of every operation, counted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("these errors are POSIX's; tests_windows has those of Windows", True)

from bad.everywhere import ACTS, ERRORS, Course, Tried
from cosession import healing

MANY = [*ERRORS]

FEWEST = {"close": 2}
"""How many faults there are at least, where it takes few calls."""

NEVER_FAIL = ("close",)


@pytest.fixture(autouse=True)
def nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No open line is going to grow."""
    monkeypatch.setattr(healing, "_GRACE", 0.002)


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """A lock that a failure leaves locked shows as a wait without an end: it ends here."""

    def over(*_: object) -> None:
        raise AssertionError("somebody waits for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(600 if request.node.get_closest_marker("deep") else 60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def some(number: int) -> list[tuple[int, bool]]:
    """One error, alone or one that stays; another one for the next call."""
    return [(MANY[number % len(MANY)], number % 2 == 1)]


def each(number: int) -> list[tuple[int, bool]]:
    return [(error, lasting) for error in MANY for lasting in (False, True)]


def fail_everywhere(
    root: Path, name: str, durability: str, faults: Callable[[int], list[tuple[int, bool]]]
) -> Tried:
    tried = Course(root, name, durability).run(faults)
    print(
        f"{name}, {durability}: {tried.faults} faults at {len(tried.calls)} different calls; "
        f"{tried.refused} refused, {tried.unsure} could not be undone"
    )
    return tried


@pytest.mark.parametrize("name", ACTS)
def test_whatever_fails_at_whatever_call_it_is_said_and_undone(tmp_path: Path, name: str) -> None:
    """Each call fails, alone or with all behind it: a typed error, or none; whole, or nothing."""
    tried = fail_everywhere(tmp_path, name, "process", some)
    assert tried.faults >= FEWEST.get(name, 6), "fewer calls than it was meant for"
    assert tried.refused or name in NEVER_FAIL


@pytest.mark.deep
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("name", ACTS)
def test_every_error_at_every_call(tmp_path: Path, name: str, durability: str) -> None:
    """The same with each of the errors, for both durabilities."""
    tried = fail_everywhere(tmp_path, name, durability, each)
    assert tried.faults >= 10 * FEWEST.get(name, 6)
