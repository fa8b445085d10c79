"""What processes do over and over, while a clause looks on: played in a worker.

Each role says what it has been acknowledged right after that, so it counts also if the process is
killed in the next instant.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .candidate import Handle, Message
from .tales import batch, shortened, torn


@dataclass(frozen=True, slots=True)
class Scene:
    """What a role has to do with."""

    handle: Handle
    open: Callable[[], Handle]
    """Another handle in the same process."""
    loop: asyncio.AbstractEventLoop
    say: Callable[[Any], None]
    stopping: threading.Event


def append(scene: Scene, *, name: str, count: int, seed: int = 0, padding: int = 0) -> None:
    """Append so many times, one to four messages each time, and say each number."""
    _append(scene.handle, scene, name, count, random.Random(seed), padding)


def _append(
    handle: Handle, scene: Scene, name: str, count: int, chance: random.Random, padding: int = 0
) -> None:
    for number in range(count):
        if scene.stopping.is_set():
            return
        handle.append(batch(name, number, chance.randint(1, 4), padding=padding))
        scene.say([name, number])


def append_on_threads(scene: Scene, *, names: list[str], count: int, shared: bool) -> None:
    """The same on several threads, all on one handle, or each on its own."""
    opened = [scene.handle if shared else scene.open() for _ in names]
    failed: list[BaseException] = []

    def run(name: str, handle: Handle) -> None:
        try:
            _append(handle, scene, name, count, random.Random(name))
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=run, args=pair, daemon=True)
        for pair in zip(names, opened, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handle in [] if shared else opened:
        handle.call("close")
    if failed:
        raise failed[0]


def watch(scene: Scene) -> list[str]:
    """Look again and again; what was seen last.

    Says that it looks, and then what is wrong: half an append, or a history that doesn't begin
    with the last one.
    """
    seen = scene.handle.texts()
    scene.say("looking")
    while not scene.stopping.is_set():
        now = scene.handle.texts()
        if now[: len(seen)] != seen:
            scene.say(f"a look showed {len(now)} messages that don't begin with the {len(seen)} "
                      f"of the last one: {shortened(now)}")  # fmt: skip
        if wrong := torn(now):
            scene.say(f"a look showed half an append: {wrong}")
        seen = now
        time.sleep(0.001)
    return seen


def replace(scene: Scene, *, name: str, count: int) -> None:
    """Replace the history again and again by one of another length, and say each number."""
    for number in range(count):
        scene.handle.call("replace", batch(name, number, 1 + number % 5))
        scene.say(number)


def watch_whole(scene: Scene) -> None:
    """Look again and again; say that, and then what is no whole history of `replace`."""
    scene.say("looking")
    while not scene.stopping.is_set():
        now = scene.handle.texts()
        if (wrong := torn(now)) or len({text.split("/")[1] for text in now}) != 1:
            scene.say(f"a look showed {shortened(now)}: {wrong or 'that was never put there'}")
        time.sleep(0.001)


def checkpoint(scene: Scene, *, count: int) -> None:
    """Set so many checkpoints, and say their numbers."""
    for _ in range(count):
        scene.say(scene.handle.call("checkpoint"))


def revert(scene: Scene, *, name: str, count: int) -> None:
    """Mark, append, and revert to the mark, so many times."""
    for number in range(count):
        mark = scene.handle.call("checkpoint")
        scene.handle.append(batch(name, number, 1))
        scene.handle.call("revert_to", mark)
        scene.say([name, number])


def count_up(scene: Scene, *, count: int) -> None:
    """Append the length of the history, if nobody was faster; say the numbers that went in."""
    for _ in range(count):
        history = scene.handle.call("history")
        text = str(len(history))
        revision = scene.handle.call("revision")
        if scene.handle.call("try_append", [_message(text)], revision):
            scene.say(text)


def take_turns(scene: Scene, *, name: str, count: int, size: int = 3) -> None:
    """So many turns, of several appends each, with a moment between them."""
    for number in range(count):
        scene.handle.call("begin_turn")
        for message in batch(name, number, size):
            scene.handle.append([message])
            time.sleep(0.002)
        scene.handle.call("end_turn")
        scene.say([name, number])


def hog(scene: Scene) -> None:
    """Take one turn behind the other, with nothing in between."""
    scene.handle.call("begin_turn")
    while not scene.stopping.is_set():
        scene.say("in")
        time.sleep(0.02)
        scene.handle.call("end_turn")
        scene.handle.call("begin_turn")
    scene.handle.call("end_turn")


def append_when_free(scene: Scene, *, name: str) -> float:
    """Append one message; the time of day when that was done."""
    scene.handle.append(batch(name, 0, 1))
    return time.time()


def append_unstorable(scene: Scene, *, name: str) -> str | None:
    """Append two messages of which the second can't be stored; what is raised."""
    good = batch(name, 0, 1)
    try:
        scene.handle.append([*good, {"role": "user", "content": object()}])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def append_without_room(scene: Scene, *, name: str, number: int, room: int) -> str | None:
    """Append while no file may become longer than `room` bytes; what is raised."""
    if sys.platform == "win32":
        raise NotImplementedError("there are no such limits on Windows")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        scene.handle.append(batch(name, number, 3, padding=300))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return None


def feel_the_pulse(scene: Scene) -> float:
    """The longest time, in seconds, that the event loop took to get to something."""
    longest = 0.0
    while not scene.stopping.is_set():
        came = threading.Event()
        began = time.monotonic()
        scene.loop.call_soon_threadsafe(came.set)
        came.wait()
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.01)
    return longest


def _message(text: str) -> Message:
    return {"role": "user", "content": text}
