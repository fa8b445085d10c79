"""The messages that the kit writes, which say themselves what has to be around them.

`ada/7/1/3` is the second of three messages of ada's append number 7. So a history alone shows if
half an append is missing, if something is there twice, and if somebody's appends are in another
order than that in which they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .candidate import Message


class Part(NamedTuple):
    """One message of one append."""

    name: str
    number: int
    place: int
    size: int

    def __str__(self) -> str:
        return f"message {self.place + 1} of {self.size} of {self.name}'s append {self.number}"


def batch(name: str, number: int, size: int, *, padding: int = 0) -> list[Message]:
    """The messages of one append; `padding` makes each of them so many characters longer."""
    tail = " " + "x" * padding if padding else ""
    return [
        {"role": "user", "content": f"{name}/{number}/{place}/{size}{tail}"}
        for place in range(size)
    ]


def part(text: str) -> Part:
    """Read a content back.

    Raises:
        ValueError: It is none of the kit's.
    """
    name, number, place, size = text.partition(" ")[0].split("/")
    return Part(name, int(number), int(place), int(size))


def numbers(texts: Iterable[str], name: str) -> list[int]:
    """Which of somebody's appends are there, in their order, by their first messages."""
    parts = [part(text) for text in texts]
    return [one.number for one in parts if one.name == name and one.place == 0]


def torn(texts: Sequence[str]) -> str | None:
    """The first append that is there in part, or has something between its parts."""
    expected: Part | None = None
    for index, text in enumerate(texts):
        one = part(text)
        if one != expected and (expected is not None or one.place):
            return f"at {index} there is {one}, where {expected or 'a new append'} was expected"
        expected = one._replace(place=one.place + 1) if one.place + 1 < one.size else None
    return None if expected is None else f"the history ends where {expected} was expected"


def disorder(texts: Sequence[str]) -> str | None:
    """The first append that is there twice, or before an earlier one of the same writer."""
    last: dict[str, int] = {}
    for one in (part(text) for text in texts):
        if one.place == 0:
            before = last.get(one.name, -1)
            if one.number <= before:
                return f"{one.name}'s append {one.number} comes behind its append {before}"
            last[one.name] = one.number
    return None


def shortened(values: Sequence[object]) -> str:
    """A list for a person to read."""
    if not values:
        return "nothing"
    shown = ", ".join(str(value) for value in values[:5])
    return shown if len(values) <= 5 else f"{shown}, … ({len(values)} in all)"
