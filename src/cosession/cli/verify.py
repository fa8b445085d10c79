"""`cosession verify`: what is in the file, line by line, and what is not as it should be."""

from __future__ import annotations

import sys
from collections import Counter

import click

from ..codec import Checkpoint, SystemPrompt, Usage
from ..findings import Finding
from ..inspect import Inspection, Line
from .exits import Exit
from .options import common, file_argument, settings
from .output import Progress, decorated, printable, write_json


@click.command(
    epilog="""\b
Examples:
  $ cosession verify context.jsonl
  $ cosession verify --quiet context.jsonl && echo fine
  $ cosession verify --json context.jsonl | tail -n 1

A line is `ok`, `damaged` (it can't be used: it stays in the file and is skipped), or `pending`
(readers don't see it: part of an unfinished write, or not ended by a newline yet).

The exit status is 0 if nothing is off, and 1 if a line is damaged or pending, or if something was
left behind that `cosession heal` would settle.
"""
)
@file_argument
@click.option("-q", "--quiet", is_flag=True, help="Leave out the lines that are ok.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object for each line, then a summary."
)
@common
def verify(file: str, quiet: bool, as_json: bool) -> None:
    """Check every line, and look for leftovers.

    Takes no lock, changes nothing, and works while others write.
    """
    kinds: Counter[str] = Counter()
    states: Counter[str] = Counter()
    with Inspection(file, lock_dir=settings().lock_dir) as inspection:
        listed = not quiet and sys.stdout.isatty()
        with Progress("checking", inspection.stop, wanted=not listed) as progress:
            for line in inspection.lines(progress=progress):
                kinds[line.kind] += 1
                states[line.state] += 1
                if not quiet or line.state != "ok":
                    _print_line(line, as_json)
    off = bool(
        states["damaged"]
        or states["pending"]
        or any(finding.problem for finding in inspection.findings)
    )
    if as_json:
        _print_json_summary(inspection, kinds, states, off)
    else:
        _print_summary(inspection, kinds, states, off)
    if off:
        click.get_current_context().exit(Exit.OFF)


def _print_line(line: Line, as_json: bool) -> None:
    if as_json:
        entry: dict[str, object] = {
            "line": line.number,
            "offset": line.offset,
            "length": len(line.raw),
            "state": line.state,
            "kind": line.kind,
        }
        if line.reason:
            entry["reason"] = line.reason
        write_json(entry)
        return
    colour = {"ok": None, "damaged": "red", "pending": "yellow"}[line.state]
    state = click.style(f"{line.state:<8}", fg=colour, bold=colour is not None)
    click.echo(
        f"line {line.number:<6} offset {line.offset:<10} {state} {_what(line)}", color=decorated()
    )


def _what(line: Line) -> str:
    match line.record:
        case SystemPrompt(text):
            return f"system prompt, {len(text)} characters"
        case Usage(count):
            return f"usage, {count} tokens"
        case Checkpoint(number):
            return f"checkpoint {number}"
    if line.message is not None:
        role = printable(line.message.role).replace("\n", " ")[:40]
        return f"message, {role}, {len(line.raw)} bytes"
    if line.reason:
        return f"{len(line.raw)} bytes: {printable(line.reason)}"
    return f"{line.kind}, {len(line.raw)} bytes"


def _print_summary(
    inspection: Inspection, kinds: Counter[str], states: Counter[str], off: bool
) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    click.echo(
        f"{printable(inspection.path)}: {kinds.total()} lines, {inspection.size} bytes"
        + (f" ({counts})" if counts else "")
    )
    if inspection.revision is not None:
        click.echo(f"revision {inspection.revision}")
    for finding in inspection.findings:
        click.echo(describe(finding), color=decorated())
    for state in ("damaged", "pending"):
        if states[state]:
            click.echo(f"{states[state]} {state} line(s)")
    verdict = click.style("something is off", fg="red") if off else "nothing is off"
    click.echo(verdict, color=decorated())


def describe(finding: Finding) -> str:
    """A finding in one line, with what `heal` does about it."""
    sign = click.style("off:", fg="yellow") if finding.problem else "note:"
    remedy = f" (heal: {finding.remedy})" if finding.remedy else ""
    return f"{sign} {printable(finding.text + remedy)}"


def _print_json_summary(
    inspection: Inspection, kinds: Counter[str], states: Counter[str], off: bool
) -> None:
    write_json(
        {
            "summary": {
                "path": inspection.path,
                "bytes": inspection.size,
                "lines": kinds.total(),
                "revision": str(inspection.revision) if inspection.revision else None,
                "kinds": dict(sorted(kinds.items())),
                "states": {state: states[state] for state in ("ok", "damaged", "pending")},
                "findings": [
                    {
                        "code": finding.code,
                        "text": finding.text,
                        "remedy": finding.remedy,
                        "problem": finding.problem,
                    }
                    for finding in inspection.findings
                ],
                "off": off,
            }
        }
    )
