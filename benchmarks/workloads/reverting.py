"""Going back to an earlier place of the session."""

from __future__ import annotations

from contenders.base import Contender
from messages import SIZE

from .base import Column, Effort, Goal, Question, Sample, Stage, Workload, filled

ELAPSED = Column("elapsed", "time", "ms", 2)


class Reverting(Workload):
    """A process drops the second half of a session that it has open."""

    name = "revert"
    title = "revert to the middle of 10 MB, os"
    text = (
        "A process has a session of 10 MB open and its history in memory, and drops the second "
        "half. cosession and kimi-cli keep the old file under another name; the others don't."
    )
    columns = (ELAPSED,)
    questions = (Question(title, ELAPSED, more_is_better=False, goals=(Goal("elapsed", "≤", 6),)),)
    count = 10_000_000 // SIZE

    def __init__(self, effort: Effort) -> None:
        self.rounds = effort.rounds

    def enters(self, contender: type[Contender]) -> bool:
        return contender.can("revert") and not contender.in_threads

    def prepare(self, stage: Stage) -> None:
        stage.team.ask(
            "fill", path=stage.kept("whole"), count=self.count, size=SIZE, mark=self.count // 2
        )

    def measure(self, stage: Stage) -> Sample:
        kept = self.count // 2
        done = stage.team.ask(
            "revert", path=stage.path, template=stage.kept("whole"), durability="os", kept=kept
        )
        return Sample({"elapsed": 1e3 * done["elapsed"]}, stage.check([filled(kept)]))
