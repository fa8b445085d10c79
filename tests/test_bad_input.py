"""Bad input: what can't be stored is refused before a byte is written, what can't be read is
reported and kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from bad.soundness import assert_memory_is_file, assert_sound, fold
from cosession import (
    BlockingSession,
    CosessionError,
    InvalidMessage,
    Message,
    Session,
    UnknownCheckpoint,
)

GOOD = b'{"role": "user", "content": "good"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def session(path: Path) -> Iterator[BlockingSession[Message]]:
    path.write_bytes(GOOD)
    with BlockingSession(path) as session:
        yield session


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def mutated(**changes: Any) -> Message:
    message = Message(role="user", content="fine")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


# ---- messages that are refused --------------------------------------------------------------

REFUSED: dict[str, Any] = {
    "no role": {"content": "x"},
    "role is no string": {"role": 5},
    "role of a record of ours": {"role": "_usage", "token_count": 5},
    "role with an underscore": {"role": "_note", "content": "x"},
    "role with an underscore, nothing else": {"role": "_"},
    "content of the wrong type": {"role": "user", "content": 5},
    "content is a mapping": {"role": "user", "content": {"a": 1}},
    "tool calls of the wrong type": {"role": "assistant", "tool_calls": "x"},
    "NaN": {"role": "user", "content": "x", "score": math.nan},
    "infinity": {"role": "user", "content": "x", "score": math.inf},
    "minus infinity, nested": {"role": "user", "content": [{"a": [{"b": -math.inf}]}]},
    "NaN beside a lone surrogate": {"role": "user", "content": "\ud800", "score": math.nan},
    "surrogate in a top-level key": {"role": "user", "\udfff": 1},
    "too many digits": {"role": "user", "n": 10**5000},
    "100,000 nested brackets": {"role": "user", "content": nested(100_000)},
    "nested too deep for a reader": {"role": "user", "content": nested(400)},
    "a cycle": {"role": "user", "content": cycle()},
    "not JSON": {"role": "user", "content": [object()]},
    "bytes that are no text": {"role": "user", "content": [b"\xff"]},
    "no message": 5,
    "nothing": None,
    "a string": "hello",
    "an empty string": "",
    "bytes": b"",
    "a generator": ({"role": "user"} for _ in range(2)),
    "a set": {1, 2},
    "a list within a list": [[{"role": "user"}]],
    "a good one and a bad one": [{"role": "user", "content": "good"}, {"content": "bad"}],
    "constructed without a role": Message.model_construct(content="x"),
    "constructed with a wrong role": Message.model_construct(role=5),
    "constructed with our role": Message.model_construct(role="_checkpoint", id=1),
    "constructed with wrong content": Message.model_construct(role="user", content=5),
    "constructed with NaN": Message.model_construct(role="user", content=[math.nan]),
    "constructed with a surrogate and wrong calls": Message.model_construct(
        role="user", content="\ud800", tool_calls="x"
    ),
    "mutated role": mutated(role="_usage"),
    "mutated content": mutated(content=b"x"),
    "mutated name": mutated(name=["x"]),
    "mutated extra": mutated(extra=math.nan),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_message_is_refused_and_nothing_is_written(
    session: BlockingSession[Message], what: str
) -> None:
    """What could not be read back raises InvalidMessage; file, memory and session are as before."""
    with pytest.raises(InvalidMessage):
        session.append(REFUSED[what])
    with pytest.raises(InvalidMessage), session.transaction() as transaction:
        transaction.checkpoint()
        transaction.append(REFUSED[what] if what != "a generator" else iter(()))  # type: ignore[arg-type]
    assert session.path.read_bytes() == GOOD
    session.append({"role": "user", "content": "after"})
    assert_sound(session)


def test_an_invalid_message_in_a_list_is_named(session: BlockingSession[Message]) -> None:
    """InvalidMessage says which one of a list it was."""
    with pytest.raises(InvalidMessage, match="message 1") as caught:
        session.append([{"role": "user"}, {"role": "_no"}])
    assert caught.value.index == 1


async def test_the_asynchronous_session_refuses_the_same(path: Path) -> None:
    """Bad input raises from Session as it does from BlockingSession, and it goes on working."""
    async with Session(path) as session:
        with pytest.raises(InvalidMessage):
            await session.append({"role": "user", "x": math.nan})
        with pytest.raises(UnknownCheckpoint):
            await session.revert_to(3)
        with pytest.raises(InvalidMessage):
            await session.checkpoint(then=lambda number: Message(role=f"_{number}"))
        with pytest.raises(ZeroDivisionError):
            await session.checkpoint(then=lambda number: Message(role=str(1 // number)))
        await session.append({"role": "user", "content": "after"}, timeout=5)
        assert session.checkpoints == ()
        assert_sound(session)


# ---- messages that are odd, and stored as they are --------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    "lone surrogate": {"role": "user", "content": "a\ud800b"},
    "low surrogate first": {"role": "user", "content": "\udc00\ud800"},
    "surrogate in a nested key": {"role": "user", "content": [{"k\udfff": {"\ud800": 1}}]},
    "surrogate in a field of its own": {"role": "tool", "tool_call_id": "\ud9ab", "x": "\udeaf"},
    "surrogate as a role": {"role": "u\ud800", "content": ""},
    "NUL and control characters": {"role": "user", "content": "\0\x01\x1f\x7f\x85\u2028\u2029"},
    "line ends": {"role": "user", "content": "a\nb\r\nc\rd\x0b\x0c"},
    "byte-order mark": {"role": "user", "content": "\ufeff"},
    "the words": {"role": "user", "content": "NaN null Infinity -Infinity"},
    "explicit null": {"role": "assistant", "content": None, "tool_calls": [{"a": None}]},
    "4000 digits": {"role": "user", "n": 10**4000},
    "large float": {"role": "user", "n": 1.7976931348623157e308},
    # pydantic writes 99 levels on Windows, 255 elsewhere.
    "90 brackets": {"role": "user", "content": nested(90)},
    "empty role": {"role": "", "content": "x"},
    "role with a quote": {"role": 'a"b\\', "content": "x"},
    "role is not first": {"content": "x", "role": "user"},
    "5 MB": {"role": "tool", "content": "x\u20ac" * 1_250_000},
    "empty strings": {"role": "user", "content": "", "name": ""},
    "no content": {"role": "user"},
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_message_is_stored_and_read_back(
    session: BlockingSession[Message], what: str
) -> None:
    """It comes back equal from memory, from another session, and as one valid line of JSON."""
    session.append(ODD[what])
    session.append(Message.model_validate(ODD[what]))
    with BlockingSession(session.path) as other:
        for reader in (session, other):
            stored = [m.model_dump(exclude_unset=True) for m in reader.history]
            assert stored[1:] == [ODD[what]] * 2
            assert_sound(reader)
    lines = session.path.read_bytes().split(b"\n")
    assert len(lines) == 4
    lines[1].decode("utf-8")
    assert json.loads(lines[1], parse_constant=pytest.fail) == ODD[what]


@pytest.mark.parametrize("text", ["", "\ud800", "\0", "a\nb", "€" * 100_000, "{}"])
def test_a_system_prompt_may_be_any_text(session: BlockingSession[Message], text: str) -> None:
    """Any string comes back as it was given, and stays the file's first line."""
    session.set_system_prompt("first")
    session.set_system_prompt(text)
    assert session.system_prompt == text
    assert fold(session.path.read_bytes().split(b"\n")[0]).system_prompt == text
    assert_sound(session)


# ---- arguments of the wrong type ------------------------------------------------------------


@pytest.mark.parametrize(
    "count",
    [True, 1.0, "1", None, math.nan, pytest.param(10**5000, id="5000 digits")],
)
def test_a_token_count_is_a_whole_number(session: BlockingSession[Message], count: Any) -> None:
    """A truth value, a fraction, a text or an unwritable number raises InvalidMessage."""
    with pytest.raises(InvalidMessage):
        session.record_usage(count)
    assert session.path.read_bytes() == GOOD


@pytest.mark.parametrize("text", [None, 5, b"x", ["x"]])
def test_a_system_prompt_is_a_string(session: BlockingSession[Message], text: Any) -> None:
    """Anything but a string raises InvalidMessage."""
    with pytest.raises(InvalidMessage):
        session.set_system_prompt(text)
    assert session.path.read_bytes() == GOOD


@pytest.mark.parametrize("number", [1, -1, False, True, 0.0, "0", None, [0]])
def test_an_unknown_checkpoint_is_refused(session: BlockingSession[Message], number: Any) -> None:
    """What isn't the number of a checkpoint raises UnknownCheckpoint, which names those there."""
    session.checkpoint()
    before = session.path.read_bytes()
    with pytest.raises(UnknownCheckpoint) as caught:
        session.revert_to(number)
    assert caught.value.known == (0,)
    assert session.path.read_bytes() == before
    session.revert_to(0)
    assert session.path.read_bytes() == GOOD


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": "1"},
        {"timeout": math.nan},
        {"timeout": []},
        {"expect": "1:2"},
        {"expect": (1, 2)},
        {"expect": 5},
    ],
    ids=str,
)
async def test_arguments_of_the_wrong_type_are_refused_at_once(
    path: Path, options: dict[str, Any]
) -> None:
    """A wrong timeout or expect raises TypeError or ValueError, and the session goes on working."""
    with BlockingSession(path) as session:
        with pytest.raises((TypeError, ValueError)):
            session.append({"role": "user"}, **options)
        session.append({"role": "user"}, timeout=5)
        assert_sound(session)
    async with Session(path) as other:
        with pytest.raises((TypeError, ValueError)):
            await other.append({"role": "user"}, **options)
        await other.append({"role": "user"}, timeout=5)
        assert len(other.history) == 2


