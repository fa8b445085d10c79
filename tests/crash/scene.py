"""The folder of one case, and the processes that act in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from cosession import BlockingSession, CosessionError, Message, Session

from .operations import Operation
from .shim import Call, Plan, Shim

PATIENCE = 20.0
"""Seconds until a child that neither ends nor dies counts as hanging."""

_ROTATED = re.compile(r"context_[0-9]+\.jsonl")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all cases of a campaign."""

    operation: Operation
    durability: str = "process"
    links: bool = True
    """Whether the file system has hard links."""
    asynchronous: bool = False
    lock_deleted: bool = False
    """Whether somebody deletes the lock file while the session is open."""


@dataclass(slots=True)
class Told:
    """What a child said before it ended; nothing if it was killed."""

    killed: bool = False
    hung: bool = False
    calls: list[Call] = field(default_factory=list)
    error: str = ""
    view: dict[str, Any] | None = None
    """What its session held in memory at the end."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The session's file and its rotated files."""

    live: bytes
    rotated: dict[str, bytes]

    @classmethod
    def of(cls, folder: str) -> Snapshot:
        rotated = {
            name: read(os.path.join(folder, name))
            for name in sorted(os.listdir(folder))
            if _ROTATED.fullmatch(name)
        }
        return cls(read(os.path.join(folder, "context.jsonl")), rotated)


class Scene:
    """A session prepared for an operation, and somebody who has it open all the time."""

    def __init__(self, root: str, setting: Setting) -> None:
        self.setting = setting
        self.folder = os.path.join(root, "scene")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.mkdir(self.folder)
        self.path = os.path.join(self.folder, "context.jsonl")
        self.survivor = BlockingSession(self.path)
        self.survivor.open()
        setting.operation.prepare(self.survivor)
        self.seen = set[bytes]()
        """What the file held at any time, so that it may be found under a rotated name."""

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.survivor.close()

    def fresh(self) -> BlockingSession[Message]:
        """Somebody who has not seen the session before; not open yet."""
        return BlockingSession(self.path)

    def act(self, *plans: Plan, reading: bool = False, watch_lock: bool = False) -> Told:
        """Have a child, which has the session open, carry out the operation."""
        setting = self.setting

        def work(shim: Shim) -> dict[str, Any]:
            if setting.asynchronous:
                return asyncio.run(self._act_async(shim))
            durable: Any = setting.durability
            session = BlockingSession(self.path, durability=durable)
            session.open()
            if setting.operation.known and session._store.durable:
                with session._store._data() as fd:
                    session._store._sync(fd, session.revision)
            if setting.lock_deleted:
                os.unlink(f"{self.path}.lock")
            try:
                with shim.armed():
                    setting.operation.act(session)
            except CosessionError as error:
                return {**view(session), "error": repr(error)}
            return view(session)

        return self._child(work, plans, reading, watch_lock)

    async def _act_async(self, shim: Shim) -> dict[str, Any]:
        durable: Any = self.setting.durability
        async with Session(self.path, durability=durable) as session:
            name = self.setting.operation.name
            with shim.armed():
                if name == "append-many":
                    await session.append([{"role": "user", "content": str(n)} for n in range(5)])
                elif name == "revert":
                    await session.revert_to(1)
                else:
                    raise NotImplementedError(name)
            return view(session)

    def heal(self, *plans: Plan, reading: bool = False) -> Told:
        """Have a child open the session, which heals it, and close it."""

        def work(shim: Shim) -> dict[str, Any]:
            session = BlockingSession(self.path)
            with shim.armed():
                session.open()
            return view(session)

        return self._child(work, plans, reading, watch_lock=False)

    def append_foreign(self, data: bytes) -> None:
        """A program that takes no lock appends, a while ago."""
        with open(self.path, "ab") as file:
            file.write(data)
        self.age()
        self.seen.add(read(self.path))

    def age(self) -> None:
        """Make the last write look old, so that nobody waits for an open line to grow."""
        then = time.time() - 10
        os.utime(self.path, (then, then))

    def _child(
        self,
        work: Callable[[Shim], dict[str, Any]],
        plans: tuple[Plan, ...],
        reading: bool,
        watch_lock: bool,
    ) -> Told:
        shim = Shim(
            *plans,
            path=self.path,
            reading=reading,
            watch_lock=watch_lock,
            links=self.setting.links,
        )
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(ours)
                told = {"view": work(shim), "calls": [asdict(call) for call in shim.calls]}
                with os.fdopen(theirs, "w") as pipe:
                    json.dump(told, pipe)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(theirs)
        try:
            return _listen(pid, ours)
        finally:
            os.close(ours)


def _listen(pid: int, pipe: int) -> Told:
    said = b""
    deadline = time.monotonic() + PATIENCE
    hung = False
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            hung = True
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(pipe, 1 << 16)
        if not piece:
            break
        said += piece
    _, status = os.waitpid(pid, 0)
    if hung:
        return Told(hung=True)
    if os.WIFSIGNALED(status):
        return Told(killed=os.WTERMSIG(status) == signal.SIGKILL)
    if not said:
        return Told(error="the child failed; its traceback is on stderr")
    told = json.loads(said)
    return Told(
        calls=[Call(**call) for call in told["calls"]],
        error=told["view"].pop("error", ""),
        view=told["view"],
    )


def view(session: BlockingSession[Message] | Session[Message]) -> dict[str, Any]:
    """What a session holds in memory, in the terms of `naive_fold`."""
    return {
        "position": session.revision.position,
        "generation": session.revision.generation,
        "messages": [message.content for message in session.history],
        "checkpoints": list(session.checkpoints),
        "tokens": session.token_count,
        "prompt": session.system_prompt,
        "damage": len(session.damage),
    }


def naive_fold(data: bytes) -> dict[str, Any]:
    """What a file holds, read in the plainest way."""
    folded: dict[str, Any] = {
        "position": len(data), "messages": [], "checkpoints": [], "tokens": 0, "prompt": None,
        "damage": 0,
    }  # fmt: skip
    for line in data.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            folded["damage"] += 1
            continue
        match record["role"]:
            case "_system_prompt":
                folded["prompt"] = record["content"]
            case "_usage":
                folded["tokens"] = record["token_count"]
            case "_checkpoint":
                folded["checkpoints"].append(record["id"])
            case _:
                folded["messages"].append(record["content"])
    return folded


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
