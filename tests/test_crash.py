"""Killed at any instant, an operation has happened whole or not at all.

The children, the calls at which they die, and the examination afterwards are in `crash/`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Tally
from cosession import Session
from crash.audit import audit
from crash.mutants import MUTANTS
from crash.operations import OPERATIONS
from crash.server import Campaigns

HERE = Path(__file__).parent

steps_through_calls = pytest.mark.skipif(
    sys.platform == "win32",
    reason="stepping through system calls takes fork and SIGKILL; the real kills below run here",
)

SINGLE = [name for name, operation in OPERATIONS.items() if operation.single]
APPENDS = [name for name in SINGLE if not OPERATIONS[name].replaces]
REPLACES = [name for name in SINGLE if OPERATIONS[name].replaces]
THOROUGH = ("append-many", "prompt-on-filled", "revert")
"""One operation of each kind, for the campaigns that multiply."""
DIFFERENT = (
    "append-first", "append-many", "transaction",
    "prompt-on-filled", "revert", "restore", "compact",
)  # fmt: skip
"""Those that make the calls that there are in different ways; the others are like one of them."""


def by_default(operations: Iterable[str], *some: str) -> list[Any]:
    """All of these operations; those that aren't named here are for the deep run."""
    return [
        name if name in some else pytest.param(name, marks=pytest.mark.deep) for name in operations
    ]


@pytest.fixture(scope="module")
def campaigns() -> Iterator[Campaigns]:
    campaigns = Campaigns("crash.campaign")
    yield campaigns
    campaigns.close()


def run(
    campaigns: Campaigns,
    root: Path,
    operation: str,
    kind: str,
    *options: str,
    timeout: float = 300,
) -> Any:
    options = (f"--operation={operation}", f"--kind={kind}", *options)
    return campaigns.run(root, *options, timeout=timeout)


def expect_nothing(report: Any, tally: Tally, *, at_least: int) -> None:
    tally(report["cases"])
    assert report["findings"] == []
    assert report["cases"] >= at_least, "the campaign has become smaller than it was meant to be"


# ---- every instant ------------------------------------------------------------------------------


@steps_through_calls
@pytest.mark.parametrize(
    ("operation", "durability"),
    [
        pytest.param(name, durability, marks=[] if name in default else [pytest.mark.deep])
        for names, durability, default in (
            (SINGLE, "process", DIFFERENT),
            ((*THOROUGH, "append-known"), "power", ("append-many", "append-known", "revert")),
        )
        for name in names
    ],
)
def test_killed_at_any_call_an_operation_is_whole_or_absent(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str, durability: str
) -> None:
    """SIGKILL at every system call, and inside every write: the state before or the one after."""
    report = run(campaigns, tmp_path, operation, "kill", f"--durability={durability}")
    expect_nothing(report, tally, at_least=14)


