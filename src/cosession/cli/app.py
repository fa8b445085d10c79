"""The command `cosession`: its subcommands, loaded when they are called, and how it ends."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from .exits import Exit, explain, output_is_gone, table
from .options import Settings, common
from .output import complain, printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: dict[str, tuple[str, str]] = {
    "append": ("append", "Append a message, or several at once."),
    "chat": ("chat", "Talk with an agent, on a session that other terminals use too."),
    "checkpoint": ("checkpoint", "Set a mark to revert to, and print its number."),
    "clear": ("rewind", "Start over; the old file is kept."),
    "demo": (
        "demo",
        "Let several processes share one session, kill some of them, and check the result.",
    ),
    "doctor": ("doctor", "Find out if a folder is fit for sessions that are shared."),
    "fork": ("fork", "Make a new session of the beginning of one."),
    "heal": ("heal", "Settle what processes that died left behind."),
    "hold": ("hold", "Run a command inside a turn."),
    "log": ("log", "List reverts, rotated files, forks and checkpoints: the lineage."),
    "restore": ("rewind", "Bring a rotated file back: the undo of a revert."),
    "revert": ("rewind", "Go back to a checkpoint; the old file is kept."),
    "show": ("show", "Show the conversation."),
    "status": ("status", "Tell where a session stands, whose turn it is and who waits."),
    "tail": ("tail", "Show the end of the conversation, and what comes."),
    "timeline": ("timeline", "Show who waited for whom, and how long, from a trace."),
    "verify": ("verify", "Check every line, and look for leftovers."),
    "who": ("who", "Tell which terminals are on the session, and whose turn it is."),
}
"""Each subcommand's module and its short help, so that listing them imports none."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called, and ends as documented."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit status"):
            formatter.write_dl(table())
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)
        except Exception as error:  # whatever it is ends as one line
            ctx.exit(self._report(ctx, error))
        return result

    def _report(self, ctx: click.Context, error: Exception) -> Exit:
        if isinstance(error, OSError) and output_is_gone(error):
            return Exit.OUTPUT_CLOSED
        if ctx.ensure_object(Settings).debug:
            import traceback

            traceback.print_exception(error)
        failure = explain(error)
        complain(failure.text, hint=failure.hint)
        return failure.status


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`cosession COMMAND --help` tells more about each, with examples.",
)
@click.version_option(__version__, prog_name="cosession")
@common
def app() -> None:
    """Share a session file: one plain JSON Lines conversation, many processes.

    Whatever else writes to the session at the same time, records stay whole and in one order,
    and nothing that was acknowledged is lost.
    """


class _Messages(logging.Handler):
    """The library's warnings, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"cosession: {printable(record.getMessage())}", err=True)


def run() -> None:
    """Run the command and end the process."""
    for stream in (sys.stdout, sys.stderr):
        # A console that can't show a character must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    logger = logging.getLogger("cosession")
    logger.addHandler(_Messages())
    logger.propagate = False
    try:
        # A message may hold a `*` or a `$`: on Windows click would expand them otherwise.
        app.main(prog_name="cosession", windows_expand_args=False)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    finally:
        _flush()


def _flush() -> None:
    """Write out what is left, so that the interpreter need not complain when it can't."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
