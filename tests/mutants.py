"""Broken variants of the library, each of which one of the methods here has to catch.

    python -m mutants                 run every one, and print the table
    python -m mutants NAME            run one, and print what was found
    python -m mutants --method=model  those of one method

Run from `tests`. A mutant replaces pieces of a function's source, as those of `crash.mutants` do;
if a piece is not there any more, it fails loudly, and has to be written anew for the new code.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crash.mutants import put_in_place

Method = Literal["model", "order", "storm", "cancellation", "heartbeat"]

METHODS: dict[Method, str] = {
    "model": "machine.run",
    "order": "linear.run",
    "storm": "storm.run",
    "cancellation": "aio.cancelling",
    "heartbeat": "aio.heartbeat",
}
"""Where each method has its `with_mutant`: what it finds with a mutant, as sentences."""


@dataclass(frozen=True, slots=True)
class Mutant:
    method: Method
    """Which one catches it."""
    where: str
    """`module:qualified.name` of the function."""
    edits: dict[str, str]
    """As in `crash.mutants.Mutant`."""


_APPEND = "cosession.appending:FileAppender._append"

MUTANTS = {
    # ---- the list knows better --------------------------------------------------------------
    "expect is not looked at": Mutant(
        "model", "cosession.batch:Batch._require_expected", {"if expect is None": "if True"}
    ),
    "token counts are conflicts": Mutant(
        "model",
        "cosession.state:State.messages_since",
        {"return self.message_count…": "return self.count_since(position)"},
    ),
    "a turn conflicts with itself": Mutant(
        "model", "cosession.batch:Batch._is_own", {"own = self.own": "return False"}
    ),
    "others' messages in a turn are its own": Mutant(
        "model", "cosession.store:Store._own_so_far", {"if own.turn and (": "if False and ("}
    ),
    "an append on the spot overlooks a turn": Mutant(
        "model", "cosession.appending:FileAppender._quick_look", {"or header.turn": ""}
    ),
    "an append on the spot overlooks what others wrote": Mutant(
        "model",
        "cosession.appending:FileAppender._take_over",
        {"if state.position + len(data) == stop": "if True"},
    ),
    "a rewrite in place is not noticed": Mutant(
        "model", "cosession.reading:bears_mark", {"start = …": "return True"}
    ),
    "checkpoints are counted, not numbered": Mutant(
        "model",
        "cosession.state:State._extended",
        {"number = max(…": "number = next_checkpoint"},
    ),
    "an older system prompt stays": Mutant(
        "model",
        "cosession.batch:plan_edit",
        {"hidden = state.system_prompts()": "hidden = []"},
    ),
    "the end of a reverted file is remembered": Mutant(
        "model",
        "cosession.reading:FileReader._base",
        {"return view.state.truncated(kept)": "return view.state"},
    ),
    # ---- no order explains it ---------------------------------------------------------------
    "the lock does nothing": Mutant(
        "order",
        "cosession.kernel_lock:KernelLock.try_acquire",
        {"if not _platform.try_lock…": "if False:"},
    ),
    "a read answers from memory": Mutant(
        "order", "cosession.commits:CommitQueue.look", {"try:": "return True\ntry:"}
    ),
    "acknowledged before it is published": Mutant(
        "order",
        _APPEND,
        {"header = self._publish(…": "header.committed = stop"},
    ),
    "one message that came in is overlooked": Mutant(
        "order", "cosession.batch:Batch._require_expected", {"if new == 0": "if new in (0, 1)"}
    ),
    # ---- what is left after a storm ---------------------------------------------------------
    "unlocked before it is published": Mutant(
        "storm",
        _APPEND,
        {
            "files.write_all(fd, data…": "{line}\nself.lock.release()\n"
            "import time; time.sleep(0.002)"
        },
    ),
    "an old file is not kept": Mutant(
        "storm",
        "cosession.replacing:FileReplacer._exchange",
        {"rotated = files.keep_old(…": "rotated = f'{self.path}.not-kept'"},
    ),
    "a failed append is not undone": Mutant(
        "storm", _APPEND, {"undone = self._undo_append(…": "undone = True"}
    ),
    "others write into a turn": Mutant(
        "storm",
        "cosession.store:Store._require_turn",
        {"if request.turn and not…": "return header\n{line}"},
    ),
    # ---- a cancellation shows it ------------------------------------------------------------
    "a cancelled operation stays in the queue": Mutant(
        "cancellation",
        "cosession.commits:CommitQueue.withdraw",
        {"operation.withdrawn, self._waiting…": "operation.withdrawn = True"},
    ),
    "a cancelled append goes out with the others": Mutant(
        "cancellation",
        "cosession.together:Together.drop_what_was_left",
        {"self.parts =…": "return"},
    ),
    "who leads leaves the others behind": Mutant(
        "cancellation",
        "cosession.together:AppendingTogether.leave",
        {"if part is None or part.leads": "if False"},
    ),
    "a commit under way is abandoned": Mutant(
        "cancellation",
        "cosession.event_loop:uncancelled",
        {"await asyncio.shield(future)": "await future"},
    ),
    "a wait for the turn that was given up goes on": Mutant(
        "cancellation", "cosession.turn_lock:Ticket.give_up", {"self._over.set()": "return"}
    ),
    "a turn that was cancelled as it began stays": Mutant(
        "cancellation", "cosession.session:Session._begin_turn", {"if turn._token": "if False"}
    ),
    "a cancelled hand-over looks like a death": Mutant(
        "cancellation",
        "cosession.session:Session._end_turn",
        {"await uncancelled(self._commit(…": "await self._commit(turn._end_request(), None)"},
    ),
    # ---- the loop stands still --------------------------------------------------------------
    "everything is done on the loop": Mutant(
        "heartbeat",
        "cosession.together:AppendingTogether.commit_soon",
        {"if self.commits_inline and not queue.try_quick_pass()": "if not queue.try_pass()"},
    ),
    "an append on the spot gives the loop no turn": Mutant(
        "heartbeat",
        "cosession.together:AppendingTogether.append_now",
        {"or time.monotonic() > self._stays_until": ""},
    ),
    "the file is read on the loop": Mutant(
        "heartbeat",
        "cosession.session:Session.open",
        {"await uncancelled(…": "opened.append(self._open_ready())"},
    ),
    "pydantic is imported on the loop": Mutant(
        "heartbeat",
        "cosession.session:Session.append",
        {"add = self._add_at_once(messages)": "add = self._add(messages)"},
    ),
    "old messages are freed all at once": Mutant(
        "heartbeat", "cosession.history:_Burial.__del__", {"for storage in…": "return\n{line}"}
    ),
}


def apply(name: str) -> None:
    """Put the mutant in the place of the real function, in this process.

    Raises:
        LookupError: The code has changed, and the mutant must follow.
    """
    mutant = MUTANTS[name]
    put_in_place(name, mutant.where, mutant.edits)


def findings(name: str) -> list[str]:
    """What the mutant's method says about it; nothing, and it got away."""
    module = importlib.import_module(METHODS[MUTANTS[name].method])
    found: list[str] = module.with_mutant(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the library's broken variants.")
    parser.add_argument("name", nargs="?", choices=MUTANTS)
    parser.add_argument("--method", default="")
    options = parser.parse_args()
    if options.name:
        found = findings(options.name)
        print(*found, sep="\n")
        sys.exit(not found)
    names = [name for name in MUTANTS if options.method in ("", MUTANTS[name].method)]
    print("| method | mutant | caught | by | seconds |\n|---|---|---|---|---|")
    results = [_in_a_row(name) for name in names]
    print(f"{sum(results)} of {len(results)} caught")
    sys.exit(not all(results))


def is_caught(name: str) -> bool:
    """Whether its method catches it, in a process of its own."""
    return _run(name)[0]


def _run(name: str) -> tuple[bool, str]:
    """Whether it is caught, and what is said about it."""
    child = subprocess.run(
        [sys.executable, "-m", "mutants", name],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    said = child.stdout.strip().splitlines() or child.stderr.strip().splitlines()[-1:] or [""]
    return child.returncode == 0, said[0]


def _in_a_row(name: str) -> bool:
    began = time.monotonic()
    caught, said = _run(name)
    seconds = time.monotonic() - began
    method = MUTANTS[name].method
    by = said.replace("|", "/")[:110]
    print(f"| {method} | {name} | {'yes' if caught else 'NO'} | {by} | {seconds:.1f} |", flush=True)
    return caught


if __name__ == "__main__":
    main()
