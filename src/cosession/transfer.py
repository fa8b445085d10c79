"""Copying a session out, whole or up to a revision, without its lock.

1. The bytes up to a revision never change within a file, so a copy needs no lock: it reads what was
   committed when it began, whatever others append, and even if they replace the file meanwhile.
2. An export is written in pieces under its own name. A fork, which is a session of its own from
   the first byte, gets its name when it is whole; what a process that died left of one has a
   temporary name, and is removed by whoever opens a session of that name.
3. A fork has a record, behind what was copied, that names its parent and where it left it; the
   parent's lineage names the fork.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from . import _platform, files, lineage
from .codec import encode_origin
from .errors import StorageError
from .files import translated
from .records import Fork, Revision
from .store import Store

log = logging.getLogger("cosession")

_PIECE = 1 << 20


async def export(store: Store, target: str | os.PathLike[str]) -> str:
    """Copy the session, as it was last read, into a new private file; its resolved path.

    **Cancellation**, and any failure, removes the unfinished copy.

    Raises:
        StorageError: The target exists, or the system refuses.
    """
    from aiofiles.threadpool import wrap

    # Opened and closed on this thread: one that a cancellation leaves behind must not meet a
    # descriptor that is closed, or another file's by then. Closing waits for it.
    with (
        _ends(store, target) as (source, copy, path, length),
        os.fdopen(source, "rb", closefd=False) as reading,
        os.fdopen(copy, "wb", closefd=False) as writing,
    ):
        reader, writer, left = wrap(reading), wrap(writing), length
        while left and (piece := await reader.read(min(_PIECE, left))):
            await writer.write(piece)
            left -= len(piece)
    return path


def export_blocking(store: Store, target: str | os.PathLike[str]) -> str:
    """The same on the calling thread."""
    with _ends(store, target) as (source, copy, path, length):
        files.copy_range(source, copy, 0, length)
    return path


@contextmanager
def _ends(store: Store, target: str | os.PathLike[str]) -> Iterator[tuple[int, int, str, int]]:
    """The descriptor to read, the one to write, the target's path, and how much to copy."""
    path = files.resolve(target)
    source, length = store.open_snapshot()
    try:
        with translated(path, "export the session"):
            copy = _platform.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                yield source, copy, path, length
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
            finally:
                os.close(copy)
    finally:
        files.close(source)


def fork(
    store: Store,
    target: str | os.PathLike[str] | None,
    at: Revision,
    lines: Sequence[bytes] = (),
) -> Fork:
    """Make another session of this one's beginning, with these records behind it.

    Without a target it lies beside this one, as `context.fork-1.jsonl`, `context.fork-2.jsonl`, …

    Raises:
        UnknownRevision: No file holds the session as of that revision.
        StorageError: The target exists, or the system refuses. Nothing stays.
    """
    source = store.open_at(at)
    try:
        if target is not None:
            return _forked(store, source, files.resolve(target), at, lines)
        stem, suffix = os.path.splitext(store.path)
        for number in count(1):
            path = f"{stem}.fork-{number}{suffix}"
            if os.path.lexists(path):
                continue
            try:
                return _forked(store, source, path, at, lines)
            except StorageError as error:
                if error.errno != errno.EEXIST:
                    raise  # else somebody was faster with the same name
        raise AssertionError  # count() has no end
    finally:
        files.close(source)


def _forked(store: Store, source: int, path: str, at: Revision, lines: Sequence[bytes]) -> Fork:
    origin = encode_origin(lineage.named_from(path, store.path), str(at))
    with translated(path, "fork the session"):
        like = os.fstat(source)
        temporary, copy = files.open_temporary(path, like)
        try:
            try:
                files.copy_range(source, copy, 0, at.position)
                files.write_all(copy, b"".join((origin, *lines)))
                _platform.sync_data(copy)
                size = os.fstat(copy).st_size
            finally:
                files.close(copy)
            files.put_in_place(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if store.durable:
            try:
                _platform.sync_folder(os.path.dirname(path))
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)
                raise
    if not store.read_only:
        try:
            lineage.write_forked(store.path, path, at, like)
        except OSError as error:
            log.warning("%s: the lineage is not written: %s", store.path, error)
    return Fork(Path(path), Path(store.path), at, Revision(0, size))
