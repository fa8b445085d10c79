"""`cosession hold`: any command inside a turn, as flock(1) has any command inside a lock.

1. The turn is this process's, and ends when the command has ended, or with this process.
2. The command may write in it: COSESSION_TURN names the turn, and `cosession append` and its like
   pass the name on with what they write. It holds as long as the session says that this turn is
   on, so it is of no use to what the command leaves running behind it.
3. If this process is killed and the command goes on, the turn is an interrupted one: what the
   command writes is still part of it, in one piece, until somebody settles it.
4. Ctrl-C is the command's. Other signals that would end this process are passed on to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import click

from ..blocking import BlockingSession
from ..errors import TurnOver
from .exits import TURN_VARIABLE
from .options import common, file_argument, join_turn, settings, timeout
from .output import complain, patience

_CANNOT_RUN, _NOT_FOUND = 126, 127
"""The statuses that shells have for a command that can't be started, and one that isn't there."""

_PASSED_ON = ("SIGTERM", "SIGHUP")
_THE_COMMAND_S = ("SIGINT", "SIGQUIT", "SIGBREAK")
"""The terminal sends these to the command as well."""


@click.command(
    epilog="""\b
Examples:
  $ cosession hold context.jsonl -- sh -c 'date | cosession append context.jsonl'
  $ cosession hold context.jsonl --label deploying --timeout 60 -- true

Other terminals' messages come before or behind all that the command writes. Inside it, `cosession
append`, `checkpoint`, `revert` and `clear` on the same session write in the turn, and another
`cosession hold` runs its command in it; COSESSION_TURN tells them so. A program in Python calls
session.join_turn(os.environ.get("COSESSION_TURN")).

The exit status is the command's, 128 and the signal's number if a signal ended it, 127 if it isn't
there, 126 if it can't be started; and cosession's own if it did not come to that.
"""
)
@file_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@click.option("--label", help="What the turn is for, for others to read.  [default: the command]")
@timeout
@common
def hold(file: str, command: Sequence[str], label: str | None, timeout: float | None) -> None:
    """Run a command inside a turn.

    Waits for the turn, runs CMD with this terminal's input and output, and ends the turn when it
    has ended.
    """
    lock_dir = settings().lock_dir
    label = label if label is not None else " ".join(" ".join(command).split())
    session = BlockingSession(file, lock_dir=lock_dir)
    inside = join_turn(session)
    with session, ExitStack() as stack:
        if inside:
            _require_on(session)
            key = os.environ[TURN_VARIABLE]
        else:
            with patience(file, lock_dir, "waiting for the turn"):
                key = stack.enter_context(session.turn(label, timeout=timeout)).key
        status = _run(command, {**os.environ, TURN_VARIABLE: key})
    click.get_current_context().exit(status)


def _require_on(session: BlockingSession[Any]) -> None:
    card = session._store.turn_that_is_on()
    if card is None or card.token != session._turn:
        raise TurnOver(f"{session.path}: the turn is over that this was to be part of")


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run it to its end; the status for the shell."""
    program = shutil.which(command[0])
    if program is None:
        complain(f"{command[0]}: there is no such command")
        return _NOT_FOUND
    sys.stdout.flush()
    running: list[subprocess.Popen[bytes]] = []
    with _signals_passed_on(running):
        try:
            process = subprocess.Popen([program, *command[1:]], env=environment)
        except OSError as error:
            complain(f"{command[0]}: {error.strerror}")
            return _CANNOT_RUN
        running.append(process)
        code = process.wait()
    if sys.platform == "win32":  # unsigned there, and an exit status is not
        return code - (1 << 32) if code >= 1 << 31 else code
    return 128 - code if code < 0 else code


@contextmanager
def _signals_passed_on(running: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Live on until the command has ended, whatever is sent to end us."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in running:
            process.send_signal(number)

    def leave_it(number: int, frame: FrameType | None) -> None:
        """A handler and not SIG_IGN: the command would inherit that."""

    before: dict[int, Any] = {}
    for names, handler in ((_PASSED_ON, pass_on), (_THE_COMMAND_S, leave_it)):
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
