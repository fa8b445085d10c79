"""The library does what a plain list does, whatever several handles do to one file."""

from __future__ import annotations

import pytest

from conftest import Tally
from machine.machine import SessionMachine
from machine.run import compare


def test_several_handles_do_what_a_list_does(tally: Tally) -> None:
    """File, memory, results and errors are those of the list after every step."""
    SessionMachine.counts.clear()
    compare(20, 30, number=None)
    tally(sum(SessionMachine.counts.values()))


@pytest.mark.deep
def test_several_handles_do_what_a_list_does_for_long(tally: Tally, random_seed: int) -> None:
    """The same with steps drawn at random, tens of thousands of them."""
    SessionMachine.counts.clear()
    compare(1000, 50, number=random_seed)
    tally(sum(SessionMachine.counts.values()))
    for what, times in sorted(SessionMachine.counts.items()):
        print(f"{times:7} {what}")
