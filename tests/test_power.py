"""Whatever a power cut leaves on the disk, the session keeps what its durability promises.

The trace, the states and their examination are in `power/`; docs/power.md says what they mean.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import Tally
from cosession._platform import sync_folder
from crash.audit import audit
from crash.server import Campaigns
from power.disk import (
    Create,
    Event,
    File,
    Image,
    Link,
    Rename,
    Sync,
    SyncFolder,
    Told,
    Truncate,
    Write,
    loose,
    states,
)
from power.mutants import MUTANTS
from power.stories import STORIES

HERE = Path(__file__).parent

cuts_the_power = pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="the recorder learns from /proc which file a descriptor is, and forks its campaigns",
)

QUICK = {
    ("append-one", "power"): 40,
    ("append-many", "power"): 40,
    ("append-many", "process"): 150,
    ("create", "power"): 80,
    ("revert", "power"): 100,
    ("clear", "process"): 80,
}
"""The stories of the default run, and how many states they have at least."""

QUICK_MUTANTS = (
    "data not synced before it is acknowledged",
    "announcement of several records not synced",
    "the session's folder never synced",
    "old file's new name not synced before the replace",
)


@pytest.fixture(scope="module")
def campaigns() -> Iterator[Campaigns]:
    campaigns = Campaigns("power.campaign")
    yield campaigns
    campaigns.close()


def run(campaigns: Campaigns, root: Path, story: str, durability: str, *options: str) -> Any:
    return campaigns.run(root, f"--story={story}", f"--durability={durability}", *options)


# ---- the sessions -------------------------------------------------------------------------------


@cuts_the_power
@pytest.mark.parametrize(("story", "durability"), QUICK)
def test_a_power_cut_at_any_call_leaves_what_is_promised(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, story: str, durability: str
) -> None:
    """Every prefix of the calls, with one unsynced call missing, torn or zero: still a session."""
    report = run(campaigns, tmp_path, story, durability)
    tally(report["states"])
    assert report["findings"] == []
    assert report["finished"]
    assert report["states"] >= QUICK[story, durability], "there are fewer states than there were"


@cuts_the_power
@pytest.mark.deep
@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("story", STORIES)
def test_two_unsynced_calls_and_a_second_cut_while_healing(
    campaigns: Campaigns, tally: Tally, tmp_path: Path, story: str, durability: str
) -> None:
    """Two calls deviate at a time, many at random, and the healing is cut as well; half a minute
    for each story.
    """
    options = ("--deep", "--again", "--subsets=8", "--seconds=30")
    report = run(campaigns, tmp_path, story, durability, *options)
    tally(report["states"])
    assert report["findings"] == []
    assert report["states"] >= 20


@cuts_the_power
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK_MUTANTS else pytest.mark.deep)
        for name in MUTANTS
    ],
)
def test_a_missing_sync_is_found_out(campaigns: Campaigns, tmp_path: Path, name: str) -> None:
    """With one sync or check left out or moved, some state breaks a promise."""
    mutant = MUTANTS[name]
    options = (f"--mutant={name}", "--most=1", *mutant.options)
    report = run(campaigns, tmp_path, mutant.operation, mutant.kind, *options)
    assert report["findings"], f"{report['states']} states, and nobody noticed: {name}"


# ---- a real file system that forgets ------------------------------------------------------------


class Forgetful:
    """A mounted file system, and workers on it that are killed with the power."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-m", "power.forgetful", str(folder)],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said = self._line()

    def _line(self) -> str:
        assert self.server.stdout is not None
        too_long = threading.Timer(30, self.server.kill)
        too_long.start()
        try:
            return self.server.stdout.readline().strip()
        finally:
            too_long.cancel()

    def work(self, journal: Path, seed: float, lasting: float, *mutants: str) -> None:
        """Have a worker on it, for so many seconds."""
        path = str(self.folder / "context.jsonl")
        worker = [sys.executable, "-m", "power.worker", path, str(journal), str(seed), *mutants]
        child = subprocess.Popen(worker, stdout=subprocess.PIPE, cwd=HERE)
        assert child.stdout is not None
        try:
            assert child.stdout.readline().strip() == b"ready"
            time.sleep(lasting)
        finally:
            child.kill()
            child.communicate(timeout=20)

    def cut(self, how: str) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(f"{how}\n")
        self.server.stdin.flush()
        assert self._line() == "cut"

    def clear(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()
        sync_folder(str(self.folder))

    def close(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.server.communicate(timeout=10)
        self.server.kill()
        self.server.wait(timeout=20)


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forgetful]:
    folder = tmp_path / "mounted"
    folder.mkdir()
    system = Forgetful(folder)
    # The power comes back with another boot.
    monkeypatch.setattr("cosession._platform.boot_id", lambda: b"another boot, ok")
    try:
        if system.said != "ready":
            pytest.skip(f"a file system of our own {system.said or 'does not start'}")
        yield system
    finally:
        system.close()


def cut_at_random(system: Forgetful, journal: Path, how: str, cuts: int, *mutants: str) -> int:
    """Cut the power under workers, and audit the session after each; how many were busy."""
    choices = random.Random(f"{how}/{cuts}")
    acknowledged = 0
    for number in range(cuts):
        system.work(journal, choices.random(), choices.uniform(0, 0.2), *mutants)
        system.cut(how)
        acknowledged += audit(system.folder / "context.jsonl", journal, f"cut {number}")
        journal.unlink()
        system.clear()
    return acknowledged


@cuts_the_power
@pytest.mark.parametrize("how", ["everything", "names"])
def test_a_file_system_that_forgets_what_is_not_synced(
    forgetful: Forgetful, tally: Tally, tmp_path: Path, how: str
) -> None:
    """Real processes on it lose nothing acknowledged, whether unsynced names stay or go."""
    assert cut_at_random(forgetful, tmp_path / "journal", how, 2) >= 2
    tally(2)


@cuts_the_power
@pytest.mark.deep
@pytest.mark.parametrize("how", ["everything", "names"])
def test_a_file_system_that_forgets_many_times(
    forgetful: Forgetful, tally: Tally, tmp_path: Path, how: str
) -> None:
    """The same, forty times."""
    assert cut_at_random(forgetful, tmp_path / "journal", how, 40) >= 40
    tally(40)


@cuts_the_power
@pytest.mark.deep
@pytest.mark.parametrize(
    "name",
    [
        "data not synced before it is acknowledged",
        "the session's folder never synced",
    ],
)
def test_a_file_system_that_forgets_finds_a_missing_sync_out(
    forgetful: Forgetful, tmp_path: Path, name: str
) -> None:
    """A worker without one of the syncs has something acknowledged that is gone."""
    with pytest.raises((AssertionError, FileNotFoundError)):
        cut_at_random(forgetful, tmp_path / "journal", "everything", 20, name)


@cuts_the_power
def test_a_killed_file_system_leaves_no_mount_behind(forgetful: Forgetful) -> None:
    """Another process takes it away, so that whoever cleans up the folder can."""
    assert os.path.ismount(forgetful.folder)
    forgetful.server.kill()
    deadline = time.monotonic() + 30
    while (
        str(forgetful.folder) in Path("/proc/self/mounts").read_text()
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    assert not os.path.ismount(forgetful.folder)
    assert list(forgetful.folder.iterdir()) == []


# ---- the model ----------------------------------------------------------------------------------

LIVE, NEW = 1, 2
START = Image({"live": LIVE}, {LIVE: File(b"old\n")}, {LIVE: LIVE, NEW: NEW})


def contents(trace: list[Event], name: str) -> set[bytes | None]:
    """What a file may hold behind the last call of a trace."""
    found = states(START, [*trace, Told(9, 9)], subsets=0)
    return {state.image.content(name) for state in found if state.told.acknowledged == 9}


def test_an_unsynced_write_may_be_missing_torn_or_zero() -> None:
    """Old, whole, cut short, zeros at either end, its size only."""
    written = contents([Write(LIVE, "live", 4, b"new\n", 0)], "live")
    assert {b"old\n", b"old\nnew\n", b"old\nn", b"old\n\0\0\0\0", b"old\n\0ew\n"} <= written
    assert all(content and content.startswith(b"old\n") for content in written)


def test_a_synced_write_is_there() -> None:
    """Once the file is synced there is one state; the folder's sync says nothing about it."""
    write = Write(LIVE, "live", 4, b"new\n", 0)
    assert contents([write, Sync(LIVE, "live")], "live") == {b"old\nnew\n"}
    assert b"old\n" in contents([write, SyncFolder("")], "live")
    assert b"old\n" in contents([Sync(LIVE, "live"), write], "live")


def test_a_name_is_pinned_by_its_folder_only() -> None:
    """A created file's sync keeps its bytes, not its name; another folder's sync keeps neither."""
    create, write = Create(NEW, "new"), Write(NEW, "new", 0, b"x", 0)
    synced = Sync(NEW, "new")
    assert contents([create, write, synced], "new") == {None, b"x"}
    assert contents([create, write, synced, SyncFolder("")], "new") == {b"x"}
    assert None in contents([create, write, synced, SyncFolder("elsewhere")], "new")


def test_a_rename_may_come_before_the_bytes_and_before_other_names() -> None:
    """So an unsynced new file may be empty under the old one's name, and the old one nowhere."""
    trace: list[Event] = [
        Create(NEW, "new"),
        Write(NEW, "new", 0, b"x", 0),
        Link(LIVE, "kept"),
        Rename(NEW, "new", "live"),
    ]
    found = [state.image for state in states(START, trace, subsets=0)]
    assert any(image.content("live") == b"" for image in found)
    assert any(image.content("live") == b"x" and "kept" not in image.names for image in found)
    assert any(image.names == {"live": LIVE, "new": NEW, "kept": LIVE} for image in found)


def test_a_cut_that_is_not_synced_may_be_undone() -> None:
    """A truncated file may be as long as it was, until it is synced."""
    cut = Truncate(LIVE, "live", 1, 0)
    assert contents([cut], "live") == {b"old\n", b"o"}
    assert contents([cut, Sync(LIVE, "live")], "live") == {b"o"}


def test_only_loose_calls_deviate() -> None:
    """What a sync has pinned is the same in every state, also in the random ones."""
    trace: list[Event] = [
        Write(LIVE, "live", 4, b"a\n", 0),
        Sync(LIVE, "live"),
        Write(LIVE, "live", 6, b"b", 0),
    ]
    assert loose(trace) == [2]
    seen = [s for s in states(START, trace, deep=True, subsets=9) if "after 3 of 3" in s.why]
    assert all((s.image.content("live") or b"").startswith(b"old\na\n") for s in seen)
    assert b"old\na\n\xa5" in {s.image.content("live") for s in seen}
