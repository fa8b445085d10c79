"""What Ctrl-C, which may come behind any call, must not leave undone. Pure."""

from __future__ import annotations

import threading
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


def start(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        KeyboardInterrupt: It came where `Thread.start` waits for the thread to begin. That may make
            a `RuntimeError` of it (CPython's `Condition.wait`); the thread runs all the same.
        RuntimeError: The system gives none.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
