"""The probes: what two processes do in the private folder, and what each of them should see.

A probe returns a finding. What goes wrong on the way is translated in one place, `examination`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ... import _platform
from ...trace import now
from .crew import Crew
from .findings import Finding, Remedy, duration, note, off, ok, unknown

_SETTLE = 0.1
"""Seconds after which a process that waits for a lock is taken to sleep in the kernel."""

_LINES = 200
"""Appended by each of two processes."""

_ROUNDS = 20


def lock(crew: Crew, path: str, probe: str) -> Finding:
    """A lock of the library's: refused while held, handed on at once, dead with its holder."""
    holder, other = crew["first"], crew["second"]
    if not holder.ask("try_lock", path=path):
        return _unheeded(probe, "nobody has the lock, and yet it was refused")
    if other.ask("try_lock", path=path):
        return _unheeded(probe, "a second process got the lock while the first one had it")
    other.begin("wait_for_lock", path=path)
    if other.has_answered(_SETTLE):
        other.answer()
        return _unheeded(probe, "a second process did not wait for the lock that the first one had")
    released = holder.ask("unlock", path=path)
    woken = _since(released, other.answer())
    other.ask("unlock", path=path)

    if not holder.ask("try_lock", path=path):
        return _unheeded(probe, "the lock was still refused after it had been let go of")
    other.begin("wait_for_lock", path=path)
    other.has_answered(_SETTLE)
    died = now()
    holder.kill()
    freed = _since(died, other.answer())
    other.ask("unlock", path=path)
    return ok(
        probe,
        "a second process is refused while the first has it; a waiter has it "
        f"{duration(woken)} after it is let go of, and {duration(freed)} after its holder is "
        "killed",
        woken=woken,
        freed=freed,
    )


def _unheeded(probe: str, text: str) -> Finding:
    return off(
        probe, text, "locks are not honoured between processes", Remedy.LOCK_DIR, honoured=False
    )


def _since(began: int, ended: int) -> float:
    return max(0, ended - began) / 1e6


def appending(crew: Crew, folder: str) -> Finding:
    """Lines that two processes append at the same time, without a lock, as old programs do."""
    probe, path = "append", os.path.join(folder, "lines")
    writers = {"a": crew["first"], "b": crew["second"]}
    start = now() + 20_000
    for who, writer in writers.items():
        writer.begin("append", path=path, who=who, lines=_LINES, start=start)
    for writer in writers.values():
        writer.answer()
    found = crew["first"].ask("weigh", path=path)
    whole, torn = sum(found.get(who, 0) for who in writers), found.get("torn", 0)
    figures = {"whole": whole, "torn": torn, "written": _LINES * len(writers)}
    if whole == figures["written"] and not torn:
        return ok(probe, f"{whole} lines that two processes appended at once are whole", **figures)
    return off(
        probe,
        f"of {figures['written']} lines that two processes appended at once, {whole} are whole, "
        f"and {torn} lines are torn",
        "lines that two processes append at once get torn",
        Remedy.FOLDER,
        **figures,
    )


def replacing(crew: Crew, folder: str) -> Finding:
    """A file is replaced while another process reads it."""
    probe = "replace"
    said, figures = [], dict[str, object]()
    for sharing in (True,) if _platform.KEEPS_FILES_OPEN else (True, False):
        path = os.path.join(folder, f"replaced-{sharing}")
        how = "shared for deletion" if sharing else "not shared for deletion"
        refused, wrong = _replaced_under_a_reader(crew, path, sharing=sharing)
        if wrong or (refused and _platform.KEEPS_FILES_OPEN):
            reason = "a file can't be replaced while it is read"
            return off(probe, wrong or refused, reason, Remedy.FOLDER)
        figures["at once" if _platform.KEEPS_FILES_OPEN else how] = not refused
        if refused:
            said.append(f"waits until a reader that has the file open, {how}, closes it")
        elif _platform.KEEPS_FILES_OPEN:
            said.append("works under a reader, who keeps what it had open")
        else:
            said.append(f"works under a reader that has the file open, {how}")
    return ok(probe, "; ".join(said), **figures)


def _replaced_under_a_reader(crew: Crew, path: str, *, sharing: bool) -> tuple[str, str]:
    """Why it was refused while it was open, and what else was wrong: both empty if all is well."""
    writer, reader = crew["first"], crew["second"]
    writer.ask("write", path=path, text="old")
    reader.ask("keep_open", path=path, sharing=sharing)
    refused = writer.ask("replace", path=path, text="new", patiently=False)
    kept = reader.ask("read_open", path=path)
    seen = reader.ask("read", path=path)
    reader.ask("close", path=path)
    if kept != "old":
        return refused, f"the reader lost what it had open, and reads {kept!r}"
    if seen != ("old" if refused else "new"):
        return refused, f"another process reads {seen!r} in the file's place"
    if refused:
        later = writer.ask("replace", path=path, text="new", patiently=True)
        if later or reader.ask("read", path=path) != "new":
            return refused, f"also when nobody has it open: {later or 'it stays as it was'}"
    return refused, ""


def naming(crew: Crew, folder: str) -> list[Finding]:
    """Modes, identities and second names of a file."""
    path = os.path.join(folder, "named")
    traits = crew["first"].ask("traits", path=path)
    identities = [*traits["identities"], crew["second"].ask("identity", path=path)]
    return [
        _mode(traits["mode"]),
        _identity(identities, crew["second"].ask("identity", path=folder)),
        _second_name(linked=traits["linked"], error=traits["link_error"]),
    ]


