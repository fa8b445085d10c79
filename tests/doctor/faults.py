"""Broken systems: Python that every process of the doctor's runs before anything else."""

from __future__ import annotations

import os
from pathlib import Path

LOCKS_DO_NOTHING = """
import sys
if sys.platform == "win32":
    import msvcrt
    msvcrt.locking = lambda *a: None
else:
    import fcntl
    fcntl.flock = lambda *a: None
"""

LOCKS_ARE_REFUSED = """
import errno, sys
def refuse(*a):
    raise OSError(errno.ENOLCK, "No locks available")
if sys.platform == "win32":
    import msvcrt
    msvcrt.locking = refuse
else:
    import fcntl
    fcntl.flock = refuse
"""

LOCKS_HANG = """
import sys, time
if sys.platform == "win32":
    import msvcrt
    msvcrt.locking = lambda *a: time.sleep(3600)
else:
    import fcntl
    fcntl.flock = lambda *a: time.sleep(3600)
"""

LOCKS_OUTLIVE_THEIR_HOLDER = """
import os, sys, time
if sys.platform != "win32":
    import fcntl
    flock = fcntl.flock
    def leaking(fd, how):
        flock(fd, how)
        if how & fcntl.LOCK_EX:
            kept, holder = os.dup(fd), os.getpid()  # the copy shares the lock
            if os.fork() == 0:
                os.closerange(0, kept)
                os.closerange(kept + 1, 100)
                deadline = time.monotonic() + 60
                while os.getppid() == holder and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(8)
                os._exit(0)
            os.close(kept)
    fcntl.flock = leaking
"""
"""Until some seconds after the death; an explicit unlock works."""

THE_FOLDER_HANGS = """
import os, shutil, time
os.statvfs = shutil.disk_usage = lambda *a: time.sleep(3600)
"""

APPENDS_OVERWRITE = """
import os, sys
if sys.platform == "win32":
    from cosession import _platform
    opened = _platform.open_file
    _platform.open_file = lambda path, flags, **more: opened(
        path, flags & ~os.O_APPEND & ~os.O_WRONLY | os.O_RDWR, **more
    )
else:
    opened = os.open
    os.open = lambda path, flags, *more, **most: opened(path, flags & ~os.O_APPEND, *more, **most)
"""

REPLACES_ARE_REFUSED = """
import os
def refuse(*a):
    raise PermissionError(13, "Permission denied")
os.replace = refuse
"""

READS_ARE_STALE = """
from cosession import _platform
pread, known = _platform.pread, {}
_platform.pread = lambda fd, length, at: known.setdefault((fd, at), pread(fd, length, at))
"""

MODES_ARE_NOT_KEPT = """
import os
opened = os.open
def loose(path, flags, mode=0o777, **more):
    fd = opened(path, flags, mode, **more)
    if flags & os.O_CREAT:
        os.fchmod(fd, 0o777)
    return fd
os.open = loose
"""

NO_HARD_LINKS = """
import os
def refuse(*a, **k):
    raise OSError(95, "Operation not supported")
os.link = refuse
"""

NUMBERS_CHANGE = """
import os
stat, count = os.stat, [0]
def changing(path, **more):
    found = list(stat(path, **more))
    count[0] += 1
    found[1] += count[0]
    return os.stat_result(found)
os.stat = changing
"""

TIME_STANDS_STILL = """
import os
stat = os.stat
class Still:
    def __init__(self, status):
        self._status = status
    def __getattr__(self, name):
        return 0 if name == "st_mtime_ns" else getattr(self._status, name)
os.stat = lambda *a, **k: Still(stat(*a, **k))
"""

NOTHING_IS_HEARD = """
import sys, types
def watch(*a, **k):
    import time
    while True:
        time.sleep(0.05)
        yield set()
sys.modules["watchfiles"] = types.SimpleNamespace(watch=watch)
"""


def environment(fault: str, folder: Path) -> dict[str, str]:
    """The variables with which every Python that is started has this fault."""
    (folder / "sitecustomize.py").write_text(fault, encoding="utf-8")
    known = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return {"PYTHONPATH": os.pathsep.join([str(folder), *known])}
