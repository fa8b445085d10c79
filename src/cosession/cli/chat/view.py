"""What anybody does to the session, this terminal included, as text in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ...changes import Change, TurnBegan, TurnEnded
from ...messages import Message
from ...records import Revision, TurnCard
from ...session import Session
from ..conversation import Conversation, Row
from ..live import Live
from ..paint import Writer, glyphs


class LiveView:
    """Writes the changes of a session, and knows how far it has come."""

    def __init__(
        self,
        session: Session[Message],
        render: Writer,
        write: Callable[[str], None],
        when_a_turn_begins: Callable[[TurnCard], object],
    ) -> None:
        self._session = session
        self._conversation = Conversation(glyphs=glyphs())
        self._live = Live(self._conversation, session.history)
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
            what = "earlier message" if earlier == 1 else "earlier messages"
            path = self._session.path
            self._put(self._conversation.event(f"{earlier:,} {what}: cosession show {path}"))
        for message in recent:
            self._put(self._conversation.rows(message))

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
            case TurnEnded():
                self.turn = None
            case _:
                self._put(self._live.rows(change))
                self.shown = change.revision

    def _put(self, rows: Iterable[Row]) -> None:
        if found := list(rows):
            self._write(self._render(found))
