"""What kimi-cli's `Context` does and ours does too: one suite over both classes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kimi_support import Ours, Theirs, both, nobody, records, restored, state, texts, user
from kosong.message import ImageURLPart, Message, TextPart, ThinkPart, ToolCall

CONVERSATION = [
    user("What is in the picture, naïve 子 🦊 \u2028 \x00?"),
    Message(
        role="user",
        content=[
            TextPart(text="this one"),
            ImageURLPart(image_url=ImageURLPart.ImageURL(url="data:image/png;base64,AAAA")),
        ],
    ),
    Message(
        role="assistant",
        content=[ThinkPart(think="hm", encrypted="sig"), TextPart(text="Let me look.")],
        tool_calls=[
            ToolCall(
                id="call_1",
                function=ToolCall.FunctionBody(name="look", arguments='{"deep": true}'),
                extras={"signature": None, "n": [1, 2.5]},
            )
        ],
    ),
    Message(role="tool", content="a fox", tool_call_id="call_1"),
    Message(role="assistant", content=[], name="kimi", partial=True),
]


async def converse(context: Any) -> None:
    """A bit of everything that appends."""
    await context.write_system_prompt('You are "helpful". Ünï\n')
    await context.checkpoint(False)
    await context.append_message(CONVERSATION[0])
    await context.checkpoint(True)
    await context.update_token_count(120)
    await context.append_message(CONVERSATION[1:4])
    await context.append_message([])
    await context.append_message(tuple(CONVERSATION[4:]))
    await context.checkpoint(False)


@both
def test_construction(context: Any, path: Path) -> None:
    """Making a context touches nothing, and it is empty."""
    made = context(path)
    assert state(made) == ([], None, 0, 0, 0)
    assert made.file_backend is path
    assert not list(path.parent.iterdir())


@both
async def test_restore_nothing(context: Any, path: Path) -> None:
    """Restoring a missing file or an empty one says so and makes no file."""
    assert await context(path).restore() is False
    assert not list(path.parent.iterdir())
    path.touch()
    assert await context(path).restore() is False
    assert list(path.parent.iterdir()) == [path]


@both
async def test_restore_in_missing_folder(context: Any, tmp_path: Path) -> None:
    """Restoring in a folder that isn't there is restoring nothing."""
    assert await context(tmp_path / "gone" / "context.jsonl").restore() is False


async def test_same_bytes(tmp_path: Path) -> None:
    """Both write the same bytes for the same calls."""
    for folder, context in (("theirs", Theirs), ("ours", Ours)):
        (tmp_path / folder).mkdir()
        await converse(context(tmp_path / folder / "context.jsonl"))
    theirs = (tmp_path / "theirs" / "context.jsonl").read_bytes()
    assert (tmp_path / "ours" / "context.jsonl").read_bytes() == theirs
    assert len(theirs.splitlines()) == 11


async def test_same_bytes_through_rewrites(tmp_path: Path) -> None:
    """Both leave the same files behind a revert, a clear and a compaction."""
    for folder, context in (("theirs", Theirs), ("ours", Ours)):
        (tmp_path / folder).mkdir()
        one = context(tmp_path / folder / "context.jsonl")
        await converse(one)
        await one.revert_to(1)
        await one.append_message(user("again"))
        await one.clear()
        await one.write_system_prompt("You are brief.")
        await one.checkpoint(True)
        await one.append_message([user("summary")])
        await one.update_token_count(7)
    names = ["context.jsonl", "context_1.jsonl", "context_2.jsonl"]
    assert sorted(file.name for file in (tmp_path / "theirs").iterdir()) == names
    for name in names:
        theirs = (tmp_path / "theirs" / name).read_bytes()
        assert (tmp_path / "ours" / name).read_bytes() == theirs, name


