"""Replacing a file on Windows, where every open handle is in the way."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

if sys.platform != "win32":
    pytest.skip("needs Windows: open files block a replace", allow_module_level=True)

import _winapi
import msvcrt

from cosession import BlockingSession, FileBusy, NotWritable, StorageFull, _platform, files
from cosession._platform import _windows
from windows_terminal import terminal

USER = {"role": "user", "content": "hi"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on somebody's open handle sooner than in earnest."""
    monkeypatch.setattr(_windows, "PATIENCE", 0.3)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, whose header's serial number goes up with each attempt."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".lock"}


def test_a_revert_waits_for_a_reader_to_close(path: Path) -> None:
    """A program that reads the file for a moment only delays a revert."""
    with BlockingSession(path) as session:
        mark = session.checkpoint()
        session.append(USER)
        with terminal("keep_open", path) as reader:
            assert reader.hear() == "open"
            threading.Timer(0.3, reader.go_on).start()
            rotated = session.revert_to(mark)
            assert reader.hear() == "closed"
        assert rotated.read_bytes().count(b"\n") == 2
        assert len(session.history) == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("mode", ["r", "a"])
def test_a_file_that_stays_open_can_t_be_reverted_and_nothing_changes(
    path: Path, mode: str
) -> None:
    """If the other program never closes the file: FileBusy after a bounded time, all intact."""
    with BlockingSession(path) as session:
        mark = session.checkpoint()
        session.append(USER)
        before, revision = contents(path.parent), session.revision
        with path.open(mode):
            began = time.monotonic()
            with pytest.raises(FileBusy):
                session.revert_to(mark)
            assert time.monotonic() - began < 5
            session.append(USER, timeout=0)
        after = contents(path.parent)
        assert after.keys() == before.keys()
        assert after[path.name].startswith(before[path.name])
        assert session.revision.generation == revision.generation
        session.revert_to(mark)
        assert len(session.history) == 0


@pytest.mark.usefixtures("hurried")
def test_a_reader_that_comes_at_the_last_moment(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened between the last look and the swap: FileBusy; the second name goes when it can."""
    keep_old, late = files.keep_old, list[IO[str]]()

    def keep_old_and_open(name: str, fd: int, status: os.stat_result) -> str:
        rotated = keep_old(name, fd, status)
        late.append(path.open())
        return rotated

    with BlockingSession(path) as session:
        session.append(USER)
        with monkeypatch.context() as patch:
            patch.setattr(files, "keep_old", keep_old_and_open)
            with pytest.raises(FileBusy):
                session.clear()
        session.append(USER)
        assert len(session.history) == 2
        late[0].close()
        session.append(USER)
        assert contents(path.parent).keys() == {path.name, f"{path.name}.lineage"}
        assert len(session.history) == 3


def test_a_failed_replace_leaves_no_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of the new file: no temporary file, no second name, no change."""

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with BlockingSession(path) as session:
        session.append(USER)
        before = contents(path.parent)
        with monkeypatch.context() as patch:
            patch.setattr(_platform, "sync_data", full)
            with pytest.raises(StorageFull):
                session.clear()
        assert contents(path.parent) == before
        session.append(USER)
        assert len(session.history) == 2


def test_the_rotated_file_is_the_old_one(path: Path) -> None:
    """The old file is kept by a second name, not copied."""
    with BlockingSession(path) as session:
        session.append(USER)
        old = path.stat()
        rotated = session.clear()
        assert rotated is not None
        assert os.path.samestat(rotated.stat(), old)
        assert not os.path.samestat(path.stat(), old)


def test_a_copy_is_kept_where_there_are_no_hard_links(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a FAT volume the old file is copied under its rotation name."""

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EINVAL, "Incorrect function", None, 1)

    monkeypatch.setattr(os, "link", no_links)
    with BlockingSession(path) as session:
        session.append(USER)
        before = path.read_bytes()
        rotated = session.clear()
        assert rotated is not None
        assert rotated.read_bytes() == before
        assert contents(path.parent).keys() == {path.name, rotated.name, f"{path.name}.lineage"}


def test_another_program_may_rotate_the_file_under_us(path: Path) -> None:
    """While we have the file open, a program without our lock can still rename it."""
    path.write_bytes(b"")
    fd = _platform.open_file(str(path), os.O_RDWR | os.O_APPEND)
    try:
        os.rename(path, path.with_name("context_1.jsonl"))
    finally:
        os.close(fd)


def test_appending_never_overwrites(path: Path) -> None:
    """Our appends go to the end by the kernel's doing, wherever the handle's position is."""
    path.write_bytes(b"theirs\n")
    fd = _platform.open_file(str(path), os.O_RDWR | os.O_APPEND)
    plain = os.open(path, os.O_RDWR | os.O_APPEND | os.O_BINARY)
    try:
        # Past the C runtime, which seeks to the end first and so hides where the bytes would go.
        os.lseek(fd, 0, os.SEEK_SET)
        _winapi.WriteFile(msvcrt.get_osfhandle(fd), b"ours\n")
        assert path.read_bytes() == b"theirs\nours\n"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 12  # which is how we know where they came to lie
        os.lseek(plain, 0, os.SEEK_SET)
        _winapi.WriteFile(msvcrt.get_osfhandle(plain), b"THEIRS\n")
        assert path.read_bytes() == b"THEIRS\nours\n"
    finally:
        os.close(fd)
        os.close(plain)


def test_cutting_a_file_that_was_replaced_is_refused(path: Path) -> None:
    """A truncation never hits a file that took the name meanwhile."""
    path.write_bytes(b"old\n")
    fd = _platform.open_file(str(path), os.O_RDWR | os.O_APPEND)
    try:
        os.rename(path, path.with_name("away"))
        path.write_bytes(b"new\n")
        with pytest.raises(OSError, match="replaced"):
            _platform.truncate(fd, str(path), 0)
        assert path.read_bytes() == b"new\n"
    finally:
        os.close(fd)


def test_a_read_only_file_is_not_called_busy(path: Path) -> None:
    """The read-only attribute is told from an open handle, and at once."""
    with BlockingSession(path) as session:
        session.append(USER)
        path.chmod(0o444)
        began = time.monotonic()
        with pytest.raises(NotWritable):
            session.clear()
        assert time.monotonic() - began < 1
        path.chmod(0o666)
        session.clear()
        assert len(session.history) == 0


def test_opening_waits_out_a_sharing_violation(path: Path) -> None:
    """A virus scanner or a backup that opens the file for itself only delays us."""
    with BlockingSession(path) as session:
        session.append(USER)
        exclusive = _winapi.CreateFile(str(path), 0x8000_0000, 0, 0, 3, 0x80, 0)
        timer = threading.Timer(0.3, _winapi.CloseHandle, (exclusive,))
        timer.start()
        began = time.monotonic()
        session.append(USER)
        assert time.monotonic() - began > 0.2
        timer.join(5)
        assert len(session.history) == 2


@pytest.mark.usefixtures("hurried")
def test_a_file_opened_by_one_program_alone_is_busy(path: Path) -> None:
    """If that program never closes it: FileBusy after a bounded time, and nothing changed."""
    with BlockingSession(path) as session:
        session.append(USER)
        exclusive = _winapi.CreateFile(str(path), 0x8000_0000, 0, 0, 3, 0x80, 0)
        try:
            with pytest.raises(FileBusy):
                session.append(USER)
        finally:
            _winapi.CloseHandle(exclusive)
        session.append(USER)
        assert len(session.history) == 2
