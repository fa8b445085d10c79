"""Lines to records and back, one line at a time. Pure; knows nothing of message models.

A line is *plain* when its first key is a role that doesn't begin with an underscore: that is a
message as every program here writes it, and it is not looked at any further until somebody asks
for the history. Every other line is parsed at once.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable
from itertools import accumulate, compress, count
from operator import add
from typing import Any

from . import _json as json
from .values import value

BOM = b"\xef\xbb\xbf"
_TOO_LARGE = 1 << 63
"""Python can count on from any number, but not write down one of more than 4300 digits."""

_ROLE = rb'\{"role": ?"(?!_)[^"\\]*"'
_PLAIN = re.compile(_ROLE + rb"(?:,.*)?\}", re.DOTALL).fullmatch

_COUNT = rb"(0|[1-9][0-9]{0,17})"
_NUMBER = re.compile(
    rb'\{"role": ?"_(?:usage", ?"token_count": ?' + _COUNT
    + rb'|checkpoint", ?"id": ?' + _COUNT + rb")\}"
).fullmatch  # fmt: skip
"""A token count or a checkpoint as everybody writes them: nearly all lines that aren't messages."""

MESSAGE, USAGE, CHECKPOINT, OTHER = range(1, 5)
"""What a line holds."""

_HEAD = len(b'{"role": "assistant", ')
"""So much of a line mostly tells, and is the same in very many lines."""
_MESSAGE_HEAD = re.compile(_ROLE + b",").match


@value
class MessageLine:
    """A line that should hold a message."""

    line: bytes


@value
class SystemPrompt:
    text: str


@value
class Usage:
    token_count: int


@value
class Checkpoint:
    id: int


@value
class Origin:
    """The records before this one were copied from another session, which this one is a fork of."""

    parent: str
    """The other session's file: a name in the same folder, or a path."""
    at: str
    """The revision at which it was left."""


@value
class Unknown:
    """An object of another program's: kept as it is, means nothing to us."""


@value
class Broken:
    """A line that is no record."""

    reason: str


Record = MessageLine | SystemPrompt | Usage | Checkpoint | Origin | Unknown | Broken


def is_plain(data: bytes, start: int = 0, stop: int = sys.maxsize) -> bool:
    """Whether the line, or the one that is there in the data, looks like a message unparsed."""
    return _PLAIN(data, start, stop) is not None and data.find(b"\0", start, stop) < 0


@value
class UsualLines:
    """Many lines, every one of which is a plain message, a token count or a checkpoint."""

    starts: array[int]
    """Where in the file each begins, and where the last one ends."""
    kinds: bytes
    """Which of the three each is."""
    numbers: list[int]
    """The counts and the checkpoints' numbers."""

    def places(self, wanted: bytes) -> tuple[Iterable[int], Iterable[int]]:
        """Where the lines begin whose kinds that table tells, and where those behind them do."""
        are_wanted = self.kinds.translate(wanted)
        starts, stops = self.starts[:-1], self.starts[1:]
        if 0 not in are_wanted:  # which an array copies at once
            return starts, stops
        return compress(starts, are_wanted), compress(stops, are_wanted)


def usual_lines(data: bytes, offset: int) -> UsualLines | None:
    """Tell whole lines apart in bulk; `None` if one of them has to be looked at by itself."""
    lines = data.split(b"\n")
    if lines.pop() or b"\0" in data or {line[-1:] for line in lines} != {b"}"}:
        return None
    heads = [line[:_HEAD] for line in lines]
    by_head = {head: MESSAGE if _MESSAGE_HEAD(head) else OTHER for head in set(heads)}
    kinds = bytearray(map(by_head.__getitem__, heads))
    numbers: list[int] = []
    at = -1
    while (at := kinds.find(OTHER, at + 1)) >= 0:
        found = _NUMBER(lines[at])
        if found is None:
            return None
        kinds[at] = USAGE if found[1] else CHECKPOINT
        numbers.append(int(found[1] or found[2]))
    without_newlines = accumulate(map(len, lines), initial=offset)
    return UsualLines(array("Q", map(add, without_newlines, count())), bytes(kinds), numbers)


def classify(line: bytes) -> Record | None:
    """What a line without its newline holds; `None` for a blank one."""
    if is_plain(line):
        return MessageLine(line)
    if found := _NUMBER(line):
        return Usage(int(found[1])) if found[1] else Checkpoint(int(found[2]))
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
