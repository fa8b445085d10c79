"""The library does what a plain list does, whatever several handles do to one file."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from model.machine import SessionMachine

import os
PHASES = [Phase.generate] if os.environ.get("NOSHRINK") else list(Phase)

def run(examples: int, steps: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            phases=PHASES,
            report_multiple_bugs=False,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_several_handles_do_what_a_list_does() -> None:
    """File, memory, results and errors are those of the list after every step."""
    run(25, 30, derandomize=True)


@pytest.mark.deep
def test_several_handles_do_what_a_list_does_for_long() -> None:
    """The same with steps drawn at random, thousands of them."""
    run(1500, 50, derandomize=False)
    print(sorted(SessionMachine.counts.items()))
