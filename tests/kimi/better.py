"""Where ours is right and kimi-cli's own `Context` isn't: the rows of the table in docs/kimi.md.

A test marked `only_ours` runs on both classes, and must fail on kimi-cli's.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kimi_support import (
    Ours,
    Theirs,
    checkpoint_ids,
    finish,
    left_unfinished,
    only_ours,
    records,
    require_named_checkpoints,
    restored,
    several,
    start,
    state,
    texts,
    user,
)
from kosong.message import Message, TextPart, ToolCall


@only_ours
async def test_checkpoint_ids(context: Any, path: Path) -> None:
    """Two terminals that set checkpoints never use an id twice."""
    one, other = await several(context, path, 2)
    for terminal in (one, other, one, one, other):
        await terminal.checkpoint(False)
    assert checkpoint_ids(path) == [0, 1, 2, 3, 4]


@only_ours
async def test_see_the_others(context: Any, path: Path) -> None:
    """What another terminal wrote is there after the next call of any kind."""
    one, other = await several(context, path, 2)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: one.append_message([]),
        lambda: one.checkpoint(False),
        lambda: one.update_token_count(1),
        lambda: one.write_system_prompt("p"),
    )
    for number, call in enumerate(calls):
        await other.append_message(user(str(number)))
        await call()
        assert texts(one)[-1] == str(number)
    await other.update_token_count(77)
    await other.clear()
    await one.append_message(user("new"))
    assert state(one) == ([user("new")], None, 0, 0, 0)


@only_ours
async def test_revert_past_another(context: Any, path: Path) -> None:
    """A checkpoint that another terminal has reverted past can't be reverted to."""
    one = context(path)
    for _ in range(3):
        await one.checkpoint(False)
    await (await restored(context, path)).revert_to(1)
    before = sorted(path.parent.glob("context*.jsonl"))
    with pytest.raises(ValueError, match="Checkpoint 2 does not exist"):
        await one.revert_to(2)
    assert sorted(path.parent.glob("context*.jsonl")) == before


@only_ours
async def test_revert_to_no_checkpoint(context: Any, path: Path) -> None:
    """An id below 0 is unknown like any other, and nothing is rewritten."""
    one = context(path)
    await one.checkpoint(False)
    with pytest.raises(ValueError, match="Checkpoint -1 does not exist"):
        await one.revert_to(-1)
    assert not (path.parent / "context_1.jsonl").exists()


@only_ours
async def test_append_behind_a_torn_line(context: Any, path: Path) -> None:
    """A record that comes behind a line that somebody left unfinished is not lost with it."""
    left_unfinished(path, b'{"role":"user","content":"a"}\n{"role":"assistant","cont')
    one = await restored(context, path)
    await one.append_message(user("b"))
    assert texts(one) == ["a", "b"]
    assert texts(await restored(Theirs, path)) == ["a", "b"]


@only_ours
async def test_failed_append(context: Any, path: Path) -> None:
    """When a write fails, the history, the count and the ids are as before, and so is the file."""
    one = context(path)
    await one.append_message(user("a"))
    before, bytes_before = state(one), path.read_bytes()
    big = user("x" * (1 << 20))
    with FileSizeLimit(1 << 19):
        with pytest.raises(OSError, match="File too large") as caught:
            await one.append_message([user("small"), big])
        assert caught.value.errno == errno.EFBIG
    assert (state(one), path.read_bytes()) == (before, bytes_before)
    await one.append_message(big)
    assert one.history[1:] == [big]


@only_ours
async def test_failed_checkpoint(context: Any, tmp_path: Path) -> None:
    """A checkpoint or a count that could not be written has not happened in memory either."""
    folder = tmp_path / "later"
    one = context(folder / "context.jsonl")
    for call in (one.checkpoint(True), one.update_token_count(5), one.append_message(user("a"))):
        with pytest.raises(FileNotFoundError):
            await call
    assert state(one) == ([], None, 0, 0, 0)
    folder.mkdir()
    await one.checkpoint(False)
    assert checkpoint_ids(folder / "context.jsonl") == [0]


@only_ours
async def test_all_or_nothing(context: Any, path: Path) -> None:
    """Of several messages, one that can't be stored keeps all of them out."""
    one = context(path)
    await one.append_message(user("a"))
    wrong = Message.model_construct(role="stranger", content=[TextPart(text="c")])
    with pytest.raises(ValueError, match="message 1 was not stored"):
        await one.append_message([user("b"), wrong])
    assert texts(one) == texts(await restored(context, path)) == ["a"]


