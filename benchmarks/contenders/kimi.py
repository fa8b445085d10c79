"""kimi-cli's own `Context`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import JsonLines, Message

START = """
import asyncio, sys
from pathlib import Path
from kimi_cli.soul.context import Context
async def main():
    context = Context(Path(sys.argv[1]))
    await context.restore()
    len(context.history)
asyncio.run(main())
"""


class Kimi(JsonLines):
    title = "kimi-cli Context"
    package = "kimi-cli"
    durabilities = ("os",)
    colour = "#2f83e0"
    largest = 100_000_000
    startup = START

    async def open(self) -> None:
        from kimi_cli.soul.context import Context
        from kosong.message import Message as Model

        self.context, self.model = Context(Path(self.path)), Model

    async def append(self, message: Message) -> None:
        await self.context.append_message(self.model(**message))

    async def usable(self) -> Sequence[Any]:
        await self.context.restore()
        history: Sequence[Any] = self.context.history
        return history

    async def models(self) -> int:
        return len(self.context.history)

    async def revert(self, kept: int) -> None:
        await self.context.revert_to(0)
