"""What a power cut may leave of a file system, as values.

1. An `Image` is a small file system: names lead to files, files hold bytes.
2. A trace is a list of `Event`s, in the order in which they were issued.
3. An event is *pinned* by a later sync: of its file for bytes and sizes, of its folder for names.
   A pinned event is on the disk. One that isn't is *loose*, and any part of it may be there.
4. A state is the image after a beginning of the trace, with some of the loose events left out or
   done in part. Names and bytes are independent of each other, and so are any two files.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from cosession.header import HEADER_AT, HEADER_SIZE, SPANS_AT, Identity, Replacing, pack, unpack

SECTOR = 512
"""What a disk writes whole or not at all."""

_PAIRS = 60
"""Of so many pairs of events both differ, under `deep`, after each call."""

_FEW = 6
"""At so many boundaries of records and sectors a write is cut, unless all of them are wanted."""


@dataclass(frozen=True, slots=True)
class File:
    data: bytes = b""
    modified: int = 0
    """Nanoseconds, as the real file had it."""


@dataclass(slots=True)
class Image:
    names: dict[str, int] = field(default_factory=dict)
    """Paths, relative to the folder of the case, and the files that they lead to."""
    files: dict[int, File] = field(default_factory=dict)
    inodes: dict[int, int] = field(default_factory=dict)
    """The inode that each file had when it was recorded, since the lock file speaks of it."""

    def copy(self) -> Image:
        return Image(dict(self.names), dict(self.files), self.inodes)

    def content(self, name: str) -> bytes | None:
        file = self.names.get(name)
        return None if file is None else self.files[file].data

    def key(self) -> tuple[tuple[str, str, bytes], ...]:
        """Equal for images that nobody can tell apart."""
        first: dict[int, str] = {}
        return tuple(
            (name, first.setdefault(file, name), self.files[file].data)
            for name, file in sorted(self.names.items())
        )


# ---- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Create:
    file: int
    name: str


@dataclass(frozen=True, slots=True)
class Link:
    file: int
    name: str


@dataclass(frozen=True, slots=True)
class Unlink:
    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    file: int
    name: str
    new: str


@dataclass(frozen=True, slots=True)
class Write:
    file: int
    name: str
    at: int
    data: bytes
    modified: int


@dataclass(frozen=True, slots=True)
class Truncate:
    file: int
    name: str
    length: int
    modified: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Of a file: returns when its bytes and its size are on the disk."""

    file: int
    name: str


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """Returns when the folder's names are on the disk."""

    folder: str


@dataclass(frozen=True, slots=True)
class Told:
    """Nothing happens to the disk; the program knows more than before."""

    acknowledged: int
    """How many whole states have been acknowledged: the last one that must be there."""
    begun: int
    """The last one that may be there."""
    generation: int = 0
    """The generation that was told with it."""


Naming = Create | Link | Unlink | Rename
Event = Naming | Write | Truncate | Sync | SyncFolder | Told


def pins(sync: Event, event: Event) -> bool:
    match sync, event:
        case Sync(file=file), Write(file=other) | Truncate(file=other):
            return file == other
        case SyncFolder(folder), Create() | Link() | Unlink():
            return os.path.dirname(event.name) == folder
        case SyncFolder(folder), Rename():
            return os.path.dirname(event.new) == folder
    return False


# ---- parts of events ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """What of an event is on the disk."""

    name: str
    ranges: tuple[tuple[int, int], ...] = ()
    """Of a write: which of its bytes."""
    size: int = 0
    """Of a write: as if so many bytes had been written. What never got there reads as zeros."""
    filler: int = 0
    """What it reads as instead, where old blocks of the disk may show."""


WHOLE = Part("whole")
NONE = Part("not there")
BOTH = Part("under both names")


def parts(event: Event, *, every: bool = False) -> Iterator[Part]:
    """What may be there of a loose event, other than all of it."""
    yield NONE
    match event:
        case Rename():
            yield BOTH
        case Write(at=at, data=data):
            length = len(data)
            yield Part("its size only", (), length)
            if every:
                yield Part("its size, and rubbish", (), length, 0xA5)
            for cut in _cuts(at, data, every=every):
                yield Part(f"cut at {cut}", ((0, cut),), cut)
                yield Part(f"zeros from {cut} on", ((0, cut),), length)
                yield Part(f"zeros up to {cut}", ((cut, length),), length)
            sectors = range(-at % SECTOR, length, SECTOR)
            for start in sectors if every else _some(sectors):
                if start > 0 and start + SECTOR < length:
                    ranges = (0, start), (start + SECTOR, length)
                    yield Part(f"a sector of zeros at {start}", ranges, length)


