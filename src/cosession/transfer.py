"""Copying a whole session out, in pieces, without its lock.

The bytes up to a revision never change within a file, so a copy needs no lock: it reads what was
committed when it began, whatever others append, and even if they replace the file meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import _platform, files
from .files import translated
from .store import Store

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
        os.close(source)
