"""`cosession checkpoint`."""

from __future__ import annotations

from typing import Literal

import click

from ..blocking import BlockingSession
from ..records import Revision
from .options import common, durability, file_argument, join_turn, settings, writing
from .output import patience


@click.command(
    epilog="""\b
Example:
  $ mark=$(cosession checkpoint context.jsonl)
  $ cosession revert context.jsonl "$mark"
"""
)
@file_argument
@writing
@durability
@common
def checkpoint(
    file: str,
    timeout: float | None,
    expect: Revision | None,
    durability: Literal["process", "power"],
) -> None:
    """Set a mark to revert to, and print its number.

    Two processes never get the same number. The file is created if it is missing.
    """
    lock_dir = settings().lock_dir
    session = BlockingSession(file, durability=durability, lock_dir=lock_dir)
    join_turn(session)
    with patience(file, lock_dir, "setting a checkpoint"), session:
        number = session.checkpoint(timeout=timeout, expect=expect)
    click.echo(str(number))
