"""System calls that fail, or let somebody else in first, when and as often as a test says."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = tuple(
    name
    for name in (
        "write",
        "pwrite",
        "read",
        "pread",
        "fsync",
        "fdatasync",
        "ftruncate",
        "fchmod",
        "fstat",
        "stat",
        "listdir",
        "open",
        "link",
        "unlink",
        "replace",
    )
    if hasattr(os, name)
)
"""The names in `os` through which the library reaches the disk."""

EVERY_CALL = (
    *CALLS,
    *(
        name
        for name in ("close", "fchown", "lseek", "lstat", "mkdir", "rename")
        if hasattr(os, name)
    ),
    "builtin open",
    "flock",
)
"""These and all others, also those that only a broken disk or a hostile kernel makes fail."""


def _place(name: str) -> tuple[Any, str]:
    """Where a call is looked up."""
    if name == "builtin open":
        return builtins, "open"
    if name == "flock":
        import fcntl

        return fcntl, "flock"
    return os, name


class Faults:
    """Counts this thread's calls into `os`, and does something before some of them."""

    def __init__(self) -> None:
        self.made: list[str] = []
        """The calls so far, by name."""
        self.before: Callable[[str, int], None] = lambda name, number: None
        """Called with a call's name, and how many of that name came before it."""
        self._thread = threading.get_ident()
        self.replaced: dict[str, Callable[..., Any]] = {}
        """What is called instead of the real calls, by name."""
        self._busy = False

    def call(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if self._busy or threading.get_ident() != self._thread:
            return real(*args, **options)
        real = self.replaced.get(name, real)
        number = self.made.count(name)
        self.made.append(name)
        self._busy = True
        try:
            if name == "close":
                real(*args, **options)  # whatever it says, the descriptor is closed
            self.before(name, number)
        finally:
            self._busy = False
        return None if name == "close" else real(*args, **options)


@contextmanager
def watched(names: tuple[str, ...] = CALLS) -> Iterator[Faults]:
    """Watch the calls for as long as the block lasts."""
    faults = Faults()
    places = {name: _place(name) for name in names}
    real = {name: getattr(*place) for name, place in places.items()}

    def watch(name: str) -> Callable[..., Any]:
        return lambda *args, **options: faults.call(name, real[name], args, options)

    try:
        for name, place in places.items():
            setattr(*place, watch(name))
        yield faults
    finally:
        for name, place in places.items():
            setattr(*place, real[name])


def failing(name: str, first: int, error: int, *, last: int | None = None) -> Callable[..., None]:
    """A `before` that fails the calls of that name from number `first` to number `last`."""

    def before(called: str, number: int) -> None:
        if called == name and number >= first and (last is None or number <= last):
            raise OSError(error, os.strerror(error))

    return before
