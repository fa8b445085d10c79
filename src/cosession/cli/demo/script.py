"""The conversations that the terminals write, and which of their messages go out together. Pure
but for `load` and `save`.

A tool call and its results are one step: appended as one list, they must be in the file whole or
not at all. Every message carries a tag, an extra field that the checker finds it by; apart from
that it is written as it is.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import InvalidMessage

TAG = "demo"
"""The extra field's name."""

SHIPPED = "conversations.jsonl"

JsonObject = dict[str, Any]


class BadInput(Exception):
    """The conversations can't be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation in the OpenAI chat shape."""

    id: str
    messages: tuple[JsonObject, ...]

    def step(self, first: int) -> int:
        """How many messages, from this one on, go out in one append."""
        count = 1
        if self.messages[first].get("tool_calls"):
            while (
                first + count < len(self.messages)
                and self.messages[first + count].get("role") == "tool"
            ):
                count += 1
        return count


@dataclass(frozen=True, slots=True)
class Script:
    """All the conversations."""

    conversations: tuple[Conversation, ...]

    def excerpt(self, conversation: int, first: int, count: int) -> Sequence[JsonObject]:
        """Messages of one conversation."""
        return self.conversations[conversation].messages[first : first + count]

    def transcript(self, conversation: int, count: int) -> Sequence[JsonObject]:
        """So many messages, of whole conversations one after the other, round and round."""
        return list(islice(self._round_from(conversation), count))

    def transcript_length(self, conversation: int, size: int) -> int:
        """How many messages of a transcript make up so many bytes, about."""
        count = 0
        for message in self._round_from(conversation):
            count += 1
            size -= len(json.dumps(message))
            if size <= 0:
                break
        return count

    def _round_from(self, conversation: int) -> Iterator[JsonObject]:
        while True:
            yield from self.conversations[conversation % len(self.conversations)].messages
            conversation += 1

    def dump(self) -> bytes:
        """The conversations as JSON Lines."""
        rows = ({"id": one.id, "messages": one.messages} for one in self.conversations)
        return "".join(json.dumps(row) + "\n" for row in rows).encode()


def load(path: Path | None) -> Script:
    """Read conversations from JSON Lines, plain or gzip; the shipped ones without a path.

    Raises:
        BadInput: The file can't be read or holds something else.
    """
    if path is None:
        return parse(resources.files(__package__).joinpath(SHIPPED).read_bytes())
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"can't be read: {error}") from error
    return parse(data)


def parse(data: bytes) -> Script:
    """The conversations of JSON Lines.

    Raises:
        BadInput: A line isn't `{"id": …, "messages": […]}`, or there is none.
    """
    conversations = tuple(
        _conversation(line, number)
        for number, line in enumerate(data.split(b"\n"), 1)
        if line.strip()
    )
    if not conversations:
        raise BadInput("it holds no conversation")
    return Script(conversations)


def validate(script: Script) -> None:
    """See to it that every message can be stored.

    Raises:
        BadInput: One can't.
    """
    from ...messages import Message, MessageCodec

    codec = MessageCodec(Message)
    for conversation in script.conversations:
        for number, message in enumerate(conversation.messages):
            try:
                codec.encode(message)
            except InvalidMessage as error:
                raise BadInput(
                    f"conversation {conversation.id!r}, message {number}: {error.reason}"
                ) from error


def _conversation(line: bytes, number: int) -> Conversation:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"line {number} is not JSON: {error}") from error
    match row:
        case {"id": str() | int() as name, "messages": [_, *_] as messages}:
            pass
        case _:
            raise BadInput(f'line {number} is not {{"id": ..., "messages": [...]}}')
    for at, message in enumerate(messages):
        match message:
            case {"role": str(role)} if not role.startswith("_") and TAG not in message:
                continue
        raise BadInput(
            f"line {number}, message {at}: not a message with a role "
            f"(nor may it have a field named {TAG!r})"
        )
    return Conversation(str(name), tuple(messages))


@dataclass(frozen=True, slots=True)
class Tag:
    """What a message in the file says about itself."""

    operation: str
    """The id of the operation that wrote it."""
    part: int
    of: int
    """It is the message `part` (from 1) of so many."""

    @classmethod
    def read(cls, value: object) -> Tag | None:
        """Read a tag from a message's field; `None` if it isn't one."""
        match value:
            case {"id": str(operation), "part": int(part), "of": int(of)}:
                return cls(operation, part, of)
        return None


def tagged(messages: Sequence[JsonObject], operation: str, **more: object) -> list[JsonObject]:
    """The messages of one operation with their tags."""
    return [
        {**message, TAG: {"id": operation, "part": part, "of": len(messages), **more}}
        for part, message in enumerate(messages, 1)
    ]
