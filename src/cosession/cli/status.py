"""`cosession status`: where a session stands, and who is doing what with it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import click

from .. import files
from ..blocking import BlockingSession
from ..lock import LockFile
from ..records import Holder, Revision, TurnCard, TurnStatus
from .exits import Exit
from .live import card_as_json
from .options import common, file_argument, settings
from .output import printable, write_json
from .words import elapsed, who


@dataclass(frozen=True, slots=True)
class _Status:
    """All that there is to say."""

    path: str
    revision: Revision
    messages: int
    damaged: int
    token_count: int
    checkpoints: Sequence[int]
    rotations: Sequence[str]
    turn: TurnStatus | None
    interrupted: TurnCard | None
    terminals: Sequence[Holder]
    writer: Holder | None
    """Who has the lock at this moment."""


@click.command(
    epilog="""\b
Examples:
  $ cosession status context.jsonl
  $ cosession status --json context.jsonl | jq .turn.holder

It waits for nobody and changes nothing. Exit status 1 means that a terminal died in its turn, and
that nobody has settled that yet.
"""
)
@file_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common
def status(file: str, as_json: bool) -> None:
    """Tell where a session stands, whose turn it is and who waits."""
    found = _look(file)
    if as_json:
        write_json(_as_json(found))
    else:
        for name, text in _rows(found):
            click.echo(f"{name:<12} {printable(text)}")
    if found.interrupted:
        click.get_current_context().exit(Exit.OFF)


def _look(file: str) -> _Status:
    lock_dir = settings().lock_dir
    with BlockingSession(file, read_only=True, lock_dir=lock_dir) as session:
        turn = session.turn_status()
        interrupted = None if turn else session.interrupted
        path = str(session.path)
        return _Status(
            path=path,
            revision=session.revision,
            messages=len(session.history),
            damaged=len(session.damage),
            token_count=session.token_count,
            checkpoints=session.checkpoints,
            rotations=[rotated for _, rotated in files.rotations(path)],
            turn=turn,
            interrupted=interrupted.card if interrupted else None,
            terminals=session.terminals(),
            writer=LockFile(files.lock_path(path, lock_dir), beside=path).holder(),
        )


def _rows(found: _Status) -> Iterator[tuple[str, str]]:
    yield "session", found.path
    yield "revision", str(found.revision)
    yield "messages", _counted(found.messages, "message") + _also(found)
    if found.rotations:
        newest = os.path.basename(found.rotations[-1])
        yield "rotated", f"{_counted(len(found.rotations), 'file')}, the newest {newest}"
    yield from _turn_rows(found)
    if found.terminals:
        for number, card in enumerate(found.terminals):
            label = f": {card.operation}" if card.operation else ""
            yield "" if number else "terminals", f"{who(card)}{label}, for {elapsed(card.since)}"
    if found.writer:
        yield "writing", str(found.writer)


def _also(found: _Status) -> str:
    parts = [f"{found.token_count:,} tokens"] if found.token_count else []
    if found.checkpoints:
        parts.append(f"{_counted(len(found.checkpoints), 'checkpoint')}")
    if found.damaged:
        parts.append(f"{_counted(found.damaged, 'damaged line')}")
    return "".join(f", {part}" for part in parts)


def _turn_rows(found: _Status) -> Iterator[tuple[str, str]]:
    if found.interrupted is not None:
        card = found.interrupted
        label = f" ({card.holder.operation})" if card.holder.operation else ""
        ago = elapsed(card.holder.since)
        yield "turn", f"INTERRUPTED: {who(card.holder)}{label} died in it; it began {ago} ago"
    elif found.turn is None:
        yield "turn", "nobody's"
    else:
        holder, records = found.turn.holder, found.turn.records
        label = f": {holder.operation}" if holder.operation else ""
        far = "it has replaced the file" if records is None else _counted(records, "record")
        yield "turn", f"{who(holder)}{label}, for {elapsed(holder.since)}, {far} so far"
        for number, one in enumerate(found.turn.waiting):
            wants = f": {one.operation}" if one.operation else ""
            yield "" if number else "waiting", f"{who(one)}{wants}, for {elapsed(one.since)}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _as_json(found: _Status) -> dict[str, object]:
    turn, interrupted = found.turn, found.interrupted
    return {
        "path": found.path,
        "revision": str(found.revision),
        "messages": found.messages,
        "damaged": found.damaged,
        "token_count": found.token_count,
        "checkpoints": list(found.checkpoints),
        "rotations": list(found.rotations),
        "turn": turn
        and {
            "holder": card_as_json(turn.holder),
            "began": str(turn.began),
            "records": turn.records,
            "waiting": [card_as_json(card) for card in turn.waiting],
        },
        "interrupted": interrupted
        and {"holder": card_as_json(interrupted.holder), "began": str(interrupted.began)},
        "terminals": [card_as_json(card) for card in found.terminals],
        "writing": found.writer and asdict(found.writer),
    }
