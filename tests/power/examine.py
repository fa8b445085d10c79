"""What is wrong with a session after a power cut. Each finding is a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from cosession import BlockingSession, SessionMissing
from crash.examine import leftovers, nothing_left_to_do
from crash.operations import message
from crash.scene import Snapshot, naive_fold, read, view

from .disk import Told

AFTERWARDS = "It goes on."


@dataclass(frozen=True, slots=True)
class Expected:
    """What may be found, and what must be."""

    durability: str
    wholes: tuple[bytes, ...]
    """The session before the story and after each of its operations."""
    due: tuple[bool, ...]
    """Which of them the session under examination has made, and so acknowledged."""
    written: tuple[bytes, ...]
    """What was written to the file at its end, also if it was taken back."""
    told: Told
    foreign: bytes = b""
    """What a program that takes no lock has written meanwhile: nobody waited for the disk."""
    healed: bytes = b""
    """A record that was appended behind it all after another cut, and maybe acknowledged."""
    healed_due: bool = False
    found: bytes = b""
    """What the file held after the first of two cuts."""

    @property
    def allowed(self) -> tuple[bytes, ...]:
        """Under "power": the session as it was acknowledged, and as it was to become."""
        return self.wholes[self.told.acknowledged : self.told.begun + 1]

    def records(self, data: bytes) -> list[bytes]:
        """The session's own records in a file, in its order."""
        theirs = _lines(self.foreign)
        return [line for line in _sorted(_lines(data))[0] if line not in theirs]

    def fits(self, records: list[bytes], whole: bytes) -> bool:
        known = self.records(whole)
        with_healed = [*known, self.healed] if self.healed else known
        return records == with_healed or (not self.healed_due and records == known)


def examine(folder: str, expected: Expected) -> list[str]:
    """Open the session as the next process would, and compare it with what is promised."""
    try:
        return list(_findings(folder, expected))
    except Exception as error:
        return [f"it can't be used: {error!r}"]


def _findings(folder: str, expected: Expected) -> Iterator[str]:
    path = os.path.join(folder, "context.jsonl")
    found = read(path) if os.path.exists(path) else b""
    lock_dir = os.path.join(folder, "locks")
    where = lock_dir if os.path.isdir(lock_dir) else None
    yield from _read_only(path, where, found, expected)
    with BlockingSession(path, lock_dir=where) as session:
        held = view(session)
        ends = session.revision
    live = read(path)
    folded = naive_fold(live)
    if held != {**held, **folded}:
        yield f"what was opened is not the file's fold: {held}, but {folded}"
    yield from _kept(path, found, live)
    if expected.healed:
        yield from _kept(path, expected.found, live)
    if expected.durability == "power":
        if ends.generation < expected.told.generation:
            yield f"the generation went down from {expected.told.generation} to {ends.generation}"
        yield from _power(path, live, expected)
    else:
        yield from _process(path, live, expected)
    yield from leftovers(folder)
    yield from nothing_left_to_do(path, where)

    with BlockingSession(path, lock_dir=where) as session:
        if turn := session.interrupted:  # maybe one that was over: its note need not survive
            turn.keep(close_tool_calls=False)
        session.append(message(AFTERWARDS))
        held = view(session)
    now = read(path)
    if now[: len(live)] != live or now.count(b"\n") != live.count(b"\n") + 1:
        yield f"an append afterwards went wrong: …{now[-200:]!r}"
    if held != {**held, **naive_fold(now)}:
        yield f"memory is not the file's fold afterwards: {held}"


def _read_only(path: str, lock_dir: str | None, found: bytes, expected: Expected) -> Iterator[str]:
    """A reader, before anybody has healed anything, sees records of the session only."""
    session = BlockingSession(path, read_only=True, lock_dir=lock_dir)
    try:
        session.open()
    except SessionMissing:
        return
    try:
        seen = view(session)
    finally:
        session.close()
    part = found[: seen["position"]]
    if seen != {**seen, **naive_fold(part)}:
        yield f"a reader holds something else than the part of the file that it saw: {seen}"
    if expected.durability == "power":
        records = expected.records(part)
        if not any(expected.fits(records, whole) for whole in expected.allowed):
            yield f"a reader misses something, or sees a part of an operation: …{part[-200:]!r}"


