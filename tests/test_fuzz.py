"""Arbitrary bytes: in a line, in a header, behind an announcement, in the files of a session."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bad import mutants
from bad.soundness import assert_memory_is_file, leftovers
from conftest import Tally
from cosession import BlockingSession, CosessionError, healing
from cosession.codec import Broken, InvalidLine, MessageLine, classify, parse
from cosession.edits import CutTo, Restore, plan_edit
from cosession.header import (
    HEADER_AT,
    HEADER_SIZE,
    Appending,
    Header,
    Identity,
    Replacing,
    Span,
    pack,
    pack_spans,
    spans_size,
    unpack,
)
from cosession.repair import Adopt, Cut, Splice, plan_repair
from cosession.state import State

mutants.plant()

bounded = settings(max_examples=150, deadline=None, derandomize=True)
few = settings(max_examples=60, deadline=None, derandomize=True)

PIECES = [
    b'{"role": "user", "content": "x"}', b'{"role":"_checkpoint","id":3}', b'{"role":"_usage",',
    b'"token_count": 7}', b'{"role": "_system_prompt", "content": "p"}', b"\n", b"\n", b"\n", b"\r",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"null", b"[[", b'"\\ud800"', b"NaN", b" ", b"{}", b"1e999",
    b'{"role": "user", "content": 5}', b'{"role": "tool", "content": null, "role": "_x"}',
]  # fmt: skip
lumps = st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=12).map(b"".join)


# ---- codec and state --------------------------------------------------------------------------


@bounded
@given(lumps)
@example(b'{"role":"user","content":"x","role":"_usage"}')
@example(b'{"role": "u\\u005f"}')
def test_any_line_is_classified_and_read_as_json_reads_it(line: bytes) -> None:
    """Nothing is raised but InvalidLine, and what is read is what `json.loads` makes of it."""
    line = line.replace(b"\n", b"")
    record = classify(line)
    try:
        value = parse(line)
    except InvalidLine:
        value = None
    else:
        assert repr(value) == repr(json.loads(line.decode(), strict=False))
    if isinstance(record, Broken):
        assert record.reason
    if isinstance(record, MessageLine) and isinstance(value, dict) and "role" in value:
        assert isinstance(value["role"], str)


def summary(state: State) -> tuple[object, ...]:
    return (
        state.position, state.message_count, state.marks, state.system_prompt, state.token_count,
        state.messages_at_usage, state.next_checkpoint, state.log.lines[: state.message_count],
        state.log.offsets[: state.message_count],
    )  # fmt: skip


@bounded
@given(lumps, st.lists(st.integers(0, 200), max_size=6))
def test_a_fold_is_the_same_wherever_it_is_split(data: bytes, splits: list[int]) -> None:
    """Folding whole lines piece by piece gives the state that folding them at once gives."""
    data += b"\n"
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    cuts = sorted({ends[number % len(ends)] for number in splits} | {len(data)})
    whole, state, start = State().fold(data), State(), 0
    for stop in cuts:
        state = state.fold(data[start:stop])
        start = stop
        assert summary(state) == summary(State().fold(data[:stop]))
        assert summary(whole.truncated(stop)) == summary(state)
    assert summary(state) == summary(whole)


# ---- header -----------------------------------------------------------------------------------

words = st.integers(0, 2**64 - 1)
spans = st.builds(Span, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
intents = (
    st.none()
    | st.builds(Appending, words, st.lists(spans, max_size=9).map(tuple))
    | st.builds(Replacing, st.builds(Identity, words, words), words)
)


@bounded
@given(st.binary(max_size=300), st.binary(max_size=90), st.booleans())
@example(head=bytes(300), table=bytes(90), magic=True)
def test_any_bytes_are_a_header_or_none(head: bytes, table: bytes, magic: bool) -> None:
    """Reading never raises, whatever the bytes claim; and claims nothing that isn't checked."""
    head = b"cosessn1" + head if magic else head
    assert unpack(head, table) is None
    assert spans_size(head) == 0


@bounded
@given(words, words, intents, words, st.binary(max_size=30))
def test_what_is_packed_is_unpacked_whatever_comes_behind_it(
    generation: int, committed: int, intent: Appending | Replacing | None, turn: int, more: bytes
) -> None:
    """`unpack` is the inverse of `pack`, and takes no more than its own bytes."""
    header = Header(generation, Identity(1, 2), committed, intent=intent, turn=turn)
    table = pack_spans(intent) if isinstance(intent, Appending) else b""
    assert unpack(pack(header) + more, table + more) == header


# ---- repair -----------------------------------------------------------------------------------

records = st.lists(
    st.sampled_from([b"a\n", b"b\n", b"ab\n", b"abc\n", b"\n"]), min_size=1, max_size=4
)
tails = st.lists(st.sampled_from([b"a", b"b", b"c", b"\n", b"\0", b"ab\n", b"f\n"]), max_size=9)


def without(tail: bytes, cuts: tuple[tuple[int, int], ...]) -> bytes:
    for start, stop in reversed(cuts):
        tail = tail[:start] + tail[stop:]
    return tail


