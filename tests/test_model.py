"""The protocol's models: what is right holds in every interleaving, what is wrong is refuted."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Tally
from model.check import RUNS, Run, check, described, missing_tools

DOCS = Path(__file__).parent.parent / "docs" / "model.md"

needs_spin = pytest.mark.skipif(
    bool(missing_tools()), reason=f"models are run with spin and gcc; not found: {missing_tools()}"
)


def name(run: Run) -> str:
    return f"{run.model}: {run.what}"


def assert_as_expected(run: Run, tally: Tally) -> None:
    result = check(run)
    tally(result.states)
    assert result.is_as_expected(run), result.output


@needs_spin
@pytest.mark.parametrize("run", [run for run in RUNS if run.quick], ids=name)
def test_a_few_models_come_out_as_expected(tally: Tally, run: Run) -> None:
    """Of each kind of model one or two are run each time."""
    assert_as_expected(run, tally)


@needs_spin
@pytest.mark.deep
@pytest.mark.parametrize("run", [run for run in RUNS if not run.quick], ids=name)
def test_all_models_come_out_as_expected(tally: Tally, run: Run) -> None:
    """The right protocol holds, wrong variants are refuted, and limits are where they are said."""
    assert_as_expected(run, tally)


@needs_spin
def test_a_wrong_variant_fails_where_it_is_expected_to_hold() -> None:
    """A run that is refuted is not taken for one that holds, nor for one refuted otherwise."""
    found = next(run for run in RUNS if run.defines == "EXISTENCE")
    result = check(found)
    assert result.is_as_expected(found)
    assert not result.is_as_expected(Run(found.model, found.what, found.defines))
    assert not result.is_as_expected(Run(found.model, found.what, found.defines, "something else"))


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not beside the tests")
def test_the_documentation_has_the_table() -> None:
    """The page about the models lists these runs, in this order, and came out as expected."""
    rows = [row for row in DOCS.read_text(encoding="utf-8").splitlines() if row.count("|") == 7]
    assert len(rows) == len(RUNS) + 2
    for run, row in zip(RUNS, rows[2:], strict=True):
        assert row.startswith(described(run))
        assert "UNEXPECTED" not in row
