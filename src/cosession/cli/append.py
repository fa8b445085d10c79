"""`cosession append`: so that shell scripts and other languages can share a session."""

from __future__ import annotations

import sys
from typing import Any, Literal

import click

from ..blocking import BlockingSession
from ..codec import InvalidLine, parse
from ..errors import InvalidMessage
from ..records import Revision
from .options import common, durability, file_argument, join_turn, settings, writing
from .output import patience


@click.command(
    epilog="""\b
Examples:
  $ cosession append context.jsonl "What is the time?"
  $ date | cosession append context.jsonl --role assistant
  $ cosession append context.jsonl --role tool --tool-call-id c1 "12:30"
  $ cosession append context.jsonl --json < messages.jsonl

Text from standard input loses one newline at its end. With --json all messages go in together, or
none of them. The file is created if it is missing; its folder is not.
"""
)
@file_argument
@click.argument("text", required=False)
@click.option("--role", default=None, metavar="ROLE", help="Who says it.  [default: user]")
@click.option("--name", metavar="NAME", help="The name of the one who says it.")
@click.option("--tool-call-id", metavar="ID", help="The tool call that this is the result of.")
@click.option("--json", "as_json", is_flag=True, help="Read one message as JSON from each line.")
@writing
@durability
@common
def append(
    file: str,
    text: str | None,
    role: str | None,
    name: str | None,
    tool_call_id: str | None,
    as_json: bool,
    timeout: float | None,
    expect: Revision | None,
    durability: Literal["process", "power"],
) -> None:
    """Append a message, or several at once.

    TEXT is what the message says; it is read from standard input if it is `-`, or if it is
    missing and input is piped in. Prints the session's new revision, which --expect takes.
    """
    fields = {"name": name, "tool_call_id": tool_call_id}
    given = {key: value for key, value in fields.items() if value is not None}
    source = "the text given" if text not in (None, "-") else "standard input"
    content = _content(text)
    messages: list[dict[str, Any]]
    if as_json:
        if role is not None or given:
            raise click.UsageError("With --json the roles and names are those in the messages.")
        numbers, messages = _json_lines(content, source)
    else:
        messages = [{"role": role if role is not None else "user", "content": content, **given}]
        numbers = []
    if not content or not messages:
        raise click.UsageError(f"Nothing to append: {source} is empty.")
    lock_dir = settings().lock_dir
    session = BlockingSession(file, durability=durability, lock_dir=lock_dir)
    join_turn(session)
    with patience(file, lock_dir, "appending"), session:
        try:
            revision = session.append(messages, timeout=timeout, expect=expect)
        except InvalidMessage as error:
            raise _located(error, numbers, source) from error
    click.echo(str(revision))


def _content(text: str | None) -> str:
    if text is not None and text != "-":
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.UsageError("TEXT is not valid UTF-8.") from None
        return text
    if text is None and sys.stdin.isatty():
        raise click.UsageError("Say what to append: TEXT, or - to type it (Ctrl-D ends it).")
    data: bytes = sys.stdin.buffer.read()
    try:
        content = data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"Standard input is not UTF-8 at its byte {error.start}; nothing was written."
        ) from None
    return content.removesuffix("\n").removesuffix("\r")


def _json_lines(content: str, source: str) -> tuple[list[int], list[dict[str, Any]]]:
    """The messages, and the number of the line that each was on."""
    numbers, messages = [], []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse(line.encode())
        except InvalidLine as error:
            raise InvalidMessage(f"{source}, line {number}: {error}") from error
        if not isinstance(value, dict):
            raise InvalidMessage(f"{source}, line {number}: not an object")
        numbers.append(number)
        messages.append(value)
    return numbers, messages


def _located(error: InvalidMessage, numbers: list[int], source: str) -> InvalidMessage:
    if error.index is None or not numbers:
        return InvalidMessage(error.reason)
    return InvalidMessage(f"{source}, line {numbers[error.index]}: {error.reason}")
