"""Locks of the kernel's, each on a permanent file; how they are waited for.

1. The lock is the kernel's and dies with its process. The file is permanent: nobody here unlinks
   it, and it is never the data file, which gets replaced.
2. Somebody else may still unlink it. So after a lock is taken the file must be the one that its
   path names; otherwise it is opened anew and locked again.
3. One `KernelLock` is one open file description, and excludes every other one, in this process too.
4. A forked child shares its parent's description and with it the lock. The child only ever
   closes; the parent unlocks before it closes. So neither takes the lock from the other.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from . import _fork, _platform, trace
from .errors import NotASession

_SPINS = 20 if _platform.KEEPS_FILES_OPEN else 0
"""Tries in a row, of some 3 µs each: somebody else's commit takes some 30 µs."""

_YIELDS, _LONG = 20, 0.002
"""After those, tries between which others get the processor, and seconds for all of them."""

_STAY = 0.0005
"""Seconds for which the processor is kept where others wait for the lock: shorter than the system
lets one process have it, longer than it takes to be quick again after a change."""


class KernelLock:
    """One handle on a file that is there to be locked. Not for two threads at once."""

    def __init__(self, path: str, *, beside: str) -> None:
        self.path = path
        self._beside = beside
        """The data file, whose owner and mode the lock file gets when it is made."""
        self.held = False
        self.refused = False
        """Whether somebody else had it at the last try."""
        self.tried_until = 0.0
        """When it was last tried more than once in a row."""
        self._wanted_by_others = False
        """Whether somebody else had it not long ago."""
        self._stays_until = 0.0
        self.traced: trace.Hold | None = None
        """What the trace is going to say of the lock being held, if anything is traced."""
        self._fd = -1
        self._device = self._inode = 0
        _fork.watch(self)

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            NotASession: Something other than a plain file lies at its path.
            OSError: The system refuses.
        """
        if self._fd >= 0:
            return
        try:
            fd = _platform.open_file(self.path, os.O_RDWR, permanent=True)
        except FileNotFoundError:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                fd = _platform.open_file(self.path, flags, permanent=True)
            except FileExistsError:
                fd = _platform.open_file(self.path, os.O_RDWR, permanent=True)
            else:
                with suppress(OSError):
                    _platform.copy_owner(fd, os.stat(self._beside))
        self._adopt(fd)

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Never waits."""
        while True:
            if self._fd < 0:
                self.open()
            if not _platform.try_lock(self._fd):
                self.refused = True
                self._let_go()
                return False
            self.refused = False
            if self._is_ours():
                return True

    def try_shortly(self) -> bool:
        """Take the lock if it is free, or comes free within the time that a commit takes."""
        if self.try_acquire():
            return True
        return _SPINS > 0 and self._try_on()

    def _try_on(self) -> bool:
        """Try again some times: whoever has the lock is at work, or waits for a processor."""
        self._wanted_by_others = True
        try:
            for _ in range(_SPINS):
                if self.try_acquire():
                    return True
            until = time.monotonic() + _LONG
            for _ in range(_YIELDS):
                _platform.give_way()
                if self.try_acquire():
                    return True
                if time.monotonic() > until:
                    break
            return False
        finally:
            self.tried_until = time.monotonic()

    def give_way(self) -> None:
        """Let others have the processor for a moment, if they want the lock as well; it is free.

        Otherwise the system would take it away from us now and then, as likely as not while we
        have the lock, and all of them would wait for our next turn.
        """
        if self._wanted_by_others and (now := time.monotonic()) > self._stays_until:
            self._wanted_by_others = False
            if now < self._stays_until + _STAY:  # else it hasn't been kept all the time
                _platform.give_way()
                now = time.monotonic()
            self._stays_until = now + _STAY

    def acquire(self, *, wanted: Callable[[], bool]) -> bool:
        """Wait for the lock for as long as it is `wanted`; False if it no longer is.

        Where the kernel can wait, the wait itself can't be interrupted: the lock is handed back
        at once if nobody wants it by the time it comes.
        """
        while wanted():
            if not _platform.CAN_BLOCK:
                if self.try_acquire():
                    return True
                from random import uniform  # not for a program that has nobody to wait for

                time.sleep(uniform(0.001, 0.006))
                continue
            self.open()
            _platform.lock(self._fd)
            if self._is_ours():
                return True
        return False

    def _is_ours(self) -> bool:
        """Whether the lock just taken is on the right file; it is let go of if not."""
        try:
            there = os.lstat(self.path)
            self.held = there.st_ino == self._inode and there.st_dev == self._device
        except FileNotFoundError:
            pass
        finally:
            if not self.held:
                self._reopen()
        if self.held and trace.sink is not None:
            self._trace(trace.sink)
        return self.held

    def _trace(self, sink: trace.Sink) -> None:
        """Begin to trace that the lock is held, if it is a lock of which that is of interest."""

    def release(self) -> None:
        """Unlock, if it is locked."""
        if self.held:
            if self.traced is not None:
                self.traced.until = trace.now()
            traced, self.traced = self.traced, None
            self.held = False
            try:
                _platform.unlock(self._fd)
            except OSError:
                self._close()  # unlocks as well: a lock that nobody knows of stays for ever
            if not _platform.KEEPS_FILES_OPEN:
                self._close()
            if traced is not None:
                traced.tell()

    def close(self) -> None:
        """Unlock and close."""
        self.release()
        self._close()

    def _let_go(self) -> None:
        """Keep no file open between operations where that is in others' way."""
        if not _platform.KEEPS_FILES_OPEN:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # Not `with suppress`: on the way into that Ctrl-C gets through, and the lock stays.
            try:
                os.close(fd)
            except OSError:
                pass  # whatever it says, the descriptor is gone, and the lock

    def after_fork_in_child(self) -> None:
        self.held = False  # it is the parent's; closing leaves it with the parent
        self.traced = None
        self._close()

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """The file, open for reading, on any thread; `None` if it isn't there.

        The descriptor is another one: a thread may be waiting for the lock on ours, and on Windows
        a lock is taken at the descriptor's position, which a read would move.
        """
        try:
            fd = _platform.open_file(self.path, os.O_RDONLY, permanent=True)
        except OSError:
            yield None
            return
        try:
            yield fd if _is_plain(fd) else None
        finally:
            os.close(fd)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write inside the file, which must be open. Never the locked byte."""
        done = _platform.pwrite(self._fd, data, offset)
        while done < len(data):  # short writes come from full disks; the next one says so
            done += _platform.pwrite(self._fd, data[done:], offset + done)

    def _adopt(self, fd: int) -> None:
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotASession(self.path, "the lock's place is taken by something not a file")
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._device, self._inode = status.st_dev, status.st_ino

    def is_current(self) -> bool:
        """Whether the file that is locked is the one that its path names."""
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (self._device, self._inode)

    def is_at_its_path(self, fd: int) -> bool:
        """The same of a file that was opened to read it."""
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _reopen(self) -> None:
        with suppress(OSError):
            _platform.unlock(self._fd)
        self.close()


def _is_plain(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
