"""kimi-cli's own `KimiSoul.run`, inside a turn of its context.

1. A run has the turn from before it does anything until it ends, however it ends: with its
   question, its steps, a compaction, a D-Mail, and the minutes that an approval may take.
2. A run that asks several questions (a loop, a flow, a stop hook) lets those who wait go first
   between two of them.
3. Commands (`/…`) that write nothing into the session take no turn, and don't wait for one.
4. A run that waits says so where kimi-cli shows its notifications, and so does one that keeps
   somebody waiting. Interrupting a run ends its wait, or its turn.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from ..records import Holder
from .kimi import Context

_WRITE_NOTHING = frozenset({"export", "plan", "yolo"})
"""Commands of kimi-cli's agent that leave the session as it is."""

_EXPECTED = {
    "run": ["self", "user_input", "skip_user_prompt_hook"],
    "_turn": ["self", "user_message"],
}

_Method = Callable[..., Awaitable[Any]]


def put_into_turns() -> None:
    """Have every `KimiSoul.run` of this process, on one of our contexts, be a turn.

    Raises:
        ImportError: This kimi-cli's `KimiSoul` is another one. Nothing was changed.
    """
    from kimi_cli.soul.kimisoul import KimiSoul

    if _originals(KimiSoul):
        return
    for name, parameters in _EXPECTED.items():
        method = getattr(KimiSoul, name, None)
        if not inspect.iscoroutinefunction(method) or (
            list(inspect.signature(method).parameters) != parameters
        ):
            raise ImportError(
                f"this kimi-cli's KimiSoul has no {name}({', '.join(parameters[1:])}) that "
                "cosession could put into turns: use kimi-cli 1.49.0, or install(turns=False)"
            )
    KimiSoul.run, KimiSoul._turn = _in_a_turn(KimiSoul.run), _behind_the_others(KimiSoul._turn)


def take_out_of_turns() -> None:
    """Have kimi-cli's own methods back, if they were replaced."""
    module = sys.modules.get("kimi_cli.soul.kimisoul")
    if module is not None:
        for name, method in _originals(module.KimiSoul).items():
            setattr(module.KimiSoul, name, method)


def _originals(soul: type) -> dict[str, _Method]:
    """kimi-cli's own methods, where they are replaced by ours."""
    methods = {name: getattr(vars(soul).get(name), "kimi_s_own", None) for name in _EXPECTED}
    return {name: method for name, method in methods.items() if method is not None}


def _in_a_turn(run: _Method) -> _Method:
    @functools.wraps(run)
    async def run_in_a_turn(soul: Any, user_input: Any, **options: Any) -> Any:
        command = _command(user_input)
        if command in _WRITE_NOTHING or not isinstance(soul.context, Context):
            return await run(soul, user_input, **options)
        label = f"/{command}" if command else "answering"
        async with soul.context.turn(label, on_wait=_tell_for_whom, on_request=_tell_who_asks):
            return await run(soul, user_input, **options)

    run_in_a_turn.kimi_s_own = run  # type: ignore[attr-defined]
    return run_in_a_turn


def _behind_the_others(ask: _Method) -> _Method:
    @functools.wraps(ask)
    async def ask_behind_the_others(soul: Any, user_message: Any) -> Any:
        turn = soul.context.current_turn if isinstance(soul.context, Context) else None
        if turn is not None and turn.has_records:  # it isn't the first question of its run
            await turn.hand_over()
        return await ask(soul, user_message)

    ask_behind_the_others.kimi_s_own = ask  # type: ignore[attr-defined]
    return ask_behind_the_others


def _command(user_input: Any) -> str | None:
    """The name of the command that this input is, as kimi-cli finds it out."""
    from kimi_cli.utils.slashcmd import parse_slash_command_call
    from kosong.message import Message

    text = Message(role="user", content=user_input).extract_text(" ").strip()
    call = parse_slash_command_call(text)
    return call.name if call else None


def _tell_for_whom(holder: Holder | None) -> None:
    _notify(
        "Another terminal is answering in this session",
        f"Waiting for the turn of {holder or 'a terminal that left no card'}.\n"
        "Interrupt to give up.",
    )


def _tell_who_asks(holder: Holder) -> None:
    _notify(
        "Another terminal waits for its turn in this session",
        f"It is {holder}.\nIt goes on when this answer is done, or interrupted.",
    )


def _notify(title: str, body: str) -> None:
    """Show something the way kimi-cli shows that a background task has ended."""
    from kimi_cli.soul import get_wire_or_none
    from kimi_cli.wire.types import Notification

    if (wire := get_wire_or_none()) is None:
        return
    wire.soul_side.send(
        Notification(
            id=uuid.uuid4().hex,
            category="system",
            type="session.turn",
            source_kind="session",
            source_id="cosession",
            title=title,
            body=body,
            severity="info",
            created_at=time.time(),
        )
    )
