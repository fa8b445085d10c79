"""A session with a bit of everything, and every operation on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosession import BlockingSession, Message

SEED = (
    b'{"role": "_system_prompt", "content": "be brief"}\n'
    b'{"role": "user", "content": "one"}\n'
    b'{"role": "_checkpoint", "id": 0}\n'
    b'{"role": "_other", "kept": true}\n'
    b"a damaged line\n"
    b'{"role": "assistant", "content": "two"}\n'
    b'{"role": "_usage", "token_count": 7}\n'
    b'{"role": "_checkpoint", "id": 1}\n'
    b'{"role": "user", "content": "three"}\n'
)

Blocking = BlockingSession[Message]


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def compact(session: Blocking) -> None:
    with session.transaction() as transaction:
        transaction.clear()
        transaction.set_system_prompt("summary follows")
        transaction.checkpoint()
        transaction.append([message("summary"), message("and more")])
        transaction.record_usage(3)


def add_in_a_transaction(session: Blocking) -> None:
    with session.transaction() as transaction:
        transaction.append(message("new 1"))
        transaction.checkpoint()
        transaction.record_usage(9)


APPENDS: dict[str, Callable[[Blocking], object]] = {
    "append one": lambda session: session.append(message("new 1")),
    "append three": lambda session: session.append([message(f"new {n}") for n in (1, 2, 3)]),
    "checkpoint": lambda session: session.checkpoint(),
    "record usage": lambda session: session.record_usage(8),
    "transaction": add_in_a_transaction,
}
REPLACES: dict[str, Callable[[Blocking], object]] = {
    "set system prompt": lambda session: session.set_system_prompt("be verbose"),
    "revert": lambda session: session.revert_to(1),
    "clear": lambda session: session.clear(),
    "compact": compact,
}
OPERATIONS = APPENDS | REPLACES


def seeded(path: Path) -> Path:
    """Write the seed as a program without locks would."""
    path.write_bytes(SEED)
    return path


def after(folder: Path, name: str, operation: Callable[[Blocking], object] | None = None) -> bytes:
    """What the seed becomes by an operation on a good day."""
    path = seeded(folder / "context.jsonl")
    with BlockingSession(path) as session:
        (operation or OPERATIONS[name])(session)
    return path.read_bytes()
