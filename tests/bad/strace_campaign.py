"""Kill or refuse at every system call that the kernel sees, by strace, without help from our code.

    echo '["/tmp/somewhere", "append-many", "kill"]' | python -m bad.strace_campaign

1. A child has the session open and waits. strace attaches to it, with an injection for the N-th
   call of one name, counted from there; then the child is told to go.
2. It acts, and tells how that went by `sendto` and its exit status, neither of which is injected.
3. N goes up until the act is done untouched. After each, the folder is examined as after a crash.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import portalocker.utils  # noqa: F401 - now, and not in a child that is traced

import cosession.messages  # noqa: F401
from bad import mutants
from cosession import BlockingSession, CosessionError, SyncFailed, Unsettled, healing
from crash.examine import Reference, examine
from crash.operations import OPERATIONS
from crash.scene import Scene, Setting, Snapshot, naive_fold, read, view

CALLS = (
    "write", "pwrite64", "copy_file_range", "rename", "linkat,link", "unlink", "fsync",
    "fdatasync", "ftruncate", "openat",
)  # fmt: skip
"""What is killed or refused; where glibc has two calls for one, both."""

PATIENCE = 20.0
MOST = 60
"""More calls of one name than any of these acts makes."""


@dataclass(slots=True)
class Report:
    cases: int = 0
    untouched: int = 0
    """How often an act was done without meeting the injection: once for each name of a call."""
    findings: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    """Every system call of the undisturbed act, by name."""


@dataclass(slots=True)
class End:
    killed: bool = False
    told: dict[str, Any] = field(default_factory=dict)
    trace: str = ""


class Campaign:
    def __init__(self, root: str, operation: str, durability: str) -> None:
        self.root = root
        self.setting = Setting(OPERATIONS[operation], durability)
        self.report = Report()
        with self.scene() as scene:
            before = Snapshot.of(scene.folder)
            end = self.act(scene, "trace=all")
            if end.killed or end.told.get("error"):
                raise RuntimeError(f"{operation} fails undisturbed: {end}")
            self.reference = Reference(before, Snapshot.of(scene.folder))
        names = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", end.trace, re.MULTILINE)
        self.report.calls = dict(Counter(names))

    def scene(self) -> Scene:
        return Scene(self.root, self.setting)

    def names(self) -> list[str]:
        """Of the calls to step through, those that the act makes."""
        return [name for name in CALLS if set(name.split(",")) & set(self.report.calls)]

    def kill(self) -> None:
        for name in self.names():
            for number in range(1, MOST):
                with self.scene() as scene:
                    end = self.act(scene, f"inject={name}:signal=SIGKILL:when={number}")
                    if not end.killed:
                        self.note(name, number, end, [], untouched=True)
                        break
                    self.note(name, number, end, examine(scene, self.reference))

    def refuse(self, *errors: str) -> None:
        for name in self.names():
            for error in errors:
                for number in range(1, MOST):
                    with self.scene() as scene:
                        end = self.act(scene, f"inject={name}:error={error}:when={number}")
                        untouched = "(INJECTED)" not in end.trace
                        self.note(
                            f"{error} of {name}",
                            number,
                            end,
                            self.refused(scene, end),
                            untouched=untouched,
                        )
                    if untouched:
                        break

    def refused(self, scene: Scene, end: End) -> list[str]:
        if not end.told:
            return [f"the act did not end: {end}"]
        findings = []
        error, held = end.told.pop("error"), end.told.pop("view")
        if end.told.pop("foreign"):
            findings.append(f"an error that is not ours: {error}")
        if held != {**held, **naive_fold(read(scene.path)[: held["position"]])}:
            findings.append(f"memory is not the file's fold after {error!r}: {held}")
        if error and not end.told["unsure"] and Snapshot.of(scene.folder) != self.reference.before:
            findings.append(f"refused with {error!r}, and yet something has changed")
        return findings + examine(scene, self.reference, acknowledged=not error)

    def note(
        self, name: str, number: int, end: End, findings: list[str], *, untouched: bool = False
    ) -> None:
        self.report.cases += not untouched
        self.report.untouched += untouched
        if untouched and (end.killed or end.told.get("error")):
            findings = [*findings, f"failed without an injection: {end}"]
        self.report.findings += [f"{name} {number}: {finding}" for finding in findings]

    # ---- the child and its strace ---------------------------------------------------------------

    def act(self, scene: Scene, expression: str) -> End:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            self._child(scene, ours, theirs)
        theirs.close()
        _wait_for(ours.fileno())
        ours.recv(1)  # from here on it does nothing before it is told to
        trace = os.path.join(self.root, "trace")
        command = ["strace", "-f", "-p", str(pid), "-o", trace, "-e", expression]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            assert strace.stderr is not None
            _wait_for(strace.stderr.fileno())
            said = os.read(strace.stderr.fileno(), 1 << 12)
            if b"attached" not in said:
                raise RuntimeError(f"strace: {said.decode()}")
            ours.sendall(b"go")
            _wait_for(ours.fileno())
            told = ours.recv(1 << 20)
            _, status = os.waitpid(pid, 0)
            pid = 0
            strace.wait(PATIENCE)
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            strace.kill()
            strace.communicate()
            ours.close()
        with open(trace, encoding="utf-8", errors="replace") as file:
            lines = re.sub(r"^\d+ +", "", file.read(), flags=re.MULTILINE)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        return End(killed, json.loads(told) if told else {}, lines)

    def _child(self, scene: Scene, ours: socket.socket, theirs: socket.socket) -> None:
        try:
            ours.close()
            durable: Any = self.setting.durability
            session = BlockingSession(scene.path, durability=durable)
            session.open()
            heard = list[str]()
            handler = logging.Handler()
            handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
            logging.getLogger("cosession").addHandler(handler)
            error: Exception | None = None
            theirs.sendall(b"!")
            theirs.recv(2)
            try:
                self.setting.operation.act(session)
            except Exception as caught:
                error = caught
            unsure = isinstance(error, SyncFailed | Unsettled) or any("undo" in h for h in heard)
            told = {
                "error": "" if error is None else repr(error),
                "foreign": error is not None and not isinstance(error, CosessionError),
                "unsure": unsure or any("leftovers" in line for line in heard),
                "view": view(session),
            }
            theirs.sendall(json.dumps(told).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)


def _wait_for(fd: int) -> None:
    if not select.select([fd], [], [], PATIENCE)[0]:
        raise TimeoutError("strace or the child hangs")


def main(root: str, operation: str, kind: str, durability: str = "process", *errors: str) -> Report:
    healing._GRACE = 0.002
    logging.getLogger("cosession").addHandler(logging.NullHandler())
    campaign = Campaign(root, operation, durability)
    if kind == "kill":
        campaign.kill()
    elif kind == "refuse":
        campaign.refuse(*errors)
    return campaign.report


def serve() -> None:
    """Answer each line of arguments in JSON with a report; the imports are paid once."""
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = asdict(main(*json.loads(line)))
        except BaseException:
            answer = {"traceback": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


mutants.plant()

if __name__ == "__main__":
    serve()
