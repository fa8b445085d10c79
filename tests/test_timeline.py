"""The timeline: what is made of a trace, in figures and as a picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cosession import BlockingSession, TurnInterrupted, files
from cosession.cli.app import app
from cosession.cli.contention import covered, figures, table, waited_for
from cosession.cli.exits import Exit
from cosession.cli.spans import Index, Lock, Span, Terminal, Trace
from cosession.cli.timeline_svg import render
from cosession.cli.trace_reader import read_trace
from cosession.cli.words import duration, ticks

TESTS = Path(__file__).parent
BOUND = 120.0
CLOCK = 1_700_000_000_000_000
"""The time of day, in microseconds, at which the clocks of these traces stood at 0."""

A, B, C = (Terminal(f"{pid}-x", pid, f"chat {pid}") for pid in (1, 2, 3))


def process(pid: int, *, by: str = "", boot: str = "b1", at: int = 0, clock: int = CLOCK) -> bytes:
    """The line with which a process introduces itself."""
    facts = {"event": "process", "by": by or f"{pid}-x", "format": 1, "pid": pid, "at": at}
    return line(**facts, clock=clock, boot=boot, host="desk", user="ann", command="chat")


def event(name: str, pid: int, /, **facts: Any) -> bytes:
    return line(event=name, by=f"{pid}-x", **{"session": "/s.jsonl"} | facts)


def commit(pid: int, took: int, until: int, /, **more: Any) -> bytes:
    facts = {"operations": ["append"], "bytes": 10} | more
    return event("commit", pid, took=took, until=until, **facts)


def line(**facts: Any) -> bytes:
    return json.dumps(facts).encode() + b"\n"


def times(trace: Trace, lock: Lock, kind: str) -> list[tuple[int, int, int, str]]:
    """Whose, from when to when (as the trace's clock has it), and how it ended."""
    return [
        (span.terminal.pid, span.start - CLOCK, span.stop - CLOCK, span.ending)
        for span in trace.spans
        if (span.lock, span.kind) == (lock, kind)
    ]


def span(terminal: Terminal, lock: Lock, kind: Any, start: int, stop: int, **more: Any) -> Span:
    return Span(terminal, "/s.jsonl", lock, kind, start, stop, **more)


def traced(*spans: Span) -> Trace:
    ordered = tuple(sorted(spans, key=lambda s: s.start))
    return Trace(tuple(dict.fromkeys(s.terminal for s in ordered)), ordered, len(spans))


# ---- reading ------------------------------------------------------------------------------------


def test_events_become_waits_and_holds() -> None:
    """Both lines of a turn are one hold; a commit that waited is a wait and a hold."""
    trace = read_trace(
        [
            process(1),
            event("turn-began", 1, took=100, id=1, label="answering"),
            process(2),
            event("wait-began", 2, asked=150, id=1),
            commit(1, 160, 170),
            event("turn-ended", 1, took=100, until=300, id=1, label="answering"),
            event("wait-ended", 2, asked=150, until=310, id=1, outcome="came"),
            event("turn-ended", 2, took=305, until=320, id=2, label=""),
            commit(2, 312, 315, asked=308, operations=["append", "append"]),
            event("gave-up", 1, asked=400, until=450, operation="append"),
        ]
    )
    assert [t.name for t in trace.terminals] == ["chat 1", "chat 2"]
    assert times(trace, "turn", "hold") == [(1, 100, 300, "ended"), (2, 305, 320, "ended")]
    assert times(trace, "turn", "wait") == [(2, 150, 305, "ended")]
    assert times(trace, "commit", "hold") == [(1, 160, 170, "ended"), (2, 312, 315, "ended")]
    assert times(trace, "commit", "wait") == [(2, 308, 312, "ended"), (1, 400, 450, "gave up")]
    assert (trace.events, trace.torn, trace.foreign) == (10, 0, 0)
    assert [s.label for s in trace.spans if s.label] == ["answering"]


def test_what_is_torn_or_foreign_is_left_out_and_counted() -> None:
    """Whatever is in between, the events that are whole count."""
    trace = read_trace(
        [
            process(1),
            b"\n",
            b'{"event":"commit","by":"1-x","sess\n',
            b'{"event":"commit","by":' + event("gave-up", 1, asked=1, until=2, operation="append"),
            b"\xff\xfe\n",
            b"[" * 100_000 + b"\n",
            line(role="user", content="hi"),
            line(event="commit", by="1-x", session="/s.jsonl", took="soon", until=3),
            line(event="commit", by="1-x", session="/s.jsonl", took=10**400, until=10**401),
            event("a new one", 1, at=5),
            b"[]\n",
            commit(1, 10, 20)[:-1],
        ]
    )
    assert times(trace, "commit", "hold") == [(1, 10, 20, "ended")]
    assert times(trace, "commit", "wait") == [(1, 1, 2, "gave up")]
    assert (trace.events, trace.torn, trace.foreign) == (3, 4, 5)


def test_a_lost_introduction_loses_the_name_only() -> None:
    """The process id is in every event, and the clock is that of the others."""
    trace = read_trace([process(1), commit(2, 10, 20), commit(1, 30, 40)])
    assert times(trace, "commit", "hold") == [(2, 10, 20, "ended"), (1, 30, 40, "ended")]
    assert [t.name for t in trace.terminals] == ["chat 1", "process 2"]


def test_clocks_of_one_boot_are_one_clock() -> None:
    """Set back the time of day between two processes: their events keep their order."""
    trace = read_trace(
        [process(1), commit(1, 10, 20), process(2, clock=CLOCK - 3_600_000_000), commit(2, 30, 40)]
    )
    assert times(trace, "commit", "hold") == [(1, 10, 20, "ended"), (2, 30, 40, "ended")]


@pytest.mark.parametrize("boots", [("b1", "b2"), ("00", "00")])
def test_clocks_of_two_boots_are_compared_by_the_time_of_day(boots: tuple[str, str]) -> None:
    """After a boot the clock starts anew, and the events still come behind the earlier ones."""
    trace = read_trace(
        [
            process(1, boot=boots[0], at=5_000_000, clock=CLOCK + 5_000_000),
            commit(1, 5_000_000, 5_000_010),
            process(2, boot=boots[1], clock=CLOCK + 60_000_000),
            commit(2, 10, 20),
        ]
    )
    assert [start for _, start, _, _ in times(trace, "commit", "hold")] == [5_000_000, 60_000_010]


# ---- what has no end ----------------------------------------------------------------------------


def test_a_killed_turn_lasts_until_the_next_one_that_waited_for_it() -> None:
    """The lock came free when the process died, and at once to who waited."""
    trace = read_trace(
        [
            process(1),
            event("turn-began", 1, took=100, id=1, label=""),
            commit(1, 110, 120),
            process(2),
            event("wait-began", 2, asked=150, id=1),
            event("wait-ended", 2, asked=150, until=510, id=1, outcome="came"),
            event("turn-ended", 2, took=500, until=600, id=2, label=""),
        ]
    )
    assert times(trace, "turn", "hold") == [(1, 100, 500, "cut short"), (2, 500, 600, "ended")]


def test_a_killed_turn_that_nobody_waited_for_ends_with_the_last_sign_of_life() -> None:
    """When it ended isn't known; it was not while the process still wrote."""
    trace = read_trace(
        [
            process(1),
            event("turn-began", 1, took=100, id=1, label=""),
            commit(1, 110, 120),
            process(2),
            event("turn-ended", 2, took=900, until=950, id=1, label=""),
        ]
    )
    assert times(trace, "turn", "hold")[0] == (1, 100, 120, "cut short")


def test_what_nobody_followed_may_still_go_on() -> None:
    """The last turn and a wait for it are drawn to the end of the trace."""
    trace = read_trace(
        [
            process(1),
            event("turn-began", 1, took=100, id=1, label=""),
            process(2),
            event("wait-began", 2, asked=150, id=1),
            commit(1, 800, 810),
        ]
    )
    assert times(trace, "turn", "hold") == [(1, 100, 810, "open")]
    assert times(trace, "turn", "wait") == [(2, 150, 810, "open")]
    assert figures(trace, "turn").cut_short == 2
    assert figures(trace, "turn").waits.count == figures(trace, "turn").holds.count == 0


@pytest.mark.parametrize(("asked", "until"), [({"asked": 250}, 400), ({}, 200)])
def test_a_killed_commit_is_seen_by_the_one_that_found_it(
    asked: dict[str, int], until: int
) -> None:
    """It lasted until who waited for it got the lock; if nobody waited, how long isn't known."""
    found = {"pid": 1, "operation": "append", "since": CLOCK + 200}
    trace = read_trace(
        [
            process(1),
            commit(1, 100, 110),
            process(2),
            commit(2, 400, 420, found=found, **asked),
            commit(2, 430, 440, found=found),
        ]
    )
    assert times(trace, "commit", "hold") == [
        (1, 100, 110, "ended"),
        (1, 200, until, "cut short"),
        (2, 400, 420, "ended"),
        (2, 430, 440, "ended"),
    ]


# ---- figures ------------------------------------------------------------------------------------


def test_medians_and_percentiles_are_lengths_that_occurred() -> None:
    """Of a hundred waits of 1 to 100 µs the median is 50, and 99 did not exceed 99."""
    waits = [span(A, "commit", "wait", 1000 * n, 1000 * n + n) for n in range(1, 101)]
    found = figures(traced(*waits), "commit").waits
    assert (found.count, found.median, found.p99, found.longest) == (100, 50, 99, 100)
    one = figures(traced(waits[6]), "commit").waits
    assert (one.count, one.median, one.p99, one.longest) == (1, 7, 7, 7)


def test_who_held_during_the_longest_wait_is_found_by_the_times() -> None:
    """The parts of a wait go to those who had the lock then; what is left had nobody."""
    trace = traced(
        span(B, "turn", "hold", 0, 100),
        span(C, "turn", "hold", 110, 200),
        span(B, "turn", "hold", 200, 230),
        span(A, "turn", "wait", 60, 240),
        span(A, "turn", "hold", 240, 300),
        span(B, "turn", "wait", 250, 300),
        span(B, "commit", "hold", 60, 240),
        Span(C, "/other.jsonl", "turn", "hold", 60, 240),
    )
    found = figures(trace, "turn")
    assert found.longest_wait == span(A, "turn", "wait", 60, 240)
    assert found.holders == {C: 90, B: 40 + 30}
    assert list(found.holders) == [C, B]
    assert figures(trace, "turn", B).holders == {A: 50}
    assert waited_for(trace, "turn") == {(A, B): 70, (A, C): 90, (B, A): 50}


def test_the_share_held_counts_no_time_twice() -> None:
    """Holds of two sessions at the same time are one time."""
    trace = traced(
        span(A, "turn", "hold", 0, 100),
        Span(B, "/other.jsonl", "turn", "hold", 50, 150),
        span(B, "turn", "hold", 200, 250),
    )
    assert figures(trace, "turn").held == 200
    assert covered([(0, 10), (2, 5), (10, 12), (20, 21)]) == 13
    assert covered([]) == 0


def test_passes_and_their_operations_are_counted() -> None:
    """A look without an operation is a hold, and no pass."""
    names = ("append",)
    trace = traced(
        span(A, "commit", "hold", 0, 1),
        span(A, "commit", "hold", 2, 3, operations=names, size=10),
        span(B, "commit", "hold", 4, 5, operations=names * 4, size=70),
    )
    found = figures(trace, "commit")
    assert (found.passes, found.operations, found.most, found.size) == (2, 5, 4, 80)
    assert found.holds.count == 3


def test_the_table_has_a_row_for_each_terminal_and_one_for_all() -> None:
    """Locks that don't occur have no table."""
    trace = traced(span(A, "turn", "hold", 0, 5), span(B, "turn", "wait", 1, 5))
    rows = table(trace)
    assert list(rows) == ["turn"]
    assert list(rows["turn"]) == [A, B, None]
    assert rows["turn"][B].waits.longest == 4


def test_holds_during_a_wait_are_found_behind_a_short_one() -> None:
    """A long hold that began early isn't hidden by short ones that began later."""
    long, short = span(A, "turn", "hold", 0, 100), span(B, "turn", "hold", 10, 20)
    wait = span(C, "turn", "wait", 50, 60)
    assert Index([short, long, wait]).holders(wait) == {A: 10}


# ---- the picture --------------------------------------------------------------------------------


def parsed(trace: Trace) -> ET.Element:
    return ET.fromstring(render(trace))


def drawn(picture: ET.Element, kind: str) -> list[ET.Element]:
    return [element for element in picture.iter() if element.get("class") == kind]


def holds_in(elements: Iterable[ET.Element]) -> list[int]:
    return [int(element.get("data-holds", "0")) for element in elements]


def test_every_hold_has_a_bar() -> None:
    """Wide ones have their own, and where it was; those on one pixel share one."""
    holds = [span(A, "turn", "hold", n * 100_000, n * 100_000 + 50_000) for n in range(5)]
    tiny = [span(B, "turn", "hold", n * 10, n * 10 + 5) for n in range(7)]
    wait = span(B, "turn", "wait", 100_000, 150_000)
    picture = parsed(traced(*holds, *tiny, wait))
    assert sorted(holds_in(drawn(picture, "turn"))) == [1, 1, 1, 1, 1, 7]
    assert len(drawn(picture, "wait")) == 1
    widths = [float(bar.get("width", 0)) for bar in drawn(picture, "turn")]
    assert min(widths) >= 1
    assert widths[0] == pytest.approx(widths[1], abs=0.02)
    assert widths[0] > 50


def test_commits_are_seen_however_short_they_are() -> None:
    """Commits of microseconds beside turns of seconds: none is missing, and all can be seen."""
    commits = [
        span(A, "commit", "hold", n * 7_000, n * 7_000 + 30, operations=("append",))
        for n in range(500)
    ]
    picture = parsed(traced(span(A, "turn", "hold", 0, 4_000_000), *commits))
    assert sum(holds_in(drawn(picture, "commit"))) == 500
    for slice_ in drawn(picture, "commit"):
        assert all(
            float(part.get("height", 0)) >= 3 for part in slice_.iter() if part.get("height")
        )


def test_a_long_commit_counts_once() -> None:
    """It fills all the slices that it lasted, and is counted in its first one."""
    picture = parsed(
        traced(
            span(A, "commit", "hold", 0, 500_000, operations=("append",)),
            span(A, "commit", "wait", 500_000, 1_000_000),
        )
    )
    counts = holds_in(drawn(picture, "commit"))
    assert sum(counts) == counts[0] == 1
    assert len(counts) > 100


def test_what_was_cut_short_is_marked() -> None:
    """A cross stands where a hold without an end stops."""
    whole = traced(span(A, "turn", "hold", 0, 50), span(B, "turn", "hold", 60, 100))
    cut = traced(span(A, "turn", "hold", 0, 50, ending="cut short"), whole.spans[1])
    legend = 1
    assert len(drawn(parsed(whole), "cut")) == 0
    assert len(drawn(parsed(cut), "cut")) == 1 + legend


def test_the_picture_needs_nothing_else() -> None:
    """No scripts, no links, no files; both a light and a dark face."""
    text = render(traced(span(A, "turn", "hold", 0, 50)))
    assert "<script" not in text
    assert "href" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("start", [-(10**17), 0, CLOCK, 1 << 61])
def test_any_time_can_be_drawn(start: int) -> None:
    """Clocks that are far off make odd pictures, and no errors."""
    parsed(traced(span(A, "turn", "hold", start, start + 50)))


def test_names_are_text_whatever_is_in_them() -> None:
    """Markup, control characters and half characters in labels do no harm."""
    odd = Terminal("1-x", 1, "<b>&\x1b[31m\ud800\ufffe")
    hold = Span(odd, "/s<&>\x00.jsonl", "turn", "hold", 0, 50, label="]]> <title>\x08")
    picture = parsed(traced(hold))
    assert any("<b>&" in (element.text or "") for element in picture.iter())


def test_labels_lie_apart() -> None:
    """Twelve terminals with long names: no two lines of text on one another."""
    many = [Terminal(f"{n}", n, f"a very long name of a terminal {n}") for n in range(12)]
    picture = parsed(traced(*(span(t, "turn", "hold", n, n + 9) for n, t in enumerate(many))))
    texts = list(picture.iter("{http://www.w3.org/2000/svg}text"))
    left = sorted(float(e.get("y", 0)) for e in texts if float(e.get("x", 0)) < 100)
    assert all(b - a >= 12 for a, b in pairwise(left))
    assert all(len(e.text or "") <= 30 for e in texts if e.get("class") == "ink name")
    axis = sorted(float(e.get("x", 0)) for e in texts if e.get("text-anchor") == "middle")
    assert all(b - a >= 60 for a, b in pairwise(axis))
    assert len({e.get("fill") for e in drawn(picture, "turn")}) == 12


@pytest.mark.parametrize(
    ("length", "labels"),
    [
        (0, ["0 µs"]),
        (9, ["0 µs", "1 µs", "2 µs"]),
        (4_000, ["0.0 ms", "0.5 ms", "1.0 ms"]),
        (1_700_000, ["0.0 s", "0.2 s", "0.4 s"]),
        (12_000_000, ["0 s", "2 s", "4 s"]),
        (7_200_000_000, ["0 s", "1000 s", "2000 s"]),
    ],
)
def test_the_axis_has_round_times(length: int, labels: list[str]) -> None:
    """At most eleven, from 0 on."""
    found = ticks(length)
    assert [label for _, label in found][:3] == labels
    assert len(found) <= 11
    assert all(0 <= time <= length for time, _ in found)


def test_durations_are_short_to_read() -> None:
    """Three digits and a unit."""
    said = [duration(n) for n in (0, 999, 1_234, 56_789, 999_949, 1_500_000, 123_456_789)]
    assert said == ["0 µs", "999 µs", "1.23 ms", "56.8 ms", "1000 ms", "1.5 s", "123 s"]


WHOLE = [
    process(1),
    event("turn-began", 1, took=100, id=1, label="answering"),
    process(2),
    event("wait-began", 2, asked=150, id=1),
    event("turn-ended", 1, took=100, until=300, id=1, label="answering"),
    event("wait-ended", 2, asked=150, until=310, id=1, outcome="came"),
    commit(2, 312, 315, asked=308),
    commit(1, 400, 420, found={"pid": 2, "operation": "append", "since": CLOCK + 380}),
]


@settings(max_examples=100, deadline=None)
@given(
    order=st.lists(st.sampled_from(range(len(WHOLE))), max_size=12),
    cuts=st.lists(st.integers(0, 200), min_size=12, max_size=12),
)
def test_any_part_of_a_trace_can_be_read_and_drawn(order: list[int], cuts: list[int]) -> None:
    """Lines missing, repeated, out of order, cut off: there is a table and a picture."""
    lines = b"".join(WHOLE[n][: cut + 40] for n, cut in zip(order, cuts, strict=False))
    trace = read_trace(lines.splitlines(keepends=True))
    assert all(span.start <= span.stop for span in trace.spans)
    table(trace)
    parsed(trace)


# ---- the command --------------------------------------------------------------------------------


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["timeline", *map(str, arguments)], prog_name="cosession")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A trace of two sessions."""
    file = tmp_path / "trace.jsonl"
    other = event("turn-ended", 2, session="/other", took=1_000, until=5_000, id=9, label="")
    file.write_bytes(b"".join([*WHOLE, other, b'{"torn\n']))
    return file


def test_the_command_prints_tables(log: Path) -> None:
    """One for turns, one for commits, and who had the lock during the longest wait."""
    result = call(log)
    assert result.exit_code == 0
    assert "9 events of 2 terminals on 2 sessions" in result.stdout
    assert "1 line(s) left out: torn" in result.stderr
    assert "longest wait: chat 2, 0.160 ms\n  0.150 ms of it for chat 1" in result.stdout
    titles = [row.split()[0] for row in result.stdout.splitlines() if "median" in row]
    assert titles == ["turns", "commits"]
    assert all(len(row) <= 100 for row in result.stdout.splitlines() if "chat" in row)


def test_the_command_prints_json(log: Path) -> None:
    """The same, for programs."""
    found = json.loads(call("--json", log).stdout)
    assert (found["events"], found["torn"], found["foreign"]) == (9, 1, 0)
    turns = found["locks"]["turn"]
    assert turns["all"]["waits"] == {
        "count": 1, "gave_up": 0, "median_ms": 0.16, "p99_ms": 0.16, "max_ms": 0.16,
    }  # fmt: skip
    assert turns["all"]["longest_wait"]["holders"] == [{"terminal": "1-x", "ms": 0.15}]
    assert turns["waited_for"] == [{"waiter": "2-x", "holder": "1-x", "ms": 0.15}]
    assert turns["terminals"]["1-x"]["holds"]["count"] == 1


def test_one_session_can_be_picked(log: Path, tmp_path: Path) -> None:
    """By its path, as the trace has it; another one is a usage error that names those there are."""
    mine = files.resolve(tmp_path / "mine.jsonl")
    with log.open("ab") as file:
        file.write(
            commit(1, 2_000, 2_100)
            + event("commit", 1, session=mine, took=1, until=2, operations=[], bytes=0)
        )
    found = json.loads(call("--json", log, "--session", tmp_path / "mine.jsonl").stdout)
    assert found["sessions"] == [mine]
    assert found["locks"]["commit"]["all"]["holds"]["count"] == 1
    result = call(log, "--session", tmp_path / "unknown.jsonl")
    assert result.exit_code == Exit.USAGE
    assert "mine.jsonl" in result.stderr


def test_an_empty_trace_is_something_off(tmp_path: Path) -> None:
    """Status 1, and no picture of nothing."""
    (tmp_path / "trace.jsonl").write_text("")
    result = call(tmp_path / "trace.jsonl", "-o", tmp_path / "timeline.svg")
    assert result.exit_code == Exit.OFF
    assert not (tmp_path / "timeline.svg").exists()
    assert call(tmp_path / "missing.jsonl").exit_code == Exit.USAGE


def test_a_picture_that_cannot_be_written_is_an_error(log: Path, tmp_path: Path) -> None:
    """Nothing is left behind."""
    before = sorted(os.listdir(tmp_path))
    assert call(log, "-o", tmp_path / "missing" / "timeline.svg").exit_code == Exit.STORAGE
    assert sorted(os.listdir(tmp_path)) == before


def test_real_terminals_from_the_trace_to_the_picture(tmp_path: Path) -> None:
    """Every turn of four processes is in the figures and in the picture; a killed one shows."""
    path, log, picture = (tmp_path / name for name in ("s.jsonl", "trace.jsonl", "timeline.svg"))
    environment = os.environ | {"COSESSION_TRACE": str(log), "PYTHONPATH": str(TESTS)}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    dies = """
