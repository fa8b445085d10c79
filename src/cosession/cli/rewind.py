"""`cosession revert`, `restore` and `clear`: each puts a new file in the old one's place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import click

from ..blocking import BlockingSession
from ..codec import Checkpoint
from ..records import Revision
from .options import Settings, common, durability, file_argument, join_turn, settings, writing
from .output import complain, patience, write_path

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_QUICKLY_READ = 32 << 20
"""Bytes of a file that are read while somebody presses TAB."""


def _checkpoints(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The checkpoints of the file that was named before, for the shell's completion."""
    from click.shell_completion import CompletionItem

    from ..errors import CosessionError
    from ..inspect import Inspection

    file = ctx.params.get("file")
    chosen = ctx.find_root().ensure_object(Settings)
    try:
        if not file or os.path.getsize(file) > _QUICKLY_READ:
            return []
        with Inspection(file, lock_dir=chosen.lock_dir, patience=0) as inspection:
            numbers = [
                str(line.record.id)
                for line in inspection.lines()
                if isinstance(line.record, Checkpoint)
            ]
    except (CosessionError, OSError):
        return []
    return [CompletionItem(number) for number in numbers if number.startswith(incomplete)]


@click.command(
    epilog="""\b
Example:
  $ cosession revert context.jsonl 2

`cosession show` shows the checkpoints that there are.
"""
)
@file_argument
@click.argument("checkpoint", metavar="N", type=int, shell_complete=_checkpoints)
@writing
@durability
@common
def revert(
    file: str,
    checkpoint: int,
    timeout: float | None,
    expect: Revision | None,
    durability: Literal["process", "power"],
) -> None:
    """Go back to a checkpoint; the old file is kept.

    Drops checkpoint N and everything behind it. Prints where the old file was kept.
    """
    lock_dir = settings().lock_dir
    session = BlockingSession(file, durability=durability, create=False, lock_dir=lock_dir)
    join_turn(session)
    with patience(file, lock_dir, "reverting"), session:
        rotated = session.revert_to(checkpoint, timeout=timeout, expect=expect)
    write_path(rotated)


@click.command(
    epilog="""\b
Examples:
  $ cosession revert context.jsonl 2
  $ cosession restore context.jsonl 1

N is that of the rotated file: 3 for context_3.jsonl. `cosession log` tells which there are.
"""
)
@file_argument
@click.argument("number", metavar="N", type=int)
@writing
@durability
@common
def restore(
    file: str,
    number: int,
    timeout: float | None,
    expect: Revision | None,
    durability: Literal["process", "power"],
) -> None:
    """Bring a rotated file back: the undo of a revert.

    The rotated file stays as it is. Prints where the file was kept that was there before.
    """
    lock_dir = settings().lock_dir
    session = BlockingSession(file, durability=durability, create=False, lock_dir=lock_dir)
    join_turn(session)
    with patience(file, lock_dir, "restoring"), session:
        rotated = session.restore(number, timeout=timeout, expect=expect)
    write_path(rotated)


@click.command(
    epilog="""\b
Example:
  $ cosession clear context.jsonl
"""
)
@file_argument
@writing
@durability
@common
def clear(
    file: str,
    timeout: float | None,
    expect: Revision | None,
    durability: Literal["process", "power"],
) -> None:
    """Start over; the old file is kept.

    Prints where the old file was kept; nothing if there was nothing in it.
    """
    lock_dir = settings().lock_dir
    session = BlockingSession(file, durability=durability, create=False, lock_dir=lock_dir)
    join_turn(session)
    with patience(file, lock_dir, "clearing"), session:
        rotated = session.clear(timeout=timeout, expect=expect)
    if rotated is None:
        complain(f"{file}: it was empty already")
    else:
        write_path(rotated)
