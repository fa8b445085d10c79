"""The conformance kit: our own sessions keep every clause, and every clause can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from conformance.table import CAUGHT, PAIRS, caught, row
from conftest import Tally
from cosession.testing import Clause, NotApplicable, Violation, check, clauses
from cosession.testing.candidate import OFFERS

SLOW = {
    "an-append-is-there-when-it-returns",
    "whoever-is-killed-blocks-nobody",
    "a-killed-replace-leaves-the-old-or-the-new",
}
"""These start many processes."""
CROWDS = {one.name for one in clauses() if one.play.__module__.endswith((".crowd", ".deaths"))}
"""`Session` goes through them each time; below the waiting, `BlockingSession` is the same code."""


def ours(*, but: set[str]) -> list[ParameterSet]:
    """All clauses; those in `but` are deep."""
    return [
        pytest.param(clause, marks=[pytest.mark.deep] if clause.name in but else [], id=str(clause))
        for clause in clauses()
    ]


QUICK = {
    ("an-open-handle-shows-what-others-wrote", "ThreadLock"),
    ("what-can-not-be-stored-leaves-nothing", "MemoryFirst"),
    ("processes-lose-nothing", "ReadModifyWrite"),
    ("readers-see-one-history-grow", "OneByOne"),
    ("a-killed-append-is-there-whole-or-not-at-all", "OneByOne"),
}
"""Broken stores that are tried each time."""


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m cosession.testing`."""
    return subprocess.run(
        [sys.executable, "-m", "cosession.testing", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        timeout=300,
        check=False,
    )


# ---- our own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clause", ours(but=SLOW))
def test_session_conforms(clause: Clause, tally: Tally, tmp_path: Path) -> None:
    """`Session` offers everything, and keeps each clause."""
    if not clause.is_possible_here:
        pytest.skip("it takes signals or limits of POSIX systems")
    tally(1, promise=clause.promise)
    check("cosession.testing.ours:asynchronous", clause, tmp_path)


@pytest.mark.parametrize("clause", ours(but=SLOW | CROWDS))
def test_blocking_session_conforms(clause: Clause, tally: Tally, tmp_path: Path) -> None:
    """`BlockingSession` offers everything but coroutines, and keeps each clause."""
    tally(1, promise=clause.promise)
    if "async" in clause.needs:
        with pytest.raises(NotApplicable, match="not offered: async"):
            check("cosession.testing.ours:blocking", clause, tmp_path)
        return
    if not clause.is_possible_here:
        pytest.skip("it takes signals or limits of POSIX systems")
    check("cosession.testing.ours:blocking", clause, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", ["asynchronous", "blocking"])
def test_our_sessions_conform_for_longer(name: str, seed: int, tmp_path: Path) -> None:
    """The same with other seeds and four times the effort."""
    for clause in clauses():
        try:
            check(f"cosession.testing.ours:{name}", clause, tmp_path / clause.name, seed=seed,
                  effort=4)  # fmt: skip
        except NotApplicable as reason:
            print(clause, reason)


# ---- every clause can fail ----------------------------------------------------------------------


def test_every_clause_has_a_store_that_breaks_it() -> None:
    """No clause is without a broken store, and no broken store is for a clause that is gone."""
    assert {*CAUGHT} == {clause.name for clause in clauses()}
    assert all(CAUGHT.values())


@pytest.mark.parametrize(
    ("clause", "name"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.deep], id="-".join(pair))
        for pair in PAIRS
    ],
)
def test_a_broken_store_is_caught(clause: str, name: str, tmp_path: Path) -> None:
    """The clause raises a violation that says what was seen."""
    try:
        assert caught(clause, name, tmp_path)
    except NotApplicable as reason:
        pytest.skip(str(reason))


# ---- the kit itself -----------------------------------------------------------------------------


def test_what_is_not_offered_is_skipped_with_a_reason(tmp_path: Path) -> None:
    """A clause about something that a store lacks is neither kept nor violated, and says so."""
    with pytest.raises(unittest.SkipTest, match="not offered: turn"):
        check("conformance.broken:Naive", "turns-are-not-mixed", tmp_path)


def test_every_offer_is_needed_by_a_clause() -> None:
    """What can be declared is looked at, and what clauses need can be declared."""
    needed = set().union(*(clause.needs for clause in clauses()))
    assert needed | {"settle"} == {*OFFERS}  # that one changes what a clause expects


def test_every_clause_says_what_it_expects() -> None:
    """Names, promises and sentences for the table; each name and sentence is there once."""
    for clause in clauses():
        assert clause.says.endswith(".")
        assert clause.promise
    assert len({clause.says for clause in clauses()}) == len({str(one) for one in clauses()})


