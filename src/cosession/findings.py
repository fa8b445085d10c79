"""What there is to say of a session's file and its lock, besides the lines. Changes nothing.

What the next opening for writing does about it is told by the code that does it (`plan_repair`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from . import files
from .header import Appending, Header, Identity, Replacing
from .lock import LockFile, Peek
from .repair import Adopt, Cut, Splice, plan_repair
from .turn_lock import Turns
from .values import replace


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the file and its lock that isn't as a finished operation leaves it."""

    code: str
    """A word for scripts."""
    text: str
    remedy: str = ""
    """What the next opening for writing does about it; empty if there is nothing to do."""
    problem: bool = False
    """Whether it is more than a remark."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The header and the file's status as they were at about the same moment."""

    header: Header | None
    torn: bool
    """Whether there is a header that can't be read."""
    status: os.stat_result
    writer: int | None
    """The process that has the lock, where the system tells."""
    temporary: frozenset[str]
    """The names of temporary files, of a replacement under way or left over."""
    live: bool
    """Whether somebody is writing right now."""

    def since(self, first: Glance) -> Glance:
        """This look in the light of an earlier one: what changes is alive."""
        live = self.live or self.header != first.header
        return replace(self, live=live, temporary=self.temporary & first.temporary)

    def doubtful(self, identity: Identity) -> bool:
        """Whether a second look may show something better."""
        header = self.header
        if self.temporary and not self.live:
            return True
        if header is None:
            return self.torn
        if not speaks_of(header, identity, self.status.st_size):
            return True
        return header.intent is not None and not self.live


def lock_findings(peek: Peek | None, glance: Glance) -> Iterator[Finding]:
    """The lock and its file."""
    if glance.writer is not None:
        yield Finding("locked", f"process {glance.writer} has the lock")
    elif glance.live:
        yield Finding("locked", "another process is writing")
    if peek is None:
        yield Finding("no-lock-file", "there is no lock file: it was not opened for writing yet")
    elif glance.torn:
        yield Finding(
            "no-header",
            "the lock file's header can't be read",
            "it is made anew from the session's file",
        )


def speaks_of(header: Header, identity: Identity, size: int) -> bool:
    """Whether the header is about this file, and no more of it than there is."""
    if isinstance(header.intent, Replacing) and header.intent.identity == identity:
        return True
    return header.identity == identity and header.committed <= size


def foreign_finding(header: Header, identity: Identity, size: int) -> Finding:
    """The header speaks of another file, or of more of this one."""
    if header.identity == identity:
        return Finding(
            "truncated",
            f"{header.committed - size} acknowledged bytes are gone from the end: a "
            "program that takes no lock cut them off",
            "what is left is read anew, and counts as a new generation",
            problem=True,
        )
    return Finding(
        "replaced-by-others",
        "the lock file speaks of another file: this one was copied here, or put in its place "
        "by a program that takes no lock",
        "it is read anew, and counts as a new generation",
    )


def append_finding(path: str, intent: Appending, tail: bytes, lock: LockFile | None) -> Finding:
    """An announced append that was not finished; `tail` is what there is behind its start."""
    match plan_repair(intent, tail):
        case Cut():
            remedy = f"they are cut off and kept in {path}.torn"
        case Splice(cuts):
            length = sum(stop - start for start, stop in cuts)
            remedy = (
                f"{length} of them are taken out from between the lines of another "
                "program; the file as it is now is kept as a rotated one"
            )
        case Adopt():
            remedy = "they stay" if tail else "the announcement is withdrawn"
    text = (
        f"a write of {intent.length} bytes at offset {intent.start} was announced and not "
        f"finished{_by(lock)}: {len(tail)} bytes are there"
    )
    return Finding("unfinished-append", text, remedy, problem=True)


def replace_finding(
    intent: Replacing, identity: Identity, lock: LockFile | None, glance: Glance
) -> Finding:
    """An announced replacement, under way or not finished."""
    if glance.live:
        return Finding("replacing", "the file is just being replaced")
    if intent.identity == identity:
        done = "the new file is in place", "it is taken as it is"
    else:
        done = "it did not come to that", "what was prepared for it is removed"
    text = f"a replacement of the file was announced and not finished{_by(lock)}: {done[0]}"
    return Finding("unfinished-replace", text, done[1], problem=True)


def turn_finding(path: str, lock: LockFile, token: int) -> Finding:
    """Whose turn it is, or was when its process died."""
    turns = Turns(lock.path.removesuffix(".lock") + ".turn", beside=path)
    card = turns.read()
    known = card if card is not None and card.token == token else None
    who = known.holder if known else "a terminal that left no card"
    try:
        held = turns.held()
    except OSError:  # a reader who can't even try the lock gives it the benefit of the doubt
        held = True
    if held:
        return Finding("turn", f"it is the turn of {who}")
    where = f", which began at revision {known.began}," if known else ""
    return Finding(
        "interrupted-turn",
        f"the turn of {who}{where} was interrupted, and nobody can write messages before "
        "`cosession heal --turn keep` or `--turn roll-back` has settled it",
        problem=True,
    )


def folder_findings(path: str, glance: Glance) -> Iterator[Finding]:
    """Other files of the session in its folder."""
    busy = glance.live or glance.writer is not None
    if glance.status.st_nlink > 1:
        yield _names_finding(path, glance.status, busy)
    temporary = sorted(glance.temporary)
    if temporary and not busy:
        yield Finding(
            "temporary-files",
            f"{len(temporary)} temporary file(s) of processes that died: {', '.join(temporary)}",
            "they are removed",
            problem=True,
        )
    aside = f"{path}.torn"
    try:
        size = os.stat(aside).st_size
    except OSError:
        return
    yield Finding("put-aside", f"{size} bytes of undone writes were kept earlier, in {aside}")


def _names_finding(path: str, status: os.stat_result, busy: bool) -> Finding:
    twins = []
    for _, rotated in files.rotations(path):
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(rotated, follow_symlinks=False), status):
                twins.append(rotated)
    if status.st_nlink == 1 + len(twins):
        return Finding(
            "second-name",
            f"the file is also named {', '.join(twins)}: a replacement stopped half-way",
            "that name is removed",
            problem=not busy,
        )
    return Finding(
        "hard-linked",
        f"the file has {status.st_nlink} names (hard links), and would have as many locks",
        problem=not busy,
    )


def _by(lock: LockFile | None) -> str:
    holder = lock.holder() if lock else None
    return f" (by {holder})" if holder else ""
