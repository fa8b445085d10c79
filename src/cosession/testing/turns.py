"""Clauses about turns: whoever has one has the conversation to itself."""

from __future__ import annotations

import statistics
import time

from .clause import clause, require
from .stage import NoAnswer, Pending, Raised, Stage
from .tales import batch, numbers, part, shortened, torn


@clause("Turns stay together", "turn")
def turns_are_not_mixed(stage: Stage) -> None:
    """What is written within a turn is contiguous, while others take turns or just append."""
    one, two, three = stage.actors(3)
    playing = [
        one.play("take_turns", name="turn1", count=stage.times(10)),
        two.play("take_turns", name="turn2", count=stage.times(10)),
        three.play("append", name="plain", count=stage.times(15)),
    ]
    for play in playing:
        play.result(stage.patience * 3)
    texts = three.texts()
    wrong = torn(texts)
    require(wrong is None, str(wrong))
    for play in playing:
        for name, number in play.said:
            require(number in numbers(texts, name), f"{name}/{number} is not there")


@clause("Turns stay together", "turn")
def readers_read_along(stage: Stage) -> None:
    """What is written within a turn shows to others before its end, and nobody waits to look."""
    writer, reader = stage.actors(2)
    writer.call("begin_turn")
    for number in range(3):
        writer.append(batch("turn", number, 1))
        there = numbers(reader.texts(), "turn")
        require(
            there == list(range(number + 1)), f"{number + 1} were written; a reader sees {there}"
        )
    writer.call("end_turn")


@clause("Locks die with their process", "turn")
def a_turn_ends_with_its_process(stage: Stage) -> None:
    """If a process is killed within its turn, what it wrote is there, and others can go on.

    With `settle`, others keep or undo it first, and then all of it is there, or nothing.
    """
    witness, *victims = stage.actors(3)
    for number, victim in enumerate(victims):
        keep = number == 0
        victim.call("begin_turn")
        victim.append(batch("victim", 2 * number, 2))
        victim.append(batch("victim", 2 * number + 1, 1))
        victim.kill()
        if "settle" in stage.offers:
            settled = witness.call("settle", keep=keep)
            require(settled, "no turn was found that its process did not end")
        witness.call("begin_turn")
        witness.append(batch("witness", number, 1))
        witness.call("end_turn")
    there = numbers(witness.texts(), "victim")
    expected = [0, 1] if "settle" in stage.offers else [0, 1, 2, 3]
    require(there == expected, f"of the killed ones' appends there are {there}, not {expected}")
    require(numbers(witness.texts(), "witness") == [0, 1], "what came behind is not there")


@clause("Waits end", "turn", "timeout")
def a_wait_for_a_turn_ends(stage: Stage) -> None:
    """An append and a turn give up after their timeout, and then nothing of them ever comes."""
    holder, waiter = stage.actors(2)
    holder.call("begin_turn")
    for method, args in (("append", [batch("late", 0, 1)]), ("begin_turn", [])):
        for timeout in (0, 0.2):
            began = time.monotonic()
            call = waiter.start(method, *args, timeout=timeout)
            try:
                call.result()
            except Raised as error:
                require("TimeoutError" in error.kinds, str(error))
            else:
                require(False, f"{method} with timeout={timeout} did not wait for another's turn")
            waited = time.monotonic() - began
            require(
                waited >= timeout * 0.9, f"{method} gave up after {waited:.2f} s, not {timeout}"
            )
    holder.append(batch("holder", 0, 1))
    holder.call("end_turn")
    waiter.append(batch("waiter", 0, 1))
    texts = holder.texts()
    expected = ["holder/0/0/1", "waiter/0/0/1"]
    require(texts == expected, f"expected {shortened(expected)}; there is {shortened(texts)}")


@clause("Waits end", "turn")
def a_waiter_is_woken_at_once(stage: Stage) -> None:
    """The end of a turn wakes whoever waits for it: half of the time within a quarter second."""
    holder, waiter = stage.actors(2)
    waits = []
    for number in range(stage.times(5)):
        holder.call("begin_turn")
        waiting = waiter.play("append_when_free", name=f"w{number}")
        time.sleep(0.02 + stage.chance.uniform(0, 0.2))
        require(not waiting.is_over, "an append did not wait for the end of another's turn")
        ended = time.time()
        holder.call("end_turn")
        waits.append(waiting.result() - ended)
    median = statistics.median(waits)
    require(median < 0.25, f"woken after {', '.join(f'{wait:.2f} s' for wait in waits)}")


