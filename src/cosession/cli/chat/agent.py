"""An agent: any program that reads a conversation and prints its answer.

1. It gets one JSON document on its standard input, and then the end of the input.
2. Lines that it prints are text of one message, unless they are JSON objects with a role: those
   are records, and are passed on one by one as they come.
3. It runs in a process group of its own: Ctrl-C reaches the chat, which stops the whole group.
   If the chat is killed, a second process, the guard, does that.
4. What it prints waits when nobody takes it: an agent can't fill the memory.
"""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...codec import InvalidLine, parse
from ...messages import Message
from ...session import Session
from .guard import GRACE, KILL, signal_group

_LONGEST_LINE = 64 << 20
_RECORDS_AHEAD = 100

_APART: dict[str, Any]
"""How a process is started in a group of its own."""
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _APART = {"start_new_session": True}

_GUARD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")))

Tell = Callable[[str], None]


class AgentFailed(Exception):
    """The agent can't be started, or ended badly; the text says how."""


@dataclass(frozen=True, slots=True)
class Agent:
    """How to start an agent."""

    words: tuple[str, ...]
    """The program and its arguments."""

    @classmethod
    def parse(cls, command: str) -> Agent:
        """`echo`, `echo:SECONDS`, or a command line. No shell sees it.

        Raises:
            ValueError: The text is neither.
        """
        name, _, seconds = command.partition(":")
        if name == "echo":
            if not math.isfinite(delay := float(seconds or 1)) or delay < 0:
                raise ValueError("the echo's delay is a number of seconds")
            return cls((sys.executable, "-I", str(Path(__file__).with_name("echo.py")), str(delay)))
        # On Windows a backslash is part of a path and escapes nothing.
        words = shlex.split(command, posix=sys.platform != "win32")
        if not words:
            raise ValueError("no program is named")
        if sys.platform == "win32":
            words = [word.strip('"') for word in words]
        return cls(tuple(words))

    async def start(self, document: bytes, tell: Tell) -> Run:
        """Start it on a conversation; `tell` gets what it prints on standard error.

        Raises:
            AgentFailed: It can't be started.
        """
        guard = await Guard.start()  # before there is anything that may be left alone
        try:
            process = await asyncio.create_subprocess_exec(
                *self.words, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LONGEST_LINE, **_APART
            )
        except BaseException as error:
            await guard.leave()
            if not isinstance(error, OSError | ValueError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise AgentFailed(f"the agent {self.words[0]!r} can't be started: {reason}") from error
        guard.watch(process.pid)
        return Run(process, guard, document, tell)


class Guard:
    """A process that ends the agent if this one is killed."""

    def __init__(self, process: Process | None) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Guard:
        """Start one; where none can be had, a killed chat's agent ends when it next prints."""
        try:
            return cls(
                await asyncio.create_subprocess_exec(
                    *_GUARD, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, **_APART
                )
            )
        except OSError:
            return cls(None)

    def watch(self, pid: int) -> None:
        """End that process, and its group, when the pipe breaks."""
        self._say(f"{pid}\n")

    async def leave(self) -> None:
        """Have it end, and nothing else."""
        self._say("over\n")
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError):  # somebody has killed it
                self._process.stdin.write(line.encode())


async def document(
    session: Session[Message], task: Literal["answer", "compact"], extra: Sequence[Message] = ()
) -> bytes:
    """What an agent reads: the session as it is now, as JSON."""
    messages = [*session.history, *extra]
    facts = {
        "task": task,
        "session": str(session.path),
        "system_prompt": session.system_prompt,
        "token_count": session.token_count,
    }

    def encode() -> bytes:
        plain = [message.model_dump(exclude_unset=True) for message in messages]
        return json.dumps(facts | {"messages": plain}).encode()

    return await asyncio.to_thread(encode)


