"""Small values: compared, hashed and shown by their fields, and not changed. Pure.

They are declared as dataclasses are. But `dataclass(frozen=True, slots=True)` compiles six
functions for each class when its module is imported; for the forty of them that was half of the
time that importing the package took. Here one is compiled, `__init__`, and that when the first
value of a class is made: a small program makes values of some ten classes.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T")

_REQUIRED: Any = object()


class _Field:
    """What there is to say of a field, other than a default."""

    def __init__(self, default: Any, factory: Callable[[], Any], shown: bool) -> None:
        self.default, self.factory, self.shown = default, factory, shown

    @classmethod
    def of(cls, said: Any) -> _Field:
        """What was said of a field in its class."""
        return said if isinstance(said, _Field) else cls(said, _REQUIRED, True)


def field(
    *,
    default: Any = _REQUIRED,
    default_factory: Callable[[], Any] = _REQUIRED,
    shown: bool = True,
) -> Any:
    """A field with a default that is made anew for each value, or one that isn't shown."""
    return _Field(default, default_factory, shown)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make the class one of values. That nobody changes them is for the type checker to see."""
    return _class_of_values(cls, frozen=False)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """The same, and they can't be changed: for those that callers get to keep."""
    return _class_of_values(cls, frozen=True)


def replace(value: T, **changes: Any) -> T:
    """Another value with these fields changed."""
    fields: tuple[str, ...] = value.__match_args__  # type: ignore[attr-defined]
    return type(value)(**{name: getattr(value, name) for name in fields} | changes)


class _Fields:
    """The fields as the functions of `dataclasses` know them, made when one of those asks."""

    def __init__(self, types: dict[str, Any], said: dict[str, Any]) -> None:
        self._types, self._said = types, said

    def __get__(self, instance: object, made: Any) -> dict[str, Any]:
        import dataclasses

        fields: list[tuple[str, Any, Any]] = []
        for name, kind in self._types.items():
            what = _Field.of(self._said.get(name, _REQUIRED))
            given: dict[str, Any] = {"default": what.default, "default_factory": what.factory}
            given = {name: value for name, value in given.items() if value is not _REQUIRED}
            fields.append((name, kind, dataclasses.field(repr=what.shown, **given)))
        like: Any = dataclasses.make_dataclass(made.__name__, fields)
        made.__dataclass_fields__ = known = dict(like.__dataclass_fields__)
        return known


def _class_of_values(cls: type[T], *, frozen: bool) -> type[T]:
    content = dict(cls.__dict__)
    names = tuple(cls.__annotations__)
    said = {name: content.pop(name) for name in names if name in content}
    for made_anew in ("__dict__", "__weakref__"):
        content.pop(made_anew, None)
    again: Any = type(cls)  # slots are for a class that is being made
    made: Any = again(
        cls.__name__, cls.__bases__, content | {"__slots__": names, "__match_args__": names}
    )
    made.__qualname__ = cls.__qualname__
    fields: Callable[[object], object] = attrgetter(*names) if names else type
    hidden = {name for name, what in said.items() if isinstance(what, _Field) and not what.shown}

    def init(self: object, *given: Any, **named: Any) -> None:
        made.__init__ = _compiled_init(made, names, said, frozen=frozen)
        made.__init__(self, *given, **named)

    def equals(self: object, other: object) -> bool:
        return fields(self) == fields(other) if type(other) is type(self) else NotImplemented

    def hashed(self: object) -> int:
        return hash((made, fields(self)))

    def described(self: object) -> str:
        parts = (f"{name}={getattr(self, name)!r}" for name in names if name not in hidden)
        return f"{made.__qualname__}({', '.join(parts)})"

    def reduced(self: object) -> tuple[Any, ...]:
        return made, tuple(getattr(self, name) for name in names)

    def refuse(self: object, name: str, *_: object) -> NoReturn:
        raise AttributeError(f"a {made.__qualname__} can't be changed: replace() makes another one")

    made.__init__, made.__reduce__, made.__replace__ = init, reduced, replace
    made.__dataclass_fields__ = _Fields(cls.__annotations__, said)
    made.__eq__, made.__hash__, made.__repr__ = equals, hashed, described
    if frozen:
        made.__setattr__ = made.__delattr__ = refuse
    result: type[T] = made
    return result


def _compiled_init(
    made: type, names: tuple[str, ...], said: dict[str, Any], *, frozen: bool
) -> Callable[..., None]:
    """The class's `__init__`, written out."""
    known: dict[str, Any] = {}
    given, body = ["self"], ["pass"]
    for name in names:
        what = _Field.of(said.get(name, _REQUIRED))
        default = what.default
        if what.factory is not _REQUIRED:
            default = what.factory
            body.append(f"{name} = default_{name}() if {name} is default_{name} else {name}")
        known[f"default_{name}"], known[f"set_{name}"] = default, made.__dict__[name].__set__
        given.append(name if default is _REQUIRED else f"{name}=default_{name}")
        body.append(f"set_{name}(self, {name})" if frozen else f"self.{name} = {name}")
    exec(f"def __init__({', '.join(given)}):\n " + "\n ".join(body), known)  # noqa: S102
    init: Callable[..., None] = known["__init__"]
    return init
