"""What is going on when the power is cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from cosession import BlockingSession, Message, StorageFull
from cosession._base import Durability
from cosession.records import Outcome
from crash.operations import (
    FOREIGN_LINE,
    FOREIGN_START,
    OPERATIONS,
    Operation,
    conversation,
    message,
    nothing,
)


class Cast:
    """Who acts: a session of the durability that is examined, and others."""

    def __init__(self, folder: str, durability: str, *, lock_dir: str | None = None) -> None:
        self.folder = folder
        self.path = os.path.join(folder, "context.jsonl")
        self._durability = cast("Durability", durability)
        self._lock_dir = None if lock_dir is None else os.path.join(folder, lock_dir)
        self._sessions: dict[str, BlockingSession[Message]] = {}

    @property
    def own(self) -> BlockingSession[Message]:
        """The one whose promises are examined."""
        return self._session("own", self._durability)

    @property
    def other(self) -> BlockingSession[Message]:
        """One that doesn't care for power cuts."""
        return self._session("other", "process")

    def _session(self, name: str, durability: Durability) -> BlockingSession[Message]:
        if name not in self._sessions:
            options: dict[str, Any] = {"durability": durability, "lock_dir": self._lock_dir}
            self._sessions[name] = BlockingSession(self.path, **options)
            self._sessions[name].open()
        return self._sessions[name]

    def append_foreign(self, data: bytes) -> None:
        """A program that takes no lock appends."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()


@dataclass(frozen=True, slots=True)
class Act:
    """One operation."""

    run: Callable[[Cast], object]
    acknowledged: bool = True
    """Whether it was the session under examination that carried it out."""
    apart: tuple[Act, ...] = ()
    """The same one by one, where it is several operations."""


@dataclass(frozen=True, slots=True)
class Story:
    name: str
    prepare: Callable[[BlockingSession[Message]], object] | None
    """Makes what is on the disk already; None for an empty folder."""
    acts: tuple[Act, ...]
    opened: bool = True
    """Whether the session was opened before the story begins, and that is on the disk."""
    links: bool = True
    lock_dir: str | None = None
    foreign: bytes = b""
    """What a program that takes no lock writes meanwhile."""


def own(act: Callable[[BlockingSession[Message]], object]) -> Act:
    return Act(lambda cast: act(cast.own))


def other(act: Callable[[BlockingSession[Message]], object]) -> Act:
    return Act(lambda cast: act(cast.other), acknowledged=False)


def foreign(data: bytes) -> Act:
    return Act(lambda cast: cast.append_foreign(data), acknowledged=False)


def _one(text: str) -> Act:
    return own(lambda session: session.append(message(text)))


def _together(*texts: str) -> Act:
    """Appends of several threads or coroutines, which go out in one write."""

    def run(cast: Cast) -> None:
        session, store = cast.own, cast.own._store
        appends = [session._request("append", None, session._add(message(text))) for text in texts]
        assert store.lock.try_acquire()
        results = store.commit(appends)
        store.lock.release()
        assert all(isinstance(result, Outcome) for result in results)

    return Act(run, apart=tuple(map(_one, texts)))


def _several(text: str) -> Act:
    return own(lambda session: session.append([message(f"{text} {at}") for at in range(3)]))


def _large(text: str) -> Act:
    """Records that lie on several pages of the file."""
    return own(lambda session: session.append([message(text * 300) for _ in range(3)]))


def _crowd(session: BlockingSession[Message]) -> None:
    """So many records that their announcement is longer than a page."""
    session.append([message(str(number)) for number in range(460)])


def _checkpoint(session: BlockingSession[Message]) -> None:
    session.checkpoint()


def _back(session: BlockingSession[Message]) -> None:
    session.revert_to(1)


def _clear(session: BlockingSession[Message]) -> None:
    session.clear()


def _on_a_full_disk(cast: Cast) -> None:
    """An append of which a part gets there before the disk is full; it is taken back."""
    write, left = os.write, [100]

    def short(fd: int, data: bytes) -> int:
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, bytes(data)[: left.pop()])

    cast.own.refresh()
    os.write = short  # type: ignore[assignment]
    try:
        OPERATIONS["append-many"].act(cast.own)
    except StorageFull:
        return
    finally:
        os.write = write
    raise AssertionError("there was room")


def _turn(session: BlockingSession[Message]) -> None:
    with session.turn("answering") as turn:
        turn.append(message("A turn's only record."))


def _opened_while_busy(cast: Cast) -> None:
    """Somebody else has the lock while the session is opened."""
    lock = cast.other._store.lock
    assert lock.try_acquire()
    try:
        cast.own.refresh()
    finally:
        lock.release()


def _of(operation: Operation) -> Story:
    apart: tuple[Act, ...] = ()
    if not operation.single:  # a batch
        apart = (
            own(OPERATIONS["append-many"].act),
            own(lambda session: session.set_system_prompt("Be a clock.")),
        )
    act = Act(lambda cast: operation.act(cast.own), apart=apart)
    return Story(operation.name, operation.prepare, (act,))


STORIES = {
    story.name: story
    for story in (
        *map(_of, OPERATIONS.values()),
        Story("create", None, (_one("The first."), _several("More")), opened=False),
        Story("create-prompt", None, (own(OPERATIONS["prompt-on-empty"].act),), opened=False),
        Story("no-links", conversation, (own(OPERATIONS["revert"].act),), links=False),
        Story("large", conversation, (_large("A page. "), _several("Small"))),
        Story("crowd", conversation, (own(_crowd),)),
        Story(
            "full-disk",
            conversation,
            (Act(_on_a_full_disk, acknowledged=False), _one("There is room again.")),
        ),
        Story("turn", conversation, (own(_turn), _one("Behind it."))),
        Story("appends", conversation, (_one("One."), _several("Several"), _one("Another."))),
        Story("together", conversation, (_one("Alone."), _together("One.", "Two.", "Three."))),
        Story("clears", conversation, (own(_clear), _one("Between."), own(_clear))),
        Story(
            "day",
            conversation,
            (
                _one("Morning."),
                own(_back),
                _several("Noon"),
                own(_checkpoint),
                own(_back),
                _one("Evening."),
                own(_clear),
                _one("Night."),
            ),
        ),
        # The others have made or replaced the file, and did not wait for the disk.
        Story("created-by-another", None, (other(nothing), _one("Mine.")), opened=False),
        Story(
            "created-by-another-busy",
            None,
            (
                other(nothing),
                Act(_opened_while_busy, acknowledged=False),
                _one("Mine."),
                _several("Mine"),
            ),
            opened=False,
        ),
        Story(
            "created-by-another-locks-elsewhere",
            None,
            (other(nothing), _several("Mine")),
            opened=False,
            lock_dir="locks",
        ),
        Story("replaced-by-another", conversation, (other(_back), _one("Mine."), _several("Mine"))),
        Story(
            "appended-by-another",
            conversation,
            (
                other(OPERATIONS["append-one"].act),
                _several("Mine"),
                other(OPERATIONS["append-one"].act),
                own(_back),
            ),
        ),
        Story(
            "foreign",
            conversation,
            (foreign(FOREIGN_LINE), _several("Mine"), foreign(FOREIGN_START), own(_clear)),
            foreign=FOREIGN_LINE + FOREIGN_START,
        ),
    )
}
