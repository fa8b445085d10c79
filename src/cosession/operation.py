"""What waits in the queue in front of a store. It is settled once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from .batch import Request, Result
from .records import Outcome

Callback = Callable[[], object]


def call_all(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        callback()


class Operation:
    """One request on its way through the queue."""

    __slots__ = ("_request", "_result", "on_settled", "once", "queued", "since", "withdrawn")

    def __init__(
        self, request: Request | None, *, once: bool = False, on_settled: Callback | None = None
    ) -> None:
        self._request = request
        self.once = once
        """Give up if the lock isn't free at the first try."""
        self.since = time.monotonic()
        self.queued = False
        self.withdrawn = False
        self._result: Result | None = None
        self.on_settled: tuple[Callback, ...] = () if on_settled is None else (on_settled,)
        """Are called on the settling thread."""

    @property
    def request(self) -> Request:
        """What is to be committed. No longer asked for while it waits, it doesn't change."""
        assert self._request is not None
        return self._request

    @property
    def settled(self) -> bool:
        return self._result is not None

    def settle(self, result: Result) -> None:
        self._result = result

    def outcome(self) -> Outcome:
        """What it did.

        Raises:
            CosessionError: Why it did not happen.
            Exception: What a callback of it raised.
        """
        assert self._result is not None
        if isinstance(self._result, Exception):
            raise self._result
        return self._result
