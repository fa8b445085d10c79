"""Bad days: whatever the system refuses at whatever call, the session says so and loses nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bad.faults import failing, watched
from bad.operations import OPERATIONS, SEED, after, message, seeded
from bad.soundness import (
    assert_memory_is_file,
    assert_sound,
    fold,
    leftovers,
    open_descriptors,
    rotated,
)
from conftest import Tally
from cosession import (
    BlockingSession,
    CosessionError,
    Message,
    Session,
    SessionMissing,
    StorageError,
    StorageFull,
    SyncFailed,
    Unsettled,
)

if sys.platform == "win32":
    pytest.skip("these refusals are POSIX's; tests_windows has those of Windows", True)

PAGE = 4096
BROKEN_DISK = errno.EIO
ERRORS: dict[str, tuple[int, ...]] = {
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "pwrite": (errno.ENOSPC, errno.EIO),
    "open": (errno.EMFILE, errno.EACCES),
    "link": (errno.EIO, errno.ENOSPC, errno.EPERM),
    "replace": (errno.EACCES, errno.EIO),
    "unlink": (errno.EIO,),
    "fchmod": (errno.EPERM,),
    "pread": (errno.EIO, errno.EINTR),
}


# ---- every call of every operation fails ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "durability"),
    [
        pytest.param(name, durability, marks=[] if tried else [pytest.mark.deep])
        for durability in ("process", "power")
        for name in OPERATIONS  # without syncs they fail in test_faults, too
        for tried in [durability == "power" or name in ("append three", "compact")]
    ],
)
def test_a_failing_call_undoes_the_operation_or_does_it_no_harm(
    tmp_path: Path, tally: Tally, name: str, durability: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each call of an operation fails, once or for good: it happens whole, or raises and has not.

    Afterwards memory is the file, nothing is left over, no descriptor is lost, and the session
    goes on as soon as the cause is gone. Where even undoing fails, it says so, and whole or
    nothing is all that can be promised.
    """
    clean = tmp_path / "clean"
    clean.mkdir()
    wanted = {True: after(clean, name), False: SEED}
    count = 0
    for call, calls in calls_of(tmp_path, name, durability).items():
        for number in range(calls):
            for error in ERRORS.get(call, (BROKEN_DISK,)):
                for last in (number, None) if error == ERRORS.get(call, (error,))[0] else (number,):
                    count += 1
                    folder = tmp_path / f"{count}"
                    folder.mkdir()
                    caplog.clear()
                    try:
                        one_fault(
                            folder,
                            name,
                            durability,
                            failing(call, number, error, last=last),
                            wanted,
                            caplog,
                        )
                    except BaseException as failure:
                        how = "once" if last is not None else "for good"
                        failure.add_note(
                            f"{call} number {number} failed {how}: {os.strerror(error)}"
                        )
                        raise
    tally(count)
    assert count > 10


