"""Messages as pydantic models, and their lines. The only core module that imports pydantic.

Everything that is written can be read back: text with lone surrogates, which real tool output
contains and pydantic refuses, goes through the standard library's `json` as escapes instead.
What is plainly data of the default type's shape is written as it is; anything else is validated,
and read back before it is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from operator import methodcaller
from random import SystemRandom
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from .codec import Broken, InvalidLine, MessageLine, classify, is_plain, parse
from .errors import InvalidMessage
from .plain import SHAPE, is_plain_data

T = TypeVar("T")


def _any_text(value: object) -> str:
    """Accept any `str`; pydantic's own check refuses lone surrogates."""
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


Text = Annotated[str, PlainValidator(_any_text, json_schema_input_type=str)]


def _content(value: object) -> object:
    if value is None or isinstance(value, str | list):
        return value
    raise ValueError("neither a string nor a list of parts")


class Message(BaseModel):
    """A chat message in the OpenAI shape. Fields that it doesn't name are kept.

    Only the fields that were given are written, so what one program stored another one reads
    unchanged.
    """

    model_config = ConfigDict(extra="allow")

    role: Text
    content: Annotated[
        str | list[Any] | None,
        PlainValidator(_content, json_schema_input_type=str | list[Any] | None),
    ] = None
    name: Text | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: Text | None = None


def _plain_data(message: object) -> dict[str, Any] | None:
    """What a message of the default type is written as, if a look at it proves that it is one.

    Then it needs neither be validated nor read back; `None` says nothing about the message.
    """
    if type(message) is Message:
        given = message.__pydantic_fields_set__
        data = {name: value for name, value in message.__dict__.items() if name in given}
        data |= message.__pydantic_extra__ or {}
    elif type(message) is dict:
        data = message
    else:
        return None
    return data if is_plain_data(data) else None


_NONCE = SystemRandom().getrandbits(62)
_SEPARATOR = b",%d," % _NONCE


@cache
def _are_read_alike() -> bool:
    """Whether of two values with one name the model takes the same one as `from_json`."""
    twice = b'{"role":"first","role":"last"}'
    return bool(Message.model_validate_json(twice).role == from_json(twice)["role"])


def _all_are_messages(text: bytes) -> bool:
    """Whether every line would decode to a `Message`. It costs a fifth of decoding them.

    All lines are parsed as one array. That none of them is broken, and made whole by its
    neighbours, shows by what stands between them: a number that nobody knew who wrote a line. It
    would be inside a line that leaves something open, and be missing between two values of one.
    """
    separated = text.replace(b"\n", _SEPARATOR)
    try:
        array = b"".join((b"[", separated, b"]"))
        found: list[Any] = from_json(array, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return False
    objects, separators = found[::2], found[1::2]
    newlines = (len(separated) - len(text)) // (len(_SEPARATOR) - 1)
    if separators != [_NONCE] * newlines or set(map(type, objects)) != {dict}:
        return False
    named = set[str]().union(*objects)
    return (
        "role" in named
        and _are_read_alike()
        and all(
            set(map(type, map(methodcaller("get", name), objects))).issubset(SHAPE[name])
            for name in SHAPE.keys() & named
        )
    )


class MessageCodec(Generic[T]):
    """Encodes and decodes one type of message."""

    def __init__(self, message_type: type[T] | TypeAdapter[T]) -> None:
        self._adapter: TypeAdapter[T] = (
            message_type if isinstance(message_type, TypeAdapter) else TypeAdapter(message_type)
        )
        ours = isinstance(message_type, type) and issubclass(message_type, Message)
        self._exclude = {"exclude_unset": True} if ours else {"exclude_none": True}
        self._class = message_type if isinstance(message_type, type) else None
        self._is_default = message_type is Message

    def encode(self, message: object, index: int | None = None) -> bytes:
        """The message's line, newline included. `message` is an instance or plain data for one.

        Raises:
            InvalidMessage: It doesn't validate, can't be written as JSON (NaN, cycles, too deep),
                or would not be read back as a message.
        """
        if self._is_default and (data := _plain_data(message)) is not None:
            try:
                return to_json(data) + b"\n"
            except PydanticSerializationError:
                pass  # a lone surrogate
        try:
            valid = self._validated(message)
            line = self._dump(valid)
            if b"null" in line:
                self._require_finite(valid)
        except ValidationError as error:
            raise InvalidMessage(_first_reason(error), index) from error
        except RecursionError as error:
            raise InvalidMessage("nested too deeply", index) from error
        except (ValueError, TypeError, PydanticSerializationError) as error:
            if "calling function" in str(error) and ": KeyboardInterrupt" in str(error):
                raise KeyboardInterrupt from error  # Ctrl-C in one of its callbacks
            raise InvalidMessage(str(error), index) from error
        self._require_readable(line, index)
        return line + b"\n"

    def decode(self, lines: Sequence[bytes]) -> list[T | Broken]:
        """The messages of these lines, and in place of each that holds none the reason."""
        try:
            return list(map(self._adapter.validator.validate_json, lines))
        except Exception:
            return [self._decode_line(line) for line in lines]

    def proves(self, text: bytes) -> bool:
        """Whether each line of a text surely holds a message. False says nothing."""
        return self._is_default and _all_are_messages(text)

    def _validated(self, message: object) -> T:
        if self._class is not None and isinstance(message, self._class):
            return message
        return self._adapter.validate_python(message)

    def _dump(self, message: T) -> bytes:
        try:
            return self._adapter.dump_json(message, warnings="error", **self._exclude)  # type: ignore[arg-type]
        except PydanticSerializationError as error:
            if "surrogate" not in str(error):
                raise
        plain = self._adapter.dump_python(message, warnings="error", **self._exclude)  # type: ignore[arg-type]
        return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()

    def _require_readable(self, line: bytes, index: int | None) -> None:
        if b"NaN" in line or b"Infinity" in line:
            try:
                json.loads(line, parse_constant=_refuse_constant)
            except ValueError as error:
                raise InvalidMessage(str(error), index) from error
        record = MessageLine(line) if is_plain(line) else classify(line)
        if isinstance(record, MessageLine):
            # The message may be an instance that was changed, or made, without validation.
            decoded = self._decode_line(line)
            if not isinstance(decoded, Broken):
                return
            record = decoded
        what = record.reason if isinstance(record, Broken) else "its role is not a message's"
        raise InvalidMessage(f"it would not be read back as a message: {what}", index)

    def _require_finite(self, message: T) -> None:
        """Refuse NaN and infinity, which pydantic writes as `null` without a word."""
        rest = [self._adapter.dump_python(message, warnings="error", **self._exclude)]  # type: ignore[arg-type]
        while rest:
            value = rest.pop()
            if isinstance(value, float) and not isfinite(value):
                raise ValueError(f"{value} is not JSON")
            if isinstance(value, Mapping):
                rest += value.values()
            elif isinstance(value, list | tuple | set | frozenset):
                rest += value

    def _decode_line(self, line: bytes) -> T | Broken:
        try:
            return self._adapter.validate_json(line)
        except ValidationError as error:
            # Lone surrogates, control characters, the depth limit of pydantic's parser: the
            # standard library reads what kimi-cli reads, so it has the last word.
            try:
                return self._adapter.validate_python(parse(line))
            except InvalidLine as invalid:
                return Broken(str(invalid))
            except RecursionError:
                return Broken("nested too deeply")
            except ValidationError:
                return Broken(f"not a valid message: {_first_reason(error)}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _first_reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"
