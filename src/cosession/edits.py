"""What an operation does to the file, decided before a byte is written. Pure.

An operation is a list of steps. Applied to a state they give an `Edit`: either bytes to append,
or the pieces of a new file, in terms of ranges of the old one that are copied verbatim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .codec import encode_checkpoint
from .errors import UnknownCheckpoint
from .state import State
from .values import value


@value
class Add:
    """Append these encoded records."""

    lines: tuple[bytes, ...]


@value
class AddCheckpoint:
    """Append a checkpoint with the next free number."""

    then: Callable[[int], tuple[bytes, ...]] | None = None
    """Encodes records that go right behind it and mention its number."""

    def lines(self, number: int) -> tuple[bytes, ...]:
        return (encode_checkpoint(number), *(self.then(number) if self.then else ()))


@value
class SetSystemPrompt:
    """Put this encoded record first, in place of any that is there."""

    line: bytes


@value
class RevertTo:
    """Drop the checkpoint and everything behind it."""

    checkpoint: int


@value
class CutTo:
    """Drop everything from this position on, which is the end of a line."""

    position: int


@value
class Clear:
    """Drop everything."""


@value
class Restore:
    """Take the beginning of another file, a rotated one, in place of everything. Stands alone."""

    source: str
    stop: int
    """How many of its bytes."""


Step = Add | AddCheckpoint | SetSystemPrompt | RevertTo | CutTo | Clear | Restore
Range = tuple[int, int]


@value
class Edit:
    """The new file as ranges of the old one and lines behind them."""

    front: bytes
    """A line in front of everything, or nothing."""
    ranges: tuple[Range, ...]
    """Bytes of the old file that stay, in order."""
    lines: tuple[bytes, ...]
    """New records at the end."""
    replaces: bool
    """Whether it takes a new file, or just an append of `lines`."""
    checkpoints: tuple[int, ...]
    state: State
    """What an append leads to; for a replacement, as much as is known without the bytes."""
    source: str = ""
    """The file that the ranges are of, if not the old one."""

    @property
    def kept(self) -> int:
        """How many bytes at the start the old and the new file have in common."""
        if self.front or self.source or not self.ranges or self.ranges[0][0] != 0:
            return 0
        return self.ranges[0][1]


def plan_edit(state: State, steps: Sequence[Step], *, path: str = "") -> Edit:
    """Work the steps out against a state.

    Raises:
        UnknownCheckpoint: A step reverts to a checkpoint that isn't there at that point.
    """
    match list(steps):
        case [Restore(source, stop)]:
            return Edit(b"", ((0, stop),), (), True, (), State(), source)
    # `draft` is the old file and the new lines behind it, as if the front never changed: offsets
    # in it are offsets in the old file up to `kept`, and in the new lines from there on.
    draft, kept = state, state.position
    front = b""
    hidden: list[Range] = []
    lines: list[bytes] = []
    checkpoints: list[int] = []

    def cut(position: int) -> None:
        nonlocal draft, kept
        draft = draft.truncated(position)
        if position <= kept:
            kept = position
            lines.clear()
            return
        at = kept
        for count, line in enumerate(lines):
            if at >= position:
                del lines[count:]
                return
            at += len(line)

    for step in steps:
        match step:
            case Add(new):
                lines += new
                draft = draft.fold(b"".join(new))
            case AddCheckpoint():
                checkpoints.append(draft.next_checkpoint)
                new = step.lines(draft.next_checkpoint)
                lines += new
                draft = draft.fold(b"".join(new))
            case SetSystemPrompt(line):
                front = line
                hidden = state.system_prompts()
            case RevertTo(number):
                offset = draft.checkpoint_offset(number)
                if offset is None:
                    raise UnknownCheckpoint(path, number, draft.checkpoints())
                cut(offset)
            case CutTo(position):
                cut(position)
            case Clear():
                front = b""
                hidden = []
                cut(0)
                draft = State()

    if state.position == 0:
        # Nothing is there to be replaced: the front is just the first line.
        if front:
            lines.insert(0, front)
            draft = state.fold(b"".join(lines))
        return Edit(b"", (), tuple(lines), False, tuple(checkpoints), draft)
    return Edit(
        front,
        tuple(_without(kept, hidden)),
        tuple(lines),
        bool(front) or kept < state.position,
        tuple(checkpoints),
        draft,
    )


def _without(stop: int, hidden: Sequence[Range]) -> list[Range]:
    """The ranges of `[0, stop)` that none of the hidden ones covers."""
    ranges: list[Range] = []
    at = 0
    for start, end in hidden:
        if start >= stop:
            break
        if at < start:
            ranges.append((at, start))
        at = end
    if at < stop:
        ranges.append((at, stop))
    return ranges
