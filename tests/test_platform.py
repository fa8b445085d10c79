"""The seam to the system: the same names, with the same meaning, on POSIX and on Windows."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cosession
from cosession import _platform

PACKAGE = Path(cosession.__file__).parent
PATIENCE = 30.0

HOLDER = """
import os, sys
from cosession import _platform
fd = _platform.open_file(sys.argv[1], os.O_RDWR, permanent=True)
_platform.lock(fd)
print("holding", flush=True)
sys.stdin.readline()
_platform.unlock(fd)
print("given back", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture
def two(file: Path) -> Iterator[tuple[int, int]]:
    """Two descriptors of one file."""
    fds = tuple(_platform.open_file(str(file), os.O_RDWR, permanent=True) for _ in range(2))
    yield fds[0], fds[1]
    for fd in fds:
        os.close(fd)


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has locked the file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        assert process.stdout.readline().strip() == "holding"
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(PATIENCE)
        process.stdin.close()
        process.stdout.close()


def names(module: str) -> set[str]:
    """What a platform's file defines for others, by reading it: it can't always be imported."""
    found = set()
    tree = ast.parse((PACKAGE / "_platform" / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def signatures(module: str) -> dict[str, str]:
    tree = ast.parse((PACKAGE / "_platform" / module).read_text(encoding="utf-8"))
    return {
        node.name: ast.unparse(node.args) + " -> " + ast.unparse(node.returns or ast.Constant(None))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in _platform.__all__
    }


@pytest.mark.parametrize("module", ["_posix.py", "_windows.py"])
def test_both_platforms_have_every_name(module: str) -> None:
    """Whatever the rest of the package may use is there on either platform."""
    assert set(_platform.__all__) <= names(module)


def test_both_platforms_have_the_same_signatures() -> None:
    """A call that works on one platform works on the other."""
    assert signatures("_posix.py") == signatures("_windows.py")
    assert len(signatures("_posix.py")) > 10


def test_nothing_else_asks_which_system_this_is() -> None:
    """In the library, the command left aside, only `_platform` looks at the system's name."""
    asked = []
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.platform", "os.name"):
                asked.append(f"{path.name}:{node.lineno}")
    assert asked == []


def test_a_lock_excludes_another_descriptor(two: tuple[int, int]) -> None:
    """The lock belongs to the open file, not to the process, so sessions of one process count."""
    first, second = two
    assert _platform.try_lock(first)
    assert not _platform.try_lock(second)
    _platform.unlock(first)
    assert _platform.try_lock(second)
    _platform.unlock(second)


def test_closing_another_descriptor_keeps_the_lock(file: Path, two: tuple[int, int]) -> None:
    """Unlike a POSIX record lock, it doesn't vanish when the file is opened and closed again."""
    first, second = two
    assert _platform.try_lock(first)
    os.close(_platform.open_file(str(file), os.O_RDONLY, permanent=True))
    assert not _platform.try_lock(second)
    _platform.unlock(first)


def test_a_waiter_gets_the_lock_of_another_process(
    file: Path, holder: subprocess.Popen[str], two: tuple[int, int]
) -> None:
    """`lock` waits until the other process unlocks."""
    fd = two[0]
    assert not _platform.try_lock(fd)
    locked = threading.Event()

    def wait() -> None:
        _platform.lock(fd)
        locked.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not locked.wait(0.1)
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert locked.wait(PATIENCE)
    _platform.unlock(fd)
    thread.join(PATIENCE)


def test_a_killed_process_has_no_lock(holder: subprocess.Popen[str], two: tuple[int, int]) -> None:
    """The kernel gives a lock back when its process dies."""
    assert not _platform.try_lock(two[0])
    holder.kill()
    holder.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while not _platform.try_lock(two[0]):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    _platform.unlock(two[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who has a lock")
def test_linux_names_the_holder(holder: subprocess.Popen[str], two: tuple[int, int]) -> None:
    """The kernel's table says which process has the lock, and that nobody has it afterwards."""
    assert _platform.holder_of(two[0]) == holder.pid
    holder.kill()
    holder.wait(PATIENCE)
    assert _platform.holder_of(two[0]) is None


def test_positioned_reads_and_writes(two: tuple[int, int]) -> None:
    """Bytes are read and written where the call says."""
    fd = two[0]
    assert _platform.pwrite(fd, b"ab", 4) == 2
    assert _platform.pread(fd, 4, 3) == b"3ab6"
    assert _platform.pread(fd, 10, 8) == b"89"
    assert _platform.pread(fd, 10, 20) == b""


def test_the_header_can_be_used_while_the_lock_is_held(two: tuple[int, int]) -> None:
    """Whoever has no lock can still read and write behind byte 0."""
    first, second = two
    assert _platform.try_lock(first)
    assert _platform.pwrite(first, b"ab", 4) == 2
    assert _platform.pread(second, 2, 4) == b"ab"
    assert _platform.pwrite(second, b"cd", 4) == 2
    _platform.unlock(first)
    assert _platform.pread(first, 2, 4) == b"cd"


def test_appending_goes_to_the_end(file: Path) -> None:
    """A file opened for appending grows at its end, wherever it was read before."""
    fd = _platform.open_file(str(file), os.O_RDWR | os.O_APPEND)
    try:
        with file.open("ab") as other:
            other.write(b"-theirs")
        assert _platform.pread(fd, 2, 0) == b"01"
        os.write(fd, b"-ours")
        _platform.sync_data(fd)
    finally:
        os.close(fd)
    assert file.read_bytes() == b"0123456789-theirs-ours"


def test_a_file_open_for_appending_can_be_cut(file: Path) -> None:
    """`truncate` shortens the file, and appending goes on behind the cut."""
    fd = _platform.open_file(str(file), os.O_RDWR | os.O_APPEND)
    try:
        _platform.truncate(fd, str(file), 4)
        os.write(fd, b"x")
    finally:
        os.close(fd)
    assert file.read_bytes() == b"0123x"


def test_a_new_file_is_made_once(tmp_path: Path) -> None:
    """An exclusive creation refuses a name that is taken, and makes no second file."""
    path = tmp_path / "new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(_platform.open_file(str(path), flags))
    with pytest.raises(FileExistsError) as caught:
        _platform.open_file(str(path), flags)
    assert caught.value.filename == str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows a new file has its folder's rights")
def test_a_new_file_is_private(tmp_path: Path) -> None:
    """Nobody else can read a file that we make."""
    path = tmp_path / "new"
    os.close(_platform.open_file(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Opening what isn't there says so at once, and says what it was."""
    with pytest.raises(FileNotFoundError) as caught:
        _platform.open_file(str(tmp_path / "missing"), os.O_RDWR)
    assert caught.value.filename == str(tmp_path / "missing")


def test_no_child_inherits_a_descriptor(file: Path) -> None:
    """A program that we start doesn't keep our files open, let alone our locks."""
    fd = _platform.open_file(str(file), os.O_RDWR)
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_planted_link_is_not_followed(file: Path) -> None:
    """A symbolic link in a lock file's place is refused."""
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        _platform.open_file(str(link), os.O_RDWR)


def test_replacing_takes_the_name(file: Path) -> None:
    """The new file has the old one's name, and the temporary name is gone."""
    new = file.with_name("new")
    new.write_bytes(b"new")
    _platform.require_replaceable(str(file))
    _platform.replace_file(str(new), str(file))
    assert file.read_bytes() == b"new"
    assert not new.exists()
    _platform.sync_folder(str(file.parent))


def test_a_resolved_path_is_one_name(file: Path) -> None:
    """Detours lead to the same name, and a name that isn't there yet is kept."""
    resolved = _platform.resolve(str(file))
    assert _platform.resolve(str(file.parent / "x" / ".." / "file")) == resolved
    assert os.path.isabs(_platform.resolve("nowhere"))
    assert _platform.spelled(resolved) == resolved


def test_the_boot_has_one_name() -> None:
    """16 bytes, the same for every process of a boot."""
    code = "from cosession import _platform; print(_platform.boot_id().hex())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert len(_platform.boot_id()) == 16
    assert other.stdout.strip() == _platform.boot_id().hex()
    if sys.platform != "darwin":
        assert any(_platform.boot_id())


def test_a_full_disk_is_told_from_a_file_in_use() -> None:
    """The kinds of errors that a caller can do something about are told apart."""
    assert _platform.full(OSError(errno.ENOSPC, ""))
    assert not _platform.full(OSError(errno.EACCES, ""))
    assert not _platform.blocked(OSError(errno.ENOSPC, ""))


def test_who_and_where_are_strings() -> None:
    """What goes on a holder's card is short text, or nothing, and never fails."""
    assert isinstance(_platform.user(), str)
    assert isinstance(_platform.terminal(), str)
