"""Coverage-guided fuzzing of the pure modules: `python harness.py TARGET [libFuzzer's options]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports():
    from cosession.codec import InvalidLine, classify, parse
    from cosession.header import Appending, Span, spans_size, unpack
    from cosession.repair import Splice, plan_repair
    from cosession.state import State


def line(data: bytes) -> None:
    classify(data.replace(b"\n", b""))
    try:
        value = parse(data)
    except InvalidLine:
        return
    assert repr(value) == repr(json.loads(data.decode(), strict=False))


def fold(data: bytes) -> None:
    if not data:
        return
    at, data = data[0], data[1:] + b"\n"
    whole = State().fold(data)
    cut = data.find(b"\n", at % len(data)) + 1
    pieces = State().fold(data[:cut]).fold(data[cut:])
    assert whole.marks == pieces.marks
    assert whole.position == pieces.position == len(data)
    assert whole.log.lines == pieces.log.lines


def header(data: bytes) -> None:
    for head in (data, b"cosessn1" + data):
        assert spans_size(head) == 0 or unpack(head, data) is None


def repair(data: bytes) -> None:
    ours, _, tail = data.partition(b"\xff")
    spans = tuple(Span.of(record + b"\n") for record in ours.split(b"\n"))
    plan = plan_repair(Appending(0, spans), tail)
    if isinstance(plan, Splice):
        edges = [edge for cut in plan.cuts for edge in cut]
        assert edges == sorted(set(edges))
        assert edges[0] >= 0
        assert edges[-1] <= len(tail)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "line": line,
    "fold": fold,
    "header": header,
    "repair": repair,
}

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
