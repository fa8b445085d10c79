"""Windows: one locked byte, no positioned I/O, and open files that block a replace.

1. `msvcrt.locking` locks at the descriptor's raw position, so every lock seeks to byte 0 first.
2. The locked byte can be neither read nor written by anybody else, so nothing lives in it.
3. `LK_LOCK` tries ten times a second apart and then fails, so waiting is our own loop.
4. Python opens files without delete sharing: whoever has the data file open blocks its
   replacement (winerror 5 or 32). So files are opened for one operation only, and opening and
   replacing are retried for a bounded time.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

assert sys.platform == "win32"

import msvcrt

if TYPE_CHECKING:
    from os import stat_result

T = TypeVar("T")

CAN_BLOCK = False
KEEPS_FILES_OPEN = False
OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT

PATIENCE = 5.0
"""Seconds for which somebody's open handle (a reader, a virus scanner) is waited out."""

_SHARING = (5, 32, 33)  # access denied, sharing violation, lock violation
_HELD = (errno.EACCES, errno.EDEADLK)


def open_file(path: str, flags: int, mode: int = 0o600) -> int:
    # A file that is being replaced or scanned can't be opened for a moment. A file that may never
    # be opened answers the same (5), so that one is waited for only shortly.
    return _patiently(lambda: os.open(path, flags | OPEN_FLAGS, mode), patience=0.25)


def try_lock(fd: int) -> bool:
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def lock(fd: int) -> None:
    while not try_lock(fd):
        time.sleep(random.uniform(0.001, 0.006))


def unlock(fd: int) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)


def pread(fd: int, length: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def replace_file(source: str, target: str) -> None:
    _patiently(lambda: os.replace(source, target), patience=PATIENCE)


def sync_data(fd: int) -> None:
    os.fsync(fd)


def sync_folder(path: str) -> None:
    """Nothing: NTFS journals its folders, and Windows can't sync one."""


def copy_owner(fd: int, like: stat_result) -> None:
    """Nothing: a new file inherits its folder's access list, as the old one did."""


def full(error: OSError) -> bool:
    # 112 disk full, 39 handle disk full, 1295 quota
    return error.errno == errno.ENOSPC or getattr(error, "winerror", None) in (112, 39, 1295)


def blocked(error: OSError) -> bool:
    """Whether somebody's open handle is what is in the way."""
    return getattr(error, "winerror", None) in _SHARING


def holder_of(fd: int) -> int | None:
    return None


def boot_id() -> bytes:
    return bytes(16)


def terminal() -> str:
    return os.environ.get("WT_SESSION", "")[:8]


def user() -> str:
    return os.environ.get("USERNAME", "")


def _patiently(action: Callable[[], T], *, patience: float) -> T:
    """Repeat what fails because of somebody's open handle, for a bounded time."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while True:
        try:
            return action()
        except PermissionError as error:
            # os.open reports no winerror: errno 13 is all there is to go by.
            if getattr(error, "winerror", None) not in (None, *_SHARING):
                raise
            if time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(pause / 2, pause))
        pause = min(pause * 2, 0.05)
