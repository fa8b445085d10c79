"""The command: options, output, exit status."""

from __future__ import annotations

from contextlib import closing

import click

from ..exits import Exit
from ..options import common, settings
from ..output import complain, decorated, printable, write_json
from .examination import Examination
from .findings import Finding, State
from .verdict import Verdict, verdict

_COLOURS = {State.OK: "green", State.NOTE: "yellow", State.OFF: "red", State.UNKNOWN: "yellow"}


@click.command(
    epilog="""\b
Examples:
  $ cosession doctor context.jsonl || echo "don't"
  $ cosession doctor --json . || true

Each probe gets a line: it is `ok`; `note`, which is a difference worth knowing of; `off`, if a
promise does not hold there; or `unknown`, if it could not be tried. What is tried is tried by
processes of its own, in a private folder inside the folder, which is removed afterwards. The
session is only looked at.

The exit status is 0 if nothing is off, and 1 if sessions should not be shared there, if that could
not be found out, or if `cosession heal` has something to settle.
"""
)
@click.argument("path", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="After how long a probe that does not come back is given up.",
)
@common
def doctor(path: str, as_json: bool, timeout: float) -> None:
    """Find out if a folder is fit for sessions that are shared.

    PATH is a session's file, there already or not, or a folder.
    """
    examination = Examination(path, lock_dir=settings().lock_dir, patience=timeout)
    findings = []
    try:
        with closing(iter(examination)) as coming:  # type: ignore[type-var]
            for finding in coming:
                findings.append(finding)
                if not as_json:
                    _print(finding)
    finally:
        for folder in examination.left:
            complain(f"{folder} could not be removed", hint="it is the doctor's, and may go")
    judged = verdict(findings)
    if as_json:
        write_json(_as_json(examination, findings, judged))
    else:
        colour = "green" if judged.fit else "red"
        said = click.style(printable(judged.text), fg=colour, bold=True)
        click.echo(said, color=decorated())
    if judged.off:
        click.get_current_context().exit(Exit.OFF)


def _print(finding: Finding) -> None:
    state = click.style(f"{finding.state.value:<8}", fg=_COLOURS[finding.state])
    text = printable(finding.text).replace("\n", " ")
    click.echo(f"{state} {finding.probe:<12} {text}", color=decorated())


def _as_json(
    examination: Examination, findings: list[Finding], judged: Verdict
) -> dict[str, object]:
    return {
        "folder": examination.folder,
        "findings": [
            {
                "probe": finding.probe,
                "state": finding.state.value,
                "text": finding.text,
                "remedy": finding.remedy.value if finding.remedy else None,
                "figures": dict(finding.figures),
            }
            for finding in findings
        ],
        "fit": judged.fit,
        "verdict": judged.text,
    }
