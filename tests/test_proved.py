"""Lines that are proved to hold messages without being decoded: never one that doesn't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosession import BlockingSession, Message, messages
from cosession.codec import Broken
from cosession.history import _PIECE
from cosession.messages import MessageCodec
from cosession.state import State

CODEC = MessageCodec(Message)
GOOD = b'{"role":"user","content":"good"}'
MANY = 3000

USUAL = [
    GOOD,
    b'{"role": "assistant", "content": null, "tool_calls": [{"id": "a", "function": {}}]}',
    b'{"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"\\u00e9\\n"}],"name":null}',
    '{"role":"user","content":"größer 🚀","more":{"role":[1,2.5,true,{}]}}'.encode(),
    b'{"content":"the role behind","role":"user"}',
    b'{"role":"_usage","token_count":5}',
]
BROKEN = {
    "no value": b'{"role":"user","content":}',
    "half a string": b'{"role":"user","content":"half',
    "an escaped end": b'{"role":"user","content":"x\\"}',
    "a content of no kind": b'{"role":"user","content":1}',
    "a name of no kind": b'{"role":"user","name":[]}',
    "calls of no kind": b'{"role":"user","tool_calls":{}}',
    "a role of no kind": b'{"role":["user"],"content":"x"}',
    "no role": b'{"content":"x"}',
    "two roles": b'{"role":"user","role":5}',
    "no object": b"[]",
    "nothing": b"",
    "a number too many": b"1",
    "a NUL byte": b'{"role":"user","content":"\0"}',
    "no UTF-8": b'{"role":"user","content":"\xff"}',
    "a number that can't be read": b'{"role":"user","n":' + b"9" * 5000 + b"}",
    "nested too deeply": b'{"role":"user","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two in one line": GOOD + b"," + GOOD,
    "two, and a number between": GOOD + b",1," + GOOD,
}
OPEN = [
    (b'{"role":"user","x":[{"a":1}', b'{"role":"v"}]}'),
    (b'{"role":"user","x":[{"a":1}', b'{"role":"v"}],"x":1}'),
    (b'{"role":"user","x":{"a":{}', b'"b":{"role":"v"}}}'),
    (b'{"role":"user","x":"{}', b'{"role":"v"}'),
    (b'{"role":"user","x":[[{"a":1}', b'{"role":"v"}]]}'),
]
"""Two lines, the first of which leaves something open that the second closes."""


def text_of(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines)


def decodes(line: bytes) -> bool:
    return not isinstance(CODEC.decode([line])[0], Broken)


def test_usual_messages_are_proved() -> None:
    """All by themselves, and among each other, with token counts between."""
    for line in USUAL:
        assert CODEC.proves(line)
        assert decodes(line)
    assert CODEC.proves(text_of(USUAL * 50))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_not_proved(name: str) -> None:
    """Wherever it stands."""
    line = BROKEN[name]
    assert not decodes(line)
    assert not CODEC.proves(line)
    for at in (0, 1, 2):
        assert not CODEC.proves(text_of([GOOD] * at + [line] + [GOOD] * (2 - at)))


@pytest.mark.parametrize(("first", "second"), OPEN)
def test_lines_that_complete_each_other_are_not_proved(first: bytes, second: bytes) -> None:
    """Nor if other lines make up for the number of values, or guess at what separates them."""
    assert not decodes(first)
    split = [GOOD + b"," + GOOD, GOOD + b",1," + GOOD, GOOD + b",1,2,3," + GOOD]
    for others in ([], [GOOD], *([line] for line in split), split):
        assert not CODEC.proves(text_of([first, second, *others]))
        assert not CODEC.proves(text_of([*others, first, second]))


def test_who_knew_the_number_could_deceive(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is why it is made anew by each process: the check depends on it."""
    first, second = OPEN[0]
    lines = [first, second, GOOD + b",%d," % messages._NONCE + GOOD]
    assert CODEC.proves(text_of(lines))
    monkeypatch.setattr(messages, "_NONCE", messages._NONCE + 1)
    monkeypatch.setattr(messages, "_SEPARATOR", b",%d," % messages._NONCE)
    assert not CODEC.proves(text_of(lines))


def test_names_that_are_there_twice_mean_the_same_to_both() -> None:
    """The last value counts for the model and for the proof; else nothing is proved."""
    assert messages._are_read_alike()
    assert CODEC.proves(b'{"role":5,"role":"user"}') == decodes(b'{"role":5,"role":"user"}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["role", "content", "name", "tool_calls", "tool_call_id", "more"])
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4).map(lambda value: json.dumps(value).encode())


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """A line, with some bytes of it gone or other ones there."""
    line = draw(OBJECTS | st.sampled_from(USUAL))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(line)))
        new = draw(st.sampled_from([b"", b"}", b"]", b'"', b",", b"{", b"1", b"\\"]))
        line = line[:at] + new + line[at + draw(st.integers(0, 3)) :]
    return line


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(edited() | st.sampled_from(USUAL), min_size=1, max_size=5))
def test_what_is_proved_decodes(lines: list[bytes]) -> None:
    """Whatever the lines are."""
    if CODEC.proves(text_of(lines)):
        assert all(map(decodes, lines))


