"""`cosession fork`: a new session from the beginning of another one."""

from __future__ import annotations

from typing import Any

import click

from ..blocking import BlockingSession
from ..records import Revision
from .options import common, durability, file_argument, settings
from .output import write_path


def _as_place(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | Revision | None:
    """A checkpoint or a revision."""
    try:
        if value is None or ":" in value:
            return None if value is None else Revision.parse(value)
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a checkpoint nor a revision.") from None


@click.command(
    epilog="""\b
Examples:
  $ cosession fork context.jsonl
  $ cosession fork context.jsonl idea.jsonl --at 2

The session itself stays as it is, and others may go on writing to it. A revision may be one before
a revert: its records are then taken from the rotated file (see `cosession log`).
"""
)
@file_argument
@click.argument("new", type=click.Path(), required=False)
@click.option(
    "--at",
    callback=_as_place,
    metavar="PLACE",
    help="Up to where: a checkpoint, which stays out, or a revision.  [default: all of it]",
)
@durability
@common
def fork(file: str, new: str | None, at: int | Revision | None, durability: Any) -> None:
    """Make a new session of the beginning of one.

    NEW is the new session's file; without it, it is called FILE.fork-1, FILE.fork-2, … with the
    suffix of FILE at the end. Prints its path.
    """
    session = BlockingSession(
        file, durability=durability, create=False, lock_dir=settings().lock_dir
    )
    with session:
        write_path(session.fork(new, at=at).path)
