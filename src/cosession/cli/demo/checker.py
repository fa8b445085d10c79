"""The ledger against the files: everything that the session promises, looked at from outside.

1. The files are read as `plain` JSON Lines, without the library that wrote them. Only the lock
   file's header is read with its help, and one fold at the end, to compare with.
2. Every problem is named: what is off, with which record, in which file.
3. The checker comes first: nobody may have opened the session since the terminals left, because
   that would mend what it is to find.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...blocking import BlockingSession
from ...errors import CosessionError
from ...header import Identity
from ...lock import LockFile
from .digest import digest_of
from .ledger import REPLACES, Ledger, Operation, checkpoint_message, messages_of
from .plain import Line, SessionFile, is_compacted, plain_digest, record_of
from .script import TAG, JsonObject, Script, Tag

MOST_OF_A_KIND = 5
"""How many problems of one kind are named one by one."""


@dataclass(slots=True)
class Findings:
    """What the checker saw. `problems` is empty if everything is as promised."""

    problems: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    lines: int = 0
    messages: int = 0
    """Different messages, over all files."""
    completed: int = 0
    """Operations that were never acknowledged and are there, whole."""
    absent: int = 0
    """Operations that were never acknowledged and are not there at all."""
    put_aside: int = 0
    """Bytes of unfinished writes, kept beside the session."""


def check(path: Path, ledger: Ledger, script: Script) -> Findings:
    """Compare the session at `path`, which every process has left, with the ledger."""
    checker = _Checker(path, ledger, script)
    checker.run()
    return checker.findings()


class _Checker:
    def __init__(self, path: Path, ledger: Ledger, script: Script) -> None:
        self._path = path
        self._ledger = ledger
        self._script = script
        self._seen = Findings()
        self._problems: dict[str, list[str]] = defaultdict(list)
        self._files: list[SessionFile] = []
        """Rotated files, oldest first, and the live one behind them."""
        self._parsed: dict[bytes, JsonObject] = {}
        """Files have most of their lines in common."""
        self._found: dict[str, set[int]] = defaultdict(set)
        """For each operation, which parts are in some file."""

    def run(self) -> None:
        if not self._path.is_file():
            self._problem("lost", f"the session's file {self._path.name} is gone")
            return
        self._check_folder()
        self._check_header()
        for path in [*self._rotated(), self._path]:
            self._files.append(self._read(path))
        for file in self._files:
            self._check_file(file)
        self._check_order_over_files()
        self._check_operations()
        self._check_generations()
        self._check_rewrites()
        self._check_folds()

    def findings(self) -> Findings:
        for kind, texts in self._problems.items():
            self._seen.problems += [f"{kind}: {text}" for text in texts[:MOST_OF_A_KIND]]
            if more := len(texts) - MOST_OF_A_KIND:
                self._seen.problems += [f"{kind}: and {more} more"] if more > 0 else []
        return self._seen

    def _problem(self, kind: str, text: str) -> None:
        self._problems[kind].append(text)

    # ---- the folder -------------------------------------------------------------------------

    def _rotated(self) -> list[Path]:
        numbered = [
            (int(match[1]), path)
            for path in self._path.parent.iterdir()
            if (match := self._rotation_name().fullmatch(path.name))
        ]
        return [path for _, path in sorted(numbered)]

    def _rotation_name(self) -> re.Pattern[str]:
        stem, suffix = re.escape(self._path.stem), re.escape(self._path.suffix)
        return re.compile(rf"{stem}_([0-9]+){suffix}")

    def _check_folder(self) -> None:
        """No leftovers; every file private, and under one name."""
        name = self._path.name
        torn = f"{name}.torn"
        ours = {name, f"{name}.lock", f"{name}.turn", f"{name}.lineage", torn}
        for path in sorted(self._path.parent.iterdir()):
            status = path.lstat()
            if path.name not in ours and not self._rotation_name().fullmatch(path.name):
                self._problem("leftover", f"{path.name} ({status.st_size} bytes)")
                continue
            if status.st_nlink != 1:
                self._problem("hard link", f"{path.name} has {status.st_nlink} names")
            mode = stat.S_IMODE(status.st_mode)
            if os.name == "posix" and mode != 0o600:
                self._problem("mode", f"{path.name} has {mode:04o} in place of 0600")
            if path.name == torn:
                self._seen.put_aside = status.st_size
            elif not path.name.endswith((".lock", ".turn", ".lineage")):
                self._seen.files += 1
                self._seen.size += status.st_size

    def _check_header(self) -> None:
        """No announcement left over, and all of the file is committed."""
        with LockFile(f"{self._path}.lock", beside=str(self._path)).peeking() as peek:
            header = peek() if peek else None
        if header is None:
            self._problem("header", f"{self._path.name}.lock is missing or can't be read")
            return
        status = self._path.stat()
        if header.intent is not None:
            self._problem("header", f"an announcement is left over: {header.intent}")
        if header.identity != Identity.of(status.st_dev, status.st_ino):
            self._problem("header", "it speaks of another file")
        elif header.committed != status.st_size:
            self._problem(
                "header", f"{header.committed} bytes committed of {status.st_size} in the file"
            )

    # ---- single files -----------------------------------------------------------------------

    def _read(self, path: Path) -> SessionFile:
        """Read every line; what is no record is torn."""
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._problem("torn", f"{path.name} does not end with a whole line")
        file = SessionFile(path, [])
        for at, line in enumerate(data.split(b"\n")[: data.count(b"\n")], 1):
            record = self._parsed.get(line)
            if record is None:
                try:
                    record = record_of(line)
                except ValueError as error:
                    self._problem("torn", f"line {at} of {path.name}: {error}")
                    continue
                self._parsed[line] = record
            file.lines.append(Line(at, line, record))
        self._seen.lines += len(file.lines)
        return file

    def _check_file(self, file: SessionFile) -> None:
        self._check_unique(file)
        self._check_marks(file)
        groups: dict[str, list[tuple[int, Line, Tag]]] = defaultdict(list)
        latest: dict[int, tuple[int, int, int]] = {}
        for index, line in enumerate(file.lines):
            if line.record["role"].startswith("_"):
                continue
            tag = line.tag
            operation = self._ledger.operations.get(tag.operation) if tag else None
            if tag is None or operation is None:
                self._problem("unknown", f"line {line.at} of {file.name} is nobody's message")
                continue
            groups[tag.operation].append((index, line, tag))
            self._found[tag.operation].add(tag.part)
            place = (*operation.order, tag.part)
            if place < latest.get(operation.terminal, place):
                self._problem(
                    "order",
                    f"line {line.at} of {file.name}: message {tag.operation} part {tag.part} "
                    f"stands behind a later one of terminal {operation.terminal}",
                )
            latest[operation.terminal] = place
        for name, group in groups.items():
            self._check_group(file, self._ledger.operations[name], group)

    def _check_unique(self, file: SessionFile) -> None:
        """No message and no checkpoint number twice."""
        tags = Counter((x.tag.operation, x.tag.part) for x in file.lines if x.tag)
        for (name, part), count in tags.items():
            if count > 1:
                self._problem(
                    "duplicate", f"message {name} part {part} stands {count} times in {file.name}"
                )
        for number, count in Counter(file.checkpoints()).items():
            if count > 1:
                self._problem("checkpoint", f"number {number} stands {count} times in {file.name}")

    def _check_marks(self, file: SessionFile) -> None:
        """The system prompt comes first and once; nothing is there that nobody wrote."""
        for index, line in enumerate(file.lines):
            role = line.record["role"]
            if role == "_system_prompt" and index:
                self._problem("order", f"line {line.at} of {file.name}: a late system prompt")
            elif role.startswith("_") and role not in ("_system_prompt", "_checkpoint", "_usage"):
                self._problem("unknown", f"line {line.at} of {file.name} is a {role} record")

    def _check_group(
        self, file: SessionFile, operation: Operation, group: Sequence[tuple[int, Line, Tag]]
    ) -> None:
        """What one operation wrote: whole, in one piece, and as it was meant."""
        where = f"{operation} in {file.name}"
        indexes = [index for index, _, _ in group]
        parts = [tag.part for _, _, tag in group]
        if parts != list(range(1, operation.count + 1)):
            self._problem("half", f"{where}: parts {_runs(parts)} of {operation.count}")
            return
        if indexes != list(range(indexes[0], indexes[0] + len(indexes))):
            self._problem("interleaved", f"{where}: other records stand within it")
        expected = self._expected(file, operation, indexes[0])
        for (_, line, tag), message in zip(group, expected, strict=True):
            plain = {key: value for key, value in line.record.items() if key != TAG}
            if plain != message:
                self._problem(
                    "changed", f"{where}: message {tag.part} (line {line.at}) is not as written"
                )
        if operation.kind == "compact" and not is_compacted(file, operation):
            self._problem("half", f"{where}: without its prompt, checkpoint or token count")

    def _expected(
        self, file: SessionFile, operation: Operation, index: int
    ) -> Sequence[JsonObject]:
        if operation.kind != "checkpoint":
            return messages_of(operation, self._script)
        # Its message tells the number of the checkpoint right before it.
        before = file.lines[index - 1].record if index else {}
        number = before.get("id") if before.get("role") == "_checkpoint" else None
        if operation.state == "done" and number != operation.checkpoint:
            self._problem(
                "checkpoint",
                f"{operation} in {file.name}: number {number} stands before its message, "
                f"{operation.checkpoint} was acknowledged",
            )
        return [checkpoint_message(operation.terminal, number)]

    # ---- over all files ---------------------------------------------------------------------

    def _check_order_over_files(self) -> None:
        """Every terminal's messages appear, oldest file first, in the order it wrote them."""
        latest: dict[int, tuple[int, int, int]] = {}
        known: set[tuple[str, int]] = set()
        for file, tag in self._tagged():
            if (tag.operation, tag.part) in known:
                continue
            known.add((tag.operation, tag.part))
            operation = self._ledger.operations.get(tag.operation)
            if operation is None:
                continue
            place = (*operation.order, tag.part)
            if place < latest.get(operation.terminal, place):
                self._problem(
                    "order",
                    f"message {tag.operation} part {tag.part} first appears in {file.name}, "
                    f"behind a later one of terminal {operation.terminal}",
                )
            latest[operation.terminal] = place
        self._seen.messages = len(known)

    def _tagged(self) -> Iterator[tuple[SessionFile, Tag]]:
        for file in self._files:
            for line in file.lines:
                if tag := line.tag:
                    yield file, tag

    def _check_operations(self) -> None:
        """Acknowledged means there; refused means not there; begun means whole or not there."""
        for operation in self._ledger:
            found = self._found.get(operation.id, set())
            missing = set(range(1, operation.count + 1)) - found
            match operation.state:
                case "done" if missing:
                    self._problem(
                        "lost",
                        f"{operation} was acknowledged, but its message(s) "
                        f"{_runs(sorted(missing))} of {operation.count} are in no file",
                    )
                case "refused" if found:
                    self._problem("refused", f"{operation} was refused, but it is there")
                case "begun" if operation.count:
                    self._seen.completed += not missing
                    self._seen.absent += not found

    def _check_generations(self) -> None:
        """One file for each generation, with the token counts that were acknowledged in it."""
        generations = {x.revision.generation for x in self._ledger.acknowledged() if x.revision}
        if not generations:
            return
        first = min(generations)
        if max(generations) - first >= len(self._files):
            self._problem(
                "rotated",
                f"{max(generations) - first + 1} generations, but {len(self._files)} files",
            )
            return
        counts = [Counter(file.usages()) for file in self._files]
        for operation in self._ledger.acknowledged("usage"):
            assert operation.revision is not None
            at = operation.revision.generation - first
            there = counts[at][operation.value]
            if there != 1:
                self._problem(
                    "lost" if not there else "duplicate",
                    f"{operation}: token count {operation.value} stands {there} times "
                    f"in {self._files[at].name}",
                )

    def _check_rewrites(self) -> None:
        """Each revert and compaction left one rotated file, and a new one as it should be."""
        by_path = {os.path.normcase(file.path.name): at for at, file in enumerate(self._files)}
        done = self._ledger.acknowledged(*REPLACES)
        begun = [x for x in self._ledger if x.kind in REPLACES and x.state == "begun"]
        rotations = len(self._files) - 1
        if not len(done) <= rotations <= len(done) + len(begun):
            self._problem(
                "rotated",
                f"{rotations} rotated files for {len(done)} acknowledged reverts and compactions "
                f"and {len(begun)} unacknowledged ones",
            )
        taken: dict[int, Operation] = {}
        for operation in done:
            name = os.path.basename(operation.rotated or "")
            at = by_path.get(os.path.normcase(name), len(self._files))
            if at >= rotations:
                self._problem("rotated", f"{operation}: its rotated file {name!r} is missing")
                continue
            if at in taken:
                self._problem("rotated", f"{operation} and {taken[at]} both name {name}")
            taken[at] = operation
            self._check_rewrite(operation, self._files[at], self._files[at + 1])

    def _check_rewrite(self, operation: Operation, old: SessionFile, new: SessionFile) -> None:
        if operation.kind == "compact":
            if not is_compacted(new, operation):
                self._problem("rotated", f"{operation}: {new.name} does not begin with it")
            return
        kept: list[bytes] = []
        for line in old.lines:
            if line.record == {"role": "_checkpoint", "id": operation.value}:
                break
            kept.append(line.data)
        else:
            self._problem("rotated", f"{operation}: {old.name} has no checkpoint {operation.value}")
            return
        if [line.data for line in new.lines[: len(kept)]] != kept:
            self._problem(
                "rotated",
                f"{operation}: {new.name} does not begin with what stood before checkpoint "
                f"{operation.value} in {old.name}",
            )

    # ---- what the session makes of it -------------------------------------------------------

    def _check_folds(self) -> None:
        """Every terminal, a fresh session and a plain reading of the file agree."""
        plain = plain_digest(self._files[-1])
        try:
            with BlockingSession(self._path, read_only=True) as session:
                fresh = digest_of(session)
                for damage in session.damage:
                    self._problem("damage", str(damage))
        except CosessionError as error:
            self._problem("digest", f"the session can't be opened: {error}")
            return
        if fresh != plain:
            self._problem("digest", f"a fresh session has {fresh}, its file holds {plain}")
        for report in self._ledger.reports:
            if report.digest != plain:
                self._problem(
                    "digest",
                    f"terminal {report.terminal} ended with {report.digest} "
                    f"({report.messages} messages), the file holds {plain}",
                )
            if report.damage:
                self._problem(
                    "damage", f"terminal {report.terminal} saw {report.damage} damaged line(s)"
                )


def _runs(numbers: Iterable[int]) -> str:
    """`1-3, 5` for 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
