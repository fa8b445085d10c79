"""Looking at a session's lines, its lock and its leftovers without touching any of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cosession import BlockingSession, FileBusy, NotASession, SessionMissing, _platform, files
from cosession.header import Appending, Header, Identity, Replacing, Span
from cosession.inspect import Inspection
from cosession.lock import LockFile, Peek

NASTY = (
    b'{"role": "_system_prompt", "content": "be kind"}\n'
    b'{"role": "user", "content": "hi"}\n'
    b"\n"
    b'{"role": "_checkpoint", "id": 0}\n'
    b"not json\n"
    b'{"role": "assistant", "content": 3}\n'
    b'{"role": "_usage", "token_count": 12}\r\n'
    b'{"kind": "somebody else\'s"}\n'
    b"\xff\xfe\n"
    b'{"role": "user", "content": "nul \0"}\n'
    b'{"role": "_usage"}\n'
    b'{"role": "tool", "content": "last", "tool_call_id": "1"}\n'
)
LINE = b'{"role": "user", "content": "from a process that died"}\n'
FOREIGN = b'{"role": "user", "content": "from a program without locks"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A settled session of three records."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        session.append([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}])
        session.checkpoint()
    return path


def look(path: Path) -> Inspection:
    """Look at it, with no patience for writes that nobody goes on with."""
    with Inspection(path, patience=0) as inspection:
        return inspection


def codes(path: Path) -> set[str]:
    """What is found about a file."""
    return {finding.code for finding in look(path).findings}


def announce(path: Path, intent: Appending | Replacing) -> Header:
    """Do what a process does before it writes, and die."""
    lock = LockFile(f"{path}.lock", beside=str(path))
    assert lock.try_acquire()
    header = lock.read()
    assert header is not None
    lock.announce(replace(header, intent=intent), "append", durable=False)
    lock.close()
    return header


def committed(path: Path) -> int:
    """How many bytes the header says are good."""
    with LockFile(f"{path}.lock", beside=str(path)).peeking() as peek:
        assert peek is not None
        header = peek()
    assert header is not None
    return header.committed


def add(path: Path, data: bytes) -> None:
    """Append without a lock."""
    with path.open("ab") as file:
        file.write(data)


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its content and its time of change."""
    return {
        entry.name: (entry.read_bytes(), entry.stat().st_mtime_ns) for entry in folder.iterdir()
    }


# ---- the lines --------------------------------------------------------------------------------


def test_every_line_has_its_kind_and_its_place(tmp_path: Path) -> None:
    """Each line is named for what it holds, and the offsets lead to its bytes."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(NASTY)
    with Inspection(path) as inspection:
        lines = list(inspection.lines())
    assert [line.kind for line in lines] == [
        "system prompt",
        "message",
        "blank",
        "checkpoint",
        "damaged",
        "damaged",
        "usage",
        "unknown",
        "damaged",
        "damaged",
        "damaged",
        "message",
    ]
    assert [line.number for line in lines] == list(range(1, 13))
    assert b"".join(line.raw + b"\n" for line in lines) == NASTY
    assert all(NASTY[line.offset :].startswith(line.raw) for line in lines)
    assert [line.state for line in lines].count("damaged") == 5
    assert lines[-1].message is not None
    assert lines[-1].message.content == "last"


def test_it_finds_the_damage_that_a_session_finds(tmp_path: Path) -> None:
    """Offsets, lengths and reasons are those of `session.damage`."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(NASTY)
    with Inspection(path) as inspection:
        mine = [
            (line.offset, len(line.raw), line.reason) for line in inspection.lines() if line.reason
        ]
    with BlockingSession(path, read_only=True) as session:
        theirs = [(damage.offset, damage.length, damage.reason) for damage in session.damage]
    assert mine == theirs
    assert len(mine) == 5


