"""Rows onto standard output: in colours where they are wanted, and with what it can print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..codec import Broken, MessageLine
from ..inspect import Line
from ..records import Damage
from .conversation import ASCII_GLYPHS, Glyphs, Item, Row
from .output import can_print, decorated

Writer = Callable[[Iterable[Row]], str]

_STYLES = {
    "user": "bold green",
    "assistant": "bold cyan",
    "tool": "bold yellow",
    "system": "bold magenta",
    "other": "bold",
    "call": "yellow",
    "result": "",
    "thought": "italic dim",
    "fold": "dim italic",
    "damaged": "bold red",
    "event": "bold blue",
}


def item_of(line: Line) -> Item | None:
    """The record on a line of the file; `None` if the line is blank."""
    match line.record:
        case Broken(reason):
            return Damage(line.offset, len(line.raw), reason)
        case MessageLine():
            return line.message
        case record:
            return record


def glyphs() -> Glyphs:
    """The signs that standard output can show."""
    return Glyphs() if can_print("→·✗…─") else ASCII_GLYPHS


def painter() -> Writer:
    """What turns rows into text for standard output."""
    return _coloured() if decorated() else _plain


def _plain(rows: Iterable[Row]) -> str:
    return "".join(row.text + "\n" for row in rows)


def _coloured() -> Writer:
    from rich.console import Console
    from rich.text import Text
    from rich.theme import Theme

    console = Console(theme=Theme(_STYLES), highlight=False, force_terminal=True)

    def wrapped(row: Row) -> Iterator[Text]:
        text = Text()
        for part, style in row.parts:
            text.append(part, style)
        for line in text.wrap(console, max(20, console.width - row.indent), overflow="fold"):
            line.rstrip()
            yield Text(" " * row.indent).append_text(line)

    def write(rows: Iterable[Row]) -> str:
        with console.capture() as capture:
            for row in rows:
                for line in wrapped(row):
                    console.print(line, no_wrap=True, overflow="ignore", crop=False)
        return capture.get()

    return write
