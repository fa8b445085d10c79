"""Broken variants for the promises that tests of processes, of places and of Windows keep.

    python -m proof.mutants [NAME …]    runs the test that must fail with each, and says if it does

1. A variant puts something else in the place of a whole function: what is inside may be rewritten.
2. It is planted by name, through the environment, in every Python process that a test starts: the
   folder `planted` is in their path, and has a `sitecustomize`.
3. Those of Windows are run by a Windows Python, if there is one.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
PATIENCE = 300
"""Seconds for one test, on a machine that is busy with other things."""

_NAME = "COSESSION_PROOF_MUTANT"


@dataclass(frozen=True, slots=True)
class Mutant:
    where: str
    """`module:name`, or `module:Class.name`."""
    instead: Callable[[Any], object]
    """Makes what comes in its place, from what is there."""
    test: str
    """Which must fail with it, below the folder of the repository."""
    windows: bool = False


# ---- locks --------------------------------------------------------------------------------------


def _let_go_in_child(real: Any) -> object:
    def after_fork_in_child(lock: Any) -> None:
        lock.close()  # which unlocks, if it is held

    return after_fork_in_child


def _removed_when_released(real: Any) -> object:
    def release(lock: Any) -> None:
        held = lock.held
        real(lock)
        if held:
            os.unlink(lock.path)

    return release


def _announcement_is_a_lock(real: Any) -> object:
    def is_ours(lock: Any) -> bool:
        ours: bool = real(lock)
        if ours and getattr(lock, "_left_over", lambda: None)() is not None:
            lock.release()
            return False
        return ours

    return is_ours


# ---- waits --------------------------------------------------------------------------------------


def _nobody(real: Any) -> object:
    return lambda *_: None


def _polling(real: Any) -> object:
    def acquire(lock: Any, *, wanted: Callable[[], bool]) -> bool:
        while wanted():
            if lock.try_acquire():
                return True
            time.sleep(1)
        return False

    return acquire


def _for_ever(real: Any) -> object:
    return lambda queue, timeout: None


def _not_daemons(real: Any) -> object:
    class Thread(real):  # type: ignore[misc]
        def start(self) -> None:
            if self.name.startswith("cosession"):
                self.daemon = False
            super().start()

    return Thread


# ---- turns, conflicts, followers ----------------------------------------------------------------


def _goes_on(real: Any) -> object:
    return lambda store, header, request: header


def _told_twice(real: Any) -> object:
    def take(follower: Any) -> list[Any]:
        return [change for change in real(follower) for _ in range(2)]

    return take


def _looks_once(real: Any) -> object:
    def take(follower: Any) -> list[Any]:
        traces = follower._traces
        found: list[Any] = real(follower)
        follower._traces = traces
        return found

    return take


# ---- old programs, private files ----------------------------------------------------------------


def _good_lines_only(real: Any) -> object:
    from cosession import _platform
    from cosession.codec import Broken, classify

    def copy_range(source: int, target: int, start: int, stop: int) -> None:
        for line in _platform.pread(source, stop - start, start).splitlines(keepends=True):
            if not isinstance(classify(line.rstrip(b"\n")), Broken):
                os.write(target, line)

    return copy_range


def _for_everybody(real: Any) -> object:
    def open_file(path: str, flags: int, *, permanent: bool = False) -> int:
        from cosession._platform import OPEN_FLAGS

        return os.open(path, flags | OPEN_FLAGS, 0o666)

    return open_file


# ---- Windows ------------------------------------------------------------------------------------


def _once(real: Any) -> object:
    return lambda action, path, *, patience=0.0: action()


def _true(real: Any) -> object:
    return True


def _never(real: Any) -> object:
    return lambda error: False


def _removable(real: Any) -> object:
    return lambda path, flags, *, permanent: real(path, flags, permanent=False)


_PROCESSES, _FORK, _PLACES = (
    f"tests/test_{name}.py::test_" for name in ("processes", "fork", "bad_places")
)
_CONFLICTS = "tests/test_conflicts.py::test_"
_TURNS = "tests/test_turns.py::test_"
_CONFORMS = "tests/test_conformance.py::test_session_conforms"
_LOCKING = "tests_windows/test_windows_locking.py::test_"
_REPLACING = "tests_windows/test_windows_replacing.py::test_"

MUTANTS = {
    # ---- locks ------------------------------------------------------------------------------
    "a forked child unlocks": Mutant(
        "cosession.kernel_lock:KernelLock.after_fork_in_child",
        _let_go_in_child,
        f"{_FORK}a_childs_doings_dont_release_the_parents_lock",
    ),
    "unlinked when it is released": Mutant(
        "cosession.kernel_lock:KernelLock.release",
        _removed_when_released,
        f"{_PROCESSES}portalocker_and_we_shut_each_other_out",
    ),
    "a dead one's announcement counts as a lock": Mutant(
        "cosession.kernel_lock:KernelLock._is_ours",
        _announcement_is_a_lock,
        f"{_PROCESSES}the_lock_of_a_killed_process_is_free_at_once",
    ),
    # ---- waits ------------------------------------------------------------------------------
    "a timeout names nobody": Mutant(
        "cosession.lock:LockFile.holder",
        _nobody,
        f"{_PROCESSES}a_timeout_names_the_process_that_holds_the_lock",
    ),
    "a timeout is not looked at": Mutant(
        "cosession.commits:CommitQueue.patience",
        _for_ever,
        f"{_CONFORMS}[a-wait-for-one-who-stands-still-ends]",
    ),
    "who waits looks once a second": Mutant(
        "cosession.kernel_lock:KernelLock.acquire",
        _polling,
        f"{_CONFORMS}[a-waiter-is-woken-at-once]",
    ),
    "exit waits for who waits": Mutant(
        "threading:Thread", _not_daemons, "tests/test_exit.py::test_exit_with_a_wait_pending"
    ),
    # ---- turns, conflicts, followers --------------------------------------------------------
    "nobody heeds a turn": Mutant(
        "cosession.store:Store._require_turn",
        _goes_on,
        f"{_TURNS}what_is_written_in_a_turn_is_contiguous",
    ),
    "nobody is told of a conflict": Mutant(
        "cosession.batch:Batch._require_expected",
        _nobody,
        f"{_CONFLICTS}a_conflict_has_the_records_that_came_in",
    ),
    "changes are told twice": Mutant(
        "cosession.follow:Follower.take",
        _told_twice,
        "tests/test_follow.py::test_every_kind_of_change_is_told_once",
    ),
    "a turn that was found is not looked into": Mutant(
        "cosession.follow:Follower.take",
        _looks_once,
        "tests/test_follow.py::test_what_a_turn_brought_before_it_was_seen_is_told_while_it_is_on",
    ),
    # ---- old programs, private files --------------------------------------------------------
    "damaged lines are dropped by a replace": Mutant(
        "cosession.files:copy_range",
        _good_lines_only,
        "tests/test_bad_input.py::test_a_foreign_line_is_used_or_reported_and_always_kept",
    ),
    "new files are everybody's": Mutant(
        "cosession._platform:open_file", _for_everybody, f"{_PLACES}new_files_are_private"
    ),
    "modes are not kept": Mutant(
        "cosession._platform:copy_owner", _nobody, f"{_PLACES}modes_are_kept_through_a_replace"
    ),
    # ---- Windows ----------------------------------------------------------------------------
    "a replace is tried once": Mutant(
        "cosession._platform._windows:_patiently",
        _once,
        f"{_REPLACING}a_revert_waits_for_a_reader_to_close",
        windows=True,
    ),
    "files stay open": Mutant(
        "cosession._platform:KEEPS_FILES_OPEN",
        _true,
        f"{_LOCKING}no_file_stays_open_between_operations",
        windows=True,
    ),
    "a file that is in use is just an error": Mutant(
        "cosession._platform:blocked",
        _never,
        f"{_REPLACING}a_file_that_stays_open_can_t_be_reverted_and_nothing_changes",
        windows=True,
    ),
    "the lock file can be taken away": Mutant(
        "cosession._platform._windows:_open",
        _removable,
        f"{_LOCKING}the_lock_file_can_t_be_removed_while_it_is_held",
        windows=True,
    ),
}


def plant() -> None:
    """Put the mutant that the environment names in its place, in this process."""
    name = os.environ.get(_NAME)
    if name:
        mutant = MUTANTS[name]
        module, _, path = mutant.where.partition(":")
        owner: Any = importlib.import_module(module)
        *parents, last = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, last, mutant.instead(getattr(owner, last)))


# ---- running them -------------------------------------------------------------------------------


def windows_python() -> str | None:
    """A Windows Python: the one that `.ci/run windows` makes, or what the environment names."""
    made = TESTS.parent / ".wine-python" / "python"
    named = os.environ.get("COSESSION_WINDOWS_PYTHON", str(made))
    return named if os.access(named, os.X_OK) else None


def command(*, windows: bool) -> list[str]:
    """What runs pytest in one process, here or on Windows."""
    if not windows:
        return [sys.executable, "-m", "pytest", "-n0", "-q"]
    python = windows_python()
    if python is None:
        raise LookupError("no Windows Python here: set COSESSION_WINDOWS_PYTHON")
    return [python, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q"]


def environment(*, windows: bool, name: str = "") -> dict[str, str]:
    """In which it finds the library, the tests, and what is planted."""
    found = ["tests/proof/planted", "tests"] if name else ["tests"]
    if windows:  # relative: the drives have other names there
        return os.environ | {"PYTHONPATH": ";".join(["src", *found]), _NAME: name}
    path = os.pathsep.join(str(TESTS.parent / folder) for folder in found)
    return os.environ | {"PYTHONPATH": path, _NAME: name}


def caught(name: str) -> bool:
    """Whether the test that must fail with this mutant does.

    Raises:
        LookupError: What it takes to run it is not here.
        RuntimeError: The test doesn't run.
    """
    mutant = MUTANTS[name]
    done = subprocess.run(
        [*command(windows=mutant.windows), "-x", "-m", "", mutant.test],
        cwd=TESTS.parent,
        env=environment(windows=mutant.windows, name=name),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode not in (0, 1) or not re.search(r"[0-9]+ (passed|failed)", done.stdout):
        raise RuntimeError(f"{mutant.test} can't be run here: {done.stdout}{done.stderr}")
    return done.returncode == 1


def main(names: list[str]) -> None:
    missed = 0
    for name in names or MUTANTS:
        try:
            verdict = "caught" if caught(name) else "MISSED"
        except LookupError as reason:
            verdict = f"not run: {reason}"
        missed += verdict == "MISSED"
        print(f"{name}: {verdict}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
