"""What gets interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cosession import BlockingSession, Message
from cosession._base import system_prompt

Act = Callable[[BlockingSession[Message]], object]

FOREIGN_LINE = b'{"role": "user", "content": "from elsewhere"}\n'
FOREIGN_START = b'{"role": "user", "content": "cut off els'


def message(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def conversation(session: BlockingSession[Message]) -> None:
    """Something of everything, in a few hundred bytes."""
    session.append(message("What is the weather?"))
    session.checkpoint()
    session.append([message("Let me look.", "assistant"), message("It rains.", "tool")])
    session.checkpoint()
    session.record_usage(42)


def nothing(session: BlockingSession[Message]) -> None:
    """An empty file."""


def prompted(session: BlockingSession[Message]) -> None:
    session.set_system_prompt("You are a barometer.")
    conversation(session)


def rotated_before(session: BlockingSession[Message]) -> None:
    conversation(session)
    session.revert_to(1)
    session.append(message("Again."))
    session.checkpoint()


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    prepare: Act
    act: Act
    replaces: bool = False
    drops: bool = False
    """Whether it takes records out of the session, foreign ones too."""
    known: bool = False
    """Whether the session has seen to it before that what is there is on the disk."""
    single: bool = True
    """Whether it is one operation, with nothing between before and after."""


def _append_many(session: BlockingSession[Message]) -> None:
    session.append([message(f"{number}: " + "many " * number) for number in range(5)])


def _compact(session: BlockingSession[Message]) -> None:
    with session.transaction() as changes:
        changes.clear()
        changes.set_system_prompt("Be brief.")
        changes.checkpoint()
        changes.append([message("A summary.", "assistant"), message("And a reminder.")])
        changes.record_usage(7)


def _append_and_prompt(session: BlockingSession[Message]) -> None:
    """Two operations that waited for the lock together, and are committed in one pass."""
    store = session._store
    many = [message(f"{number}: " + "many " * number) for number in range(5)]
    assert store.lock.try_acquire()
    results = store.commit(
        [
            session._request("append", None, session._add(many)),
            session._request("set system prompt", None, system_prompt("Be a clock.")),
        ]
    )
    store.lock.release()
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]


def _append_to_both(session: BlockingSession[Message]) -> None:
    with session.transaction() as changes:
        changes.append(message("Then a mark."))
        changes.checkpoint()
        changes.record_usage(99)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("append-one", conversation, lambda s: s.append(message("One more."))),
        Operation(
            "append-known", conversation, lambda s: s.append(message("One more.")), known=True
        ),
        Operation("append-first", nothing, lambda s: s.append(message("The first."))),
        Operation("append-many", conversation, _append_many),
        Operation("checkpoint", conversation, lambda s: s.checkpoint()),
        Operation("usage", conversation, lambda s: s.record_usage(1234)),
        Operation("prompt-on-empty", nothing, lambda s: s.set_system_prompt("You are a clock.")),
        Operation(
            "prompt-on-filled",
            conversation,
            lambda s: s.set_system_prompt("You are a clock."),
            replaces=True,
        ),
        Operation(
            "prompt-again",
            prompted,
            lambda s: s.set_system_prompt("You are a clock."),
            replaces=True,
        ),
        Operation("revert", rotated_before, lambda s: s.revert_to(1), replaces=True, drops=True),
        Operation("restore", rotated_before, lambda s: s.restore(1), replaces=True, drops=True),
        Operation("clear", conversation, lambda s: s.clear(), replaces=True, drops=True),
        Operation("compact", prompted, _compact, replaces=True, drops=True),
        Operation("transaction", conversation, _append_to_both),
        Operation("batch", conversation, _append_and_prompt, replaces=True, single=False),
    )
}
