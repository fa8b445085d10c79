"""One of several processes on a session: appends, reverts or follows, and notes what it saw.

    python -m crash.contender ROLE PATH NAME COUNT [ROLE PATH NAME COUNT ...]

With several roles the process forks a child for each. Every one says `ready`, and waits for a line
on stdin that lets all go at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import cosession.messages  # noqa: F401
from cosession import BlockingSession, Session, UnknownCheckpoint


def texts(name: str, number: int) -> list[str]:
    """What an appender writes in one operation: mostly one record, sometimes three."""
    if number % 10:
        return [f"{name}:{number}:0:1"]
    return [f"{name}:{number}:{index}:3" for index in range(3)]


def messages(name: str, number: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts(name, number)]


def append_blocking(path: str, name: str, count: int) -> list[str]:
    told = []
    with BlockingSession(path) as session:
        for number in range(count):
            session.append(messages(name, number))
            told += texts(name, number)
    return told


def append_async(path: str, name: str, count: int) -> list[str]:
    async def run() -> list[str]:
        told = []
        async with Session(path) as session:
            for number in range(count):
                await session.append(messages(name, number))
                told += texts(name, number)
        return told

    return asyncio.run(run())


def revert_blocking(path: str, name: str, count: int) -> list[int]:
    """Set a checkpoint and revert to one, `count` times; the checkpoints that were set."""
    choices = random.Random(name)
    made = []
    with BlockingSession(path) as session:
        for _ in range(count):
            made.append(session.checkpoint())
            try:
                session.revert_to(choices.choice(session.checkpoints))
            except UnknownCheckpoint:
                continue  # somebody else has reverted past it
    return made


def revert_async(path: str, name: str, count: int) -> list[int]:
    async def run() -> list[int]:
        choices = random.Random(name)
        made = []
        async with Session(path) as session:
            for _ in range(count):
                made.append(await session.checkpoint())
                try:
                    await session.revert_to(choices.choice(session.checkpoints))
                except UnknownCheckpoint:
                    continue
        return made

    return asyncio.run(run())


def follow(path: str, name: str, count: int) -> list[str]:
    """Read without the lock until `path.stop` appears; what was wrong with what was seen."""
    wrong: list[str] = []
    looks = 0
    before: tuple[int, list[str]] = (0, [])
    with BlockingSession(path, read_only=True) as session:
        while not os.path.exists(f"{path}.stop") or looks < 3:
            session.refresh()
            looks += 1
            seen = [str(message.content) for message in session.history]
            generation = session.revision.generation
            if session.damage:
                wrong.append(f"damage: {session.damage}")
            if generation < before[0]:
                wrong.append(f"the generation went down from {before[0]} to {generation}")
            if generation == before[0] and seen[: len(before[1])] != before[1]:
                wrong.append("a history is not the beginning of the next one")
            wrong += disorder(seen)
            before = generation, seen
            if wrong:
                break
    return [f"looks {looks}", *wrong]


def disorder(seen: Sequence[str]) -> list[str]:
    """What is wrong with the order of some appenders' records in one file."""
    wrong = []
    last: dict[str, int] = {}
    at = 0
    while at < len(seen):
        name, number, _, of = seen[at].split(":")
        group = [f"{name}:{number}:{index}:{of}" for index in range(int(of))]
        if list(seen[at : at + len(group)]) != group:
            wrong.append(f"not in one piece: {seen[at : at + len(group)]}")
            break
        if int(number) <= last.get(name, -1):
            wrong.append(f"out of order: {seen[at]} after {last[name]}")
            break
        last[name] = int(number)
        at += len(group)
    return wrong


# ---- the pattern that programs use today -----------------------------------------------------


def append_unlocked(path: str, name: str, count: int) -> list[str]:
    """Append; the last operation not before somebody has read the file in order to revert."""
    told = []
    for number in range(count):
        if number == count - 1:
            wait_until(lambda: os.path.exists(f"{path}.read"))
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(message) + "\n" for message in messages(name, number))
        told += texts(name, number)
    return told


def revert_unlocked(path: str, name: str, count: int) -> list[int]:
    """Read the file, keep it under another name, write the part that stays.

    The first time somebody appends between the reading and the writing. Left to luck that happens
    in most runs, but a test that luck may fail is of no use.
    """
    for number in range(count):
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
            if number == 0:
                read = file.tell()
                open(f"{path}.read", "x").close()
                wait_until(lambda: os.path.getsize(path) > read)
        with open(f"{path[:-6]}_{number + 1}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(lines)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines[: len(lines) // 2])
    return []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come about")
        time.sleep(0.001)


ROLES = {
    "append-blocking": append_blocking,
    "append-async": append_async,
    "append-unlocked": append_unlocked,
    "revert-blocking": revert_blocking,
    "revert-async": revert_async,
    "revert-unlocked": revert_unlocked,
    "follow": follow,
}


def play(role: str, path: str, name: str, count: str) -> None:
    told = ROLES[role](path, name, int(count))
    with open(f"{path}.{name}.told", "w", encoding="utf-8") as file:
        json.dump(told, file)


def main(words: list[str]) -> int:
    print("ready", flush=True)
    sys.stdin.readline()
    roles = [words[at : at + 4] for at in range(0, len(words), 4)]
    if len(roles) == 1:
        play(*roles[0])
        return 0
    children = []
    for role in roles:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                play(*role)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
