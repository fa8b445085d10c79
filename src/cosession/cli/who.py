"""`cosession who`: which terminals are on a session, and whose turn it is."""

from __future__ import annotations

import click

from ..blocking import BlockingSession
from ..records import Holder
from .exits import Exit
from .live import card_as_json
from .options import common, file_argument, settings
from .output import complain, printable, write_json
from .words import elapsed
from .words import who as in_words


@click.command(
    epilog="""\b
Examples:
  $ cosession who context.jsonl || true
  $ cosession who --json context.jsonl || true

A terminal is on the list while it is in `session.present()`, and off it as soon as it dies. The
exit status is 1 if nobody is there.
"""
)
@file_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common
def who(file: str, as_json: bool) -> None:
    """Tell which terminals are on the session, and whose turn it is.

    Takes no lock, and works while others write.
    """
    with BlockingSession(file, read_only=True, lock_dir=settings().lock_dir) as session:
        terminals, waiting = session.terminals(), session.waiting()
        holder, interrupted = session.holder, session.interrupted
    if as_json:
        write_json(
            {
                "terminals": [card_as_json(terminal) for terminal in terminals],
                "turn": card_as_json(holder) if holder else None,
                "waiting": [card_as_json(waiter) for waiter in waiting],
                "interrupted": card_as_json(interrupted.holder) if interrupted else None,
            }
        )
    else:
        _print(terminals, holder, waiting)
        if interrupted is not None:
            complain(
                f"{file}: the turn of {interrupted.holder} was interrupted",
                hint="`cosession heal --turn keep` or `--turn roll-back` settles it",
            )
    if not (terminals or waiting or holder):
        if not as_json:
            complain(f"{file}: nobody is there")
        click.get_current_context().exit(Exit.OFF)


def _print(terminals: list[Holder], holder: Holder | None, waiting: list[Holder]) -> None:
    for terminal in terminals:
        click.echo(_described(terminal, terminal.operation))
    if holder is not None:
        click.echo(_described(holder, "has the turn", holder.operation))
    for waiter in waiting:
        click.echo(_described(waiter, "waits for the turn", waiter.operation))


def _described(holder: Holder, *what: str) -> str:
    words = ": ".join(word for word in what if word)
    since = f"for {elapsed(holder.since)}"
    return printable(", ".join(part for part in (in_words(holder), words, since) if part))