def test_a_candidate_that_can_not_be_opened_is_no_violation(tmp_path: Path) -> None:
    """What is wrong with the candidate itself is told as it is, with its traceback."""
    with pytest.raises(RuntimeError, match="no such thing to offer: wishes"):
        check("test_conformance:wishes", "processes-lose-nothing", tmp_path / "1")
    with pytest.raises(RuntimeError, match="No module named 'nowhere'"):
        check("nowhere:candidate", "processes-lose-nothing", tmp_path / "2")


def wishes(location: Path) -> object:
    """A candidate that offers what there isn't."""
    from conformance.broken import Naive

    candidate = Naive(location)
    candidate.offers = ("wishes",)
    return candidate


def test_the_kit_needs_no_pytest() -> None:
    """Importing it loads neither pytest nor any dependency of the package."""
    program = (
        "import sys, cosession.testing\n"
        "print({name.partition('.')[0] for name in sys.modules} & "
        "{'pytest', 'pydantic', 'click', 'rich', 'filelock'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_the_command_prints_a_table_and_a_verdict(tmp_path: Path) -> None:
    """A row for each clause asked for, what was seen, and exit status 1 for a violation."""
    (tmp_path / "mine.py").write_text("from conformance.broken import MemoryFirst as store\n")
    chosen = ("what-can-not-be-stored-leaves-nothing", "a-replace-is-seen-whole",
              "appends-are-not-mixed")  # fmt: skip
    done = command("mine:store", *chosen, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "VIOLATED" in done.stdout
    assert "not offered  replace" in done.stdout
    assert done.stdout.endswith("1 of 3 clauses violated\n")


def test_the_command_speaks_json(tmp_path: Path) -> None:
    """One object a line, and status 0 if nothing is violated."""
    (tmp_path / "mine.py").write_text("from conformance.broken import Naive as store\n")
    done = command(
        "mine:store", "an-open-handle-shows-what-others-wrote", "a-follower-is-told", "--json",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["verdict"] for one in verdicts] == ["kept", "not offered"]


def test_the_command_tells_what_it_can_not_open(tmp_path: Path) -> None:
    """Status 2, and no traceback of the kit itself."""
    done = command("nowhere:store", folder=tmp_path)
    assert done.returncode == 2
    assert "No module named 'nowhere'" in done.stderr


def test_a_violation_says_what_hangs(tmp_path: Path) -> None:
    """A store that never comes back is a violation after `patience`, and its process is ended."""
    with pytest.raises(Violation, match=r"append: no end after 0\.2 s"):
        check(
            "test_conformance:hangs",
            "an-open-handle-shows-what-others-wrote",
            tmp_path,
            patience=0.2,
        )


def hangs(location: Path) -> object:
    """A candidate whose append never returns."""
    import threading

    from conformance.broken import Naive

    candidate = Naive(location)
    setattr(candidate, "append", lambda messages: threading.Event().wait())
    return candidate


# ---- the page about it --------------------------------------------------------------------------

FILE = Path(__file__).parent.parent / "docs" / "conformance.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
documented = pytest.mark.skipif(not PAGE, reason="docs/ is not beside the tests")


@documented
def test_the_page_has_the_table() -> None:
    """It lists these clauses and these broken stores, in this order."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 6]
    assert rows == [row(clause, CAUGHT[clause.name]) for clause in clauses()]


@documented
def test_the_page_names_everything_that_can_be_offered() -> None:
    """Each name that `offers` may have, but for the one that the kit adds, is a row."""
    named = re.findall(r"^\| `(\w+)` \| [^|]* \|$", PAGE, re.MULTILINE)
    assert [*named, "async"] == [*OFFERS]


@documented
@pytest.mark.deep
def test_the_store_of_the_page_conforms(tmp_path: Path) -> None:
    """The example runs as it stands, in the page's test."""
    store, test = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "chat.py").write_text(store, encoding="utf-8")
    (tmp_path / "test_chat.py").write_text(test, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*words, "-k", "stored or turns", "test_chat.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "not offered: turn" in done.stdout


@documented
@pytest.mark.deep
def test_the_store_of_the_page_conforms_in_everything(tmp_path: Path) -> None:
    """The page's command finds nothing wrong with the example."""
    assert "$ python -m cosession.testing chat:Chat\n" in PAGE
    store, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "chat.py").write_text(store, encoding="utf-8")
    done = command("chat:Chat", folder=tmp_path)
    assert done.returncode == 0, done.stdout
