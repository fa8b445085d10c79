"""Cut the power at every instant of a story, in every way, and say what was found.

echo '["/tmp/somewhere", "--story=append-many", "--durability=power"]' | python -m power.campaign
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import portalocker.utils  # noqa: F401

import cosession._platform
import cosession.messages
from cosession import healing, reading, store
from crash import mutants as crash_mutants
from crash import shim
from crash.operations import message
from crash.scene import read
from crash.server import serve

from . import disk
from .disk import Event, Image, State, Told
from .examine import Expected, examine
from .mutants import MUTANTS
from .recorder import Recorder
from .stories import STORIES, Cast, Story

_boots = itertools.count(1)

AFTER_THE_CUT = "After the cut."


@dataclass(slots=True)
class Report:
    events: int = 0
    """Calls that were recorded."""
    states: int = 0
    """Different states that were opened and examined."""
    healings: int = 0
    """Of how many ways of healing the power was cut again."""
    findings: list[str] = field(default_factory=list)
    finished: bool = True
    """Whether there was time for all of them."""


class Enough(Exception):
    """So many findings, or so much time, that more is not wanted."""


@dataclass(frozen=True, slots=True)
class Recording:
    image: Image
    trace: list[Event]
    wholes: tuple[bytes, ...]
    due: tuple[bool, ...]
    """Which of them were acknowledged."""
    healed: bytes = b""

    @property
    def written(self) -> tuple[bytes, ...]:
        """What went to the end of the session's file, also if it was taken back."""
        return tuple(
            event.data
            for event in self.trace
            if isinstance(event, disk.Write) and event.name == "context.jsonl"
        )


class Campaign:
    def __init__(self, root: str, story: Story, durability: str, *, most: int) -> None:
        self.root = os.path.realpath(root)
        self.story = story
        self.durability = durability
        self.most = most
        self.report = Report()
        self.recording = self._record()
        self.report.events = sum(not isinstance(e, Told) for e in self.recording.trace)

    # ---- recording --------------------------------------------------------------------------

    def _folder(self) -> str:
        """Empty, and always the same: where locks lie elsewhere, their names depend on it."""
        folder = os.path.join(self.root, "case")
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        if self.story.lock_dir:
            os.mkdir(os.path.join(folder, self.story.lock_dir), 0o700)
        return folder

    def _record(self) -> Recording:
        story = self.story
        everything_apart = [self._apart(number) for number in range(len(story.acts))]
        folder = self._prepared()
        players = Cast(folder, self.durability, lock_dir=story.lock_dir)
        if story.opened:
            players.own.refresh()
        wholes, due = [_content(players.path)], [True]
        recorder = Recorder(folder, links=story.links)
        last = Told(0, 0)
        for act, apart in zip(story.acts, everything_apart, strict=True):
            wholes += apart or [b""]
            due += [False] * len(apart or [b""])
            recorder.tell(last := Told(last.acknowledged, len(wholes) - 1, last.generation))
            with recorder.armed():
                act.run(players)
            wholes[-1] = _content(players.path)
            assert not apart or apart[-1] == wholes[-1], "the same operations one by one differ"
            if act.acknowledged:
                due[-1] = True
                generation = players.own.revision.generation
                recorder.tell(last := Told(len(wholes) - 1, len(wholes) - 1, generation))
        players.close()
        self._require_complete(folder, recorder)
        return Recording(recorder.image, recorder.trace, tuple(wholes), tuple(due))

    def _prepared(self) -> str:
        folder = self._folder()
        if self.story.prepare:
            players = Cast(folder, "process", lock_dir=self.story.lock_dir)
            self.story.prepare(players.other)
            players.close()
        return folder

    def _apart(self, number: int) -> list[bytes]:
        """What each operation of an act makes of the session when they are carried out one by one;
        nothing if it is only one.
        """
        acts = self.story.acts
        if not acts[number].apart:
            return []
        players = Cast(self._prepared(), self.durability, lock_dir=self.story.lock_dir)
        for act in acts[:number]:
            act.run(players)
        contents = []
        for act in acts[number].apart:
            act.run(players)
            contents.append(_content(players.path))
        players.close()
        return contents

    def _require_complete(self, folder: str, recorder: Recorder) -> None:
        """The trace leads to what is really there: nothing has escaped the recorder."""
        result = recorder.image.copy()
        for event in recorder.trace:
            disk.apply(result, event, disk.WHOLE)
        if result.key() != disk.photograph(folder).key():
            raise RuntimeError(f"{self.story.name}: the trace misses something")

    # ---- cutting ----------------------------------------------------------------------------

    def cut(self, *, deep: bool, again: bool, subsets: int, seed: int, seconds: float) -> None:
        """Examine every state; with `again`, cut the power once more while each is healed."""
        until = time.monotonic() + seconds
        recording = self.recording
        seen = set[tuple[object, ...]]()
        for state in self._states(recording, deep=deep, subsets=subsets, seed=seed):
            self._examine(state, recording)
            if again:
                healing = self._healing(state, recording)
                if healing is not None and (shape := _shape(state, healing.trace)) not in seen:
                    seen.add(shape)
                    self.report.healings += 1
                    for second in self._states(healing, deep=False, subsets=subsets, seed=seed):
                        self._examine(second, healing, first=state)
            if time.monotonic() > until:
                self.report.finished = False
                raise Enough

    def _states(
        self, recording: Recording, *, deep: bool, subsets: int, seed: int
    ) -> Iterator[State]:
        return disk.states(recording.image, recording.trace, deep=deep, subsets=subsets, seed=seed)

    def _examine(self, state: State, recording: Recording, first: State | None = None) -> None:
        told = first.told if first else state.told
        expected = Expected(
            self.durability,
            recording.wholes,
            recording.due,
            self.recording.written,
            told,
            self.story.foreign,
            recording.healed,
            bool(first and state.told.acknowledged),
            (first and first.image.content("context.jsonl")) or b"",
        )
        folder = self._folder()
        disk.materialise(state.image, folder)
        why = f"{first.why}, then again {state.why}" if first else state.why
        _boot_again()
        self.report.states += 1
        self.report.findings += [f"{why}: {finding}" for finding in examine(folder, expected)]
        if len(self.report.findings) >= self.most:
            raise Enough

    def _healing(self, state: State, recording: Recording) -> Recording | None:
        """What the next process does first: it heals the session and appends to it."""
        folder = self._folder()
        disk.materialise(state.image, folder)
        players = Cast(folder, self.durability, lock_dir=self.story.lock_dir)
        _boot_again()
        recorder = Recorder(folder)
        recorder.tell(Told(0, 1))
        try:
            with recorder.armed():
                if turn := players.own.interrupted:
                    turn.keep(close_tool_calls=False)
                players.own.append(message(AFTER_THE_CUT))
            recorder.tell(Told(1, 1))
        except cosession.CosessionError:
            return None  # the examination has said so
        finally:
            players.close()
            line = _content(players.path).splitlines(keepends=True)[-1:]
        return Recording(
            recorder.image, recorder.trace, recording.wholes, recording.due, b"".join(line)
        )


