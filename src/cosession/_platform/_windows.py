"""Windows: one locked byte, no positioned I/O, and open files that block a replace.

1. `msvcrt.locking` locks at the descriptor's raw position, so every lock seeks to byte 0 first.
2. The locked byte can be neither read nor written by anybody else, so nothing lives in it.
3. `LK_LOCK` tries ten times a second apart and then fails, so waiting is our own loop.
4. Whoever has a file open may keep others from renaming, replacing and removing it (winerror 5 or
   32). So data files are opened for one operation only, and shared for everything, which lets
   another program rotate them; opening and replacing are retried for a bounded time.
5. The lock file is the exception: it is not shared for deletion, so that while anybody holds the
   lock or waits for it, nobody can take the file away (`filelock` tries to, at each release).
6. The C runtime appends by seeking and then writing, which two programs can do at once. Opened for
   appending only, the kernel finds the end itself: our bytes never land on somebody else's.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

assert sys.platform == "win32"

import _winapi
import msvcrt
import winreg

if TYPE_CHECKING:
    from os import stat_result

T = TypeVar("T")

CAN_BLOCK = False
KEEPS_FILES_OPEN = False
OPEN_FLAGS = os.O_BINARY | os.O_NOINHERIT

PATIENCE = 5.0
"""Seconds for which somebody's open handle (a reader, a virus scanner) is waited out."""

_BRIEFLY = 0.25
"""Seconds for a refusal that may be permanent, or that of a file which is just being removed."""

_DENIED = 5
_SHARING = (32, 33)  # sharing violation, lock violation
_FULL = (112, 39, 1295)  # disk full, handle disk full, quota
_HELD = (errno.EACCES, errno.EDEADLK)

_READ, _WRITE, _DELETE, _APPEND = 0x8000_0000, 0x4000_0000, 0x0001_0000, 0x4
_SHARE_READ_WRITE, _SHARE_DELETE = 0x3, 0x4
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_NORMAL = 0x80

_PLAIN_LENGTH = 225
"""Longer paths get the prefix: 259 characters are the limit, and the names that are derived from a
session's name are up to 18 longer.
"""

_PREFIX, _UNC_PREFIX = "\\\\?\\", "\\\\?\\UNC\\"


# ---- paths ----------------------------------------------------------------------------------


def resolve(path: str) -> str:
    """One absolute name per file: links followed, the case as on the disk, usable at any length."""
    full = spelled(os.path.abspath(path))
    with suppress(OSError):  # a device, or a folder that can't be looked into: opening it will say
        full = os.path.realpath(full)
    if full.startswith(_UNC_PREFIX):
        full = "\\\\" + full.removeprefix(_UNC_PREFIX)
    return spelled(full.removeprefix(_PREFIX))


def spelled(path: str) -> str:
    r"""An absolute path as the system takes it: `\\?\` lifts the limit of 260 characters.

    Windows can lift it for a whole machine, which hardly any machine has done.
    """
    if len(path) <= _PLAIN_LENGTH or path.startswith((_PREFIX, "\\\\.\\")):
        return path
    if path.startswith("\\\\"):
        return _UNC_PREFIX + path[2:]
    return _PREFIX + path


# ---- files ----------------------------------------------------------------------------------


def open_file(path: str, flags: int, *, permanent: bool = False) -> int:
    """Open a file; while a `permanent` one is open, nobody can rename or remove it.

    A file that is being replaced or scanned can't be opened for a moment. That is waited out.
    """
    return _patiently(lambda: _open(path, flags, permanent=permanent), path)


def _open(path: str, flags: int, *, permanent: bool) -> int:
    access = 0 if flags & os.O_WRONLY else _READ
    if flags & os.O_APPEND:
        access |= _APPEND
    elif flags & (os.O_WRONLY | os.O_RDWR):
        access |= _WRITE
    share = _SHARE_READ_WRITE if permanent else _SHARE_READ_WRITE | _SHARE_DELETE
    how = _OPEN_EXISTING
    if flags & os.O_CREAT:
        how = _CREATE_NEW if flags & os.O_EXCL else _OPEN_ALWAYS
    handle = _handle(path, access, share, how)
    try:
        return msvcrt.open_osfhandle(handle, (flags & os.O_APPEND) | OPEN_FLAGS)
    except BaseException:
        _winapi.CloseHandle(handle)
        raise


