"""System calls that take their time: a sleep before or behind some of them.

What is a microsecond between two steps of a commit becomes milliseconds, in which another process
gets its turn, or a signal comes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

CALLS = ("write", "pwrite", "link", "replace", "unlink", "ftruncate", "open", "fdatasync")
LOCKS = ("try_lock", "lock", "unlock")


def install(dice: random.Random, *, chance: float, longest: float) -> None:
    """From now on, each of these calls in this process may sleep; for good."""
    from cosession import _platform

    def slow(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            # Drawn first: a call on another thread must not change what this one is to meet.
            before, after = (
                dice.uniform(0, longest) if dice.random() < chance else 0.0 for _ in range(2)
            )
            if before:
                time.sleep(before)
            result = real(*arguments, **options)
            if after:
                time.sleep(after)
            return result

        return call

    for module, names in ((os, CALLS), (_platform, LOCKS)):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, slow(getattr(module, name)))
