"""A process on the stage: `python -m cosession.testing.worker`.

It does what it is told, one JSON object a line on standard input, and answers on what was standard
output. Each call runs on a thread of its own, or as a task, so several can be under way. It ends
at once with its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import roles
from .candidate import Caller, Handle


class Worker:
    """Does what the lines on standard input say."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._writing = threading.Lock()
        self._cancel: dict[int, Callable[[], object]] = {}
        self._stops: dict[int, threading.Event] = {}
        self._caller = Caller()
        self._factory = ""
        self._location = Path()
        self._handle: Handle | None = None

    def run(self) -> None:
        for line in sys.stdin.buffer:
            order = json.loads(line)
            match order.pop("do"):
                case "cancel":
                    self._cancel[order["id"]]()
                case "stop":
                    self._stops[order["id"]].set()
                case "task":
                    self._start_task(**order)
                case kind:
                    self._stops[order["id"]] = threading.Event()
                    do = getattr(self, f"_do_{kind}")
                    threading.Thread(
                        target=self._finish, args=(do, order.pop("id"), order), daemon=True
                    ).start()

    def _finish(self, do: Callable[..., Any], number: int, order: dict[str, Any]) -> None:
        try:
            self._answer(number, returned=do(number, **order))
        except BaseException as error:
            self._answer(number, raised=_described(error))

    def _open(self) -> Handle:
        return self._caller.open(self._factory, self._location)

    def _do_open(self, number: int, factory: str, location: str) -> list[str]:
        self._factory, self._location = factory, Path(location)
        self._handle = self._open()
        return sorted(self._handle.offers)

    def _do_close(self, number: int) -> None:
        if self._handle is not None:
            self._handle.call("close")
        self._handle = None

    def _do_call(self, number: int, method: str, args: list[Any], options: dict[str, Any]) -> Any:
        assert self._handle is not None
        return self._handle.call(method, *args, **options)

    def _do_play(self, number: int, role: str, options: dict[str, Any]) -> Any:
        assert self._handle is not None
        scene = roles.Scene(
            self._handle,
            self._open,
            self._caller.loop,
            lambda value: self._answer(number, said=value),
            self._stops[number],
        )
        return getattr(roles, role)(scene, **options)

    def _start_task(self, id: int, method: str, args: list[Any], options: dict[str, Any]) -> None:  # noqa: A002
        assert self._handle is not None

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                self._answer(id, raised=_described(asyncio.CancelledError()))
            elif error := task.exception():
                self._answer(id, raised=_described(error))
            else:
                self._answer(id, returned=None)

        self._cancel[id] = self._caller.start(
            self._handle.coroutine(method, *args, **options), done
        )

    def _answer(self, number: int, **what: Any) -> None:
        line = json.dumps({"id": number} | what, default=repr) + "\n"
        with self._writing:
            os.write(self._answers, line.encode())


def _described(error: BaseException) -> dict[str, Any]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"kinds": kinds, "text": str(error)}


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what the candidate prints is no answer
    Worker(answers).run()
    os._exit(0)


if __name__ == "__main__":
    main()
