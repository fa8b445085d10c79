"""What others do in the middle of a look without the lock, or of a repair, at the worst moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bad.operations import seeded
from cosession import files
from cosession.batch import Request
from cosession.edits import Clear
from cosession.header import Appending, Header, Span
from cosession.store import Store

FIRST = b'{"role": "user", "content": "first of two"}\n'
SECOND = b'{"role": "user", "content": "second of two"}\n'
FOREIGN = b'{"role": "user", "content": "foreign"}\n'
SEEDED = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return seeded(tmp_path / "context.jsonl")


@contextmanager
def store(path: Path, *, read_only: bool = False) -> Iterator[Store]:
    opened = Store(path, read_only=read_only)
    try:
        opened.open()
        yield opened
    finally:
        opened.close()


def write_half(writer: Store) -> None:
    """Do what a writer has done when it is through with half of an append; it keeps the lock."""
    assert writer.lock.try_acquire()
    writer.settle()
    header = writer.lock.read()
    assert header is not None
    intent = Appending(header.committed, (Span.of(FIRST), Span.of(SECOND)))
    writer.lock.announce(header.announcing(intent), "append", durable=False)
    with open(writer.path, "ab") as file:
        file.write(FIRST)


def meanwhile(reader: Store, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Have something happen when the reader has read the header and not yet the file."""
    follow_path = reader._follow_path
    left = [act]

    def act_once() -> None:
        if left:
            left.pop()()
        follow_path()

    patch.setattr(reader, "_follow_path", act_once)


def test_no_half_behind_a_replace_that_is_just_published(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that met a replace under way sees no half of what is appended right behind it."""
    with store(path) as writer, store(path, read_only=True) as reader, store(path) as other:
        assert writer.lock.try_acquire()
        with monkeypatch.context() as patch:

            def fail(*_: object) -> Header:
                raise OSError

            patch.setattr(writer, "_publish", fail)  # it stops between the swap and the publishing
            writer.commit([Request("clear", (Clear(),))])
        writer.lock.release()
        meanwhile(reader, lambda: write_half(other), monkeypatch)
        reader.look()
        assert reader.state.message_count == 0


def test_no_half_when_the_first_lock_file_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that found no lock file sees no half of what the first writer appends."""
    with store(path, read_only=True) as reader, store(path) as writer:
        writer.lock.close()
        os.unlink(f"{path}.lock")
        meanwhile(reader, lambda: write_half(writer), monkeypatch)
        reader.look()
        assert reader.state.message_count == SEEDED


@pytest.mark.skipif(sys.platform == "win32", reason="there an open lock file can't be unlinked")
def test_no_half_when_the_lock_file_is_unlinked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose lock file is unlinked sees no half of what is announced in the next one."""
    with store(path) as writer, store(path, read_only=True) as reader:

        def unlink_and_write() -> None:
            os.unlink(f"{path}.lock")
            write_half(writer)

        meanwhile(reader, unlink_and_write, monkeypatch)
        reader.look()
        assert reader.state.message_count == SEEDED


def test_a_line_that_comes_while_a_torn_one_is_put_aside_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting bytes aside takes a sync, and what another program appends meanwhile isn't cut."""
    with store(path) as writer, store(path) as healer:
        write_half(writer)
        writer.lock.release()  # as if it had been killed
        put_aside = files.put_aside
        came: list[bool] = []

        def put_aside_slowly(*arguments: object) -> str:
            where = put_aside(*arguments)  # type: ignore[arg-type]
            if not came:
                came.append(True)
                with open(path, "ab") as file:
                    file.write(FOREIGN)
            return where

        monkeypatch.setattr(files, "put_aside", put_aside_slowly)
        assert healer.lock.try_acquire()
        healer.settle()
        healer.lock.release()
        assert came
        data = path.read_bytes()
        assert FOREIGN in data
        assert FIRST not in data