def _content(path: str) -> bytes:
    return read(path) if os.path.exists(path) else b""


def _shape(state: State, trace: list[Event]) -> tuple[object, ...]:
    """What is done to which files in which order, and how many records it is done to."""
    found = state.image.content("context.jsonl") or b""
    whole = sum(line.endswith(b"}") and b"\0" not in line for line in found.split(b"\n"))
    return whole, *(
        f"{type(event).__name__} {getattr(event, 'name', '').endswith('.lock')}" for event in trace
    )


def main(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--story", required=True)
    parser.add_argument("--durability", default="power")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--subsets", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--mutant")
    parser.add_argument("--most", type=int, default=10)
    options = parser.parse_args(arguments)
    logging.getLogger("cosession").addHandler(logging.NullHandler())
    healing._GRACE = 0.002  # nobody else is writing here,
    for module in (reading, healing, store):  # so what is unreadable stays so
        setattr(module, "LOOKS", 2)
    _wait_for_no_disk()
    if options.mutant:
        crash_mutants.apply(options.mutant, MUTANTS)
    campaign = Campaign(options.root, STORIES[options.story], options.durability, most=options.most)
    try:
        campaign.cut(
            deep=options.deep,
            again=options.again,
            subsets=options.subsets,
            seed=options.seed,
            seconds=options.seconds,
        )
    except Enough:
        pass
    return asdict(campaign.report)


def _boot_again() -> None:
    """Behind a power cut the system has another boot's id."""
    boot = next(_boots).to_bytes(16, "big")
    cosession._platform.boot_id = lambda: boot


def _wait_for_no_disk() -> None:
    """What is on the disk is up to the model; the real one would only take time."""
    for name in ("fsync", "fdatasync"):
        shim._real[name] = lambda fd: None
        setattr(os, name, shim._real[name])


if __name__ == "__main__":
    serve(main)
