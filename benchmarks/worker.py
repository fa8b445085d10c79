"""A process of one contender: it takes a job from standard input, and says how it went.

    python worker.py CONTENDER

1. Requests and answers are one JSON object a line. Whatever a contender prints goes elsewhere.
2. A job that is to begin at the same moment as others says that it is ready, and hears when.
3. A process does one job after the other, so that importing a package is paid for once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from contenders import CONTENDERS
from jobs import JOBS


class Line:
    """The line to the command."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, **answer: Any) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)

    def hear(self) -> dict[str, Any] | None:
        """The next request; `None` if there will be none."""
        line = sys.stdin.readline()
        heard: dict[str, Any] | None = json.loads(line) if line else None
        return heard

    def begin(self, **facts: Any) -> int:
        """Say that all is ready, and return at the moment that all are told to begin at."""
        self.say(**facts)
        told = self.hear()
        if told is None:
            raise SystemExit
        at = int(told["at"])
        time.sleep(max(at - time.perf_counter_ns(), 0) / 1e9)
        return at


def main() -> None:
    """Do jobs until there are no more."""
    contender, line = CONTENDERS[sys.argv[1]], Line()
    while (request := line.hear()) is not None:
        try:
            line.say(**asyncio.run(JOBS[request.pop("job")](contender, line, **request)))
        except Exception as error:
            line.say(error=describe(error))


def describe(error: Exception) -> str:
    """One line about it."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: {error.name}"
    if isinstance(error, NotImplementedError):
        return f"not here: {error}"
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


if __name__ == "__main__":
    main()