def _power(path: str, live: bytes, expected: Expected) -> Iterator[str]:
    """Nothing acknowledged is lost, and every operation is whole."""
    records = expected.records(live)
    if not any(expected.fits(records, whole) for whole in expected.allowed):
        lengths = [len(expected.records(whole)) for whole in expected.allowed]
        yield f"{len(records)} records, where there may be one of {lengths}: …{live[-200:]!r}"
    _, broken = _sorted(_lines(live))
    allowance = _torn(expected.allowed)
    allowance += (bool(expected.healed) and not expected.healed_due) + 2 * bool(expected.foreign)
    if len(broken) > allowance:
        yield f"{len(broken)} broken lines, where {allowance} may be: {broken}"
    yield from _rotated(path, live, expected, expected.told.acknowledged)


def _torn(allowed: Sequence[bytes]) -> int:
    """How many broken lines may be left: two, with zeros between them, of an unfinished append."""
    return 2 * sum(after.startswith(before) for before, after in pairwise(allowed))


def _process(path: str, live: bytes, expected: Expected) -> Iterator[str]:
    """What was on the disk is kept, and no record is there that nobody wrote."""
    good, _ = _sorted(_lines(live))
    good = [line for line in good if line != expected.healed]
    tried = [whole + data for whole in expected.wholes for data in expected.written]
    if not any(_in_order(good, _lines(whole)) for whole in (*expected.wholes, *tried)):
        strange = set(good) - {line for whole in expected.wholes for line in _lines(whole)}
        yield f"records that nobody wrote, or in another order: {strange or good}"
    # A replace waits for the disk under any durability.
    begun = expected.wholes[: expected.told.begun + 1]
    replaced = [new for old, new in pairwise(begun) if not new.startswith(old)]
    if not any(live.startswith(base) for base in (expected.wholes[0], *replaced)):
        yield f"it doesn't begin with what was on the disk: {live[:200]!r}…"
    yield from _rotated(path, live, expected, 0)


def _rotated(path: str, live: bytes, expected: Expected, last: int) -> Iterator[str]:
    """What was in the session once is in it, or in a rotated file, in one piece."""
    rotated = Snapshot.of(os.path.dirname(path)).rotated
    for number, whole in enumerate(expected.wholes[: last + 1]):
        if expected.due[number] and not any(
            content.startswith(whole) for content in (live, *rotated.values())
        ):
            yield f"what the session was after {number} operations is nowhere; {sorted(rotated)}"


def _kept(path: str, found: bytes, live: bytes) -> Iterator[str]:
    """No byte is gone that was there: it is in the file, in a rotated one, or put aside."""
    if live.startswith(found):
        return
    contents = [live, *Snapshot.of(os.path.dirname(path)).rotated.values()]
    if os.path.exists(f"{path}.torn"):
        contents.append(read(f"{path}.torn"))
    pairs = zip(_lines(found), _lines(live), strict=False)
    same = takewhile(lambda pair: pair[0] == pair[1], pairs)
    tail = found[sum(len(line) for line, _ in same) :]
    if not any(found in content or tail in content for content in contents):
        yield f"bytes are in no file any more: …{tail[:200]!r}"


def _lines(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _sorted(lines: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Lines that are records, and those that aren't."""
    good, broken = list[bytes](), list[bytes]()
    for line in lines:
        try:
            json.loads(line)
            good.append(line)
        except ValueError:
            broken.append(line)
    return good, broken


def _in_order(some: Sequence[bytes], whole: Sequence[bytes]) -> bool:
    """Whether these are lines of the whole, in its order, and each at most once."""
    rest = iter(whole)
    return all(line in rest for line in some)
