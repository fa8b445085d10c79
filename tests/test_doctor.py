"""`cosession doctor` on folders that are fit, and on such that are not, each for its own reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from cosession import BlockingSession
from cosession.cli.app import app
from cosession.cli.doctor import dialogues
from cosession.cli.doctor.crew import Crew, NoAnswer, Refused
from cosession.cli.doctor.findings import Finding, State
from cosession.cli.exits import Exit
from doctor import faults
from doctor.report import Report, drop_privileges, examine

PROBES = {
    "file system", "synced", "room", "folder", "lock", "turn's lock", "append", "replace", "mode",
    "identity", "hard link", "mtime", "coherence", "sync", "a commit", "watch",
}  # fmt: skip

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts and privileges of Linux")
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


def lock(crew: Crew, folder: str) -> Finding:
    return dialogues.lock(crew, os.path.join(folder, "tried.jsonl.lock"), "lock")


def turns_lock(crew: Crew, folder: str) -> Finding:
    return dialogues.lock(crew, os.path.join(folder, "tried.jsonl.turn"), "turn's lock")


def naming(name: str) -> Callable[[Crew, str], Finding]:
    def call(crew: Crew, folder: str) -> Finding:
        [found] = [each for each in dialogues.naming(crew, folder) if each.probe == name]
        return found

    return call


@contextmanager
def a_crew(patience: float = 60) -> Iterator[Crew]:
    crew = Crew(patience)
    try:
        yield crew
    finally:
        crew.dismiss()


def until(true: Callable[[], bool], *, within: float = 30) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- folders that are fit -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, dict[str, bytes], Path]:
    """A report on a good folder with a session in it, and what was in the folder before."""
    folder = tmp_path_factory.mktemp("fit")
    with BlockingSession(folder / "context.jsonl") as session:
        session.append({"role": "user", "content": "hi"})
    before = contents(folder)
    return examine(folder / "context.jsonl"), before, folder


def test_a_plain_folder_is_safe(fit: tuple[Report, dict[str, bytes], Path]) -> None:
    """Every probe has an answer, nothing is off, and the verdict says so."""
    report, _, _ = fit
    assert set(report.states()) == PROBES | {"session"}
    assert set(report.states().values()) <= {"ok", "note", "unknown"}
    assert (report["lock"]["state"], report["turn's lock"]["state"]) == ("ok", "ok")
    assert report.verdict.startswith("Safe to share between processes on this machine.")
    assert (report.status, report.said["fit"]) == (Exit.OK, True)
    assert report["session"]["text"] == "1 lines, nothing is off"


def test_nothing_is_left_behind_and_the_session_is_as_it_was(
    fit: tuple[Report, dict[str, bytes], Path],
) -> None:
    """The private folder is gone, and no byte of the session or its lock file has changed."""
    report, before, folder = fit
    assert report.said["folder"] == str(folder.resolve())
    assert contents(folder) == before


def test_people_get_a_line_for_each_probe_and_the_verdict(tmp_path: Path) -> None:
    """Of a folder, and of locks that lie elsewhere."""
    (tmp_path / "locks").mkdir()
    result = CliRunner().invoke(
        app, ["doctor", "--lock-dir", str(tmp_path / "locks"), str(tmp_path)], prog_name="cosession"
    )
    assert result.exit_code == 0, result.output
    *lines, verdict = result.stdout.splitlines()
    assert {line[9:21].strip() for line in lines} == PROBES
    assert verdict.startswith("Safe to share")
    assert os.listdir(tmp_path) == ["locks"]
    assert os.listdir(tmp_path / "locks") == []


@pytest.mark.deep
@on_linux
def test_what_is_in_memory_is_safe_and_gone_at_the_next_boot() -> None:
    """A tmpfs is told by name, and the verdict says what it means."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm that can be written to")
    report = examine(Path("/dev/shm"))
    assert report["file system"]["figures"]["kind"] == "memory"
    assert report.verdict.endswith("Mind: its files are gone at the next boot.")
    assert report.status == Exit.OK


def test_a_folder_that_is_not_there_is_no_folder(tmp_path: Path) -> None:
    """Status 6, as for every command."""
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "no" / "context.jsonl")])
    assert (result.exit_code, result.stdout) == (Exit.NO_SESSION, "")
    result = CliRunner().invoke(app, ["doctor", "--lock-dir", str(tmp_path / "no"), str(tmp_path)])
    assert (result.exit_code, result.stdout) == (Exit.NO_SESSION, "")