@only_ours
async def test_lone_surrogate(context: Any, path: Path) -> None:
    """Text with half a surrogate pair, as broken output has it, is stored and read back."""
    one = context(path)
    await one.append_message(user("half \ud83e"))
    assert texts(one) == texts(await restored(Theirs, path)) == ["half \ud83e"]


@only_ours
async def test_tool_call_without_arguments(context: Any, path: Path) -> None:
    """A tool call that has no arguments is read back by everybody, and its result has its call."""
    call = ToolCall(id="1", function=ToolCall.FunctionBody(name="list", arguments=None))
    conversation = [
        Message(role="assistant", content=[], tool_calls=[call]),
        Message(role="tool", content="done", tool_call_id="1"),
    ]
    await context(path).append_message(conversation)
    assert list((await restored(Theirs, path)).history) == conversation
    assert list((await restored(Ours, path)).history) == conversation


@only_ours
@pytest.mark.parametrize(
    "line",
    [
        b'{"role":"user"}',
        b'{"role":"_note","by":"another program"}',
        b'{"role":"user","content":[{"type":"hologram"}]}',
    ],
    ids=["no content", "unknown record without content", "unknown part"],
)
async def test_line_that_stops_kimi(context: Any, line: bytes, path: Path) -> None:
    """A message that kosong can't make is skipped; it doesn't keep a session from opening."""
    path.write_bytes(line + b'\n{"role":"user","content":"a"}\n')
    one = context(path)
    try:
        await one.restore()
    except (TypeError, KeyError) as error:
        pytest.fail(f"restore raised {error!r}")
    assert texts(one) == ["a"]
    await one.checkpoint(False)
    await one.revert_to(0)
    assert path.read_bytes().startswith(line)


@only_ours
async def test_last_system_prompt_wins(context: Any, path: Path) -> None:
    """A system prompt that is written over another one is the one that is restored."""
    one = context(path)
    await one.write_system_prompt("old")
    await one.append_message(user("a"))
    await one.write_system_prompt("new")
    assert (await restored(Theirs, path)).system_prompt == "new"
    assert (await restored(Ours, path)).system_prompt == "new"


@only_ours
async def test_same_system_prompt(context: Any, path: Path) -> None:
    """Terminals that start together and bring the same prompt write it once."""
    terminals = await several(context, path, 4)
    for terminal in terminals:
        await terminal.write_system_prompt("p")
    assert records(path) == [{"role": "_system_prompt", "content": "p"}]
    assert not (path.parent / "context_1.jsonl").exists()


@only_ours
async def test_unknown_records_stay(context: Any, path: Path) -> None:
    """A revert keeps what kimi-cli doesn't know: other programs' records, and damaged lines."""
    kept = b'{"role": "_note", "content": "mine"}\n{oops\n'
    path.write_bytes(kept)
    one = await restored(context, path)
    await one.checkpoint(False)
    await one.revert_to(0)
    assert path.read_bytes() == kept


@only_ours
async def test_clear_nothing(context: Any, path: Path) -> None:
    """Clearing a session that has no file, or an empty one, leaves no empty rotated file."""
    for _ in range(2):
        try:
            await context(path).clear()
        except FileNotFoundError as error:
            pytest.fail(f"clear raised {error!r}")
    assert not list(path.parent.glob("context_*"))


@only_ours
async def test_private(context: Any, path: Path) -> None:
    """A new session can be read by nobody else, and stays so through a revert."""
    if sys.platform == "win32":
        pytest.skip("Windows has no file modes")
    one = context(path)
    await one.checkpoint(False)
    modes = [path.stat().st_mode & 0o777]
    await one.revert_to(0)
    modes.append(path.stat().st_mode & 0o777)
    assert modes == [0o600, 0o600]


async def test_cancelled(path: Path) -> None:
    """A call that is cancelled at any await has happened in file and memory, or in neither."""
    one = Ours(path)
    await one.append_message(user("first"))
    for number in range(12):
        task = asyncio.create_task(one.append_message([user(f"{number}a"), user(f"{number}b")]))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert texts(one) == [record["content"] for record in records(path)]


async def test_memory_in_the_order_of_the_file(path: Path) -> None:
    """However many coroutines write at once, the history is what a restore would make of it."""
    contexts = await several(Ours, path, 4)
    await asyncio.gather(
        *(one.append_message(user(str(number))) for one in contexts for number in range(20))
    )
    for one in contexts:
        await one.append_message([])
        assert state(one) == state(await restored(Theirs, path))