def test_a_path_that_is_none_is_refused(tmp_path: Path) -> None:
    """A path of the wrong kind raises before anything is made; bytes name the same file."""
    with pytest.raises((TypeError, ValueError)):
        BlockingSession(5)  # type: ignore[call-overload]
    with pytest.raises((ValueError, CosessionError)), BlockingSession(f"{tmp_path}/a\0b"):
        pass
    as_bytes: Any = bytes(tmp_path / "b.jsonl")
    with BlockingSession(as_bytes) as session:
        assert session.path == tmp_path / "b.jsonl"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.jsonl", "b.jsonl.lock"]


# ---- lines that are odd or no records at all ------------------------------------------------

LINES: dict[str, tuple[bytes, bool]] = {
    # the line, and whether it is damaged
    "blank": (b"", False),
    "spaces": (b"  \t ", False),
    "a lone carriage return": (b"\r", False),
    "CRLF": (GOOD[:-1] + b"\r", False),
    "byte-order mark": (b"\xef\xbb\xbf" + GOOD[:-1], False),
    "only a byte-order mark": (b"\xef\xbb\xbf", False),
    "leading space": (b"  " + GOOD[:-1], False),
    "role not first": (b'{"content": "x", "role": "user"}', False),
    "raw control characters": (b'{"role": "user", "content": "a\x01\tb"}', False),
    "lone surrogate": (rb'{"role": "user", "content": "\ud800"}', False),
    "surrogate key": (rb'{"role": "user", "content": [{"\ud800": 1}]}', False),
    "escaped role": (rb'{"role": "\u0075ser", "content": "x"}', False),
    "escaped role of ours": (rb'{"role": "\u005fcheckpoint", "id": 7}', False),
    "our role, not first": (b'{"id": 8, "role": "_checkpoint"}', False),
    "huge checkpoint": (b'{"role": "_checkpoint", "id": %s}' % (b"9" * 4300), True),
    "negative usage": (b'{"role": "_usage", "token_count": -4}', False),
    "duplicate keys": (b'{"role": "user", "content": "a", "content": "b"}', False),
    "no role": (b'{"a": 1}', False),
    "role is no text": (b'{"role": 1, "content": "x"}', False),
    "unknown role": (b'{"role": "_other", "content": 5}', False),
    "empty object": (b"{}", False),
    "5 MB": (b'{"role": "user", "content": "' + b"x" * 5_000_000 + b'"}', False),
    "200 brackets": (b'{"role": "user", "content": ' + b"[" * 200 + b"]" * 200 + b"}", False),
    "usage is true": (b'{"role": "_usage", "token_count": true}', True),
    "usage is a fraction": (b'{"role": "_usage", "token_count": 1.5}', True),
    "usage is text": (b'{"role": "_usage", "token_count": "1"}', True),
    "usage is missing": (b'{"role": "_usage"}', True),
    "checkpoint is true": (b'{"role": "_checkpoint", "id": true}', True),
    "checkpoint is null": (b'{"role": "_checkpoint", "id": null}', True),
    "prompt is a list": (b'{"role": "_system_prompt", "content": ["x"]}', True),
    "prompt is missing": (b'{"role": "_system_prompt"}', True),
    "content is a number": (b'{"role": "user", "content": 5}', True),
    "a list": (b"[1, 2]", True),
    "a number": (b"5", True),
    "null": (b"null", True),
    "garbage": (b"%PDF-1.4", True),
    "half a record": (b'{"role": "user", "content": "ha', True),
    "two records": (GOOD[:-1] * 2, True),
    "a record and a brace": (GOOD[:-1] + b"}", True),
    "Latin-1": ('{"role": "user", "content": "caf\u00e9"}'.encode("latin-1"), True),
    "Latin-1 in a role": (b'{"role": "\xe9", "content": "x"}', True),
    "UTF-16": (GOOD.decode().encode("utf-16-le")[:-2], True),
    "NUL in text": (b'{"role": "user", "content": "a\0b"}', True),
    "only NULs": (b"\0" * 4096, True),
    "100,000 brackets": (b'{"role": "user", "content": ' + b"[" * 100_000, True),
    "100,000 closed brackets": (
        b'{"role": "user", "content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        True,
    ),
    "100,000 bare brackets": (b"[" * 100_000, True),
    "huge number": (b'{"role": "user", "n": ' + b"9" * 5000 + b"}", True),
    "huge usage": (b'{"role": "_usage", "token_count": ' + b"9" * 5000 + b"}", True),
}


