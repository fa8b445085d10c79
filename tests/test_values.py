"""Small values are compared, hashed and shown by what is in them."""

from __future__ import annotations

import copy
import pickle

import pytest

from cosession.values import field, replace, value


@value
class Pair:
    one: int
    two: list[int] = field(default_factory=list)


@value
class Other:
    one: int
    two: list[int] = field(default_factory=list)


@value
class Single:
    text: str
    hidden: str = field(default="", shown=False)


@value
class Empty:
    pass


def test_values_are_equal_if_class_and_content_are() -> None:
    """What another class says of the same content is another value."""
    assert Pair(1) == Pair(1, [])
    assert Empty() == Empty()
    unequal: list[tuple[object, object]] = [
        (Pair(1), Pair(1, [2])), (Pair(1), Other(1)), (Single("a"), "a"), (Empty(), ()),
    ]  # fmt: skip
    assert all(one != other for one, other in unequal)


def test_values_are_hashed_by_their_content() -> None:
    """Equal ones have one hash; what holds something that can't be hashed has none."""
    assert {Single("a"), Single("a"), Empty(), Empty()} == {Single("a"), Empty()}
    with pytest.raises(TypeError):
        hash(Pair(1))


def test_values_are_shown_copied_and_taken_apart() -> None:
    """As dataclasses are, and with nothing in them but their fields."""
    assert repr(Pair(1)) == "Pair(one=1, two=[])"
    assert repr(Single("a", "secret")) == "Single(text='a')"
    assert repr(Empty()) == "Empty()"
    assert replace(Pair(1), one=2) == Pair(2)
    assert copy.copy(Single("a")) == pickle.loads(pickle.dumps(Single("a"))) == Single("a")
    match Pair(3):
        case Pair(one, two):
            assert (one, two) == (3, [])
    with pytest.raises(AttributeError):
        Pair(1).three = 3  # type: ignore[attr-defined]
