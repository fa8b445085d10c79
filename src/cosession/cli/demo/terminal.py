"""One terminal: a process that writes conversations into the shared session.

1. What it is about to do it says on its stdout first (*begin*), and what the session acknowledged
   right after (*done*), one JSON line and one write each: the pipe outlives the process.
2. It may be killed at any instant. Started again, it asks the session where it stopped: its own
   last message in the history, or what the last compaction noted about it.
3. It ends when its stdin does, so that it never outlives the process that started it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from ..._base import Durability
from ...errors import Conflict, UnknownCheckpoint
from ...messages import Message
from . import ledger
from .digest import digest_of
from .script import TAG, Script, load, tagged
from .writers import AsyncWriter, BlockingWriter, CheckpointMessage, Compaction, Writer

BULK_SIZE = 1_500_000
"""Bytes of the largest appends, about: enough for a write to be cut in the middle."""

STOPPED = "Terminals stopped at"
PROMPT = "You are one assistant with several terminals. Answer each of them in its own thread."

_PATIENCE = 8
"""How often a compaction that met new messages looks again before it goes ahead."""


class Terminal:
    """What a terminal does, one operation per call. `say` gets every event, as an object."""

    def __init__(
        self,
        writer: Writer,
        script: Script,
        say: Callable[[dict[str, Any]], None],
        *,
        number: int,
        start: int = 1,
        terminals: int = 4,
        seed: object = 0,
    ) -> None:
        self.writer = writer
        self._script = script
        self._say = say
        self._number = number
        self._start = start
        self._terminals = terminals
        self._random = random.Random(f"{seed}/{number}/{start}")
        self._operations = 0
        where = position(writer.session.history, number)
        self._conversation, self._message = where or (number - 1, 0)
        self._settle_position()
        say({"is": "ready", "pid": os.getpid(), **self._place(), "resumed": where is not None})

    # ---- operations -------------------------------------------------------------------------

    def step(self) -> None:
        """Append the next message, or the next tool call with its results."""
        conversation = self._script.conversations[self._conversation]
        first, count = self._message, conversation.step(self._message)
        self._message += count
        self._append("append", conversation=self._conversation, first=first, count=count)
        self._settle_position()

    def bulk(self, size: int = BULK_SIZE) -> None:
        """Append whole conversations in one operation: a write that takes a while."""
        conversation = self._random.randrange(len(self._script.conversations))
        count = self._script.transcript_length(conversation, size)
        self._append("bulk", conversation=conversation, count=count)

    def checkpoint(self) -> None:
        """Set a checkpoint and write its number behind it."""

        def call(operation: str) -> dict[str, Any]:
            message = CheckpointMessage(self._number, operation)
            return {"checkpoint": self.writer.checkpoint(message)}

        self._perform("checkpoint", call, count=1)

    def record_usage(self) -> None:
        """Record a token count: a number that this terminal alone writes."""
        tokens = self._next_tokens()

        def call(_: str) -> dict[str, Any]:
            self.writer.record_usage(tokens)
            return {}

        self._perform("usage", call, value=tokens)

    def revert(self) -> None:
        """Revert to one of the last checkpoints, if there is one."""
        self.writer.refresh()
        marks = self.writer.session.checkpoints[-4:]
        if not marks:
            return self.checkpoint()
        mark = self._random.choice(marks)

        def call(_: str) -> dict[str, Any]:
            return {"rotated": self.writer.revert_to(mark)}

        self._perform("revert", call, value=mark)

    def compact(self) -> None:
        """Put a summary in the history's place.

        It says where each terminal stopped, so messages that came in since it was made would be
        forgotten. `expect` tells; it is made anew then, up to a point.
        """
        for attempt in range(_PATIENCE, -1, -1):
            self.writer.refresh()
            session = self.writer.session
            revision, history = session.revision, session.history
            expect = revision if attempt else None
            stopped = {
                str(number): place
                for number in range(1, self._terminals + 1)
                if (place := position(history, number))
            }
            text = f"Summary of {len(history)} messages. {STOPPED} {json.dumps(stopped)}."
            tokens = self._next_tokens()

            def call(
                operation: str,
                text: str = text,
                tokens: int = tokens,
                stopped: dict[str, Any] = stopped,
                expect: Any = expect,
            ) -> dict[str, Any]:
                plain = {"role": "assistant", "content": text}
                summary = tagged([plain], operation, stopped=stopped)[0]
                rotated = self.writer.compact(Compaction(PROMPT, summary, tokens), expect)
                return {"rotated": rotated}

            if self._perform("compact", call, count=1, text=text, value=tokens):
                break

    def report(self) -> None:
        """Say what the session looks like from here."""
        self.writer.refresh()
        session = self.writer.session
        self._say(
            {
                "is": "report",
                "digest": digest_of(session),
                "messages": len(session.history),
                "damage": len(session.damage),
            }
        )

    # ---- one operation ----------------------------------------------------------------------

    def _append(self, kind: str, *, conversation: int, first: int = 0, count: int) -> None:
        operation = ledger.Operation(self._number, self._start, 0, kind, conversation, first, count)
        messages = ledger.messages_of(operation, self._script)
        more = {"at": [conversation, first + count]} if kind == "append" else {}

        def call(operation: str) -> dict[str, Any]:
            self.writer.append(tagged(messages, operation, **more))
            return {}

        self._perform(kind, call, conversation=conversation, first=first, count=count)

    def _perform(self, kind: str, call: Callable[[str], dict[str, Any]], **about: Any) -> bool:
        """Say that an operation begins, do it, and say how it went."""
        self._operations += 1
        number = self._operations
        self._say({"is": "begin", "op": number, "kind": kind, **about})
        began = time.perf_counter()
        try:
            result = call(ledger.operation_id(self._number, self._start, number))
        except (Conflict, UnknownCheckpoint) as error:
            self._say({"is": "refused", "op": number, "why": type(error).__name__})
            return False
        seconds = time.perf_counter() - began
        session = self.writer.session
        self._say(
            {
                "is": "done",
                "op": number,
                "seconds": round(seconds, 6),
                "revision": str(session.revision),
                **self._place(),
                **result,
            }
        )
        return True

    def _next_tokens(self) -> int:
        """A token count that says who wrote it: no two operations record the same."""
        return (self._operations + 1) * 100_000 + self._start * 100 + self._number

    def _place(self) -> dict[str, int]:
        return {
            "conversation": self._conversation,
            "message": self._message,
            "repairs": len(self.writer.session.repairs),
        }

    def _settle_position(self) -> None:
        """At the end of a conversation go on with the next that no other terminal has."""
        conversations = self._script.conversations
        self._conversation %= len(conversations)
        if self._message >= len(conversations[self._conversation].messages):
            self._conversation = (self._conversation + self._terminals) % len(conversations)
            self._message = 0


def position(history: Iterable[Message], terminal: int) -> tuple[int, int] | None:
    """Where a terminal stopped, as the session says: conversation and next message."""
    for message in reversed(list(history)):
        match (message.model_extra or {}).get(TAG):
            case {"id": str(operation), "at": [int(conversation), int(following)]}:
                if operation.startswith(f"{terminal}."):
                    return conversation, following
            case {"stopped": dict(places)}:
                match places.get(str(terminal)):
                    case [int(conversation), int(following)]:
                        return conversation, following
                return None
    return None


class Life:
    """Which operation comes next, at which pace, and when it ends."""

    def __init__(self, terminal: Terminal, inbox: queue.Queue[str], role: str, seed: str) -> None:
        self._terminal = terminal
        self._inbox = inbox
        self._role = role
        self._random = random.Random(seed)
        self._next_rewrite = self._when()

    def run(self, pace: float) -> None:
        """Until told to finish. `pace` is the mean pause in seconds."""
        while (order := self._order(pace)) != "finish":
            if order:
                getattr(self._terminal, order)()
            else:
                self._choose()

    def _order(self, pace: float) -> str:
        pause = min(self._random.expovariate(1 / pace), 10 * pace) if pace else 0
        try:
            return self._inbox.get(timeout=pause) if pause else self._inbox.get_nowait()
        except queue.Empty:
            return ""

    def _choose(self) -> None:
        terminal = self._terminal
        if self._role != "write" and time.monotonic() >= self._next_rewrite:
            terminal.revert() if self._role == "revert" else terminal.compact()
            self._next_rewrite = self._when()
            return
        dice = self._random.random()
        if dice < 0.04:
            terminal.checkpoint()
        elif dice < 0.14:
            terminal.record_usage()
        else:
            terminal.step()

    def _when(self) -> float:
        """Reverts come about every second, compactions half as often."""
        mean = 1.0 if self._role == "revert" else 2.0
        return time.monotonic() + self._random.uniform(0.5, 1.5) * mean


def main(arguments: list[str]) -> None:
    """Run as a process: `PATH CONVERSATIONS` and the rest as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    logging.getLogger("cosession").addHandler(logging.NullHandler())  # repairs are counted
    path, conversations, rest = arguments
    options = json.loads(rest)
    inbox: queue.Queue[str] = queue.Queue()
    listener = threading.Thread(target=_listen, args=(inbox,), daemon=True)
    listener.start()
    number, start, seed = options["number"], options["start"], options["seed"]
    opened = AsyncWriter if number % 2 == 0 else BlockingWriter
    writer: Writer = opened(path, cast(Durability, options["durability"]))
    terminal = Terminal(
        writer,
        load(Path(conversations)),
        _say,
        number=number,
        start=start,
        terminals=options["terminals"],
        seed=seed,
    )
    life = Life(terminal, inbox, options["role"], f"{seed}/{number}/{start}/life")
    life.run(options["pace"])
    _say({"is": "stopped"})
    while inbox.get() != "report":
        pass
    terminal.report()
    writer.close()
    listener.join()


def _say(event: dict[str, Any]) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def _listen(inbox: queue.Queue[str]) -> None:
    for line in sys.stdin:
        inbox.put(line.strip())
    # The parent is gone, or has had what it wanted: whatever is under way, nobody counts on it.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
