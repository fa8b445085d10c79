"""The event loop goes on while a session waits, writes, reads and frees."""

from __future__ import annotations

from pathlib import Path

import pytest

from aio.heartbeat import MEASURED, Pulse

ATTEMPTS = 3
"""A machine may stand still for reasons of its own; not three times in a row just here."""


async def steady(name: str, folder: Path, size: int) -> None:
    seen: list[Pulse] = []
    for attempt in range(ATTEMPTS):
        place = folder / f"{attempt}"
        place.mkdir()
        seen.append(await MEASURED[name](place, size))
        if not seen[-1].blocked:
            print(name, seen[-1])
            return
    pytest.fail(f"{name}: the loop {'; '.join(map(str, seen))}")


@pytest.mark.parametrize(
    "name",
    [
        # The old messages are freed as in a clear, and the new file is short as well.
        pytest.param(name, marks=[pytest.mark.deep] if name == "reverting" else [])
        for name in MEASURED
    ],
)
async def test_the_event_loop_is_not_blocked(tmp_path: Path, name: str) -> None:
    """It stands still for a small part of the time that the thing takes, apart from noise."""
    await steady(name, tmp_path, 10_000_000)


@pytest.mark.deep
@pytest.mark.parametrize("name", MEASURED)
async def test_the_event_loop_is_not_blocked_by_large_sessions(tmp_path: Path, name: str) -> None:
    """The same with a hundred megabytes."""
    await steady(name, tmp_path, 100_000_000)
