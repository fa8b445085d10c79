"""Programs that take no lock: what they append is adopted, what they do else is noticed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bad.faults import Faults, watched
from bad.operations import APPENDS, OPERATIONS, SEED, message, seeded
from bad.soundness import assert_memory_is_file, assert_sound, fold, rotated
from cosession import BlockingSession, Conflict, CosessionError

LINE = b'{"role": "user", "content": "foreign"}\n'
UNFINISHED = b'{"role": "user", "content": "foreign, unfin'
REWRITTEN = SEED.replace(b"three", b"THREE")


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def rewrite(path: Path, data: bytes) -> None:
    """Write it anew in place, as a program does that knows nothing better."""
    with open(path, "r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path)


def replace(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    os.replace(other, path)


OLD = ["one", "two", "three"]
CHANGED = ["one", "two", "THREE"]
LONG = b'{"role": "user", "content": "%s"}\n' % (b"x" * len(SEED))
ACTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    # what is done to the seeded file, and what the history then is
    "append a line": (lambda path: append(path, LINE), [*OLD, "foreign"]),
    "append lines": (lambda path: append(path, LINE * 3), OLD + ["foreign"] * 3),
    "append an unfinished line": (lambda path: append(path, UNFINISHED), OLD),
    "append a line and half": (lambda path: append(path, LINE + UNFINISHED), [*OLD, "foreign"]),
    "append garbage": (lambda path: append(path, b"\0\xff\n{}\n"), OLD),
    "truncate at a line": (lambda path: os.truncate(path, SEED.index(b'{"role": "ass')), ["one"]),
    "truncate in a line": (lambda path: os.truncate(path, SEED.index(b'"two"')), ["one"]),
    "truncate to nothing": (lambda path: os.truncate(path, 0), []),
    "rewrite the same length": (lambda path: rewrite(path, REWRITTEN), CHANGED),
    "rewrite shorter": (lambda path: rewrite(path, LINE), ["foreign"]),
    "rewrite longer": (lambda path: rewrite(path, LINE + REWRITTEN), ["foreign", *CHANGED]),
    "rewrite longer, in one line": (lambda path: rewrite(path, LONG), ["x" * len(SEED)]),
    "replace": (lambda path: replace(path, LINE), ["foreign"]),
    "replace with the same length": (lambda path: replace(path, REWRITTEN), CHANGED),
    "replace with a longer one": (lambda path: replace(path, SEED + LINE), [*OLD, "foreign"]),
    "delete": (lambda path: path.unlink(), []),
    "touch": (lambda path: os.utime(path, (1, 1)), OLD),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return seeded(tmp_path / "context.jsonl")


# ---- between operations -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["append", "refresh", "open", "checkpoint", "prompt"])
@pytest.mark.parametrize("what", ACTS)
def test_what_others_did_in_between_is_noticed(path: Path, what: str, how: str) -> None:
    """The next operation folds the file as it is now, keeps every foreign byte, and goes on."""
    act, wanted = ACTS[what]
    with BlockingSession(path) as session:
        assert len(session.history) == 3
        act(path)
        data = path.read_bytes() if path.exists() else b""
        if how == "append":
            session.append(message("ours"))
            wanted = [*wanted, "ours"]
        elif how == "checkpoint":
            number = session.checkpoint()
            assert number == max([-1, *fold(data).checkpoints]) + 1
        elif how == "prompt":
            session.set_system_prompt("new")
            assert session.system_prompt == "new"
        elif how == "refresh":
            session.refresh()
        else:
            session.close()
            session.open()
        assert [m.content for m in session.history] == wanted
        assert_sound(session)
        found = [path, *rotated(path)]
        assert any(file.read_bytes().startswith(data) for file in found)
        with BlockingSession(path, read_only=True) as reader:
            assert_memory_is_file(reader)
            assert list(reader.history) == list(session.history)


@pytest.mark.parametrize("what", ACTS)
def test_a_reader_sees_what_others_did(path: Path, what: str) -> None:
    """A read-only session follows foreign changes too, but for the line that isn't finished."""
    act, wanted = ACTS[what]
    with BlockingSession(path):
        pass
    with BlockingSession(path, read_only=True) as reader:
        assert len(reader.history) == 3
        act(path)
        data = path.read_bytes() if path.exists() else b""
        for _ in range(2):
            try:
                reader.refresh()
            except CosessionError:
                assert not path.exists()
                return
            assert_memory_is_file(reader)
            assert [m.content for m in reader.history] == wanted
        assert path.read_bytes() == data


