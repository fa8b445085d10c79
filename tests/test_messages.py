"""Messages to lines and back: what is plainly data takes a short way, to the same end."""

from __future__ import annotations

import json
import math
import sys
from typing import Any
from unittest.mock import patch

import pydantic_core
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosession import InvalidMessage
from cosession.codec import Broken, is_plain
from cosession.messages import Message, MessageCodec
from cosession.plain import encode_plain

bounded = settings(max_examples=150, deadline=None, derandomize=True)

SHORT: MessageCodec[Message] = MessageCodec(Message)
CAREFUL: MessageCodec[Message] = MessageCodec(Message)
CAREFUL._is_default = False

texts = st.text(max_size=5) | st.sampled_from(
    ["user", "_usage", "_", 'a"b', "\ud800", "NaN", "null", "\0", "\n"]
)
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63), 10**4000, 1 << 40])
    | st.floats()
    | texts
    | st.sampled_from([b"bytes", (1, 2), Message(role="user")])
)
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner),
    max_leaves=5,
)
names = st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "extra", "id"])
messages = st.one_of(
    st.dictionaries(names | texts | st.integers(), values, max_size=4),
    st.dictionaries(names, values, max_size=4).map(lambda rest: {"role": "user"} | rest),
    st.dictionaries(names, values, max_size=4).map(lambda rest: rest | {"role": "tool"}),
)


def encoded(codec: MessageCodec[Message], message: object) -> object:
    try:
        line = codec.encode(message)
    except InvalidMessage:
        return InvalidMessage
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    value = json.loads(line, parse_constant=pytest.fail)
    decoded = codec.decode([line[:-1]])[0]
    assert not isinstance(decoded, Broken)
    assert decoded.model_dump(exclude_unset=True) == value
    # What is written in front decides whether opening a session has to parse the line.
    return value, is_plain(line[:-1])


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@bounded
@given(messages)
@example({"role": "user", "content": nested(40)})
@example({"role": "user", "content": nested(300)})
@example({"content": "x", "role": "user"})
@example({"role": "user", "x": [{"y": math.nan}]})
@example({"role": "_note", "content": "x"})
@example({"role": 5})
@example({"role": "user", "content": 5})
@example({"role": "user", "name": 5})
@example({"role": "user", "tool_calls": "x"})
@example({"role": "user", "tool_call_id": []})
@example({"role": "user", 5: "x"})
@example({})
def test_the_short_way_writes_and_refuses_what_the_careful_one_does(message: Any) -> None:
    """The same record comes of a dictionary, of an instance, and of one made without a check."""
    assert encoded(SHORT, message) == encoded(CAREFUL, message)
    if not all(isinstance(name, str) for name in message):
        return
    made = Message.model_construct(**message)
    assert encoded(SHORT, made) == encoded(CAREFUL, made)
    try:
        valid = Message.model_validate(message)
    except ValueError:
        return
    assert encoded(SHORT, valid) == encoded(CAREFUL, valid)


@bounded
@given(messages)
@example({"role": "user", "content": "a\ud800"})
@example({"role": "user", "content": '\x00\x1f\x7f\u2028"\\/é', "x": [1e16, -0.0, 1e-7]})
def test_what_is_written_without_a_model_is_what_the_careful_one_writes(message: Any) -> None:
    """Also as long as nothing has imported pydantic."""
    for core in (pydantic_core, None):
        with patch.dict(sys.modules, {"pydantic_core": core}):
            line = encode_plain(message)
        if line is not None:
            assert (json.loads(line), is_plain(line[:-1])) == encoded(CAREFUL, message)


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain message is neither validated nor read back; one that is odd is."""

    def refuse(*_: object) -> Any:
        raise ValueError("looked at")

    monkeypatch.setattr(SHORT, "_validated", refuse)
    message = {"role": "user", "content": [{"type": "text", "text": "hi"}], "n": 1.5}
    assert json.loads(SHORT.encode(message)) == message
    assert json.loads(SHORT.encode(Message.model_validate(message))) == message
    with pytest.raises(InvalidMessage, match="looked at"):
        SHORT.encode(message | {"content": "\ud800"})


def test_an_iterator_in_a_message_is_read_once() -> None:
    """What can be written only once isn't tried first and then written without it."""
    message = {"role": "user", "content": [{"parts": iter([1, 2])}]}
    assert json.loads(SHORT.encode(message))["content"][0] == {"parts": [1, 2]}
