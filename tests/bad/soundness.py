"""What a session file holds, worked out independently of the library, and checks against it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosession._base import SessionBase


@dataclass
class Folded:
    """The records of a file, by the plainest code that can tell them apart."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    system_prompt: str | None = None
    token_count: int = 0
    checkpoints: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    """The offsets of lines that are no records."""

    @property
    def contents(self) -> list[Any]:
        return [message.get("content") for message in self.messages]


def fold(data: bytes) -> Folded:
    """Read every line with the standard library and nothing else."""
    folded, offset = Folded(), 0
    for line in data.split(b"\n"):
        record = line.removeprefix(b"\xef\xbb\xbf")
        if record.strip():
            _fold_line(folded, record, offset)
        offset += len(line) + 1
    return folded


def _fold_line(folded: Folded, line: bytes, offset: int) -> None:
    try:
        record = json.loads(line.decode(), strict=False)
    except (ValueError, RecursionError):
        folded.damaged.append(offset)
        return
    role = record.get("role") if isinstance(record, dict) else None
    if not isinstance(record, dict) or b"\0" in line:
        folded.damaged.append(offset)
    elif role == "_system_prompt" and isinstance(record.get("content"), str):
        folded.system_prompt = record["content"]
    elif role == "_usage" and type(record.get("token_count")) is int:
        folded.token_count = record["token_count"]
    elif role == "_checkpoint" and type(record.get("id")) is int:
        folded.checkpoints.append(record["id"])
    elif role in ("_system_prompt", "_usage", "_checkpoint"):
        folded.damaged.append(offset)
    elif isinstance(role, str) and not role.startswith("_"):
        if isinstance(record.get("content"), str | list | None):
            folded.messages.append(record)
        else:
            folded.damaged.append(offset)


def assert_memory_is_file(session: SessionBase[Any]) -> None:
    """Compare a session's memory with the file's bytes up to its revision."""
    position = session.revision.position
    data = session.path.read_bytes()
    assert position <= len(data), "memory is ahead of the file"
    assert position == 0 or data[position - 1 : position] == b"\n", "memory ends inside a line"
    folded = fold(data[:position])
    assert [m.model_dump(exclude_unset=True) for m in session.history] == folded.messages
    assert session.system_prompt == folded.system_prompt
    assert session.token_count == folded.token_count
    assert list(session.checkpoints) == folded.checkpoints
    assert [damage.offset for damage in session.damage] == folded.damaged


def assert_sound(session: SessionBase[Any]) -> None:
    """Memory is all of the file, every line is whole, and nothing is left lying about."""
    assert_memory_is_file(session)
    data = session.path.read_bytes()
    assert session.revision.position == len(data), "the file has more than memory"
    assert not leftovers(session.path)
    assert os.stat(session.path).st_nlink == 1, "the file has a second name"


def leftovers(path: Path) -> list[str]:
    """Names in the session's folder that contain its own, and that nothing is meant to have."""
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    expected = re.compile(rf"{stem}(_[0-9]+)?{suffix}|{stem}{suffix}\.(lock|torn|lineage)")
    names = [name for name in os.listdir(path.parent) if path.stem in name or "tmp" in name]
    return [name for name in names if not expected.fullmatch(name)]


def rotated(path: Path) -> list[Path]:
    """The rotated files of a session."""
    return sorted(path.parent.glob(f"{path.stem}_*{path.suffix}"))


def open_descriptors() -> int | None:
    """How many descriptors this process has open, where that can be told."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None