@both
async def test_state_while_writing(context: Any, path: Path) -> None:
    """The properties follow each call."""
    one = context(path)
    await one.write_system_prompt("Be brief.")
    assert state(one) == ([], "Be brief.", 0, 0, 0)
    await one.checkpoint(True)
    await one.append_message(user("x" * 40))
    said = [user("<system>CHECKPOINT 0</system>"), user("x" * 40)]
    assert state(one) == (said, "Be brief.", 0, 29 // 4 + 10, 1)
    await one.update_token_count(500)
    await one.append_message([user("y" * 8), user("z" * 8)])
    assert state(one)[2:] == (500, 504, 1)


@pytest.mark.parametrize("writer", [Theirs, Ours])
@pytest.mark.parametrize("reader", [Theirs, Ours])
async def test_restore_what_either_wrote(writer: Any, reader: Any, path: Path) -> None:
    """A file that either wrote is read by the other one, to the same state."""
    one = writer(path)
    await converse(one)
    other = reader(path)
    assert await other.restore() is True
    assert other.history[0] == CONVERSATION[0]
    assert list(other.history)[2:] == CONVERSATION[1:]
    assert (other.system_prompt, other.token_count, other.n_checkpoints) == (
        'You are "helpful". Ünï\n',
        120,
        3,
    )
    assert other.token_count_with_pending == 120 + len("this oneLet me look.a fox") // 4


@pytest.mark.parametrize("first", [Theirs, Ours])
@pytest.mark.parametrize("second", [Theirs, Ours])
async def test_go_on_with_either(first: Any, second: Any, path: Path) -> None:
    """A session that either began goes on with the other one: new ids, more messages, reverts."""
    await converse(first(path))
    other = await restored(second, path)
    await other.checkpoint(False)
    await other.append_message(user("more"))
    assert other.n_checkpoints == 4
    back = await restored(first, path)
    assert back.history[-1] == user("more")
    await back.revert_to(3)
    await back.revert_to(1)
    assert list(back.history) == [CONVERSATION[0]]
    assert state(await restored(second, path)) == state(back)


@both
async def test_restore_twice(context: Any, path: Path) -> None:
    """A context that has a history refuses to restore."""
    one = context(path)
    await one.append_message(user("a"))
    for used in (one, await restored(context, path)):
        with pytest.raises(RuntimeError, match=r"^The context storage is already modified$"):
            await used.restore()
        assert texts(used) == ["a"]


@both
async def test_restore_after_what_is_no_history(context: Any, path: Path) -> None:
    """Checkpoints, counts and prompts don't keep a context from restoring, nor does a clear."""
    await context(path).append_message(user("a"))
    other = context(path)
    await other.checkpoint(False)
    await other.update_token_count(3)
    assert await other.restore() is True
    assert (texts(other), other.n_checkpoints) == (["a"], 1)
    await other.clear()
    assert await other.restore() is False
    await other.write_system_prompt("p")
    assert await other.restore() is True


@both
async def test_append_without_restore(context: Any, path: Path) -> None:
    """What is appended without restoring first goes behind what is there."""
    await context(path).append_message(user("a"))
    await context(path).append_message(user("b"))
    assert texts(await restored(context, path)) == ["a", "b"]


@both
async def test_append_nothing(context: Any, path: Path) -> None:
    """Appending no message makes the file and writes nothing."""
    one = context(path)
    await one.append_message([])
    assert path.read_bytes() == b""
    assert state(one) == ([], None, 0, 0, 0)


@both
async def test_history_is_a_sequence(context: Any, path: Path) -> None:
    """The history can be indexed, sliced, reversed, searched and compared like a list."""
    one = context(path)
    await one.append_message([user("a"), user("b"), user("c")])
    history = one.history
    assert isinstance(history, Sequence)
    assert history[-1] == user("c")
    assert history[1:] == [user("b"), user("c")]
    assert [message.extract_text() for message in reversed(history)] == ["c", "b", "a"]
    assert history.index(user("b")) == 1
    assert user("c") in history
    assert [user("a"), user("b"), user("c")] == history
    with pytest.raises(IndexError):
        history[3]


@both
async def test_checkpoints_count_up(context: Any, path: Path) -> None:
    """Checkpoints count up from 0, also behind a restore, and return nothing."""
    one = context(path)
    for _ in range(3):
        assert await one.checkpoint(False) is None
    other = await restored(context, path)
    await other.checkpoint(False)
    assert other.n_checkpoints == 4
    assert [record["id"] for record in records(path)] == [0, 1, 2, 3]


@both
async def test_revert(context: Any, path: Path) -> None:
    """A revert drops the checkpoint and what is behind it, and keeps the old file."""
    one = context(path)
    await one.write_system_prompt("p")
    for number, letter in enumerate("abc"):
        await one.checkpoint(False)
        await one.append_message(user(letter * 8))
        await one.update_token_count(100 * number)
    whole = path.read_bytes()
    await one.revert_to(1)
    assert state(one) == ([user("a" * 8)], "p", 0, 0, 1)
    assert (path.parent / "context_1.jsonl").read_bytes() == whole
    await one.checkpoint(False)
    assert one.n_checkpoints == 2
    await one.revert_to(0)
    assert state(one) == ([], "p", 0, 0, 0)
    assert state(await restored(context, path)) == state(one)


@both
async def test_revert_counts_pending_anew(context: Any, path: Path) -> None:
    """Behind a revert the estimate covers the messages that came since the last count kept."""
    one = context(path)
    await one.update_token_count(10)
    await one.append_message(user("x" * 40))
    await one.checkpoint(False)
    await one.update_token_count(900)
    await one.revert_to(0)
    assert (one.token_count, one.token_count_with_pending) == (10, 20)


@both
async def test_unknown_checkpoint(context: Any, path: Path) -> None:
    """Reverting to a checkpoint that was never set is a ValueError and changes nothing."""
    one = context(path)
    with pytest.raises(ValueError, match=r"^Checkpoint 0 does not exist$"):
        await one.revert_to(0)
    assert not list(path.parent.iterdir())
    await converse(one)
    before, bytes_before = state(one), path.read_bytes()
    with pytest.raises(ValueError, match=r"^Checkpoint 3 does not exist$"):
        await one.revert_to(3)
    assert (state(one), path.read_bytes()) == (before, bytes_before)
    assert not (path.parent / "context_1.jsonl").exists()


@both
async def test_clear(context: Any, path: Path) -> None:
    """A clear leaves an empty file and an empty context, and keeps the old file."""
    one = context(path)
    await converse(one)
    whole = path.read_bytes()
    await one.clear()
    assert state(one) == ([], None, 0, 0, 0)
    assert path.read_bytes() == b""
    assert (path.parent / "context_1.jsonl").read_bytes() == whole
    await one.checkpoint(False)
    assert one.n_checkpoints == 1


@both
async def test_rotations_count_up(context: Any, path: Path) -> None:
    """Rotated files are numbered behind the highest there is, and never overwritten."""
    (path.parent / "context_7.jsonl").write_text("mine")
    one = context(path)
    for letter in "ab":
        await one.append_message(user(letter))
        await one.clear()
    rotated = sorted(file.name for file in path.parent.glob("context_*.jsonl"))
    assert rotated == ["context_7.jsonl", "context_8.jsonl", "context_9.jsonl"]
    assert (path.parent / "context_7.jsonl").read_text() == "mine"


@both
async def test_no_rotation_path(context: Any, tmp_path: Path) -> None:
    """When the folder is gone, revert and clear say that there is no rotation path."""
    folder = tmp_path / "folder"
    folder.mkdir()
    one = context(folder / "context.jsonl")
    await one.checkpoint(False)
    shutil.rmtree(folder)
    for call in (one.revert_to(0), one.clear(), context(folder / "context.jsonl").clear()):
        with pytest.raises(RuntimeError, match=r"^No available rotation path found$"):
            await call


@both
async def test_missing_folder(context: Any, tmp_path: Path) -> None:
    """Writing where there is no folder is a FileNotFoundError."""
    path = tmp_path / "gone" / "context.jsonl"
    calls: tuple[Callable[[Any], Any], ...] = (
        lambda one: one.append_message(user("a")),
        lambda one: one.checkpoint(True),
        lambda one: one.update_token_count(1),
        lambda one: one.write_system_prompt("p"),
    )
    for call in calls:
        with pytest.raises(FileNotFoundError):
            await call(context(path))


@both
async def test_folder_in_the_place(context: Any, path: Path) -> None:
    """A folder in the file's place is an OSError, for reading and for writing."""
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        await context(path).restore()
    with pytest.raises(IsADirectoryError):
        await context(path).append_message(user("a"))


@both
async def test_unreadable_file(context: Any, public: Path) -> None:
    """A file that may not be read is a PermissionError."""
    path = public / "context.jsonl"
    path.write_text('{"role":"user","content":"a"}\n')
    path.chmod(0)
    with nobody(), pytest.raises(PermissionError):
        await context(path).restore()


@both
async def test_read_only_session(context: Any, public: Path) -> None:
    """A session in a folder where nothing may be written can be restored, but not added to."""
    path = public / "context.jsonl"
    await Theirs(path).append_message(user("a"))
    path.chmod(0o444)
    public.chmod(0o555)
    one = context(path)
    with nobody():
        assert await one.restore() is True
        assert texts(one) == ["a"]
        with pytest.raises(PermissionError):
            await one.append_message(user("b"))


@both
async def test_prompt_before_a_legacy_session(context: Any, path: Path) -> None:
    """A system prompt goes in front of a session that has none, and the rest stays as it is."""
    rest = b'{"role":"user","content":"a"}\n\n{"role": "_checkpoint", "id": 4}\n'
    path.write_bytes(rest)
    one = await restored(context, path)
    await one.write_system_prompt("new")
    assert path.read_bytes() == b'{"role": "_system_prompt", "content": "new"}\n' + rest
    assert (one.system_prompt, texts(one), one.n_checkpoints) == ("new", ["a"], 5)
    assert state(await restored(context, path)) == state(one)


ODD_LINES = {
    "blank": b"   ",
    "not JSON": b"{oops",
    "no object": b"[1, 2]",
    "no role": b'{"content": "x"}',
    "role not text": b'{"role": 3, "content": "x"}',
    "unknown internal role": b'{"role": "_note", "content": "x"}',
    "unknown role": b'{"role": "developer", "content": "x"}',
    "usage without count": b'{"role": "_usage"}',
    "checkpoint without id": b'{"role": "_checkpoint", "id": "3"}',
    "prompt without text": b'{"role": "_system_prompt", "content": [1]}',
    "message of wrong shape": b'{"role": "user", "content": 3}',
    "no content": b'{"role": "user", "content": null}',
    "control character": b'{"role": "user", "content": "a\tb"}',
    "carriage return at the end": b'{"role": "user", "content": "x"}\r',
    "latin-1": b'{"role":"user","content":"caf\xe9"}',
    "latin-1 in pieces": b'{"role":"tool","content":[{"type":"text","text":"\xe9\xff"}]}',
    "extra field": b'{"role": "user", "content": "x", "mine": {"a": 1}}',
    "other key order": b'{"content": "x", "role": "user"}',
    "escaped surrogate": b'{"role": "user", "content": "\\ud800"}',
    "surrogate pair": b'{"role": "user", "content": "\\ud83e\\udd8a"}',
    "open end": b'{"role": "user", "content": "x',
}


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES.keys())
async def test_odd_lines(line: bytes, path: Path) -> None:
    """Both make the same of a line that kimi-cli doesn't write, and skip what they can't use."""
    good = json.dumps({"role": "user", "content": "good"}).encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    theirs, ours = await restored(Theirs, path), await restored(Ours, path)
    assert state(ours) == state(theirs)
    assert len(ours.history) >= 2


@both
def test_another_event_loop(context: Any, path: Path) -> None:
    """A context can be used from one event loop after another."""
    one = context(path)
    for number in range(3):
        asyncio.run(one.append_message(user(str(number))))
        asyncio.run(one.checkpoint(False))
        assert texts(one) == [str(n) for n in range(number + 1)]
        assert one.n_checkpoints == number + 1


@both
async def test_many_at_once(context: Any, path: Path) -> None:
    """Coroutines that use one context at the same time lose nothing."""
    one = context(path)
    await asyncio.gather(*(one.append_message(user(str(number))) for number in range(50)))
    assert sorted(map(int, texts(one))) == list(range(50))
    assert sorted(map(int, texts(await restored(context, path)))) == list(range(50))
