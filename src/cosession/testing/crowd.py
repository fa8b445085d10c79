"""Clauses about several writers at once."""

from __future__ import annotations

from itertools import pairwise

from .clause import clause, require
from .stage import Actor, Stage, require_there
from .tales import disorder, numbers, shortened, torn

WRITERS = 4


def storm(stage: Stage, writers: list[Actor], count: int, *, prefix: str = "p") -> list[str]:
    """All append at once, `count` times each; the first message of each that was acknowledged."""
    playing = [
        writer.play("append", name=f"{prefix}{place}", count=count, seed=stage.chance.random())
        for place, writer in enumerate(writers)
    ]
    for play in playing:
        play.result(stage.patience * 3)
    return [f"{name}/{number}" for play in playing for name, number in play.said]


def firsts(texts: list[str]) -> list[str]:
    """The appends that are there, as `storm` returns them."""
    return [text.rsplit("/", 2)[0] for text in texts if "/0/" in text[text.index("/") + 1 :]]


@clause("Nothing acknowledged is lost")
def processes_lose_nothing(stage: Stage) -> None:
    """Of what four processes append at once, all is there, once, and in each one's own order."""
    writers = stage.actors(WRITERS)
    acknowledged = storm(stage, writers, stage.times(40))
    texts = writers[0].texts()
    require_there(firsts(texts), acknowledged, "the history")
    wrong = disorder(texts)
    require(wrong is None, str(wrong))


@clause("All or nothing")
def appends_are_not_mixed(stage: Stage) -> None:
    """The messages of one append stay behind each other, whoever else appends."""
    writers = stage.actors(WRITERS)
    storm(stage, writers, stage.times(40))
    wrong = torn(writers[0].texts())
    require(wrong is None, str(wrong))


@clause("One order")
def readers_see_one_history_grow(stage: Stage) -> None:
    """Each look while others append begins with the last look, and shows no half of an append."""
    *writers, one, two = stage.actors(4)
    looking = [reader.play("watch") for reader in (one, two)]
    for look in looking:
        look.hear(1)
    storm(stage, writers, stage.times(40))
    seen = [look.stop() for look in looking]
    final = one.texts()
    for look, last in zip(looking, seen, strict=True):
        wrong = look.said[1:]
        require(not wrong, "; ".join(wrong[:2]))
        require(final[: len(last)] == last, f"a reader saw {shortened(last)}; it ended as "
                f"{shortened(final)}")  # fmt: skip


@clause("Nothing acknowledged is lost")
def handles_of_one_process_lose_nothing(stage: Stage) -> None:
    """Several handles of one process, on threads of it, exclude each other as processes do."""
    _on_threads(stage, shared=False)


@clause("Nothing acknowledged is lost", "shared")
def callers_of_one_handle_lose_nothing(stage: Stage) -> None:
    """Threads, or tasks, that append at once on one handle lose nothing and mix nothing."""
    _on_threads(stage, shared=True)


def _on_threads(stage: Stage, *, shared: bool) -> None:
    (actor,) = stage.actors(1)
    names = [f"t{number}" for number in range(WRITERS)]
    options = {"names": names, "count": stage.times(40), "shared": shared}
    play = actor.play("append_on_threads", **options)
    play.result(stage.patience * 3)
    texts = actor.texts()
    acknowledged = [f"{name}/{number}" for name, number in play.said]
    require_there(firsts(texts), acknowledged, "the history")
    wrong = torn(texts) or disorder(texts)
    require(wrong is None, str(wrong))


@clause("One order")
def what_was_cleared_does_not_come_back(stage: Stage) -> None:
    """A clear amid others' appends drops all that was acknowledged before, for good, and nothing
    behind it.
    """
    clearer, *writers = stage.actors(4)
    for round_ in range(stage.times(2)):
        playing = [
            writer.play("append", name=f"r{round_}p{place}", count=stage.times(40), seed=place)
            for place, writer in enumerate(writers)
        ]
        for play in playing:
            play.hear(stage.chance.randint(3, 10))
        before = [f"{name}/{number}" for play in playing for name, number in [*play.said]]
        clearer.call("clear")
        for play in playing:
            play.result(stage.patience * 3)
        texts = clearer.texts()
        back = sorted(set(before) & set(firsts(texts)))
        require(not back, f"cleared, and there again: {shortened(back)}")
        for name, last in [play.said[-1] for play in playing]:
            there = numbers(texts, name)
            expected = list(range(last + 1 - len(there), last + 1))
            require(there == expected, f"of {name}'s appends up to {last}, behind a clear there "
                    f"are {shortened(there)}")  # fmt: skip


@clause("Nothing acknowledged is lost", "rotated")
def what_is_cleared_is_kept(stage: Stage) -> None:
    """While some append and one clears, each acknowledged append is in one of the histories."""
    clearer, *writers = stage.actors(4)
    playing = [
        writer.play("append", name=f"p{place}", count=stage.times(40), seed=place)
        for place, writer in enumerate(writers)
    ]
    for round_ in range(3):
        playing[0].hear(5 * (round_ + 1))
        clearer.call("clear")
    for play in playing:
        play.result(stage.patience * 3)
    acknowledged = [f"{name}/{number}" for play in playing for name, number in play.said]
    require_there(_everywhere(clearer), acknowledged, "the live or a rotated history")


@clause("Nothing acknowledged is lost", "checkpoint", "rotated")
def what_is_reverted_is_kept(stage: Stage) -> None:
    """While some append and one reverts, each acknowledged append is in one of the histories."""
    reverter, *writers = stage.actors(4)
    reverting = reverter.play("revert", name="r", count=stage.times(6))
    acknowledged = storm(stage, writers, stage.times(40))
    reverting.result(stage.patience * 3)
    acknowledged += [f"{name}/{number}" for name, number in reverting.said]
    require_there(_everywhere(reverter), acknowledged, "the live or a rotated history")


def _everywhere(actor: Actor) -> list[str]:
    """The appends that are in the live or a rotated history, each of which has to be whole."""
    found = firsts(actor.texts())
    for history in actor.call("rotated_histories"):
        texts = [message["content"] for message in history]
        wrong = torn(texts)
        require(wrong is None, f"in a rotated history: {wrong}")
        found += firsts(texts)
    return found


@clause("One order", "checkpoint")
def no_checkpoint_number_is_given_twice(stage: Stage) -> None:
    """Processes that set checkpoints at once get numbers of which none is like another."""
    actors = stage.actors(WRITERS)
    playing = [actor.play("checkpoint", count=stage.times(30)) for actor in actors]
    for play in playing:
        play.result(stage.patience * 3)
    given = sorted(number for play in playing for number in play.said)
    twice = [number for number, next_ in pairwise(given) if number == next_]
    require(not twice, f"given twice: {shortened(twice)}")


@clause("A stale writer is told", "expect")
def a_stale_writer_is_told(stage: Stage) -> None:
    """Of those who append to the same revision at once one succeeds, and the others are told."""
    actors = stage.actors(WRITERS)
    playing = [actor.play("count_up", count=stage.times(40)) for actor in actors]
    for play in playing:
        play.result(stage.patience * 3)
    texts = actors[0].texts()
    expected = [str(number) for number in range(len(texts))]
    require(texts == expected, f"each wrote how many there were, and there is {shortened(texts)}")
    succeeded = sorted((text for play in playing for text in play.said), key=int)
    require(succeeded == texts, f"{len(succeeded)} were told it went in; {len(texts)} are there")
    require(texts, "nobody ever succeeded")
