"""What a store has to offer to be tested, and one way to call it, asynchronous or not.

A candidate is a small class around a store, written for the kit by whoever has the store. Four
methods are required; all others are declared in `offers`, and clauses about what isn't there are
reported as not offered. Each method may be `async def`, if `append` is one.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

Message = dict[str, Any]
"""`{"role": "user", "content": "some text"}`: all that the kit writes, and looks at."""

OFFERS = {
    "checkpoint": ("checkpoint", "revert_to"),
    "rotated": ("rotated_histories",),
    "replace": ("replace",),
    "expect": ("revision", "try_append"),
    "turn": ("begin_turn", "end_turn"),
    "settle": ("settle",),
    "timeout": (),
    "follow": ("wait",),
    "shared": (),
    "async": (),
}
"""What can be offered, and the methods that it takes. `"async"` is added by the kit."""


class Candidate(Protocol):
    """One handle on one stored conversation. Others, in this process and others, are open too."""

    offers: Collection[str]
    """Which of the optional parts there are: the names in `OFFERS`."""

    def append(self, messages: list[Message]) -> Awaitable[object] | object:
        """Store them all, behind each other, or raise and store none.

        With `"timeout"`: takes `timeout=` too, and raises `TimeoutError` after so many seconds of
        waiting for others. Without one it waits.
        """

    def history(self) -> Awaitable[Sequence[Message]] | Sequence[Message]:
        """The messages as they are now, those that others wrote included."""

    def clear(self) -> Awaitable[object] | object:
        """Drop all messages."""

    def close(self) -> Awaitable[object] | object:
        """Let go of the store."""


class FullCandidate(Candidate, Protocol):
    """Everything that a candidate can offer."""

    def checkpoint(self) -> Awaitable[int] | int:
        """`"checkpoint"`: set a mark here, and return its number."""

    def revert_to(self, checkpoint: int) -> Awaitable[object] | object:
        """`"checkpoint"`: drop the mark and everything behind it."""

    def rotated_histories(self) -> Awaitable[list[list[Message]]] | list[list[Message]]:
        """`"rotated"`: the histories that a clear, a revert or a replace took out of use."""

    def replace(self, messages: list[Message]) -> Awaitable[object] | object:
        """`"replace"`: make these the history, in one step."""

    def revision(self) -> Awaitable[str] | str:
        """`"expect"`: a name for what `history` has shown last on this handle."""

    def try_append(self, messages: list[Message], revision: str) -> Awaitable[bool] | bool:
        """`"expect"`: append if no message came in since that revision; whether that was so."""

    def begin_turn(self, *, timeout: float | None = None) -> Awaitable[object] | object:
        """`"turn"`: from now on all others' messages wait, or raise `TimeoutError`."""

    def end_turn(self) -> Awaitable[object] | object:
        """`"turn"`: let the others go on."""

    def settle(self, *, keep: bool) -> Awaitable[bool] | bool:
        """`"settle"`: keep or undo what a process wrote in its turn before it died.

        Returns:
            Whether there was such a turn.
        """

    def wait(self, timeout: float) -> Awaitable[bool] | bool:
        """`"follow"`: until there is something that `history` has not shown yet on this handle.

        Returns:
            `False` if nothing came for so many seconds.
        """


class Factory(Protocol):
    """Opens a candidate. It may be `async def`, too."""

    def __call__(self, location: Path) -> Awaitable[Candidate] | Candidate:
        """Open the conversation of that location, and make it if it is new.

        Args:
            location: An empty folder. A store that is no file takes its path for a name: another
                one for every clause, the same for all processes of a clause.
        """


class Caller:
    """Calls candidates: on the caller's thread, or, asynchronous ones, all in one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def open(self, factory: str, location: Path) -> Handle:
        """Open a candidate by the factory's name, `module:function`."""
        module, _, name = factory.partition(":")
        make: Any = importlib.import_module(module)
        for part in name.split("."):
            make = getattr(make, part)
        asynchronous = inspect.iscoroutinefunction(make)
        candidate = self.result(make, location) if asynchronous else make(location)
        return Handle(self, candidate)

    def result(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call something in the event loop, and wait for it."""
        call = _awaited(function, *args, **options)
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()

    def start(
        self, call: Coroutine[Any, Any, Any], done: Callable[[asyncio.Task[Any]], None]
    ) -> Callable[[], object]:
        """Start something in the event loop; what cancels it."""
        tasks: list[asyncio.Task[Any]] = []

        def begin() -> None:
            tasks.append(self.loop.create_task(call))
            tasks[0].add_done_callback(done)

        def cancel() -> None:
            tasks[0].cancel()

        self.loop.call_soon_threadsafe(begin)
        return lambda: self.loop.call_soon_threadsafe(cancel)


class Handle:
    """A candidate whose methods are called by name."""

    def __init__(self, caller: Caller, candidate: Any) -> None:
        self._caller = caller
        self._candidate = candidate
        self.is_async = inspect.iscoroutinefunction(candidate.append)
        self.offers = _checked(candidate) | ({"async"} if self.is_async else set())

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method, and wait for what it returns."""
        function = getattr(self._candidate, method)
        if self.is_async:
            return self._caller.result(function, *args, **options)
        return function(*args, **options)

    def coroutine(self, method: str, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """The call of an asynchronous candidate's method, to be started in the loop."""
        return _awaited(getattr(self._candidate, method), *args, **options)

    def append(self, messages: list[Message]) -> None:
        self.call("append", messages)

    def texts(self) -> list[str]:
        """The contents of the history."""
        return [message["content"] for message in self.call("history")]


async def _awaited(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    value = function(*args, **options)
    return await value if inspect.isawaitable(value) else value


def _checked(candidate: Any) -> set[str]:
    offers = set(candidate.offers)
    if unknown := offers - set(OFFERS):
        raise TypeError(f"there is no such thing to offer: {', '.join(sorted(unknown))}")
    needed = ["append", "history", "clear", "close"]
    needed += [method for offer in sorted(offers) for method in OFFERS[offer]]
    if missing := [method for method in needed if not callable(getattr(candidate, method, None))]:
        raise TypeError(f"the candidate has no method {', '.join(missing)}")
    return offers