def test_a_type_of_ones_own_is_not_proved() -> None:
    """What it asks for, nobody knows."""

    class Strict(Message):
        more: int

    assert not MessageCodec(Strict).proves(GOOD)


# ---- the history ----------------------------------------------------------------------------


class Counting:
    """Decodes, and counts the lines."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, lines: Sequence[bytes]) -> Sequence[Any]:
        self.decoded += len(lines)
        return CODEC.decode(lines)


def folded(count: int = MANY, broken: Sequence[int] = ()) -> State:
    padding = b"x" * 300  # so that there are several portions
    lines = [b'{"role":"user","content":"%d","x":"%b"}\n' % (at, padding) for at in range(count)]
    for number in broken:
        lines[number] = b'{"role":"user","content":}\n'
    for number in range(0, count, 700):
        lines[number] += b'{"role":"_checkpoint","id":%d}\n' % number
    return State().fold(b"".join(lines))


def test_the_length_is_known_without_decoding() -> None:
    """And one in the middle costs those around it, which are the same objects from then on."""
    decode = Counting()
    history = folded().messages(decode, CODEC.proves)
    assert len(history) == MANY
    assert decode.decoded == 0
    middle = history[MANY // 2]
    assert middle.content == f"{MANY // 2}"
    assert decode.decoded <= _PIECE
    assert history[MANY // 2] is middle
    assert [message.content for message in history] == [f"{number}" for number in range(MANY)]
    assert decode.decoded == MANY
    assert list(history)[MANY // 2] is middle
    assert history[:][MANY // 2] is middle


@pytest.mark.parametrize("broken", [(0,), (MANY - 1,), (7, 1500, 1501), tuple(range(900, 1100))])
def test_broken_lines_don_t_count(broken: tuple[int, ...]) -> None:
    """The lines around one are decoded, and the others proved; numbers leave it out."""
    decode = Counting()
    state = folded(broken=broken)
    history = state.messages(decode, CODEC.proves)
    valid = [number for number in range(MANY) if number not in broken]
    assert len(history) == len(valid)
    if broken != (0,) and len(broken) == 1:
        assert 0 < decode.decoded < MANY
    for at in (0, 6, 7, 8, 1499, 1500, len(valid) - 1, -1):
        assert history[at].content == f"{valid[at]}"
    assert [message.content for message in history[5:2000]] == [
        f"{number}" for number in valid[5:2000]
    ]
    assert len(state.log.damage(state.message_count, CODEC.decode, CODEC.proves)) == len(broken)
    assert [message.content for message in history] == [f"{number}" for number in valid]


def test_what_is_appended_later_costs_itself() -> None:
    """Also where the messages before it were only proved."""
    decode = Counting()
    state = folded()
    assert len(state.messages(decode, CODEC.proves)) == MANY
    for number in range(5):
        state = state.with_line(b'{"role":"user","content":"new %d"}\n' % number)
        history = state.messages(decode, CODEC.proves)
        assert len(history) == MANY + number + 1
        assert history[MANY + number].content == f"new {number}"
    assert decode.decoded <= 5 + _PIECE
    assert history[0].content == "0"
    assert [message.content for message in history[-2:]] == ["new 3", "new 4"]
    assert len(list(history)) == MANY + 5


def test_the_last_ones_first_and_then_the_length() -> None:
    """What was decoded ahead is not looked at again, and its text may be gone."""
    decode = Counting()
    history = folded(broken=(2999,)).messages(decode, CODEC.proves)
    assert history[-1].content == "2998"
    assert len(history[-500:]) == 500
    before = decode.decoded
    assert len(history) == MANY - 1
    assert decode.decoded <= before + _PIECE * 4
    assert history[2998].content == "2998"


def test_a_session_of_many_messages(tmp_path: Path) -> None:
    """Its length and its damage are known without a model; loading makes all of them."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(b"".join(GOOD + b"\n" for _ in range(MANY)) + b'{"role":"user","content":}\n')
    with BlockingSession(path) as session:
        log = session._store.state.log
        assert len(session.history) == MANY
        assert len(session.damage) == 1
        assert sum(type(item) is Message for item in log._items) < MANY
        assert [message.content for message in session.history] == ["good"] * MANY
        assert sum(type(item) is Message for item in log._items) == MANY
