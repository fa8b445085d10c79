"""One line to one record, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosession.codec import (
    BOM,
    Broken,
    Checkpoint,
    InvalidLine,
    MessageLine,
    SystemPrompt,
    Unknown,
    Usage,
    classify,
    encode_checkpoint,
    encode_system_prompt,
    encode_usage,
    is_plain,
    parse,
)

bounded = settings(max_examples=150, deadline=None, derandomize=True)

roles = st.sampled_from(
    ["user", "assistant", "tool", "", "_system_prompt", "_usage", "_checkpoint", "_note", 'a"b']
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
records = st.fixed_dictionaries(
    {"role": roles},
    optional={"content": values, "id": values, "token_count": values, "extra": values},
)


def meaning(value: Any) -> object:
    """What a record means, read from the parsed value alone."""
    match value:
        case {"role": "_system_prompt", "content": str(text)}:
            return SystemPrompt(text)
        case {"role": "_usage", "token_count": int(count)} if not isinstance(count, bool):
            return Usage(count)
        case {"role": "_checkpoint", "id": int(number)} if not isinstance(number, bool):
            return Checkpoint(number)
        case {"role": "_system_prompt" | "_usage" | "_checkpoint"}:
            return Broken
        case {"role": str(role)} if not role.startswith("_"):
            return MessageLine
        case dict():
            return Unknown()
        case _:
            return Broken


@bounded
@given(records | values, st.booleans(), st.booleans())
def test_a_line_is_what_its_json_says(value: Any, spaced: bool, ascii_only: bool) -> None:
    """However it is spaced and escaped, and whether or not a shortcut was taken."""
    separators = None if spaced else (",", ":")
    line = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
    try:
        encoded = line.encode()
    except UnicodeEncodeError:
        return
    record = classify(encoded)
    expected = meaning(value)
    if isinstance(expected, type):
        assert isinstance(record, expected)
    else:
        assert record == expected
    if is_plain(encoded):
        assert isinstance(record, MessageLine)
        assert record.line == encoded


@bounded
@given(st.binary(max_size=40))
@example(BOM)
def test_any_bytes_are_some_record(line: bytes) -> None:
    """No line makes the reader fail; what is no JSON is broken, or shows when it is decoded."""
    line = line.replace(b"\n", b"")
    record = classify(line)
    if record is None:
        assert not line.removeprefix(BOM).strip()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"\0\0\0", "3 NUL bytes"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"role": "_usage", "token_count": true}', "truth value"),
        (b'{"role": "_checkpoint"}', "without its value"),
    ],
)
def test_a_broken_line_says_why(line: bytes, reason: str) -> None:
    """The reason is for people who mend files."""
    record = classify(line)
    assert isinstance(record, Broken)
    assert reason in record.reason


@pytest.mark.parametrize("line", [b"", b" ", b"\r", b"\t \r"])
def test_a_blank_line_is_no_record(line: bytes) -> None:
    """Blank lines are neither damage nor messages."""
    assert classify(line) is None


def test_a_byte_order_mark_is_not_a_part_of_the_line() -> None:
    """A file that an editor gave a mark loses no record by it."""
    record = classify(b'\xef\xbb\xbf{"role": "user", "content": "hi"}')
    assert record == MessageLine(b'{"role": "user", "content": "hi"}')


@given(st.text() | st.just("\ud800 lone"), st.integers(0, 2**40))
@bounded
def test_what_is_encoded_is_read_back(text: str, number: int) -> None:
    """One line each, in the form that kimi-cli writes."""
    for line, record in (
        (encode_system_prompt(text), SystemPrompt(text)),
        (encode_usage(number), Usage(number)),
        (encode_checkpoint(number), Checkpoint(number)),
    ):
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert classify(line[:-1]) == record
        assert line == json.dumps(json.loads(line)).encode() + b"\n"


def test_parse_takes_what_kimi_takes_and_nothing_else() -> None:
    """Control characters inside strings pass; NUL bytes and half lines don't."""
    assert parse(b'"a\tb"') == "a\tb"
    for line in (b'"a\0b"', b'{"a": ', b"\xff"):
        with pytest.raises(InvalidLine):
            parse(line)