@pytest.mark.parametrize("what", ACTS)
def test_a_stale_writer_is_told_of_foreign_messages(path: Path, what: str) -> None:
    """`expect` fails when a foreign program changed the messages, and not when it didn't."""
    act, wanted = ACTS[what]
    with BlockingSession(path) as session:
        known = session.revision
        act(path)
        if what in ("append garbage", "append an unfinished line", "touch"):
            session.append(message("ours"), expect=known)
        else:
            with pytest.raises(Conflict):
                session.append(message("ours"), expect=known)
            assert [m.content for m in session.history] == wanted
        assert_sound(session)


def test_a_foreign_line_that_grows_is_waited_for(path: Path) -> None:
    """A line that is just being written is left to its writer for a moment, then read whole."""
    with BlockingSession(path) as session, watched() as faults:
        append(path, LINE[:20])

        def before(call: str, number: int) -> None:
            if call == "fstat" and faults.made.count("fstat") == 4:
                append(path, LINE[20:])

        faults.before = before
        session.append(message("ours"))
        assert [m.content for m in session.history][-2:] == ["foreign", "ours"]
        assert not session.damage[1:]


def test_an_unfinished_foreign_line_is_closed_kept_and_reported(path: Path) -> None:
    """Our record is not fused with it, and the rest of it, when it comes, is not with ours."""
    append(path, UNFINISHED)
    with BlockingSession(path) as session:
        session.append(message("ours"))
        append(path, b'ished"}\n')
        session.append(message("again"))
        assert [m.content for m in session.history][-2:] == ["ours", "again"]
        offsets = [damage.offset for damage in session.damage]
        assert offsets[1] == len(SEED)
        assert len(offsets) == 3
        assert UNFINISHED + b"\n" in path.read_bytes()
        assert_sound(session)


def test_two_sessions_and_a_foreign_program_agree(path: Path) -> None:
    """What each of them appends in turn comes in one order, and everybody has all of it."""
    with BlockingSession(path) as one, BlockingSession(path) as two:
        for number in range(10):
            one.append(message(f"one {number}"))
            append(path, LINE)
            two.append(message(f"two {number}"))
            append(path, LINE)
        one.refresh()
        two.refresh()
        assert_sound(one)
        assert_sound(two)
        assert list(one.history) == list(two.history)
        assert len(one.history) == 3 + 40


# ---- in the middle of operations ----------------------------------------------------------------

MIDDLE: dict[str, Callable[[Path], object]] = {
    "append a line": lambda path: append(path, LINE),
    "append lines": lambda path: append(path, LINE * 3),
    "replace": lambda path: replace(path, LINE),
    "delete": lambda path: path.unlink(missing_ok=True),
    "truncate": lambda path: os.truncate(path, len(SEED) // 2) if path.exists() else None,
}
NEW = {"append one": 1, "append three": 3, "transaction": 1}


@pytest.mark.parametrize("what", MIDDLE)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.deep] if name in ("clear", "compact") else [])
        for name in OPERATIONS  # in this, those two are a revert like any other
    ],
)
def test_somebody_else_comes_in_before_any_call(tmp_path: Path, name: str, what: str) -> None:
    """At any call of an operation a foreign change comes in: memory is the file afterwards.

    What the foreign program appended is in a file, what was acknowledged is there once, and what
    was refused is not there.
    """
    with BlockingSession(seeded(tmp_path / "context.jsonl")) as session, watched() as faults:
        OPERATIONS[name](session)
    calls = len(faults.made)
    assert calls > 4
    for number in range(calls):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        try:
            come_in_before(number, seeded(folder / "context.jsonl"), name, what)
        except BaseException as failure:
            failure.add_note(f"{what} before call {number} ({faults.made[number]}) of {name}")
            raise


def come_in_before(number: int, path: Path, name: str, what: str) -> None:
    with BlockingSession(path) as session:
        acknowledged = False
        with watched() as faults:

            def before(call: str, _: int) -> None:
                if len(faults.made) == number + 1:
                    MIDDLE[what](path)

            faults.before = before
            try:
                OPERATIONS[name](session)
                acknowledged = True
            except CosessionError as error:
                assert what not in ("append a line", "append lines"), error
        session.refresh()
        assert_sound(session)
        files = [path, *rotated(path)]
        everything = b"".join(file.read_bytes() for file in files)
        if what.startswith("append"):
            assert everything.count(LINE) >= (1 if what == "append a line" else 3)
            assert SEED in everything
        if what.startswith("append") and name == "set system prompt":
            # Until the old file got its second name, there was time to take the line along.
            assert number > faults.made.index("link") or LINE in path.read_bytes()
        contents = fold(path.read_bytes()).contents
        if name in NEW and not (acknowledged and not what.startswith("append")):
            news = [f"new {n}" for n in range(1, NEW[name] + 1)]
            found = [content for content in contents if str(content).startswith("new")]
            assert found == (news if acknowledged else [])
        session.append(message("goes on"))
        assert_sound(session)