class Run:
    """An agent at work."""

    def __init__(self, process: Process, guard: Guard, document: bytes, tell: Tell) -> None:
        self._process = process
        self._guard = guard
        self._tell = tell
        self._complaint = ""
        """The last line on its standard error."""
        self.output: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_RECORDS_AHEAD)
        """The records of its answer, in order; `None` is the end."""
        self.failure: str = ""
        """What went wrong, in words; known when the end is in `output`."""
        self._stopped = False
        self._over = False
        """Whether it has ended by itself, or was given up."""
        self._work = asyncio.create_task(self._converse(document))

    async def stop(self) -> list[dict[str, Any]]:
        """End the agent and all that it started, if it runs; what nobody has taken of its output.

        Takes some seconds at most.
        """
        left: list[dict[str, Any]] = []
        for number in (signal.SIGTERM, KILL):
            if not self._over:
                self._stopped = True
                self._signal(number)
            left += await self._rest(GRACE)
        if not self._work.done():  # something that has left the group keeps the pipe open
            self._work.cancel()
            await asyncio.wait({self._work})
            self._process._transport.close()  # type: ignore[attr-defined]
        return left

    async def _rest(self, patience: float) -> list[dict[str, Any]]:
        """What is in the output, and comes into it until the end, or for so many seconds."""
        rest: list[dict[str, Any] | None] = []
        deadline = time.monotonic() + patience
        while True:
            done = self._work.done()
            while not self.output.empty():
                rest.append(self.output.get_nowait())
            if done or time.monotonic() > deadline:
                return [record for record in rest if record is not None]
            await asyncio.wait({self._work}, timeout=GRACE / 50)

    def _signal(self, number: int) -> None:
        if sys.platform == "win32" and self._process.returncode is not None:
            return  # whoever has its number now
        with suppress(OSError):
            signal_group(self._process.pid, number)
            if sys.platform == "win32":
                self._process.kill()

    # ---- talking with the process -----------------------------------------------------------

    async def _converse(self, document: bytes) -> None:
        said = False
        complaining = asyncio.create_task(self._complaints())
        feeding = asyncio.create_task(self._feed(document))
        try:
            async for record in self._records():
                said = True
                await self.output.put(record)
            status = await self._process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await asyncio.shield(complaining)
            self.failure = self._verdict(status, said=said)
        except ValueError:
            self.failure = f"the agent printed a line of more than {_LONGEST_LINE >> 20} MiB"
        finally:
            for task in (complaining, feeding):
                task.cancel()
            await asyncio.wait({complaining, feeding})
            await self._guard.leave()
        self._over = True
        await self.output.put(None)

    async def _feed(self, document: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(ConnectionError):  # it need not read
            stdin.write(document)
            await stdin.drain()
        stdin.close()
        with suppress(ConnectionError):
            await stdin.wait_closed()

    async def _complaints(self) -> None:
        assert self._process.stderr is not None
        with suppress(ValueError):
            async for line in self._process.stderr:
                if text := line.decode(errors="replace").strip():
                    self._complaint = text
                    self._tell(f"agent: {text}")

    async def _records(self) -> AsyncIterator[dict[str, Any]]:
        assert self._process.stdout is not None
        text: list[str] = []
        async for line in self._process.stdout:
            record = _as_record(line)
            if record is None:
                text.append(line.decode(errors="replace").removesuffix("\n").removesuffix("\r"))
                continue
            for said in _message(text):
                yield said
            text.clear()
            yield record
        for said in _message(text):
            yield said

    def _verdict(self, status: int, *, said: bool) -> str:
        why = f": {self._complaint}" if self._complaint else ""
        if self._stopped:
            return ""
        if status < 0:
            return f"the agent was killed by signal {-status}{why}"
        if status:
            return f"the agent ended with status {status}{why}"
        return "" if said else "the agent printed nothing"


def _as_record(line: bytes) -> dict[str, Any] | None:
    """The record on a line; `None` if it is text."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = parse(line)
    except InvalidLine:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("role"), str) else None


def _message(lines: list[str]) -> list[dict[str, Any]]:
    """One message of the agent, or none if nothing is on the lines."""
    text = "\n".join(lines).strip("\n")
    return [{"role": "assistant", "content": text}] if text.strip() else []
