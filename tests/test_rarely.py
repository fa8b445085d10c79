"""What happens rarely: names that are just being taken, cards that are gone, defects of our own."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from bad.operations import SEED, message, seeded
from bad.soundness import assert_memory_is_file, leftovers, open_descriptors
from cosession import (
    BlockingSession,
    CosessionError,
    InvalidMessage,
    Message,
    Session,
    SessionClosed,
    StorageError,
    TurnOver,
    UnknownRevision,
    files,
    kernel_lock,
    reading,
)
from cosession import _platform as platform
from cosession.healing import FileHealer
from cosession.inspect import Inspection
from cosession.records import Revision
from cosession.replacing import Overtaken
from cosession.store import Store

posix = pytest.mark.skipif(not platform.KEEPS_FILES_OPEN, reason="Windows has its own ways")
BOUND = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return seeded(tmp_path / "context.jsonl")


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


# ---- the blocking turn --------------------------------------------------------------------------


def test_a_blocking_turn_marks_counts_and_hands_over(path: Path) -> None:
    """Checkpoints and token counts are part of it; who asked for it gets it between two records."""
    with BlockingSession(path) as mine, BlockingSession(path) as other:
        marks = len(mine.checkpoints)
        with mine.turn("answering") as turn:
            number = turn.checkpoint()
            turn.record_usage(77)
            turn.append(message("before"))
            asked = other.request_turn("me next")
            assert asked is not None
            assert (asked.pid, asked.operation) == (os.getpid(), "answering")
            assert turn.requested is not None
            assert turn.requested.operation == "me next"
            came = threading.Event()

            def take() -> None:
                with other.turn("the other's", timeout=BOUND) as theirs:
                    came.set()
                    theirs.append(message("in between"))

            thread = threading.Thread(target=take)
            thread.start()
            began = turn.began
            turn.hand_over(timeout=BOUND)
            assert came.is_set(), "it came back before the other had it"
            assert turn.began != began
            turn.append(message("behind"))
            thread.join(BOUND)
        assert [m.content for m in mine.history][-3:] == ["before", "in between", "behind"]
        assert mine.token_count == 77
        assert mine.checkpoints == (*range(marks), number)
        assert other.request_turn() is None, "nobody has it any more"


def test_a_blocking_turn_is_over_when_it_is_over(path: Path) -> None:
    """Behind its end, and inside another one of the same thread, it says so, and writes nothing."""
    with BlockingSession(path) as session:
        with (
            session.turn() as turn,
            pytest.raises(TurnOver, match="this thread has the turn already"),
            session.turn(),
        ):
            pass
        for call in (turn.checkpoint, lambda: turn.record_usage(1), turn.hand_over):
            with pytest.raises(TurnOver):
                call()
        assert path.read_bytes() == SEED


def test_a_turn_that_is_waited_for_in_vain_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the system refuses while a thread waits, whoever asked is told, and can ask again."""
    real = kernel_lock.KernelLock.acquire

    def acquire(self: kernel_lock.KernelLock, *, wanted: Callable[[], bool]) -> bool:
        if self.path.endswith(".turn"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, wanted=wanted)

    with BlockingSession(path) as session, BlockingSession(path) as other:
        with other.turn():
            with monkeypatch.context() as patch:
                patch.setattr(kernel_lock.KernelLock, "acquire", acquire)
                with (
                    pytest.raises(StorageError, match="wait for the turn") as caught,
                    session.turn(timeout=BOUND),
                ):
                    pass
            assert caught.value.errno == errno.EIO
        with session.turn(timeout=BOUND) as turn:
            turn.append(message("after all"))
        assert session.history[-1].content == "after all"


def test_a_label_that_is_too_long_loses_its_end(path: Path) -> None:
    """The card has its place; what it says about the turn stays readable."""
    with BlockingSession(path) as session, BlockingSession(path) as other:
        with session.turn("🙂🙃" * 1000):
            holder = other.holder
            assert holder is not None
            assert holder.pid == os.getpid()
            assert holder.operation.startswith("🙂🙃🙂🙃")
            assert len(holder.operation) < 128
        assert other.holder is None