import os, sys
from cosession import BlockingSession
session = BlockingSession(sys.argv[1])
session.open()
with session.turn("the last one") as turn:
    turn.append({"role": "user", "content": "a"})
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", dies, path], env=environment, timeout=BOUND, check=False)
    with BlockingSession(path) as session:
        with pytest.raises(TurnInterrupted):
            session.append({"role": "user", "content": "b"})
        assert session.interrupted is not None
        session.interrupted.keep()
    command = [sys.executable, "-m", "turns.terminal", str(path)]
    terminals = [
        subprocess.Popen([*command, f"t{n}", "3", str(n), str(tmp_path / "log")], env=environment)
        for n in range(3)
    ]
    assert [terminal.wait(BOUND) for terminal in terminals] == [0, 0, 0]
    found = json.loads(call("--json", log, "-o", picture).stdout)
    assert (found["torn"], found["foreign"], len(found["terminals"])) == (0, 0, 4)
    turns, commits = found["locks"]["turn"], found["locks"]["commit"]
    by_pid = {t["pid"]: turns["terminals"][t["by"]] for t in found["terminals"]}
    assert [by_pid[t.pid]["holds"]["count"] for t in terminals] == [3, 3, 3]
    assert turns["all"]["cut_short"] == 1
    # Six appends, a beginning, an end and a token count for each turn; the killed one began.
    assert commits["all"]["operations"] == 3 * 3 * 9 + 2
    tree = ET.fromstring(picture.read_text(encoding="utf-8"))
    assert sum(holds_in(drawn(tree, "turn"))) == 10
    assert sum(holds_in(drawn(tree, "commit"))) == commits["all"]["holds"]["count"]
    trace = read_trace(log.read_bytes().splitlines(keepends=True))
    holds = [s for s in trace.spans if (s.lock, s.kind) == ("turn", "hold")]
    assert all(a.stop <= b.start for a, b in pairwise(holds))
