"""What a helper can do in the folder: short, blocking, by the library's own means.

Nothing here judges. Times are those of `trace.now`, the clock that processes share.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from zlib import crc32

from ... import _platform
from ...kernel_lock import KernelLock
from ...lock import LockFile
from ...trace import now
from ...turn_lock import TurnLock, Turns
from .place import look

_locks: dict[str, KernelLock | TurnLock] = {}
_open: dict[str, int] = {}
_made: set[str] = set()


# ---- the private folder -----------------------------------------------------------------------


def make_folder(path: str) -> None:
    os.mkdir(path, 0o700)
    _made.add(path)


def remove_folder(path: str, limit: float) -> None:
    """Remove it, with patience for whoever has not quite closed its files (on Windows)."""
    deadline = time.monotonic() + limit
    while True:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not os.path.lexists(path):
                break
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            break
        time.sleep(0.05)
    _made.discard(path)


def clean_up() -> None:
    """Remove what is left when nobody tells any more: the doctor was killed."""
    for path in list(_made):
        with suppress(OSError):
            remove_folder(path, limit=5)


# ---- locks ------------------------------------------------------------------------------------


def _lock(path: str) -> KernelLock | TurnLock:
    if path not in _locks:
        _locks[path] = (
            Turns(path, beside=path).handle()
            if path.endswith(".turn")
            else LockFile(path, beside=path)
        )
    return _locks[path]


def try_lock(path: str) -> bool:
    return _lock(path).try_acquire()


def wait_for_lock(path: str) -> int:
    """Wait as long as it takes; when it came."""
    _lock(path).acquire(wanted=lambda: True)
    return now()


def unlock(path: str) -> int:
    """Let go of a lock; when that began."""
    lock, began = _locks.pop(path), now()
    lock.close()
    return began


# ---- files ------------------------------------------------------------------------------------


def write(path: str, text: str) -> None:
    fd = _platform.open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    fd = _platform.open_file(path, os.O_RDONLY)
    try:
        return _platform.pread(fd, 4096, 0).decode()
    finally:
        os.close(fd)


def keep_open(path: str, sharing: bool) -> None:
    """Open a file for reading: as the library does, or as any program does."""
    _open[path] = _platform.open_file(path, os.O_RDONLY) if sharing else os.open(path, os.O_RDONLY)


def read_open(path: str) -> str:
    return _platform.pread(_open[path], 4096, 0).decode()


def close(path: str) -> None:
    os.close(_open.pop(path))


def replace(path: str, text: str, patiently: bool) -> str:
    """Put another file in its place; why not, if that is refused."""
    write(f"{path}.new", text)
    try:
        (_platform.replace_file if patiently else os.replace)(f"{path}.new", path)
    except OSError as error:
        return str(error)
    return ""


def overwrite(path: str, text: str) -> None:
    """Write at the start of a permanent file that stays open, as into a lock file."""
    if path not in _open:
        _open[path] = _platform.open_file(path, os.O_RDWR | os.O_CREAT, permanent=True)
    _platform.pwrite(_open[path], text.encode(), 16)


def reread(path: str, length: int) -> str:
    if path not in _open:
        _open[path] = _platform.open_file(path, os.O_RDONLY, permanent=True)
    return _platform.pread(_open[path], length, 16).decode(errors="replace")


def traits(path: str) -> dict[str, object]:
    """Mode, identity and second names of a file that is made for it."""
    fd = _platform.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        made = os.fstat(fd)
        os.write(fd, b"x")
    finally:
        os.close(fd)
    linked = ""
    try:
        os.link(path, f"{path}.twin")
    except OSError as error:
        linked = error.strerror or str(error)
    there = os.stat(path)
    same = not linked and os.path.samestat(os.stat(f"{path}.twin"), there)
    return {
        "mode": made.st_mode & 0o777,
        "identities": [[made.st_dev, made.st_ino], identity(path)],
        "link_error": linked,
        "linked": same and there.st_nlink == 2,
    }


def identity(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_dev, status.st_ino]


def time_of_change(path: str, limit: float) -> float | None:
    """After how many seconds of writing the modification time moves; `None`: not until then.

    Written and closed again each time: while it is open, Windows may keep the new time to itself.
    """
    append(path, "x", 1, now())
    first, began = os.stat(path).st_mtime_ns, time.monotonic()
    while (elapsed := time.monotonic() - began) < limit:
        append(path, "x", 1, now())
        if os.stat(path).st_mtime_ns != first:
            return time.monotonic() - began
        time.sleep(min(0.01, elapsed))
    return None


def append(path: str, who: str, lines: int, start: int) -> None:
    """Append lines of many lengths, each with a checksum, from an agreed moment on."""
    fd = _platform.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        time.sleep(max(0, start - now()) / 1e6)
        for number in range(lines):
            body = f"{who} {number} {who * (37 * number % 6000)}".encode()
            os.write(fd, b"%s %08x\n" % (body, crc32(body)))
    finally:
        os.close(fd)


def weigh(path: str) -> dict[str, int]:
    """How many whole lines each has in the file, and how many there are that are not whole."""
    fd = _platform.open_file(path, os.O_RDONLY)
    try:
        rows = _platform.pread(fd, os.fstat(fd).st_size, 0).split(b"\n")
    finally:
        os.close(fd)
    found = Counter[str]()
    for row in rows[:-1]:
        body, _, check = row.rpartition(b" ")
        whole = check == b"%08x" % crc32(body)
        found[body[:1].decode() if whole and body else "torn"] += 1
    found["torn"] += bool(rows[-1])
    return dict(found)


# ---- costs ------------------------------------------------------------------------------------


def sync_costs(path: str, limit: float) -> dict[str, float]:
    """Medians of a few, in seconds; no more of them than fit into the limit."""
    fd = _platform.open_file(path, os.O_RDWR | os.O_CREAT)

    def after_a_write(sync: Callable[[int], None]) -> Callable[[], None]:
        def call() -> None:
            os.write(fd, b"x" * 200)
            sync(fd)

        return call

    try:
        return {
            "data": _median(after_a_write(_platform.sync_data), limit / 2),
            "whole": _median(after_a_write(os.fsync), limit / 2),
        }
    finally:
        os.close(fd)


def append_costs(path: str, limit: float) -> dict[str, float]:
    """What a whole append to a session takes, with both durabilities."""
    from ...blocking import BlockingSession
    from ...messages import Message

    message = Message(role="user", content="x" * 200)
    costs = {}
    for durability in ("process", "power"):
        with BlockingSession(path, durability=durability) as session:
            session.append(message)
            costs[durability] = _median(lambda: session.append(message), limit / 2)
    return costs


def _median(call: Callable[[], object], limit: float) -> float:
    times, deadline = list[float](), time.monotonic() + limit
    while len(times) < 3 or (len(times) < 15 and time.monotonic() < deadline):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


# ---- watching and looking ---------------------------------------------------------------------


def watch(folder: str, name: str, limit: float) -> int | None:
    """When something was heard of a file, if anything within so many seconds.

    Raises:
        OSError: The system can't watch it.
    """
    from watchfiles import watch as changes_in

    deadline = time.monotonic() + limit
    try:
        for changes in changes_in(
            folder,
            watch_filter=None,
            step=10,
            debounce=50,
            rust_timeout=200,
            yield_on_timeout=True,
            recursive=False,
        ):
            if any(os.path.basename(path) == name for _, path in changes):
                return now()
            if time.monotonic() > deadline:
                return None
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return None


def can_watch() -> bool:
    try:
        import watchfiles  # noqa: F401 - it is looked for
    except ImportError:
        return False
    return True


def touch(path: str) -> int:
    """Change a file; when."""
    append(path, "x", 1, 0)
    return now()


def verify(path: str, lock_dir: str | None) -> dict[str, object]:
    """What `cosession verify` would say, counted."""
    from ...inspect import Inspection

    states: Counter[str] = Counter()
    with Inspection(path, lock_dir=lock_dir) as inspection:
        for line in inspection.lines():
            states[line.state] += 1
    return {
        "lines": states.total(),
        "damaged": states["damaged"],
        "pending": states["pending"],
        "problems": [finding.text for finding in inspection.findings if finding.problem],
    }


DEEDS: dict[str, Callable[..., object]] = {
    deed.__name__: deed
    for deed in (
        append, append_costs, can_watch, close, identity, keep_open, look, make_folder, overwrite,
        read, read_open, remove_folder, replace, reread, sync_costs, time_of_change, touch, traits,
        try_lock, unlock, verify, wait_for_lock, watch, weigh, write,
    )
}  # fmt: skip
