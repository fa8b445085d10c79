"""Lines told apart in bulk, and decoded when somebody looks at them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosession import history, state
from cosession.codec import Broken, usual_lines
from cosession.records import Damage
from cosession.state import State

bounded = settings(max_examples=60, deadline=None, derandomize=True)

PLAIN = b'{"role":"user","content":"%d"}\n'
LINES = [
    PLAIN % 1, b'{"role": "assistant", "content": [], "x": {"role": "_usage"}}\n',
    b'{"role":"_usage","token_count":12}\n', b'{"role": "_usage", "token_count": 0}\n',
    b'{"role": "_checkpoint", "id": 3}\n', b'{"role":"_checkpoint","id":123456789012345678}\n',
]  # fmt: skip
ODD_LINES = [
    b"\n", b"rubbish\n", b'{"role":"user","content":"\0"}\n', b'{"role":"user","content":"half\n',
    b'{"role": "_usage", "token_count": -1}\n', b'{"role": "_usage", "token_count": 01}\n',
    b'{"role": "_usage", "id": 1}\n', b'{"role": "_checkpoint", "id": 1, "more": 2}\n',
    b'{"role": "_system_prompt", "content": "p"}\n', b'{"content": "x", "role": "user"}\n',
    b'{"role": "user"}\n', b'{"role": "user", "content": 1}\r\n', b'\xef\xbb\xbf{"role":"a"}\n',
    b'{"role":"_usage","token_count":9999999999999999999}\n', b'"}\n', b'{"role":"_note","a":1}\n',
]  # fmt: skip


class Decoder:
    """Decodes contents, and counts the lines."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, lines: Sequence[bytes]) -> list[Any]:
        self.decoded += len(lines)
        return [self._decode(line) for line in lines]

    def _decode(self, line: bytes) -> Any:
        try:
            return [json.loads(line)["content"]]
        except (ValueError, KeyError) as error:
            return Broken(str(error))


def described(folded: State) -> dict[str, Any]:
    decode = Decoder()
    return {
        "position": folded.position,
        "lines": folded.log.lines,
        "offsets": folded.log.offsets,
        "marks": folded.marks,
        "checkpoints": folded.checkpoints(),
        "facts": (folded.token_count, folded.next_checkpoint, folded.system_prompt),
        "at usage": folded.messages_at_usage,
        "messages": list(folded.messages(decode)),
        "damage": folded.damaged_lines() + folded.log.damage(folded.message_count, decode),
    }


@bounded
@given(st.lists(st.sampled_from(LINES), min_size=1), st.lists(st.sampled_from(LINES)), st.data())
def test_lines_in_bulk_are_what_they_are_one_by_one(
    before: list[bytes], behind: list[bytes], data: st.DataObject
) -> None:
    """Usual lines are told apart at once, others each by itself, to the same state."""
    odd = data.draw(st.lists(st.sampled_from(ODD_LINES), max_size=2))
    for lines in (before + behind, before + odd + behind, odd + before):
        one_by_one = State().fold(PLAIN % 0)
        for line in lines:
            one_by_one = one_by_one.fold(line)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "_FEW", 0)
            in_bulk = State().fold(PLAIN % 0).fold(b"".join(lines))
        assert described(in_bulk) == described(one_by_one)
    assert usual_lines(b"".join(before), 7) is not None


@pytest.mark.parametrize("odd", ODD_LINES)
def test_one_odd_line_has_all_looked_at(odd: bytes) -> None:
    """Whatever is no message, count or checkpoint as everybody writes them is found in a crowd."""
    for lines in ([odd, *LINES], [*LINES, odd], [LINES[0], odd, LINES[3]], [odd]):
        assert usual_lines(b"".join(lines), 0) is None


def folded(count: int, *, broken: Sequence[int] = ()) -> State:
    lines = [PLAIN % number for number in range(count)]
    for number in broken:
        lines[number] = b'{"role":"user","content":}\n'
    return State().fold(b"".join(lines))


def test_the_last_messages_are_decoded_without_the_others() -> None:
    """A look at the end of a long history costs the end; they are the same objects later on."""
    decode = Decoder()
    messages = folded(3000).messages(decode)
    assert messages[-1] == ["2999"]
    assert messages[-2:] == [["2998"], ["2999"]]
    assert messages
    assert decode.decoded == 2
    last = messages[-1]
    assert len(messages) == 3000
    assert decode.decoded == 3000
    assert messages[-1] is last
    assert messages[2999] is last


