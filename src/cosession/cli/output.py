"""Results on standard output, everything else on standard error; and what may be printed."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..store import Store
from .exits import TURN_VARIABLE

if TYPE_CHECKING:
    import rich.progress

    from ..records import Holder

NOTICE_AFTER = 1.0
"""Seconds of silence before anything is said about waiting or progress."""

# Control characters (a message may hold escape sequences that would drive the terminal), lone
# surrogates, and the marks that turn the direction of text around.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with what a terminal would act on written as escapes; newlines and tabs stay."""
    return _UNPRINTABLE.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def complain(text: str, *, hint: str = "") -> None:
    """Say on standard error what is wrong, in one line, and in a second one what to do."""
    click.echo(f"cosession: {printable(text)}", err=True)
    if hint:
        click.echo(f"hint: {printable(hint)}", err=True)


def write_json(value: object) -> None:
    """One line of JSON, in UTF-8 wherever it goes."""
    try:
        line = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # lone surrogates: as escapes
        line = json.dumps(value).encode()
    click.echo(line)


def write_path(path: str | Path) -> None:
    """A file's name to be used by the caller, byte for byte where names are bytes."""
    click.echo(str(path) if sys.platform == "win32" else os.fsencode(path))


def decorated(*, err: bool = False) -> bool:
    """Whether colours are wanted: a terminal, and nobody said no (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return (sys.stderr if err else sys.stdout).isatty() and os.environ.get("TERM") != "dumb"


def can_print(text: str) -> bool:
    """Whether standard output's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def patience(path: str, lock_dir: str | None, doing: str) -> Iterator[None]:
    """Say on standard error what is going on if the block takes longer than a moment.

    Where that isn't a terminal, only who is waited for: it may be the reason why a script hangs.
    """
    done = threading.Event()
    situation = _Situation(path, lock_dir, doing)
    teller = threading.Thread(target=_tell, args=(situation, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join(timeout=1)


def _tell(situation: _Situation, done: threading.Event) -> None:
    if done.wait(NOTICE_AFTER):
        return
    if not (sys.stderr.isatty() and decorated(err=True)):
        while not (waiting := situation.waiting()):
            if done.wait(NOTICE_AFTER):
                return
        click.echo(f"cosession: {waiting}", err=True)
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(situation.text())) as status:
        while not done.wait(0.5):
            status.update(escape(situation.text()))


class _Situation:
    """What a command is at, in words."""

    def __init__(self, path: str, lock_dir: str | None, doing: str) -> None:
        self._path, self._doing = path, doing
        self._store = Store(path, create=False, read_only=True, lock_dir=lock_dir)

    def waiting(self) -> str:
        """For whom it waits; empty if it does not."""
        holder = self._store.lock.holder() or self._holder_of_turn()
        if holder is None or holder.pid == os.getpid():
            return ""
        return printable(f"{self._path}: waiting for {holder} ... (Ctrl-C gives up)")

    def _holder_of_turn(self) -> Holder | None:
        card = self._store.turn_that_is_on()
        if card is None or os.environ.get(TURN_VARIABLE, "").startswith(f"{card.token}:"):
            return None  # or it is the turn that this command is part of
        return card.holder

    def text(self) -> str:
        return self.waiting() or printable(f"{self._path}: {self._doing} ...")


class Progress:
    """A bar on standard error, once something takes longer than a moment. A context manager."""

    def __init__(self, text: str, total: int, *, wanted: bool = True) -> None:
        self._text, self._total = text, total
        self._since = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._wanted = wanted and sys.stderr.isatty() and decorated(err=True)

    def __enter__(self) -> Callable[[int], None]:
        """The function to call with the bytes that are done."""
        return self._update

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, done: int) -> None:
        if not self._wanted or time.monotonic() - self._since < NOTICE_AFTER:
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task(printable(self._text), total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)


def _bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
