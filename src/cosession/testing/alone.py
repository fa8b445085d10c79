"""Clauses about one writer: what it stores, and what it is told."""

from __future__ import annotations

from .clause import clause, require
from .stage import Stage, contents, require_there
from .tales import batch, shortened, torn

TEXTS = (
    "plain",
    "two\nlines\r\n and an end\n",
    'quotes " and \\ and {"role": "user"}',
    "separators \x1c \x85 \u2028 \u2029 that are no ends of lines",
    "ä €  𝄞 \U0001f9ea",
    "  blanks around  ",
    "",
    "long " * 20_000,
)


@clause("Nothing acknowledged is lost")
def texts_come_back_as_they_went_in(stage: Stage) -> None:
    """Another process reads every text unchanged, whatever characters and lines are in it."""
    writer, reader = stage.actors(2)
    for text in TEXTS:
        writer.append([{"role": "user", "content": text}])
    writer.append([{"role": "assistant", "content": text} for text in TEXTS])
    history = reader.call("history")
    for went, came in zip(TEXTS * 2, contents(history), strict=False):
        require(came == went, f"{went[:80]!r} came back as {came[:80]!r}")
    roles = [message["role"] for message in history]
    expected = ["user"] * len(TEXTS) + ["assistant"] * len(TEXTS)
    require(roles == expected, f"{len(expected)} messages went in; roles that came: {roles}")


@clause("Nothing acknowledged is lost")
def an_append_is_there_when_it_returns(stage: Stage) -> None:
    """A process that is killed right after an append has returned leaves all of it behind."""
    for number, writer in enumerate(stage.actors(stage.times(2))):
        messages = batch(f"w{number}", 0, 3)
        writer.append(messages)
        writer.kill()
        require_there(stage.actor().texts(), contents(messages), "the history of a new process")


@clause("Memory equals file")
def an_open_handle_shows_what_others_wrote(stage: Stage) -> None:
    """What others appended or cleared shows in a handle that was opened, and read, before."""
    one, two = stage.actors(2)
    for number in range(stage.times(5)):
        one.append(batch("one", number, 2))
        two.append(batch("two", number, 1))
        first, second = one.texts(), two.texts()
        require(first == second, f"one sees {shortened(first)}; two sees {shortened(second)}")
        require(len(first) == 3 * (number + 1), f"{3 * (number + 1)} went in; {shortened(first)}")
    one.call("clear")
    require(two.texts() == [], f"cleared by another process, it still shows {two.texts()[:3]}")
    two.append(batch("two", 0, 1))
    require(one.texts() == ["two/0/0/1"], f"after a clear and one append: {one.texts()[:3]}")


@clause("All or nothing")
def what_can_not_be_stored_leaves_nothing(stage: Stage) -> None:
    """An append with one message that can't be stored raises, and stores none of the others."""
    writer, reader = stage.actors(2)
    writer.append(batch("before", 0, 1))
    raised = writer.play("append_unstorable", name="half").result()
    require(raised, "a message whose content is an object() was acknowledged")
    for who, actor in (("the writer", writer), ("another process", reader)):
        texts = actor.texts()
        require(texts == ["before/0/0/1"], f"{raised}; then {who} shows {shortened(texts)}")
    writer.append(batch("after", 0, 1))
    texts = reader.texts()
    require(texts == ["before/0/0/1", "after/0/0/1"], f"{raised}; then {shortened(texts)}")


@clause("Memory equals file", posix=True)
def a_failed_write_leaves_nothing(stage: Stage) -> None:
    """If there is room for a part of an append only, it raises, and no part of it is ever seen."""
    writer, reader = stage.actors(2)
    acknowledged = contents(batch("before", 0, 1))
    writer.append(batch("before", 0, 1))
    for number in range(stage.times(6)):
        files = [file for file in stage.location.rglob("*") if file.is_file()]
        room = max((file.stat().st_size for file in files), default=0) + stage.chance.randint(
            1, 990
        )
        options = {"name": "full", "number": number, "room": room}
        raised = writer.play("append_without_room", **options).result()
        if raised is None:
            acknowledged += contents(batch("full", number, 3, padding=300))
        for who, actor in (("the writer", writer), ("another process", reader)):
            texts = actor.texts()
            require(texts == acknowledged, f"room for {room} bytes, {raised or 'no error'}; then "
                    f"{who} shows {len(texts)} messages, not {len(acknowledged)}")  # fmt: skip
        writer.append(batch("after", number, 1))
        acknowledged += contents(batch("after", number, 1))
    texts = stage.actor().texts()
    require(texts == acknowledged, f"{len(acknowledged)} messages acknowledged, {len(texts)} there")


@clause("All or nothing", "checkpoint")
def a_revert_drops_what_is_behind_the_mark(stage: Stage) -> None:
    """A revert drops all that was appended since its mark, by whomever, and nothing before it."""
    one, two = stage.actors(2)
    one.append(batch("kept", 0, 2))
    two.append(batch("kept", 1, 1))
    mark = one.call("checkpoint")
    one.append(batch("dropped", 0, 2))
    two.append(batch("dropped", 1, 1))
    two.call("revert_to", mark)
    kept = contents(batch("kept", 0, 2) + batch("kept", 1, 1))
    for who, actor in (("whoever reverted", two), ("another process", one)):
        texts = actor.texts()
        require(texts == kept, f"{who} shows {shortened(texts)}, not {shortened(kept)}")


@clause("All or nothing", "replace")
def a_replace_is_seen_whole(stage: Stage) -> None:
    """Whoever looks while a history is replaced sees the old one or the new one, whole."""
    writer, *readers = stage.actors(3)
    writer.call("replace", batch("r", 0, 2))
    looking = [reader.play("watch_whole") for reader in readers]
    for look in looking:
        look.hear(1)
    writer.play("replace", name="r", count=stage.times(60)).result()
    for look in looking:
        look.stop()
        wrong = look.said[1:]
        require(not wrong, "; ".join(wrong[:2]))
    last = readers[0].texts()
    require(torn(last) is None and last, f"after the last one: {shortened(last)}")
