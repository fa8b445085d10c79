"""Messages that are plainly data: proved fit by a look, and written without a model. Pure.

It tells of the usual message, of the default type, that every reader reads it back as it is, so
that it needs neither be validated nor decoded to see. What is said of others is nothing: they may
be fit all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from math import isfinite
from types import NoneType
from typing import Any

from . import _json as json

SHAPE: dict[str, tuple[type, ...]] = {
    "role": (str,),
    "content": (str, list, NoneType),
    "name": (str, NoneType),
    "tool_calls": (list, NoneType),
    "tool_call_id": (str, NoneType),
}
"""What `messages.Message` accepts."""

_ATOMS = frozenset({str, bool, NoneType})
_LARGE = 1 << 63
_DEEP = 32


@cache
def _encoder() -> Callable[[object], str]:
    return json.JSONEncoder(
        ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
    ).encode


def is_plain_data(data: dict[Any, Any]) -> bool:
    """Whether this is a message of the default type, written as it is and read back so."""
    for name, value in data.items():
        kinds = SHAPE.get(name)
        if type(name) is not str or (kinds and type(value) not in kinds):
            return False
    # With the role in front and in plain letters it is seen to be a message without being parsed.
    if next(iter(data), "") != "role" or data["role"].startswith("_"):
        return False
    return _reads_back(data.values(), _DEEP)


def encode_plain(message: object) -> bytes | None:
    """The line of a plain dictionary; `None` for anything else, and for lone surrogates."""
    if type(message) is not dict or not is_plain_data(message):
        return None
    try:
        return _to_json(message) + b"\n"
    except (TypeError, ValueError):
        return None


def _to_json(message: dict[str, Any]) -> bytes:
    """By pydantic, which takes a third of the time, if the program has imported that anyway."""
    core = sys.modules.get("pydantic_core")
    write = getattr(core, "to_json", None)  # another thread may be in the middle of the import
    if write is None:
        return _encoder()(message).encode()
    line: bytes = write(message)
    return line


def _reads_back(values: Iterable[Any], depth: int) -> bool:
    """Whether these are nothing but data that every JSON parser reads as it was written.

    Neither NaN, nor numbers of thousands of digits, nor what is nested deeply, nor objects.
    """
    for value in values:
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is dict or kind is list:
            inner = value.values() if kind is dict else value
            if not depth or not _reads_back(inner, depth - 1):
                return False
        elif kind is int:
            if not -_LARGE < value < _LARGE:
                return False
        elif kind is not float or not isfinite(value):
            return False
    return True
