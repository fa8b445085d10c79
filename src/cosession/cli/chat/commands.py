"""The lines that begin with a slash: what each of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...event_loop import uncancelled
from ...messages import Message
from ...records import Holder
from ..words import clock
from .agent import AgentFailed, document
from .people import is_me

if TYPE_CHECKING:
    from .talk import Chat

SUMMARISE = (
    "Summarise this conversation, so that it can go on from the summary alone: what was asked, "
    "what was found out and decided, what is still open. Answer with the summary only."
)
SUMMARY = "The conversation so far, in short:\n\n"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the chat."""

    name: str
    usage: str
    help: str
    action: Callable[[Chat, str], Awaitable[None]]
    at_once: bool = False
    """Whether it is done when it is entered, also while the agent is at work."""


class WrongUsage(Exception):
    """A command was called with what it doesn't take; the text says what it takes."""


async def revert(chat: Chat, argument: str) -> None:
    session = chat.session
    if argument:
        try:
            number = int(argument)
        except ValueError:
            raise WrongUsage("/revert takes the number of a checkpoint") from None
    elif session.checkpoints:
        number = session.checkpoints[-1]
    else:
        raise WrongUsage("there is no checkpoint to go back to")
    with chat.waiting():
        rotated = await session.revert_to(number, expect=chat.view.shown)
    chat.tell(f"back to before checkpoint {number}; the old file is kept as {rotated.name}")


async def clear(chat: Chat, argument: str) -> None:
    with chat.waiting():
        rotated = await chat.session.clear(expect=chat.view.shown)
    if rotated is None:
        chat.tell("there was nothing to clear")
    else:
        chat.tell(f"cleared; the old file is kept as {rotated.name}")


async def compact(chat: Chat, argument: str) -> None:
    session = chat.session
    async with chat.turn("compacting"):
        if not session.history:
            raise WrongUsage("there is nothing to compact")
        known, messages = session.revision, len(session.history)
        with chat.answering():
            summary = await _summary(chat)
        async with session.transaction(expect=known) as changes:
            prompt = session.system_prompt
            changes.clear()
            if prompt is not None:
                changes.set_system_prompt(prompt)
            changes.append(Message(role="user", content=SUMMARY + summary))
    assert changes.rotated is not None
    chat.tell(f"{messages:,} messages compacted; the old file is kept as {changes.rotated.name}")


async def _summary(chat: Chat) -> str:
    """The history in the agent's words. What it does on the way is not written down."""
    request = await document(chat.session, "compact", [Message(role="user", content=SUMMARISE)])
    run = await chat.agent.start(request, chat.tell)
    said = []
    try:
        while (record := await run.output.get()) is not None:
            if record["role"] == "assistant" and isinstance(record.get("content"), str):
                said.append(record["content"])
    finally:
        await uncancelled(run.stop())
    if run.failure or not said:
        raise AgentFailed(run.failure or "the agent gave no summary as text")
    return "\n\n".join(said)


async def who(chat: Chat, argument: str) -> None:
    session, people = chat.session, chat.people
    there = await people.look()
    holder = session.holder
    for card in there:
        turn = ""
        if holder is not None and (holder.pid, holder.host) == (card.pid, card.host):
            turn, holder = f": {_has_the_turn(holder)}", None
        where = f" on {card.terminal}" if card.terminal else ""
        me = ", this terminal" if is_me(card) else ""
        chat.say(f"{people.name(card)}{where}, here since {clock(card.since)}{me}{turn}")
    if holder is not None:
        chat.say(f"{people.name(holder)}, process {holder.pid}: {_has_the_turn(holder)}")
    if (found := session.interrupted) is not None:
        since = clock(found.holder.since)
        chat.say(f"{people.name(found.holder)}: died in its turn, which began at {since}")


def _has_the_turn(holder: Holder) -> str:
    what = f", {holder.operation}" if holder.operation else ""
    return f"has the turn since {clock(holder.since)}{what}"


async def take(chat: Chat, argument: str) -> None:
    holder = await chat.session.request_turn(f"{chat.name} asks")
    if holder is None:
        chat.tell("nobody has the turn")
    elif is_me(holder):
        chat.tell("this terminal has the turn")
    else:
        chat.tell(f"asked {chat.people.name(holder)} for the turn")
    if argument:
        await chat.ask_next(argument)
    elif not chat.is_waiting:
        chat.tell("it comes to a question that waits: type one, or /take QUESTION")


async def show_help(chat: Chat, argument: str) -> None:
    chat.say("What you type is a question to the agent. Its answer is one turn with it.")
    width = max(len(command.usage) for command in COMMANDS)
    for command in COMMANDS:
        chat.say(f"{command.usage:{width}}  {command.help}")
    chat.say("A line that begins with // is a question that begins with /")


async def leave(chat: Chat, argument: str) -> None:
    chat.leave()


COMMANDS = (
    Command("/revert", "/revert [N]", "go back to before checkpoint N, or the last one", revert),
    Command("/clear", "/clear", "start over; the old file is kept", clear),
    Command("/compact", "/compact", "replace the history by the agent's summary", compact),
    Command("/who", "/who", "which terminals are here, and who has the turn", who, at_once=True),
    Command("/take", "/take [QUESTION]", "ask whoever has the turn for it", take, at_once=True),
    Command("/help", "/help", "this list", show_help, at_once=True),
    Command("/quit", "/quit", "leave; Ctrl-D does it too", leave, at_once=True),
)


def find(line: str) -> tuple[Command, str] | None:
    """The command on a line, and what it is given; `None` if the line is a question.

    Raises:
        WrongUsage: There is no such command.
    """
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, argument = line.partition(" ")
    for command in COMMANDS:
        if command.name == name:
            return command, argument.strip()
    raise WrongUsage(f"there is no command {name}; /help lists them")
