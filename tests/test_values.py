"""Small values are compared, hashed and shown by what is in them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from cosession import Revision
from cosession.values import field, frozen, replace, value


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


@frozen
class Fixed:
    one: int
    two: list[int] = field(default_factory=list)


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
    for some in (Single("a"), Fixed(1, [2]), Empty(), Revision(1, 2)):
        assert copy.copy(some) == pickle.loads(pickle.dumps(some)) == copy.deepcopy(some) == some
    match Pair(3):
        case Pair(one, two):
            assert (one, two) == (3, [])
    with pytest.raises(AttributeError):
        Pair(1).three = 3  # type: ignore[attr-defined]


def test_each_value_has_a_default_of_its_own() -> None:
    """What a factory makes is not shared, and `None` is a value like any other."""
    assert Pair(1).two is not Pair(1).two
    assert Fixed(1).two is not Fixed(1).two
    assert Fixed(1, None).two is None  # type: ignore[arg-type]


def test_values_are_made_with_their_fields_and_nothing_else() -> None:
    """The first one of a class, whose `__init__` isn't compiled yet, like every other."""

    @value
    class Fresh:
        one: int
        two: int = 2

    for _ in range(2):
        for wrong in ({}, {"one": 1, "three": 3}):
            with pytest.raises(TypeError, match="__init__"):
                Fresh(**wrong)
    assert (Fresh(1).two, Fresh(one=1, two=3).two) == (2, 3)


def test_what_callers_get_to_keep_can_not_be_changed() -> None:
    """Neither set nor deleted, nor added to."""
    kept = Fixed(1)
    with pytest.raises(AttributeError, match="replace"):
        kept.one = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="replace"):
        del kept.one
    with pytest.raises(AttributeError):
        kept.three = 3  # type: ignore[attr-defined]
    assert kept == Fixed(1)


def test_the_functions_for_dataclasses_take_values() -> None:
    """Who wants a dictionary for his JSON gets one."""
    assert dataclasses.asdict(Fixed(1, [2])) == {"one": 1, "two": [2]}
    assert dataclasses.replace(Revision(1, 2), position=3) == Revision(1, 3)
    assert all(map(dataclasses.is_dataclass, (Fixed, Pair(1), Revision)))
    one, two = dataclasses.fields(Pair)
    assert (one.name, one.default, two.default_factory) == ("one", dataclasses.MISSING, list)
    assert [each.repr for each in dataclasses.fields(Single)] == [True, False]
