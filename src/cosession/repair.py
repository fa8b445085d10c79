"""What to do with an append that somebody announced and did not finish. Pure.

The announcing process died (or its write failed) after it wrote none, some or all of its bytes.
Programs that take no lock may have appended before, between or behind. Records are whole or
absent, and a foreign byte is never cut, so the bytes are matched against the announced checksums
instead of trusting their place.
"""

from __future__ import annotations

from zlib import crc32

from .header import Appending
from .values import value


@value
class Adopt:
    """Everything there may stay: our bytes are complete, or none of them are there."""


@value
class Cut:
    """From the intent's start on, all of it is the unfinished part of our write."""


@value
class Splice:
    """These of the tail's bytes are whole records of our unfinished write; the rest is foreign."""

    cuts: tuple[tuple[int, int], ...]
    """From where to where each piece goes, in their order; at least one."""


RepairPlan = Adopt | Cut | Splice


def plan_repair(intent: Appending, tail: bytes) -> RepairPlan:
    """Decide about `tail`, the data file's bytes from `intent.start` to its end."""
    if not tail:
        return Adopt()
    if _has_gap(intent, tail):
        return Cut() if len(tail) <= intent.length else Splice(((0, intent.length),))
    start, matched, stop = _locate(intent, tail)
    if matched == len(intent.spans):
        return Adopt()
    rest = tail[stop:]
    # After a power cut it may have its length already, with zeros where its end never got.
    unfinished = len(tail) < intent.length or (len(tail) == intent.length and rest[-1:] == b"\0")
    ours_to_the_end = start == 0 and b"\n" not in rest and unfinished
    if ours_to_the_end:
        return Cut()
    cuts = _whole_records(intent, tail)
    return Splice(cuts) if cuts else Adopt()


def _has_gap(intent: Appending, tail: bytes) -> bool:
    """Whether a record of ours stands in its place behind one that doesn't.

    A power cut does that: the file is as long as it was to be, and some of it never got there.
    """
    at, missing = 0, False
    for span in intent.spans:
        piece = tail[at : at + span.length]
        if crc32(piece) != span.checksum:
            missing = missing or b"\0" in piece  # what never got there reads as zeros
        elif missing:
            return True
        at += span.length
    return False


def _locate(intent: Appending, tail: bytes) -> tuple[int, int, int]:
    """The best place of our bytes in the tail: (start, whole records matched, stop)."""
    best = (0, 0, 0)
    at = 0
    while at < len(tail):
        stop, matched = at, 0
        for span in intent.spans:
            if crc32(tail[stop : stop + span.length]) != span.checksum:
                break
            stop, matched = stop + span.length, matched + 1
        if matched > best[1]:
            best = (at, matched, stop)
        if matched == len(intent.spans):
            break
        newline = tail.find(b"\n", at)
        if newline < 0:
            break
        at = newline + 1
    return best


def _whole_records(intent: Appending, tail: bytes) -> tuple[tuple[int, int], ...]:
    """Where records of ours stand, whole, in their order; those that touch are one piece.

    Each is a line of its own, or the end of one that another program had left open: it got there
    between two writes of ours, or before the first.
    """
    numbers: dict[tuple[int, int], list[int]] = {}
    for number, span in enumerate(intent.spans):
        numbers.setdefault((span.length, span.checksum), []).append(number)
    cuts: list[tuple[int, int]] = []
    at = behind = 0
    while behind < len(intent.spans) and (newline := tail.find(b"\n", at)) >= 0:
        begin, at = at, newline + 1
        line, span = tail[begin:at], intent.spans[behind]
        own = [n for n in numbers.get((len(line), crc32(line)), ()) if n >= behind]
        if own:
            start, behind = begin, own[0] + 1
        elif 0 < span.length < len(line) and crc32(line[-span.length :]) == span.checksum:
            start, behind = at - span.length, behind + 1
        else:
            continue
        if cuts and cuts[-1][1] == start:
            start = cuts.pop()[0]
        cuts.append((start, at))
    return tuple(cuts)
