"""Bad places: what lies where the session, its lock or its folder should be, and who may use it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bad.operations import APPENDS, OPERATIONS, REPLACES, SEED, message, seeded
from bad.soundness import assert_memory_is_file, assert_sound, fold, open_descriptors, rotated
from cosession import (
    BlockingSession,
    CosessionError,
    HardLinked,
    NotASession,
    NotWritable,
    ReadOnlySession,
    Session,
    SessionMissing,
    StorageError,
)

if sys.platform == "win32":
    pytest.skip("pipes, links and permissions of POSIX; tests_windows has Windows' own", True)

AS_ROOT = os.getuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can act as two users")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return seeded(tmp_path / "context.jsonl")


@pytest.fixture
def lock(path: Path) -> Path:
    return path.with_name("context.jsonl.lock")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private to one."""
    folder = Path(tempfile.mkdtemp()).resolve()
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


PLACES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/null"),
    "loop of links": lambda path: path.symlink_to(path),
}


def kept(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    return status.st_mode, status.st_size, status.st_ino


# ---- in the file's place ------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
@pytest.mark.parametrize("what", PLACES)
def test_no_session_opens_on_what_is_no_file(tmp_path: Path, what: str, read_only: bool) -> None:
    """A folder, pipe, socket or device raises NotASession at once, and is left as it is."""
    path = tmp_path / "context.jsonl"
    PLACES[what](path)
    before, descriptors = kept(path), open_descriptors()
    with pytest.raises(NotASession):
        BlockingSession(path, read_only=read_only).open()
    assert kept(path) == before
    assert os.listdir(tmp_path) == ["context.jsonl"]
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("name", [*OPERATIONS, "refresh"])
@pytest.mark.parametrize("what", PLACES)
def test_the_file_turns_into_something_else_while_it_is_open(
    path: Path, what: str, name: str
) -> None:
    """Every operation raises an error of ours; when the file is back the session goes on."""
    with BlockingSession(path) as session:
        moved = path.rename(path.with_name("moved"))
        PLACES[what](path)
        before = kept(path)
        with pytest.raises((NotASession, StorageError)):
            session.refresh() if name == "refresh" else OPERATIONS[name](session)
        assert kept(path) == before
        path.rmdir() if what == "folder" else path.unlink()
        moved.rename(path)
        assert path.read_bytes() == SEED
        session.append(message("goes on"))
        assert_sound(session)
        assert len(session.history) == 4


@pytest.mark.parametrize("what", PLACES)
def test_a_reader_is_told_that_the_file_turned_into_something_else(path: Path, what: str) -> None:
    """A refresh raises and leaves memory as it was; nothing is read from a pipe or a device."""
    with BlockingSession(path, read_only=True) as reader:
        moved = path.rename(path.with_name("moved"))
        PLACES[what](path)
        with pytest.raises((NotASession, StorageError)):
            reader.refresh()
        assert len(reader.history) == 3
        path.rmdir() if what == "folder" else path.unlink()
        moved.rename(path)
        reader.refresh()
        assert_memory_is_file(reader)


async def test_the_asynchronous_session_meets_the_same_errors(tmp_path: Path) -> None:
    """Opening a folder, or in a missing folder, raises from Session as from BlockingSession."""
    with pytest.raises(NotASession):
        async with Session(tmp_path):
            pass
    with pytest.raises(SessionMissing, match="create it first"):
        async with Session(tmp_path / "missing" / "context.jsonl"):
            pass
    with pytest.raises(SessionMissing):
        async with Session(tmp_path / "context.jsonl", create=False):
            pass
    assert not os.listdir(tmp_path)


# ---- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["missing", "missing/deeper", "file"])
def test_a_missing_folder_is_named_and_not_made(tmp_path: Path, below: str) -> None:
    """A path in no folder raises, and nothing is made on the way."""
    (tmp_path / "file").touch()
    for options in ({}, {"read_only": True}, {"create": False}):
        with pytest.raises((SessionMissing, NotASession), match="context"):
            BlockingSession(tmp_path / below / "context.jsonl", **options).open()  # type: ignore[call-overload]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", [*OPERATIONS, "refresh"])
def test_the_folder_goes_while_the_session_is_open(tmp_path: Path, name: str) -> None:
    """Without its folder every operation raises SessionMissing; with a new one it starts afresh."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = seeded(folder / "context.jsonl")
    with BlockingSession(path) as session:
        shutil.rmtree(folder)
        for _ in range(2):
            with pytest.raises(SessionMissing):
                session.refresh() if name == "refresh" else OPERATIONS[name](session)
        assert not folder.exists()
        folder.mkdir()
        session.append(message("afresh"))
        assert_sound(session)
        assert [m.content for m in session.history] == ["afresh"]
        folder.rename(tmp_path / "away")
        with pytest.raises(SessionMissing):
            session.append(message("lost"))
        (tmp_path / "away").rename(folder)
        session.append(message("back"))
        assert [m.content for m in session.history] == ["afresh", "back"]


def test_a_folder_of_locks_is_private_and_made_when_needed(path: Path, tmp_path: Path) -> None:
    """`lock_dir` is made with 0700, holds the only lock, and a reader doesn't make it."""
    locks = tmp_path / "state" / "locks"
    with BlockingSession(path, read_only=True, lock_dir=locks):
        assert not locks.exists()
    with BlockingSession(path, lock_dir=locks) as session:
        session.append(message("x"))
        assert stat.S_IMODE(locks.stat().st_mode) == 0o700
        assert [stat.S_IMODE(lock.stat().st_mode) for lock in locks.iterdir()] == [0o644]
        shutil.rmtree(locks)
        with pytest.raises(SessionMissing):
            session.append(message("no lock, no write"))
        locks.mkdir()
        session.append(message("y"))
        assert_sound(session)
    assert not path.with_name("context.jsonl.lock").exists()


def test_two_sessions_of_one_name_have_two_locks_in_one_folder(tmp_path: Path) -> None:
    """Lock files in a common folder are told apart by the whole path of their session."""
    for name in "ab":
        (tmp_path / name).mkdir()
        with BlockingSession(tmp_path / name / "context.jsonl", lock_dir=tmp_path / "locks"):
            pass
    assert len(list((tmp_path / "locks").iterdir())) == 2


@pytest.mark.parametrize("what", ["file", "loop of links"])
def test_something_else_lies_where_the_folder_of_locks_should_be(
    path: Path, tmp_path: Path, what: str
) -> None:
    """Opening raises an error of ours that names the place."""
    place = tmp_path / "locks"
    place.touch() if what == "file" else place.symlink_to(place)
    with pytest.raises(CosessionError, match="locks"):
        BlockingSession(path, lock_dir=place).open()


# ---- in the lock file's place -------------------------------------------------------------------


@pytest.mark.parametrize("what", PLACES)
def test_what_lies_in_the_locks_place_is_refused_and_left(
    path: Path, lock: Path, what: str
) -> None:
    """No lock is no session for a writer, who is told so at once; a reader doesn't need one."""
    PLACES[what](lock)
    before, descriptors = kept(lock), open_descriptors()
    with pytest.raises((NotASession, StorageError), match="lock"):
        BlockingSession(path).open()
    with BlockingSession(path, read_only=True) as reader:
        assert_memory_is_file(reader)
        assert len(reader.history) == 3
    assert kept(lock) == before
    assert path.read_bytes() == SEED
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("what", [*PLACES, "link to a file"])
def test_the_lock_turns_into_something_else_while_it_is_open(
    path: Path, lock: Path, tmp_path: Path, what: str
) -> None:
    """Every operation raises and follows no link; when that is gone the session goes on."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with BlockingSession(path) as session:
        for name, operation in OPERATIONS.items():
            lock.unlink()
            PLACES[what](lock) if what in PLACES else lock.symlink_to(victim)
            before = kept(lock)
            with pytest.raises((NotASession, StorageError), match="lock"):
                operation(session)
            with suppress(CosessionError):  # it reads what it can, but can't heal
                session.refresh()
            assert_memory_is_file(session)
            assert kept(lock) == before, name
            lock.rmdir() if what == "folder" else lock.unlink()
            assert path.read_bytes() == SEED
            session.checkpoint()
            path.write_bytes(SEED)
    assert victim.read_bytes() == b"precious"


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"x",
    "text": b"not a lock at all\n" * 100,
    "NULs": bytes(600),
    "a torn header": bytes(16) + b"cosessn1" + b"\xff" * 600,
    "a cut header": b"",
    "a flipped bit": b"",
}


@pytest.mark.parametrize("name", [*OPERATIONS, "refresh", "open"])
@pytest.mark.parametrize("what", GARBAGE)
def test_a_damaged_lock_file_is_made_anew_from_the_file(
    path: Path, lock: Path, what: str, name: str
) -> None:
    """Whatever the lock file's bytes are: the data file is the session, and none of it is lost."""
    with BlockingSession(path) as session:
        header = lock.read_bytes()
        data = GARBAGE[what]
        if what == "a cut header":
            data = header[:40]
        elif what == "a flipped bit":
            data = header[:60] + bytes([header[60] ^ 4]) + header[61:]
        lock.write_bytes(data)
        if name == "open":
            with BlockingSession(path) as other:
                assert_sound(other)
        elif name == "refresh":
            session.refresh()
        else:
            OPERATIONS[name](session)
        assert_sound(session)
        assert len(lock.read_bytes()) > 100
        assert SEED in (
            path.read_bytes()[: len(SEED)],
            *(old.read_bytes() for old in rotated(path)),
        )


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_deleted_lock_file_is_made_anew(path: Path, lock: Path, name: str) -> None:
    """Two sessions whose lock file is deleted meet again on the new one."""
    with BlockingSession(path) as one, BlockingSession(path) as two:
        lock.unlink()
        OPERATIONS[name](one)
        inode = lock.stat().st_ino
        two.append(message("from the other"))
        assert lock.stat().st_ino == inode
        one.refresh()
        assert_sound(one)
        assert_sound(two)
        assert list(one.history) == list(two.history)
        assert one.history[-1].content == "from the other"


# ---- links --------------------------------------------------------------------------------------


def test_two_names_by_links_are_one_session_with_one_lock(path: Path, tmp_path: Path) -> None:
    """A session is named by where its links lead; the lock lies there, and nothing beside them."""
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "file").symlink_to(path)
    (tmp_path / "through").symlink_to(tmp_path, target_is_directory=True)
    through = tmp_path / "through" / "context.jsonl"
    with BlockingSession(folder / "file") as one, BlockingSession(through) as two:
        assert one.path == two.path == path.resolve()
        one.append(message("one"))
        two.clear()
        one.append(message("two"))
        two.refresh()
        assert [m.content for m in two.history] == ["two"]
    assert (folder / "file").is_symlink()
    assert os.listdir(folder) == ["file"]


def test_a_dangling_link_names_the_file_to_be_made(tmp_path: Path) -> None:
    """The file is made where the link leads, and the link stays a link."""
    link, target = tmp_path / "link.jsonl", tmp_path / "target.jsonl"
    link.symlink_to(target)
    with pytest.raises(SessionMissing):
        BlockingSession(link, create=False).open()
    with BlockingSession(link) as session:
        session.append(message("x"))
        assert_sound(session)
    assert link.is_symlink()
    assert not target.is_symlink()
    link.unlink()
    link.symlink_to(tmp_path / "missing" / "target.jsonl")
    with pytest.raises(SessionMissing):
        BlockingSession(link).open()


def test_a_hard_linked_file_is_refused_and_left(path: Path, tmp_path: Path) -> None:
    """Two hard links would be two locks: HardLinked, before anything is written."""
    other = tmp_path / "other.jsonl"
    other.hardlink_to(path)
    with pytest.raises(HardLinked) as caught:
        BlockingSession(path).open()
    assert caught.value.links == 2
    with BlockingSession(path, read_only=True) as reader:
        assert len(reader.history) == 3
    other.unlink()
    with BlockingSession(path) as session:
        other.hardlink_to(path)
        for operation in OPERATIONS.values():
            with pytest.raises(HardLinked):
                operation(session)
        assert path.read_bytes() == other.read_bytes() == SEED
        other.unlink()
        session.append(message("goes on"))
        assert_sound(session)


