"""Copying a whole session out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cosession import BlockingSession, Session, StorageError


def line(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def test_an_export_is_the_session_to_the_byte(tmp_path: Path) -> None:
    """The copy has the session's bytes, is private, and is a session itself."""
    async with Session(tmp_path / "context.jsonl") as session:
        await session.append([line(str(number) * 1000) for number in range(3000)])
        copy = await session.export(tmp_path / "copy.jsonl")
        assert copy.read_bytes() == session.path.read_bytes()
        async with Session(copy) as other:
            assert other.history == session.history
    if os.name == "posix":
        assert copy.stat().st_mode & 0o777 == 0o600


def test_the_blocking_export_is_the_same(tmp_path: Path) -> None:
    """It includes what another handle wrote since this one looked."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        other.append(line("from elsewhere"))
        copy = session.export(tmp_path / "copy.jsonl")
        assert copy.read_bytes() == path.read_bytes() != b""


async def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    """A target that exists is refused and kept."""
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    async with Session(tmp_path / "context.jsonl") as session:
        await session.append(line("a"))
        with pytest.raises(StorageError, match=r"precious\.txt"):
            await session.export(target)
    assert target.read_text() == "precious"


async def test_a_cancelled_export_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unfinished copy of a cancelled export is removed, wherever it was cancelled."""
    monkeypatch.setattr("cosession.transfer._PIECE", 1000)
    async with Session(tmp_path / "context.jsonl") as session:
        await session.append([line("x" * 1000)] * 20)
        for turns in range(1, 30, 4):
            export = asyncio.ensure_future(session.export(tmp_path / "copy.jsonl"))
            for _ in range(turns):
                await asyncio.sleep(0)
            export.cancel()
            with pytest.raises(asyncio.CancelledError):
                await export
            assert not (tmp_path / "copy.jsonl").exists()


async def test_an_export_holds_still_while_others_append_and_clear(tmp_path: Path) -> None:
    """It copies what was committed when it began, although the session goes on and is replaced."""
    path = tmp_path / "context.jsonl"
    async with Session(path) as session, Session(path) as other:
        await session.append([line("x" * 1000)] * 5000)
        before = path.read_bytes()
        export = asyncio.ensure_future(session.export(tmp_path / "copy.jsonl"))
        await asyncio.sleep(0)
        if os.name == "posix":  # elsewhere the replace waits for the copy
            await other.append(line("later"))
            await other.clear()
        copy = await export
        assert copy.read_bytes() == before
