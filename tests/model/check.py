"""Run the models of this folder with spin, and print what came of it.

1. A run is a model with some names defined. spin turns it into a C program, which visits every
   state that any interleaving leads to, and stops at the first that breaks an assertion, or in
   which everybody waits.
2. A run is expected to *hold*, or to be refuted with a certain message: a wrong variant that is not
   refuted is a failure of the model, like a right one that is.
3. A *limit* is the right protocol in a situation for which nothing is promised. It is expected to
   be refuted, so that the documentation says no more and no less than what is so.

    uv run python tests/model/check.py            all of them, as a table
    uv run python tests/model/check.py commit     those whose model or variant is called so
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BOUND = 300.0
"""Seconds for one run, on a machine that is busy with other things."""
MEGABYTES = 1000
DEPTH = 100_000
JOBS = 2

HOLDS = ""
TOGETHER = "assertion violated (inside==1)"
WAITS_FOR_EVER = "invalid end state"
HALF = "(matched==0)||(matched=="
"""Somebody sees, or the file keeps, a part of an operation."""
LOST = "assertion violated (ends>0)"
MEMORY = "assertion violated ((digits==memory)&&"
JOINED = "assertion violated ((number=="
NOT_INTERRUPTED = "assertion violated  !(alive[turn])"
STARVES = "acceptance cycle"


@dataclass(frozen=True, slots=True)
class Run:
    """A model, and what is to come of it."""

    model: str
    what: str
    """What happens meanwhile, or which step is wrong."""
    defines: str = ""
    expected: str = HOLDS
    formula: str = ""
    """A formula of the model's about what happens in the end, instead of assertions."""
    limit: bool = False
    quick: bool = False
    """Whether it is one of those in the default run of the tests."""

    @property
    def kind(self) -> str:
        if self.expected == HOLDS:
            return "right"
        return "limit" if self.limit else "wrong"


def right(model: str, what: str, defines: str = "", *, ends: str = "", quick: bool = False) -> Run:
    return Run(model, what, defines, HOLDS, ends, quick=quick)


def wrong(
    model: str, what: str, defines: str, expected: str, *, ends: str = "", quick: bool = False
) -> Run:
    return Run(model, what, defines, expected, ends, quick=quick)


def limit(model: str, what: str, defines: str, expected: str) -> Run:
    return Run(model, what, defines, expected, limit=True)


CALM = "TERMINALS=2 CRASHES=0 SABOTAGES=0"
UNLINKED = "SABOTAGES=1 LOCKS=3 CRASHES=0"
REUSED = "USER_REMOVES TWO_REPLACES CRASHES=0 WITH_READER"

