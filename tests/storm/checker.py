"""The files after a storm against what the terminals said. Reads without the library."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bad.soundness import fold

from .terminal import TAG, digest_of


@dataclass
class Said:
    """One operation, as far as it was told of."""

    op: str
    what: str
    count: int
    turn: str
    state: str = "begun"
    why: str = ""
    revision: str = ""


@dataclass
class Ledger:
    """What all terminals said, and what others wrote."""

    operations: dict[str, Said] = field(default_factory=dict)
    foreign: dict[str, bool] = field(default_factory=dict)
    """Texts that a program without locks wrote; whether on half a line only."""
    digests: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def hear(self, terminal: str, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "begin":
                said = Said(event["op"], event["what"], event["count"], event["turn"])
                self.operations[said.op] = said
            case "done":
                self.operations[event["op"]].state = "done"
                self.operations[event["op"]].revision = event["revision"]
            case "refused":
                self.operations[event["op"]].state = "refused"
                self.operations[event["op"]].why = event["why"]
            case "problem":
                self.problems.append(f"{terminal}: {event['text']}")
            case "report":
                self.digests[terminal] = event["digest"]


@dataclass
class Line:
    data: bytes
    record: dict[str, Any] | None
    """`None` for a damaged one."""

    @property
    def tag(self) -> dict[str, Any] | None:
        return self.record.get(TAG) if self.record else None


class Checker:
    """Everything that is promised, looked at from outside."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self.ledger = ledger
        self.found: dict[str, int] = Counter()
        """In how many files an operation is."""
        self.torn = 0
        """Pieces of ours that foreign lines keep from being told from foreign ones."""
        self._taken_out = self._found_and_taken_out()

    def problems(self) -> list[str]:
        files = [*self._rotated(), self.path]
        lines = {file: list(self._lines(file)) for file in files}
        forks = sorted(self.path.parent.glob("context.fork-*.jsonl"))
        found = [*self.ledger.problems, *self._folder()]
        for file in files:
            found += self._file(file.name, lines[file])
        found += self._one_order(files, lines)
        found += self._operations()
        found += self._foreign(files)
        for fork in forks:
            found += self._file(fork.name, list(self._lines(fork)), count=False)
        found += self._memory()
        return found

    def _found_and_taken_out(self) -> set[str]:
        """Operations of which a part was in the session, amid foreign lines, and was taken out. The
        file as it was before that is kept, and may be restored.
        """
        lineage = self.path.with_name(f"{self.path.name}.lineage")
        entries = map(json.loads, lineage.read_bytes().splitlines() if lineage.exists() else ())
        kept = [entry["rotated"] for entry in entries if entry.get("operation") == "repair"]
        files = [self.path.with_name(name) for name in kept]
        return {op for file in files for op in self._in_part(list(self._lines(file)))}

    def _in_part(self, lines: Sequence[Line]) -> set[str]:
        """Operations of which not every record is there, or one is the end of a foreign line."""
        parts = Counter(line.tag["op"] for line in lines if line.tag)
        said = self.ledger.operations
        return {op for op, count in parts.items() if op in said and count != said[op].count} | {
            match[1].decode()
            for line in lines
            if (match := re.match(rb'.*foreign.*"op":"([^"]+)"', line.data))
        }

    def _rotated(self) -> list[Path]:
        numbered = (
            (int(match[1]), path)
            for path in self.path.parent.iterdir()
            if (match := re.fullmatch(r"context_([0-9]+)\.jsonl", path.name))
        )
        return [path for _, path in sorted(numbered)]

    def _lines(self, path: Path) -> Iterator[Line]:
        *whole, rest = path.read_bytes().split(b"\n")
        if rest and b"foreign" not in rest:  # in the instant in which the file was replaced
            self.ledger.problems.append(f"{path.name} ends within a line")
        for data in whole:
            try:
                record = json.loads(data)
            except ValueError:
                record = None
            yield Line(data, record if isinstance(record, dict) else None)

    def _folder(self) -> Iterator[str]:
        """No leftovers, every file private and under one name."""
        for path in sorted(self.path.parent.iterdir()):
            status = path.lstat()
            if path.name.endswith(".tmp") and not path.name.startswith(".context.fork"):
                yield f"a leftover: {path.name}"
            if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
                yield f"{path.name} has {status.st_nlink} names"
            if stat.S_IMODE(status.st_mode) & 0o077:
                yield f"{path.name} has mode {stat.S_IMODE(status.st_mode):o}"

    # ---- single files -----------------------------------------------------------------------

    def _file(self, name: str, lines: Sequence[Line], *, count: bool = True) -> Iterator[str]:
        yield from self._checkpoints(name, lines)
        yield from self._damage(name, lines)
        left_over = self._left_over(lines)
        parts: dict[str, list[tuple[int, int]]] = {}
        latest: dict[str, int] = {}
        for at, line in enumerate(lines):
            if (tag := line.tag) is None or tag["op"] in left_over:
                continue
            parts.setdefault(tag["op"], []).append((at, tag["part"]))
            terminal, _, number = tag["op"].rpartition(".")
            said = self.ledger.operations.get(tag["op"])
            if said is None or said.what == "batch":
                continue  # calls of several tasks have no order
            if int(number) < latest.get(terminal, 0):
                yield f"{name}: {tag['op']} stands behind number {latest[terminal]}"
            latest[terminal] = int(number)
        for op, places in parts.items():
            said = self.ledger.operations.get(op)
            if said is None:
                yield f"{name}: nobody said that it would do {op}"
                continue
            self.found[op] += count
            first = places[0][0]
            if [part for _, part in places] != list(range(said.count)):
                yield f"{name}: {op} is there with parts {[p for _, p in places]} of {said.count}"
            elif [at for at, _ in places] != list(range(first, first + said.count)):
                yield f"{name}: other records stand within {op}"
        yield from self._turns(name, lines)

    def _left_over(self, lines: Sequence[Line]) -> set[str]:
        """Operations of which a part is here that was taken out: later, or in another file."""
        return self._taken_out & self._in_part(lines)

    def _checkpoints(self, name: str, lines: Sequence[Line]) -> Iterator[str]:
        numbers = Counter(
            line.record["id"]
            for line in lines
            if line.record and line.record["role"] == "_checkpoint"
        )
        for number, times in numbers.items():
            if times > 1:
                yield f"{name}: checkpoint {number} stands {times} times"

    def _damage(self, name: str, lines: Sequence[Line]) -> Iterator[str]:
        """Damaged lines are foreign ones, or the beginning of one that was never acknowledged."""
        for line in lines:
            if line.record is not None or b"foreign" in line.data or not line.data:
                continue
            match = re.search(rb'"op":"([^"]+)"', line.data)
            said = self.ledger.operations.get(match[1].decode()) if match else None
            if line.data.endswith(b"}") or (said is not None and said.state == "done"):
                yield f"{name}: torn: {line.data[:80]!r}"
            self.torn += 1

    def _turns(self, name: str, lines: Sequence[Line]) -> Iterator[str]:
        """What was written in a turn stays together, but for foreign lines and token counts."""
        over: set[str] = set()
        now = ""
        for line in lines:
            record = line.record
            if record is None or b"foreign" in line.data or record["role"] == "_usage":
                continue
            if record["role"] == "_system_prompt":
                continue
            turn = (line.tag or {}).get("turn", "")
            if turn != now:
                if turn and turn in over:
                    yield f"{name}: turn {turn} is in two pieces"
                over.add(now)
                now = turn

    # ---- all files --------------------------------------------------------------------------

    def _one_order(self, files: Sequence[Path], lines: dict[Path, list[Line]]) -> Iterator[str]:
        """What two files have in common stands in the same order in both."""
        rank: dict[str, int] = {}
        for file in files:
            latest = -1
            left_over = self._left_over(lines[file])
            for op in dict.fromkeys(line.tag["op"] for line in lines[file] if line.tag):
                if op in left_over:
                    continue
                place = rank.setdefault(op, len(rank))
                if place < latest:
                    yield f"{file.name}: {op} stands behind what it stood before in another file"
                latest = max(latest, place)

    def _operations(self) -> Iterator[str]:
        """Acknowledged is in a file, refused in none, and what nobody was told of is either."""
        for said in self.ledger.operations.values():
            there = self.found.get(said.op, 0)
            if said.count and said.state == "done" and not there:
                yield f"{said.op} ({said.what}) was acknowledged and is lost"
            if said.state == "refused" and there:
                yield f"{said.op} ({said.what}) was refused ({said.why}) and is there"

    def _foreign(self, files: Sequence[Path]) -> Iterator[str]:
        everything = b"".join(file.read_bytes() for file in files)
        # Half a line right behind our own torn one can't be told from it: it is put aside.
        aside = b""
        with suppress(FileNotFoundError):
            aside = self.path.with_name(f"{self.path.name}.torn").read_bytes()
        for text, half in self.ledger.foreign.items():
            if text.encode() not in (everything + aside if half else everything):
                yield f"what another program wrote is lost: {text}"

    def _memory(self) -> Iterator[str]:
        """Everybody who is left, and whoever reads the file, has the same."""
        there = fold(self.path.read_bytes())
        plain = digest_of(there.messages, there.system_prompt, there.token_count, there.checkpoints)
        for terminal, told in self.ledger.digests.items():
            if told != plain:
                yield f"{terminal} ended with {told}, the file holds {plain}"


def size(folder: Path) -> int:
    return sum(os.stat(path).st_size for path in folder.iterdir() if path.is_file())
