"""Cancelled at any await, an operation has an outcome, and leaves everything in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aio.cancelling import ACTS, cancel_everywhere
from aio.held import Other
from conftest import Tally
from cosession import turn_lock

SHORTLY = 0.004
"""Seconds for which another process has the lock: an operation is cancelled before and behind."""


@pytest.fixture(autouse=True)
def _no_courtesy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hands over waits less long for nobody."""
    monkeypatch.setattr(turn_lock, "_COURTESY", 0.01)


@pytest.fixture(scope="module")
def other() -> Iterator[Other]:
    """Another process."""
    process = Other()
    yield process
    process.end()


@pytest.mark.parametrize("name", ACTS)
async def test_cancelled_at_any_await_on_a_free_lock(
    tally: Tally, tmp_path: Path, name: str
) -> None:
    """It has happened or not; lock and turn are free, and the next call works."""
    tried = await cancel_everywhere(name, tmp_path, durability="power")
    tally(tried.cancellations)
    assert tried.cancellations >= 1


@pytest.mark.parametrize("name", ACTS)
async def test_cancelled_at_any_await_while_another_process_has_the_lock(
    tally: Tally, tmp_path: Path, other: Other, name: str
) -> None:
    """The same while it waits, and when the lock comes."""
    tried = await cancel_everywhere(name, tmp_path, held=partial(other.holding, seconds=SHORTLY))
    tally(tried.cancellations)
    assert tried.cancellations >= 1


@pytest.mark.deep
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.002, 0.005])
@pytest.mark.parametrize("name", ACTS)
async def test_cancelled_some_time_after_any_await(
    tally: Tally, tmp_path: Path, other: Other, name: str, delay: float, durability: Any
) -> None:
    """The same with the cancellation coming later, free and held, with and without syncs."""
    count = 0
    for seconds in (0.0, SHORTLY):
        folder = tmp_path / f"{seconds}"
        folder.mkdir()
        tried = await cancel_everywhere(
            name,
            folder,
            durability=durability,
            delay=delay,
            held=partial(other.holding, seconds=seconds),
        )
        count += tried.cancellations
    tally(count)
    print(f"{count} cancellations")
