"""What processes are told is what they could have been told one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Tally
from linear.recorder import record
from linear.run import check


def test_results_of_processes_have_an_order(tally: Tally, tmp_path: Path) -> None:
    """Four processes at once: one order explains every result, and respects real time."""
    rounds = record(tmp_path / "context.jsonl", seed="1", players=4, rounds=12, calls=6)
    found = check(rounds)
    tally(found.calls)
    assert found.problems == []
    assert found.calls == 4 * 12 * 6
    assert found.overlapping > found.calls / 10, "they were not at it at once"


@pytest.mark.deep
@pytest.mark.parametrize("players", [2, 4, 8])
def test_results_of_processes_have_an_order_for_long(
    tally: Tally, tmp_path: Path, players: int, random_seed: int
) -> None:
    """Thousands of calls, by few processes and by many."""
    path, seed = tmp_path / "context.jsonl", f"{random_seed}/{players}"
    found = check(record(path, seed=seed, players=players, rounds=250, calls=24 // players))
    tally(found.calls)
    print(f"{found.calls} calls, {found.overlapping} overlap, {found.states} states searched")
    assert found.problems == []
