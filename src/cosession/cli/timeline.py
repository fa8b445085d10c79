"""`cosession timeline`: who waited for whom, from a trace of waits and holds."""

from __future__ import annotations

from collections.abc import Callable

import click

from .. import files
from .contention import Figures, Times, table, waited_for
from .exits import Exit
from .options import common
from .output import complain, decorated, printable, write_json, write_path
from .spans import Lock, Span, Terminal, Trace
from .trace_reader import read_trace

_TITLES: dict[Lock, str] = {"turn": "turns", "commit": "commits"}


@click.command(
    epilog="""\b
Examples:
  $ export COSESSION_TRACE="$PWD/trace.jsonl"
  $ cosession append context.jsonl "What is the time?"
  $ cosession timeline trace.jsonl
  $ cosession timeline trace.jsonl --svg timeline.svg

Times are in milliseconds. p99 is what 99 of 100 waits or holds did not exceed; held is the share
of the time during which somebody had the lock. What was cut short (its process was killed, or it
still goes on) is drawn up to where it is known, and counts for held only. Lines of the trace that
can't be used are left out, and counted.

The exit status is 1 if there is nothing in the trace.
"""
)
@click.argument("trace", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "-o", "--svg", type=click.Path(dir_okay=False), metavar="FILE", help="Draw it into this file."
)
@click.option("--session", metavar="PATH", help="Only what is about this session.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object.")
@common
def timeline(trace: str, svg: str | None, session: str | None, as_json: bool) -> None:
    """Show who waited for whom, and how long, from a trace.

    A trace is what programs write while COSESSION_TRACE names a file: when they waited for a
    session's turn or for its lock, and when they had it.
    """
    with open(trace, "rb") as lines:
        found = read_trace(lines)
    if session is not None:
        found = _only(found, session)
    if as_json:
        write_json(_as_json(found))
    else:
        _print(trace, found)
    if not found.spans:
        click.get_current_context().exit(Exit.OFF)
    if svg is not None:
        from .timeline_svg import render

        with open(svg, "w", encoding="utf-8", newline="\n") as picture:
            picture.write(render(found))
        if not as_json:
            write_path(svg)


def _only(trace: Trace, session: str) -> Trace:
    resolved = files.resolve(session)
    if resolved not in trace.sessions:
        known = ", ".join(trace.sessions[:5]) or "none"
        raise click.BadParameter(f"there is nothing about it in the trace, but about {known}")
    return trace.of(resolved)


# ---- for people -------------------------------------------------------------------------------


def _print(path: str, trace: Trace) -> None:
    length = (trace.stop - trace.start) / 1e6
    click.echo(
        f"{printable(path)}: {trace.events} events of {_count(trace.terminals, 'terminal')} "
        f"on {_count(trace.sessions, 'session')} in {length:.3g} s"
    )
    for count, what in ((trace.torn, "torn"), (trace.foreign, "no event of a trace")):
        if count:
            complain(f"{path}: {count} line(s) left out: {what}")
    for lock, rows in table(trace).items():
        click.echo()
        _print_table(lock, rows, max(1, trace.stop - trace.start))
        _print_longest(rows[None])


