"""The order is known: each result says where the session stood. Is it a possible one? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from cosession import Revision
from machine.reference import Line, NoCheckpoint, Point, Reference, is_message, role

from .history import Call

REFUSALS = ("Conflict", "UnknownCheckpoint")
"""Errors that are results; any other one has no place here."""


def problems(calls: Sequence[Call], end: Sequence[Line]) -> list[str]:
    """What no order of these calls explains; empty if all is as it should be.

    `end` is what the file holds afterwards.
    """
    order = sorted(calls, key=_place)
    refused = [f"{x} was no answer" for x in order if x.error not in ("", *REFUSALS)]
    return [*_repeated(order), *_against_time(order), *refused, *_unexplained(order, end)]


def _place(call: Call) -> tuple[Revision, bool, float]:
    """A write comes before what only looked at its result."""
    return call.revision, not _changes(call), call.invoked


def _changes(call: Call) -> bool:
    return call.kind == "write" and not call.error


def _repeated(order: Sequence[Call]) -> Iterator[str]:
    """Two writes with one revision: one of them is not where it says."""
    writes = [call for call in order if _changes(call)]
    for one, two in pairwise(writes):
        if one.revision == two.revision:
            yield f"both {one} and {two}"


def _against_time(order: Sequence[Call]) -> Iterator[str]:
    """A call that had returned before another one began must not come behind it."""
    earliest: Call | None = None
    for call in reversed(order):
        if earliest is not None and earliest.before(call):
            yield f"{earliest} had returned before {call} began, but comes behind it"
        if earliest is None or call.responded < earliest.responded:
            earliest = call


def _unexplained(order: Sequence[Call], end: Sequence[Line]) -> Iterator[str]:
    """Take a plain list through the calls, and compare what each of them told."""
    model = Reference()
    points: dict[Revision, Point] = {}
    generation = min((call.revision.generation for call in order), default=0)
    for call in order:
        if call.expect is not None:
            yield from _judged(call, model, points)
        if _changes(call):
            yield from _replayed(call, model)
            points[call.revision] = model.point()
        elif call.error == "UnknownCheckpoint":
            yield from _refused(call, model)
        if call.seen is not None and list(call.seen) != view(model.lines):
            yield f"{call} read {_short(call.seen)}, the list has {_short(view(model.lines))}"
        if call.revision.generation != generation + model.epoch:
            yield f"{call}: the list was replaced {model.epoch} times by then"
            return
    if list(end) != model.lines:
        yield f"the file ends with {len(end)} records, the list with {len(model.lines)}"


def _judged(call: Call, model: Reference, points: dict[Revision, Point]) -> Iterator[str]:
    """Conflicts are raised exactly when messages came in."""
    assert call.expect is not None
    known = points.get(call.expect, Point(0, (), 0))  # a player begins with an empty file
    conflict = bool(model.conflicts(known, 0))
    if conflict != (call.error == "Conflict"):
        yield f"{call} expected {call.expect}: there was {'a' if conflict else 'no'} conflict"


def _replayed(call: Call, model: Reference) -> Iterator[str]:
    try:
        effect = model.apply(call.steps)
    except NoCheckpoint as missing:
        yield f"{call} was done, but there was no checkpoint {missing}"
        return
    if call.checkpoints != effect.checkpoints:
        yield f"{call} made checkpoints {call.checkpoints}, the list {effect.checkpoints}"
    if call.rotated != effect.rotated:
        yield f"{call} kept the old file as {call.rotated}, the list as {effect.rotated}"


def _refused(call: Call, model: Reference) -> Iterator[str]:
    wanted = [step.number for step in call.steps if step.kind == "revert"]
    there = view(model.lines)[3]
    if all(number in there for number in wanted):
        yield f"{call}: the list has checkpoints {there}"


def view(lines: Sequence[Line]) -> list[Any]:
    """What a reader sees of a list."""
    prompt, tokens = None, 0
    messages, marks = [], []
    for line in lines:
        assert isinstance(line, dict)
        if is_message(line):
            messages.append(line)
        elif role(line) == "_system_prompt":
            prompt = line["content"]
        elif role(line) == "_usage":
            tokens = line["token_count"]
        elif role(line) == "_checkpoint":
            marks.append(line["id"])
    return [messages, prompt, tokens, marks]


def _short(seen: Sequence[Any]) -> str:
    return f"{len(seen[0])} messages, checkpoints {seen[3]}"
