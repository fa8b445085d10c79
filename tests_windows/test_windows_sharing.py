"""Many coroutines and processes on one session: what becomes of kimi-cli's issue 1429 here.

https://github.com/MoonshotAI/kimi-cli/issues/1429 is a `PermissionError` on `context.jsonl` while a
token count is saved: coroutines of one program append to the file, each through a handle of its
own, while one renames it away to revert.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("needs Windows: open files block a rename", allow_module_level=True)

import aiofiles
import aiofiles.os

from cosession import Session
from windows_terminal import terminal

TASKS, ROUNDS = 8, 6


class Unlocked:
    """A session as many a program writes it: no lock, a handle for each append, a rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rotations = 0

    async def append(self, record: dict[str, object]) -> None:
        async with aiofiles.open(self.path, "a", encoding="utf-8") as file:
            await file.write(json.dumps(record) + "\n")

    async def revert(self) -> None:
        self.rotations += 1
        rotated = self.path.with_name(f"context_{self.rotations}.jsonl")
        await aiofiles.os.replace(self.path, rotated)
        async with (
            aiofiles.open(rotated, encoding="utf-8") as old,
            aiofiles.open(self.path, "w", encoding="utf-8") as new,
        ):
            async for line in old:
                if "checkpoint" in line:
                    break
                await new.write(line)


async def test_without_a_lock_coroutines_are_refused_the_file(tmp_path: Path) -> None:
    """The unlocked way fails here with PermissionError, as in the issue."""
    session = Unlocked(tmp_path / "context.jsonl")
    await session.append({"role": "user", "content": "first"})

    async def one(name: int) -> None:
        for number in range(ROUNDS):
            await session.append({"role": "user", "content": f"{name}-{number}"})
            await session.append({"role": "_usage", "token_count": number})

    async def reverts() -> None:
        for _ in range(ROUNDS):
            await session.append({"role": "_checkpoint", "id": 0})
            await session.revert()

    errors: list[PermissionError] = []
    for _ in range(20):
        results = await asyncio.gather(*map(one, range(TASKS)), reverts(), return_exceptions=True)
        errors += [error for error in results if isinstance(error, PermissionError)]
        if errors:
            break
    assert errors, "no PermissionError in 20 rounds"
    assert errors[0].errno == 13


async def test_coroutines_of_one_session_never_are(tmp_path: Path) -> None:
    """Appending, counting tokens and reverting at once, with another process reading: no error.

    And every acknowledged message is in the file or in a rotated one.
    """
    path = tmp_path / "context.jsonl"
    async with Session(path) as session:
        with terminal("read", path) as reader:
            assert await asyncio.to_thread(reader.hear) == "reading"

            async def one(name: int) -> list[str]:
                texts = [f"{name}-{number}" for number in range(ROUNDS)]
                for number, text in enumerate(texts):
                    await session.append({"role": "user", "content": text})
                    await session.record_usage(number)
                return texts

            async def reverts() -> list[str]:
                for _ in range(ROUNDS):
                    await session.revert_to(await session.checkpoint())
                return []

            texts = await asyncio.gather(*map(one, range(TASKS)), reverts())
            assert int(await asyncio.to_thread(reader.end)) > 0
        assert not session.damage
    assert {text for group in texts for text in group} <= everything(path)


def test_four_processes_append_while_one_reverts(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, and no line is torn, with a reader looking on."""
    path = tmp_path / "context.jsonl"
    with ExitStack() as stack:
        writers = [stack.enter_context(terminal("append", path, name, 25)) for name in "abcd"]
        reverter = stack.enter_context(terminal("revert", path, 6))
        for process in (*writers, reverter):
            assert process.hear() == "ready"
        reader = stack.enter_context(terminal("read", path))
        assert reader.hear() == "reading"
        for process in (*writers, reverter):
            process.go_on()
        acknowledged = {text for writer in writers for text in writer.end().split()}
        reverter.end()
        assert int(reader.end()) > 0
    assert len(acknowledged) == 100
    assert acknowledged <= everything(path)
    assert not list(tmp_path.glob(".*.tmp"))


def everything(path: Path) -> set[str]:
    """The contents of all messages in the live and the rotated files."""
    found = set()
    for file in path.parent.glob("context*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            found.add(json.loads(line).get("content"))
    return found