def _handle(path: str, access: int, share: int, how: int) -> int:
    try:
        return _winapi.CreateFile(path, access, share, _winapi.NULL, how, _NORMAL, _winapi.NULL)
    except OSError as error:
        # It comes without the name of the file, and with the class that its number asks for.
        raise OSError(error.errno, error.strerror, path, error.winerror) from None


def pread(fd: int, length: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, length)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def copy_range(source: int, target: int, length: int, offset: int) -> int:
    return 0


def begin_writing(fd: int, length: int) -> None:
    """There is no such call; the sync that follows does all of it."""


def truncate(fd: int, path: str, length: int) -> None:
    """Cut a file that `fd`, maybe open for appending only, has open at `path`."""
    writable = open_file(path, os.O_RDWR)
    try:
        if not os.path.sameopenfile(fd, writable):
            raise OSError(errno.ESTALE, "replaced while it was being cut", path)
        os.ftruncate(writable, length)
    finally:
        os.close(writable)


def require_replaceable(path: str) -> None:
    """Wait, for a bounded time, until nobody has the file open in a way that blocks a replace.

    Raises:
        PermissionError: Somebody keeps it open, or it may not be replaced at all.
    """
    _patiently(lambda: _probe(path, _SHARE_READ_WRITE | _SHARE_DELETE), path)


def replace_file(source: str, target: str) -> None:
    try:
        _patiently(lambda: os.replace(source, target), target, patience=PATIENCE)
    except PermissionError as error:
        if error.winerror == _DENIED:
            # It means "not allowed" as well as "open somewhere"; alone with the file, the two
            # can be told apart.
            _probe(target, 0)
        raise


def _probe(path: str, share: int) -> None:
    """Open for deletion, and delete nothing: refused if somebody's handle forbids it."""
    if _is_read_only(path):
        raise PermissionError(errno.EACCES, "the file has the read-only attribute", path, _DENIED)
    _winapi.CloseHandle(_handle(path, _DELETE, share, _OPEN_EXISTING))


def _is_read_only(path: str) -> bool:
    try:
        return not os.access(path, os.W_OK) and os.path.isfile(path)
    except OSError:
        return False


def sync_data(fd: int) -> None:
    os.fsync(fd)


def sync_folder(path: str) -> None:
    """Nothing: NTFS journals its folders, and Windows can't sync one."""


def copy_owner(fd: int, like: stat_result) -> None:
    """Nothing: a new file inherits its folder's access list, as the old one did."""


# ---- the lock -------------------------------------------------------------------------------


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


def give_way() -> None:
    """The system has no such call for Python; nobody here tries that quickly."""


def holder_of(fd: int) -> int | None:
    """Nobody: Windows doesn't tell who has a lock. The card in the file may."""


# ---- what an error means --------------------------------------------------------------------


def full(error: OSError) -> bool:
    return error.errno == errno.ENOSPC or getattr(error, "winerror", None) in _FULL


def blocked(error: OSError) -> bool:
    """Whether somebody's open handle is what is in the way."""
    return getattr(error, "winerror", None) in _SHARING


def _patiently(action: Callable[[], T], path: str, *, patience: float = _BRIEFLY) -> T:
    """Repeat what fails because of somebody's open handle, for a bounded time.

    `patience` is for "access denied", which may be permanent; a sharing violation isn't.
    """
    began = time.monotonic()
    pause = 0.001
    while True:
        try:
            return action()
        except PermissionError as error:
            waited = time.monotonic() - began
            limit = PATIENCE if error.winerror in _SHARING else patience
            if waited >= limit or _is_read_only(path):
                raise
        time.sleep(random.uniform(pause / 2, pause))
        pause = min(pause * 2, 0.05)


# ---- the surroundings -----------------------------------------------------------------------


def boot_id() -> bytes:
    """16 bytes that differ after every boot.

    Windows counts its boots. Where it doesn't (some servers), the second of the boot stands in,
    in steps of ten: it may come out differently for the same boot, which costs a look at the
    file's last bytes and nothing else.
    """
    key = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as parameters:
            boots = int(winreg.QueryValueEx(parameters, "BootId")[0])
    except (OSError, ValueError, TypeError):
        return b"time" + int((time.time() - time.monotonic()) / 10).to_bytes(12, "big")
    return b"boot" + boots.to_bytes(12, "big")


def terminal() -> str:
    return os.environ.get("WT_SESSION", "")[:8]


def user() -> str:
    return os.environ.get("USERNAME", "")
