"""What the suites in this folder share: the two classes, and short ways to say things.

They run in kimi-cli's own environment, where `tests/test_kimi.py` starts them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import kimi_cli.soul.context
import pytest
from kosong.message import Message

import cosession.adapters.kimi

HERE = Path(__file__).parent
Ours = cosession.adapters.kimi.Context
Theirs = kimi_cli.soul.context.Context

both = pytest.mark.parametrize(
    "context", [pytest.param(Theirs, id="kimi-cli"), pytest.param(Ours, id="cosession")]
)
"""The test holds for kimi-cli's class and for ours."""

only_ours = pytest.mark.parametrize(
    "context",
    [
        pytest.param(Ours, id="cosession"),
        pytest.param(Theirs, id="kimi-cli", marks=pytest.mark.xfail(reason="see docs/kimi.md")),
    ],
)
"""The test holds for ours, and was seen to fail on kimi-cli's own class in this very run."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a session will be; nothing is there yet."""
    return tmp_path / "context.jsonl"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own ones are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        os.chmod(folder, 0o755)


@contextmanager
def nobody() -> Iterator[None]:
    """Be nobody in particular: root may read and write whatever it likes."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def user(text: str) -> Message:
    return Message(role="user", content=text)


def texts(context: Any) -> list[str]:
    return [message.extract_text() for message in context.history]


def state(context: Any) -> tuple[object, ...]:
    """All that a context tells of itself."""
    return (
        list(context.history),
        context.system_prompt,
        context.token_count,
        context.token_count_with_pending,
        context.n_checkpoints,
    )


async def restored(context: Any, path: Path) -> Any:
    """A new context that has read the file."""
    new = context(path)
    await new.restore()
    return new


async def several(context: Any, path: Path, number: int) -> list[Any]:
    """So many terminals on one session."""
    return [await restored(context, path) for _ in range(number)]


def records(path: Path) -> list[dict[str, Any]]:
    """The file's records; fails if a line isn't one."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def checkpoint_ids(path: Path) -> list[int]:
    return [record["id"] for record in records(path) if record["role"] == "_checkpoint"]


def require_named_checkpoints(path: Path) -> None:
    """Fail if anything stands between a checkpoint and the message that names it."""
    for mark, message in pairwise(records(path)):
        if mark["role"] == "_checkpoint":
            assert message["content"] == f"<system>CHECKPOINT {mark['id']}</system>"


def left_unfinished(path: Path, line: bytes) -> None:
    """Append the beginning of a line, as a process does that dies, long ago."""
    with path.open("ab") as file:
        file.write(line)
    os.utime(path, (1e9, 1e9))


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A Python process that inherits the environment, and is told so little that it is quick."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        **options,
    )


def finish(processes: Sequence[subprocess.Popen[str]], *, timeout: float) -> list[str]:
    """Wait for all of them; what each of them printed. Fails if one does."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs
