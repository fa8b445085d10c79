"""What is wrong with a scene after the act was cut short. Each finding is a sentence."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cosession import BlockingSession

from .operations import message
from .scene import Scene, Snapshot, naive_fold, read, view

_KNOWN = re.compile(r"context(_[0-9]+)?\.jsonl(\.lock|\.turn(\.queue)?|\.torn|\.lineage)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """The two states that an operation may be found in."""

    before: Snapshot
    after: Snapshot

    @property
    def added(self) -> bytes:
        """What an operation that only appends puts behind the file."""
        assert self.after.live.startswith(self.before.live)
        return self.after.live[len(self.before.live) :]


def examine(
    scene: Scene, reference: Reference, foreign: bytes = b"", *, acknowledged: bool = False
) -> list[str]:
    """Reopen the session, and compare everything with what it may be.

    `foreign` is what another program appended after the act was cut short. If the act was
    `acknowledged`, only the state after it will do.
    """
    heard = _Heard()
    log = logging.getLogger("cosession")
    log.addHandler(heard)
    try:
        return list(_findings(scene, reference, foreign, acknowledged, heard))
    finally:
        log.removeHandler(heard)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _findings(
    scene: Scene, reference: Reference, foreign: bytes, acknowledged: bool, heard: _Heard
) -> Iterator[str]:
    found = Snapshot.of(scene.folder)
    generation = scene.survivor.revision.generation

    allowed = _allowed(scene, reference, foreign)
    yield from _look_without_lock(scene, reference, foreign, found, allowed)

    scene.age()
    with scene.fresh() as session:
        held = view(session)
    live = read(scene.path)
    verdict = allowed.get(live)
    if verdict is None:
        yield f"the file is neither as before nor as after: …{live[-200:]!r}"
    elif acknowledged and verdict == "before":
        yield "an acknowledged operation is undone"
    if damage := held.pop("damage") - naive_fold(live).pop("damage"):
        yield f"{damage} damaged lines too many are reported"
    if held["generation"] < generation:
        yield f"the generation went down from {generation} to {held['generation']}"
    if held != {**held, **_without_damage(naive_fold(live))}:
        yield f"what was opened is not the file's fold: {held}"
    yield from _kept(scene, reference, foreign, found, live, verdict)
    if not foreign and any("takes no lock" in line for line in heard.lines):
        yield f"a foreign program is blamed, and there was none: {heard.lines}"

    yield from leftovers(scene.folder)
    yield from nothing_left_to_do(scene.path)
    yield from _works(scene)


def _look_without_lock(
    scene: Scene,
    reference: Reference,
    foreign: bytes,
    found: Snapshot,
    allowed: dict[bytes, str],
) -> Iterator[str]:
    """A reader, before anybody has healed anything, sees a state before or after."""
    scene.survivor._store.look()
    seen = view(scene.survivor)
    part = found.live[: seen["position"]]
    whole = [b"", reference.before.live, reference.after.live]
    lines = foreign.splitlines(keepends=True)
    behind = [b"".join(lines[:count]) for count in range(len(lines) + 1)]
    behind.append(foreign + b"\n")
    glued = bool(foreign) and part not in (state + rest for state in whole for rest in behind)
    if glued and {part} & {*_allowed(scene, reference, lines[0]), *allowed}:
        glued = False
    if glued or (not foreign and part not in whole):
        yield f"a reader saw a part of an operation: …{part[-120:]!r}"
    if seen != {**seen, **_without_damage(naive_fold(part))}:
        yield f"a reader holds something else than the part of the file that it saw: {seen}"


def _allowed(scene: Scene, reference: Reference, foreign: bytes) -> dict[bytes, str]:
    """The contents that the file may have, and whether the act is in them."""
    closed = foreign if not foreign or foreign.endswith(b"\n") else foreign + b"\n"
    before, after = reference.before.live, reference.after.live
    allowed = {before + closed: "before", after + closed: "after"}
    if not foreign:
        return allowed
    if closed != foreign:
        allowed[before] = "before"  # put aside together with our part of the line
    if not scene.setting.operation.replaces:
        # A foreign line that was glued to a part of ours can't be told from it, and is kept so.
        for record in reference.added.splitlines(keepends=True):
            for length in range(1, len(record)):
                allowed[before + record[:length] + closed] = "before"
    return allowed


def _kept(
    scene: Scene,
    reference: Reference,
    foreign: bytes,
    found: Snapshot,
    live: bytes,
    verdict: str | None,
) -> Iterator[str]:
    """Nothing is gone: neither what was rotated away, nor what was cut."""
    now = Snapshot.of(scene.folder)
    due = (reference.after if verdict == "after" else reference.before).rotated
    for name, content in due.items():
        kept = now.rotated.get(name)
        if kept is None:
            yield f"{name} is missing"
        elif kept not in (content, content + foreign) and kept != found.live:
            yield f"{name} holds something else than what was rotated away"
    lost = reference.before.live if scene.setting.operation.replaces else b""
    if verdict == "after" and lost not in {
        b"",
        *(old[: len(lost)] for old in now.rotated.values()),
    }:
        yield "the file that was replaced is kept nowhere"
    extra = [content for name, content in now.rotated.items() if name not in due]
    may_stay = {found.live, *scene.seen}
    if not scene.setting.links:
        may_stay |= {reference.before.live}
    if scene.setting.operation.replaces and not foreign and scene.setting.links:
        may_stay = set()
    if set(extra) - may_stay:
        yield f"rotated files that hold nothing that was rotated away: {sorted(now.rotated)}"
    aside = f"{scene.path}.torn"
    everything = [live, *now.rotated.values(), read(aside) if os.path.exists(aside) else b""]
    if not any(found.live in content for content in everything):
        tail = found.live[len(reference.before.live) :]
        if not any(tail in content for content in everything):
            yield f"bytes are in no file any more: {tail!r}"


def leftovers(folder: str) -> Iterator[str]:
    """Files that should not be there, and second names of files."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            continue
        if not _KNOWN.fullmatch(name):
            yield f"a leftover: {name}"
        elif (links := os.stat(path).st_nlink) != 1:
            yield f"{name} has {links} names"


def nothing_left_to_do(path: str, lock_dir: str | None = None) -> Iterator[str]:
    """A second reopening finds everything settled."""
    before = _contents(os.path.dirname(path))
    with BlockingSession(path, lock_dir=lock_dir) as session:
        if session.repairs:
            yield f"the second reopening repaired something: {session.repairs}"
        header = session._store.lock.read()
        if header is None or header.intent is not None:
            yield f"the header is not settled: {header}"
    if _contents(os.path.dirname(path)) != before:
        yield "the second reopening changed something"


def _works(scene: Scene) -> Iterator[str]:
    """Whoever outlived the crash goes on, and so does whoever comes new."""
    before = read(scene.path)
    scene.survivor.append(message("The survivor goes on."))
    with scene.fresh() as session:
        session.append(message("So does another one."))
        scene.survivor.refresh()
        live = read(scene.path)
        if not live.startswith(before) or live[len(before) :].count(b"\n") != 2:
            yield f"appends afterwards went wrong: …{live[-200:]!r}"
        for who, held in ("the survivor", view(scene.survivor)), ("a new one", view(session)):
            expected = naive_fold(live)
            if held != {**held, **expected}:
                yield f"{who} holds something else than the file afterwards: {held}"


def _contents(folder: str) -> dict[str, bytes]:
    paths = [os.path.join(folder, name) for name in os.listdir(folder)]
    return {path: read(path) for path in paths if os.path.isfile(path)}


def _without_damage(folded: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in folded.items() if key != "damage"}
