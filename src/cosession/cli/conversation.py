"""A session's records as rows of styled text, for people. Pure; knows nothing of the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..codec import Checkpoint, Origin, SystemPrompt, Unknown, Usage
from ..messages import Message
from ..records import Damage
from .output import printable

_ARGUMENT_LENGTH = 40
_ARGUMENTS_LENGTH = 100
_CALLS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """Text in one or more styles, indented; it may hold newlines."""

    indent: int
    parts: tuple[tuple[str, str], ...]
    """(text, style)"""

    @property
    def text(self) -> str:
        """The row without styles, each of its lines indented."""
        pad = " " * self.indent
        lines = "".join(text for text, _ in self.parts).split("\n")
        return "\n".join((pad + line).rstrip() for line in lines)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs around the text."""

    call: str = "→"
    mark: str = "·"
    damaged: str = "✗"
    more: str = "…"
    rule: str = "──"


ASCII_GLYPHS = Glyphs("->", "-", "x", "...", "--")

Item = Message | SystemPrompt | Usage | Checkpoint | Origin | Unknown | Damage
"""What a session's records are, for those who read it: what `Appended.records` holds."""


class Conversation:
    """Turns records into rows, one after the other; remembers which tool was called how."""

    def __init__(self, *, full: bool = False, glyphs: Glyphs | None = None) -> None:
        self._full = full
        self.glyphs = glyphs or Glyphs()
        self._tools: dict[str, str] = {}
        self._compact = True
        """Whether the row before was a single line, and so needs no empty one behind it."""

    def rows(self, item: Item, raw: bytes = b"", *, pending: bool = False) -> Iterator[Row]:
        """The rows of one record.

        Args:
            item: The record.
            raw: Its bytes, where they are known: they are shown if it means nothing to us.
            pending: Whether it is not there yet, as far as readers are concerned.
        """
        if isinstance(item, Message):
            rows = list(self._message_rows(item))
            spaced, self._compact = True, False
        else:
            rows = list(self._mark_rows(item, raw, pending))
            spaced = not self._compact
            self._compact = True
        if rows and spaced:
            yield Row(0, (("", ""),))
        yield from rows

    def event(self, text: str) -> Iterator[Row]:
        """A row about what happened to the session."""
        if not self._compact:
            yield Row(0, (("", ""),))
        self._compact = True
        yield Row(0, ((f"{self.glyphs.rule} {printable(text)}", "event"),))

    # ---- records that are no messages -------------------------------------------------------

    def _mark_rows(self, item: Item, raw: bytes, pending: bool) -> Iterator[Row]:
        match item:
            case SystemPrompt(text):
                yield self._mark("system prompt", f"{len(text):,} characters")
                yield from self._folded(text, "dim", lines=2, characters=200)
            case Usage(count):
                yield self._mark(f"{count:,} tokens")
            case Checkpoint(number):
                yield self._mark(f"checkpoint {number}")
            case Origin(parent, at):
                yield self._mark(f"forked from {printable(parent)}", f"at {printable(at)}")
            case Unknown():
                yield self._mark("another program's record")
                yield from self._folded(_text(raw), "dim", lines=1, characters=160)
            case Damage(offset, length, reason):
                what = "unfinished line" if pending else "damaged line"
                where = f" at offset {offset}, {length:,} bytes: {printable(reason)}"
                yield Row(0, ((f"{self.glyphs.damaged} {what}", "damaged"), (where, "dim")))
                yield from self._folded(_text(raw), "dim", lines=1, characters=160)

    def _mark(self, text: str, detail: str = "") -> Row:
        parts = ((f"{self.glyphs.mark} {text}", "dim"),)
        return Row(0, (*parts, (f" ({detail})", "dim")) if detail else parts)

    # ---- messages ---------------------------------------------------------------------------

    def _message_rows(self, message: Message) -> Iterator[Row]:
        yield Row(0, tuple(self._heading(message)))
        thought = (message.model_extra or {}).get("reasoning_content")
        if isinstance(thought, str) and thought:
            yield from self._folded(thought, "thought", lines=2, characters=200)
        parts = message.content if isinstance(message.content, list) else [message.content]
        for part in parts:
            yield from self._part_rows(part, message.role)
        for call in message.tool_calls or ():
            yield from self._call_rows(call)
        if self._full:
            yield from self._extra_rows(message)

    def _heading(self, message: Message) -> Iterator[tuple[str, str]]:
        role = printable(message.role).replace("\n", " ")
        yield role, role if role in ("user", "assistant", "tool", "system") else "other"
        name = message.name or self._tools.get(message.tool_call_id or "") or message.tool_call_id
        if name:
            yield " " + _short(name, 60), "dim"

    def _extra_rows(self, message: Message) -> Iterator[Row]:
        for key, value in (message.model_extra or {}).items():
            if key != "reasoning_content":
                yield Row(2, ((f"{_short(key, 60)}: {_short(_json(value), 10_000)}", "dim"),))

    def _part_rows(self, part: object, role: str) -> Iterator[Row]:
        match part:
            case None | "":
                return
            case str(text):
                yield from self._text_rows(text, role)
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                yield from self._text_rows(text, role)
            case {"type": "refusal", "refusal": str(text)}:
                yield from self._text_rows(text, role)
            case (
                {"type": "think", "think": str(text)}
                | {"type": "thinking", "thinking": str(text)}
                | {"type": "reasoning", "text": str(text)}
            ):
                yield from self._folded(text, "thought", lines=2, characters=200)
            case {"type": "tool_use", "name": str(name), **rest}:
                function = {"name": name, "arguments": rest.get("input")}
                yield from self._call_rows({"id": rest.get("id"), "function": function})
            case {"type": "tool_result", "content": content}:
                for piece in content if isinstance(content, list) else [content]:
                    yield from self._part_rows(piece, "tool")
            case {"type": str(kind), **rest}:
                yield Row(2, ((f"[{_short(kind, 30)}] {self._described(rest, kind)}", "dim"),))
            case _:
                yield from self._folded(_json(part), "dim", lines=1, characters=160)

    def _text_rows(self, text: str, role: str) -> Iterator[Row]:
        if role == "tool":
            yield from self._folded(text, "result", lines=3, characters=240)
        elif role in ("system", "developer"):
            yield from self._folded(text, "dim", lines=3, characters=240)
        else:
            yield Row(2, ((printable(text).strip("\n"), ""),))

    def _described(self, part: Mapping[Any, Any], kind: str) -> str:
        """What a part that isn't text holds, in a few words."""
        value = part.get(kind)
        if isinstance(value, dict) and isinstance(value.get("url"), str):
            value = value["url"]
        if not isinstance(value, str):
            return _short(_json(part), 100)
        if value.startswith("data:"):
            return f"{_short(value[5:].partition(',')[0], 60)}, {len(value):,} characters"
        return _short(value, 1000 if self._full else 100)

    def _call_rows(self, call: object) -> Iterator[Row]:
        match call:
            case {"function": {"name": str(name), **rest}}:
                arguments = rest.get("arguments")
            case _:
                name, arguments = "call", _json(call)
        if isinstance(call, dict) and isinstance(call.get("id"), str):
            self._remember(call["id"], name)
        value = _parsed(arguments)
        arrow = f"{self.glyphs.call} "
        if self._full:
            yield Row(2, ((arrow, "call"), (_short(name, 60), "call")))
            text = value if isinstance(value, str) else _json(value, indent=2)
            yield Row(4, ((printable(text), ""),))
        else:
            short = self._arguments(value)
            yield Row(2, ((arrow, "call"), (_short(name, 60), "call"), (f"({short})", "dim")))

    def _remember(self, call: str, tool: str) -> None:
        self._tools[call] = tool
        if len(self._tools) > _CALLS_REMEMBERED:
            del self._tools[next(iter(self._tools))]

    def _arguments(self, value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, dict):
            text = value if isinstance(value, str) else _json(value)
            return _short(text, _ARGUMENTS_LENGTH, self.glyphs.more)
        pairs = (
            f"{key}={_short(_json(item), _ARGUMENT_LENGTH, self.glyphs.more)}"
            for key, item in value.items()
        )
        return _short(", ".join(pairs), _ARGUMENTS_LENGTH, self.glyphs.more)

    # ---- folding ----------------------------------------------------------------------------

    def _folded(self, text: str, style: str, *, lines: int, characters: int) -> Iterator[Row]:
        """The text, or, unless all of it is wanted, its beginning and how much there is more."""
        text = printable(text).strip("\n")
        if not text:
            return
        if self._full:
            yield Row(2, ((text, style),))
            return
        start = "\n".join(text.split("\n", lines)[:lines])[:characters].rstrip()
        rest = len(text) - len(start)
        if rest <= 20:
            yield Row(2, ((text, style),))
            return
        more = f"{self.glyphs.more} {rest:,} more characters"
        yield Row(2, ((start, style), (f" {more}", "fold")))


def _parsed(arguments: object) -> object:
    """The arguments of a call, which most programs store as a string of JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _json(value: object, *, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    except (ValueError, RecursionError):
        return "(nested too deeply)"


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _short(text: str, length: int, more: str = "…") -> str:
    """One line of at most that many characters."""
    text = printable(text[: 8 * length]).replace("\n", " ").replace("\t", " ")
    return text if len(text) <= length else text[: length - len(more)] + more
