"""When to kill a terminal: while it writes, as the lock file tells.

A write is announced in the lock file's header before its first byte and published after its last.
Whoever reads an announcement by a certain process there knows that it is just writing.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Literal

from ... import _platform
from ...header import (
    CARD_AT,
    HEADER_AT,
    HEADER_SIZE,
    SPANS_AT,
    Replacing,
    spans_size,
    unpack,
    unpack_card,
)

_LOOK = 5e-5
"""Seconds between two looks. Who sleeps is woken at once; who spins is put aside on a busy machine,
just when it matters."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A kill that is about to come: with which operation, and how it finds its moment."""

    kind: str
    """It comes when the terminal begins an operation of this kind; any, if it is empty."""
    aim: Literal["announcement", "delay"]
    delay: float
    """Seconds: after the beginning, or after the announcement was seen."""
    patience: float = 2.0
    """Seconds to wait for an announcement; the kill comes then anyway."""

    def wait_for_the_moment(self, lock_path: str, pid: int) -> None:
        """Return when it is time to kill that process."""
        if self.aim == "announcement":
            _wait_for_announcement(lock_path, pid, self.patience)
        _spin(self.delay)


def draw(dice: random.Random, role: str) -> Strike:
    """Choose the next strike at a terminal with that role."""
    choice = dice.random()
    if choice < 0.2:
        return Strike("", "delay", dice.uniform(0, 0.002))
    if choice < 0.5 and role != "write":
        return Strike(role, "announcement", dice.uniform(0, 0.0005))
    return Strike("bulk", "announcement", dice.uniform(0, 0.0005))


def _wait_for_announcement(lock_path: str, pid: int, patience: float) -> None:
    try:
        fd = _platform.open_file(lock_path, os.O_RDONLY)
    except OSError:
        return
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline and not _announced(fd, pid):
            time.sleep(_LOOK)
    finally:
        os.close(fd)


def _announced(fd: int, pid: int) -> bool:
    data = _platform.pread(fd, SPANS_AT - HEADER_AT, HEADER_AT)
    head = data[:HEADER_SIZE]
    if not spans_size(head):
        header = unpack(head)
        if header is None or not isinstance(header.intent, Replacing):
            return False
    card = unpack_card(data[CARD_AT - HEADER_AT :])
    return card is not None and card.pid == pid


def _spin(seconds: float) -> None:
    # A sleep would be as long as the system pleases.
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        pass
