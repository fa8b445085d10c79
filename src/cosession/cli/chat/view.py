"""What anybody does to the session, this terminal included, as text in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...changes import Appended, Change, Cleared, Reverted, Rewritten, TurnBegan, TurnEnded
from ...codec import MessageLine
from ...inspect import Line
from ...messages import Message
from ...records import Damage, Revision, TurnCard
from ...session import Session
from ..conversation import Conversation, Glyphs, Row
from ..output import printable
from ..show import Writer

_LATEST = 10
"""How many messages of a session are shown that has become another one."""


class LiveView:
    """Writes the changes of a session, and knows how far it has come."""

    def __init__(
        self,
        session: Session[Message],
        render: Writer,
        write: Callable[[str], None],
        glyphs: Glyphs,
        when_a_turn_begins: Callable[[TurnCard], object],
    ) -> None:
        self._session = session
        self._conversation = Conversation(glyphs=glyphs)
        self._glyphs = glyphs
        self._render = render
        self._write = write
        self._when_a_turn_begins = when_a_turn_begins
        self._moved = asyncio.Condition()
        self.shown = session.revision
        """Up to where the user has seen the session."""
        self.turn: TurnCard | None = None
        """The turn that is on, or was interrupted."""

    def show_last(self, count: int) -> None:
        """Write the last messages that are there already, and how many there are before them."""
        if not count:
            return
        history = self._session.history
        recent = history[len(history) - min(count, len(history)) :]
        if earlier := len(history) - len(recent):
            earlier_ones = _count(earlier, "earlier message")
            self._mark(f"{earlier_ones}: cosession show {printable(str(self._session.path))}")
        self._records(recent)

    async def follow(self) -> None:
        """Write what happens, until it is cancelled. Begins with what `session` knows by now."""
        async for change in self._session.follow():
            self._show(change)
            async with self._moved:
                self._moved.notify_all()

    async def caught_up(self, revision: Revision) -> None:
        """Come back when everything up to there is written."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.shown >= revision)

    def _show(self, change: Change) -> None:
        match change:
            case TurnBegan(card):
                self.turn = card
                self._when_a_turn_begins(card)
                return
            case TurnEnded():
                self.turn = None
                return
            case Appended(records):
                self._records(records)
            case Reverted(kept, records):
                self._mark(f"taken back, to the first {_count(kept, 'message')}")
                self._records(records)
            case Cleared():
                self._mark("cleared")
            case Rewritten(records):
                self._mark(f"rewritten: {_count(len(records), 'record')}")
                self._records(records[-_LATEST:])
        self.shown = change.revision

    def _records(self, records: Iterable[Any]) -> None:
        if rows := [row for record in records for row in self._rows(record)]:
            self._write(self._render(rows))

    def _rows(self, record: Any) -> Iterator[Row]:
        if isinstance(record, Damage):
            yield Row(0, ((f"{self._glyphs.damaged} damaged line: {record}", "damaged"),))
        elif isinstance(record, Message):
            yield from self._conversation.rows(Line(0, 0, b"", MessageLine(b""), record))
        else:
            yield from self._conversation.rows(Line(0, 0, b"", record))

    def _mark(self, text: str) -> None:
        self._write(self._render([Row(0, ((f"{self._glyphs.mark} {text}", "dim"),))]))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