def _cuts(at: int, data: bytes, *, every: bool) -> list[int]:
    """Where a write may be cut: anywhere, between records, between sectors."""
    length = len(data)
    records = [number + 1 for number, byte in enumerate(data) if byte == ord("\n")]
    boundaries = records, range(-at % SECTOR, length, SECTOR)
    wanted = {1, length // 2, length - 1}
    for numbers in boundaries:
        wanted.update(numbers if every else _some(numbers))
    return sorted(wanted & set(range(1, length)))


def _some(numbers: Sequence[int]) -> Sequence[int]:
    """A few of them, from everywhere."""
    return numbers[:: -(-len(numbers) // _FEW) or 1]


def _coarse(event: Event) -> list[Part]:
    """The parts that make the largest difference, for pairs."""
    if isinstance(event, Write):
        half = len(event.data) // 2
        return [NONE, Part("its size only", (), len(event.data)), Part("half", ((0, half),), half)]
    return [NONE]


def apply(image: Image, event: Event, part: Part) -> None:
    if part is NONE:
        return
    match event:
        case Create(file, name) | Link(file, name):
            image.names[name] = file
            image.files.setdefault(file, File())
        case Unlink(name):
            image.names.pop(name, None)
        case Rename(file, name, new):
            if part is not BOTH:
                image.names.pop(name, None)
            image.names[new] = file
            image.files.setdefault(file, File())
        case Write(file, _, at, data, modified):
            whole = part is WHOLE
            ranges, size = (((0, len(data)),), len(data)) if whole else (part.ranges, part.size)
            old = image.files.get(file, File()).data
            held = bytearray(old.ljust(at, b"\0"))
            held += bytes([part.filler]) * (at + size - len(held))
            for start, stop in ranges:
                held[at + start : at + stop] = data[start:stop]
            image.files[file] = File(bytes(held), modified)
        case Truncate(file, _, length, modified):
            old = image.files.get(file, File()).data
            image.files[file] = File(old[:length].ljust(length, b"\0"), modified)


# ---- states -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    image: Image
    told: Told
    why: str


def loose(events: Sequence[Event]) -> list[int]:
    """Which of these events are not known to be on the disk."""
    return [
        number
        for number, event in enumerate(events)
        if not isinstance(event, Sync | SyncFolder | Told)
        and not any(pins(later, event) for later in events[number + 1 :])
    ]


def states(
    image: Image, trace: Sequence[Event], *, deep: bool = False, subsets: int = 2, seed: int = 1
) -> Iterator[State]:
    """Everything that a power cut at any instant may leave, each once.

    All that was issued, or only what was pinned; one event different from either; under `deep`
    two; and some at random.
    """
    seen = set[tuple[object, ...]]()
    for stop in range(len(trace) + 1):
        events = trace[:stop]
        told = next((e for e in reversed(events) if isinstance(e, Told)), Told(0, 0))
        for chosen, why in _choices(events, deep=deep, subsets=subsets, seed=seed):
            result = image.copy()
            for number, event in enumerate(events):
                apply(result, event, chosen.get(number, WHOLE))
            key = result.key(), told
            if key not in seen:
                seen.add(key)
                yield State(result, told, f"after {stop} of {len(trace)} calls, {why}")


def _choices(
    events: Sequence[Event], *, deep: bool, subsets: int, seed: int
) -> Iterator[tuple[dict[int, Part], str]]:
    """What of the loose events is there, and that in words."""
    free = loose(events)
    nothing = dict.fromkeys(free, NONE)
    yield {}, "all of it"
    yield nothing, "only what was synced"
    for one in free:
        for part in parts(events[one], every=deep):
            yield {one: part}, f"but {_said(events, one)} {part.name}"
            yield (
                nothing | {one: part},
                f"only what was synced, and {_said(events, one)} {part.name}",
            )
        yield nothing | {one: WHOLE}, f"only what was synced, and {_said(events, one)}"
    choices = random.Random(f"{seed}/{len(events)}")
    if deep:
        pairs = list(combinations(free, 2))
        for one, two in choices.sample(pairs, min(len(pairs), _PAIRS)):
            who = f"{_said(events, one)} and {_said(events, two)}"
            for first in _coarse(events[one]):
                for second in _coarse(events[two]):
                    yield {one: first, two: second}, f"but {who} {first.name}, {second.name}"
            yield nothing | {one: WHOLE, two: WHOLE}, f"only what was synced, and {who}"
    for number in range(subsets if len(free) > 1 else 0):
        some = {one: choices.choice([WHOLE, WHOLE, NONE, *parts(events[one])]) for one in free}
        yield some, f"subset {number} of seed {seed}"


def _said(events: Sequence[Event], number: int) -> str:
    event = events[number]
    name = "" if isinstance(event, SyncFolder | Told) else event.name
    return f"{type(event).__name__.lower()} of {name} (call {number})"


# ---- a real folder ------------------------------------------------------------------------------


def materialise(image: Image, folder: str) -> None:
    """Make real files of an image, in an empty folder."""
    made: dict[int, str] = {}
    for name, file in sorted(image.names.items()):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if file in made:
            os.link(made[file], path)
            continue
        made[file] = path
        with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
            opened.write(image.files[file].data)
    inodes = {image.inodes[file]: os.stat(path).st_ino for file, path in made.items()}
    for file, path in made.items():
        if path.endswith(".lock"):
            with open(path, "r+b") as opened:
                opened.write(_readdressed(image.files[file].data, inodes))
        then = image.files[file].modified
        if then:
            os.utime(path, ns=(then, then))


def _readdressed(data: bytes, inodes: dict[int, int]) -> bytes:
    """A lock file that speaks of the same files under their new inodes, if it can be read."""
    header = unpack(data[HEADER_AT : HEADER_AT + HEADER_SIZE], data[SPANS_AT:])
    if header is None:
        return data

    def moved(identity: Identity) -> Identity:
        return Identity(identity.device, inodes.get(identity.inode, (1 << 64) - 1))

    intent = header.intent
    if isinstance(intent, Replacing):
        intent = replace(intent, identity=moved(intent.identity))
    header = replace(header, identity=moved(header.identity), intent=intent)
    end = min(len(data), HEADER_AT + HEADER_SIZE)
    return data[:HEADER_AT] + pack(header)[: end - HEADER_AT] + data[end:]


def photograph(folder: str) -> Image:
    """The image of a folder: what is there counts as being on the disk."""
    image = Image()
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            status = os.stat(path)
            file = status.st_ino
            with open(path, "rb") as opened:
                image.files[file] = File(opened.read(), status.st_mtime_ns)
            image.names[os.path.relpath(path, folder)] = file
            image.inodes[file] = status.st_ino
    return image
