"""What a list of steps does to the file, against a model that is nothing but a list of lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosession.codec import encode_checkpoint, encode_system_prompt
from cosession.edits import (
    Add,
    AddCheckpoint,
    Clear,
    Edit,
    RevertTo,
    SetSystemPrompt,
    Step,
    plan_edit,
)
from cosession.errors import UnknownCheckpoint
from cosession.state import State

bounded = settings(max_examples=250, deadline=None, derandomize=True)

messages = st.integers(0, 99).map(lambda n: b'{"role":"user","content":"%d"}\n' % n)
prompts = st.integers(0, 9).map(lambda n: encode_system_prompt(f"prompt {n}"))
steps = st.one_of(
    st.lists(messages, max_size=3).map(lambda new: Add(tuple(new))),
    st.just(AddCheckpoint()),
    st.just(AddCheckpoint(lambda n: (b'{"role":"user","content":"checkpoint %d"}\n' % n,))),
    prompts.map(SetSystemPrompt),
    st.integers(0, 4).map(RevertTo),
    st.just(Clear()),
)
old_lines = st.lists(
    st.one_of(messages, st.integers(0, 4).map(encode_checkpoint), prompts, st.just(b"rubbish\n")),
    max_size=8,
)


def naive(file: list[bytes], some: list[Step]) -> list[bytes] | None:
    """The lines afterwards, worked out one step at a time; `None` for an unknown checkpoint."""
    front: bytes | None = None
    lines = list(file)
    for step in some:
        match step:
            case Add(new):
                lines += new
            case AddCheckpoint():
                ids = [number for line in lines if (number := checkpoint(line)) is not None]
                lines += step.lines(max(ids) + 1 if ids else 0)
            case SetSystemPrompt(line):
                front = line
                lines = [line for line in lines if b'"_system_prompt"' not in line]
            case RevertTo(number):
                found = [at for at, line in enumerate(lines) if checkpoint(line) == number]
                if not found:
                    return None
                del lines[found[0] :]
            case Clear():
                lines = []
                front = None
    return ([front] if front else []) + lines


def checkpoint(line: bytes) -> int | None:
    if b'"_checkpoint"' not in line:
        return None
    number = json.loads(line)["id"]
    assert isinstance(number, int)
    return number


def carried_out(edit: Edit, old: bytes) -> bytes:
    if not edit.replaces:
        return old + b"".join(edit.lines)
    kept = b"".join(old[start:stop] for start, stop in edit.ranges)
    return edit.front + kept + b"".join(edit.lines)


@bounded
@given(old_lines, st.lists(steps, max_size=6))
def test_an_edit_does_what_its_steps_say(file: list[bytes], some: list[Step]) -> None:
    """The new file is the one that a list of lines would have become, step by step."""
    old = b"".join(file)
    state = State().fold(old)
    expected = naive(file, some)
    if expected is None:
        with pytest.raises(UnknownCheckpoint):
            plan_edit(state, some)
        return
    edit = plan_edit(state, some)
    new = carried_out(edit, old)
    assert new == b"".join(expected)
    assert new[: edit.kept] == old[: edit.kept]
    added = [number for line in edit.lines if (number := checkpoint(line)) is not None]
    assert set(added) <= set(edit.checkpoints)
    if not edit.replaces:
        assert edit.state.position == len(new)
        assert edit.state.checkpoints() == State().fold(new).checkpoints()


@bounded
@given(old_lines, st.lists(steps, max_size=4))
def test_planning_changes_no_state(file: list[bytes], some: list[Step]) -> None:
    """A plan that is never carried out leaves nothing behind in memory."""
    old = b"".join(file)
    state = State().fold(old)
    for _ in range(2):
        try:
            plan_edit(state, some)
        except UnknownCheckpoint:
            pass
        assert state.position == len(old)
        assert state.marks == State().fold(old).marks
        assert state.message_count == State().fold(old).message_count


def test_what_only_adds_is_an_append() -> None:
    """Messages, checkpoints and token counts never cost a new file."""
    state = State().fold(b'{"role":"user","content":"1"}\n')
    edit = plan_edit(state, [Add((b"{}\n",)), AddCheckpoint()])
    assert not edit.replaces
    assert edit.checkpoints == (0,)


def test_an_unknown_checkpoint_is_named_with_those_that_there_are() -> None:
    """The error says what could have been reverted to."""
    state = State().fold(encode_checkpoint(0) + encode_checkpoint(3))
    with pytest.raises(UnknownCheckpoint) as caught:
        plan_edit(state, [RevertTo(1)], path="x")
    assert caught.value.known == (0, 3)
    assert "0, 3" in str(caught.value)
