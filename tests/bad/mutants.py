"""Broken variants of the library, which the tests about errors and hostile places must catch.

    python -m bad.mutants [NAME …]    runs the tests that should, and prints a table

They are written as those of `crash.mutants`, and planted by name, through the environment, so that
they reach the processes that a test starts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from crash.mutants import Mutant, put_in_place

_NAME = "COSESSION_MUTANT"
PATIENCE = 300
_planted = list[str]()


@dataclass(frozen=True, slots=True)
class Caught:
    """A mutant, and the test that must fail with it."""

    part: str
    where: str
    edits: dict[str, str]
    test: str

    @property
    def mutant(self) -> Mutant:
        return Mutant(self.where, self.edits, "", "")


_FAULTS = "test_faults.py::test_whatever_fails_at_whatever_call_it_is_said_and_undone"
_STRACE = "test_strace.py::test_killed_or_refused_at_any_call_of_the_kernel"

_HOSTILE = "test_hostile.py"
_FUZZ = "test_fuzz.py"

MUTANTS = {
    # ---- errors -----------------------------------------------------------------------------
    "a failed unlock leaves the lock": Caught(
        "errors",
        "cosession.kernel_lock:KernelLock.release",
        {"self._close()  # …": "pass"},
        f"{_FAULTS}[append one]",
    ),
    "a failed close denies a replace": Caught(
        "errors",
        "cosession.files:close",
        {"with suppress(OSError):": "if True:"},
        f"{_FAULTS}[clear]",
    ),
    "bytes just written are not looked for": Caught(
        "errors",
        "cosession.files:located",
        {"return [_before…": "return [place for place in placed if place != _JUST_WRITTEN]"},
        f"{_FAULTS}[append one]",
    ),
    "a fork that is refused stays": Caught(
        "errors",
        "cosession.files:put_in_place",
        {"with suppress(OSError):": "if True:"},
        "test_faults.py::test_every_error_at_every_call[fork-process]",
    ),
    # ---- strace -----------------------------------------------------------------------------
    "one write for each record (strace)": Caught(
        "strace",
        "cosession.appending:FileAppender._append",
        {
            "self.lock.announce_append(…": "pass",
            "files.write_all(fd, data…": "[files.write_all(fd, line) for line in lines]",
        },
        f"{_STRACE}[append-many]",
    ),
    "replaced before the old file is kept (strace)": Caught(
        "strace",
        "cosession.replacing:FileReplacer._exchange",
        {
            "_platform.replace_file(temporary…": "{line}\n"
            "rotated = files.keep_old(self.path, new, old)"
        },
        f"{_STRACE}[revert]",
    ),
    # ---- full disks -------------------------------------------------------------------------
    "a full disk leaves the bytes that fitted": Caught(
        "full disk",
        "cosession.replacing:FileReplacer._cut_back",
        {"_platform.truncate(…": "pass"},
        "test_bad_days.py::test_a_size_limit_at_any_byte_undoes_the_operation[append one]",
    ),
    "a full disk leaves the rotation": Caught(
        "full disk",
        "cosession.replacing:FileReplacer._undo_exchange",
        {"os.unlink(temporary)": "return"},
        "test_bad_days.py::test_a_size_limit_at_any_byte_undoes_the_operation[revert]",
    ),
    # ---- fuzzing ----------------------------------------------------------------------------
    "a repair cuts behind our length": Caught(
        "fuzzing",
        "cosession.repair:plan_repair",
        {"ours_to_the_end = …": "ours_to_the_end = start == 0"},
        f"{_FUZZ}::test_a_repair_takes_no_foreign_byte_and_is_done_once",
    ),
    "a header is believed unchecked": Caught(
        "fuzzing",
        "cosession.header:_intact",
        {"return checksum ==…": "return True"},
        f"{_FUZZ}::test_any_bytes_are_a_header_or_none",
    ),
    "a fold forgets where it was": Caught(
        "fuzzing",
        "cosession.state:State._sort",
        {"base, start = self.position, 0": "base, start = 0, 0"},
        f"{_FUZZ}::test_a_fold_is_the_same_wherever_it_is_split",
    ),
    # ---- hostile ----------------------------------------------------------------------------
    "links are followed": Caught(
        "hostile",
        "cosession._platform:open_file",
        {"flags | OPEN_FLAGS": "flags | os.O_CLOEXEC | os.O_NONBLOCK"},
        f"{_HOSTILE}::test_what_is_planted_at_a_name_of_ours_harms_nobody"
        "[context.jsonl.lineage-link to a file]",
    ),
    "the list of terminals follows a link": Caught(
        "hostile",
        "cosession.presence:_require_no_link",
        {"if os.path.islink(folder):": "if False:"},
        f"{_HOSTILE}::test_what_is_planted_at_a_name_of_ours_harms_nobody"
        "[context.jsonl.terminals-link to a folder]",
    ),
    "cleans up what isn't its own": Caught(
        "hostile",
        "cosession.presence:terminals",
        {"if _ENTRY.fullmatch(name)": "if name.endswith('.lock')"},
        f"{_HOSTILE}::test_others_files_among_the_terminals_are_left",
    ),
    "a pipe is waited for": Caught(
        "hostile",
        "cosession.presence:_read_card",
        {"fd = _platform.open_file(…": "fd = os.open(path, os.O_RDONLY)"},
        f"{_HOSTILE}::test_a_pipe_among_the_terminals_cards_is_not_waited_for",
    ),
}


def plant() -> None:
    """Put the mutant that the environment names in the place of the real function."""
    name = os.environ.get(_NAME)
    if name and name not in _planted:
        _planted.append(name)
        mutant = MUTANTS[name].mutant
        put_in_place(name, mutant.where, mutant.edits)


def caught(name: str) -> bool:
    """Whether the test that must fail with this mutant does. It is run without one anyway."""
    return not _passes(MUTANTS[name].test, name)


def _passes(test: str, mutant: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-x", "-m", "", "-p", "bad.mutants", test],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {_NAME: mutant, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    ran = re.search(r"[0-9]+ (passed|failed)", done.stdout)
    if done.returncode not in (0, 1) or not ran:
        raise RuntimeError(f"{test} can't be run here: {done.stdout}{done.stderr}")
    return done.returncode == 0


def main(names: list[str]) -> None:
    print("| part | broken variant | caught by | caught |\n|---|---|---|---|")
    missed = 0
    for name in names or MUTANTS:
        entry = MUTANTS[name]
        verdict = caught(name)
        missed += not verdict
        print(f"| {entry.part} | {name} | `{entry.test}` | {'yes' if verdict else 'NO'} |")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
else:
    plant()
