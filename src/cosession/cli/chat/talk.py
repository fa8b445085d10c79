"""The chat: what happens to a line that was entered, to Ctrl-C, and to the end of the input.

1. Lines wait in a queue, and one after the other is worked on, each in a task of its own. Commands
   that change nothing (`/who`, `/take`, `/help`, `/quit`) are done at once.
2. Ctrl-C cancels what is being worked on: the wait for a turn, or the agent. With nothing to cancel
   it clears the line, and twice it leaves.
3. Beside that, the live view writes what anybody does to the session.
4. In a script nothing is done at once, and nobody is asked: the end of the input is the end, when
   all is answered.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Literal

from ...errors import Conflict, CosessionError, TurnInterrupted
from ...event_loop import uncancelled
from ...messages import Message
from ...records import TurnCard
from ...session import Session
from ...turn import InterruptedTurn
from ..conversation import Row
from ..exits import Exit, explain
from ..output import complain, printable
from ..paint import Writer, glyphs
from ..words import clock, elapsed
from .agent import Agent, AgentFailed
from .commands import WrongUsage, find
from .exchange import Exchange
from .people import People, is_me
from .screen import Screen
from .view import LiveView

Interrupted = Literal["ask", "keep", "roll-back"]

_PATIENCE = 0.3
"""Seconds of waiting for a turn before anything is said about it."""

_LOOK = 0.3
"""Seconds between two looks whether another terminal has decided in the meantime."""

_TWICE = 2.0
"""Seconds within which a second Ctrl-C leaves."""


class Chat:
    """One terminal's chat on a session that is open."""

    def __init__(
        self,
        session: Session[Message],
        screen: Screen,
        agent: Agent,
        *,
        name: str,
        signed: bool,
        interrupted: Interrupted,
        render: Writer,
    ) -> None:
        self.session = session
        self.screen = screen
        self.agent = agent
        self.name = name
        self.people = People(session)
        self.view = LiveView(session, render, screen.write, self._turn_began)
        self._exit = Exit.OK
        self._signed = signed
        self._interrupted = interrupted
        self._render = render
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._at_once: set[asyncio.Task[None]] = set()
        self._replies: asyncio.Queue[str] | None = None
        """Where lines go while the user is being asked something."""
        self._waiting = self._answering = 0.0
        """Since when, if at all."""
        self._current = ""
        """The line that is worked on."""
        self._last_interrupt = -_TWICE
        self._left = False

    async def run(self, last: int) -> Exit:
        """Talk until the user leaves, or the input has ended; the exit status."""
        with self.session.present(self.name), self._signals():
            await self.people.look()
            self.view.show_last(last)
            following = asyncio.create_task(self.view.follow())
            working = asyncio.create_task(self._work_on_lines())
            reading = asyncio.create_task(self.screen.read(self))
            tasks = [working, following, reading]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and not (self._left or self.screen.interactive):
                    self._lines.put_nowait(None)
                    await asyncio.wait({working, following}, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
            finally:
                for task in [*tasks, *self._at_once]:
                    task.cancel()
                    await uncancelled(asyncio.wait({task}))
                await self.screen.close()
        return Exit.OK if self.screen.interactive else self._exit

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals end what is going on in an orderly way, for as long as the block lasts."""
        loop = asyncio.get_running_loop()
        actions: dict[str, Callable[[], None]] = {
            "SIGINT": self.interrupted,
            "SIGTERM": self._terminated,
            "SIGHUP": self._terminated,
        }
        before = {}
        for name, action in actions.items():
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue
            before[number] = signal.signal(
                number, lambda *_, action=action: loop.call_soon_threadsafe(action)
            )
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # ---- what the screen reports ------------------------------------------------------------

    def entered(self, line: str) -> None:
        line = line.strip()
        if not line:
            return
        if self.screen.interactive and self._is_at_once(line):
            self._begin(self._guarded(self._line(line)))
        elif self._replies is not None:
            self._replies.put_nowait(line)
        else:
            self._lines.put_nowait(line)

    def _is_at_once(self, line: str) -> bool:
        try:
            found = find(line)
        except WrongUsage:
            return True
        return found is not None and found[0].at_once

    def interrupted(self) -> None:
        now = time.monotonic()
        if not self.screen.interactive:
            self._terminated()
        elif self._work is not None and not self._work.done():
            self._work.cancel()
        elif not self.screen.clear_line():
            if now - self._last_interrupt < _TWICE:
                self.leave()
            else:
                self.tell("Ctrl-C once more, or Ctrl-D, leaves")
            self._last_interrupt = now

    def _terminated(self) -> None:
        self._exit = Exit.INTERRUPTED
        self.leave()

    def leave(self) -> None:
        """End the chat; what is going on is given up."""
        self._left = True
        self.screen.leave()

    def status(self) -> list[str]:
        lines = self._status()
        if count := self._lines.qsize():
            lines.append(f"  and {count} more to come")
        return [" ".join(printable(line).split("\n")) for line in lines]

    def _status(self) -> list[str]:
        if self._replies is not None:
            return ["keep, or roll back?"]
        holder = self.view.turn.holder if self.view.turn else None
        another = holder is not None and not is_me(holder)
        if self._answering and not (self.is_waiting and another):
            return [f"the agent answers, {elapsed(self._answering)} · Ctrl-C stops it"]
        if holder is None or not another:
            return []
        at_work = self.people.at_work(holder)
        if self._answering:
            return [f"handed over to {at_work}; the agent goes on · Ctrl-C stops it"]
        if self.is_waiting:
            what = f"  {self._current}"
            return [f"waiting for {at_work}", what, "  /take asks for the turn, Ctrl-C gives up"]
        if self.session.interrupted is not None:
            return [f"{self.people.name(holder)} died in its turn"]
        return [f"it is the turn of {at_work}"]

    # ---- working on lines -------------------------------------------------------------------

    async def _work_on_lines(self) -> None:
        await self._perform(self.settle())  # of a terminal that died before this one came
        while (line := await self._lines.get()) is not None:
            self._current = line
            await self._perform(self._line(line))
            self._current = ""
            if self._left:
                return

    async def _perform(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that Ctrl-C can cancel."""
        self._work = asyncio.create_task(self._guarded(work))
        try:
            await asyncio.wait({self._work})
            if not self._work.cancelled():
                self._work.result()
        finally:
            self._work.cancel()
            await uncancelled(asyncio.wait({self._work}))
        await self.view.caught_up(self.session.revision)  # of what came of it

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._at_once.add(task)
        task.add_done_callback(self._at_once.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Tell the user what went wrong with something, and go on."""
        try:
            await work
        except WrongUsage as error:
            self._complain(Exit.USAGE, str(error))
        except AgentFailed as error:
            self._complain(Exit.OFF, str(error))
        except Conflict as error:
            what = "messages came in" if error.new_messages else "the session was changed"
            self._complain(Exit.CONFLICT, f"{what} in between: look, and say it again")
        except (CosessionError, OSError) as error:
            if isinstance(error, TurnInterrupted):
                raise
            failure = explain(error)
            self._complain(failure.status, failure.text)
            if failure.hint:
                self.tell(failure.hint)

    async def _line(self, line: str) -> None:
        found = find(line)
        if found is None:
            await self.ask(line.removeprefix("/") if line.startswith("//") else line)
            return
        command, argument = found
        while True:
            if not command.at_once:
                await self.settle()
            try:
                await command.action(self, argument)
                return
            except TurnInterrupted:  # while it was waited for
                continue

    async def ask(self, question: str) -> None:
        """Have a question answered, in a turn."""
        message = Message(role="user", content=question)
        if self._signed:
            message.name = self.name
        exchange = Exchange(self, message)
        try:
            await exchange.take_place()
        except asyncio.CancelledError:
            if exchange.asked:
                self.tell("stopped; what the agent had printed by then is kept")
            else:
                self.tell("given up; nothing was written")
                self.screen.restore(question)
            raise

    async def ask_next(self, question: str) -> None:
        """Have a question answered behind those that wait already."""
        if self.screen.interactive:
            self._lines.put_nowait(question)
        else:
            await self.ask(question)

    # ---- turns ------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether a question, or a command, waits for another terminal's turn."""
        return bool(self._waiting)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Say for whom, for as long as the block lasts."""
        self._waiting = time.time()
        announcing = asyncio.create_task(self._announce())
        try:
            yield
        finally:
            announcing.cancel()
            self._waiting = 0.0

    async def _announce(self) -> None:
        await asyncio.sleep(_PATIENCE)
        await self.people.look()
        holder = self.session.holder
        if holder is not None and not is_me(holder) and not self.screen.shows_status:
            take = "/take asks for the turn, " if self.screen.interactive else ""
            self.tell(f"waiting for {self.people.at_work(holder)} ... ({take}Ctrl-C gives up)")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Say that the agent is at work, for as long as the block lasts."""
        self._answering = time.time()
        try:
            yield
        finally:
            self._answering = 0.0

    @asynccontextmanager
    async def turn(self, label: str) -> AsyncIterator[None]:
        """Have the turn, and the user see all that was written before."""
        async with AsyncExitStack() as stack:
            with self.waiting():
                await stack.enter_async_context(self.session.turn(label))
            await self.view.caught_up(self.session.revision)
            yield

    def _turn_began(self, card: TurnCard) -> None:
        if not is_me(card.holder):
            self._begin(self.people.look())

    async def settle(self) -> None:
        """Keep or roll back a turn that was interrupted, as the user wants it.

        Raises:
            TurnInterrupted: There is nobody to be asked.
        """
        while (found := self.session.interrupted) is not None:
            choice = self._interrupted if self._interrupted != "ask" else await self._decide(found)
            if choice == "keep":
                await found.keep()
                self.tell("kept what the interrupted turn wrote")
            elif choice == "roll-back":
                rotated = await found.roll_back()
                where = f"; the old file is kept as {rotated.name}" if rotated else ""
                self.tell(f"rolled back the interrupted turn{where}")

    async def _decide(self, found: InterruptedTurn[Message]) -> Interrupted | None:
        """What the user says; `None` if another terminal has settled it."""
        if not self.screen.interactive:
            raise TurnInterrupted(str(self.session.path), found.card)
        await self.people.look()
        since = clock(found.holder.since)
        what = f", {found.holder.operation}," if found.holder.operation else ""
        self.tell(f"{self.people.name(found.holder)} died in a turn{what} that began at {since}")
        self._replies = asyncio.Queue()
        try:
            return await self._reply(self._replies)
        finally:
            while not self._replies.empty():  # what was typed ahead is not lost
                self._lines.put_nowait(self._replies.get_nowait())
            self._replies = None

    async def _reply(self, replies: asyncio.Queue[str]) -> Interrupted | None:
        asked = False
        while self.session.interrupted is not None:
            if not asked:
                self.tell("keep what it wrote, or roll it back? (keep / roll back)")
                asked = True
            try:
                async with asyncio.timeout(_LOOK):
                    reply = await replies.get()
            except TimeoutError:
                continue
            match reply.lower().replace("-", " "):
                case "keep" | "k":
                    return "keep"
                case "roll back" | "rollback" | "r":
                    return "roll-back"
            self._lines.put_nowait(reply)  # a question, typed before the user saw ours
            asked = False
        self.tell("another terminal has settled it")
        return None

    # ---- telling ----------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Tell the user what is going on."""
        if self.screen.interactive:
            self.say(text)
        else:
            complain(text)

    def say(self, text: str) -> None:
        """Tell the user what was asked for."""
        row = Row(0, ((f"{glyphs().mark} {printable(text)}", "dim"),))
        self.screen.write(self._render([row]))

    def _complain(self, status: Exit, text: str) -> None:
        self._exit = self._exit or status
        self.tell(text)
