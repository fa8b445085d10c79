"""`cosession log`: where a session comes from, who replaced it, and what can be gone back to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from .. import _platform, files, lineage
from ..card import to_json
from ..codec import Checkpoint, MessageLine, Origin, classify
from ..inspect import Inspection
from ..lineage import Forked, Replaced
from ..records import Holder
from .options import common, file_argument, settings
from .output import printable, write_json
from .words import clock, who


@dataclass(frozen=True, slots=True)
class _Event:
    """One line of the log."""

    what: str
    text: str
    facts: dict[str, Any]
    when: float = 0.0
    """Seconds since the epoch; 0 if nobody knows."""
    by: Holder | None = None


@click.command(
    epilog="""\b
Examples:
  $ cosession log context.jsonl
  $ cosession restore context.jsonl 2
  $ cosession fork context.jsonl --at 2

The oldest comes first. A rotated file that cosession did not write down was made by another
program. It never changes anything.
"""
)
@file_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each event.")
@common
def log(file: str, as_json: bool) -> None:
    """List reverts, rotated files, forks and checkpoints: the lineage.

    It tells what can be gone back to: a rotated file with `restore`, a checkpoint with `revert`,
    each revision with `fork`.
    """
    with Inspection(file, lock_dir=settings().lock_dir, patience=0.02) as inspection:
        path = inspection.path
        past = sorted((*_rotated(path), *_forks(path)), key=lambda event: event.when)
        for event in (*past, *_present(inspection)):
            if as_json:
                write_json(_as_json(event))
            else:
                click.echo(_line(event))


def _line(event: _Event) -> str:
    when = clock(event.when) if event.when else ""
    by = f"  ({who(event.by)})" if event.by else ""
    return printable(f"{when:<20}{event.what:<18}{event.text}{by}".rstrip())


def _as_json(event: _Event) -> dict[str, object]:
    facts = {"event": event.what, **event.facts}
    if event.when:
        facts["when"] = event.when
    if event.by:
        facts["by"] = to_json(event.by)
    return facts


# ---- the past -------------------------------------------------------------------------------


def _rotated(path: str) -> Iterator[_Event]:
    """What each rotated file was kept for."""
    known = {e.rotated: e for e in lineage.read(path) if isinstance(e, Replaced)}
    for number, rotated in files.rotations(path):
        name = os.path.basename(rotated)
        entry = known.get(rotated)
        if entry is None:
            facts = {"rotated": name, "number": number}
            # A rename leaves the time of the last write: it was rotated then, or later.
            when = os.stat(rotated).st_mtime
            yield _Event("rotated", f"{name}, by a program without cosession", facts, when)
            continue
        gone = _messages_behind(rotated, entry.kept, entry.ended.position)
        text = f"{gone:,} message{'' if gone == 1 else 's'} left the session; it is kept as {name}"
        facts = {
            "rotated": name,
            "number": number,
            "messages": gone,
            "ended": str(entry.ended),
            "kept": entry.kept,
        }
        yield _Event(entry.by.operation or "replaced", text, facts, entry.by.since, entry.by)


def _messages_behind(path: str, start: int, stop: int) -> int:
    """How many messages a file has between two ends of lines."""
    fd = _platform.open_file(path, os.O_RDONLY)
    try:
        return sum(
            isinstance(classify(line), MessageLine)
            for piece in files.read_lines(fd, start, stop)
            for line in piece.split(b"\n")
        )
    finally:
        os.close(fd)


def _forks(path: str) -> Iterator[_Event]:
    for entry in lineage.read(path):
        if isinstance(entry, Forked):
            name = lineage.named_from(path, entry.path)
            gone = "" if os.path.exists(entry.path) else ", which is gone"
            facts = {"fork": entry.path, "at": str(entry.at)}
            text = f"{name}{gone}, at {entry.at}"
            yield _Event("fork", text, facts, entry.by.since, entry.by)


# ---- the present ----------------------------------------------------------------------------


def _present(inspection: Inspection) -> Iterator[_Event]:
    """What the file itself tells, in its order."""
    messages = 0
    for line in inspection.lines():
        match line.record:
            case MessageLine() if line.message is not None:
                messages += 1
            case Origin(parent, at):
                text = f"from {parent}, at {at}: {messages:,} messages before it"
                facts = {"parent": lineage.path_from(inspection.path, parent), "at": at}
                yield _Event("forked", text, facts)
            case Checkpoint(number):
                text = f"behind {messages:,} message{'' if messages == 1 else 's'}"
                yield _Event(
                    "checkpoint", f"{number}, {text}", {"checkpoint": number, "messages": messages}
                )
    revision = inspection.revision
    text = f"{messages:,} message{'' if messages == 1 else 's'}"
    if revision is not None:
        text += f", revision {revision}"
    yield _Event("now", text, {"messages": messages, "revision": revision and str(revision)})
