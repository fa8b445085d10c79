"""`cosession heal`: settle now what the next opening for writing would settle anyway."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import click

from ..blocking import BlockingSession
from ..files import temporary_files
from ..findings import Finding
from ..inspect import Inspection
from ..records import Repair
from ..values import replace
from .exits import Exit
from .options import common, file_argument, settings, timeout
from .output import complain, decorated, patience, printable
from .verify import describe

_TRIES = 3
"""How often it is opened to get at temporary files, which are removed only if the lock is free."""


@click.command(
    epilog="""\b
Examples:
  $ cosession heal --dry-run context.jsonl
  $ cosession heal context.jsonl
  $ cosession heal --turn keep context.jsonl

Every program that opens the session through cosession does this by itself; the command is for
doing it now, and for being told. Bytes that can't be used are kept aside, never deleted. Damaged
lines are not touched: they stay in the file, where readers skip them.

A terminal that died in its turn is something to decide about: nobody can write messages before
somebody has. `--turn keep` leaves what it wrote, and gives each tool call without a result one that
says so; `--turn roll-back` reverts to where the turn began, and the old file is kept.

With --dry-run the exit status is 1 if there is something to settle; and so it is without --turn if
a turn was interrupted.
"""
)
@file_argument
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option(
    "--turn",
    type=click.Choice(["keep", "roll-back"]),
    help="Settle the turn of a terminal that died in it.",
)
@timeout
@common
def heal(
    file: str, dry_run: bool, turn: Literal["keep", "roll-back"] | None, timeout: float | None
) -> None:
    """Settle what processes that died left behind.

    Unfinished writes are undone or completed, lines that other programs appended are adopted.
    """
    lock_dir = settings().lock_dir
    with Inspection(file, lock_dir=lock_dir) as inspection:
        before = inspection.findings
    if dry_run:
        _tell_plan(before)
        return
    with patience(file, lock_dir, "healing"), _silent_log():
        repairs, damaged = _settle(file, lock_dir, timeout)
        settled = _settle_turn(file, lock_dir, turn, timeout) if turn else None
    with Inspection(file, lock_dir=lock_dir) as inspection:
        after = inspection.findings
    _tell_outcome(before, after, repairs, settled)
    if damaged:
        complain(
            f"{file}: {damaged} damaged line(s) stay in the file, and are skipped",
            hint="`cosession verify --quiet` shows them",
        )
    if any(finding.problem for finding in after):
        click.get_current_context().exit(Exit.OFF)


@contextmanager
def _silent_log() -> Iterator[None]:
    """Keep the library from warning of what the report is going to say."""
    logger = logging.getLogger("cosession")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _settle(file: str, lock_dir: str | None, timeout: float | None) -> tuple[list[Repair], int]:
    """Open it for writing, wait for the lock, and let the session do its work."""
    repairs: list[Repair] = []
    for _ in range(_TRIES):
        with BlockingSession(file, create=False, lock_dir=lock_dir) as session:
            # No change, but it needs the lock, and settles everything under it.
            session._commit(replace(session._request("heal", None), any_time=True), timeout)
            repairs += session.repairs
            damaged = len(session.damage)
            if not temporary_files(str(session.path)):
                break
    return repairs, damaged


def _settle_turn(
    file: str, lock_dir: str | None, how: Literal["keep", "roll-back"], timeout: float | None
) -> str | None:
    """Decide about an interrupted turn; what was done, if there is one."""
    with BlockingSession(file, create=False, lock_dir=lock_dir) as session:
        turn = session.interrupted
        if turn is None:
            return None
        if how == "keep":
            turn.keep(timeout=timeout)
            return f"kept the turn of {turn.holder}"
        rotated = turn.roll_back(timeout=timeout)
        where = f"; the old file is kept as {rotated}" if rotated else "; it had written nothing"
        return f"rolled back the turn of {turn.holder}{where}"


def _tell_plan(findings: tuple[Finding, ...]) -> None:
    plans = [finding for finding in findings if finding.remedy or finding.problem]
    for finding in plans:
        click.echo(describe(finding), color=decorated())
    if not plans:
        click.echo("nothing to settle")
    if any(finding.problem for finding in plans):
        click.get_current_context().exit(Exit.OFF)


def _tell_outcome(
    before: tuple[Finding, ...],
    after: tuple[Finding, ...],
    repairs: list[Repair],
    turn: str | None,
) -> None:
    still = {finding.code for finding in after}
    for repair in repairs:
        click.echo(f"settled: {printable(str(repair))}")
    done = [
        finding
        for finding in before
        if finding.remedy
        and finding.code not in still
        and not (repairs and finding.code == "unfinished-append")
    ]
    for finding in done:
        click.echo(f"settled: {printable(f'{finding.text}; {finding.remedy}')}")
    if turn is not None:
        click.echo(f"settled: {printable(turn)}")
    for finding in after:
        if finding.problem:
            click.echo(describe(finding), color=decorated())
    if not repairs and not done and turn is None and not any(finding.problem for finding in after):
        click.echo("nothing to settle")