@pytest.mark.parametrize("end", [b"\n", b""], ids=["closed", "unfinished"])
@pytest.mark.parametrize("what", LINES)
def test_a_foreign_line_is_used_or_reported_and_always_kept(
    path: Path, what: str, end: bytes
) -> None:
    """Good lines around it count, a damaged one is reported at its offset, no byte is changed."""
    line, damaged = LINES[what]
    data = GOOD + line + end
    path.write_bytes(data)
    os.utime(path, (0, 0))  # so old that it is clear that nobody is still writing
    with BlockingSession(path, read_only=True) as reader:
        assert_memory_is_file(reader) if what != "huge checkpoint" else None
    assert path.read_bytes() == data
    with BlockingSession(path) as session:
        assert [damage.offset for damage in session.damage] == [len(GOOD)] * damaged
        assert all(damage.reason and str(damage) for damage in session.damage)
        session.append({"role": "user", "content": "behind"})
        mark = session.checkpoint()
        session.append({"role": "user", "content": "dropped"})
        session.revert_to(mark)
        session.set_system_prompt("in front")
        kept = session.path.read_bytes()
        assert GOOD + line + b"\n" * (end == b"\n" or bool(line)) in kept
        assert session.history[0].content == "good"
        assert session.history[-1].content == "behind"
        if what != "huge checkpoint":
            assert_sound(session)


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n", b"\r\n", b"\xef\xbb\xbf"])
def test_a_file_with_nothing_in_it_is_an_empty_session(path: Path, data: bytes) -> None:
    """Blank files open, hold nothing, report no damage, and can be written."""
    path.write_bytes(data)
    with BlockingSession(path) as session:
        assert not session.history
        assert not session.damage
        session.append({"role": "user", "content": "first"})
        assert_sound(session)
    with BlockingSession(path) as session:
        assert [message.content for message in session.history] == ["first"]


def test_a_tail_of_nul_bytes_is_one_damaged_line(path: Path) -> None:
    """What a power cut may leave behind is closed, reported and kept; the next record is whole."""
    path.write_bytes(GOOD + b"\0" * 10_000)
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "next"})
        assert [message.content for message in session.history] == ["good", "next"]
        assert "NUL" in session.damage[0].reason
        assert_sound(session)
    assert path.read_bytes().startswith(GOOD + b"\0" * 10_000 + b"\n")


def test_many_damaged_lines_are_all_reported_in_order(path: Path) -> None:
    """Damage of both kinds, found early and found on decoding, comes in the file's order."""
    lines = [line for line, damaged in LINES.values() if damaged and len(line) < 10_000]
    path.write_bytes(b"\n".join(lines) + b"\n" + GOOD)
    with BlockingSession(path) as session:
        assert len(session.damage) == len(lines)
        offsets = [damage.offset for damage in session.damage]
        assert offsets == sorted(offsets)
        assert [message.content for message in session.history] == ["good"]


# ---- message types of the caller ------------------------------------------------------------


class TextPart(BaseModel):
    type: Literal["text"] = "text"
    text: str


class ImagePart(BaseModel):
    type: Literal["image"] = "image"
    url: str
    weight: float | None = None


