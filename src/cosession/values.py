"""Small values: compared, hashed and shown by their fields, and not changed. Pure.

`dataclass(frozen=True, slots=True)` compiles six functions for every class, and there are some
forty: half of the time that importing the package took. And its instances take three times as long
to make. Here only `__init__` is compiled; that nobody changes a value is for the type checker to
see. Those of `records` and `changes`, which callers get to keep, are frozen in earnest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make the class a dataclass with slots that compares, hashes and shows its fields."""
    made = dataclass(slots=True, repr=False, eq=False)(cls)
    names = tuple(each.name for each in fields(made))  # type: ignore[arg-type]
    shown = tuple(each.name for each in fields(made) if each.repr)  # type: ignore[arg-type]

    content: Callable[[object], object] = attrgetter(*names) if names else type

    def equals(self: object, other: object) -> bool:
        return content(self) == content(other) if type(other) is type(self) else NotImplemented

    def hashed(self: object) -> int:
        return hash((made, content(self)))

    def described(self: object) -> str:
        parts = (f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{made.__qualname__}({', '.join(parts)})"

    made.__eq__ = equals  # type: ignore[method-assign]
    made.__hash__ = hashed  # type: ignore[method-assign]
    made.__repr__ = described  # type: ignore[method-assign]
    return made
