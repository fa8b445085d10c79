"""`cosession show`: the conversation, to be read by people, or as JSON Lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ..codec import InvalidLine, parse
from ..inspect import Inspection, Line
from .conversation import Conversation
from .exits import Exit
from .options import common, file_argument, settings
from .output import Progress, complain, decorated, write_json
from .paint import glyphs, item_of, painter


@click.command(
    epilog="""\b
Examples:
  $ cosession show context.jsonl
  $ cosession show --last 2 --full context.jsonl
  $ cosession show --json context.jsonl | head -n 1

On a terminal the conversation is paged with $PAGER, or less. NO_COLOR=1 leaves out the colours.
It works while others write, on rotated files too (context_1.jsonl), and never changes anything.
"""
)
@file_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N messages.")
@click.option("--full", is_flag=True, help="Unfold tool calls, their results, thoughts, prompts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line of the file.")
@click.option("--revision", is_flag=True, help="Print only the revision, as --expect takes it.")
@click.option("--pager/--no-pager", default=None, help="Page it or not, whatever the output is.")
@common
def show(
    file: str, last: int | None, full: bool, as_json: bool, revision: bool, pager: bool | None
) -> None:
    """Show the conversation.

    Tool calls and their results are folded; checkpoints, token counts and the system prompt are
    single lines; damaged lines are marked.
    """
    with Inspection(file, lock_dir=settings().lock_dir, patience=0.02) as inspection:
        if revision:
            _show_revision(inspection)
            return
        start = inspection.start_of_last(last) if last else 0
        with Progress("reading", inspection.stop, wanted=not sys.stdout.isatty()) as progress:
            lines = _visible(inspection, inspection.lines(start=start, progress=progress))
            if as_json:
                for line in lines:
                    write_json(_as_json(line))
            else:
                _print(_written(lines, full), pager)
        if inspection.stop == 0:
            complain(f"{inspection.path}: nothing is in it yet")
        hidden = inspection.stop - inspection.readable
        if hidden and not _last_line_shows(inspection):
            complain(
                f"{inspection.path}: {hidden} bytes of an unfinished write are not shown",
                hint="`cosession verify` tells more; `cosession heal` settles it",
            )


def _show_revision(inspection: Inspection) -> None:
    if inspection.revision is None:
        complain(
            f"{inspection.path}: its revision isn't known, since it was written or left behind "
            "without cosession",
            hint="`cosession heal` settles that",
        )
        click.get_current_context().exit(Exit.OFF)
    click.echo(str(inspection.revision))


def _last_line_shows(inspection: Inspection) -> bool:
    """Whether what readers don't see is just a last line without a newline."""
    return any(finding.code == "open-line" for finding in inspection.findings)


def _visible(inspection: Inspection, lines: Iterator[Line]) -> Iterator[Line]:
    open_line = _last_line_shows(inspection)
    return (line for line in lines if open_line or not line.pending)


def _as_json(line: Line) -> dict[str, object]:
    entry: dict[str, object] = {"offset": line.offset, "kind": line.kind}
    if line.reason:
        entry["reason"] = line.reason
    try:
        entry["record"] = _strict(line.raw)
    except ValueError:
        entry["raw"] = line.raw.decode(errors="backslashreplace")
    return entry


def _strict(raw: bytes) -> Any:
    """The value of a line, if it can be written as JSON again.

    Raises:
        ValueError: It is blank or can't (NaN, nested too deeply, not JSON).
    """
    import json

    value = parse(raw.removeprefix(b"\xef\xbb\xbf"))
    if b"NaN" in raw or b"Infinity" in raw:
        json.dumps(value, allow_nan=False)
    if raw.count(b"[") + raw.count(b"{") > 200:
        try:
            json.dumps(value)
        except RecursionError as error:
            raise InvalidLine("nested too deeply") from error
    return value


# ---- onto the terminal ----------------------------------------------------------------------


def _written(lines: Iterable[Line], full: bool) -> Iterator[str]:
    conversation, write = Conversation(full=full, glyphs=glyphs()), painter()
    first = True
    for line in lines:
        item = item_of(line)
        if item is None:
            continue
        rows = list(conversation.rows(item, line.raw, pending=line.pending))
        if first and rows:
            first = False
            if not rows[0].text:
                del rows[0]
        if rows:
            yield write(rows)


def _print(chunks: Iterator[str], pager: bool | None) -> None:
    if pager is None:
        pager = sys.stdin.isatty() and sys.stdout.isatty()
    if not pager:
        for chunk in chunks:
            click.echo(chunk, nl=False, color=decorated())
        return
    # As git has it: leave at once if it fits on the screen, pass colours, keep the screen.
    flags = os.environ.setdefault("LESS", "-FRX")
    words = os.environ.get("PAGER", "less").split()
    is_less = bool(words) and os.path.basename(words[0]).startswith("less")
    coloured = decorated() and (not is_less or "r" in flags.lower())
    click.echo_via_pager(chunks, color=coloured)
