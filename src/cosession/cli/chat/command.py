"""`cosession chat`: the options, and the parts put together."""

from __future__ import annotations

import asyncio
from typing import cast

import click

from ..._platform import user
from ...errors import TurnInterrupted
from ...session import Session
from ..exits import Exit, explain
from ..options import common, file_argument, settings
from ..output import complain, printable
from ..paint import painter
from .agent import Agent
from .screen import choose
from .talk import Chat, Interrupted


def _as_agent(ctx: click.Context, param: click.Parameter, value: str) -> Agent:
    try:
        return Agent.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no command: {error}.") from None


@click.command(
    epilog="""\b
Examples:
  $ cosession chat context.jsonl
  $ cosession chat context.jsonl --agent "python agent.py" --name ada
  $ echo "What is the time?" | cosession chat context.jsonl

Lines that begin with a slash are commands: /help lists them. Ctrl-C stops the agent, or gives up
the wait for another terminal's turn; Ctrl-D leaves. With input from a pipe, each line is a
question, and the exit status says whether all were answered.
"""
)
@file_argument
@click.option(
    "--agent",
    default="echo",
    show_default=True,
    metavar="CMD",
    callback=_as_agent,
    help="The program that answers: it reads the conversation as JSON on its standard input, and "
    "prints text, or a JSON record on each line. `echo:SECONDS` repeats the question.",
)
@click.option("--name", metavar="NAME", help="Your name, for the others and in your messages.")
@click.option(
    "--interrupted",
    type=click.Choice(["ask", "keep", "roll-back"]),
    default="ask",
    show_default=True,
    help="What becomes of the turn of a terminal that died in it.",
)
@click.option(
    "--last",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin with the last N messages.  [default: 10; 0 with input from a pipe]",
)
@common
def chat(file: str, agent: Agent, name: str | None, interrupted: str, last: int | None) -> None:
    """Talk with an agent, on a session that other terminals use too.

    Each question with its answer is one turn: other terminals see it as it is written, and theirs
    waits. The file is created if it is missing; its folder is not.
    """
    chosen = cast("Interrupted", interrupted)
    try:
        status = asyncio.run(_talk(file, agent, name, chosen, last))
    except TurnInterrupted as error:
        complain(explain(error).text, hint="--interrupted keep, or roll-back, decides about it")
        status = Exit.CONFLICT
    click.get_current_context().exit(status)


async def _talk(
    file: str, agent: Agent, name: str | None, interrupted: Interrupted, last: int | None
) -> Exit:
    known = name or user() or "somebody"
    screen = choose(f"{printable(known)}> ")
    async with Session(file, lock_dir=settings().lock_dir) as session:
        conversation = Chat(
            session,
            screen,
            agent,
            name=known,
            signed=name is not None,
            interrupted=interrupted,
            render=painter(),
        )
        return await conversation.run(last if last is not None else 10 * screen.interactive)