@posix
@pytest.mark.parametrize("rubbish", [b"no JSON", b'{"turn": 1}', b""])
def test_a_turn_whose_card_is_gone_is_still_a_turn(path: Path, rubbish: bytes) -> None:
    """Others know that somebody has it, not who; after a death it can be settled."""
    with BlockingSession(path) as session, BlockingSession(path) as other:
        with session.turn("mine"):
            with open(f"{path}.turn", "r+b") as file:
                file.seek(16)
                file.write(rubbish.ljust(1008, b"\0"))
            status = other.turn_status()
            assert status is not None
            assert status.holder.pid == 0
            assert other.interrupted is None, "it is alive"
        assert other.turn_status() is None


# ---- names that are just being taken ------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_a_rotation_whose_name_was_just_taken_gets_the_next_one(
    path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody made the file between the look and the attempt: it is left, and so is ours."""
    path.with_name("context_1.jsonl").write_bytes(b"somebody's")
    monkeypatch.setattr(files, "rotations", lambda _: [])
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with BlockingSession(path) as session:
        rotated = session.clear()
    assert rotated == path.with_name("context_2.jsonl")
    assert rotated.read_bytes() == SEED
    assert path.with_name("context_1.jsonl").read_bytes() == b"somebody's"


def test_a_fork_whose_name_was_just_taken_is_refused_or_gets_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there are no hard links, and a rename would write over what is there."""
    taken = path.with_name("context.fork-1.jsonl")
    taken.write_bytes(b"somebody's")
    monkeypatch.setattr(os, "link", no_links)
    with BlockingSession(path) as session:
        with pytest.raises(StorageError) as caught:
            session.fork(taken)
        assert caught.value.errno == errno.EEXIST
        real, looks = os.path.lexists, iter([False])
        monkeypatch.setattr(os.path, "lexists", lambda name: next(looks, real(name)))
        fork = session.fork()
    assert fork.path.name == "context.fork-2.jsonl"
    assert taken.read_bytes() == b"somebody's"
    assert not [*path.parent.glob("*.tmp")]


def test_a_temporary_name_that_is_taken_is_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is drawn; what has the name is somebody's."""
    drawn = iter([b"abcdef", b"abcdef", b"ghijkl"])
    monkeypatch.setattr(os, "urandom", lambda count: next(drawn))
    first, one = files.open_temporary(str(path), None)
    second, two = files.open_temporary(str(path), None)
    os.close(one)
    os.close(two)
    assert first != second
    assert {Path(first).name, Path(second).name} == {*leftovers(path)}


