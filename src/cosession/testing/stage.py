"""Where a clause is played: real processes around one conversation, and a bound on every wait.

1. An actor is a process with a candidate of its own. Whatever a clause leaves running is killed.
2. Processes that are unhurt at the end of a clause are used again in the next one, with a handle on
   another conversation: most of a test's time would go into starting them.
3. A call that has no answer after `patience` seconds is a violation: nothing in here has to wait
   for longer than a moment, unless the store makes it.
4. Chance comes from a seed. Which process is faster doesn't, so a seed makes a finding likelier to
   come again, and no more than that.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .candidate import Message
from .clause import NotApplicable, Violation, require
from .tales import shortened

START = 60.0
"""Seconds that a process may take to be there: the store has no part in that."""


class Raised(Violation):
    """The candidate raised something. It is a violation where a clause doesn't expect it."""

    def __init__(self, doing: str, kinds: Sequence[str], text: str) -> None:
        self.kinds = frozenset(kinds)
        super().__init__(f"{doing} raised {kinds[0]}: {text}")


class NoAnswer(Violation):
    """The candidate was still at it when patience was at its end."""


class Pending:
    """Something that an actor has been told to do."""

    def __init__(self, actor: Actor, number: int, doing: str) -> None:
        self._actor = actor
        self._number = number
        self._doing = doing
        self._ended = threading.Event()
        self._answer: dict[str, Any] = {}
        self.said: list[Any] = []
        """What has been said on the way; everything of it that was said before a kill."""
        self._heard = threading.Condition()

    def take(self, answer: dict[str, Any]) -> None:
        with self._heard:
            if "said" in answer:
                self.said.append(answer["said"])
            else:
                self._answer = answer
                self._ended.set()
            self._heard.notify_all()

    @property
    def is_over(self) -> bool:
        return self._ended.is_set()

    def result(self, patience: float | None = None) -> Any:
        """Wait for what it returns.

        Raises:
            Raised: The candidate raised something.
            NoAnswer: It took longer than `patience`, or than that of the stage.
        """
        patience = self._actor.patience if patience is None else patience
        if not self._ended.wait(patience):
            raise NoAnswer(f"{self._doing}: no end after {patience:g} s")
        if error := self._answer.get("raised"):
            raise Raised(self._doing, error["kinds"], error["text"])
        return self._answer.get("returned")

    def hear(self, count: int) -> None:
        """Wait until so much has been said, or it is over."""
        with self._heard:
            enough = self._heard.wait_for(
                lambda: len(self.said) >= count or self.is_over, self._actor.patience
            )
        if not enough:
            raise NoAnswer(f"{self._doing}: nothing came for {self._actor.patience:g} s")
        if self.is_over:
            self.result()

    def cancel(self) -> None:
        """Cancel the task, if it was started as one."""
        self._actor.tell(do="cancel", id=self._number)

    def stop(self, patience: float | None = None) -> Any:
        """Have a role end, and wait for what it returns."""
        self._actor.tell(do="stop", id=self._number)
        return self.result(patience)


