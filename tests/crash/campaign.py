"""Run every case of one operation, and say what was found.

echo '["/tmp/somewhere", "--operation=append-many", "--kind=kill"]' | python -m crash.campaign
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import portalocker.utils  # noqa: F401

import cosession.messages  # noqa: F401
from cosession import healing, reading, store

from . import mutants
from .examine import Reference, examine, leftovers
from .operations import FOREIGN_LINE, FOREIGN_START, OPERATIONS
from .scene import (
    Scene,
    Setting,
    Snapshot,
    Told,
    naive_fold,
    read,
    view,
)
from .server import serve
from .shim import WRITES, Call, Plan, plans_for


@dataclass(slots=True)
class Report:
    cases: int = 0
    situations: int = 0
    findings: list[str] = field(default_factory=list)


class Enough(Exception):
    """So many findings that more would tell nothing new."""


class Campaign:
    def __init__(self, root: str, setting: Setting, *, deep: bool, most: int) -> None:
        self.root = root
        self.setting = setting
        self.deep = deep
        self.most = most
        self.report = Report()
        self.situations = set[str]()
        with self.scene() as scene:
            before = Snapshot.of(scene.folder)
            told = scene.act(watch_lock=True)
            if told.error or told.view is None:
                raise RuntimeError(f"{setting.operation.name} fails undisturbed: {told}")
            self.calls = told.calls
            self.reference = Reference(before, Snapshot.of(scene.folder))

    def scene(self) -> Scene:
        return Scene(self.root, self.setting)

    def note(self, case: str, findings: list[str]) -> None:
        self.report.cases += 1
        self.report.findings += [f"{case}: {finding}" for finding in findings]
        if len(self.report.findings) >= self.most:
            raise Enough

    # ---- kinds of campaigns -----------------------------------------------------------------

    def order(self) -> None:
        """Undisturbed, the calls come in the order of the protocol, and under the lock."""
        findings = [
            f"{call.name} of {call.target} without the lock"
            for call in self.calls
            if call.wanted_lock and _changes_the_session(call)
        ]
        findings += _out_of_order(self.calls, power=self.setting.durability == "power")
        with self.scene() as scene:
            told = scene.act()
            if told.view is not None and told.view != {
                **told.view, **naive_fold(read(scene.path))
            }:  # fmt: skip
                findings.append(f"memory is not the file's fold: {told.view}")
            findings += examine(scene, self.reference, acknowledged=True)
        self.note("undisturbed", findings)

    def kill(self) -> None:
        """Die at every instant, then reopen."""
        for plan in plans_for(self.calls, after=self.deep):
            self.kill_once(plan)

    def kill_and_more(self) -> None:
        """Die at every instant, then reopen; before that, foreign lines, or another death while
        healing: once for each situation that a healer can meet.
        """
        for plan in plans_for(self.calls, after=self.deep):
            situation = self.kill_once(plan)
            if situation not in self.situations or self.deep:
                self.situations.add(situation)
                self.kill_then_foreign(plan)
                self.kill_twice(plan)
        self.report.situations = len(self.situations)

    def kill_once(self, plan: Plan) -> str:
        with self.scene() as scene:
            self.killed(scene, plan)
            situation = _situation(scene)
            self.note(f"{plan}", examine(scene, self.reference))
        return situation

    def killed(self, scene: Scene, plan: Plan) -> bool:
        told = scene.act(plan)
        if not told.killed:
            self.note(f"{plan}", [f"the child was not killed: {told}"])
        return told.killed

    def kill_then_foreign(self, plan: Plan) -> None:
        for foreign in (FOREIGN_LINE, FOREIGN_START, FOREIGN_LINE + FOREIGN_START):
            with self.scene() as scene:
                self.killed(scene, plan)
                scene.append_foreign(foreign)
                case = f"{plan}, then a foreign {foreign!r}"
                self.note(case, examine(scene, self.reference, foreign))

    def kill_twice(self, first: Plan) -> None:
        with self.scene() as scene:
            self.killed(scene, first)
            healing = scene.heal()
        for second in plans_for(healing.calls):
            with self.scene() as scene:
                self.killed(scene, first)
                told = scene.heal(second)
                case = f"{first}, then {second} of the healing"
                if not told.killed:
                    self.note(case, [f"the healing child was not killed: {told}"])
                self.note(case, examine(scene, self.reference))

    def splice(self) -> None:
        """Die in the middle of a write of several records with a foreign line behind; then
        while the healing takes ours out from before it, which takes a replace.
        """
        write = next(c for c in self.calls if c.name == "write" and c.target == "context.jsonl")
        first = self.reference.added.index(b"\n") + 1
        for foreign in (FOREIGN_LINE, FOREIGN_LINE + FOREIGN_START):
            for part in (first, first + 1, write.length - 1):
                plan = Plan(write.number, "die in", part)
                with self.scene() as scene:
                    self.killed(scene, plan)
                    scene.append_foreign(foreign)
                    healing = scene.heal()
                for second in plans_for(healing.calls, after=self.deep):
                    with self.scene() as scene:
                        self.killed(scene, plan)
                        scene.append_foreign(foreign)
                        scene.heal(second)
                        case = f"{plan}, a foreign {foreign!r}, {second} of the healing"
                        self.note(case, examine(scene, self.reference, foreign))

    def disturb(self) -> None:
        """A foreign program appends at every instant of an operation that goes on."""
        with self.scene() as scene:
            calls = scene.act(reading=True).calls
        for foreign in (FOREIGN_LINE, FOREIGN_START):
            for call in calls:
                with self.scene() as scene:
                    plan = Plan(call.number, "disturb", foreign=foreign)
                    told = scene.act(plan, reading=True)
                    case = f"a foreign {foreign!r} before call {call.number} ({call.name})"
                    self.note(case, self._disturbed(scene, told, calls, call, foreign))

    def _disturbed(
        self, scene: Scene, told: Told, calls: list[Call], at: Call, foreign: bytes
    ) -> list[str]:
        findings = []
        if told.view is None:
            return [f"the operation did not end: {told}"]
        if told.error:
            findings.append(f"the operation failed: {told.error}")
        live = read(scene.path)
        held = live[: told.view["position"]]
        if told.view != {**told.view, **naive_fold(held)}:
            findings.append(f"memory is not the file's fold: {told.view}")
        everything = [live, *Snapshot.of(scene.folder).rotated.values()]
        if not any(foreign in content for content in everything):
            findings.append("the foreign bytes are in no file")
        elif foreign not in live and not self._lawfully_rotated(calls, at):
            findings.append("the foreign bytes are in a rotated file only")
        if self.setting.operation.replaces:
            due = self.reference.after.live.splitlines(keepends=True)
            missing = [line for line in due if line not in live.splitlines(keepends=True)]
            findings += [f"missing or torn: {line!r}" for line in missing]
        elif self.reference.added not in live:
            findings.append(f"the operation's records are not in one piece: …{live[-300:]!r}")
        scene.age()
        with scene.fresh() as session:
            session.append({"role": "user", "content": "It goes on."})
        scene.survivor.append({"role": "user", "content": "And on."})
        live = read(scene.path)
        damage = naive_fold(live)["damage"]
        if damage > (not foreign.endswith(b"\n")):
            findings.append(f"{damage} damaged lines: …{live[-300:]!r}")
        return findings

    def _lawfully_rotated(self, calls: list[Call], at: Call) -> bool:
        """Whether the foreign bytes came when the operation could not see them any more."""
        if self.setting.operation.drops:
            return True
        swap = next((c.number for c in calls if c.name == "replace"), -1)
        return at.number == swap

    def disturb_and_kill(self) -> None:
        """A foreign line at every instant of an append, and death at every instant behind it."""
        with self.scene() as scene:
            calls = scene.act(reading=True).calls
        for disturbed in calls:
            disturbance = Plan(disturbed.number, "disturb", foreign=FOREIGN_LINE)
            with self.scene() as scene:
                disturbed_calls = scene.act(disturbance, reading=True).calls
            for plan in plans_for(disturbed_calls[disturbed.number + 1 :]):
                with self.scene() as scene:
                    told = scene.act(disturbance, plan, reading=True)
                    case = f"a foreign line before call {disturbed.number}, {plan}"
                    self.note(case, self._disturbed_and_killed(scene, told))

    def _disturbed_and_killed(self, scene: Scene, told: Told) -> list[str]:
        if not told.killed:
            return [f"the child was not killed: {told}"]
        scene.age()
        with scene.fresh() as session:
            held = {key: value for key, value in view(session).items() if key != "generation"}
        live = read(scene.path)
        before, added = self.reference.before.live, self.reference.added
        allowed = {
            before + FOREIGN_LINE, before + FOREIGN_LINE + added, before + added + FOREIGN_LINE
        }  # fmt: skip
        for record in added.splitlines(keepends=True):
            for length in range(1, len(record)):
                # Our torn line behind a foreign one can't be told from a foreign one.
                allowed.add(before + FOREIGN_LINE + record[:length] + b"\n")
                allowed.add(before + record[:length] + FOREIGN_LINE)
        findings = []
        if live not in allowed:
            findings.append(f"neither whole nor absent: {live[len(before) :]!r}")
        if held != naive_fold(live):
            findings.append(f"memory is not the file's fold: {held}")
        return findings

    def fail(self) -> None:
        """Every call fails once, or writes a part and then fails: memory equals file."""
        for call in self.calls:
            if call.name in ("close", "flock", "open"):
                continue
            plans = [Plan(call.number, "fail", error=errno.ENOSPC)]
            if call.name in WRITES and call.length > 1:
                for part in sorted({1, call.length // 2, call.length - 1}):
                    plans.append(Plan(call.number, "fail in", part))
                if call.name == "write" and call.target == "context.jsonl":
                    plans.append(replace(plans[-1], foreign=FOREIGN_LINE))
                    whole = self.reference.added.index(b"\n") + 1
                    if whole < call.length:
                        plans.append(Plan(call.number, "fail in", whole, FOREIGN_LINE))
            for plan in plans:
                with self.scene() as scene:
                    told = scene.act(plan)
                    self.note(f"{plan} ({call.name})", self._failed(scene, told, plan))

    def _failed(self, scene: Scene, told: Told, plan: Plan) -> list[str]:
        if told.view is None:
            return [f"the operation did not end: {told}"]
        findings = []
        held = read(scene.path)[: told.view["position"]]
        if told.view != {**told.view, **naive_fold(held)}:
            findings.append(f"memory is not the file's fold after {told.error!r}: {told.view}")
        if plan.foreign:
            scene.age()
            with scene.fresh():
                live = read(scene.path)
            allowed = {
                self.reference.before.live + FOREIGN_LINE,
                self.reference.after.live + FOREIGN_LINE,
                self.reference.before.live + FOREIGN_LINE + self.reference.added,
            }
            glued = self.reference.before.live, FOREIGN_LINE
            records = self.reference.added.splitlines(keepends=True)
            for record in records:
                for length in range(1, len(record)):
                    allowed.add(glued[0] + record[:length] + glued[1])
                    allowed.add(glued[0] + record[:length] + glued[1] + self.reference.added)
            if live not in allowed:
                findings.append(f"neither before nor after, with a foreign line: {live!r}")
            return findings
        if told.error:
            if Snapshot.of(scene.folder) != self.reference.before:
                findings.append("what a failed operation wrote is not rolled back")
            findings += leftovers(scene.folder)
        return findings + examine(scene, self.reference, acknowledged=not told.error)


def _changes_the_session(call: Call) -> bool:
    return call.name in (
        "write", "pwrite", "copy_file_range", "ftruncate", "replace", "rename", "link", "unlink",
        "remove",
    )  # fmt: skip


def _out_of_order(calls: list[Call], *, power: bool) -> Iterator[str]:
    """Each rule names what must come before what, where both are there."""
    is_lock, is_live = "context.jsonl.lock", "context.jsonl"

    def first(name: str, target: str | Callable[[str], bool], since: int = 0) -> int | None:
        for call in calls[since:]:
            fits = call.target == target if isinstance(target, str) else target(call.target)
            if call.name == name and fits:
                return call.number
        return None

    def temporary(target: str) -> bool:
        return target.endswith(".tmp")

    published = max(c.number for c in calls if c.name == "pwrite" and c.target == is_lock)
    rules = [("announce", first("pwrite", is_lock), "write", first("write", is_live))]
    swapped = first("replace", temporary)
    if swapped is not None:
        filled = first("fdatasync", temporary)
        if filled is None:
            yield "a new file takes the session's name before its bytes are on the disk"
        rules += [
            ("announce", first("pwrite", is_lock), "replace", swapped),
            ("fill", first("write", temporary), "sync", filled),
            ("copy", first("copy_file_range", temporary), "sync", filled),
            ("sync", filled, "replace", swapped),
            ("replace", swapped, "publish", published),
        ]
    written = first("write", is_live)
    if power and written is not None:
        synced = first("fdatasync", is_live, written)
        if synced is None:
            yield "a power cut may take what was acknowledged: nothing was synced"
        if _records(calls) > 1:  # else it may come behind the unlocking
            rules.append(("sync", synced, "publish", published))
        announced = first("pwrite", is_lock) or 0
        on_disk = first("fdatasync", is_lock, announced)
        if (on_disk is None or on_disk > written) and _records(calls) > 1:
            yield "several records are written before their announcement is on the disk"
    if power and swapped is not None:
        folders = [c.number for c in calls if c.name == "fsync"]
        if not any(number > swapped for number in folders):
            yield "the folder is not synced after the replace"
    for early, one, late, other in rules:
        if one is not None and other is not None and one > other:
            yield f"{late} (call {other}) comes before {early} (call {one})"


def _records(calls: list[Call]) -> int:
    """How many records an announcement lists: its table comes behind header and card."""
    return max((c.length - 496) // 8 for c in calls if c.name == "pwrite")


def _situation(scene: Scene) -> str:
    """What a healer finds, as far as it makes a difference for what it does."""
    names = []
    for name in sorted(os.listdir(scene.folder)):
        status = os.stat(os.path.join(scene.folder, name))
        shown = "temporary" if name.endswith(".tmp") else name
        size = 0 if name.endswith(".lock") else status.st_size
        names.append(f"{shown}:{size}:{status.st_nlink}")
    with scene.survivor._store.lock.peeking() as peek:
        header = peek() if peek else None
    intent = type(header.intent).__name__ if header else "no header"
    committed = header.committed if header else 0
    return f"{names} {intent} {committed}"


def main(arguments: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--operation", required=True)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--durability", default="process")
    parser.add_argument("--no-links", action="store_true")
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--lock-deleted", action="store_true")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--mutant")
    parser.add_argument("--most", type=int, default=10)
    options = parser.parse_args(arguments)
    logging.getLogger("cosession").addHandler(logging.NullHandler())
    healing._GRACE = 0.002  # nobody else is writing here,
    for module in (reading, healing, store):  # so what is unreadable stays so
        setattr(module, "LOOKS", 5)
    if options.mutant:
        mutants.apply(options.mutant)
    setting = Setting(
        OPERATIONS[options.operation],
        options.durability,
        not options.no_links,
        options.asynchronous,
        options.lock_deleted,
    )
    report = Report()
    try:
        campaign = Campaign(options.root, setting, deep=options.deep, most=options.most)
        report = campaign.report
        getattr(campaign, options.kind)()
    except Enough:
        pass
    return asdict(report)


if __name__ == "__main__":
    serve(main)
