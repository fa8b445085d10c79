"""`cosession demo`: the options, the folders, the exit status."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
from rich.console import Console

from ..._base import Durability
from ...blocking import BlockingSession
from .checker import check
from .display import choose, print_line, verdict
from .ledger import Ledger
from .script import BadInput, Script, load, validate
from .stage import Plan, Stage
from .terminal import PROMPT

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Folders:
    """Where a run keeps its things."""

    session: Path
    """The session's own folder: nothing else is in it."""
    scratch: Path

    def remove(self) -> None:
        """Remove everything but a session in a folder of the user's."""
        shutil.rmtree(self.scratch, ignore_errors=True)


@click.command()
@click.option(
    "--terminals",
    type=click.IntRange(2, 32),
    default=4,
    show_default=True,
    help="How many processes write into the session.",
)
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help='Conversations: JSON Lines of {"id": ..., "messages": [...]}, plain or gzip. '
    "Without it, those that come with cosession.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 3600),
    default=10.0,
    show_default=True,
    help="How long the terminals write.",
)
@click.option(
    "--kills",
    type=click.IntRange(0, 10_000),
    help="How often a terminal is killed.  [default: 3 for each terminal in 10 seconds]",
)
@click.option("--seed", type=int, help="Fixes the schedule. A random one is printed.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep the session's files in this folder, new or empty.",
)
@click.option(
    "--durability",
    type=click.Choice(["process", "power"]),
    default="process",
    show_default=True,
    help="What an acknowledged operation survives: a killed process, or also a power cut.",
)
def demo(
    terminals: int,
    source: Path | None,
    seconds: float,
    kills: int | None,
    seed: int | None,
    keep: Path | None,
    durability: str,
) -> None:
    """Let several processes share one session, kill some of them, and check the result.

    Each terminal is a process that writes conversations into one session file as fast as it can.
    One of them reverts now and then, one compacts. Some are killed in the middle of a write, and
    started again. At the end every operation that was acknowledged to a terminal is looked for in
    the files.

    The exit status is 0 if everything is as promised, 1 if anything is off, 2 if the options or
    the input are wrong, and 130 after Ctrl-C.
    """
    console = Console(highlight=False)
    script = _script(source)
    seed = random.randrange(1_000_000) if seed is None else seed
    kills = round(0.3 * terminals * seconds) if kills is None else kills
    folders = _prepare(keep, script)
    plan = Plan(
        folders.session / "context.jsonl",
        folders.scratch / "conversations.jsonl",
        terminals=terminals,
        seconds=seconds,
        kills=kills,
        seed=seed,
        durability=cast(Durability, durability),
    )
    print_line(
        console,
        f"{terminals} terminals share {plan.path} for {seconds:g} s; "
        f"{kills} of their processes will be killed (seed {seed})",
    )
    try:
        _run(console, plan, script, folders, keep)
    except KeyboardInterrupt:
        print_line(console, f"Interrupted. {_farewell(folders, keep)}", "yellow")
        sys.exit(INTERRUPTED)


def _run(
    console: Console, plan: Plan, script: Script, folders: _Folders, keep: Path | None
) -> None:
    try:
        with BlockingSession(plan.path, durability=plan.durability) as session:
            session.set_system_prompt(PROMPT)
        stage = Stage(plan)
        display = choose(console, stage, script)
        try:
            stage.play(display.show)
        finally:
            display.close()
        findings = check(plan.path, stage.ledger, script)
    except KeyboardInterrupt:
        raise
    except BaseException:
        print_line(console, f"The session's files are in {folders.session}", "red")
        raise
    problems = stage.problems + findings.problems
    verdict(console, stage, findings, problems)
    if problems:
        _write_down(stage.ledger, folders.session / "ledger.txt")
        print_line(
            console,
            f"The session's files are in {folders.session}, and in ledger.txt what the terminals "
            "were told",
        )
        if keep:
            folders.remove()
        sys.exit(1)
    if keep:
        print_line(console, f"The session's files are in {folders.session}")
    folders.remove()


def _farewell(folders: _Folders, keep: Path | None) -> str:
    folders.remove()
    what = f"the session's files are in {folders.session}" if keep else "their files are removed"
    return f"All terminals were killed; {what}."


def _script(source: Path | None) -> Script:
    try:
        script = load(source)
        validate(script)
    except BadInput as error:
        raise click.BadParameter(f"{source}: {error}", param_hint="--input") from error
    return script


def _prepare(keep: Path | None, script: Script) -> _Folders:
    if keep is not None:
        try:
            keep.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(keep.iterdir()):
                raise click.BadParameter(f"{keep}: the folder is not empty", param_hint="--keep")
        except OSError as error:
            raise click.BadParameter(f"{keep}: {error.strerror}", param_hint="--keep") from error
    scratch = Path(tempfile.mkdtemp(prefix="cosession-demo-"))
    session = keep.resolve() if keep else scratch / "session"
    session.mkdir(mode=0o700, exist_ok=True)
    (scratch / "conversations.jsonl").write_bytes(script.dump())
    return _Folders(session, scratch)


def _write_down(ledger: Ledger, path: Path) -> None:
    lines = [f"{operation!r}\n" for operation in ledger]
    with suppress(OSError):  # the verdict counts, not this
        path.write_text("".join(lines), encoding="utf-8")