@steps_through_calls
@pytest.mark.parametrize("operation", by_default(THOROUGH, "append-many"))
def test_foreign_lines_and_a_second_death_while_healing_change_nothing(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """After each kill another program appends, or the process that heals is killed at any call."""
    report = run(campaigns, tmp_path, operation, "kill_and_more")
    expect_nothing(report, tally, at_least=80)


@steps_through_calls
@pytest.mark.deep
def test_killed_while_taking_records_out_from_between_foreign_ones(
    campaigns: Campaigns, tally: Tally, tmp_path: Path
) -> None:
    """A torn append with foreign lines behind it is taken out, whenever the healer dies."""
    report = run(campaigns, tmp_path, "append-many", "splice")
    expect_nothing(report, tally, at_least=100)


@steps_through_calls
@pytest.mark.parametrize("operation", by_default(["prompt-on-filled", "clear"], "prompt-on-filled"))
def test_killed_where_there_are_no_hard_links(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """Where the old file has to be copied, a kill leaves no half copy and no temporary file."""
    report = run(campaigns, tmp_path, operation, "kill", "--no-links")
    expect_nothing(report, tally, at_least=20)


@steps_through_calls
@pytest.mark.parametrize("operation", ["append-many", "revert"])
def test_the_asynchronous_session_dies_as_cleanly(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """The same kills in a process that uses the asyncio session."""
    report = run(campaigns, tmp_path, operation, "kill", "--asynchronous")
    expect_nothing(report, tally, at_least=14)


# ---- every disturbance --------------------------------------------------------------------------


@steps_through_calls
@pytest.mark.parametrize(
    "operation", by_default(OPERATIONS, "append-first", "append-many", "transaction", "revert")
)
def test_a_foreign_line_at_any_call_is_kept_and_tears_nothing(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """Before every call another program appends a line, or half of one; both are in the file."""
    report = run(campaigns, tmp_path, operation, "disturb")
    expect_nothing(report, tally, at_least=16)


@steps_through_calls
@pytest.mark.parametrize("operation", by_default(SINGLE, *DIFFERENT))
def test_memory_equals_the_file_after_any_failing_call(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """Every call fails once, also with a part written: rolled back, and memory is the fold."""
    report = run(campaigns, tmp_path, operation, "fail")
    expect_nothing(report, tally, at_least=8)


@steps_through_calls
def test_what_the_disk_refuses_behind_the_unlocking_is_taken_back(
    campaigns: Campaigns, tally: Tally, tmp_path: Path
) -> None:
    """Every call of an append fails that waits for the disk when others have the lock already."""
    report = run(campaigns, tmp_path, "append-known", "fail", "--durability=power")
    expect_nothing(report, tally, at_least=8)


@steps_through_calls
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize(
    "operation", ["append-known", "append-many", "transaction", "revert", "compact"]
)
def test_calls_come_in_the_order_of_the_protocol(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str, durability: str
) -> None:
    """Announced, written, synced, published; filled, synced, kept, replaced: under the lock."""
    report = run(campaigns, tmp_path, operation, "order", f"--durability={durability}")
    expect_nothing(report, tally, at_least=1)


@steps_through_calls
@pytest.mark.parametrize("operation", ["append-one", "revert"])
def test_a_deleted_lock_file_is_noticed_before_anything_is_written(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """Whoever comes new takes the lock at the path: nothing is written under the old one."""
    report = run(campaigns, tmp_path, operation, "order", "--lock-deleted")
    expect_nothing(report, tally, at_least=1)


# ---- the examination itself ---------------------------------------------------------------------


@steps_through_calls
@pytest.mark.parametrize("name", MUTANTS)
def test_a_reordered_protocol_is_found_out(campaigns: Campaigns, tmp_path: Path, name: str) -> None:
    """With one step of the protocol left out or moved, the same campaigns report a violation."""
    mutant = MUTANTS[name]
    options = [f"--mutant={name}", "--most=1", *mutant.options]
    report = run(campaigns, tmp_path, mutant.operation, mutant.kind, *options)
    assert report["findings"], f"{report['cases']} cases, and nobody noticed: {name}"


# ---- real kills ---------------------------------------------------------------------------------


def kill_at_random(folder: Path, seed: int, kills: int) -> int:
    """Kill workers at random instants, and audit the session after each; how many were busy."""
    path, journal = folder / "context.jsonl", folder / "journal"
    choices = random.Random(seed)
    worker = [sys.executable, str(HERE / "crash" / "worker.py"), str(path), str(journal)]
    acknowledged = 0
    for number in range(kills):
        child = subprocess.Popen([*worker, str(choices.random())], stdout=subprocess.PIPE, cwd=HERE)
        assert child.stdout is not None
        try:
            assert child.stdout.readline().strip() == b"ready"
            time.sleep(choices.uniform(0, 0.03))
        finally:
            child.kill()
            child.communicate(timeout=20)
        acknowledged += audit(path, journal, f"kill {number}")
        for file in folder.iterdir():
            file.unlink()
    return acknowledged


def test_killed_without_warning_at_random_instants(tally: Tally, tmp_path: Path) -> None:
    """A parent kills workers in the middle of random operations; nothing they were told is lost."""
    assert kill_at_random(tmp_path, seed=1, kills=12) >= 12
    tally(12)


@pytest.mark.deep
def test_killed_without_warning_many_times(tally: Tally, tmp_path: Path) -> None:
    """Several hundred real kills."""
    assert kill_at_random(tmp_path, seed=2, kills=400) >= 400
    tally(400)


# ---- everything ---------------------------------------------------------------------------------


@pytest.mark.deep
@steps_through_calls
@pytest.mark.parametrize("options", [(), ("--durability=power",), ("--no-links",)])
@pytest.mark.parametrize("operation", SINGLE)
def test_every_kill_with_everything_after_it(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str, options: tuple[str, ...]
) -> None:
    """Before and after every call; each with foreign lines, each with each death of the healer."""
    report = run(campaigns, tmp_path, operation, "kill_and_more", "--deep", *options, timeout=1200)
    expect_nothing(report, tally, at_least=200)


@pytest.mark.deep
@steps_through_calls
@pytest.mark.parametrize("operation", APPENDS)
def test_every_kill_after_every_foreign_line(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, operation: str
) -> None:
    """A foreign line at every instant of an append, and a kill at every instant behind it."""
    report = run(campaigns, tmp_path, operation, "disturb_and_kill", timeout=1200)
    expect_nothing(report, tally, at_least=20)


async def test_a_session_outlives_the_crash_of_another(tmp_path: Path) -> None:
    """Whoever has the session open goes on after somebody else was killed in an append."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session:
        await session.append({"role": "user", "content": "before"})
        code = (
            "import os, signal, sys\n"
            "from cosession import BlockingSession, files\n"
            "session = BlockingSession(sys.argv[1]); session.open()\n"
            "def half(fd, data, *_):\n"
            "    os.write(fd, data[:9]); os.kill(os.getpid(), signal.SIGTERM)\n"
            "files.write_all = half\n"
            "session.append({'role': 'user', 'content': 'torn'})\n"
        )
        died = subprocess.run([sys.executable, "-c", code, path], timeout=60, check=False)
        assert died.returncode != 0
        assert path.read_bytes().endswith(b'{"role":"')
        await session.append({"role": "user", "content": "after"})
        assert [message.content for message in session.history] == ["before", "after"]
        assert [repair.length for repair in session.repairs] == [9]
        assert Path(session.repairs[0].kept_in).read_bytes() == b'{"role":"\n'
    assert os.path.exists(f"{path}.lock")