@settings(max_examples=600, deadline=None, derandomize=True)
@given(records, tails.map(b"".join))
def test_a_repair_takes_no_foreign_byte_and_is_done_once(ours: list[bytes], tail: bytes) -> None:
    """What goes is ours by its checksum, or could be its beginning; then there is nothing left."""
    intent = Appending(0, tuple(map(Span.of, ours)))
    plan = plan_repair(intent, tail)
    match plan:
        case Cut():
            assert len(tail) <= intent.length
            cuts: tuple[tuple[int, int], ...] = ((0, len(tail)),)
        case Splice(cuts):
            edges = [edge for cut in cuts for edge in cut]
            assert edges == sorted(edges)
            assert edges[0] >= 0
            assert edges[-1] <= len(tail)
        case Adopt():
            return
    gone = b"".join(tail[start:stop] for start, stop in cuts)
    if b"\0" not in gone:
        lines = gone.splitlines(keepends=True)
        assert not lines or isinstance(plan, Cut) or lines[-1].endswith(b"\n")
        some = iter(ours)
        whole = [line for line in lines if line.endswith(b"\n")]
        assert all(line in some for line in whole), "a line went that is none of ours, or too soon"
        start = cuts[0][0]
        glued = start > 0 and tail[start - 1 : start] != b"\n"
        assert len(whole) < len(ours) or glued or len(cuts) > 1, "complete records of ours went"
    left = without(tail, cuts)
    again = plan_repair(intent, left)
    for _ in range(len(tail)):  # records that are equal may be there more than once
        if not isinstance(again, Splice):
            break
        left = without(left, again.cuts)
        again = plan_repair(intent, left)
    assert isinstance(again, Adopt | Cut)


# ---- edits ------------------------------------------------------------------------------------


@bounded
@given(lumps, st.integers(0, 50), st.integers(0, 500))
def test_cutting_and_restoring_take_what_they_say(data: bytes, line: int, stop: int) -> None:
    """`CutTo` keeps exactly the bytes before it; `Restore` takes exactly those of its source."""
    data += b"\n"
    state = State().fold(data)
    ends = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
    position = ends[line % len(ends)]
    edit = plan_edit(state, [CutTo(position)])
    assert b"".join(data[a:b] for a, b in edit.ranges) == data[:position]
    assert edit.replaces == (position < len(data))
    assert edit.kept == position
    back = plan_edit(state, [Restore("other", stop)])
    assert (back.ranges, back.source, back.replaces) == (((0, stop),), "other", True)
    assert (back.kept, back.lines, back.front) == (0, (), b"")


# ---- a session on anything --------------------------------------------------------------------


def some_lock(kind: int, rubbish: bytes, data: bytes, status: object) -> bytes:
    """A lock file: rubbish, or a header that is intact and says anything."""
    if kind == 0:
        return rubbish
    device, inode = getattr(status, "st_dev", 0), getattr(status, "st_ino", 0)
    committed = rubbish[0] if rubbish else 0
    intent: Appending | Replacing | None = None
    if kind == 2:
        intent = Appending(committed, (Span.of(data[committed:][:9]), Span(5, 5)))
    elif kind == 3:
        intent = Replacing(Identity.of(device, inode), committed)
    header = Header(len(rubbish), Identity.of(device, inode), committed, intent=intent)
    table = pack_spans(intent) if isinstance(intent, Appending) else b""
    head = bytes(HEADER_AT) + pack(header) + bytes(512 - HEADER_AT - HEADER_SIZE)
    return head + table


@few
@given(lumps, st.integers(0, 3), st.binary(max_size=600))
def test_a_session_opens_on_any_bytes_and_changes_none(
    data: bytes, kind: int, rubbish: bytes
) -> None:
    """Whatever is in file and lock: no error but ours, every byte is kept, and it can go on."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(healing, "_GRACE", 0.0)
        path = Path(folder, "context.jsonl")
        path.write_bytes(data)
        lock = some_lock(kind, rubbish, data, path.stat())
        path.with_name("context.jsonl.lock").write_bytes(lock)
        for read_only in (True, False):
            with suppress(CosessionError), BlockingSession(path, read_only=read_only) as session:
                assert_memory_is_file(session)
        torn = path.with_name("context.jsonl.torn")
        left = path.read_bytes()
        if kind != 2:  # no append was announced: nothing is ours to be taken out
            assert left in (data, data + b"\n")
        else:
            aside = b"".join(
                file.read_bytes()
                for file in [torn, *path.parent.glob("context_*")]
                if file.exists()
            )
            assert left.rstrip(b"\n") == data.rstrip(b"\n") or data.rstrip(b"\n") in left + aside
        with BlockingSession(path) as session:
            session.append({"role": "user", "content": "goes on"})
            assert_memory_is_file(session)
            assert session.history[-1].content == "goes on"
            assert session.revision.position == path.stat().st_size
            assert not leftovers(path)


@pytest.mark.deep
@pytest.mark.parametrize("target", ["line", "fold", "header", "repair"])
def test_coverage_guided_fuzzing_finds_nothing(target: str, tmp_path: Path, tally: Tally) -> None:
    """Half a minute of atheris on each target."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: `uv run --group fuzz pytest …`")
    harness = Path(__file__).parent / "fuzz" / "harness.py"
    done = subprocess.run(
        [sys.executable, harness, target, "-max_total_time=30", "-max_len=400", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    print(done.stderr[-300:])
    assert done.returncode == 0, done.stdout + done.stderr
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    assert runs, done.stderr
    tally(int(runs[1]))