RUNS = (
    # ---- lock.pml ---------------------------------------------------------------------------
    right("lock", "2 terminals, a child, a kill, an unlink", "TERMINALS=2", quick=True),
    right("lock", "3 terminals, a child, a kill, an unlink"),
    right("lock", "a child that never closes", "LONG_CHILD CRASHES=0"),
    right("lock", "harmless: unlinked by its holder, and looked", "UNLINK_ON_RELEASE TERMINALS=2 "
          "SABOTAGES=0"),
    right("lock", "every wait ends", "TERMINALS=2", ends="ends"),
    wrong("lock", "not looked whether it is still at its path", "NO_RECHECK", TOGETHER),
    wrong(
        "lock", "unlinked by its holder", "UNLINK_ON_RELEASE NO_RECHECK SABOTAGES=0", TOGETHER
    ),
    wrong("lock", "unlinked after unlocking", "UNLINK_AFTER_RELEASE SABOTAGES=0", TOGETHER),
    wrong("lock", "the data file locked", f"LOCK_THE_DATA_FILE {CALM}", TOGETHER, quick=True),
    wrong("lock", "a child unlocks", f"CHILD_UNLOCKS {CALM}", TOGETHER),
    wrong("lock", "closed, not unlocked", "CLOSE_ONLY LONG_CHILD CRASHES=0", WAITS_FOR_EVER),
    wrong("lock", "POSIX record locks", f"RECORD_LOCKS {CALM}", TOGETHER),
    wrong("lock", "a file that exists is the lock", "EXISTENCE", WAITS_FOR_EVER),
    wrong("lock", "the same, removed if its owner is dead", "BREAK_STALE", TOGETHER),
    # ---- commit.pml -------------------------------------------------------------------------
    right("commit", "3 kills", "CRASHES=3", quick=True),
    right("commit", "2 kills, a reader", "CRASHES=2 WITH_READER"),
    right("commit", "2 kills, a foreign line", "CRASHES=2 WITH_FOREIGN"),
    right("commit", "a kill, a full disk, a foreign line", "FAILS=1 WITH_FOREIGN"),
    right("commit", "a kill, a full disk twice, a reader", "FAILS=2 WITH_READER"),
    right("commit", "a full disk, a foreign line, a reader", "CRASHES=0 FAILS=1 WITH_FOREIGN "
          "WITH_READER"),
    right("commit", "no lock file yet, a kill, a reader", "NO_LOCK_FILE_YET WITH_READER"),
    right("commit", "the lock file unlinked, a reader", f"{UNLINKED} WITH_READER"),
    right("commit", "unlinked under its holder", f"{UNLINKED} SABOTAGE_WHILE_HELD"),
    right("commit", "every wait ends", "CRASHES=1 WITH_FOREIGN", ends="ends"),
    wrong("commit", "not announced", "NO_ANNOUNCEMENT", HALF, quick=True),
    wrong("commit", "published before the bytes are written", "PUBLISHED_FIRST", HALF),
    wrong("commit", "published after unlocking", "PUBLISHED_AFTER_UNLOCKING", HALF),
    wrong("commit", "healed by cutting at the start", "CUT_BLINDLY WITH_FOREIGN", LOST),
    wrong("commit", "undone by cutting at the start", "UNDONE_BLINDLY WITH_FOREIGN FAILS=1 "
          "CRASHES=0", LOST),
    wrong("commit", "place of the bytes not checked", "PLACE_NOT_CHECKED WITH_FOREIGN "
          "WITH_READER", HALF),
    wrong("commit", "adopted without the lock", "ADOPTED_WITHOUT_LOCK CRASHES=0 WITH_READER", HALF),
    wrong("commit", "header without a serial number", "NO_SERIAL FAILS=1 CRASHES=0 WITH_READER",
          HALF),
    wrong("commit", "reader: header not read again", "NO_SECOND_LOOK WITH_READER", HALF),
    wrong("commit", "reader: header ignored", "HEADER_IGNORED WITH_READER", HALF),
    wrong("commit", "reader: believes that there is no lock file", "MISSING_LOCK_FILE_BELIEVED "
          "NO_LOCK_FILE_YET CRASHES=0 WITH_READER", HALF),
    wrong("commit", "reader: believes an unlinked lock file", "UNLINKED_LOCK_FILE_BELIEVED "
          f"{UNLINKED} WITH_READER", HALF),
    limit("commit", "foreign line between the last look and the cut", "RACE WITH_FOREIGN", LOST),
    limit("commit", "unlinked under its holder, a reader", f"{UNLINKED} SABOTAGE_WHILE_HELD "
          "WITH_READER", HALF),
    limit("commit", "the lock file unlinked, and a kill", "SABOTAGES=1 LOCKS=4 CRASHES=1", HALF),
    # ---- replace.pml ------------------------------------------------------------------------
    right("replace", "2 kills", "CRASHES=2"),
    right("replace", "2 kills, a beginning kept", "CRASHES=2 KEEP"),
    right("replace", "a kill, a foreign line", "WITH_FOREIGN"),
    right("replace", "a kill, a full disk, a beginning kept", "FAILS=1 KEEP"),
    right("replace", "a reader, a beginning kept", "CRASHES=0 WITH_READER KEEP"),
    right("replace", "a kill, a reader", "WITH_READER"),
    right("replace", "numbers of files reused, a reader", f"{REUSED} STEADY_LOOK"),
    right("replace", "harmless to the file: not announced", "CRASHES=2 REPLACE_NOT_ANNOUNCED"),
    right("replace", "every wait ends", "CRASHES=1 WITH_FOREIGN", ends="ends"),
    wrong("replace", "old file not kept", "OLD_NOT_KEPT", LOST),
    wrong("replace", "old file kept after the swap", "KEPT_AFTER_THE_SWAP", LOST),
    wrong("replace", "swapped before it is filled", "SWAPPED_BEFORE_FILLED", "(file[live].whole"),
    wrong("replace", "identity without generation", f"{REUSED} STEADY_LOOK IDENTITY_ONLY", MEMORY),
    wrong("replace", "reader: believes an announced replace", "REPLACING_BELIEVED CRASHES=0 "
          "WITH_READER", HALF),
    limit("replace", "a number reused within one look", REUSED, MEMORY),
    # ---- turn.pml ---------------------------------------------------------------------------
    right("turn", "2 kills"),
    right("turn", "every wait ends", "CRASHES=1", ends="ends"),
    right("turn", "a greedy terminal", "GREEDY CRASHES=0", ends="fair", quick=True),
    wrong("turn", "no turnstile", "GREEDY CRASHES=0 NO_TURNSTILE", STARVES, ends="fair"),
    wrong("turn", "lock let go of before the number", "LOCK_BEFORE_NUMBER", NOT_INTERRUPTED),
    wrong("turn", "number before the lock", "NUMBER_BEFORE_LOCK", NOT_INTERRUPTED),
    wrong("turn", "no number in the header", "NO_NUMBER", JOINED),
    wrong("turn", "the lock asked, not the number", "NO_NUMBER LOOKS_AT_THE_LOCK", JOINED),
    wrong("turn", "number read before the commit lock is taken", "LOOKS_BEFORE_LOCKING", JOINED),
    wrong("turn", "an interrupted turn joined", "JOINS", JOINED),
    wrong("turn", "whatever turn is on settled", "SETTLES_ANY_TURN",
          "assertion violated (turn==found)"),
    wrong("turn", "waits for a turn with the commit lock", "WAITS_INSIDE", WAITS_FOR_EVER),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What the search found."""

    message: str
    """What is violated; nothing if all states were visited and nothing is."""
    states: int
    seconds: float
    output: str

    def is_as_expected(self, run: Run) -> bool:
        return run.expected in self.message if run.expected else not self.message


def missing_tools() -> str:
    """Which programs the models need and can't find; empty if none is missing."""
    return ", ".join(tool for tool in ("spin", "gcc") if shutil.which(tool) is None)


def check(run: Run) -> Result:
    """Visit every state of a run.

    Raises:
        RuntimeError: spin or the compiler refuses the model, or the search was not complete.
    """
    with tempfile.TemporaryDirectory() as folder:
        # spin's preprocessor finds what is included from where it runs.
        for source in HERE.glob("*.[pi]*l"):
            shutil.copy(source, folder)
        names = [f"-D{name}" for name in run.defines.split()]
        _call(folder, "spin", *names, "-a", f"{run.model}.pml")
        # What is refuted is so soon, and compiling takes longer than searching.
        speed = "-O0" if run.expected or run.quick else "-O1"
        options = [speed, "-w", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}"]
        options += ["-DNFAIR=3"] if run.formula else ["-DSAFETY", "-DNOCLAIM"]
        _call(folder, "gcc", *options, "-o", "pan", "pan.c")
        search = [f"-m{DEPTH}"]
        search += ["-a", "-f", "-A", "-E", "-N", run.formula] if run.formula else []
        began = time.monotonic()
        output = _call(folder, "./pan", *search)
        return _result(run, output, time.monotonic() - began)


def _call(folder: str, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
        check=False,
    )
    # Too shallow a search says so, and counts no error.
    failed = done.returncode != 0 and command[0] != "./pan"
    if failed or "rror:" in done.stdout or "out of memory" in done.stdout:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def _result(run: Run, output: str, seconds: float) -> Result:
    states = re.search(r"(\d+) states, stored", output)
    errors = re.search(r"errors: (\d+)", output)
    message = re.search(r"^pan:\d+: (.*) \(at depth \d+\)", output, re.MULTILINE)
    if states is None or errors is None or (errors[1] == "0") != (message is None):
        raise RuntimeError(f"{run}: the search was not complete\n{output}")
    return Result(message[1] if message else "", int(states[1]), seconds, output)


def described(run: Run) -> str:
    """The beginning of a run's row in the table."""
    names = f"`{run.defines}`" if run.defines else ""
    return f"| {run.model} | {run.kind} | {run.what} | {names} |"


def in_words(run: Run, result: Result) -> str:
    """What came of a run, for the table."""
    if not result.is_as_expected(run):
        return f"UNEXPECTED: {result.message or 'holds'}"
    return {
        HOLDS: "holds",
        TOGETHER: "two at once",
        WAITS_FOR_EVER: "waits for ever",
        HALF: "half an operation",
        LOST: "bytes lost",
        MEMORY: "memory is not the file",
        JOINED: "somebody else in a turn",
        NOT_INTERRUPTED: "a live turn taken for dead",
        STARVES: "starves",
    }.get(run.expected, "half a file" if "whole" in run.expected else "the wrong turn settled")


def main(*wanted: str) -> int:
    if missing := missing_tools():
        print(f"not found: {missing}. On Debian: apt-get install spin gcc")
        return 2
    chosen = [run for run in RUNS if not wanted or {run.model, *run.defines.split()} & {*wanted}]
    wrong_ones = 0
    print("| model | | what happens, or is wrong | defined | states | result |")
    print("|---|---|---|---|--:|---|")
    with ThreadPoolExecutor(JOBS) as pool:
        for run, result in zip(chosen, pool.map(check, chosen), strict=True):
            wrong_ones += not result.is_as_expected(run)
            print(f"{described(run)} {result.states:,} | {in_words(run, result)} |", flush=True)
    return min(wrong_ones, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
