"""A question and its answer: one turn of this terminal.

1. The turn begins, then a checkpoint and the question go in, in one operation. The agent starts
   when the user has seen all that was written before, and gets the history as it is then.
2. Each record that the agent prints is appended as it comes, durable and visible to everybody.
3. Somebody may ask for the turn. It is handed over when what the agent has printed is written and
   no tool call waits for its result. The agent goes on, and what it prints meanwhile waits behind
   the other's turn. If that took the question back, the answer is shown and not written.
4. Whatever ends the agent, each tool call of the turn has a result when the turn ends, so that a
   model's API takes the history.

**Cancellation** gives up the wait for the turn, or stops the agent and ends the turn. **Crash**: an
interrupted turn is left, which the next one finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from typing import Any, Protocol

from ..._base import INTERRUPTED
from ...errors import InvalidMessage, TurnInterrupted, TurnOver
from ...event_loop import uncancelled
from ...messages import Message
from ...session import Session
from ...turn import Turn
from .agent import Agent, AgentFailed, Run, document
from .people import People
from .view import LiveView

_LOOK = 0.2
"""Seconds between two looks whether somebody asks for the turn."""

_LABEL_LENGTH = 40


class Surroundings(Protocol):
    """What an exchange needs of the chat that it is part of."""

    session: Session[Message]
    agent: Agent
    people: People
    view: LiveView

    def tell(self, text: str) -> None:
        """Tell the user, and nobody else."""

    def waiting(self) -> AbstractContextManager[None]:
        """While the block lasts, another terminal has the turn."""

    def answering(self) -> AbstractContextManager[None]:
        """While the block lasts, the agent is at work."""

    async def settle(self) -> None:
        """Have it decided what becomes of an interrupted turn, if there is one."""


class Exchange:
    """One question on its way."""

    def __init__(self, chat: Surroundings, question: Message) -> None:
        self._chat = chat
        self._session = chat.session
        self._question = question
        self._run: Run | None = None
        self._place = -1
        """How many messages are before the question, once it is its turn."""
        self._over = False

    @property
    def asked(self) -> bool:
        """Whether the question is in the session."""
        history = self._session.history
        return 0 <= self._place < len(history) and history[self._place] == self._question

    async def take_place(self) -> None:
        """Ask, and write down the answer. Waits for others' turns.

        Raises:
            AgentFailed: The agent ended badly. The turn has been ended all the same.
        """
        label = f"answering {_short(self._question.content)}"
        try:
            while not self._over:
                await self._chat.settle()
                with suppress(TurnInterrupted):  # it is settled in the next round
                    async with AsyncExitStack() as stack:
                        with self._chat.waiting():
                            turn = await stack.enter_async_context(self._session.turn(label))
                        await self._go_on(turn)
        finally:
            if self._run is not None:
                await uncancelled(self._run.stop())
        if self._run is not None and self._run.failure:
            raise AgentFailed(self._run.failure)

    async def _go_on(self, turn: Turn[Message]) -> None:
        """The first part of the exchange, or one after the turn was handed over."""
        if self._run is None:
            await self._ask(turn)
            self._run = await self._chat.agent.start(
                await document(self._session, "answer"), self._chat.tell
            )
        try:
            with self._chat.answering():
                await self._listen(turn, self._run)
        except TurnInterrupted:
            raise  # while the turn was handed over, another terminal died in its own
        except BaseException:
            await uncancelled(self._end(turn, await uncancelled(self._run.stop())))
            raise
        await uncancelled(self._end(turn, ()))
        self._over = True

    async def _ask(self, turn: Turn[Message]) -> None:
        self._place = len(self._session.history)
        await turn.checkpoint(then=lambda _: self._question)
        await self._chat.view.caught_up(self._session.revision)

    # ---- the agent at work ------------------------------------------------------------------

    async def _listen(self, turn: Turn[Message], run: Run) -> None:
        """Write down what the agent prints, until it ends."""
        while True:
            if not self.asked:
                await self._drop(run)
                return
            if run.output.empty() and turn.requested and not self._open_calls():
                await self._hand_over(turn)
                continue
            try:
                async with asyncio.timeout(_LOOK):
                    record = await run.output.get()
            except TimeoutError:
                continue
            if record is None:
                return
            await uncancelled(self._write(turn, record))  # or its call or result would be missing

    async def _write(self, turn: Turn[Message], record: dict[str, Any]) -> None:
        try:
            match record:
                case {"role": "_usage", "token_count": count}:
                    await turn.record_usage(count)
                case {"role": str(role)} if role.startswith("_"):
                    self._chat.tell(f"agent: a record {role} is not for an agent to write")
                case _:
                    await turn.append(record)
        except InvalidMessage as error:
            self._chat.tell(f"agent: {error}")

    async def _hand_over(self, turn: Turn[Message]) -> None:
        asking = turn.requested
        if asking is not None:
            await self._chat.people.look()
            self._chat.tell(
                f"{self._chat.people.name(asking)} asks for the turn: handed over. The agent goes "
                "on, and its answer comes behind"
            )
        with self._chat.waiting():
            await turn.hand_over()
        await self._chat.view.caught_up(self._session.revision)

    async def _drop(self, run: Run) -> None:
        """The question is gone, and with it the place for an answer."""
        self._chat.tell("the question was taken back: its answer is not written")
        self._show(await uncancelled(run.stop()))

    async def _end(self, turn: Turn[Message], left: Iterable[dict[str, Any]]) -> None:
        """Write what the agent has printed yet, and close the tool calls that it leaves open."""
        left = list(left)
        try:
            while left:
                await self._write(turn, left[0])
                del left[0]
            if calls := self._open_calls():
                await turn.append(
                    [
                        {"role": "tool", "tool_call_id": call, "content": INTERRUPTED}
                        for call in calls
                    ]
                )
        except TurnOver:
            if left:
                self._chat.tell("the turn had been handed over: this was not written")
                self._show(left)

    def _show(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            self._chat.tell(f"{record['role']}: {record.get('content') or '(a tool call)'}")

    def _open_calls(self) -> list[str]:
        """The tool calls since the question that have no result."""
        return open_calls(self._session.history[self._place :]) if self.asked else []


def open_calls(messages: Iterable[Message]) -> list[str]:
    """The ids of the tool calls in these messages that have no result in them."""
    calls: dict[str, None] = {}
    for message in messages:
        for call in message.tool_calls or ():
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                calls[call["id"]] = None
        if message.role == "tool" and message.tool_call_id is not None:
            calls.pop(message.tool_call_id, None)
    return list(calls)


def _short(content: object) -> str:
    text = " ".join(str(content).split())
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"
