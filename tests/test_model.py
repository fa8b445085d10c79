"""The protocol's models: what is right holds in every interleaving, what is wrong is refuted."""

from __future__ import annotations

import pytest

from model.check import RUNS, Run, check, missing_tools

pytestmark = pytest.mark.skipif(
    bool(missing_tools()), reason=f"models are run with spin and gcc; not found: {missing_tools()}"
)


def name(run: Run) -> str:
    return f"{run.model}: {run.what}"


def assert_as_expected(run: Run) -> None:
    result = check(run)
    assert result.is_as_expected(run), result.output


@pytest.mark.parametrize("run", [run for run in RUNS if run.quick], ids=name)
def test_a_few_models_come_out_as_expected(run: Run) -> None:
    """Of each kind of model one or two are run each time."""
    assert_as_expected(run)


@pytest.mark.deep
@pytest.mark.parametrize("run", [run for run in RUNS if not run.quick], ids=name)
def test_all_models_come_out_as_expected(run: Run) -> None:
    """The right protocol holds, wrong variants are refuted, and limits are where they are said."""
    assert_as_expected(run)


def test_a_wrong_variant_fails_where_it_is_expected_to_hold() -> None:
    """A run that is refuted is not taken for one that holds, nor for one refuted otherwise."""
    found = next(run for run in RUNS if run.defines == "EXISTENCE")
    result = check(found)
    assert result.is_as_expected(found)
    assert not result.is_as_expected(Run(found.model, found.what, found.defines))
    assert not result.is_as_expected(Run(found.model, found.what, found.defines, "something else"))
