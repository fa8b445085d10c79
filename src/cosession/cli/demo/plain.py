"""A session's files, read as plain JSON Lines, without the library that wrote them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digest import digest
from .ledger import Operation
from .script import TAG, JsonObject, Tag


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file."""

    at: int
    """Which line of the file, from 1."""
    data: bytes
    record: JsonObject

    @property
    def tag(self) -> Tag | None:
        return Tag.read(self.record.get(TAG))


@dataclass(slots=True)
class SessionFile:
    """A live or rotated file, read."""

    path: Path
    lines: list[Line]

    @property
    def name(self) -> str:
        return self.path.name

    def checkpoints(self) -> list[int]:
        return [x.record["id"] for x in self.lines if x.record["role"] == "_checkpoint"]

    def usages(self) -> list[int]:
        return [x.record["token_count"] for x in self.lines if x.record["role"] == "_usage"]


def record_of(line: bytes) -> JsonObject:
    """The record of a line.

    Raises:
        ValueError: There is none.
    """
    try:
        record = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    number: Any = 0
    match record:
        case {"role": "_checkpoint", **rest}:
            number = rest.get("id")
        case {"role": "_usage", **rest}:
            number = rest.get("token_count")
        case {"role": str()}:
            pass
        case _:
            raise ValueError("not a record with a role")
    if type(number) is not int:
        raise ValueError("a record without its number")
    return dict(record)


def is_compacted(file: SessionFile, operation: Operation) -> bool:
    """Whether the file begins with what a compaction leaves."""
    match [line.record for line in file.lines[:4]]:
        case [
            {"role": "_system_prompt"},
            {"role": "_checkpoint"},
            {"role": "assistant", "content": content},
            {"role": "_usage", "token_count": tokens},
        ]:
            return bool(content == operation.text and tokens == operation.value)
    return False


def plain_digest(file: SessionFile) -> str:
    """The digest of what a file's lines say, read without the library."""
    prompt, tokens = None, 0
    checkpoints, messages = [], []
    for line in file.lines:
        match line.record:
            case {"role": "_system_prompt", "content": content}:
                prompt = content
            case {"role": "_usage", "token_count": tokens}:
                pass
            case {"role": "_checkpoint", "id": number}:
                checkpoints.append(number)
            case message:
                messages.append(message)
    return digest(prompt, tokens, checkpoints, messages)
