"""Several processes on one session: ours among themselves, and beside kimi-cli's own class."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from kimi_support import (
    HERE,
    Ours,
    Theirs,
    checkpoint_ids,
    finish,
    left_unfinished,
    only_ours,
    records,
    require_named_checkpoints,
    restored,
    start,
    state,
    texts,
    user,
)


def run(path: Path, *terminals: tuple[Any, str, int]) -> list[dict[str, Any]]:
    """Run terminals at once, each (class, job, rounds); what they found. They are called a, b, …"""
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    jobs = [("ours" if kind is Ours else "theirs", job, rounds) for kind, job, rounds in terminals]
    output = finish([start(HERE / "terminal.py", path, folder, json.dumps(jobs))], timeout=120)
    assert "Traceback" not in output[0]
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def said(paths: list[Path], role: str) -> Counter[str]:
    """How often each text was said by a role, in all of these files."""
    return Counter(
        record["content"]
        for path in paths
        for record in records(path)
        if record["role"] == role and not record["content"].startswith("<system>")
    )


def of(name: str, rounds: int) -> set[str]:
    return {f"{name}-{number}" for number in range(rounds)}


@pytest.mark.deep
@only_ours
def test_four_terminals(context: Any, path: Path) -> None:
    """Four processes that take turns at once repeat no checkpoint id and lose no message."""
    rounds = 10
    ends = run(path, *[(context, "mark", rounds)] * 4)
    assert checkpoint_ids(path) == list(range(4 * rounds))
    results = said([path], "tool")
    assert results == Counter(of("a", rounds) | of("b", rounds) | of("c", rounds) | of("d", rounds))
    require_named_checkpoints(path)
    whole = texts(restored_now(path))
    for end in ends:  # each terminal saw a beginning of the one order, up to its own last word
        assert end["history"] == whole[: len(end["history"])]
    assert max(len(end["history"]) for end in ends) == len(whole)


@pytest.mark.deep
@pytest.mark.parametrize("job", ["turn", "answer"])
def test_turns(job: str, path: Path) -> None:
    """What four processes write in turns is in one piece each; without turns it isn't."""
    rounds, pieces = 8, []
    run(path, *[(Ours, job, rounds)] * 4)
    lines = [line for line in records(path) if line["role"] not in ("_usage", "_checkpoint")]
    for text, block in groupby(text_of(line) for line in lines if not is_mark(line)):
        pieces.append((text, len(list(block))))
    everything = {(text, 4) for name in "abcd" for text in of(name, rounds)}
    assert checkpoint_ids(path) == list(range(8 * rounds))
    if job == "turn":
        assert len(pieces) == len(everything)
        assert set(pieces) == everything
        # The marks as well: each turn begins with one, and has another one before its answer.
        marks = [number for number, line in enumerate(lines) if is_mark(line)]
        assert [number % 6 for number in marks] == [0, 4] * (4 * rounds)
    else:
        assert len(pieces) > len(everything)


def text_of(line: dict[str, Any]) -> str:
    content = line["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def is_mark(line: dict[str, Any]) -> bool:
    return text_of(line).startswith("<system>CHECKPOINT")


def restored_now(path: Path) -> Any:
    return asyncio.run(restored(Theirs, path))


def test_beside_appending_kimi(path: Path) -> None:
    """What a kimi-cli without us appends while ours write is kept, and seen by ours."""
    rounds = 40
    ends = run(
        path,
        (Ours, "append", rounds),
        (Ours, "append", rounds),
        (Theirs, "append", rounds),
        (Theirs, "append", rounds),
    )
    everything = of("a", rounds) | of("b", rounds) | of("c", rounds) | of("d", rounds)
    assert said([path], "user") == Counter(everything)
    whole = texts(restored_now(path))
    assert set(whole) == everything
    for end in ends[:2]:
        assert end["history"] == whole[: len(end["history"])]


def test_reverting_terminal(path: Path) -> None:
    """While one terminal reverts, what the others append is in the live file or a rotated one."""
    rounds = 30
    run(path, (Ours, "append", rounds), (Ours, "append", rounds), (Ours, "revert", 10))
    files = [path, *path.parent.glob("context_*.jsonl")]
    assert len(files) > 1
    assert set(said(files, "user")) >= of("a", rounds) | of("b", rounds)


@pytest.mark.parametrize("rewrite", ["revert_to", "clear", "write_system_prompt"])
async def test_kimi_rewrites_under_us(rewrite: str, path: Path) -> None:
    """When a kimi-cli without us rewrites the file, ours goes on from what is there then."""
    one = Ours(path)
    await one.write_system_prompt("p")
    await one.append_message(user("a"))
    await one.checkpoint(False)
    await one.append_message(user("b"))
    theirs = await restored(Theirs, path)
    match rewrite:
        case "revert_to":
            await theirs.revert_to(0)
        case "clear":
            await theirs.clear()
        case _:
            await theirs.write_system_prompt("p2")
    await one.append_message(user("c"))
    await one.checkpoint(True)
    assert texts(one)[-2] == "c"
    kept = {"revert_to": ["a"], "clear": [], "write_system_prompt": ["a", "b"]}[rewrite]
    assert texts(one)[:-2] == kept
    assert state(one) == state(await restored(Theirs, path)) == state(await restored(Ours, path))


async def test_kimi_rewrites_in_a_row(path: Path) -> None:
    """Ours and kimi-cli's can take turns at every call, rewrites included, and agree each time."""
    for number in range(6):
        for context in (Ours, Theirs):
            one = await restored(context, path)
            await one.write_system_prompt(f"p{number}")
            await one.checkpoint(True)
            await one.append_message([user(f"{number}"), user("x")])
            if number % 3 == 1:
                await one.revert_to(one.n_checkpoints - 1)
            if number % 3 == 2:
                await one.clear()
            await one.append_message(user("y"))
            other = await restored(Theirs if context is Ours else Ours, path)
            assert list(other.history) == list(one.history)
            assert other.n_checkpoints == one.n_checkpoints
            assert other.token_count == one.token_count


def test_kimi_appends_half_a_line(path: Path) -> None:
    """A record that kimi-cli's process left unfinished costs nobody else's record."""
    run(path, (Ours, "append", 3))
    left_unfinished(path, b'{"role":"user","content":"half')
    run(path, (Ours, "mark", 3))
    lines = path.read_bytes().split(b"\n")
    assert lines[3] == b'{"role":"user","content":"half'
    assert set(texts(restored_now(path))) >= of("a", 3)
    good = [json.loads(line) for line in lines[:3] + lines[4:-1]]
    assert [record["id"] for record in good if record["role"] == "_checkpoint"] == [0, 1, 2]
