"""Contenders that fail, to see that it is noticed. They take part only if asked for by name."""

from __future__ import annotations

from .bare import BareFile
from .base import JsonLines, Message, line_of


class Lossy(BareFile):
    """Every seventh message is lost, every eleventh torn, every thirteenth stored twice.

    And every seventeenth comes before the one in front of it.
    """

    title = "a lossy one"
    bare = False
    colour = ""
    shares = True

    async def open(self) -> None:
        await super().open()
        self.count = 0
        self.kept_back = b""

    def append_now(self, message: Message) -> None:
        self.count += 1
        line = line_of(message)
        if self.count % 7 == 0:
            return
        if self.count % 11 == 0:
            line = line[: len(line) // 2] + b"\n"
        if self.count % 13 == 0:
            line *= 2
        if self.count % 17 == 0:
            self.kept_back = line
            return
        self.write(line + self.kept_back)
        self.kept_back = b""


class Missing(JsonLines):
    """Its package isn't there."""

    title = "a missing one"

    async def open(self) -> None:
        raise ModuleNotFoundError("No module named 'missing'", name="missing")

    async def append(self, message: Message) -> None:
        raise AssertionError("it was never open")
