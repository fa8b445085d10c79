"""What becomes of an append that was announced and not finished."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosession.header import Appending, Span
from cosession.repair import Adopt, Cut, Splice, plan_repair

bounded = settings(max_examples=150, deadline=None, derandomize=True)

ours = st.lists(
    st.binary(max_size=12).map(lambda body: b"o" + body.replace(b"\n", b" ") + b"\n"),
    min_size=1,
    max_size=5,
    unique=True,
)
foreign = st.lists(
    st.binary(max_size=12).map(lambda body: b"f" + body.replace(b"\n", b" ") + b"\n"), max_size=3
).map(b"".join)


def announced(records: list[bytes]) -> Appending:
    return Appending(100, tuple(map(Span.of, records)))


def without(tail: bytes, cuts: tuple[tuple[int, int], ...]) -> bytes:
    """The tail without these pieces of it."""
    for start, stop in reversed(cuts):
        tail = tail[:start] + tail[stop:]
    return tail


def mended(intent: Appending, tail: bytes) -> bytes:
    """What is left of the tail when the plan is carried out."""
    match plan_repair(intent, tail):
        case Cut():
            return b""
        case Splice(cuts):
            return without(tail, cuts)
        case _:
            return tail


@bounded
@given(ours, foreign, foreign)
def test_complete_records_stay_wherever_they_came_to_lie(
    records: list[bytes], before: bytes, behind: bytes
) -> None:
    """All of ours between foreign lines: nothing is touched."""
    tail = before + b"".join(records) + behind
    assert plan_repair(announced(records), tail) == Adopt()


@bounded
@given(ours, st.data())
def test_an_unfinished_write_of_ours_alone_is_cut(
    records: list[bytes], data: st.DataObject
) -> None:
    """Any real part of our bytes, from the first one on, and nothing else: all of it goes."""
    whole = b"".join(records)
    part = whole[: data.draw(st.integers(1, len(whole) - 1))]
    assert mended(announced(records), part) == b""


@bounded
@given(ours, foreign, st.integers(0, 80))
def test_foreign_lines_behind_an_unfinished_write_stay(
    records: list[bytes], behind: bytes, length: int
) -> None:
    """Whole records of ours are taken out, and of the foreign bytes none."""
    whole = b"".join(records)
    part = whole[: min(length, len(whole) - 1)]
    if not behind or not part:
        return
    left = mended(announced(records), part + behind)
    assert left.endswith(behind)
    rest = left.removesuffix(behind)
    assert b"\n" not in rest, "a whole record of an unfinished operation is still there"
    assert not rest or part.endswith(rest)


@bounded
@given(ours, foreign, st.data())
def test_foreign_lines_before_an_unfinished_write_stay(
    records: list[bytes], before: bytes, data: st.DataObject
) -> None:
    """A foreign line that came first keeps every byte; of ours no whole record is left."""
    if not before:
        return
    whole = b"".join(records)
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    left = mended(announced(records), before + part)
    assert left.startswith(before)
    assert b"\n" not in left.removeprefix(before)


@bounded
@given(ours, foreign, foreign, st.data())
def test_foreign_lines_on_both_sides_stay(
    records: list[bytes], before: bytes, behind: bytes, data: st.DataObject
) -> None:
    """The operation is whole or absent, and the foreign lines stay, in their order."""
    whole = b"".join(records)
    length = data.draw(st.integers(0, len(whole)))
    left = mended(announced(records), before + whole[:length] + behind)
    assert left.startswith(before)
    assert left.endswith(behind)
    middle = left[len(before) : len(left) - len(behind)] if before + behind != left else b""
    if length == len(whole):
        assert middle == whole
    elif before or behind:
        assert b"\n" not in middle
    else:
        assert middle == b""


@bounded
@given(ours, st.binary(max_size=60))
def test_bytes_that_are_not_ours_are_never_taken_out_of_a_line(
    records: list[bytes], other: bytes
) -> None:
    """Whatever is there: what goes is a prefix without a newline, or whole records of ours."""
    tail = other.replace(b"o", b"x")
    match plan_repair(announced(records), tail):
        case Cut():
            # An open line shorter than ours can't be told from the beginning of ours.
            assert b"\n" not in tail
            assert len(tail) < len(b"".join(records))
        case plan:
            assert plan == Adopt()


def test_a_hole_that_a_power_cut_left_is_taken_out() -> None:
    """The second record stands in its place and the first is zeros: both go."""
    records = [b"o first\n", b"o second\n"]
    assert mended(announced(records), bytes(8) + records[1]) == b""


def test_an_end_that_a_power_cut_left_as_zeros_is_cut() -> None:
    """The file has its length already, and zeros where the last records never got."""
    records = [b'{"role":"user","content":"one"}\n', b'{"role":"user","content":"two"}\n']
    intent = Appending(0, tuple(map(Span.of, records)))
    whole = b"".join(records)
    for kept in range(len(whole)):
        tail = whole[:kept].ljust(len(whole), b"\0")
        assert plan_repair(intent, tail) == Cut(), kept
    assert plan_repair(intent, whole) == Adopt()


def test_records_that_are_equal_are_not_mistaken_for_a_hole() -> None:
    """A foreign line as long as our first record, then that record: not a hole, but a line."""
    ours, theirs = b"o same\n", b"f else\n"
    intent = announced([ours, ours])
    assert mended(intent, theirs + ours) == theirs
    assert mended(intent, theirs + ours + theirs) == theirs + theirs


def test_nothing_there_means_nothing_to_do() -> None:
    """A process that died right behind its announcement wrote nothing."""
    assert plan_repair(announced([b"o\n"]), b"") == Adopt()


open_line = st.binary(min_size=1, max_size=12).map(lambda body: b"f" + body.replace(b"\n", b" "))


@bounded
@given(ours, foreign, open_line, foreign, st.data())
def test_records_that_were_glued_to_an_open_line_go_with_all_others(
    records: list[bytes], before: bytes, half: bytes, behind: bytes, data: st.DataObject
) -> None:
    """Somebody had left a line open: the first record is its end, and no other one may stay."""
    whole = b"".join(records)
    ends = [len(b"".join(records[: count + 1])) for count in range(len(records))]
    part = whole[: data.draw(st.sampled_from(ends))]
    left = mended(announced(records), before + half + part + behind)
    assert left == before + half + behind


@bounded
@given(ours, st.lists(st.one_of(foreign, open_line), min_size=6, max_size=6))
def test_records_with_others_lines_between_them_all_go(
    records: list[bytes], between: list[bytes]
) -> None:
    """Several writes, and another program's between them: all of ours go, and nothing of theirs."""
    pieces = [piece for pair in zip(between, records, strict=False) for piece in pair]
    tail = b"".join(pieces)
    assume(b"".join(records) not in tail)
    left = mended(announced(records), tail)
    assert left == b"".join(between[: len(records)])
