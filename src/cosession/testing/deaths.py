"""Clauses about processes that are killed, or stand still, in the middle of something."""

from __future__ import annotations

import time

from .clause import clause, require
from .stage import Actor, Pending, Raised, Stage, require_there
from .tales import batch, disorder, numbers, shortened, torn

PADDING = 20_000
"""Characters that make a write last a little."""


def kill_in_storm(stage: Stage, victim: Actor, name: str) -> Pending:
    """Have it append without end, and kill it at some instant."""
    play = victim.play("append", name=name, count=10**6, seed=stage.chance.random(),
                       padding=PADDING)  # fmt: skip
    play.hear(stage.chance.randint(1, 8))
    time.sleep(stage.chance.uniform(0, 0.01))
    victim.kill()
    return play


@clause("All or nothing")
def a_killed_append_is_there_whole_or_not_at_all(stage: Stage) -> None:
    """Killed at any instant, a process leaves all it was acknowledged, and no part of an append."""
    witness, *victims = stage.actors(1 + stage.times(4))
    for number, victim in enumerate(victims):
        name = f"v{number}"
        said = kill_in_storm(stage, victim, name).said
        texts = witness.texts()
        wrong = torn(texts) or disorder(texts)
        require(wrong is None, f"after a kill: {wrong}")
        last = said[-1][1]
        there = numbers(texts, name)
        require(there[: last + 1] == list(range(last + 1)),
                f"{last + 1} appends were acknowledged, and {len(there)} are there")  # fmt: skip
        require(len(there) <= last + 2, f"{len(there)} appends are there, of {last + 2} begun")
        witness.append(batch("witness", number, 2))
    texts = stage.actor().texts()
    wrong = torn(texts)
    require(wrong is None, f"at the end: {wrong}")
    require(numbers(texts, "witness") == list(range(len(victims))),
            f"of the appends between the kills there are {numbers(texts, 'witness')}")  # fmt: skip


@clause("Locks die with their process")
def whoever_is_killed_blocks_nobody(stage: Stage) -> None:
    """After a process was killed at any instant, others append at once, and so do new ones."""
    witness, *victims = stage.actors(1 + stage.times(3))
    for number, victim in enumerate(victims):
        kill_in_storm(stage, victim, f"v{number}")
        witness.append(batch("witness", number, 1))
    stage.actor().append(batch("new", 0, 1))


@clause("Waits end", "timeout", posix=True)
def a_wait_for_one_who_stands_still_ends(stage: Stage) -> None:
    """A process stopped at any instant keeps nobody waiting for longer than their timeout."""
    victim, other = stage.actors(2)
    play = victim.play("append", name="v", count=10**6, seed=1, padding=PADDING)
    refused: list[str] = []
    for number in range(stage.times(8)):
        play.hear(len(play.said) + stage.chance.randint(1, 5))
        time.sleep(stage.chance.uniform(0, 0.005))
        victim.halt()
        append = other.start("append", batch("other", number, 1), timeout=0.05)
        try:
            append.result()
        except Raised as error:
            require("TimeoutError" in error.kinds, str(error))
            refused.append(f"other/{number}/0/1")
        victim.go_on()
    victim.kill()
    there = set(refused) & set(other.texts())
    require(not there, f"told to have timed out, and there: {shortened(sorted(there))}")
    other.append(batch("last", 0, 1))


@clause("All or nothing", "replace")
def a_killed_replace_leaves_the_old_or_the_new(stage: Stage) -> None:
    """Killed at any instant of a replace, a process leaves one whole history, not none or half."""
    witness, *victims = stage.actors(1 + stage.times(3))
    witness.call("replace", batch("first", 0, 1))
    for number, victim in enumerate(victims):
        name = f"v{number}"
        play = victim.play("replace", name=name, count=10**6)
        play.hear(stage.chance.randint(1, 8))
        time.sleep(stage.chance.uniform(0, 0.01))
        victim.kill()
        texts = witness.texts()
        wrong = torn(texts)
        require(texts and wrong is None, f"after a kill there is {shortened(texts)}: {wrong}")
        there = numbers(texts, name)
        expected = [[play.said[-1]], [play.said[-1] + 1]]
        require(there in expected, f"{play.said[-1]} was acknowledged last, {there} is there")
    witness.append(batch("last", 0, 1))
    require_there(witness.texts(), ["last/0/0/1"], "the history")
