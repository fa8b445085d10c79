"""What a worker was told, against what is found after it was killed."""

from __future__ import annotations

import json
from pathlib import Path

from cosession import BlockingSession


def audit(path: Path, journal: Path, case: str) -> int:
    """Compare the reopened session with what its worker had been told."""
    with BlockingSession(path) as session:
        assert session.damage == (), case
        held = [message.content for message in session.history]
        session.append({"role": "user", "content": "still works"})
    live = path.read_bytes()
    lines = live.splitlines()
    rotated = [file.read_bytes() for file in path.parent.glob("context_*.jsonl")]
    everything = b"".join([live, *rotated])
    told = journal.read_text().splitlines()
    done = told if not told or told[-1].endswith(".") else told[:-1]
    for entry in done:
        for text in entry.rstrip(".").split():
            assert everything.count(f'"{text}"'.encode()) >= 1, (case, text)
    # Records that were appended together are there together, in the live file and in each other.
    for content in [live, *rotated]:
        groups: dict[str, int] = {}
        for line in content.splitlines():
            text = json.loads(line).get("content")
            if isinstance(text, str) and "/" in text:
                name, _, of = text.split("/")
                groups[f"{name}/{of}"] = groups.get(f"{name}/{of}", 0) + 1
        for group, count in groups.items():
            assert count == int(group.split("/")[1]), (case, group, count)
    names = {file.name for file in path.parent.iterdir()}
    assert not [name for name in names if name.endswith(".tmp")], (case, names)
    assert path.stat().st_nlink == 1, case
    assert len(lines) >= len(held), case
    return len(done)
