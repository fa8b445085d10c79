"""Act on a task at exactly the n-th time it is suspended."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def acting_when_suspended(
    work: Coroutine[Any, Any, T], act: Callable[[int], None]
) -> Generator[Any, Any, T]:
    """Run `work` as it would run by itself, and call `act(n)` when it suspends the n-th time."""
    suspended = 0
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            waits_for = work.send(result) if error is None else work.throw(error)
        except StopIteration as stop:
            value: T = stop.value
            return value
        suspended += 1
        act(suspended)
        result = error = None
        try:
            result = yield waits_for
        except BaseException as thrown:
            error = thrown
