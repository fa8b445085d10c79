"""A program from its beginning to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Literal

from contenders.base import Contender
from measure import Failed
from messages import SIZE

from .base import Column, Effort, Goal, Question, Sample, Stage, Workload

ELAPSED = Column("elapsed", "time", "ms")


class Starting(Workload):
    """Python starts, imports, opens a session, perhaps has its messages, and ends."""

    columns = (ELAPSED,)

    def __init__(self, effort: Effort, what: Literal["open", "all"]) -> None:
        self.rounds = effort.rounds
        self.what = what
        self.name = "start" if what == "open" else "start-all"
        opens = "open 1 MB" if what == "open" else "have all messages of 1 MB"
        self.title = f"a whole process: import, {opens}, exit"
        more = ", asks how many messages it has," if what == "all" else ""
        self.text = (
            "From before Python is started until it has ended: it imports the contender, opens a "
            f"session of 1 MB{more} and that is all. The bare one imports asyncio, runs an event "
            "loop, and opens nothing."
        )
        goals = (Goal("elapsed", "≤", 1.3, "limit"),) if what == "open" else ()
        self.questions = (Question(self.title, ELAPSED, more_is_better=False, goals=goals),)

    def enters(self, contender: type[Contender]) -> bool:
        return contender.startup is not None and not contender.in_threads

    def prepare(self, stage: Stage) -> None:
        stage.team.ask("fill", path=stage.kept("session"), count=1_000_000 // SIZE, size=SIZE)
        self._run(stage)  # compiles what is imported

    def measure(self, stage: Stage) -> Sample:
        begun = time.perf_counter_ns()
        self._run(stage)
        return Sample({"elapsed": (time.perf_counter_ns() - begun) / 1e6})

    def _run(self, stage: Stage) -> None:
        assert stage.contender.startup is not None
        command = [sys.executable, "-c", stage.contender.startup, stage.kept("session"), self.what]
        # As if it were installed: compiled once, and not each time.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=environment, check=False
        )
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