async def test_checkpoint_and_its_message(path: Path) -> None:
    """Nobody gets between a checkpoint and the message that names it."""
    contexts = await several(Ours, path, 4)
    await asyncio.gather(*(one.checkpoint(True) for one in contexts for _ in range(10)))
    assert checkpoint_ids(path) == list(range(40))
    require_named_checkpoints(path)


async def test_damage_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Restoring logs that there are lines that can't be used, how many, and where the first is."""
    path.write_bytes(b'{"role":"user","content":"a"}\n{oops\n{"role":"user"}\n')
    await restored(Ours, path)
    assert "skipping 2 line(s)" in caplog.text
    assert "5 bytes at offset 30" in caplog.text


async def test_nothing_is_left_of_garbage(path: Path) -> None:
    """A context that is gone has closed its files and ended its thread."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system doesn't list its open files in /proc")
    before = len(os.listdir("/proc/self/fd"))
    contexts = [Ours(path.with_name(f"{number}.jsonl")) for number in range(20)]
    await asyncio.gather(*(one.checkpoint(True) for one in contexts))
    await asyncio.gather(*(one.revert_to(0) for one in contexts))
    assert len(os.listdir("/proc/self/fd")) > before + 20
    contexts.clear()
    gc.collect()
    deadline = time.monotonic() + 20
    for thread in threading.enumerate():
        if thread.name.startswith("cosession"):
            thread.join(timeout=max(0, deadline - time.monotonic()))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("cosession")]
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # asyncio's thread pool may have grown


def test_exit_without_close(path: Path) -> None:
    """A program that never closes its context ends at once, and without a warning."""
    program = (
        "import asyncio, pathlib, sys\n"
        "from cosession.adapters.kimi import Context\n"
        "context = Context(pathlib.Path(sys.argv[1]))\n"
        "asyncio.run(context.checkpoint(False))\n"
        "asyncio.run(context.clear())\n"
    )
    process = start("-W", "error::ResourceWarning", "-c", program, path)
    assert finish([process], timeout=30) == [""]


def test_import_without_kimi() -> None:
    """Without kimi-cli the import says what is missing, and cosession itself is not affected."""
    program = (
        "import sys; sys.modules['kosong'] = None\n"
        "import cosession\n"
        "try: import cosession.adapters.kimi\n"
        "except ImportError as error: print(error)\n"
    )
    (output,) = finish([start("-c", program)], timeout=30)
    assert "uv pip install kimi-cli" in output


def test_install() -> None:
    """After `install` every module of kimi-cli that names the class has ours, also later ones.

    Runs are turns then, unless the last call said otherwise.
    """
    program = (
        "import kimi_cli.app, kimi_cli.soul.slash\n"
        "from cosession.adapters.kimi import Context, install\n"
        "install(); install()\n"
        "import kimi_cli.subagents.core, sys\n"
        "names = [n for n, m in sorted(sys.modules.items())\n"
        "         if n.startswith('kimi_cli') and hasattr(m, 'Context')]\n"
        "assert all(sys.modules[name].Context is Context for name in names), names\n"
        "from kimi_cli.soul.kimisoul import KimiSoul\n"
        "run = KimiSoul.run\n"
        "install(turns=False)\n"
        "assert KimiSoul.run is run.kimi_s_own\n"
        "print(*names)\n"
    )
    (output,) = finish([start("-c", program)], timeout=60)
    assert output.split() == [
        "kimi_cli.app",
        "kimi_cli.soul.context",
        "kimi_cli.soul.kimisoul",
        "kimi_cli.soul.slash",
        "kimi_cli.subagents.core",
    ]


def test_install_on_a_newer_kimi() -> None:
    """A kimi-cli whose class can do more than ours is refused, by name."""
    program = (
        "import kimi_cli.soul.context as module\n"
        "module.Context.rewind = lambda self: None\n"
        "from cosession.adapters.kimi import install\n"
        "try: install()\n"
        "except ImportError as error: print(error)\n"
    )
    (output,) = finish([start("-c", program)], timeout=60)
    assert "Context has rewind" in output


class FileSizeLimit:
    """No file of this process may grow beyond so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        if sys.platform == "win32":
            pytest.skip("Windows has no file size limit")
        import resource

        self._old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._old[1]))

    def __exit__(self, *_: object) -> None:
        if sys.platform != "win32":
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, self._old)


def test_every_line_of_ours_is_json(path: Path) -> None:
    """Whatever text is stored, the file stays JSON Lines for programs that are strict."""

    async def fill() -> None:
        one = Ours(path)
        await one.append_message([user("\u2028\x85\x00\ud800"), user("NaN")])
        await one.write_system_prompt("\u2029\udfff")

    asyncio.run(fill())
    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=pytest.fail)
