"""The lock file's bytes: what is written is read back, and what is damaged is not believed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosession.header import (
    CARD_AT,
    HEADER_AT,
    HEADER_SIZE,
    SPANS_AT,
    Appending,
    Header,
    Identity,
    Replacing,
    Span,
    card_tail,
    pack,
    pack_card,
    pack_spans,
    spans_size,
    unpack,
    unpack_card,
)
from cosession.records import Holder

words = st.integers(0, 2**64 - 1)
halves = st.integers(0, 2**32 - 1)
identities = st.builds(Identity, words, words)
spans = st.builds(Span, halves, halves)
appends = st.builds(Appending, words, st.lists(spans, max_size=20).map(tuple))
replaces = st.builds(Replacing, identities, words)
headers = st.builds(
    Header,
    generation=words,
    identity=identities,
    committed=words,
    kept=words,
    modified=words,
    mark_length=halves,
    mark=halves,
    boot=st.binary(min_size=16, max_size=16),
    intent=st.none() | appends | replaces,
    serial=words,
)
bounded = settings(max_examples=60, deadline=None, derandomize=True)


def read_back(header: Header) -> Header | None:
    table = pack_spans(header.intent) if isinstance(header.intent, Appending) else b""
    return unpack(pack(header), table)


@bounded
@given(headers)
def test_a_header_is_read_back_as_it_was_written(header: Header) -> None:
    """Packing and unpacking are each other's inverse."""
    assert read_back(header) == header
    assert len(pack(header)) == HEADER_SIZE
    expected = 8 * len(header.intent.spans) if isinstance(header.intent, Appending) else 0
    assert spans_size(pack(header)) == expected


@bounded
@given(headers, st.data())
def test_a_damaged_header_counts_as_none(header: Header, data: st.DataObject) -> None:
    """Any byte changed: no header, or, in the padding, the same one."""
    packed = bytearray(pack(header))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    table = pack_spans(header.intent) if isinstance(header.intent, Appending) else b""
    assert unpack(bytes(packed), table) in (None, header)


def test_every_single_bit_of_a_header_is_covered() -> None:
    """No bit can flip into another header, be it in the header or in the announced records."""
    intent = Appending(100, (Span(10, 1), Span(20, 2**32 - 1)))
    header = Header(7, Identity(1, 2), 100, 50, 3, 4, 5, bytes(range(16)), intent)
    head, table = pack(header), pack_spans(intent)
    for bit in range(len(head) * 8):
        flipped = bytearray(head)
        flipped[bit // 8] ^= 1 << bit % 8
        assert unpack(bytes(flipped), table) in (None, header), bit
    for bit in range(len(table) * 8):
        flipped = bytearray(table)
        flipped[bit // 8] ^= 1 << bit % 8
        assert unpack(head, bytes(flipped)) is None, bit


@bounded
@given(headers, headers, st.integers(0, HEADER_SIZE))
def test_a_header_read_while_it_is_written_counts_as_none(
    old: Header, new: Header, cut: int
) -> None:
    """The first part of one header before the rest of another: one of the two, or none."""
    table = pack_spans(new.intent) if isinstance(new.intent, Appending) else b""
    assert unpack(pack(new)[:cut] + pack(old)[cut:], table) in (None, old, new)


@bounded
@given(st.binary(max_size=600))
def test_rubbish_is_no_header(rubbish: bytes) -> None:
    """Whatever is in the file, it is refused, not misread."""
    assert unpack(rubbish, rubbish) is None
    assert spans_size(rubbish) == 0


@bounded
@given(headers)
def test_a_missing_part_of_the_announcement_counts_as_none(header: Header) -> None:
    """An announcement whose table ends too early is not believed."""
    if isinstance(header.intent, Appending) and header.intent.spans:
        assert unpack(pack(header), pack_spans(header.intent)[:-1]) is None


texts = st.text(max_size=40).map(lambda text: text * 7)  # longer than any place, and soon drawn
holders = st.builds(
    Holder,
    pid=st.integers(1, 2**31),
    host=texts,
    user=texts,
    terminal=texts,
    operation=texts,
    since=st.floats(0, 2**40),
    command=texts,
)


@bounded
@given(holders)
def test_a_card_fits_its_place_and_names_the_process(holder: Holder) -> None:
    """However long the names are, the card keeps its size and the process its number."""
    card = pack_card(holder.pid, holder.since, card_tail(holder))
    assert len(card) == SPANS_AT - CARD_AT
    read = unpack_card(card)
    assert read is not None
    assert read.pid == holder.pid
    assert read.since == pytest.approx(holder.since, abs=0.001)
    assert holder.operation.startswith(read.operation)


def test_a_card_is_read_back_as_it_was_written() -> None:
    """A card of ordinary size loses nothing."""
    holder = Holder(42, "host", "me", "/dev/pts/3", "append", 1234.5, "kimi")
    assert unpack_card(pack_card(42, 1234.5, card_tail(holder))) == holder


@bounded
@given(st.binary(max_size=256))
def test_a_card_that_is_rubbish_names_nobody(rubbish: bytes) -> None:
    """A card that can't be read is no reason to fail."""
    card = unpack_card(rubbish)
    assert card is None or isinstance(card.pid, int)


def test_the_places_in_the_lock_file_do_not_overlap() -> None:
    """Lock byte, header, card and announcement each have their own bytes."""
    assert 0 < HEADER_AT < HEADER_AT + HEADER_SIZE <= CARD_AT < SPANS_AT