@pytest.mark.parametrize("name", ["revert", "compact"])
def test_a_failing_call_where_there_are_no_hard_links(
    tmp_path: Path,
    tally: Tally,
    name: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same where the old file must be copied: each call of that may fail as well."""
    forbid_links(monkeypatch)
    test_a_failing_call_undoes_the_operation_or_does_it_no_harm(
        tmp_path, tally, name, "process", caplog
    )


@pytest.mark.parametrize("name", ["append one", "append three", "checkpoint"])
async def test_a_failing_call_on_the_event_loops_thread(tmp_path: Path, name: str) -> None:
    """What fails in a small commit on the loop's own thread is refused, or done once elsewhere."""

    async def act(session: Session[Message]) -> None:
        if name == "checkpoint":
            await session.checkpoint()
        else:
            count = 3 if name == "append three" else 1
            await session.append([message(f"new {n + 1}") for n in range(count)])

    clean = tmp_path / "clean"
    clean.mkdir()
    wanted = after(clean, name)
    async with Session(seeded(clean / "context.jsonl")) as session:
        with watched() as faults:
            await act(session)
    calls = Counter(faults.made)
    assert calls["write"] == 1, "it was not done on this thread"
    for call, number in [(call, number) for call in calls for number in range(calls[call])]:
        for last in (number, None):
            folder = tmp_path / f"{call}-{number}-{last}"
            folder.mkdir()
            path = seeded(folder / "context.jsonl")
            async with Session(path) as session:
                acknowledged = False
                with watched() as faults, suppress(CosessionError):
                    faults.before = failing(call, number, errno.EIO, last=last)
                    await act(session)
                    acknowledged = True
                await session.refresh()
                assert_sound(session)
                outcomes = [wanted] if acknowledged else [SEED]
                if not acknowledged and call in ("fstat", "pread", "pwrite"):
                    outcomes.append(wanted)  # the disk failed for the undoing, too
                assert path.read_bytes() in outcomes, (call, number, last)
                await session.append(message("goes on"), timeout=10)
                assert_sound(session)


def calls_of(tmp_path: Path, name: str, durability: str) -> Counter[str]:
    """How often an operation makes each system call."""
    path = seeded(tmp_path / "context.jsonl")
    with BlockingSession(path, durability=durability) as session, watched() as faults:  # type: ignore[call-overload]
        OPERATIONS[name](session)
    return Counter(faults.made)


def one_fault(
    folder: Path,
    name: str,
    durability: str,
    before: Callable[[str, int], None],
    wanted: dict[bool, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = seeded(folder / "context.jsonl")
    descriptors = open_descriptors()
    with BlockingSession(path, durability=durability) as session:  # type: ignore[call-overload]
        raised: CosessionError | None = None
        with watched() as faults:
            faults.before = before
            try:
                OPERATIONS[name](session)
            except CosessionError as caught:
                raised = caught
        assert_memory_is_file(session)
        if isinstance(raised, SyncFailed):
            with pytest.raises(SyncFailed):
                session.append(message("refused"))
            session.close()
            session.open()
            assert path.read_bytes() in wanted.values()
        else:
            session.refresh()
            outcomes = wanted.values() if "could not undo" in caplog.text else [wanted[not raised]]
            assert path.read_bytes() in outcomes
        if raised is not None:
            assert isinstance(raised, StorageError | SessionMissing), raised
            assert raised.__cause__ is not None
            assert str(path) in str(raised)
        replaced = path.read_bytes() != SEED and len(rotated(path)) == 1
        assert not rotated(path) or (replaced and rotated(path)[0].read_bytes() == SEED)
        contents = fold(path.read_bytes()).contents
        session.append(message("goes on"))
        assert_sound(session)
        assert fold(path.read_bytes()).contents == [*contents, "goes on"]
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "reader"])
@pytest.mark.parametrize("what", ["seeded", "missing", "leftover"])
def test_a_failing_call_on_opening_is_an_error_and_no_loss(
    tmp_path: Path, what: str, read_only: bool
) -> None:
    """Each call while a session is opened, created or healed fails: opening again finds it all."""
    data = b"" if what == "missing" else SEED

    def prepare(folder: Path) -> Path:
        folder.mkdir()
        path = folder / "context.jsonl"
        if what != "missing" or read_only:
            path.write_bytes(data)
        if what == "leftover":
            leave_half_an_append(path)
        return path

    with watched() as faults:
        session = BlockingSession(prepare(tmp_path / "clean"), read_only=read_only)
        session.open()
    session.close()
    count = 0
    for call, calls in Counter(faults.made).items():
        for number in range(calls):
            for last in (number, None):
                count += 1
                path = prepare(tmp_path / f"{count}")
                descriptors = open_descriptors()
                session = BlockingSession(path, read_only=read_only)
                opened = False
                with watched() as faults, suppress(CosessionError):
                    faults.before = failing(call, number, errno.EIO, last=last)
                    session.open()
                    opened = True
                if not opened:
                    assert open_descriptors() == descriptors
                    session.open()
                session.refresh()
                assert_memory_is_file(session)
                assert fold(path.read_bytes()[: session.revision.position]).contents == (
                    fold(data).contents
                )
                session.close()
                assert open_descriptors() == descriptors
                if not read_only:
                    with BlockingSession(path) as session:
                        session.append(message("goes on"))
                        assert_sound(session)
                        assert session.history[-1].content == "goes on"
    assert count > 5


def leave_half_an_append(path: Path) -> None:
    """Leave what a process leaves that is killed in the middle of an append of three records."""
    real, written = os.write, list[bytes]()

    def write(fd: int, data: bytes) -> int:
        if written:
            raise OSError(errno.EIO, "the end")
        written.append(bytes(data)[:45])
        return real(fd, written[0])

    def ftruncate(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "the end")

    with BlockingSession(path) as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(os, "ftruncate", ftruncate)
        with pytest.raises(StorageError):
            OPERATIONS["append three"](session)
    assert path.read_bytes() == SEED + written[0]
    assert written[0].endswith(b'}\n{"role":"us')


# ---- full disks -------------------------------------------------------------------------------


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.deep)])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 pages in memory, or one of a few hundred on a loop device."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "tmpfs":
        run_or_skip("mount", "-t", "tmpfs", "-o", f"size={16 * PAGE}", "none", str(folder))
    else:
        image = tmp_path / "image"
        image.write_bytes(bytes(2 << 20))
        run_or_skip("mkfs.ext4", "-q", "-b", "1024", "-m", "0", str(image))
        run_or_skip("mount", "-o", "loop", str(image), str(folder))
        (folder / "lost+found").rmdir()
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


