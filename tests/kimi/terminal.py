"""Terminals of the tests: `python terminal.py SESSION FOLDER [[CLASS, JOB, ROUNDS], …]`.

Each restores the session with one of the two classes, waits in the folder until all have, does so
many rounds of its job, and writes there what it thinks is true then. They are processes of their
own, called a, b, …, forked where that can be done, because kimi-cli takes long to import.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from kimi_support import Ours, Theirs, start, texts
from kosong.message import Message, ToolCall
from meet import meet


async def append(context: Any, mine: str) -> None:
    await context.append_message(Message(role="user", content=mine))


async def mark(context: Any, mine: str) -> None:
    """What kimi-cli does in one step of a turn."""
    call = ToolCall(id=mine, function=ToolCall.FunctionBody(name="f", arguments="{}"))
    await context.checkpoint(True)
    await context.append_message(Message(role="assistant", content=[], tool_calls=[call]))
    await context.update_token_count(len(context.history))
    await context.append_message([Message(role="tool", content=mine, tool_call_id=mine)])


async def answer(context: Any, mine: str) -> None:
    """What kimi-cli does from a question to its answer, taking its time."""
    await context.checkpoint(True)
    await context.append_message(Message(role="user", content=mine))
    await asyncio.sleep(0.002)
    call = ToolCall(id=mine, function=ToolCall.FunctionBody(name="f", arguments="{}"))
    await context.append_message(Message(role="assistant", content=mine, tool_calls=[call]))
    await context.update_token_count(len(context.history))
    await asyncio.sleep(0.002)
    await context.append_message([Message(role="tool", content=mine, tool_call_id=mine)])
    await context.checkpoint(True)
    await context.append_message(Message(role="assistant", content=mine))


async def turn(context: Any, mine: str) -> None:
    """The same, in a turn."""
    async with context.turn(mine, timeout=60):
        await answer(context, mine)


async def revert(context: Any, mine: str) -> None:
    """Set a checkpoint, write behind it, and go back there, unless somebody was faster."""
    await context.checkpoint(False)
    await context.append_message(Message(role="user", content=mine))
    try:
        await context.revert_to(max(context.n_checkpoints - 1, 0))
    except ValueError:
        pass


async def work(session: Path, folder: Path, me: int, everybody: list[Any]) -> None:
    kind, job, rounds = everybody[me]
    name = chr(ord("a") + me)
    context = {"ours": Ours, "theirs": Theirs}[kind](session)
    await context.restore()
    meet(folder / "meeting", name, len(everybody))
    jobs = {"append": append, "mark": mark, "answer": answer, "turn": turn, "revert": revert}
    act = jobs[job]
    for number in range(rounds):
        await act(context, f"{name}-{number}")
    truth = {"history": texts(context), "checkpoints": context.n_checkpoints}
    (folder / f"{name}.json").write_text(json.dumps(truth), encoding="utf-8")


def main() -> int:
    session, folder, everybody = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    if len(sys.argv) > 4:
        asyncio.run(work(session, folder, int(sys.argv[4]), everybody))
        return 0
    if not hasattr(os, "fork"):
        others = [start(*sys.argv, me) for me in range(len(everybody))]
        return max(process.wait() for process in others)
    children = []
    for me in range(len(everybody)):
        child = os.fork()
        if child == 0:
            asyncio.run(work(session, folder, me, everybody))
            return 0
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(main())
