"""The files around the session: where the lock lies, temporary, rotated and put-aside files.

Plain blocking functions. The callers hold the session's lock for everything that changes a file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from . import _platform
from .errors import (
    CosessionError,
    FileBusy,
    NotASession,
    NotWritable,
    SessionMissing,
    StorageError,
    StorageFull,
)

CHUNK = 1 << 20
_COPY_CHUNK = 1 << 20
_BEHIND = 1 << 19
"""Bytes that are copied before the disk begins to write them."""

_NO_SUCH_PLACE = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EBADF)
"""What is wrong with the path, and not with the disk (EBADF: a device of Windows)."""

_TEMPORARY_END = re.compile(r"[0-9a-f]{12}\.tmp")

Range = tuple[int, int]

_JUST_WRITTEN = (-1, -1)
"""All of it, right before the descriptor's position: one call less, where nobody asks."""

_SOMEWHERE = (1 << 62, (1 << 62) + 1)
"""Where bytes are that were written, and nobody knows where: never what a file really holds."""


class translated:  # noqa: N801 - reads as the function it is; a class costs a third on the hot path
    """Turn the system's errors into ours, inside a `with`; the one place that does."""

    __slots__ = ("_doing", "_path")

    def __init__(self, path: str, doing: str) -> None:
        self._path = path
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # LockTimeout is ours, and yet an OSError, being a TimeoutError.
        if isinstance(error, OSError) and not isinstance(error, CosessionError):
            raise ours(error, self._path, self._doing) from error


def ours(error: OSError, path: str, doing: str) -> CosessionError:
    if isinstance(error, FileNotFoundError):
        return SessionMissing(path, f"{doing}: the file or its folder is gone")
    if _platform.full(error):
        return StorageFull(path, doing, error.errno)
    if _platform.blocked(error):
        return FileBusy(path, doing, error.errno)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return NotWritable(path, doing, error.errno)
    return StorageError(path, doing, error.errno)


def resolve(path: str | os.PathLike[str]) -> str:
    """The one name of a session: absolute, links followed, so that it has one lock."""
    return _platform.resolve(os.fsdecode(path))


def lock_path(path: str, lock_dir: str | os.PathLike[str] | None) -> str:
    """Where the lock of the session at a resolved path lies: beside it, or in a folder of locks."""
    if lock_dir is None:
        return f"{path}.lock"
    from hashlib import blake2b

    folder = resolve(lock_dir)
    key = blake2b(os.path.normcase(path).encode("utf-8", "surrogateescape"), digest_size=8)
    name = f"{os.path.basename(path)}-{key.hexdigest()}.lock"
    return _platform.spelled(os.path.join(folder, name))


