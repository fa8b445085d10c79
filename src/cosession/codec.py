"""Lines to records and back, one line at a time. Pure; knows nothing of message models.

A line is *plain* when its first key is a role that doesn't begin with an underscore: that is a
message as every program here writes it, and it is not looked at any further until somebody asks
for the history. Every other line is parsed at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

BOM = b"\xef\xbb\xbf"
_TOO_LARGE = 1 << 63
"""Python can count on from any number, but not write down one of more than 4300 digits."""

_PLAIN = re.compile(rb'\{"role": ?"(?!_)[^"\\]*"[,}]').match


@dataclass(frozen=True, slots=True)
class MessageLine:
    """A line that should hold a message."""

    line: bytes


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    token_count: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    id: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The records before this one were copied from another session, which this one is a fork of."""

    parent: str
    """The other session's file: a name in the same folder, or a path."""
    at: str
    """The revision at which it was left."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object of another program's: kept as it is, means nothing to us."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no record."""

    reason: str


Record = MessageLine | SystemPrompt | Usage | Checkpoint | Origin | Unknown | Broken


def is_plain(line: bytes) -> bool:
    """Whether the line looks like a message without being parsed."""
    return _PLAIN(line) is not None and line.endswith(b"}") and b"\0" not in line


def classify(line: bytes) -> Record | None:
    """What a line without its newline holds; `None` for a blank one."""
    if is_plain(line):
        return MessageLine(line)
    line = line.removeprefix(BOM)
    if not line.strip():
        return None
    try:
        value = parse(line)
    except InvalidLine as error:
        return Broken(str(error))
    match value:
        case {"role": "_system_prompt", "content": str(text)}:
            return SystemPrompt(text)
        case {"role": "_usage", "token_count": bool()} | {"role": "_checkpoint", "id": bool()}:
            return Broken("a truth value in place of a number")
        case {"role": "_usage", "token_count": int(count)} if abs(count) < _TOO_LARGE:
            return Usage(count)
        case {"role": "_checkpoint", "id": int(number)} if abs(number) < _TOO_LARGE:
            return Checkpoint(number)
        case {"role": "_usage", "token_count": int()} | {"role": "_checkpoint", "id": int()}:
            return Broken("a number of more than 63 bits")
        case {"role": "_fork", "parent": str(parent), "at": str(at)}:
            return Origin(parent, at)
        case {"role": "_system_prompt" | "_usage" | "_checkpoint" as role}:
            return Broken(f"a {role} record without its value")
        case {"role": str(role)} if not role.startswith("_"):
            return MessageLine(line)
        case dict():
            return Unknown()
        case _:
            return Broken(f"not an object but {type(value).__name__}")


class InvalidLine(ValueError):
    """A line can't be parsed; the text says why."""


def parse(line: bytes) -> Any:
    """The JSON value of a line, as tolerant as kimi-cli (control characters inside strings).

    Raises:
        InvalidLine: It isn't UTF-8, isn't JSON, or is nested too deeply to be read.
    """
    if b"\0" in line:
        raise InvalidLine(f"{line.count(0)} NUL bytes")
    try:
        return json.loads(line.decode(), strict=False)
    except UnicodeDecodeError as error:
        raise InvalidLine(f"not UTF-8 at its byte {error.start}") from error
    except RecursionError as error:
        raise InvalidLine("nested too deeply") from error
    except ValueError as error:
        raise InvalidLine(f"not JSON: {error}") from error


def encode_system_prompt(text: str) -> bytes:
    return _encode({"role": "_system_prompt", "content": text})


def encode_usage(token_count: int) -> bytes:
    return _encode({"role": "_usage", "token_count": token_count})


def encode_checkpoint(number: int) -> bytes:
    return _encode({"role": "_checkpoint", "id": number})


def encode_origin(parent: str, at: str) -> bytes:
    """With a `content`, since kimi-cli skips a record that it doesn't know only if it has one."""
    return _encode({"role": "_fork", "content": "", "parent": parent, "at": at})


def _encode(record: dict[str, object]) -> bytes:
    """The form that kimi-cli writes, to the byte; ASCII, so lone surrogates survive as escapes."""
    return json.dumps(record).encode() + b"\n"