class Actor:
    """A process with the candidate open."""

    def __init__(self, path: str) -> None:
        self.patience = START
        self.path = path
        """Where it finds modules."""
        self._count = 1
        self._pending: dict[int, Pending] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line) if line.endswith(b"\n") else {}
            if answer:
                self._pending[answer.pop("id")].take(answer)
        for pending in [*self._pending.values()]:
            if not pending.is_over:
                pending.take({"raised": {"kinds": ["ProcessEnded"], "text": "the process ended"}})

    def _expect(self, doing: str) -> Pending:
        pending = self._pending[self._count] = Pending(self, self._count, doing)
        self._count += 1
        return pending

    def tell(self, **order: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, which its answers will say

    def _start(self, do: str, doing: str, **order: Any) -> Pending:
        pending = self._expect(doing)
        self.tell(do=do, id=pending._number, **order)
        return pending

    # ---- what clauses do with it ------------------------------------------------------------

    def open(self, factory: str, location: Path) -> Pending:
        """Have it open the candidate; the answer is what is offered."""
        return self._start("open", "opening the candidate", factory=factory,
                           location=str(location))  # fmt: skip

    def is_fit(self) -> bool:
        """Close the candidate; whether the process is as good as new."""
        busy = [pending for pending in self._pending.values() if not pending.is_over]
        if busy or self._process.poll() is not None:
            return False
        try:
            self._start("close", "close").result()
        except Violation:
            return False
        self._pending.clear()
        return True

    def wrote(self) -> str:
        """What it wrote on standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def start(self, method: str, *args: Any, **options: Any) -> Pending:
        """Begin a call of a method."""
        return self._start("call", method, method=method, args=args, options=options)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method, and wait for what it returns."""
        return self.start(method, *args, **options).result()

    def task(self, method: str, *args: Any, **options: Any) -> Pending:
        """Begin a call that can be cancelled; of an asynchronous candidate."""
        return self._start("task", method, method=method, args=args, options=options)

    def play(self, role: str, **options: Any) -> Pending:
        """Begin one of the roles in `roles`."""
        return self._start("play", role, role=role, options=options)

    def append(self, messages: list[Message]) -> None:
        self.call("append", messages)

    def texts(self) -> list[str]:
        """The contents of the history, as this process sees it now."""
        return contents(self.call("history"))

    # ---- what happens to processes ----------------------------------------------------------

    def kill(self) -> None:
        """Kill the process, and come back when it is dead."""
        self._process.kill()
        self._process.wait(START)
        self._listener.join(START)

    def halt(self) -> None:
        """Stop the process where it is (SIGSTOP)."""
        if sys.platform != "win32":
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        if sys.platform != "win32":
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill the process, and close what leads to it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass  # something to say to somebody who is dead
        self._errors.close()


_idle: list[Actor] = []
"""Processes that wait for the next clause."""

KEPT = 8


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _engaged() -> Actor:
    """A process that finds the modules that this one finds."""
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    for place, actor in enumerate(_idle):
        if actor.path == path:
            return _idle.pop(place)
    return Actor(path)


def _released(actor: Actor) -> None:
    """Keep the process for the next clause, or end it. Of too many, the longest idle one goes."""
    if actor.is_fit():
        _idle.append(actor)
    else:
        actor.end()
    if len(_idle) > KEPT:
        _idle.pop(0).end()


class Stage:
    """What a clause is given: a place, actors, and chance."""

    def __init__(
        self,
        factory: str,
        folder: Path,
        needs: frozenset[str],
        *,
        seed: int,
        effort: float,
        patience: float,
    ) -> None:
        self.chance = random.Random(seed)
        self.patience = patience
        self.location = folder / "store"
        self.location.mkdir(parents=True)
        self.offers: frozenset[str] = frozenset()
        self._factory = factory
        self._needs = needs
        self._effort = effort
        self._actors: list[Actor] = []

    def times(self, count: int) -> int:
        """How often to do something that is usually done `count` times."""
        return max(2, round(count * self._effort))

    def actors(self, count: int) -> list[Actor]:
        """So many processes, each with a candidate of its own open."""
        actors = [_engaged() for _ in range(count)]
        self._actors += actors
        for actor, opening in [
            (actor, actor.open(self._factory, self.location)) for actor in actors
        ]:
            try:
                self.offers = frozenset(opening.result(START))
            except Violation as error:
                raise RuntimeError(f"{error}\n{actor.wrote()}") from error
            actor.patience = self.patience
        if missing := sorted(self._needs - self.offers):
            raise NotApplicable(f"not offered: {', '.join(missing)}")
        return actors

    def actor(self) -> Actor:
        """Another process with the candidate open."""
        return self.actors(1)[0]

    def close(self) -> None:
        """Let go of everybody, those who are still at something by a kill."""
        for actor in self._actors:
            _released(actor)


def contents(history: Sequence[Message]) -> list[str]:
    """The texts of a history that came from an actor."""
    return [message["content"] for message in history]


def require_there(texts: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise a `Violation` if some of the wanted texts are missing."""
    have = set(texts)
    missing = [text for text in wanted if text not in have]
    require(not missing, f"acknowledged, and not in {where}: {shortened(missing)}")
