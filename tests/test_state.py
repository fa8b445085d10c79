"""The fold of a file's records, and states that share their storage."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cosession.codec import Broken, encode_checkpoint, encode_system_prompt, encode_usage
from cosession.state import State

bounded = settings(max_examples=80, deadline=None, derandomize=True)

numbers = st.integers(0, 9)
lines = st.one_of(
    numbers.map(lambda n: b'{"role":"user","content":"%d"}\n' % n),
    numbers.map(lambda n: b'{ "role" : "assistant", "content": "%d"}\n' % n),
    numbers.map(encode_checkpoint),
    numbers.map(encode_usage),
    numbers.map(lambda n: encode_system_prompt(f"prompt {n}")),
    st.sampled_from(
        [b"\n", b" \r\n", b"rubbish\n", b'{"role":"user"\n', b'{"role":"_note","x":1}\n',
         b'{"role":"_usage"}\n', b"[1]\n", b'{"role":"user","content":"\0"}\n']
    ),
)  # fmt: skip
files = st.lists(lines, max_size=15)


def decode(some: Sequence[bytes]) -> list[Any]:
    decoded: list[Any] = []
    for line in some:
        try:
            decoded.append(json.loads(line)["content"])
        except ValueError as error:
            decoded.append(Broken(str(error)))
    return decoded


def shown(state: State) -> dict[str, Any]:
    return {
        "position": state.position,
        "messages": list(state.log.messages(state.message_count, decode)),
        "damage": state.damaged_lines() + state.log.damage(state.message_count, decode),
        "marks": state.marks,
        "prompt": state.system_prompt,
        "tokens": state.token_count,
        "at usage": state.messages_at_usage,
        "next": state.next_checkpoint,
    }


def naive(file: list[bytes]) -> dict[str, Any]:
    """The plainest reading of the lines that `lines` draws."""
    found: dict[str, Any] = {"messages": [], "prompt": None, "tokens": 0, "next": 0, "ids": []}
    for line in file:
        try:
            record = json.loads(line)
            role = record["role"]
        except (ValueError, TypeError):
            continue
        match role:
            case "_checkpoint":
                found["next"] = max(found["next"], record["id"] + 1)
                found["ids"].append(record["id"])
            case "_usage":
                found["tokens"] = record.get("token_count", found["tokens"])
            case "_system_prompt":
                found["prompt"] = record["content"]
            case "user" | "assistant":
                found["messages"].append(record["content"])
    return found


@bounded
@given(files)
def test_a_fold_is_what_the_lines_say(file: list[bytes]) -> None:
    """Messages, prompt, tokens and checkpoints are those of a line by line reading."""
    state = State().fold(b"".join(file))
    expected = naive(file)
    assert state.position == sum(map(len, file))
    assert list(state.log.messages(state.message_count, decode)) == expected["messages"]
    assert state.system_prompt == expected["prompt"]
    assert state.token_count == expected["tokens"]
    assert state.next_checkpoint == expected["next"]
    assert list(state.checkpoints()) == expected["ids"]


@bounded
@given(files, st.data())
def test_a_fold_in_pieces_is_the_fold_of_the_whole(file: list[bytes], data: st.DataObject) -> None:
    """Wherever the file is cut between lines, and whenever somebody decodes in between."""
    whole = State().fold(b"".join(file))
    state = State()
    while file:
        count = data.draw(st.integers(1, len(file)))
        state = state.fold(b"".join(file[:count]))
        if data.draw(st.booleans()):
            state.log.messages(state.message_count, decode)
        file = file[count:]
    assert shown(state) == shown(whole)
    assert state.fold(b"") is state


@bounded
@given(files, files, st.data())
def test_cutting_and_folding_again_is_the_fold_of_what_is_left(
    file: list[bytes], more: list[bytes], data: st.DataObject
) -> None:
    """After a revert the kept part of a state is worth as much as reading the file anew."""
    state = State().fold(b"".join(file))
    if data.draw(st.booleans()):
        state.log.messages(state.message_count, decode)
    kept = file[: data.draw(st.integers(0, len(file)))]
    cut = state.truncated(sum(map(len, kept)))
    assert shown(cut) == shown(State().fold(b"".join(kept)))
    again = cut.fold(b"".join(more))
    assert shown(again) == shown(State().fold(b"".join(kept + more)))


@bounded
@given(st.lists(files, min_size=1, max_size=6), st.data())
def test_no_state_changes_when_others_are_made_from_it(
    pieces: list[list[bytes]], data: st.DataObject
) -> None:
    """States share their storage, and still each is what it was when it was made."""
    states = [(State(), b"")]
    for piece in pieces:
        state, content = data.draw(st.sampled_from(states))
        if data.draw(st.booleans()):
            state.log.messages(state.message_count, decode)
        added = b"".join(piece)
        states.append((state.fold(added), content + added))
        keep = data.draw(st.sampled_from([0, *_ends(content)]))
        states.append((state.truncated(keep), content[:keep]))
    for state, content in states:
        assert shown(state) == shown(State().fold(content))


def _ends(content: bytes) -> list[int]:
    return [at + 1 for at, byte in enumerate(content) if byte == 10]


@bounded
@given(files, files)
def test_a_history_does_not_grow_behind_its_readers_back(
    file: list[bytes], more: list[bytes]
) -> None:
    """A history that somebody holds stays as long as it was, and equal to itself."""
    state = State().fold(b"".join(file))
    history = state.log.messages(state.message_count, decode)
    before = list(history)
    newer = state.fold(b"".join(more))
    newer.log.messages(newer.message_count, decode)
    assert list(history) == before
    assert history == before
    assert history[:] == before
    assert len(history) == len(before)
    if before:
        assert history[-1] == before[-1]


@bounded
@given(files, st.data())
def test_messages_since_a_position_are_counted_from_there(
    file: list[bytes], data: st.DataObject
) -> None:
    """What a conflict counts: messages and changes of the prompt, no tokens, no checkpoints."""
    state = State().fold(b"".join(file))
    at = data.draw(st.integers(0, len(file)))
    behind = State().fold(b"".join(file[at:]))
    expected = behind.message_count + len(behind.system_prompts())
    assert state.messages_since(sum(map(len, file[:at]))) == expected


def test_threads_may_decode_while_another_one_folds() -> None:
    """Readers on other threads see whole histories, each of them a beginning of the next."""
    line = b'{"role":"user","content":"%d"}\n'
    states = [State().fold(line % 0)]
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        choices = random.Random(0)
        while not done.is_set():
            state = choices.choice(states)
            seen = list(state.log.messages(state.message_count, decode))
            if seen != [str(number) for number in range(state.message_count)]:
                wrong.append(seen)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 400):
        states.append(states[-1].fold(line % number))
    done.set()
    for reader in readers:
        reader.join(timeout=20)
        assert not reader.is_alive()
    assert wrong == []
