"""Note what the library asks the file system to do, with its bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from crash.shim import Shim, _real

from .disk import (
    Create,
    Event,
    Image,
    Link,
    Rename,
    Sync,
    SyncFolder,
    Told,
    Truncate,
    Unlink,
    Write,
    photograph,
)


class Recorder(Shim):
    """While it is armed, every call that changes something in a folder becomes an event."""

    def __init__(self, folder: str, *, links: bool = True) -> None:
        super().__init__(path=os.path.join(folder, "context.jsonl"), links=links)
        self.folder = folder
        self.image: Image = photograph(folder)
        """What was there before, and is on the disk."""
        self.trace: list[Event] = []
        self._names = dict(self.image.names)
        self._files = {inode: file for file, inode in self.image.inodes.items()}
        self._next = 1 << 64  # no inode is that large

    def tell(self, told: Told) -> None:
        self.trace.append(told)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        counted = super()._wrap(name, real)
        note = getattr(self, f"_note_{name}", None)
        if note is None:
            return counted

        def call(*args: Any, **options: Any) -> Any:
            finish = note(*args)
            result = counted(*args, **options)
            if finish is not None:
                finish(result)
            return result

        return call

    # Each of these looks before the call, and returns what is to be noted once it has succeeded.

    def _note_open(self, path: str, flags: int, *_: Any) -> Callable[[int], None] | None:
        name = self._named(path)
        if name is None or not flags & os.O_CREAT or os.path.lexists(path):
            return None

        def finish(fd: int) -> None:
            file = self._next = self._next + 1
            self._files[_real["fstat"](fd).st_ino] = file
            self.image.inodes[file] = _real["fstat"](fd).st_ino
            self._names[name] = file
            self.trace.append(Create(file, name))

        return finish

    def _note_write(self, fd: int, data: bytes) -> Callable[[int], None] | None:
        if fd not in self:
            return None
        data = bytes(data)

        def finish(count: int) -> None:
            at = os.lseek(fd, 0, os.SEEK_CUR) - count
            self._write(fd, at, data[:count])

        return finish

    def _note_pwrite(self, fd: int, data: bytes, at: int) -> Callable[[int], None] | None:
        data = bytes(data)
        return (lambda count: self._write(fd, at, data[:count])) if fd in self else None

    def _note_copy_file_range(
        self, source: int, target: int, length: int, offset: int
    ) -> Callable[[int], None] | None:
        data = _real["pread"](source, length, offset)

        def finish(count: int) -> None:
            at = os.lseek(target, 0, os.SEEK_CUR) - count
            self._write(target, at, data[:count])

        return finish if target in self else None

    def _note_ftruncate(self, fd: int, length: int) -> Callable[[None], None] | None:
        def finish(_: None) -> None:
            modified = _real["fstat"](fd).st_mtime_ns
            self.trace.append(Truncate(*self._file(fd), length, modified))

        return finish if fd in self else None

    def _note_rename(self, source: str, target: str) -> Callable[[None], None] | None:
        name, new = self._named(source), self._named(target)
        if name is None or new is None:
            return None

        def finish(_: None) -> None:
            self._names[new] = self._names.pop(name)
            self.trace.append(Rename(self._names[new], name, new))

        return finish

    _note_replace = _note_rename

    def _note_link(self, source: str, target: str) -> Callable[[None], None] | None:
        name, new = self._named(source), self._named(target)
        if name is None or new is None:
            return None

        def finish(_: None) -> None:
            self._names[new] = self._names[name]
            self.trace.append(Link(self._names[new], new))

        return finish

    def _note_unlink(self, path: str) -> Callable[[None], None] | None:
        name = self._named(path)
        if name is None:
            return None

        def finish(_: None) -> None:
            del self._names[name]
            self.trace.append(Unlink(name))

        return finish

    _note_remove = _note_unlink

    def _note_fsync(self, fd: int) -> Callable[[None], None] | None:
        if stat.S_ISDIR(_real["fstat"](fd).st_mode):
            folder = self._named(os.readlink(f"/proc/self/fd/{fd}"))
            if folder is None:
                return None
            event: Event = SyncFolder("" if folder == "." else folder)
        elif fd in self:
            event = Sync(*self._file(fd))
        else:
            return None
        return lambda _: self.trace.append(event)

    _note_fdatasync = _note_fsync

    def __contains__(self, fd: int) -> bool:
        """Whether an open file is one of those in the folder."""
        return (
            self._named(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")) is not None
        )

    def _named(self, path: str) -> str | None:
        """The path within the folder, if it is in there."""
        name = os.path.relpath(path, self.folder)
        return None if name.startswith("..") else name

    def _file(self, fd: int) -> tuple[int, str]:
        """The file, and a name of it."""
        file = self._files[_real["fstat"](fd).st_ino]
        return file, next((name for name in self._names if self._names[name] == file), "")

    def _write(self, fd: int, at: int, data: bytes) -> None:
        modified = _real["fstat"](fd).st_mtime_ns
        self.trace.append(Write(*self._file(fd), at, data, modified))
