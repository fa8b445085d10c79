"""Run the state machine."""

from __future__ import annotations

import logging

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

import mutants

from .machine import SessionMachine


def compare(examples: int, steps: int, *, number: int | None, shrink: bool = True) -> None:
    """So many examples of so many steps; the same ones every time without a seed.

    Raises:
        AssertionError: The library and the list differ; the steps are in the notes.
    """
    logging.getLogger("cosession").addHandler(logging.NullHandler())
    machine = SessionMachine if number is None else seed(number)(SessionMachine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=number is None,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def with_mutant(name: str) -> list[str]:
    """What is found with a broken variant of the library."""
    mutants.apply(name)
    try:
        compare(400, 50, number=None, shrink=False)
    except Exception as error:
        return [f"{type(error).__name__}: {error}".splitlines()[0]]
    return []
