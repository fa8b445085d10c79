"""Linux, macOS and their kin: flock, positioned reads and writes, open files that may be replaced.

flock and not lockf: a POSIX record lock vanishes when the process closes *any* descriptor of the
file, and does not exclude two sessions of one process from each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import stat_result

assert sys.platform != "win32"

CAN_BLOCK = True
"""The kernel can wait for a lock on a thread, and wakes it at once."""

KEEPS_FILES_OPEN = True
"""An open file may be replaced, renamed and unlinked, so descriptors are kept."""

OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Never hand a descriptor to a child, never follow a planted link, never hang on a planted FIFO."""

_WOULD_BLOCK = (errno.EAGAIN, errno.EACCES)


def resolve(path: str) -> str:
    """One absolute name per file: links followed."""
    return os.path.realpath(os.path.abspath(path))


def spelled(path: str) -> str:
    """The path as the system takes it."""
    return path


def open_file(path: str, flags: int, *, permanent: bool = False) -> int:
    """Open a file, private if it is made. `permanent` is for Windows."""
    return os.open(path, flags | OPEN_FLAGS, 0o600)


def try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _WOULD_BLOCK:
            return False
        raise
    return True


def lock(fd: int) -> None:
    """Wait in the kernel. Not interruptible from another thread: call it where that is fine."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)


def give_way() -> None:
    """Let another process have this processor, if one wants it."""
    os.sched_yield()


def pread(fd: int, length: int, offset: int) -> bytes:
    return os.pread(fd, length, offset)


def pwrite(fd: int, data: bytes, offset: int) -> int:
    return os.pwrite(fd, data, offset)


if sys.platform == "linux":

    def copy_range(source: int, target: int, length: int, offset: int) -> int:
        """Copy bytes of one open file to another one's position without reading them.

        How many; 0 where that can't be done, for whatever reason: reading and writing them tells.
        """
        try:
            return os.copy_file_range(source, target, length, offset)
        except OSError:
            return 0

    def begin_writing(fd: int, length: int) -> None:
        """Have the system begin to write the bytes before the position to the disk; no more.

        It is a hint: the call says that they won't be needed, and begins with what that takes.
        """
        try:
            end = os.lseek(fd, 0, os.SEEK_CUR)
            os.posix_fadvise(fd, end - length, length, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass

else:

    def copy_range(source: int, target: int, length: int, offset: int) -> int:
        return 0

    def begin_writing(fd: int, length: int) -> None:
        pass


def truncate(fd: int, path: str, length: int) -> None:
    os.ftruncate(fd, length)


def require_replaceable(path: str) -> None:
    """It always is, as far as open files go."""


def replace_file(source: str, target: str) -> None:
    os.replace(source, target)


if sys.platform == "darwin":

    def sync_data(fd: int) -> None:
        # fsync on macOS stops at the drive's cache; F_FULLFSYNC does not, where it is supported.
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError:
            os.fsync(fd)

else:

    def sync_data(fd: int) -> None:
        os.fdatasync(fd)


def sync_folder(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems have nothing to sync about a folder, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def copy_owner(fd: int, like: stat_result) -> None:
    """Give an open file the owner and the mode of another, as far as we are allowed to."""
    mine = os.fstat(fd)
    mode = like.st_mode & 0o777
    if (mine.st_uid, mine.st_gid) != (like.st_uid, like.st_gid) and not (
        _chown(fd, like.st_uid, like.st_gid) or _chown(fd, -1, like.st_gid)
    ):
        mode &= 0o707  # what that group may do, ours may not
    os.fchmod(fd, mode)


def _chown(fd: int, user: int, group: int) -> bool:
    """Only root may give a file away; others may give it to a group that they are in."""
    try:
        os.fchown(fd, user, group)
    except PermissionError:
        return False
    return True


def full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def blocked(error: OSError) -> bool:
    """Whether somebody's open handle is what is in the way."""
    return error.errno in (errno.EBUSY, errno.ETXTBSY)


def holder_of(fd: int) -> int | None:
    """The process that has the flock on this file, as the kernel tells it (Linux only)."""
    try:
        with open("/proc/locks", encoding="ascii") as table:
            rows = table.read().splitlines()
    except OSError:
        return None
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for row in rows:
        fields = row.split()
        if fields[1] == "FLOCK" and fields[5] == f"{device}:{status.st_ino}":
            return int(fields[4]) or None
    return None


def boot_id() -> bytes:
    """16 bytes that differ after every boot; zeros where the system has no such thing."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read().decode().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def terminal() -> str:
    for fd in (0, 2, 1):
        try:
            return os.ttyname(fd)
        except OSError:
            continue
    return ""


def user() -> str:
    named = os.environ.get("USER") or os.environ.get("LOGNAME")
    if named:
        return named
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
