"""All broken variants: which method has to catch each, and which promises it breaks.

The variants themselves are where their methods are; a promise that none of them breaks would be one
whose tests nobody has seen fail.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import bad.mutants
import mutants as others
from conformance.table import PAIRS
from cosession.testing import clauses
from crash.mutants import MUTANTS as CRASH
from model import check
from power.mutants import MUTANTS as POWER

from . import mutants
from .promises import PROMISES

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Variant:
    method: str
    """Which has to catch it."""
    breaks: tuple[int, ...]
    """Promises, by their numbers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    caught: bool
    said: str
    """Why it could not be run, or what was seen; may be empty."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Family:
    """Variants that are kept in one place."""

    command: str
    """Which runs them, from `tests`."""
    variants: dict[str, Variant]
    run: Callable[[Sequence[str]], Iterator[tuple[str, Verdict]]]


# ---- what each breaks ---------------------------------------------------------------------------

_CRASH = {
    "published before the bytes are written": (2, 3),
    "not announced": (1,),
    "announced after the bytes are written": (1,),
    "announcement cleared before the bytes are written": (1,),
    "one write for each record": (1,),
    "memory changed before the bytes are in": (4,),
    "unlocked before publishing": (3,),
    "not synced before publishing": (2,),
    "announcement of several records not synced": (1,),
    "not synced behind the unlocking": (2,),
    "what the disk refused stays": (12,),
    "place of the bytes not checked": (4, 11),
    "replaced before the old file is kept": (2,),
    "old file not kept": (2,),
    "replace not announced": (1,),
    "generation published before the replace": (1, 3),
    "new file not synced before the replace": (1, 2),
    "folder not synced after the replace": (2,),
    "no last look before the replace": (2, 11),
    "planned for a file that has grown": (2, 11),
    "batch not planned anew behind foreign lines": (4, 11),
    "repair trusts places, not checksums": (1, 2),
    "repair cuts whatever is there": (2, 11),
    "cut bytes not put aside": (2,),
    "second name left behind": (1,),
    "temporary file left behind": (1,),
    "open line of another program not closed": (2, 11),
    "foreign lines behind a torn append are cut with it": (2, 11),
    "failed append not undone": (1, 12),
    "failed replace not undone": (12,),
    "undoing cuts foreign bytes": (11, 12),
    "lock file not looked at again": (7,),
    "reader ignores announcements": (1, 3),
    "reader ignores the header": (1, 3),
}

_CRASH_METHODS = {
    "kill": "kills",
    "kill_and_more": "kills",
    "splice": "kills",
    "order": "order of calls",
    "disturb": "foreign lines",
    "fail": "faults",
}
"""By the kind of campaign."""

_POWER = {
    "data not synced before it is acknowledged": (2,),
    "data not synced behind the unlocking": (2,),
    "data of several appends not synced behind the unlocking": (2,),
    "several records left for behind the unlocking": (1,),
    "published before the data is synced": (2,),
    "announcement of several records not synced": (1,),
    "announcement synced after the data": (1,),
    "several records written behind what others have not synced": (1, 2),
    "the session's folder never synced": (2,),
    "names made by others not synced": (2,),
    "the lock file's folder not synced": (1,),
    "generation not synced": (2, 3),
    "new file not synced before it takes the name": (1, 2),
    "old file's new name not synced before the replace": (2,),
    "nothing synced after the replace": (2,),
    "copy of the old file not synced": (2,),
    "gaps in an append not seen": (1,),
    "boot not looked at": (1,),
    "torn bytes cut before they are synced elsewhere": (2,),
    "folder of torn bytes not synced": (2,),
    "torn bytes back after the announcement is gone": (1,),
    "failed append back after the announcement is gone": (1,),
    "splice published before its name is on the disk": (1, 2),
    "reader waits for a writer of an earlier boot": (2,),
    "reader takes an unfinished append of an earlier boot": (1, 3),
}

_OTHERS = {
    "an append on the spot overlooks a turn": (6,),
    "an append on the spot overlooks what others wrote": (4,),
    "an append on the spot gives the loop no turn": (9,),
    "expect is not looked at": (5,),
    "token counts are conflicts": (5,),
    "a turn conflicts with itself": (5, 6),
    "others' messages in a turn are its own": (5, 6),
    "a rewrite in place is not noticed": (4, 11),
    "checkpoints are counted, not numbered": (4,),
    "an older system prompt stays": (1,),
    "the end of a reverted file is remembered": (4,),
    "the lock does nothing": (2, 3),
    "a read answers from memory": (3,),
    "acknowledged before it is published": (2, 3),
    "one message that came in is overlooked": (5,),
    "unlocked before it is published": (3, 4),
    "an old file is not kept": (2,),
    "a failed append is not undone": (1, 12),
    "others write into a turn": (6,),
    "a cancelled operation stays in the queue": (10,),
    "a cancelled append goes out with the others": (10,),
    "who leads leaves the others behind": (10,),
    "a commit under way is abandoned": (10,),
    "a wait for the turn that was given up goes on": (8, 10),
    "a turn that was cancelled as it began stays": (8, 10),
    "a cancelled hand-over looks like a death": (10,),
    "everything is done on the loop": (9,),
    "the file is read on the loop": (9,),
    "pydantic is imported on the loop": (9,),
    "old messages are freed all at once": (9,),
}

_OTHERS_METHODS = {
    "model": "a list that knows better",
    "order": "histories",
    "storm": "storms",
    "cancellation": "cancellation",
    "heartbeat": "heartbeat",
}

_BAD = {
    "a failed unlock leaves the lock": (12,),
    "a failed close denies a replace": (12,),
    "bytes just written are not looked for": (1, 12),
    "a fork that is refused stays": (1, 12),
    "one write for each record (strace)": (1,),
    "replaced before the old file is kept (strace)": (2,),
    "a full disk leaves the bytes that fitted": (12,),
    "a full disk leaves the rotation": (12,),
    "a repair cuts behind our length": (2, 11),
    "a header is believed unchecked": (2,),
    "a fold forgets where it was": (4,),
    "links are followed": (14,),
    "the list of terminals follows a link": (14,),
    "cleans up what isn't its own": (14,),
    "a pipe is waited for": (14,),
}

_BAD_METHODS = {
    "errors": "faults",
    "strace": "strace",
    "full disk": "full disks",
    "fuzzing": "fuzzing",
    "hostile": "hostile places",
}

_PROOF = {
    "a forked child unlocks": ("locks", (3, 7)),
    "unlinked when it is released": ("locks", (3, 7)),
    "a dead one's announcement counts as a lock": ("locks", (7,)),
    "a timeout names nobody": ("locks", (8,)),
    "a timeout is not looked at": ("conformance", (8,)),
    "who waits looks once a second": ("conformance", (8,)),
    "exit waits for who waits": ("waits", (8,)),
    "nobody heeds a turn": ("turns", (6,)),
    "nobody is told of a conflict": ("conflicts", (5,)),
    "changes are told twice": ("followers", (3,)),
    "a turn that was found is not looked into": ("followers", (3,)),
    "damaged lines are dropped by a replace": ("foreign lines", (2, 11)),
    "new files are everybody's": ("hostile places", (14,)),
    "modes are not kept": ("hostile places", (14,)),
    "a replace is tried once": ("Windows", (13,)),
    "files stay open": ("Windows", (13,)),
    "a file that is in use is just an error": ("Windows", (13,)),
    "the lock file can be taken away": ("Windows", (13,)),
}

_MODEL = {
    check.TOGETHER: (3, 7),
    check.HALF: (1, 3),
    check.LOST: (2,),
    check.MEMORY: (4,),
    check.JOINED: (6,),
    check.NOT_INTERRUPTED: (6,),
    check.STARVES: (8,),
}
"""By what the refutation says."""

_MODEL_REST = {"lock": (7, 8), "replace": (1,), "turn": (6, 8)}
"""Of other refutations, by the model."""


# ---- how each family is run ---------------------------------------------------------------------


def _by_pytest(test: str, names: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    """Each is a test of its own, which passes if it catches its variant."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "", f"--junitxml={report}", test],
            cwd=TESTS,
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(done.stdout + done.stderr)
        cases = [*ET.parse(report).iter("testcase")]
    for case in cases:
        name = re.sub(r".*?\[(.*)\]", r"\1", case.get("name", ""))
        if name in names:
            wrong = [child for child in case if child.tag in ("failure", "error", "skipped")]
            said = "".join((child.get("message") or "")[:200] for child in wrong)
            yield name, Verdict(not wrong, said, float(case.get("time", "0")))


