"""System calls that fail, or let somebody else in first, when and as often as a test says."""

from __future__ import annotations

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


class Faults:
    """Counts this thread's calls into `os`, and does something before some of them."""

    def __init__(self) -> None:
        self.made: list[str] = []
        """The calls so far, by name."""
        self.before: Callable[[str, int], None] = lambda name, number: None
        """Called with a call's name, and how many of that name came before it."""
        self._thread = threading.get_ident()
        self._busy = False

    def call(self, name: str, real: Callable[..., Any], args: Any, options: Any) -> Any:
        if self._busy or threading.get_ident() != self._thread:
            return real(*args, **options)
        number = self.made.count(name)
        self.made.append(name)
        self._busy = True
        try:
            self.before(name, number)
        finally:
            self._busy = False
        return real(*args, **options)


@contextmanager
def watched() -> Iterator[Faults]:
    """Watch the calls for as long as the block lasts."""
    faults = Faults()
    real = {name: getattr(os, name) for name in CALLS}

    def watch(name: str) -> Callable[..., Any]:
        return lambda *args, **options: faults.call(name, real[name], args, options)

    try:
        for name in CALLS:
            setattr(os, name, watch(name))
        yield faults
    finally:
        for name in CALLS:
            setattr(os, name, real[name])


def failing(name: str, first: int, error: int, *, last: int | None = None) -> Callable[..., None]:
    """A `before` that fails the calls of that name from number `first` to number `last`."""

    def before(called: str, number: int) -> None:
        if called == name and number >= first and (last is None or number <= last):
            raise OSError(error, os.strerror(error))

    return before