def test_a_session_that_wants_healing_is_told_apart_from_its_folder(tmp_path: Path) -> None:
    """The folder is fit; the status says that something is off, and the verdict what to do."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(b'{"role": "user", "content": "hi"}\n{"role": "us')
    with a_crew() as crew:
        found = dialogues.session(crew, str(path), None)
    assert (found.state, found.figures["pending"]) == (State.OFF, 1)
    assert path.read_bytes().endswith(b'{"role": "us')


# ---- folders that are not -----------------------------------------------------------------------

TELLING = [
    (faults.LOCKS_DO_NOTHING, lock, State.OFF),
    (faults.LOCKS_DO_NOTHING, turns_lock, State.OFF),
    (faults.APPENDS_OVERWRITE, dialogues.appending, State.OFF),
    (faults.REPLACES_ARE_REFUSED, dialogues.replacing, State.OFF),
    (faults.READS_ARE_STALE, dialogues.coherence, State.OFF),
    (faults.NUMBERS_CHANGE, naming("identity"), State.OFF),
    (faults.NO_HARD_LINKS, naming("hard link"), State.NOTE),
    pytest.param(faults.MODES_ARE_NOT_KEPT, naming("mode"), State.NOTE, marks=on_posix),
    (faults.TIME_STANDS_STILL, dialogues.changing, State.NOTE),
    (faults.NOTHING_IS_HEARD, dialogues.watching, State.NOTE),
]


@pytest.mark.parametrize(("fault", "probe", "state"), TELLING, ids=range(len(TELLING)))
def test_each_probe_notices_its_fault(
    fault: str,
    probe: Callable[[Crew, str], Finding],
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A system call that does not do its work is found by the probe that is about it."""
    (tmp_path / "fault").mkdir()
    (tmp_path / "here").mkdir()
    for name, value in faults.environment(fault, tmp_path / "fault").items():
        monkeypatch.setenv(name, value)
    with a_crew() as crew:
        crew.brief = 0.5
        assert probe(crew, str(tmp_path / "here")).state is state


def test_a_lock_that_is_not_honoured_is_a_reason_not_to_share(tmp_path: Path) -> None:
    """The verdict names the reason and the way out, and the status is 1."""
    report = examine(tmp_path, environment=faults.environment(faults.LOCKS_DO_NOTHING, tmp_path))
    assert report["lock"]["text"] == "a second process got the lock while the first one had it"
    assert report["lock"]["remedy"] == "--lock-dir or another folder"
    assert report.verdict.startswith(
        "Don't share sessions here: locks are not honoured between processes. Use --lock-dir "
    )
    assert (report.status, report.said["fit"]) == (Exit.OFF, False)


def test_a_lock_call_that_hangs_is_given_up_and_nothing_is_left(tmp_path: Path) -> None:
    """Its process is killed at the deadline; that the probe does not come back is the finding."""
    environment = faults.environment(faults.LOCKS_HANG, tmp_path)
    report = examine(tmp_path, "--timeout", "1", environment=environment)
    assert (report["lock"]["state"], report["lock"]["text"]) == ("off", "no answer within 1 s")
    assert report["append"]["text"].startswith("not tried")
    assert "does not come back" in report.verdict
    assert [path.name for path in tmp_path.iterdir() if "doctor" in path.name] == []


def test_a_folder_that_hangs_is_given_up_at_once(tmp_path: Path) -> None:
    """Nothing more is tried where not even looking comes back."""
    environment = faults.environment(faults.THE_FOLDER_HANGS, tmp_path)
    report = examine(tmp_path, "--timeout", "1", environment=environment)
    assert report.states() == {"folder": "off"}
    assert report.verdict.startswith("Don't share sessions here: the folder does not answer.")
    assert report.status == Exit.OFF