def run_or_skip(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        pytest.skip(f"can't run {command[0]}: {error}")
    if done.returncode:
        pytest.skip(f"no small file system here: {command[0]}: {done.stderr.strip()}")


def fill(folder: Path, free: int) -> Path:
    """Take all space but so many bytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    status = os.statvfs(folder)
    with suppress(OSError):  # ext4 counts what it has yet to allocate: then it is full all the same
        filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - free)))
    return filler


LARGE = {
    "append large": lambda session: session.append(
        [message(f"new {number}" + "x" * 3000) for number in range(4)]
    ),
    "append to a long table": lambda session: session.append(
        [message(str(number)) for number in range(700)]
    ),
} | OPERATIONS


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("name", LARGE)
def test_on_a_full_disk_an_operation_is_undone_and_works_again_with_space(
    small_disk: Path, tally: Tally, name: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any number of pages left, StorageFull leaves the file as it was; with more it works."""
    tally(8)
    if not links:
        forbid_links(monkeypatch)
    path = small_disk / "context.jsonl"
    failed = 0
    for pages in range(8):
        for old in small_disk.iterdir():
            old.unlink()
        seeded(path)
        with BlockingSession(path) as session:
            # A rotation by copy imports a package on first use, which isn't what is tested.
            filler = fill(small_disk, pages * PAGE)
            try:
                LARGE[name](session)
            except StorageFull as error:
                failed += 1
                assert error.errno in (errno.ENOSPC, errno.EDQUOT)
                assert path.read_bytes() == SEED
                assert not leftovers(path)
                assert not rotated(path)
                assert_memory_is_file(session)
                filler.unlink()
                LARGE[name](session)
            else:
                filler.unlink()
            assert_sound(session)
            assert path.read_bytes() != SEED
            assert not rotated(path) or [old.read_bytes() for old in rotated(path)] == [SEED]
    if "large" in name or "long" in name:
        assert failed


def test_no_session_starts_on_a_full_disk_but_it_can_be_read(small_disk: Path) -> None:
    """Without space for the lock file's header, opening raises StorageFull; reading needs none."""
    path = seeded(small_disk / "context.jsonl")
    filler = fill(small_disk, 0)
    descriptors = open_descriptors()
    for _ in range(2):
        with pytest.raises(StorageFull):
            BlockingSession(path).open()
        with pytest.raises(StorageFull):
            BlockingSession(small_disk / "new.jsonl").open()
    assert open_descriptors() == descriptors
    with BlockingSession(path, read_only=True) as reader:
        assert_memory_is_file(reader)
        assert len(reader.history) == 3
    filler.unlink()
    for name in ("context.jsonl", "new.jsonl"):
        with BlockingSession(small_disk / name) as session:
            session.append(message("goes on"))
            assert_memory_is_file(session)


def forbid_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a file system without hard links."""

    def link(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def run_child(*arguments: str) -> str:
    """Run a script of `bad` in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "append three",
        "revert",
        *(
            pytest.param(name, marks=pytest.mark.deep)
            for name in ("append one", "append many", "checkpoint", "compact")
        ),
    ],
)
def test_a_size_limit_at_any_byte_undoes_the_operation(
    tmp_path: Path, tally: Tally, name: str
) -> None:
    """With RLIMIT_FSIZE at every byte of the write the operation is undone, and works without.

    At some of the bytes, for a batch of many pages.
    """
    said = run_child("bad.size_limit", str(tmp_path), name).splitlines()
    tally(int(said[0].split()[0]))
    assert said[-1] == "failed at every limit"


@pytest.mark.parametrize("count", [1, 3])
def test_a_write_that_can_neither_be_published_nor_undone_is_said_to_be_unsettled(
    tmp_path: Path, count: int
) -> None:
    """Its bytes are all there: whether it has happened shows when the disk is back."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        session.append(message("before"))
        with watched() as faults:

            def before(name: str, number: int) -> None:
                written = faults.made.count("write")
                if written and name != "write":  # the disk goes right behind the write
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

            faults.before = before
            with pytest.raises(Unsettled, match="could not be undone"):
                session.append([message(str(number)) for number in range(count)])
        assert [m.content for m in session.history] == ["before"]
        other.append(message("after"))
        session.refresh()
        texts = [m.content for m in session.history]
        assert texts == ["before", *map(str, range(count)), "after"]
        assert session.damage == ()


@pytest.mark.parametrize("part", [0, 10])
def test_a_write_that_did_not_land_whole_has_not_happened_whatever_becomes_of_undoing_it(
    tmp_path: Path, part: int
) -> None:
    """What is left of it is put aside by the next one."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, BlockingSession(path) as other:
        session.append(message("before"))
        write = os.write
        cut_short = failing_after(lambda fd, data: part and write(fd, bytes(data)[:part]), 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", cut_short)
            patch.setattr(os, "ftruncate", failing_after(os.ftruncate, 0))
            patch.setattr(os, "pwrite", failing_after(os.pwrite, 1))
            with pytest.raises(StorageError) as caught:
                session.append(message("never"))
        assert not isinstance(caught.value, Unsettled)
        other.append(message("after"))
        assert [m.content for m in other.history] == ["before", "after"]


def failing_after(real: Any, good: int) -> Any:
    """A call that works so often, and then no more."""
    calls = iter(range(good))

    def call(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    return call