def test_what_came_behind_a_position_is_decoded_without_the_others() -> None:
    """Who follows a session pays for what is new."""
    decode = Decoder()
    before = folded(3000)
    after = before.fold(PLAIN % 1 + LINES[3] + b"rubbish\n" + PLAIN % 2)
    kinds = [type(record).__name__ for record in after.records_since(before.position, decode)]
    assert kinds == ["list", "Usage", "Damage", "list"]
    assert decode.decoded == 2
    assert after.records_since(before.position, decode)[2] == Damage(
        before.position + len(PLAIN % 1 + LINES[3]), 7, "not JSON: Expecting value: line 1 "
        "column 1 (char 0)"
    )  # fmt: skip


indexes = st.integers(-40, 40)
slices = st.builds(
    slice, st.none() | indexes, st.none() | indexes, st.none() | st.sampled_from([-2, -1, 1, 3])
)


@bounded
@given(
    st.integers(0, 30), st.sets(st.integers(0, 29)), st.lists(indexes | slices, max_size=6),
    st.booleans(),
)  # fmt: skip
def test_a_history_is_indexed_like_a_list(
    count: int, broken: set[int], looks: list[int | slice], from_the_start: bool
) -> None:
    """Whatever has been decoded so far, and wherever lines are that hold no message."""
    bad = [number for number in broken if number < count]
    good = [[str(number)] for number in range(count) if number not in bad]
    all_of_it = folded(count, broken=bad)
    decode = Decoder()
    messages = all_of_it.messages(decode)
    if from_the_start:
        assert list(messages) == good
    for look in looks:
        try:
            expected = good[look]
        except IndexError:
            with pytest.raises(IndexError):
                messages[look]
        else:
            assert messages[look] == expected
    assert bool(messages) == bool(good)
    assert list(messages) == good
    assert [line.offset for line in all_of_it.log.damage(count, decode)] == [
        all_of_it.log.offsets[number] for number in sorted(bad)
    ]
    assert decode.decoded == count


def test_lines_that_are_decoded_are_dropped() -> None:
    """Bytes and messages of a session are not both kept, whichever are decoded first."""
    decode = Decoder()
    many = State()
    for _ in range(3):
        many = many.fold(b"".join(PLAIN % number for number in range(700)))
    one_more = many.fold(PLAIN % 1)
    one_more.records_since(many.position, decode)
    assert one_more.log.lines[-1] == b""
    assert one_more.log.lines[0] == PLAIN[:-1] % 0
    assert len(one_more.messages(decode)) == 2101
    assert set(one_more.log.lines) == {b""}


def test_a_decoder_that_loses_a_line_is_noticed() -> None:
    """No message is taken for another one."""
    with pytest.raises(ValueError, match="for each line"):
        len(folded(3).messages(lambda lines: lines[1:]))


# ---- the garbage collector ----------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("collector")
def test_the_garbage_collector_rests_while_very_many_are_decoded() -> None:
    """And works again behind that, also behind an error; for a few it goes on."""
    seen: list[bool] = []

    def decode(lines: Sequence[bytes]) -> list[Any]:
        seen.append(gc.isenabled())
        if len(seen) == 1:
            raise RuntimeError("no memory left")
        return [["x"] for _ in lines]

    messages = folded(history._LARGE + 1).messages(decode)
    with pytest.raises(RuntimeError, match="no memory"):
        len(messages)
    assert gc.isenabled()
    assert len(messages) == history._LARGE + 1
    assert gc.isenabled()
    len(folded(history._LARGE).messages(decode))
    assert gc.isenabled()
    assert seen.count(False) == 11
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("enabled", [True, False])
def test_a_collector_that_somebody_has_set_stays_as_it_is(enabled: bool) -> None:
    """Switched off, and with frozen objects."""
    gc.freeze()
    if not enabled:
        gc.disable()
    assert len(folded(history._LARGE + 1).messages(Decoder())) == history._LARGE + 1
    assert gc.isenabled() == enabled
    assert gc.get_freeze_count() > 0  # fewer, if some have died meanwhile