def test_a_fork_that_is_not_on_the_disk_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its folder can't be synced, with `durability="power"`, there is no fork."""

    def refuse(folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with BlockingSession(path, durability="power") as session:
        with monkeypatch.context() as patch:
            patch.setattr(platform, "sync_folder", refuse)
            with pytest.raises(StorageError):
                session.fork()
        assert [*path.parent.glob("context.fork-*")] == []
        assert session.fork().path.exists()


# ---- somebody is always faster ------------------------------------------------------------------


def test_a_file_that_never_stands_still_is_an_error_and_no_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committing and settling give up after some attempts, say why, and work again later."""

    def overtaken(*_: object, **__: object) -> None:
        raise Overtaken

    with BlockingSession(path) as session:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_append", overtaken)
            with pytest.raises(StorageError, match="between the writes of another program"):
                session.append(message("never"))
        with monkeypatch.context() as patch:
            patch.setattr(FileHealer, "_settle", overtaken)
            with pytest.raises(StorageError, match="between the writes of another program"):
                session._store.settle()
        session.append(message("goes on"), timeout=BOUND)
        assert_memory_is_file(session)
        assert [m.content for m in session.history][-1] == "goes on"


@posix
def test_a_file_that_is_replaced_at_each_look_can_not_be_copied(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export and a fork give up after some attempts, and leave neither file nor descriptor."""
    descriptors = open_descriptors()
    with BlockingSession(path, read_only=True) as session:
        look = reading.FileReader.look

        def look_and_replace(self: Any, **options: Any) -> bool:
            done = look(self, **options)
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            os.replace(copy, path)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(reading.FileReader, "look", look_and_replace)
            with pytest.raises(StorageError, match="replaced again and again"):
                session.export(tmp_path / "exported.jsonl")
            with pytest.raises(StorageError, match="replaced again and again"):
                session.fork()
        assert not (tmp_path / "exported.jsonl").exists()
        assert [*path.parent.glob("context.fork-*")] == []
    assert open_descriptors() == descriptors


def test_an_inspection_of_a_file_that_shrinks_ends(path: Path) -> None:
    """Lines that are cut off while it reads are not made up."""
    with Inspection(path) as inspection:
        path.write_bytes(SEED[: SEED.index(b"\n") + 1])
        assert len([*inspection.lines()]) == 1


# ---- defects of our own, and of callers ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "async"])
async def test_an_error_that_nobody_thought_of_ends_the_call_and_not_the_session(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is wrapped, with its cause; nobody waits for ever, and the lock is free."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    with BlockingSession(path) as witness:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", broken)
            patch.setattr(Store, "commit_quickly", broken)
            patch.setattr(Store, "append_now", broken)
            with pytest.raises(CosessionError, match="unexpected") as caught:
                if kind == "async":
                    async with Session(path) as session:
                        await session.append(message("never"))
                else:
                    with BlockingSession(path) as blocking:
                        blocking.append(message("never"))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        witness.append(message("goes on"), timeout=BOUND)
    assert path.read_bytes().startswith(SEED)
    assert b"never" not in path.read_bytes()


def test_a_lock_that_breaks_unexpectedly_is_told_to_whoever_waits_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if what it raises is no error of the system."""

    def broken(_: object) -> bool:
        raise ZeroDivisionError("a defect")

    with BlockingSession(path) as session:
        with monkeypatch.context() as patch:
            patch.setattr(kernel_lock.KernelLock, "try_acquire", broken)
            with pytest.raises(CosessionError, match="unexpected") as caught:
                session.append(message("never"), timeout=BOUND)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        session.append(message("goes on"), timeout=BOUND)
        assert_memory_is_file(session)


def test_a_session_that_is_being_opened_is_not_opened_by_another_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is told so at once; the first one has it open."""
    opening, go_on = threading.Event(), threading.Event()
    real = Store.open

    def slow(self: Store) -> None:
        opening.set()
        assert go_on.wait(BOUND)
        real(self)

    monkeypatch.setattr(Store, "open", slow)
    session = BlockingSession(path)
    thread = threading.Thread(target=session.open)
    thread.start()
    try:
        assert opening.wait(BOUND)
        with pytest.raises(SessionClosed, match="being opened already"):
            session.open()
    finally:
        go_on.set()
        thread.join(BOUND)
    assert len(session.history) == 3
    session.close()


def test_an_option_that_there_is_not_is_refused(path: Path) -> None:
    """By name, and before anything is opened."""
    options: dict[str, Any] = {"during_turn": "perhaps"}
    with pytest.raises(ValueError, match="'perhaps'"):
        BlockingSession(path, **options)


def test_a_turn_that_has_not_begun_began_nowhere(path: Path) -> None:
    """It says so, instead of naming a revision."""
    from cosession.turn import BlockingTurn

    with BlockingSession(path) as session, pytest.raises(TurnOver, match="has not begun"):
        _ = BlockingTurn(session, "").began


def test_a_rolled_back_turn_whose_file_is_gone_is_an_error(path: Path) -> None:
    """Where no file holds what was there before, nothing is changed."""
    with BlockingSession(path) as session:
        revision = session.revision
        with pytest.raises(UnknownRevision):
            session._back_to(Revision(revision.generation - 1, 5))
        assert path.read_bytes() == SEED


def test_a_history_is_a_sequence_like_others(path: Path) -> None:
    """It equals lists of the same messages, nothing else, and shows how long it is."""
    with BlockingSession(path) as session:
        history = session.history
        assert history == [*history]
        assert history != [*history][:-1]
        assert history != "one"
        assert history != 3
        assert repr(history) == "<3 messages>"


# ---- messages that pydantic lets pass -----------------------------------------------------------


class Loose(BaseModel):
    """Writes NaN as JSON doesn't know it."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    role: Literal["user"]
    content: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_know_is_refused(path: Path, number: float) -> None:
    """Other programs could not read the line; the good ones of the same type are stored."""
    with BlockingSession(path, message_type=Loose) as session:
        with pytest.raises(InvalidMessage, match="is not JSON"):
            session.append([Loose(role="user", content=1.5), Loose(role="user", content=number)])
        assert path.read_bytes() == SEED
        session.append(Loose(role="user", content=1.5))
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"role": "user", "content": 1.5}


def test_the_word_nan_in_a_text_is_a_text(path: Path) -> None:
    """Only the number is refused."""
    with BlockingSession(path) as session:
        session.append(Message(role="user", content="NaN, Infinity"))
        assert session.history[-1].content == "NaN, Infinity"
