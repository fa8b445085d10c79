"""What Ctrl-C, which may come behind any call, must not leave undone. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def insist(action: Callable[[], T]) -> T:
    """Do something that may be repeated, and don't let Ctrl-C keep it from being done.

    The caller is on the way out because of an earlier one.
    """
    while True:
        try:
            return action()
        except Exception:
            raise
        except BaseException:  # noqa: S112 - the first one is what the user sees
            continue
