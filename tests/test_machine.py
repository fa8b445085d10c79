"""The library does what a plain list does, whatever several handles do to one file."""

from __future__ import annotations

import pytest

from machine.machine import SessionMachine
from machine.run import compare


def test_several_handles_do_what_a_list_does() -> None:
    """File, memory, results and errors are those of the list after every step."""
    compare(20, 30, number=None)


@pytest.mark.deep
def test_several_handles_do_what_a_list_does_for_long(random_seed: int) -> None:
    """The same with steps drawn at random, tens of thousands of them."""
    compare(1000, 50, number=random_seed)
    for what, times in sorted(SessionMachine.counts.items()):
        print(f"{times:7} {what}")