def test_locks_that_the_system_refuses_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own words come through."""
    for name, value in faults.environment(faults.LOCKS_ARE_REFUSED, tmp_path).items():
        monkeypatch.setenv(name, value)
    with a_crew() as crew, pytest.raises(Refused, match="No locks available"):
        lock(crew, str(tmp_path))


@pytest.mark.deep
@on_posix
def test_a_lock_that_outlives_its_holder_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the lock of a killed process must get it."""
    for name, value in faults.environment(faults.LOCKS_OUTLIVE_THEIR_HOLDER, tmp_path).items():
        monkeypatch.setenv(name, value)
    with a_crew(patience=3) as crew, pytest.raises(NoAnswer):
        lock(crew, str(tmp_path))


@on_posix
def test_a_folder_without_permission_is_said_to_be_so(tmp_path: Path) -> None:
    """What can't be tried is unknown, and the rest is still told."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "context.jsonl").write_text('{"role": "user", "content": "hi"}\n')
    if os.geteuid() == 0:
        if sys.platform != "linux":
            pytest.skip("root may do everything here")
        os.chown(folder, 65534, 65534)
    folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
    report = examine(folder / "context.jsonl", before=drop_privileges)
    folder.chmod(0o755)
    assert report["folder"]["text"].startswith("you may not write there")
    assert (report["lock"]["state"], report["append"]["state"]) == ("unknown", "unknown")
    assert (report["room"]["state"], report["session"]["state"]) == ("ok", "ok")
    assert report.verdict.startswith("Don't share sessions here: you may not write there.")
    assert report.status == Exit.OFF


@contextmanager
def mounted(folder: Path, options: str = "") -> Iterator[Path]:
    """A small ext4 in a file; skips where mounting does not work."""
    image, point = folder / "image", folder / "mounted"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("only root can mount a file system, made with mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m0", image], check=True, timeout=30)
    mounting = ["mount", "-o", f"loop{options}", str(image), str(point)]
    done = subprocess.run(mounting, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"mounting does not work here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=30)


@pytest.mark.deep
@on_linux
def test_a_full_disk_is_told_from_one_that_is_unfit(tmp_path: Path) -> None:
    """What could not be tried for want of space is unknown; the locks work all the same."""
    with mounted(tmp_path) as point:
        (point / "made").mkdir()  # while there is a block for it
        with (point / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
            while filler.write(b"x" * 4096):
                pass
        report = examine(point / "made")
        assert report["room"]["state"] == "off"
        assert "off" not in {report[probe]["state"] for probe in PROBES - {"room", "folder"}}
        assert report.verdict.endswith("Free some space first.")
        assert report.status == Exit.OFF
        assert os.listdir(point / "made") == []


@pytest.mark.deep
@on_linux
def test_a_read_only_file_system_is_said_to_be_so(tmp_path: Path) -> None:
    """By what the system says of the mount, and by trying."""
    with mounted(tmp_path, ",ro") as point:
        report = examine(point)
    assert report["room"]["text"] == "the file system is mounted read-only"
    assert report["folder"]["state"] == "off"
    assert report["file system"]["text"].startswith("ext4 (/dev/loop")
    assert report.status == Exit.OFF


# ---- the end comes early ------------------------------------------------------------------------


@contextmanager
def in_the_middle(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A doctor that hangs in the probe of the lock."""
    folder = tmp_path / "here"
    folder.mkdir()
    doctor = subprocess.Popen(
        [sys.executable, "-m", "cosession", "doctor", "--timeout", "300", str(folder)],
        env={**os.environ, **faults.environment(faults.LOCKS_HANG, tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert doctor.stdout is not None
        while b"you may write there" not in (line := doctor.stdout.readline()):
            assert line, "it ended too early"
        assert until(lambda: any(list(path.iterdir()) for path in folder.iterdir()))
        yield doctor, folder
    finally:
        doctor.kill()
        doctor.communicate(timeout=30)


@on_posix
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    """Also while a probe hangs: status 130, and no folder."""
    with in_the_middle(tmp_path) as (doctor, folder):
        doctor.send_signal(signal.SIGINT)
        assert doctor.wait(timeout=60) == Exit.INTERRUPTED
        assert list(folder.iterdir()) == []


def test_a_doctor_that_is_killed_leaves_nothing_either(tmp_path: Path) -> None:
    """The process that made the private folder removes it when nobody tells it anything more."""
    with in_the_middle(tmp_path) as (doctor, folder):
        doctor.kill()
        assert until(lambda: list(folder.iterdir()) == [])
