"""One counter in front of every system call that the library makes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CHANGING = (
    "open", "write", "pwrite", "copy_file_range", "ftruncate", "replace", "rename", "link",
    "unlink", "remove", "fsync", "fdatasync", "fchmod", "fchown", "close",
)  # fmt: skip
READING = ("stat", "fstat", "pread", "listdir")
WRITES = ("write", "pwrite", "copy_file_range")

_real = {name: getattr(os, name) for name in CHANGING + READING}
_flock = fcntl.flock


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: how many came before it, what it is, and how many bytes it writes."""

    number: int
    name: str
    length: int = 0
    target: str = ""
    """What it works on: a path's base name, or that of the open file."""
    wanted_lock: bool = False
    """Whether the lock was free although the call changes something."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do at which call."""

    at: int
    action: str
    """`die`, `die after`, `die in` (after `part` bytes), `fail`, `fail in`, or `disturb`."""
    part: int = 0
    foreign: bytes = b""
    """What a foreign program appends, for `disturb`."""
    error: int = errno.ENOSPC

    def __str__(self) -> str:
        part = f" {self.part} bytes" if self.action.endswith(" in") else ""
        return f"{self.action}{part} at call {self.at}"


class Shim:
    """While it is armed, every call is counted, noted, and met with the plans for it."""

    def __init__(
        self,
        *plans: Plan,
        path: str,
        reading: bool = False,
        watch_lock: bool = False,
        links: bool = True,
    ) -> None:
        self.calls: list[Call] = []
        self._plans = {plan.at: plan for plan in plans}
        self._path = path
        self._reading = reading
        self._watch_lock = watch_lock
        self._links = links
        self._failing: Plan | None = None

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        names = CHANGING + (READING if self._reading else ())
        for name in names:
            setattr(os, name, self._wrap(name, _real[name]))
        fcntl.flock = self._wrap("flock", _flock)
        try:
            yield
        finally:
            for name in names:
                setattr(os, name, _real[name])
            fcntl.flock = _flock

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        if name == "link" and not self._links:
            real = _refuse_link

        def call(*args: Any, **options: Any) -> Any:
            number = len(self.calls)
            plan = self._plans.get(number)
            self.calls.append(self._noted(number, name, args))
            if self._failing is not None and name == self._failing_name:
                plan, self._failing = self._failing, None
                raise OSError(plan.error, os.strerror(plan.error))
            if plan is None:
                return real(*args, **options)
            return self._meet(plan, name, real, args, options)

        return call

    def _meet(
        self,
        plan: Plan,
        name: str,
        real: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        match plan.action:
            case "die":
                die()
            case "die after":
                with contextlib.suppress(OSError):
                    real(*args, **options)
                die()
            case "die in" if name in WRITES:
                _in_part(name, real, args, plan.part)
                die()
            case "fail":
                raise OSError(plan.error, os.strerror(plan.error))
            case "fail in" if name in WRITES:
                self._failing, self._failing_name = plan, name
                done = _in_part(name, real, args, plan.part)
                if plan.foreign:
                    append_foreign(self._path, plan.foreign)
                return done
            case "disturb":
                append_foreign(self._path, plan.foreign)
        return real(*args, **options)

    def _noted(self, number: int, name: str, args: tuple[Any, ...]) -> Call:
        length, target = 0, args[0]
        if name == "copy_file_range":
            _, target, length, *_ = args
        elif name in WRITES:
            length = len(args[1])
        free = self._watch_lock and name != "flock" and self._lock_is_free()
        return Call(number, name, length, _target(target), free)

    def _lock_is_free(self) -> bool:
        """Whether somebody else could take the lock now, at its path."""
        try:
            fd = _real["open"](f"{self._path}.lock", os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            _flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            _real["close"](fd)
        return True


def _in_part(name: str, real: Callable[..., Any], args: tuple[Any, ...], part: int) -> Any:
    """Write only so many bytes."""
    if name == "copy_file_range":
        source, target, _, *rest = args
        return real(source, target, part, *rest)
    return real(args[0], bytes(args[1])[:part], *args[2:])


def _refuse_link(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EPERM, "no hard links here")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


def append_foreign(path: str, data: bytes) -> None:
    """What a program that takes no lock does: open, append, close."""
    fd = _real["open"](path, os.O_WRONLY | os.O_APPEND)
    try:
        _real["write"](fd, data)
    finally:
        _real["close"](fd)


def plans_for(calls: list[Call], *, after: bool = False) -> Iterator[Plan]:
    """Every instant at which a process that makes these calls can die."""
    for call in calls:
        yield Plan(call.number, "die")
        if call.name in WRITES:
            parts = {1, call.length // 2, call.length - 1} & set(range(1, call.length))
            for part in sorted(parts):
                yield Plan(call.number, "die in", part)
        if after or call is calls[-1]:
            yield Plan(call.number, "die after")


def _target(thing: object) -> str:
    if isinstance(thing, int):
        try:
            thing = os.readlink(f"/proc/self/fd/{thing}").removesuffix(" (deleted)")
        except OSError:
            return ""
    return os.path.basename(thing) if isinstance(thing, str) else ""
