"""Where a session comes from: a diary of its replaces and forks, `context.jsonl.lineage`.

1. One JSON object a line, appended in one write, never rewritten. It is no truth that anything
   rests on: it may be deleted, and what can't be read in it is skipped.
2. A replace is written down right before the new file takes the name. So each one that happened is
   in it, and maybe one that didn't: an entry counts if the file that it names is there, and if no
   later entry is about the same generation.
3. It tells people who reverted what, and `fork` which rotated file holds an older generation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from . import _json as json
from . import _platform, files
from .card import from_json, own_card, to_json
from .records import Holder, Revision
from .values import value


@value
class Replaced:
    """The file was replaced by a new one."""

    generation: int
    """The one that began with it."""
    ended: Revision
    """Where the one before ended."""
    kept: int
    """How many bytes at the start the two have in common."""
    rotated: str
    """Where the old file is kept, as a path."""
    by: Holder
    """Who did it: `operation` says what, `since` when."""


@value
class Forked:
    """Another session began with a copy of this one."""

    path: str
    """The other session's file."""
    at: Revision
    """Where it left this one."""
    by: Holder


Entry = Replaced | Forked


def path_of(session: str) -> str:
    """Where the diary of the session at a resolved path lies."""
    return f"{session}.lineage"


def write_replaced(
    session: str, operation: str, ended: Revision, kept: int, rotated: str, like: os.stat_result
) -> None:
    """Note a replace that is about to happen."""
    entry = {
        "generation": ended.generation + 1,
        "ended": str(ended),
        "kept": kept,
        "rotated": os.path.basename(rotated),
    }
    _write(session, entry | to_json(own_card(operation)), like)


def write_forked(session: str, fork: str, at: Revision, like: os.stat_result) -> None:
    """Note a fork that has been made."""
    entry = {"fork": named_from(session, fork), "at": str(at)}
    _write(session, entry | to_json(own_card("fork")), like)


def read(session: str) -> list[Entry]:
    """What the diary of the session at a resolved path says, oldest first."""
    found: dict[object, Entry] = {}
    for entry in _entries(session):
        if isinstance(entry, Replaced):
            found.pop(entry.generation, None)  # it never came to that one
            if os.path.exists(entry.rotated):
                found[entry.generation] = entry
        elif entry is not None:
            found[entry.path, entry.at] = entry
    return list(found.values())


def file_of(session: str, revision: Revision) -> str | None:
    """The rotated file that holds an older revision; `None` if nobody knows of one."""
    for entry in read(session):
        if (
            isinstance(entry, Replaced)
            and entry.ended.generation == revision.generation
            and entry.ended >= revision
        ):
            return entry.rotated
    return None


def named_from(session: str, other: str) -> str:
    """How one session's files name another one: by name alone within a folder."""
    folder, name = os.path.split(other)
    return name if folder == os.path.dirname(session) else other


def path_from(session: str, name: str) -> str:
    """The path that `named_from` made a name of."""
    return os.path.join(os.path.dirname(session), name)


def _write(session: str, entry: dict[str, object], like: os.stat_result) -> None:
    fd = _platform.open_file(path_of(session), os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            _platform.copy_owner(fd, like)
        cut_short = size and _platform.pread(fd, 1, size - 1) != b"\n"
        files.write_all(fd, b"\n" * bool(cut_short) + json.dumps(entry).encode() + b"\n")
    finally:
        os.close(fd)


def _entries(session: str) -> Iterator[Entry | None]:
    try:
        fd = _platform.open_file(path_of(session), os.O_RDONLY)
        try:
            data = files.read_all(fd, 0, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError:
        return
    for line in data.splitlines():
        try:
            yield _entry(session, json.loads(line)) if line else None
        except (ValueError, RecursionError):
            continue


def _entry(session: str, value: Any) -> Entry | None:
    match value:
        case {
            "generation": int(generation),
            "ended": str(ended),
            "kept": int(kept),
            "rotated": str(rotated),
            **card,
        }:
            where = path_from(session, rotated)
            by = from_json(card) or Holder(0)
            return Replaced(generation, Revision.parse(ended), kept, where, by)
        case {"fork": str(fork), "at": str(at), **card}:
            by = from_json(card) or Holder(0)
            return Forked(path_from(session, fork), Revision.parse(at), by)
    return None