def require_plain_file(path: str) -> os.stat_result | None:
    """The file's status; `None` if nothing is there.

    Raises:
        NotASession: A folder, pipe, socket or device lies there.
        SessionMissing: Not even the folder is there.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise SessionMissing(
                path, f"the folder {folder} does not exist; create it first"
            ) from None
        return None
    except PermissionError as error:
        raise NotWritable(path, "look at the file", error.errno) from error
    except OSError as error:
        if error.errno not in _NO_SUCH_PLACE:
            raise ours(error, path, "look at the file") from error
        raise NotASession(path, f"can't be looked at: {error.strerror}") from error
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind:
        raise NotASession(path, f"is {kind}, not a session file")
    return status


def read_lines(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """Whole lines from `[start, stop)` in large pieces; `stop` is the end of a line."""
    rest: list[bytes] = []  # joined once: a line may be longer than many pieces
    while start < stop:
        piece = _platform.pread(fd, min(CHUNK, stop - start), start)
        if not piece:
            break
        end = piece.rfind(b"\n") + 1
        if not end:
            rest.append(piece)
            start += len(piece)
            continue
        start += end  # a line that the piece has half of is read again: cheaper than to join them
        whole = piece if end == len(piece) else piece[:end]
        yield b"".join((*rest, whole)) if rest else whole
        rest = []


def read_all(fd: int, start: int, stop: int) -> bytes:
    """The bytes of `[start, stop)`, or fewer if the file ends before."""
    pieces = []
    while start < stop and (piece := _platform.pread(fd, min(CHUNK, stop - start), start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def last_line_end(fd: int, start: int, stop: int) -> int:
    """The end of the last whole line in `[start, stop)`; `start` if there is none."""
    while stop > start:
        begin = max(start, stop - _COPY_CHUNK)
        newline = read_all(fd, begin, stop).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        stop = begin
    return start


def write_all(fd: int, data: bytes, placed: list[Range] | None = None) -> None:
    """Write at the descriptor's position (its end, if it appends), however many calls it takes.

    Usually it takes one. Short writes come from full disks and size limits, and the call after
    one says so. `placed` is told where in the file each of them put its bytes: see `located`.
    """
    done = count = os.write(fd, data)
    if done == len(data):
        if placed is not None:
            placed.append(_JUST_WRITTEN)
        return
    while True:
        if placed is not None:
            placed.append(_before_position(fd, count))
        if done == len(data):
            return
        count = os.write(fd, memoryview(data)[done:])
        done += count


def located(fd: int, placed: list[Range], length: int) -> list[Range]:
    """What `write_all` told of bytes of that length, if nothing else was written since."""
    return [_before_position(fd, length)] if placed == [_JUST_WRITTEN] else placed


def _before_position(fd: int, count: int) -> Range:
    try:
        end = os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return _SOMEWHERE
    return end - count, end


def close(fd: int) -> None:
    """Close a descriptor whose bytes have been synced if they had to be, whatever that says.

    An error comes too late to undo anything, and the descriptor is gone all the same.
    """
    with suppress(OSError):
        os.close(fd)


def create(path: str) -> None:
    """Make an empty private file, unless one is there."""
    with suppress(FileExistsError):
        os.close(_platform.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


# ---- temporary files ------------------------------------------------------------------------


def open_temporary(path: str, like: os.stat_result | None) -> tuple[str, int]:
    """A new private file beside `path`, with the owner and mode of `like`, open at its end.

    Not for appending: what the kernel copies it puts into no file that is.
    """
    folder, name = os.path.split(path)
    while True:
        temporary = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")
        try:
            fd = _platform.open_file(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        try:
            if like is not None:
                _platform.copy_owner(fd, like)
        except BaseException:
            os.close(fd)
            os.unlink(temporary)
            raise
        return temporary, fd


def temporary_files(path: str) -> list[str]:
    """The names of the temporary files beside a session."""
    folder, name = os.path.split(path)
    start = f".{name}."
    found = [entry for entry in os.listdir(folder) if entry.startswith(start)]
    return sorted(
        entry for entry in found if _TEMPORARY_END.fullmatch(entry, len(start)) is not None
    )


def remove_leftovers(path: str) -> None:
    """Remove the temporary files of processes that died. Only under the lock."""
    for name in temporary_files(path):
        with suppress(OSError):
            os.unlink(os.path.join(os.path.dirname(path), name))


def copy_range(source: int, target: int, start: int, stop: int) -> None:
    """Add `[start, stop)` of one open file to the end of another, byte for byte."""
    while start < stop and (
        count := _platform.copy_range(source, target, min(_BEHIND, stop - start), start)
    ):
        start += count
        if start < stop:  # the disk has something to do meanwhile, and less when it is waited for
            _platform.begin_writing(target, count)
    while start < stop:
        piece = _platform.pread(source, min(_COPY_CHUNK, stop - start), start)
        if not piece:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        write_all(target, piece)
        start += len(piece)


def end_line(fd: int) -> None:
    """Append a newline to a file that is open for appending, unless it ends with one."""
    size = os.fstat(fd).st_size
    if size and _platform.pread(fd, 1, size - 1) != b"\n":
        write_all(fd, b"\n")


def common_lines(one: int, two: int) -> int:
    """How many bytes two open files have in common at their starts, in whole lines."""
    position = 0
    while piece := _platform.pread(one, _COPY_CHUNK, position):
        other = _platform.pread(two, _COPY_CHUNK, position)
        same = _common(piece, other)
        if same < len(piece):
            return last_line_end(one, 0, position + same)
        position += same
    return last_line_end(one, 0, position)


def _common(one: bytes, two: bytes) -> int:
    """How many bytes two pieces have in common at their starts, by halving."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# ---- rotated files --------------------------------------------------------------------------


