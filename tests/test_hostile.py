"""Hostile places: what others plant at the names that are ours, and files of absurd sizes."""

from __future__ import annotations

import os
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pipes, links and sticky folders of POSIX", True)

from bad import mutants
from bad.everywhere import Scene, _leave_half
from bad.operations import SEED, message, seeded
from bad.soundness import assert_memory_is_file, open_descriptors
from cosession import BlockingSession, CosessionError, Message

mutants.plant()

Blocking = BlockingSession[Message]


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """A planted pipe that somebody waits for shows here."""

    def over(*_: object) -> None:
        raise AssertionError("somebody waits for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(600 if request.node.get_closest_marker("deep") else 60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---- planted ----------------------------------------------------------------------------------

NAMES = (
    "context.jsonl.lock",
    "context.jsonl.turn",
    "context.jsonl.turn.queue",
    "context.jsonl.torn",
    "context.jsonl.lineage",
    "context.jsonl.terminals",
    "context_1.jsonl",
    "context.fork-1.jsonl",
    ".context.jsonl.0123456789ab.tmp",
)
"""Every name that the library derives from a session's."""

THINGS: dict[str, Callable[[Path, Path], object]] = {
    "link to a file": lambda place, victim: place.symlink_to(victim),
    "link to a folder": lambda place, victim: place.symlink_to(victim.parent),
    "link to nothing": lambda place, victim: place.symlink_to(victim.with_name("made")),
    "pipe": lambda place, victim: os.mkfifo(place),
    "folder": lambda place, victim: place.mkdir(),
    "empty file": lambda place, victim: place.touch(),
    "garbage": lambda place, victim: place.write_bytes(b"\xff\0garbage[" * 200),
}


def everything(session: Blocking) -> Iterator[Callable[[], object]]:
    """One thing after the other that makes or reads one of these files."""
    yield session.open
    yield lambda: session.append(message("new"))
    yield lambda: turn_in(session)
    yield session.turn_status
    yield lambda: present_in(session)
    yield session.terminals
    yield session.fork
    yield lambda: session.fork(at=0)
    yield lambda: session.revert_to(1)
    yield lambda: session.restore(1)
    yield session.clear
    yield session.refresh
    yield session.close


def turn_in(session: Blocking) -> None:
    with session.turn("planted", timeout=10) as turn:
        turn.append(message("in the turn"))


def present_in(session: Blocking) -> None:
    with session.present("here"):
        session.terminals()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_planted_at_a_name_of_ours_harms_nobody(
    tmp_path: Path, name: str, thing: str
) -> None:
    """No hang, no error but ours, nothing written or removed where a link leads, nothing lost."""
    scene = Scene(tmp_path / "scene", "process")
    if name.endswith(".torn"):
        _leave_half(scene)
    scene.close()
    for made in ("context.jsonl.lock", "context_1.jsonl"):
        if made == name or (made.endswith(".lock") and not name.endswith(".torn")):
            scene.path.with_name(made).unlink()
    victims = tmp_path / "victims"
    victims.mkdir()
    victim = victims / "package.lock"
    victim.write_bytes(b"precious")
    victims.joinpath("package.json").write_bytes(b"precious, too")
    victims.joinpath("1-deadbeef.lock").write_bytes(b"named like ours")
    for file in victims.iterdir():
        os.utime(file, (1, 1))
    before, place, descriptors = tree(victims), scene.path.with_name(name), open_descriptors()
    THINGS[thing](place, victim)
    kind = stat.S_IFMT(place.lstat().st_mode)

    session: Blocking = BlockingSession(scene.path)
    for act in everything(session):
        try:
            act()
        except CosessionError:
            pass
    session.close()
    assert tree(victims) == before
    assert open_descriptors() == descriptors
    if not name.endswith(".tmp"):
        assert stat.S_IFMT(place.lstat().st_mode) == kind, "it was taken away"
    everything_kept = b"".join(
        file.read_bytes() for file in scene.path.parent.glob("context*.jsonl") if file.is_file()
    )
    assert SEED in everything_kept

    if place.is_dir() and not place.is_symlink():
        for inner in place.iterdir():
            inner.unlink()
        place.rmdir()
    else:
        place.unlink(missing_ok=True)
    with BlockingSession(scene.path) as session:
        session.append(message("goes on"))
        turn_in(session)
        present_in(session)
        assert session.clear() is not None
        assert_memory_is_file(session)


def test_a_pipe_among_the_terminals_cards_is_not_waited_for(tmp_path: Path) -> None:
    """A lock that somebody holds, with a pipe for a card: nobody is listed, and nobody hangs."""
    path = seeded(tmp_path / "context.jsonl")
    with BlockingSession(path) as session, session.present("here"):
        card = next(tmp_path.joinpath("context.jsonl.terminals").glob("*.json"))
        card.unlink()
        os.mkfifo(card)
        assert session.terminals() == []


def test_others_files_among_the_terminals_are_left(tmp_path: Path) -> None:
    """Only entries with names of ours are cleaned away."""
    path = seeded(tmp_path / "context.jsonl")
    with BlockingSession(path) as session:
        present_in(session)
        folder = tmp_path / "context.jsonl.terminals"
        for name in ("poetry.lock", "poetry.json", "7-deadbeef.lock", "7-deadbeef.json"):
            folder.joinpath(name).write_bytes(b"{}")
            os.utime(folder / name, (1, 1))
        session.terminals()
        assert sorted(os.listdir(folder)) == ["poetry.json", "poetry.lock"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as two users")
@pytest.mark.parametrize("planted", ["context.jsonl.lock", "context.jsonl.terminals", None])
def test_in_a_sticky_folder_of_everybody_another_users_files_are_an_error(
    planted: str | None,
) -> None:
    """Where anybody may plant names, what another user owns is refused, and never written to."""
    from test_bad_places import NOBODY, as_user

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        folder.chmod(0o1777)
        path = seeded(folder / "context.jsonl")
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o600)
        if planted:
            folder.joinpath(planted).write_bytes(b"root's")
            folder.joinpath(planted).chmod(0o644)
        append, clear, read = as_user("append one,clear,read", path)
        assert read.startswith("read ")
        if planted == "context.jsonl.lock":
            assert append.startswith("NotWritable of PermissionError")
            assert clear.startswith("NotWritable of PermissionError")
            assert path.read_bytes() == SEED
        else:
            assert (append, clear) == ("read 4", "read 0")
        if planted:
            assert folder.joinpath(planted).read_bytes() == b"root's"


# ---- absurd sizes -----------------------------------------------------------------------------


def test_a_revert_among_ten_thousand_rotations_takes_the_next_name(tmp_path: Path) -> None:
    """However many there are, none is written over."""
    path = seeded(tmp_path / "context.jsonl")
    with BlockingSession(path) as session:
        for number in range(1, 10_001):
            tmp_path.joinpath(f"context_{number}.jsonl").touch()
        session.checkpoint()
        rotated = session.revert_to(session.checkpoints[-1])
        assert rotated.name == "context_10001.jsonl"
        assert tmp_path.joinpath("context_10000.jsonl").read_bytes() == b""


@pytest.mark.deep
def test_a_sparse_file_of_two_gigabytes_is_one_damaged_line(tmp_path: Path) -> None:
    """What a power cut may leave is opened, reported as damage, and appended to."""
    path = seeded(tmp_path / "context.jsonl")
    with path.open("r+b") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    os.utime(path, (1, 1))
    with BlockingSession(path) as session:
        session.append(message("behind it"))
        assert [m.content for m in session.history] == ["one", "two", "three", "behind it"]
        assert max(damage.length for damage in session.damage) == (2 << 30) - len(SEED)


@pytest.mark.deep
def test_a_thousand_lines_of_a_megabyte(tmp_path: Path) -> None:
    """They are appended one by one, seen by another session, and reverted."""
    path, text = tmp_path / "context.jsonl", "x" * (1 << 20)
    with BlockingSession(path) as session, BlockingSession(path) as other:
        session.checkpoint()
        for _ in range(1000):
            session.append(message(text))
        other.refresh()
        assert other.revision == session.revision
        assert len(other.history) == 1000
        other.revert_to(0)
        session.append(message("goes on"))
        assert len(session.history) == 1


@pytest.mark.deep
def test_a_lineage_of_a_hundred_megabytes_is_no_obstacle(tmp_path: Path) -> None:
    """Replaces append to it; a fork of an older generation reads it."""
    path = seeded(tmp_path / "context.jsonl")
    with BlockingSession(path) as session:
        before = session.revision
        with open(f"{path}.lineage", "wb") as file:
            file.write(b'{"fork": "x", "at": "1:1", "more": "%s"}\n[\n' % (b"x" * 360) * 250_000)
        began = time.perf_counter()
        session.clear()
        assert time.perf_counter() - began < 5
        fork = session.fork(at=before)
    assert fork.path.read_bytes().startswith(SEED)