class Rich(BaseModel):
    role: Literal["user", "assistant"]
    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]
    score: float = Field(default=0.5, gt=0)


class Tool(BaseModel):
    role: Literal["tool"]
    result: dict[str, Any]


@dataclass
class Plain:
    role: str
    content: str
    score: float | None = None


class Named(BaseModel):
    role: str = "user"
    call: int = Field(alias="callNumber")


def construct(kind: Any, **values: Any) -> Any:
    return kind.model_construct(**values)


UNION: TypeAdapter[Any] = TypeAdapter(Rich | Tool)
PLAIN: TypeAdapter[Any] = TypeAdapter(Plain)

CUSTOM_GOOD: dict[str, tuple[Any, Any]] = {
    "model": (Rich, Rich(role="user", content=[TextPart(text="a"), ImagePart(url="b")])),
    "model from data": (Rich, {"role": "user", "content": [{"type": "image", "url": "u"}]}),
    "union": (UNION, Tool(role="tool", result={"a": [None, 1.5, {"b": None}]})),
    "union from data": (UNION, {"role": "assistant", "content": []}),
    "dataclass": (PLAIN, Plain("user", "x")),
    "dataclass from data": (PLAIN, {"role": "user", "content": "x", "score": 2}),
    "dictionary": (TypeAdapter(dict[str, Any]), {"role": "user", "a": None}),
}


@pytest.mark.parametrize("what", CUSTOM_GOOD)
def test_messages_of_the_callers_type_come_back_as_that_type(path: Path, what: str) -> None:
    """Models with discriminated parts, unions, dataclasses and dictionaries round-trip."""
    kind, message = CUSTOM_GOOD[what]
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    with BlockingSession(path, message_type=kind) as session:
        session.append([message, message])
        wanted = adapter.validate_python(message)
        assert list(session.history) == [wanted, wanted]
        assert not session.damage
    with BlockingSession(path, message_type=kind) as session:
        assert list(session.history) == [wanted, wanted]


CUSTOM_BAD: dict[str, tuple[Any, Any]] = {
    "unknown part": (Rich, {"role": "user", "content": [{"type": "sound"}]}),
    "unknown role": (Rich, {"role": "tool", "content": []}),
    "constraint": (Rich, {"role": "user", "content": [], "score": -1}),
    "field is NaN": (Rich, Rich(role="user", content=[], score=math.inf)),
    "optional field is NaN": (
        Rich,
        Rich(role="user", content=[ImagePart(url="", weight=math.nan)]),
    ),
    "dataclass field is NaN": (PLAIN, Plain("user", "x", math.nan)),
    "dictionary with NaN": (TypeAdapter(dict[str, Any]), {"role": "user", "a": [math.nan]}),
    "NaN in a union": (UNION, Tool(role="tool", result={"a": math.nan})),
    "constructed against a constraint": (
        Rich,
        construct(Rich, role="user", content=[], score=-1.0),
    ),
    "constructed with a wrong part": (Rich, construct(Rich, role="user", content=["x"])),
    "constructed, union": (UNION, construct(Tool, role="user", result={})),
    "dataclass of wrong types": (PLAIN, Plain("user", 5)),  # type: ignore[arg-type]
    "dataclass with our role": (PLAIN, Plain("_usage", "x")),
    "other class": (Rich, Tool(role="tool", result={})),
    "a name that is not read back": (Named, Named(callNumber=3)),
    "no object": (TypeAdapter(list[int]), (1, 2)),
}


@pytest.mark.parametrize("what", CUSTOM_BAD)
def test_a_bad_message_of_the_callers_type_is_refused(path: Path, what: str) -> None:
    """What the type would not read back raises InvalidMessage, and nothing is written."""
    kind, message = CUSTOM_BAD[what]
    with BlockingSession(path, message_type=kind) as session:
        with pytest.raises(InvalidMessage):
            session.append(message)
        assert path.read_bytes() == b""


def test_a_line_that_is_no_message_of_this_type_is_damage(path: Path) -> None:
    """Each type reports what it can't read, and reads the rest."""
    path.write_bytes(GOOD + b'{"role": "user", "content": [{"type": "text", "text": "x"}]}\n')
    with BlockingSession(path, message_type=Rich) as session:
        assert [m.content for m in session.history] == [[TextPart(text="x")]]
        assert [damage.offset for damage in session.damage] == [0]
    with BlockingSession(path) as plain:
        assert not plain.damage
        assert len(plain.history) == 2
