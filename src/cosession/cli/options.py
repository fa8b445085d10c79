"""Options and arguments that several subcommands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from .._base import SessionBase
from ..records import Revision
from .exits import TURN_VARIABLE

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What was asked for before or behind the name of the subcommand."""

    debug: bool = False
    lock_dir: str | None = None


def settings() -> Settings:
    """Those of the running command."""
    return click.get_current_context().find_root().ensure_object(Settings)


def join_turn(session: SessionBase[Any]) -> bool:
    """Have a session write in the turn of the `cosession hold` around us, if it is on that one."""
    return session.join_turn(os.environ.get(TURN_VARIABLE))


def common(command: F) -> F:
    """Add `--debug` and `--lock-dir`, which also the group itself takes."""
    command = click.option(
        "--lock-dir",
        type=click.Path(file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_keep_lock_dir,
        help="Where lock files lie, if not beside the session. Everybody on it must name the same.",
    )(command)
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_keep_debug,
        help="On an error, show the traceback as well.",
    )(command)


def _keep_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.find_root().ensure_object(Settings).debug |= value


def _keep_lock_dir(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().ensure_object(Settings).lock_dir = value


def _as_revision(ctx: click.Context, param: click.Parameter, value: str | None) -> Revision | None:
    try:
        return None if value is None else Revision.parse(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a revision, such as 3:1280.") from None


def file_argument(command: F) -> F:
    """The session's file. Whether it is there is for the session to say."""
    return click.argument("file", type=click.Path())(command)


def writing(command: F) -> F:
    """Add `--timeout` and `--expect`."""
    command = click.option(
        "--expect",
        metavar="REVISION",
        callback=_as_revision,
        help="Refuse if messages came in since this revision.",
    )(command)
    return timeout(command)


def timeout(command: F) -> F:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for other processes; 0 tries once. Without it: as long as it takes.",
    )(command)


def durability(command: F) -> F:
    return click.option(
        "--durability",
        type=click.Choice(["process", "power"]),
        default="process",
        show_default=True,
        help="What the change survives: a kill, or also a power cut.",
    )(command)
