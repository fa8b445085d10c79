"""The terminal that the chat is on: where lines come from, and text goes to.

1. On a terminal, with prompt_toolkit installed (`pip install cosession[chat]`), a line editor: what
   comes in is written above the prompt, and half-typed text stays.
2. Otherwise plain lines: a thread reads the standard input, and text is written as it comes. So it
   is in a pipe, on a terminal that can't move its cursor, and without prompt_toolkit.
3. Neither knows what a line means. What is written has been made printable before.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import click

from ..output import decorated

_READ_SIZE = 1 << 16


class Listener(Protocol):
    """Who is told what the user does."""

    def entered(self, line: str) -> None:
        """A line was entered."""

    def interrupted(self) -> None:
        """Ctrl-C was pressed."""

    def status(self) -> list[str]:
        """What is going on, in lines that change."""


class Screen(Protocol):
    """A terminal, or what stands in for one."""

    interactive: bool
    """Whether somebody sits there who can be asked."""
    shows_status: bool
    """Whether the listener's `status` is on the screen all the time."""

    async def read(self, listener: Listener) -> None:
        """Pass on what the user does, until the end of the input, or `leave`."""

    def write(self, text: str) -> None:
        """Write lines above the prompt."""

    def clear_line(self) -> bool:
        """Drop what is typed; whether anything was."""

    def restore(self, line: str) -> None:
        """Give a line back to the user, who had entered it in vain."""

    def leave(self) -> None:
        """Have `read` end. Lines that were entered before are passed on no more."""

    async def close(self) -> None:
        """Write out what is left."""


def choose(prompt: str) -> Screen:
    """The best that there is for this standard input and output."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    if interactive and not dumb and importlib.util.find_spec("prompt_toolkit"):
        from .editor import EditorScreen

        return EditorScreen(prompt)
    return PlainScreen(prompt, interactive=interactive)


class PlainScreen:
    """Lines in, lines out."""

    shows_status = False

    def __init__(self, prompt: str, *, interactive: bool) -> None:
        self.interactive = interactive
        self._prompt = prompt if interactive else ""
        self._left = asyncio.Event()
        self._lock = threading.Lock()

    async def read(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()

        def pass_on() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                for line in _lines():
                    loop.call_soon_threadsafe(self._pass_on, listener, line)
                loop.call_soon_threadsafe(self._left.set)

        # A daemon: it may be asleep in a read when the program ends.
        threading.Thread(target=pass_on, name="cosession-chat-input", daemon=True).start()
        self._show_prompt()
        await self._left.wait()

    def _pass_on(self, listener: Listener, line: str) -> None:
        if not self._left.is_set():
            listener.entered(line)
            self._show_prompt()

    def write(self, text: str) -> None:
        start = "\n" if self._prompt else ""  # the prompt is there already
        click.echo(start + text, nl=False, color=decorated())
        self._show_prompt()

    def _show_prompt(self) -> None:
        if self._prompt:
            click.echo(self._prompt, nl=False)
        sys.stdout.flush()

    def clear_line(self) -> bool:
        return False  # the system's line editor does that, and tells nobody

    def restore(self, line: str) -> None:
        pass  # it is on the screen

    def leave(self) -> None:
        self._left.set()

    async def close(self) -> None:
        if self._prompt:
            click.echo()


def _lines() -> Iterator[str]:
    """The lines of the standard input, as they come."""
    # Without Python's own buffer, whose lock, held by a thread that is asleep in a read, the
    # interpreter would want when it ends.
    rest = b""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as raw, suppress(OSError):
        while data := raw.read(_READ_SIZE):
            *lines, rest = (rest + data).split(b"\n")
            yield from map(_text, lines)
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")
