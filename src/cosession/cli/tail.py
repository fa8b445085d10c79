"""`cosession tail`: the end of the conversation, and what comes, as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

import click

from ..blocking import BlockingSession
from ..errors import SessionMissing
from ..follow import HEARTBEAT
from ..inspect import Inspection
from ..messages import Message
from .conversation import Conversation, Item, Row
from .live import (
    Live,
    as_json,
    card_as_json,
    has_the_turn,
    name_of,
    records_as_json,
    tail_of,
)
from .options import common, file_argument, settings
from .output import complain, decorated, write_json
from .paint import glyphs, item_of, painter


@click.command(
    epilog="""\b
Examples:
  $ cosession tail context.jsonl
  $ cosession tail -n 3 --full context.jsonl
  $ cosession tail --json context.jsonl

With -f it goes on until Ctrl-C (status 130), and tells what anybody does to the session: what they
write, reverts, clears, rewrites, and whose turn it is. A file that isn't there yet is waited for.
It takes no lock and changes nothing. With `pip install cosession[follow]` it wakes at once,
otherwise within a quarter of a second.

With --json the first object is what is there, {"change": "history", ...}; with -f there follows
one for each change.
"""
)
@file_argument
@click.option("-f", "--follow", is_flag=True, help="Go on, and show what comes as it comes.")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Begin with the last N messages.",
)
@click.option("--full", is_flag=True, help="Unfold tool calls, their results, thoughts, prompts.")
@click.option("--json", "json_", is_flag=True, help="One JSON object for each change.")
@common
def tail(file: str, follow: bool, last: int, full: bool, json_: bool) -> None:
    """Show the end of the conversation, and what comes.

    Tool calls and their results are folded, as `cosession show` does it.
    """
    if not follow:
        _show_end(file, last, full, json_)
        return
    session = _opened(file)
    try:
        _follow(session, last, full, json_)
    finally:
        session.close()


class _Screen:
    """Standard output, for people."""

    def __init__(self, full: bool) -> None:
        self.conversation = Conversation(full=full, glyphs=glyphs())
        self._write = painter()
        self._empty = True

    def show(self, rows: Iterable[Row]) -> None:
        found = list(rows)
        if found and self._empty:
            self._empty = False
            if not found[0].text:
                del found[0]
        if found:
            click.echo(self._write(found), nl=False, color=decorated())


def _show_end(file: str, last: int, full: bool, json_: bool) -> None:
    with Inspection(file, lock_dir=settings().lock_dir, patience=0.02) as inspection:
        lines = inspection.lines(start=inspection.start_of_last(last))
        found = ((item_of(line), line) for line in lines if not line.pending)
        if json_:
            items = [item for item, _ in found if item is not None]
            _write_history(inspection.revision, items)
            return
        screen = _Screen(full)
        for item, line in found:
            if item is not None:
                screen.show(screen.conversation.rows(item, line.raw))


def _write_history(revision: object, records: Sequence[Item]) -> None:
    entry: dict[str, object] = {"change": "history"}
    entry["revision"] = None if revision is None else str(revision)
    write_json(entry | {"records": records_as_json(records)})


def _opened(file: str) -> BlockingSession[Message]:
    """The session, once its file is there. Its folder must be."""
    session = BlockingSession(file, read_only=True, lock_dir=settings().lock_dir)
    told = False
    while True:
        try:
            session.open()
            return session
        except SessionMissing:
            if not os.path.isdir(os.path.dirname(session.path)):
                raise
        if not told:
            complain(f"{file}: waiting for it to appear ... (Ctrl-C gives up)")
        told = True
        time.sleep(HEARTBEAT)


def _follow(session: BlockingSession[Message], last: int, full: bool, json_: bool) -> None:
    changes = session.follow()  # from here on; what is there already comes first
    history = session.history
    records = tail_of(session._state.records_since(0, session._codec.decode), last)
    holder, interrupted = session.holder, session.interrupted
    if json_:
        _write_history(session.revision, records)
        if holder is not None:
            write_json({"change": "turn began", **card_as_json(holder)})
        for change in changes:
            write_json(as_json(change))
        return
    screen = _Screen(full)
    live = Live(screen.conversation, history, last=last)
    for record in records:
        screen.show(screen.conversation.rows(record))
    if holder is not None:
        screen.show(screen.conversation.event(has_the_turn(holder)))
    if interrupted is not None:
        who = name_of(interrupted.holder)
        screen.show(screen.conversation.event(f"the turn of {who} was interrupted"))
    for change in changes:
        screen.show(live.rows(change))
