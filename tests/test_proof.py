"""docs/testing.md says what was run, and each promise there was seen to be broken and caught."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import mutants as others
from bad import mutants as bad
from cosession.testing import clauses
from crash import mutants as crash
from crash.mutants import changed
from power import mutants as power
from proof import page, running
from proof.broken import FAMILIES
from proof.methods import METHODS
from proof.promises import PROMISES

ROOT = Path(__file__).parent.parent
FIGURES = page.load()

pytestmark = pytest.mark.skipif(
    not page.PAGE.exists(), reason="the documentation is not beside the tests"
)


def functions(path: Path) -> set[str]:
    """The names of the test functions in a file, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_promises_are_those_of_the_readme() -> None:
    """Page, README and conformance kit have one list of promises, in the same words."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## What is promised")[2].partition("Not promised")[0]
    rows = [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("|")]
    assert rows[2:] == [*PROMISES.values()]
    assert {clause.promise for clause in clauses()} <= {*PROMISES.values()}


@pytest.mark.parametrize("number", PROMISES)
def test_a_promise_is_tested_by_what_was_seen_to_fail(number: int) -> None:
    """Some method tries to break it, and caught a variant of the library that does."""
    methods = [name for name, method in METHODS.items() if number in method.promises]
    assert any(FIGURES["methods"][name]["default"]["tried"] for name in methods)
    assert any(
        FIGURES["broken"][family][name]["caught"]
        for family, name, variant in page.variants(promise=number)
        if family != "stores"
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_made_of_tests_that_are_there(name: str) -> None:
    """What the command runs exists, and passed."""
    for file, names in METHODS[name].tests.items():
        assert (ROOT / file).exists()
        assert {f"test_{one}" for one in names} <= (functions(ROOT / file) if names else {""})
    for run in FIGURES["methods"][name].values():
        assert run["tests"]
        assert run["failed"] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_broken_variant_was_caught(family: str) -> None:
    """Each was run since it was written, and names its method and the promises that it breaks."""
    variants = FAMILIES[family].variants
    assert {*FIGURES["broken"][family]} == {*variants}, "uv run python -m proof broken --write"
    assert all(verdict["caught"] for verdict in FIGURES["broken"][family].values())
    for name, variant in variants.items():
        assert variant.breaks, name
        assert {*variant.breaks} <= {*METHODS[variant.method].promises}, name


@pytest.mark.parametrize("variants", [crash.MUTANTS, power.MUTANTS, bad.MUTANTS, others.MUTANTS])
def test_broken_variants_fit_the_code(variants: dict[str, Any]) -> None:
    """What each of them replaces in a function is still there."""
    for name, variant in variants.items():
        changed(name, variant.where, variant.edits)  # LookupError: it has to follow the code


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_of_a_family_can_be_run(family: str) -> None:
    """It names a module, a script or a test that is there."""
    words = shlex.split(FAMILIES[family].command)
    assert words[:2] == ["uv", "run"]
    if words[2] == "pytest":
        [file] = [word for word in words if word.endswith(".py")]
        assert any(words[-1] in name for name in functions(ROOT / "tests" / file))
    elif words[3] == "-m":
        assert importlib.util.find_spec(words[4])
    else:
        assert (ROOT / "tests" / words[3]).exists()


def test_the_page_shows_the_figures() -> None:
    """What is between its markers is what the tool writes, and nobody else."""
    text = page.PAGE.read_text(encoding="utf-8")
    shown = text.partition(page.BEGIN)[2].partition(page.END)[0]
    assert shown == "\n" + page.rendered(FIGURES), "uv run python -m proof --show --write"


def test_what_tests_tally_is_added_up(tmp_path: Path) -> None:
    """A test counts what it says, or else once; skipped ones don't count, failed ones are named."""
    report = tmp_path / "report.xml"
    said = '<properties><property name="tried" value="{}"/>{}</properties>'
    about = '<property name="promise" value="One order"/>'
    report.write_text(
        "<testsuite>"
        f'<testcase classname="a" name="one">{said.format(40, "")}</testcase>'
        f'<testcase classname="a" name="two">{said.format(2, about)}</testcase>'
        '<testcase classname="a" name="three"/>'
        '<testcase classname="a" name="four"><skipped/></testcase>'
        '<testcase classname="a" name="five"><failure/></testcase>'
        "</testsuite>"
    )
    found = running._count(report)
    assert (found.tried, found.tests, found.skipped) == (40 + 2 + 1 + 1, 4, 1)
    assert found.by_promise == {"One order": 2}
    assert found.failed == ["a::five"]


def test_figures_outlive_only_what_they_are_about() -> None:
    """What there is no more is forgotten, and what is not run again is kept."""
    figures: page.Figures = {
        "methods": {"kills": {"default": {}}, "prayer": {"default": {}}},
        "broken": {"crash": {"not announced": {}, "gone": {}}, "gone": {}},
    }
    page.tidy(figures)
    assert figures == {
        "methods": {"kills": {"default": {}}},
        "broken": {"crash": {"not announced": {}}},
    }


def test_the_page_links_to_what_is_there() -> None:
    """Files that its prose names exist."""
    text = page.PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.DOCS / target).exists(), target