def _mode(mode: int) -> Finding:
    probe = "mode"
    if not _platform.KEEPS_FILES_OPEN:
        return unknown(probe, "there are none on Windows: a file inherits its folder's access list")
    if mode == 0o600:
        return ok(probe, "a new file is 0600, for its owner alone", mode="0600")
    return note(
        probe,
        f"a new file that should be 0600 is {mode:04o}: the file system keeps no modes",
        reason="others may be able to read the files, since modes are not kept",
        mode=f"{mode:04o}",
    )


def _identity(identities: list[list[int]], folder: list[int]) -> Finding:
    probe = "identity"
    first = identities[0]
    if first[1] and first != folder and all(each == first for each in identities):
        return ok(probe, "a file has one number, in both processes and however it is asked for")
    return off(
        probe,
        f"a file's number (device, inode) is not its own, or changes: {identities}",
        "a replaced file can't be told from the one before",
        Remedy.FOLDER,
    )


def _second_name(*, linked: bool, error: str) -> Finding:
    probe = "hard link"
    if linked:
        return ok(probe, "a file can have a second name", works=True)
    return note(
        probe,
        f"there are none here ({error or 'the second name is another file'}): a revert keeps the "
        "old file as a copy, which takes longer",
        works=False,
    )


def changing(crew: Crew, folder: str) -> Finding:
    """Whether the modification time shows a change."""
    probe = "mtime"
    path = os.path.join(folder, "changing")
    step = crew["first"].ask("time_of_change", path=path, limit=1.5 * crew.brief)
    if step is None:
        return note(
            probe,
            f"the modification time did not move within {1.5 * crew.brief:g} s of writing: a "
            "change in place by another program may not be noticed",
            step=None,
        )
    if step >= 0.5:
        return note(
            probe,
            f"the modification time moves in steps of up to {duration(step)}: two changes in place "
            "by another program within that look like one",
            step=step,
        )
    return ok(probe, f"the modification time moves {duration(step)} after the last", step=step)


def coherence(crew: Crew, folder: str) -> Finding:
    """What one process writes at a place, another one that has read it before reads at once."""
    probe, path = "coherence", os.path.join(folder, "coherent")
    writer, reader = crew["first"], crew["second"]
    for number in range(_ROUNDS):
        text = f"{number:08x}" * (8 + number)
        writer.ask("overwrite", path=path, text=text)
        seen = reader.ask("reread", path=path, length=len(text))
        if seen != text:
            return off(
                probe,
                "a process reads what was there before another one wrote "
                f"(round {number + 1} of {_ROUNDS})",
                "a process does not see at once what another one has written",
                Remedy.FOLDER,
            )
    return ok(
        probe, f"what one process wrote, the other read at once, {_ROUNDS} times of {_ROUNDS}"
    )


def syncing(crew: Crew, folder: str) -> Finding:
    """What it costs to have bytes on the disk."""
    costs = crew["first"].ask("sync_costs", path=os.path.join(folder, "synced"), limit=crew.brief)
    return ok(
        "sync",
        f"{duration(costs['data'])} for the data of a small write, {duration(costs['whole'])} with "
        "all about the file",
        **costs,
    )


def committing(crew: Crew, folder: str) -> Finding:
    """What an append to a session costs."""
    costs = crew["first"].ask(
        "append_costs", path=os.path.join(folder, "s.jsonl"), limit=crew.brief
    )
    return ok(
        "a commit",
        f"{duration(costs['process'])} for a message, {duration(costs['power'])} if it is to "
        "survive a power cut",
        **costs,
    )


def watching(crew: Crew, folder: str) -> Finding:
    """Whether the system tells one process of another one's writing."""
    probe, name = "watch", "watched"
    writer, watcher = crew["first"], crew["second"]
    heartbeat = "a follower looks every quarter of a second"
    if not watcher.ask("can_watch"):
        return unknown(probe, f"watchfiles is not installed (cosession[follow]): {heartbeat}")
    watcher.begin("watch", folder=folder, name=name, limit=crew.brief)
    touched = list[int]()
    deadline = time.monotonic() + 2 * crew.brief  # a slow start of the watcher does not count
    while not watcher.has_answered(0.05) and time.monotonic() < deadline:
        touched.append(writer.ask("touch", path=os.path.join(folder, name)))
    heard: Any = watcher.answer()
    if heard is None:
        return note(probe, f"no sign of another process's writing came: {heartbeat}", works=False)
    delay = min((_since(at, heard) for at in touched if at <= heard), default=0.0)
    return ok(
        probe, f"a sign of another process's writing came within {duration(delay)}", delay=delay
    )


def session(crew: Crew, path: str, lock_dir: str | None) -> Finding:
    """What `cosession verify` would say."""
    probe = "session"
    found = crew["first"].ask("verify", path=path, lock_dir=lock_dir)
    problems = list(found["problems"])
    problems += [f"{found[what]} {what} line(s)" for what in ("damaged", "pending") if found[what]]
    if not problems:
        return ok(probe, f"{found['lines']} lines, nothing is off", **found)
    settles = bool(found["problems"] or found["pending"])
    text = f"{found['lines']} lines; {'; '.join(problems)}"
    if not settles:
        return note(probe, f"{text}, which stay in the file and are skipped", **found)
    return off(probe, text, "something is off with the session", Remedy.HEAL, **found)