def test_lines_longer_than_a_piece_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the pieces that are read, the lines are the same; from any line on, too."""
    seeded = random.Random(7)
    rows = [
        json.dumps({"role": seeded.choice(["user", "_other"]), "content": "x" * length}).encode()
        for length in (seeded.choice([0, 3, 50, 200, 900]) for _ in range(60))
    ]
    path = tmp_path / "context.jsonl"
    path.write_bytes(b"\n".join(rows))
    for chunk in (8, 64, 300, 1 << 20):
        monkeypatch.setattr(files, "CHUNK", chunk)
        with Inspection(path) as inspection:
            lines = list(inspection.lines())
            assert [line.raw for line in lines] == rows
            start = lines[20].offset
            assert [line.raw for line in inspection.lines(start=start)] == rows[20:]


def test_the_last_messages_are_found_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`start_of_last` gives the offset of the message that many from the end."""
    seeded = random.Random(11)
    rows = [
        json.dumps({"role": seeded.choice(["user", "_usage"]), "content": "x" * length}).encode()
        for length in (seeded.choice([0, 3, 50, 200, 900]) for _ in range(60))
    ]
    path = tmp_path / "context.jsonl"
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    at, offsets = 0, []
    for row in rows:
        if b'"user"' in row:
            offsets.append(at)
        at += len(row) + 1
    for chunk in (64, 3000, 1 << 20):
        monkeypatch.setattr(files, "CHUNK", chunk)
        with Inspection(path) as inspection:
            for count in (1, 2, 9, len(offsets)):
                assert inspection.start_of_last(count) == offsets[-count]
            assert inspection.start_of_last(len(offsets) + 1) == 0


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read asks for more than a piece, and the last messages don't take the whole file."""
    monkeypatch.setattr(files, "CHUNK", 1 << 14)
    path = tmp_path / "context.jsonl"
    path.write_bytes((b'{"role": "user", "content": "' + b"x" * 70 + b'"}\n') * 5000)
    read = list[int]()
    original = files.read_all

    def counted(fd: int, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return original(fd, start, stop)

    with Inspection(path) as inspection:
        monkeypatch.setattr(files, "read_all", counted)
        assert sum(1 for _ in inspection.lines()) == 5000
        assert max(read) <= 1 << 14
        read.clear()
        inspection.start_of_last(3)
        assert sum(read) <= 1 << 14


# ---- what is found ----------------------------------------------------------------------------


def test_nothing_is_found_in_a_settled_session(path: Path) -> None:
    """A session as a finished operation leaves it has no findings, and its revision is known."""
    inspection = look(path)
    assert inspection.findings == ()
    with BlockingSession(path, read_only=True) as session:
        assert inspection.revision == session.revision


def cut(path: Path) -> None:
    announce(path, Appending(committed(path), (Span.of(LINE),)))
    add(path, LINE[:30])


def complete(path: Path) -> None:
    announce(path, Appending(committed(path), (Span.of(LINE),)))
    add(path, LINE)


def unwritten(path: Path) -> None:
    announce(path, Appending(committed(path), (Span.of(LINE),)))


def spliced(path: Path) -> None:
    announce(path, Appending(committed(path), (Span.of(LINE), Span.of(LINE * 2))))
    add(path, FOREIGN + LINE + FOREIGN)


def not_replaced(path: Path) -> None:
    name, fd = files.open_temporary(str(path), path.stat())
    status = os.fstat(fd)
    os.close(fd)
    assert Path(name).exists()
    announce(path, Replacing(Identity.of(status.st_dev, status.st_ino), 0))


def replaced(path: Path) -> None:
    name, fd = files.open_temporary(str(path), path.stat())
    os.write(fd, FOREIGN)
    status = os.fstat(fd)
    os.close(fd)
    announce(path, Replacing(Identity.of(status.st_dev, status.st_ino), 0))
    Path(name).replace(path)


def foreign(path: Path) -> None:
    add(path, FOREIGN)


def open_line(path: Path) -> None:
    add(path, FOREIGN + b'{"role": "us')
    os.utime(path, ns=(1, 1))  # it no longer grows


def truncated(path: Path) -> None:
    os.truncate(path, 10)
    os.utime(path, ns=(1, 1))


def rewritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"id": 0', b'"id": 7'))


def put_in_place(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def header_lost(path: Path) -> None:
    Path(f"{path}.lock").write_bytes(b"\0" * 300)


def leftover_file(path: Path) -> None:
    _, fd = files.open_temporary(str(path), path.stat())
    os.close(fd)


def second_name(path: Path) -> None:
    os.link(path, path.with_name("context_1.jsonl"))


SCENES: dict[Callable[[Path], None], tuple[set[str], bool]] = {
    cut: ({"unfinished-append"}, True),
    complete: ({"unfinished-append"}, True),
    unwritten: ({"unfinished-append"}, True),
    spliced: ({"unfinished-append"}, True),
    not_replaced: ({"unfinished-replace", "temporary-files"}, True),
    replaced: ({"unfinished-replace"}, True),
    foreign: ({"foreign-lines"}, False),
    open_line: ({"foreign-lines", "open-line"}, True),
    truncated: ({"truncated", "open-line"}, True),
    rewritten: ({"rewritten"}, True),
    put_in_place: ({"replaced-by-others"}, False),
    header_lost: ({"no-header"}, False),
    leftover_file: ({"temporary-files"}, True),
    second_name: ({"second-name"}, True),
}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: str(scene.__name__))
def test_leftovers_are_named_untouched_and_gone_once_settled(
    path: Path, scene: Callable[[Path], None]
) -> None:
    """Every leftover is found; looking changes nothing; opening the session settles it."""
    expected, off = SCENES[scene]
    scene(path)
    before = everything(path.parent)
    inspection = look(path)
    assert {finding.code for finding in inspection.findings} == expected
    assert any(finding.problem for finding in inspection.findings) == off
    assert all(finding.remedy for finding in inspection.findings)
    with Inspection(path, patience=0) as again:
        assert all(line.raw is not None for line in again.lines())
    assert everything(path.parent) == before
    with BlockingSession(path):
        pass
    assert codes(path) <= {"put-aside"}


@pytest.mark.parametrize("scene", [cut, complete, spliced], ids=lambda scene: str(scene.__name__))
def test_what_will_happen_to_an_unfinished_append_is_said_before(
    path: Path, scene: Callable[[Path], None]
) -> None:
    """The remedy tells what opening the session then does with the bytes."""
    scene(path)
    before = path.read_bytes()
    remedy = next(f.remedy for f in look(path).findings if f.code == "unfinished-append")
    with BlockingSession(path):
        pass
    after = path.read_bytes()
    torn = Path(f"{path}.torn")
    if scene is cut:
        assert remedy == f"they are cut off and kept in {torn.resolve()}"
        assert after == before.removesuffix(LINE[:30])
        assert torn.read_bytes() == LINE[:30] + b"\n"
    elif scene is complete:
        assert remedy == "they stay"
        assert after == before
    else:
        assert remedy.startswith(f"{len(LINE)} of them are taken out")
        assert after == before.replace(LINE, b"")
        assert path.with_name("context_1.jsonl").read_bytes() == before


def test_lines_of_an_unfinished_write_are_pending(path: Path) -> None:
    """Readers don't see them, so they are shown as what they are."""
    cut(path)
    with Inspection(path, patience=0) as inspection:
        states = [line.state for line in inspection.lines()]
        assert inspection.revision is None
    assert states == ["ok", "ok", "ok", "pending"]


def test_a_hard_link_is_a_problem_without_a_remedy(path: Path) -> None:
    """A second name that no rotation explains can't be healed."""
    os.link(path, path.with_name("other.jsonl"))
    (finding,) = look(path).findings
    assert (finding.code, finding.problem, finding.remedy) == ("hard-linked", True, "")


def test_a_file_without_a_lock_file_is_read(tmp_path: Path) -> None:
    """A rotated file or another program's: no lock file appears."""
    path = tmp_path / "context_1.jsonl"
    path.write_bytes(FOREIGN)
    inspection = look(path)
    assert [finding.code for finding in inspection.findings] == ["no-lock-file"]
    assert not inspection.findings[0].problem
    assert [entry.name for entry in tmp_path.iterdir()] == ["context_1.jsonl"]


def test_a_folder_of_locks_is_not_made(tmp_path: Path) -> None:
    """Looking with a lock folder that isn't there makes none."""
    path = tmp_path / "context.jsonl"
    path.write_bytes(FOREIGN)
    with Inspection(path, lock_dir=tmp_path / "locks") as inspection:
        assert [finding.code for finding in inspection.findings] == ["no-lock-file"]
    assert not (tmp_path / "locks").exists()


def test_a_folder_of_locks_is_used(tmp_path: Path) -> None:
    """The header is found where the session's writers put it."""
    path, locks = tmp_path / "context.jsonl", tmp_path / "locks"
    with BlockingSession(path, lock_dir=locks) as session:
        revision = session.append({"role": "user", "content": "hi"})
    with Inspection(path, lock_dir=locks) as inspection:
        assert inspection.findings == ()
        assert inspection.revision == revision


def test_what_is_no_session_is_an_error(tmp_path: Path) -> None:
    """A missing file and a folder are named for what they are."""
    with pytest.raises(SessionMissing):
        Inspection(tmp_path / "none.jsonl")
    with pytest.raises(NotASession):
        Inspection(tmp_path)


# ---- while others write -----------------------------------------------------------------------

HOLD = """\
import sys
from dataclasses import replace
from cosession.header import Appending, Span
from cosession.lock import LockFile
path, line = sys.argv[1], sys.argv[2].encode() + b"\\n"
lock = LockFile(path + ".lock", beside=path)
assert lock.try_acquire()
header = lock.read()
lock.announce(replace(header, intent=Appending(header.committed, (Span.of(line),))), "append",
              durable=False)
with open(path, "ab") as file:
    file.write(line[:20])
print("half", flush=True)
sys.stdin.read()
"""

WRITE = """\
import sys
from cosession import BlockingSession
path, name = sys.argv[1:]
with BlockingSession(path) as session:
    print("ready", flush=True)
    for number in range(60):
        session.append([{"role": "user", "content": name * 200} for _ in range(3)])
        if number % 15 == 14:
            session.revert_to(session.checkpoint())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells which process has a lock"
)
def test_a_write_under_way_is_no_leftover(path: Path) -> None:
    """While its process lives and has the lock, an unfinished write is just that; then it isn't."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), LINE.decode().strip()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"half\n"
        inspection = look(path)
        assert [finding.code for finding in inspection.findings] == ["locked"]
        assert str(holder.pid) in inspection.findings[0].text
        assert inspection.stop == committed(path) < inspection.size
        assert inspection.revision is not None
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    assert codes(path) == {"unfinished-append"}


@pytest.mark.parametrize("seen", ["within one look", "from look to look"])
def test_a_header_that_changes_shows_a_living_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """Where the system doesn't tell who has the lock, a moving header tells of a live write."""
    good = committed(path)
    first = announce(path, Appending(good, (Span.of(LINE),)))
    add(path, LINE[:30])
    busy = replace(first, intent=Appending(good, (Span.of(LINE),)))
    busier = replace(first, intent=Appending(good, (Span.of(FOREIGN),)))
    headers = [first, busy] if seen == "within one look" else [busy, busy, busier, busier]
    monkeypatch.setattr(Peek, "__call__", lambda peek: headers.pop(0))
    monkeypatch.setattr(_platform, "holder_of", lambda fd: None)
    with Inspection(path) as inspection:
        assert [finding.code for finding in inspection.findings] == ["locked"]
        assert inspection.stop == inspection.readable == good
        assert {line.state for line in inspection.lines()} == {"ok"}
    assert headers == []


def test_a_busy_session_never_looks_damaged(path: Path) -> None:
    """Looking again and again while others append and revert: every line whole, nothing off."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), name], stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    looks = 0
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        while any(writer.poll() is None for writer in writers):
            try:
                with Inspection(path) as inspection:
                    states = {line.state for line in inspection.lines()}
            except FileBusy:
                # It was replaced between two pieces; only where open files block a replace.
                assert not _platform.KEEPS_FILES_OPEN
                continue
            off = [finding for finding in inspection.findings if finding.problem]
            assert off == []
            assert states == {"ok"}
            looks += 1
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate(timeout=30)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert looks >= 3
