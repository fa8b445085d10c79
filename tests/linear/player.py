"""A process that does random operations in rounds, and tells of each.

python -m linear.player PATH NAME SEED [MUTANT] and, for each round, the number of operations on
standard input. Names that begin with `a` are asyncio programs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import mutants
from cosession import BlockingSession, Conflict, CosessionError, Revision, Session
from storm import delays


class Player:
    def __init__(self, path: str, name: str, seed: str) -> None:
        self.name = name
        self.dice = random.Random(f"{seed}/{name}")
        self.number = 0
        self._runner = asyncio.Runner()
        self._asynchronous = name.startswith("a")
        kind: Any = Session if self._asynchronous else BlockingSession
        self.session: Any = kind(path, create=False)
        self.wait(self.session.open())

    def wait(self, value: Any) -> Any:
        return self._runner.run(value) if asyncio.iscoroutine(value) else value

    def close(self) -> None:
        self.wait(self.session.close())
        self._runner.close()

    def play(self) -> dict[str, Any]:
        """Do one operation; what is to be said of it."""
        self.number += 1
        event: dict[str, Any] = {
            "op": self.number, "kind": "write", "steps": [], "expect": None, "error": "",
            "checkpoints": [], "rotated": None, "seen": None,
        }  # fmt: skip
        act = self._choose(event)
        event["invoked"] = time.monotonic()
        try:
            revision = act()
        except CosessionError as error:
            event["error"] = type(error).__name__
            revision = error.current if isinstance(error, Conflict) else self.session.revision
        event["responded"] = time.monotonic()
        event["revision"] = str(revision)
        if event["kind"] == "read":
            event["seen"] = self._view()
        return event

    def _choose(self, event: dict[str, Any]) -> Callable[[], Revision]:
        dice = self.dice.random()
        if dice < 0.3:
            event["kind"] = "read"
            return self._read
        expect = self.session.revision if self.dice.random() < 0.4 else None
        event["expect"] = expect and str(expect)
        if dice < 0.6:
            records = self._messages(self.dice.choice([1, 1, 2, 3]))
            event["steps"] = [_step("append", records)]
            return lambda: self.wait(self.session.append(records, expect=expect))
        if dice < 0.65:
            tokens = self.dice.randrange(10_000)
            event["steps"] = [_step("usage", [{"role": "_usage", "token_count": tokens}])]
            return lambda: self.wait(self.session.record_usage(tokens, expect=expect))
        if dice < 0.78:
            kinds = ["checkpoint"]
        elif dice < 0.85:
            kinds = ["revert"]
        elif dice < 0.89:
            kinds = ["prompt"]
        elif dice < 0.93:
            kinds = ["clear", "prompt", "checkpoint", "append"]
        else:
            kinds = ["append", "checkpoint", "append"]
        steps = event["steps"] = [self._step(kind) for kind in kinds]
        return lambda: self._transact(steps, expect, event)

    def _step(self, kind: str) -> dict[str, Any]:
        if kind == "append":
            return _step(kind, self._messages(1))
        if kind == "prompt":
            text = f"{self.name} {self.number}"
            return _step(kind, [{"role": "_system_prompt", "content": text}])
        return _step(kind, [], self.dice.randrange(4))

    def _messages(self, count: int) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": f"{self.name} {self.number} {part}"}
            for part in range(count)
        ]

    def _transact(
        self, steps: list[dict[str, Any]], expect: Revision | None, event: dict[str, Any]
    ) -> Revision:
        async def asynchronously() -> Any:
            async with self.session.transaction(expect=expect) as transaction:
                fill(transaction, steps)
            return transaction

        if self._asynchronous:
            done = self._runner.run(asynchronously())
        else:
            with self.session.transaction(expect=expect) as done:
                fill(done, steps)
        event["checkpoints"] = done.checkpoints
        event["rotated"] = int(done.rotated.stem.split("_")[1]) if done.rotated else None
        revision: Revision = done.revision
        return revision

    def _read(self) -> Revision:
        revision: Revision = self.wait(self.session.refresh())
        return revision

    def _view(self) -> list[Any]:
        session = self.session
        return [
            [message.model_dump(exclude_unset=True) for message in session.history],
            session.system_prompt,
            session.token_count,
            list(session.checkpoints),
        ]


def fill(transaction: Any, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        match step["kind"]:
            case "append":
                transaction.append(step["records"])
            case "checkpoint":
                transaction.checkpoint()
            case "prompt":
                transaction.set_system_prompt(step["records"][0]["content"])
            case "revert":
                transaction.revert_to(step["number"])
            case "clear":
                transaction.clear()


def _step(kind: str, records: list[dict[str, Any]], number: int = 0) -> dict[str, Any]:
    return {"kind": kind, "records": records, "number": number}


def main(path: str, name: str, seed: str, mutant: str = "") -> None:
    logging.getLogger("cosession").addHandler(logging.NullHandler())
    if mutant:
        mutants.apply(mutant)
    player = Player(path, name, seed)
    delays.install(random.Random(f"{seed}/{name}/delays"), chance=0.05, longest=0.003)
    print("ready", flush=True)
    for line in sys.stdin:
        events = [player.play() for _ in range(int(line))]
        print(json.dumps(events), flush=True)
    player.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