def test_our_own_second_name_left_by_a_crash_is_undone(path: Path) -> None:
    """A rotation name that a dead process gave to the live file is taken away again."""
    path.with_name("context_1.jsonl").write_bytes(b"an older one\n")
    path.with_name("context_2.jsonl").hardlink_to(path)
    with BlockingSession(path) as session:
        session.append(message("x"))
        assert_sound(session)
        assert [old.read_bytes() for old in rotated(path)] == [b"an older one\n"]
        assert session.clear() == path.with_name("context_2.jsonl")


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_rotation_never_takes_a_name_that_is_in_use(
    path: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, folders and links that bear rotation names stay; the next number is taken."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path.with_name("context_1.jsonl").write_bytes(b"mine")
    path.with_name("context_7.jsonl").mkdir()
    path.with_name("context_8.jsonl").symlink_to(tmp_path / "nowhere")
    path.with_name("context_x.jsonl").write_bytes(b"no number")
    with BlockingSession(path) as session:
        assert session.clear() == path.with_name("context_9.jsonl")
    assert path.with_name("context_9.jsonl").read_bytes() == SEED
    assert path.with_name("context_1.jsonl").read_bytes() == b"mine"
    assert path.with_name("context_8.jsonl").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def no_links(*args: object, **options: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


# ---- private by default -------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_new_files_are_private(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a umask of 0 still nobody else may read the file, its lock or its rotations."""
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with BlockingSession(tmp_path / "context.jsonl") as session:
        session.append(message("secret"))
        for _ in range(2):
            session.set_system_prompt("secret")
    assert len(list(tmp_path.iterdir())) == 5
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("wanted", [0o600, 0o640, 0o664, 0o400])
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_modes_are_kept_through_a_replace(
    path: Path, wanted: int, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new file and a copied rotation have the old file's mode, never more."""
    if wanted == 0o400 and not AS_ROOT:
        pytest.skip("only root writes to a read-only file")
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path.chmod(wanted)
    with BlockingSession(path) as session:
        for operation in REPLACES.values():
            operation(session)
            path.write_bytes(SEED)
        assert {mode(file) for file in [path, *rotated(path)]} == {wanted}


@needs_root
def test_the_owner_is_kept_through_a_replace(path: Path) -> None:
    """What root does to somebody's session stays theirs: file, rotation and lock."""
    os.chown(path, 1234, 2345)
    with BlockingSession(path) as session:
        session.clear()
        session.append(message("x"))
        session.set_system_prompt("y")
    for file in path.parent.iterdir():
        assert (file.stat().st_uid, file.stat().st_gid) == (1234, 2345), file


@pytest.mark.usefixtures("open_umask")
def test_what_is_put_aside_is_private(path: Path) -> None:
    """Bytes of an unfinished write go to a `.torn` file as private as the session."""
    from test_bad_days import leave_half_an_append

    path.chmod(0o600)
    leave_half_an_append(path)
    with BlockingSession(path) as session:
        assert len(session.repairs) == 1
        torn = Path(session.repairs[0].kept_in)
        assert mode(torn) == 0o600
        assert b'"new 1"' in torn.read_bytes()
        assert_sound(session)
    assert path.read_bytes() == SEED


@pytest.mark.parametrize("what", ["context.jsonl.torn", "context.jsonl.lock"])
def test_a_planted_link_is_not_followed(path: Path, tmp_path: Path, what: str) -> None:
    """A link where a file of ours belongs is an error, and what it leads to is not touched."""
    from test_bad_days import leave_half_an_append

    leave_half_an_append(path)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = path.with_name(what)
    aside = planted.rename(tmp_path / "aside") if planted.exists() else None
    planted.symlink_to(victim)
    with pytest.raises(StorageError):
        BlockingSession(path).open()
    assert victim.read_bytes() == b"precious"
    planted.unlink()
    if aside:
        aside.rename(planted)
    with BlockingSession(path) as session:
        assert_sound(session)
        assert fold(path.read_bytes()).contents == fold(SEED).contents


# ---- permissions --------------------------------------------------------------------------------


def as_user(whats: str, path: Path, *options: str) -> list[str]:
    """Do things to the session in a process of a user without rights; what came of each."""
    done = subprocess.run(
        [sys.executable, "-m", "bad.as_user", whats, str(path), *options],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for warm in path.parent.glob("*.warm*"):
        warm.unlink()
    return [line.partition(": ")[2] for line in done.stdout.splitlines()]


NOBODY = 65534


def give(path: Path, mode: int) -> None:
    if AS_ROOT:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)


def test_a_read_only_file_can_only_be_read(public: Path) -> None:
    """A writer is told that it may not write; `read_only=True` reads."""
    path = seeded(public / "context.jsonl")
    give(path, 0o444)
    give(public, 0o755)
    *writers, reader = as_user("open,append one,clear,read", path)
    assert all(line.startswith("NotWritable of PermissionError") for line in writers)
    assert reader == "read 3"
    assert path.read_bytes() == SEED


@needs_root
def test_a_read_only_folder_holds_no_lock(public: Path) -> None:
    """Without a lock file and the right to make one there is no writing; reading needs neither."""
    path = seeded(public / "context.jsonl")
    give(path, 0o600)
    *writers, reader = as_user("open,append one,clear,read", path)
    assert all(line.startswith("NotWritable of PermissionError") for line in writers)
    assert reader == "read 3"
    assert os.listdir(public) == ["context.jsonl"]
    assert path.read_bytes() == SEED


def test_a_file_that_may_not_be_seen_is_an_error_of_ours(public: Path) -> None:
    """Without the right to read it, opening raises NotWritable whatever is wanted."""
    path = seeded(public / "context.jsonl")
    give(path, 0o000)
    give(public, 0o755)
    for line in as_user("open,append one,read", path):
        assert line.startswith("NotWritable of PermissionError")


@needs_root
def test_a_folder_that_may_not_be_entered_is_an_error_of_ours(public: Path) -> None:
    """Without the right to enter its folder, opening raises NotWritable whatever is wanted."""
    inner = public / "inner"
    inner.mkdir()
    path = seeded(inner / "context.jsonl")
    give(path, 0o666)
    inner.chmod(0o700)
    for line in as_user("open,append one,read", path):
        assert line.startswith("NotWritable of PermissionError")


@needs_root
def test_a_lock_of_somebody_else_keeps_writers_out(public: Path) -> None:
    """A lock file that may not be written is no lock; reading goes without it."""
    path = seeded(public / "context.jsonl")
    give(path, 0o600)
    give(public, 0o755)
    lock = path.with_name("context.jsonl.lock")
    lock.touch(mode=0o644)
    writer, reader = as_user("append one,read", path)
    assert writer.startswith("NotWritable of PermissionError")
    assert reader == "read 3"
    assert lock.read_bytes() == b""


@needs_root
def test_a_session_shared_by_a_group_stays_shared(public: Path) -> None:
    """Who is in the file's group may append and replace, and the group keeps its rights."""
    path = seeded(public / "context.jsonl")
    os.chown(path, 0, NOBODY + 1)
    path.chmod(0o660)
    os.chown(public, 0, NOBODY + 1)
    public.chmod(0o775)
    with BlockingSession(path):
        pass
    lines = as_user("append one,clear,append one", path, "in the group")
    assert lines == ["read 4", "read 0", "read 1"]
    assert path.stat().st_gid == NOBODY + 1
    assert mode(path) == 0o660
    with BlockingSession(path) as session:
        session.append(message("root"))
        assert_sound(session)


@needs_root
def test_a_group_that_we_are_not_in_costs_the_group_its_rights(public: Path) -> None:
    """A new file that can't have the old group gives our own group nothing in its place."""
    path = seeded(public / "context.jsonl")
    os.chown(path, NOBODY, NOBODY + 1)
    path.chmod(0o660)
    give(public, 0o755)
    assert as_user("clear", path) == ["read 0"]
    assert path.stat().st_gid == NOBODY
    assert mode(path) == 0o600


def test_rights_that_go_and_come_back(public: Path) -> None:
    """A folder that loses its rights under an open session costs what needs them, and no more."""
    path = seeded(public / "context.jsonl")
    give(path, 0o600)
    give(public, 0o755)
    lines = as_user("suffer", path)
    refused = [line for line in lines if "NotWritable" in line]
    assert len(refused) == len(lines) - 1 >= len(REPLACES) + len(OPERATIONS)
    contents = fold(path.read_bytes()).contents
    assert contents.count("goes on") == 2
    assert contents[:3] == ["one", "two", "three"]


# ---- read-only sessions -------------------------------------------------------------------------


def test_a_reader_changes_nothing_and_may_not(path: Path, tmp_path: Path) -> None:
    """Every change raises ReadOnlySession; no byte, file or time changes; refreshing works."""
    path.write_bytes(SEED + b"unfinished")

    def snapshot() -> dict[str, tuple[int, bytes]]:
        return {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in tmp_path.iterdir()}

    before = snapshot()
    with BlockingSession(path, read_only=True) as reader:
        for operation in OPERATIONS.values():
            with pytest.raises(ReadOnlySession):
                operation(reader)
        reader.refresh()
        assert_memory_is_file(reader)
        assert snapshot() == before
        with BlockingSession(path) as writer:
            for name in (*APPENDS, *REPLACES):
                OPERATIONS[name](writer)
                reader.refresh()
                assert reader.revision == writer.revision
                assert_sound(reader)
                writer.clear()
                path.write_bytes(SEED)
        path.unlink()
        with pytest.raises(SessionMissing):
            reader.refresh()
        assert not path.exists()


def test_a_reader_of_a_missing_file_makes_none(tmp_path: Path) -> None:
    """Opening a missing file to read raises SessionMissing, whatever `create` says."""
    with pytest.raises(SessionMissing):
        BlockingSession(tmp_path / "context.jsonl", read_only=True, create=True).open()
    assert not os.listdir(tmp_path)
    with pytest.raises(NotWritable) if not AS_ROOT else pytest.raises(SessionMissing):
        BlockingSession("/proc/self/none", read_only=not AS_ROOT, create=not AS_ROOT).open()