def _one_by_one(
    catch: Callable[[str], object], names: Sequence[str]
) -> Iterator[tuple[str, Verdict]]:
    for name in names:
        began = time.monotonic()
        try:
            found, said = bool(catch(name)), ""
        except Exception as error:
            found, said = False, repr(error)
        yield name, Verdict(found, said, time.monotonic() - began)


_RUNS = {f"{run.model}: {run.what}": run for run in check.RUNS if run.kind == "wrong"}


def _refuted(name: str) -> bool:
    return check.check(_RUNS[name]).is_as_expected(_RUNS[name])


def _promise(clause: str) -> tuple[int, ...]:
    words = next(one.promise for one in clauses() if one.name == clause)
    return (next(number for number, name in PROMISES.items() if name == words),)


FAMILIES = {
    "crash": Family(
        "uv run pytest test_crash.py -k reordered",
        {
            name: Variant(_CRASH_METHODS[mutant.kind], _CRASH.get(name, ()))
            for name, mutant in CRASH.items()
        },
        partial(_by_pytest, "test_crash.py::test_a_reordered_protocol_is_found_out"),
    ),
    "power": Family(
        "uv run pytest -m '' test_power.py -k missing_sync_is_found_out",
        {name: Variant("power cuts", _POWER.get(name, ())) for name in POWER},
        partial(_by_pytest, "test_power.py::test_a_missing_sync_is_found_out"),
    ),
    "forgetful": Family(
        "uv run pytest -m '' test_power.py -k forgets_finds",
        {
            "data not synced before it is acknowledged": Variant("a disk that forgets", (2,)),
            "the session's folder never synced": Variant("a disk that forgets", (2,)),
        },
        partial(
            _by_pytest, "test_power.py::test_a_file_system_that_forgets_finds_a_missing_sync_out"
        ),
    ),
    "model": Family(
        "uv run python model/check.py",
        {
            name: Variant(
                "the protocol as a model",
                _MODEL.get(run.expected) or _MODEL_REST[run.model],
            )
            for name, run in _RUNS.items()
        },
        partial(_one_by_one, _refuted),
    ),
    "concurrency": Family(
        "uv run python -m mutants",
        {
            name: Variant(_OTHERS_METHODS[mutant.method], _OTHERS.get(name, ()))
            for name, mutant in others.MUTANTS.items()
        },
        partial(_one_by_one, others.is_caught),
    ),
    "errors": Family(
        "uv run python -m bad.mutants",
        {
            name: Variant(_BAD_METHODS[mutant.part], _BAD.get(name, ()))
            for name, mutant in bad.mutants.MUTANTS.items()
        },
        partial(_one_by_one, bad.mutants.caught),
    ),
    "processes": Family(
        "uv run python -m proof.mutants",
        {name: Variant(*_PROOF.get(name, ("", ()))) for name in mutants.MUTANTS},
        partial(_one_by_one, mutants.caught),
    ),
    "stores": Family(
        "uv run python conformance/table.py",
        {f"{clause}-{store}": Variant("conformance", _promise(clause)) for clause, store in PAIRS},
        partial(_by_pytest, "test_conformance.py::test_a_broken_store_is_caught"),
    ),
}
