"""Opening a file that is there already."""

from __future__ import annotations

from contenders.base import Contender
from messages import SIZE

from .base import Column, Effort, Goal, Question, Sample, Stage, Workload

SMALL = 1000
"""Messages of the file that is opened before the clock runs, so that all is imported."""

OPEN = Column("open", "last message there", "MB/s")
USABLE = Column("usable", "any message there", "MB/s")
MODELS = Column("models", "all models", "MB/s")
MEMORY_OPEN = Column("memory_open", "memory / file", digits=2)
MEMORY = Column("memory_usable", "with any message", digits=2)
MEMORY_MODELS = Column("memory_models", "with all models", digits=2)
SECONDS = Column("seconds", "last message there", "s", 3)


class Opening(Workload):
    """A process opens a session that lies in the system's cache, and has its messages."""

    text = (
        "A process that has opened a small session before opens a large one, in the system's "
        "cache, so as to have all its messages. First it looks at the *last message*, then at one "
        "in the middle, for which it has to know how many there are: so *any message* is there. "
        "*All models* means that each is an object whose type was checked. Memory is by how much "
        "the process has grown at most. (A database could look up a single message without "
        "having the others.)"
    )
    axis = "size of the session"
    columns = (OPEN, USABLE, MODELS, MEMORY_OPEN, MEMORY, MEMORY_MODELS, SECONDS)

    def __init__(self, effort: Effort, size: int, *, is_main: bool) -> None:
        megabytes = f"{size // 1_000_000} MB"
        self.name = "open" if is_main else f"open-{size // 1_000_000}"
        self.series, self.at = "open", size
        self.title = f"open {megabytes}"
        self.count = size // SIZE
        self.rounds = min(effort.rounds, 3)
        self.is_main = is_main
        if is_main:
            self.questions = (
                Question(
                    f"{self.title}, the last message there",
                    OPEN,
                    more_is_better=True,
                    goals=(Goal("open", "≥", 300), Goal("memory_open", "≤", 1.3)),
                ),
                Question(
                    f"{self.title}, any message there",
                    USABLE,
                    more_is_better=True,
                    goals=(Goal("usable", "≥", 300), Goal("memory_usable", "≤", 1.3)),
                ),
                Question(
                    f"{self.title}, every message a validated model",
                    MODELS,
                    more_is_better=True,
                    goals=(Goal("models", "≥", 100),),
                ),
            )

    def enters(self, contender: type[Contender]) -> bool:
        able = contender.can("usable") and contender.can("fill") and not contender.in_threads
        return able and (self.is_main or bool(contender.colour))

    def prepare(self, stage: Stage) -> None:
        for name, count in (("large", self.count), ("small", SMALL)):
            stage.team.ask("fill", path=stage.kept(name), count=count, size=SIZE)
        stage.team.dismiss()

    def measure(self, stage: Stage) -> Sample:
        done = stage.team.ask_newcomer(
            "have_history", path=stage.kept("large"), small=stage.kept("small")
        )
        assert done["count"] == self.count, "not all messages are there"
        megabytes = self.count * SIZE / 1e6
        figures = {"seconds": done["open"]}
        for name in ("open", "usable", "models"):
            if name in done:
                figures[name] = megabytes / done[name]
        for memory in ("memory_open", "memory_usable", "memory_models"):
            if done.get(memory):
                figures[memory] = done[memory] / (self.count * SIZE)
        return Sample(figures)


def opening(effort: Effort) -> list[Workload]:
    """Smaller ones for the plot, and the size of the table."""
    sizes = (*effort.smaller_files, effort.large_file)
    return [Opening(effort, size, is_main=size == effort.large_file) for size in sizes]