@clause("Waits end", "turn")
def whoever_waits_gets_the_turn(stage: Stage) -> None:
    """A terminal that takes one turn behind the other can't keep a waiter out."""
    greedy, waiter = stage.actors(2)
    play = greedy.play("hog")
    play.hear(2)
    before = len(play.said)
    waiting = waiter.start("begin_turn")
    try:
        waiting.result()
    except NoAnswer:
        taken = len(play.said) - before
        require(False, f"in {stage.patience:g} s another process took {taken} turns, and the "
                "waiter got none")  # fmt: skip
    waiter.call("end_turn")
    play.stop()


# ---- asynchronous candidates --------------------------------------------------------------------


@clause("The event loop is not blocked", "async", "turn")
def the_event_loop_goes_on(stage: Stage) -> None:
    """While an append waits for another's turn, the event loop does other things."""
    holder, waiter = stage.actors(2)
    pulses = []
    for number in range(3):
        holder.call("begin_turn")
        waiting = waiter.task("append", batch("w", number, 1))
        pulse = waiter.play("feel_the_pulse")
        time.sleep(0.6)
        holder.call("end_turn")
        waiting.result()
        pulses.append(pulse.stop())
        if pulses[-1] < 0.4:
            return  # one that is quick is enough: a loop that is blocked is so each time
    require(False, f"a wait of 0.6 s blocked the event loop for {min(pulses):.2f} s each time")


@clause("Cancellation has an outcome", "async", "turn")
def a_cancelled_wait_leaves_nothing(stage: Stage) -> None:
    """An append that is cancelled while it waits ends at once, and never happens."""
    holder, waiter = stage.actors(2)
    holder.call("begin_turn")
    for number in range(stage.times(3)):
        waiting = waiter.task("append", batch("cancelled", number, 1))
        time.sleep(stage.chance.uniform(0, 0.1))
        _cancel(waiting)
    holder.call("end_turn")
    waiter.append(batch("next", 0, 1))
    for actor in (waiter, holder, stage.actor()):
        texts = actor.texts()
        require(texts == ["next/0/0/1"], f"cancelled, and then there is {shortened(texts)}")


@clause("Cancellation has an outcome", "async")
def a_cancelled_append_is_settled(stage: Stage) -> None:
    """When a cancelled append has ended, it has happened or not, and that stays so."""
    writer, witness = stage.actors(2)
    for number in range(stage.times(8)):
        append = writer.task("append", batch("c", number, 2, padding=20_000))
        time.sleep(stage.chance.uniform(0, 0.003))
        happened = not _cancel(append)
        at_once = numbers(witness.texts(), "c")
        memory = numbers(writer.texts(), "c")
        writer.append(batch("next", number, 1))
        texts = witness.texts()
        later = numbers(texts, "c")
        require(torn(texts) is None, f"half an append: {torn(texts)}")
        require(at_once == later, f"when the cancelled append {number} had ended, there were "
                f"{shortened(at_once)}; later there are {shortened(later)}")  # fmt: skip
        require(memory == at_once, f"the writer shows {memory}; others show {at_once}")
        require(not happened or number in later, f"append {number} returned and is not there")


def _cancel(pending: Pending) -> bool:
    """Cancel a task, and wait for its end; whether it ended by that."""
    pending.cancel()
    try:
        pending.result()
    except Raised as error:
        require("CancelledError" in error.kinds, str(error))
        return True
    return False


# ---- following ----------------------------------------------------------------------------------


@clause("One order", "follow")
def a_follower_is_told(stage: Stage) -> None:
    """Whoever waits for news is told soon when another process writes, and not before."""
    writer, follower = stage.actors(2)
    seen = 0
    for number in range(stage.times(4)):
        require(len(follower.texts()) == seen, f"{seen} were written; {len(follower.texts())} seen")
        waiting = follower.start("wait", stage.patience)
        time.sleep(stage.chance.uniform(0.05, 0.15))
        require(not waiting.is_over, "news were told before anything happened")
        writer.append(batch("w", number, 2))
        began = time.monotonic()
        require(waiting.result(stage.patience * 2), "two messages came in, and nothing was told")
        waited = time.monotonic() - began
        require(waited < stage.patience / 2, f"it was told after {waited:.2f} s")
        seen += 2
        there = [part(text).number for text in follower.texts()][-2:]
        require(there == [number, number], f"told of append {number}, the follower sees {there}")
    require(not follower.call("wait", 0.1), "news were told when there were none")