def _count(things: tuple[object, ...], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _print_table(lock: Lock, rows: dict[Terminal | None, Figures], length: int) -> None:
    columns: list[tuple[str, Callable[[Figures], str]]] = [
        ("waits", lambda f: str(f.waits.count)),
        ("median", lambda f: _ms(f.waits, f.waits.median)),
        ("p99", lambda f: _ms(f.waits, f.waits.p99)),
        ("max", lambda f: _ms(f.waits, f.waits.longest)),
        ("gave up", lambda f: str(f.gave_up or "")),
        ("holds", lambda f: str(f.holds.count)),
        ("median", lambda f: _ms(f.holds, f.holds.median)),
        ("p99", lambda f: _ms(f.holds, f.holds.p99)),
        ("max", lambda f: _ms(f.holds, f.holds.longest)),
        ("held", lambda f: f"{f.held / length:.1%}"),
        ("cut short", lambda f: str(f.cut_short or "")),
    ]
    everything = rows[None]
    if not everything.gave_up:
        del columns[4]
    if not everything.cut_short:
        del columns[-1]
    if lock == "commit":
        columns.append(("ops/pass", lambda f: f"{f.operations / f.passes:.2f}" if f.passes else ""))
    texts = [[_TITLES[lock], *(name for name, _ in columns)]]
    for terminal, figures in rows.items():
        name = terminal.name if terminal else "all"
        texts.append([printable(name), *(column(figures) for _, column in columns)])
    widths = [max(map(len, cells)) for cells in zip(*texts, strict=True)]
    for number, cells in enumerate(texts):
        name, *values = cells
        padded = [v.rjust(w) for v, w in zip(values, widths[1:], strict=True)]
        line = "  ".join([name.ljust(widths[0]), *padded]).rstrip()
        bold = number in (0, len(texts) - 1)
        click.echo(click.style(line, bold=True) if bold else line, color=decorated())


def _print_longest(figures: Figures) -> None:
    wait = figures.longest_wait
    if figures.passes:
        click.echo(
            f"operations: {figures.operations}, in {figures.passes} passes of at most "
            f"{figures.most}; {figures.size} bytes"
        )
    if wait is None:
        return
    click.echo(f"longest wait: {printable(wait.terminal.name)}, {wait.length / 1e3:.3f} ms")
    for holder, share in figures.holders.items():
        click.echo(f"  {share / 1e3:.3f} ms of it for {printable(holder.name)}")
    rest = wait.length - sum(figures.holders.values())
    if rest * 100 > wait.length:
        click.echo(f"  {rest / 1e3:.3f} ms of it while nobody in the trace had it")


def _ms(times: Times, microseconds: int) -> str:
    return f"{microseconds / 1e3:.3f}" if times.count else ""


# ---- for programs -----------------------------------------------------------------------------


def _as_json(trace: Trace) -> dict[str, object]:
    length = trace.stop - trace.start
    return {
        "events": trace.events,
        "torn": trace.torn,
        "foreign": trace.foreign,
        "start": trace.start / 1e6,
        "seconds": length / 1e6,
        "sessions": list(trace.sessions),
        "terminals": [
            {"by": t.by, "pid": t.pid, "name": t.name, "terminal": t.tty, "host": t.host}
            for t in trace.terminals
        ],
        "locks": {
            lock: {
                "all": _figures_as_json(rows[None], length),
                "terminals": {
                    terminal.by: _figures_as_json(figures, length)
                    for terminal, figures in rows.items()
                    if terminal
                },
                "waited_for": [
                    {"waiter": waiter.by, "holder": holder.by, "ms": share / 1e3}
                    for (waiter, holder), share in waited_for(trace, lock).items()
                ],
            }
            for lock, rows in table(trace).items()
        },
    }


def _figures_as_json(figures: Figures, length: int) -> dict[str, object]:
    return {
        "waits": _times_as_json(figures.waits) | {"gave_up": figures.gave_up},
        "holds": _times_as_json(figures.holds) | {"held": figures.held / max(1, length)},
        "cut_short": figures.cut_short,
        "passes": figures.passes,
        "operations": figures.operations,
        "most_operations": figures.most,
        "bytes": figures.size,
        "longest_wait": _wait_as_json(figures.longest_wait, figures.holders),
    }


def _times_as_json(times: Times) -> dict[str, object]:
    return {
        "count": times.count,
        "median_ms": times.median / 1e3,
        "p99_ms": times.p99 / 1e3,
        "max_ms": times.longest / 1e3,
    }


def _wait_as_json(wait: Span | None, holders: dict[Terminal, int]) -> dict[str, object] | None:
    if wait is None:
        return None
    return {
        "terminal": wait.terminal.by,
        "session": wait.session,
        "start": wait.start / 1e6,
        "ms": wait.length / 1e3,
        "holders": [{"terminal": t.by, "ms": share / 1e3} for t, share in holders.items()],
    }
