"""The lock on Windows: one byte locked by `msvcrt`, a header behind it that stays readable."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import threading
import time
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("needs Windows: msvcrt locks", allow_module_level=True)

import _winapi
import msvcrt

from filelock import FileLock, Timeout

from cosession import BlockingSession, LockTimeout, Session, _platform
from cosession.lock import LockFile
from windows_terminal import terminal

USER = {"role": "user", "content": "hi"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


def lock_file(path: Path) -> LockFile:
    return LockFile(f"{path}.lock", beside=str(path))


def alone_with(path: Path) -> bool:
    """Whether nobody, we included, has the file open."""
    try:
        handle = _winapi.CreateFile(str(path), 0x8000_0000, 0, 0, 3, 0x80, 0)
    except PermissionError as error:
        assert error.winerror == 32
        return False
    _winapi.CloseHandle(handle)
    return True


def test_one_handle_excludes_another_of_the_same_process(path: Path) -> None:
    """The lock belongs to the handle: two sessions of one process exclude each other."""
    first, second = lock_file(path), lock_file(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_only_byte_0_is_locked(path: Path) -> None:
    """While one has the lock, others can lock every other byte, so they can read and write them."""
    holder = lock_file(path)
    assert holder.try_acquire()
    fd = _platform.open_file(holder.path, os.O_RDWR, permanent=True)
    try:
        assert not _platform.try_lock(fd)
        for position in (1, 16, 255, 512):
            os.lseek(fd, position, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            os.lseek(fd, position, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    finally:
        os.close(fd)
        holder.release()


def test_the_header_is_read_while_the_lock_is_held(path: Path) -> None:
    """A reader folds in what was committed although a writer has the lock at that moment."""
    with BlockingSession(path) as writer, BlockingSession(path) as reader:
        writer.append(USER)
        holder = lock_file(path)
        assert holder.try_acquire()
        try:
            reader.refresh()
            assert len(reader.history) == 1
        finally:
            holder.release()


def test_no_file_stays_open_between_operations(path: Path) -> None:
    """Between operations nobody is kept from replacing, renaming or removing any of the files."""
    with BlockingSession(path) as session:
        session.append(USER)
        session.revert_to(session.checkpoint())
        session.refresh()
        files = [path, Path(f"{path}.lock"), path.with_name("context_1.jsonl")]
        assert [alone_with(file) for file in files] == [True, True, True]


def test_a_refused_try_leaves_nothing_open(path: Path) -> None:
    """After a timeout the waiter has let go of the lock file too."""
    with BlockingSession(path) as session, terminal("hold", path) as other:
        assert other.hear() == "holding"
        for timeout in (0, 0.05):
            with pytest.raises(LockTimeout):
                session.append(USER, timeout=timeout)
        other.kill()
        session.append(USER)
        assert alone_with(Path(f"{path}.lock"))


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    """A holder that is killed gives the lock back with its life."""
    with terminal("hold", path) as other:
        assert other.hear() == "holding"
        waiter = lock_file(path)
        assert not waiter.try_acquire()
        other.kill()
        began = time.monotonic()
        assert waiter.acquire(wanted=lambda: time.monotonic() < began + 10)
        waiter.release()


def test_a_timeout_names_the_holder(path: Path) -> None:
    """Whoever is in the middle of a write is named to those who wait in vain."""
    with BlockingSession(path) as session, terminal("stick", path) as other:
        assert other.hear() == "stuck"
        with pytest.raises(LockTimeout) as caught:
            session.append(USER, timeout=0.05)
        holder = caught.value.holder
        assert holder is not None
        assert holder.operation == "append"
        assert holder.command == "windows_terminal.py"
        assert str(holder.pid) in str(caught.value)
        other.go_on()
        assert other.hear() == "done"
        session.append(USER)
        assert len(session.history) == 2


def test_a_killed_writer_s_half_record_is_put_aside(path: Path) -> None:
    """The next one to write takes the lock over, keeps the torn bytes aside, and goes on."""
    with BlockingSession(path) as session:
        session.append(USER)
        with terminal("stick", path) as other:
            assert other.hear() == "stuck"
            other.kill()
        session.append(USER, timeout=10)
        assert len(session.history) == 2
        assert not session.damage
        assert Path(f"{path}.torn").read_bytes().startswith(b'{"role":')


def test_a_waiter_gets_the_lock_soon(path: Path) -> None:
    """From one process's release to the other's lock it takes well under 50 ms."""
    delays = []
    waiter = lock_file(path)
    deadline = time.monotonic() + 60
    with terminal("hold", path, 7) as other:
        for _ in range(7):
            assert other.hear() == "holding"
            threading.Timer(0.05, other.go_on).start()
            assert waiter.acquire(wanted=lambda: time.monotonic() < deadline)
            now = time.time()
            waiter.release()
            delays.append(now - float(other.hear()))
            other.go_on()
    assert statistics.median(delays) < 0.03, delays


async def test_a_waiting_task_is_cancelled_at_once(path: Path) -> None:
    """A cancelled call stops waiting for another process, and writes nothing."""
    async with Session(path) as session:
        with terminal("hold", path) as other:
            assert await asyncio.to_thread(other.hear) == "holding"
            task = asyncio.create_task(session.append(USER))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 2
        await session.refresh()
        assert len(session.history) == 0


def test_filelock_on_our_lock_file_excludes_us(path: Path) -> None:
    """A script with `filelock` shuts everybody out, and is shut out by a writer."""
    with BlockingSession(path) as session:
        with FileLock(f"{path}.lock"), pytest.raises(LockTimeout):
            session.append(USER, timeout=0.05)
        session.append(USER)
        ours = lock_file(path)
        assert ours.try_acquire()
        with pytest.raises(Timeout):
            FileLock(f"{path}.lock").acquire(timeout=0.05)
        ours.release()
        with FileLock(f"{path}.lock", timeout=5):
            pass
        session.append(USER)
        assert len(session.history) == 2


def test_the_lock_file_can_t_be_removed_while_it_is_held(path: Path) -> None:
    """Nobody can take the file away from a holder, and let a third one lock a new one."""
    holder = lock_file(path)
    assert holder.try_acquire()
    for take_away in (os.unlink, lambda name: os.rename(name, name + ".away")):
        with pytest.raises(PermissionError) as caught:
            take_away(holder.path)
        assert caught.value.winerror == 32
    holder.release()


def test_a_removed_lock_file_is_made_anew(path: Path) -> None:
    """A lock file that was removed between two operations loses nothing."""
    with BlockingSession(path) as session, BlockingSession(path) as other:
        session.append(USER)
        os.unlink(f"{path}.lock")
        other.append(USER)
        session.append(USER)
        assert len(session.history) == 3
        assert not session.damage


def test_names_that_differ_in_case_are_one_session(tmp_path: Path) -> None:
    """`SESSION.JSONL` and `session.jsonl` are one file, so they have one lock, wherever it lies."""
    locks = tmp_path / "locks"
    for lock_dir in (None, locks):
        lower, upper = tmp_path / "session.jsonl", tmp_path / "SESSION.JSONL"
        with (
            BlockingSession(lower, lock_dir=lock_dir) as first,
            BlockingSession(upper, lock_dir=lock_dir) as second,
        ):
            holder = LockFile(first._store.lock.path, beside=str(lower))
            assert holder.try_acquire()
            with pytest.raises(LockTimeout):
                second.append(USER, timeout=0)
            holder.release()
            second.append(USER)
    assert len(list(locks.iterdir())) == 1
