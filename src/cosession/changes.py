"""What a follower is told. Pure.

Told in order, and folded, the changes are the session: `Appended` adds records, `Reverted` drops
all but the first messages and adds, `Rewritten` starts anew, `Cleared` leaves nothing.
"""

from __future__ import annotations

from typing import Any

from .history import Decoder
from .records import Revision, TurnCard
from .state import State
from .values import frozen


@frozen
class Appended:
    """Records came in behind what was there."""

    records: tuple[Any, ...]
    """In their order: messages of the session's type; `Checkpoint`, `Usage`, `SystemPrompt` and
    `Origin` and `Unknown` for records of other kinds; `Damage` for lines that hold none.
    """
    revision: Revision


@frozen
class Reverted:
    """The end was taken off, and then `records` came in."""

    messages_kept: int
    """How many of the messages stay."""
    records: tuple[Any, ...]
    revision: Revision


@frozen
class Cleared:
    """Nothing is left."""

    revision: Revision


@frozen
class Rewritten:
    """The session is another one: these are all its records. Compaction does that."""

    records: tuple[Any, ...]
    revision: Revision


@frozen
class TurnBegan:
    """Another terminal, or this one, has the turn."""

    card: TurnCard


@frozen
class TurnEnded:
    """The turn is over. One that was interrupted is over when somebody has settled it."""

    card: TurnCard


Change = Appended | Reverted | Cleared | Rewritten | TurnBegan | TurnEnded


def change_between(
    old: State, old_revision: Revision, new: State, revision: Revision, kept: int, decode: Decoder
) -> Change | None:
    """What leads from one state to a later one; `None` if nothing does.

    `kept` is how many bytes the new generation shares with the one before it.
    """
    if revision == old_revision:
        return None
    if revision.generation == old_revision.generation and new.position > old.position:
        return Appended(new.records_since(old.position, decode), revision)
    if new.position == 0:
        return Cleared(revision)
    follows = revision.generation == old_revision.generation + 1 and old_revision.generation
    if follows and kept:
        if kept >= old.position:  # what was dropped had not been told
            return Appended(new.records_since(old.position, decode), revision)
        stays = len(new.truncated(kept).messages(decode))
        return Reverted(stays, new.records_since(kept, decode), revision)
    return Rewritten(new.records_since(0, decode), revision)