def rotated_name(path: str, number: int) -> str:
    """The path of a session's rotated file."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}_{number}{suffix}"


def rotations(path: str) -> list[tuple[int, str]]:
    """The rotated files of a session, oldest first: (number, path)."""
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    pattern = re.compile(rf"{re.escape(stem)}_([0-9]+){re.escape(suffix)}")
    found = [
        (int(match[1]), os.path.join(folder, entry))
        for entry in os.listdir(folder)
        if (match := pattern.fullmatch(entry))
    ]
    return sorted(found)


def keep_old(path: str, fd: int, status: os.stat_result) -> str:
    """Give the session's file the next rotation name as well, and return that name.

    A second name where the file system has hard links, else a copy. It never takes a name that is
    in use. `fd` is the file, open; `status` its status.
    """
    taken = rotations(path)
    number = taken[-1][0] + 1 if taken else 1
    while True:
        rotated = rotated_name(path, number)
        try:
            os.link(path, rotated, follow_symlinks=False)
            return rotated
        except FileExistsError:
            number += 1
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and _platform.full(error):
                raise
            if _copied(path, fd, status, rotated):
                return rotated
            number += 1


def put_in_place(temporary: str, path: str) -> None:
    """Give a finished temporary file its name, which must not be in use.

    Raises:
        FileExistsError: It is.
    """
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except (NotImplementedError, OSError):
        if os.path.lexists(path):  # POSIX renames over what is there
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.rename(temporary, path)
    else:
        with suppress(OSError):  # it has its name; `drop_second_name` takes the other one away
            os.unlink(temporary)


def _copied(path: str, fd: int, status: os.stat_result, rotated: str) -> bool:
    """Copy the open file to a name; False if that is taken. The name never shows half a copy."""
    if os.path.lexists(rotated):
        return False
    # Under a name of ours until it is whole: if this process dies, the next one removes it.
    temporary, copy = open_temporary(path, status)
    try:
        try:
            copy_range(fd, copy, 0, status.st_size)
            _platform.sync_data(copy)
        finally:
            os.close(copy)
        os.rename(temporary, rotated)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def drop_second_name(path: str, status: os.stat_result) -> int:
    """Undo a `keep_old` whose replace never came, or finish a `put_in_place`.

    How many names the file then has.
    """
    links = status.st_nlink
    folder = os.path.dirname(path)
    temporary = [os.path.join(folder, name) for name in temporary_files(path)]
    for other in (*(rotated for _, rotated in rotations(path)), *temporary):
        if links == 1:
            break
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(other, follow_symlinks=False), status):
                with suppress_blocked():
                    os.unlink(other)
                links -= 1
    return links


@contextmanager
def suppress_blocked() -> Iterator[None]:
    """Leave a file of ours where it is while somebody has it open (on Windows)."""
    try:
        yield
    except OSError as error:
        if not _platform.blocked(error):
            raise


def put_aside(path: str, data: bytes, like: os.stat_result) -> str:
    """Append bytes that can't be used to the session's `.torn` file, on disk before it returns."""
    aside = f"{path}.torn"
    is_new = not os.path.lexists(aside)
    fd = _platform.open_file(aside, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        _platform.copy_owner(fd, like)
        write_all(fd, data if data.endswith(b"\n") else data + b"\n")
        _platform.sync_data(fd)
        if is_new:
            _platform.sync_folder(os.path.dirname(aside))
    finally:
        os.close(fd)
    return aside
