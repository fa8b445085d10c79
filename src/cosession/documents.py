"""Small JSON documents that several processes change: an agent's settings, its list of sessions.

Reading, changing and writing such a file without a lock loses what others wrote in between. This
is the lock and the replace for it, at a person's pace; a session is not the place for it, and this
is not the place for a session.

1. The lock is `filelock`'s, on a permanent file beside the document.
2. The document is replaced as a whole. A reader needs no lock: it sees the old one or the new one.
3. A document that can't be read is never written over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from . import _platform, files
from .errors import CosessionError, LockTimeout
from .files import translated


class DamagedDocument(CosessionError):
    """A document holds no JSON object. It is left as it is."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}. It was not changed: mend it, or move it away.")


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document as it is now; an empty one if there is no file. Takes no lock.

    Raises:
        DamagedDocument: It holds no JSON object.
    """
    name = files.resolve(path)
    if files.require_plain_file(name) is None:
        return {}
    with translated(name, "read the document"):
        fd = _platform.open_file(name, os.O_RDONLY)
        try:
            text = files.read_all(fd, 0, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    try:
        value = json.loads(text.decode("utf-8-sig")) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise DamagedDocument(name, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedDocument(name, f"not an object but {type(value).__name__}")
    return value


@contextmanager
def edit_document(
    path: str | os.PathLike[str], *, timeout: float | None = None
) -> Iterator[dict[str, Any]]:
    """Change a document in place: nobody else changes it inside the block.

        with edit_document("settings.json") as settings:
            settings["theme"] = "dark"

    It is written when the block ends, and not at all if that raises or changed nothing.

    **Crash.** The file is the whole old or the whole new document, also after a power cut.

    Raises:
        LockTimeout: Another process kept the lock for `timeout` seconds.
        DamagedDocument: It holds no JSON object.
        StorageError: The system refuses. The old document is still there.
    """
    from filelock import FileLock, Timeout

    name = files.resolve(path)
    lock = FileLock(f"{name}.lock", timeout=-1 if timeout is None else timeout, mode=0o600)
    with translated(name, "lock the document"):
        try:
            lock.acquire()
        except Timeout as error:
            raise LockTimeout(name, timeout or 0.0, None) from error
    try:
        document = read_document(name)
        before = json.dumps(document, sort_keys=True)
        yield document
        if json.dumps(document, sort_keys=True) != before:
            _replace(name, json.dumps(document, indent=2, allow_nan=False))
    finally:
        lock.release()


def _replace(path: str, text: str) -> None:
    with translated(path, "write the document"):
        like = os.stat(path) if os.path.exists(path) else None
        temporary, fd = files.open_temporary(path, like)
        try:
            try:
                files.write_all(fd, text.encode() + b"\n")
                _platform.sync_data(fd)
            finally:
                os.close(fd)
            _platform.replace_file(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _platform.sync_folder(os.path.dirname(path))