PIECES = {
    "in front": (LINE, b"", b""),
    "in front, unfinished": (UNFINISHED, b"", b""),
    "behind": (b"", b"", LINE),
    "behind, unfinished": (b"", b"", UNFINISHED),
    "around": (LINE, b"", LINE),
    "around, unfinished": (UNFINISHED, b"", UNFINISHED),
    "between": (b"", LINE, b""),
    "between, unfinished": (b"", UNFINISHED, b""),
    "everywhere": (LINE, LINE, LINE),
}


@pytest.mark.parametrize("fails", [False, True], ids=["written", "failed"])
@pytest.mark.parametrize("at", ["a line", "half a line"])
@pytest.mark.parametrize("what", PIECES)
def test_foreign_bytes_around_and_between_ours(
    path: Path, what: str, at: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append of three records that foreign bytes come into is whole or absent; theirs stay.

    The write is cut in two, at the end of a record or in the middle of one, as on a nearly full
    disk; in the second case its other half fails.
    """
    front, between, behind = PIECES[what]
    real = os.write
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        data = bytes(data)
        if b'"new ' not in data or len(written) >= 2:
            return real(fd, data)
        written.append(data)
        if len(written) == 1:
            append(path, front)
            end = data.index(b"\n") + 1
            done = real(fd, data[: end if at == "a line" else end + 12])
            append(path, between)
            if fails:
                append(path, behind)
            return done
        if fails:
            raise OSError(28, "no space")
        done = real(fd, data)
        append(path, behind)
        return done

    with BlockingSession(path) as session:
        monkeypatch.setattr(os, "write", write)
        try:
            session.append([message(f"new {n}") for n in (1, 2, 3)])
            acknowledged = True
        except CosessionError:
            acknowledged = False
        monkeypatch.undo()
        assert written
        assert acknowledged != fails
        session.refresh()
        assert_sound(session)
        data = path.read_bytes()
        contents = [c for c in fold(data).contents if str(c).startswith("new")]
        assert contents == (["new 1", "new 2", "new 3"] if acknowledged else [])
        for piece in (front, between, behind):
            assert piece in data
        session.append(message("goes on"))
        assert_sound(session)
        assert session.history[-1].content == "goes on"


@pytest.mark.parametrize("name", [*APPENDS, "set system prompt", "clear"])
def test_unfinished_foreign_lines_come_in_before_any_call(tmp_path: Path, name: str) -> None:
    """A foreign line that stays unfinished is kept and reported, whenever it comes."""
    with BlockingSession(seeded(tmp_path / "context.jsonl")) as session, watched() as faults:
        OPERATIONS[name](session)
    for number in range(len(faults.made)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = seeded(folder / "context.jsonl")
        with BlockingSession(path) as session:
            with watched() as other:
                other.before = unfinished_before(number, other, path)
                OPERATIONS[name](session)
            session.refresh()
            assert_sound(session)
            everything = b"".join(file.read_bytes() for file in [path, *rotated(path)])
            assert UNFINISHED in everything
            if name in NEW:
                news = [f"new {n}" for n in range(1, NEW[name] + 1)]
                assert [c for c in fold(path.read_bytes()).contents if c in news] == news
            session.append(message("goes on"))
            assert_sound(session)
            assert session.history[-1].content == "goes on"


def unfinished_before(number: int, faults: Faults, path: Path) -> Callable[[str, int], None]:
    def before(call: str, _: int) -> None:
        if len(faults.made) == number + 1:
            append(path, UNFINISHED)
            os.utime(path, (1, 1))

    return before


def test_a_reader_forgets_lines_that_were_rewritten_before_anybody_adopted_them(
    tmp_path: Path,
) -> None:
    """A program without locks appends, and then writes something longer over it, in place."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path), BlockingSession(path, read_only=True) as reader:
        for text in ("first", "something longer than that"):
            path.write_text(f'{{"role": "user", "content": "{text}"}}\n')
            reader.refresh()
            assert [message.content for message in reader.history] == [text]
