"""Tell live objects that they are now in a forked child."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    def after_fork_in_child(self) -> None:
        """Drop what a child must not share with its parent. Runs with no other thread alive."""


_watched: WeakSet[Forkable] = WeakSet()


def watch(thing: Forkable) -> None:
    """Call `thing.after_fork_in_child()` in every child forked while it is alive."""
    _watched.add(thing)


def _tell_all() -> None:
    for thing in list(_watched):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_all)
