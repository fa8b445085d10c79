"""What happens to a session, as rows for people and as JSON for programs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..changes import (
    Appended,
    Change,
    Cleared,
    Reverted,
    Rewritten,
    TurnBegan,
    TurnEnded,
)
from ..codec import Checkpoint, Origin, SystemPrompt, Usage
from ..messages import Message, MessageCodec
from ..records import Damage, Holder
from .conversation import Conversation, Item, Row


class Live:
    """Turns changes into rows, one after the other; knows what was there before each."""

    def __init__(
        self, conversation: Conversation, messages: Sequence[Message], *, last: int = 10
    ) -> None:
        """Begin with these messages, which were shown already, as far as they are wanted.

        Of a session that has become another one, the `last` messages are shown.
        """
        self._conversation = conversation
        self._messages = list(messages)
        self._last = last

    def rows(self, change: Change) -> Iterator[Row]:
        """What to show of a change."""
        said = self._conversation
        match change:
            case Appended(records):
                yield from self._added(records)
            case Reverted(kept, records):
                gone = len(self._messages) - kept
                del self._messages[kept:]
                yield from said.event(f"reverted: {_are(gone, 'gone')}, {kept} stay")
                yield from self._added(records)
            case Cleared():
                yield from said.event(f"cleared: {_are(len(self._messages), 'gone')}")
                self._messages.clear()
            case Rewritten(records):
                yield from self._rewritten(records)
            case TurnBegan(card):
                yield from said.event(has_the_turn(card.holder))
            case TurnEnded(card):
                yield from said.event(f"the turn of {name_of(card.holder)} is over")

    def _added(self, records: Sequence[Item]) -> Iterator[Row]:
        for record in records:
            if isinstance(record, Message):
                self._messages.append(record)
            yield from self._conversation.rows(record)

    def _rewritten(self, records: Sequence[Item]) -> Iterator[Row]:
        messages = [record for record in records if isinstance(record, Message)]
        before, self._messages = self._messages, []
        if messages == before:
            yield from self._conversation.event("rewritten: the messages are the same")
            records = [record for record in records if isinstance(record, SystemPrompt)]
        else:
            now = _count(len(messages))
            yield from self._conversation.event(f"rewritten: {now} in place of {len(before)}")
            records = tail_of(records, self._last)
        yield from self._added(records)
        self._messages = messages


def tail_of(records: Sequence[Item], messages: int) -> Sequence[Item]:
    """The last records, with that many messages among them."""
    places = [at for at, record in enumerate(records) if isinstance(record, Message)]
    if messages <= 0:
        return ()
    return records[places[-messages] :] if len(places) > messages else records


def has_the_turn(holder: Holder) -> str:
    """Who has the turn, and for what."""
    what = f": {holder.operation}" if holder.operation else ""
    return f"{name_of(holder)} has the turn{what}"


def name_of(holder: Holder) -> str:
    """Who it is, in a word."""
    if holder.user or holder.host:
        return f"{holder.user or '?'}@{holder.host or '?'}"
    return f"process {holder.pid}" if holder.pid else "another terminal"


def _count(messages: int) -> str:
    return f"{messages} message{'' if messages == 1 else 's'}"


def _are(messages: int, how: str) -> str:
    return f"{_count(messages)} {'is' if messages == 1 else 'are'} {how}"


# ---- for programs ---------------------------------------------------------------------------


def as_json(change: Change) -> dict[str, object]:
    """A change as one JSON object."""
    match change:
        case TurnBegan(card):
            return {"change": "turn began", **card_as_json(card.holder)}
        case TurnEnded(card):
            return {"change": "turn ended", **card_as_json(card.holder)}
    entry: dict[str, object] = {"change": type(change).__name__.lower()}
    entry["revision"] = str(change.revision)
    if isinstance(change, Reverted):
        entry["messages_kept"] = change.messages_kept
    if not isinstance(change, Cleared):
        entry["records"] = records_as_json(change.records)
    return entry


def records_as_json(records: Iterable[Item]) -> list[object]:
    """Records as they stand in the file, as far as they are known; damaged ones as their reason."""
    codec: MessageCodec[Message] = MessageCodec(Message)
    return [_record_as_json(record, codec) for record in records]


def card_as_json(holder: Holder) -> dict[str, object]:
    """Who is on a session, or has a turn or waits for it, and with which label."""
    return {
        "label": holder.operation,
        "user": holder.user,
        "host": holder.host,
        "pid": holder.pid,
        "terminal": holder.terminal,
        "since": holder.since,
    }


def _record_as_json(record: Item, codec: MessageCodec[Message]) -> Any:
    match record:
        case Message():
            return json.loads(codec.encode(record))
        case SystemPrompt(text):
            return {"role": "_system_prompt", "content": text}
        case Usage(count):
            return {"role": "_usage", "token_count": count}
        case Checkpoint(number):
            return {"role": "_checkpoint", "id": number}
        case Origin(parent, at):
            return {"role": "_fork", "parent": parent, "at": at}
        case Damage(offset, length, reason):
            return {"damaged": {"offset": offset, "length": length, "reason": reason}}
        case _:
            return {"unknown": True}
