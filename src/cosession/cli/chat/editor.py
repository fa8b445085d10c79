"""A terminal with a line editor, by prompt_toolkit: what is typed stays while others write.

1. One application runs from the first prompt to the last, and its last lines are the prompt: there
   is no moment in between in which a key would be lost or echoed.
2. Text that comes in goes above: the prompt is erased, the text written, the prompt drawn again.
3. The terminal is never asked where its cursor is. Over a slow line its answer can come too late,
   and would then be taken for something typed.
"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import ANSI, FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style

from .screen import Listener

_REFRESH = 0.5
"""Seconds between two drawings of the status line, which tells how long something takes."""


class EditorScreen:
    """The prompt, a line about what is going on above it, and everything else above that."""

    interactive = True
    shows_status = True

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._output = create_output()
        if isinstance(self._output, Vt100_Output):
            self._output.enable_cpr = False
        self._session: PromptSession[str] | None = None
        self._waiting: list[str] = []
        self._writing: asyncio.Task[None] | None = None

    async def read(self, listener: Listener) -> None:
        def entered(buffer: Buffer) -> bool:
            listener.entered(buffer.text)
            return False  # and the line is empty again

        def message() -> FormattedText:
            width = max(20, self._output.get_size().columns - 1)
            lines = [part for line in listener.status() for part in _wrapped(line, width)]
            status = "".join(f"{line}\n" for line in lines)
            return FormattedText([("", "\n"), ("ansimagenta", status), ("bold", self._prompt)])

        session: PromptSession[str] = PromptSession(
            message,
            key_bindings=_bindings(listener.interrupted),
            output=self._output,
            refresh_interval=_REFRESH,
        )
        session.default_buffer.accept_handler = entered
        session.app.erase_when_done = True
        self._session = session
        try:
            await session.prompt_async()
        except EOFError:
            pass

    def write(self, text: str) -> None:
        self._waiting.append(text)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            await run_in_terminal(self._write_now)

    def _write_now(self) -> None:
        text = "".join(self._waiting)
        self._waiting.clear()
        print_formatted_text(self._output, ANSI(text), Style([]))

    def clear_line(self) -> bool:
        if self._session is None or not self._session.default_buffer.text:
            return False
        self._session.default_buffer.reset()
        return True

    def restore(self, line: str) -> None:
        if self._session is not None and not self._session.default_buffer.text:
            self._session.default_buffer.insert_text(line)

    def leave(self) -> None:
        if self._session is not None and self._session.app.is_running:
            self._session.app.exit(result="")

    async def close(self) -> None:
        while self._waiting or (self._writing is not None and not self._writing.done()):
            await self._write()
            if self._writing is not None:
                await asyncio.wait({self._writing})


def _wrapped(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, width, subsequent_indent=f"{indent}  ")


def _bindings(interrupted: Callable[[], None]) -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        interrupted()

    return bindings
