"""What the system tells of a folder: its mount, its room, and signs of who syncs it.

Runs in a helper, since each of these calls may wait for a server that doesn't answer.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ... import files
from ...errors import SessionMissing
from .filesystems import Mount, mount_at, parse_mount, parse_mountinfo
from .synced import synced


def look(path: str) -> dict[str, object]:
    """Everything about the folder of a session, or about a folder.

    Raises:
        SessionMissing: There is no such folder.
    """
    resolved = files.resolve(path)
    folder = resolved if os.path.isdir(resolved) else os.path.dirname(resolved)
    if not os.path.isdir(folder):
        raise SessionMissing(resolved, f"the folder {folder} does not exist")
    mount = mount_of(folder)
    found = synced(
        Path(folder),
        home=_home(),
        environment=os.environ,
        dropbox=_dropbox(),
        has=_has,
    )
    return {
        "folder": folder,
        "session": resolved if os.path.lexists(resolved) and folder != resolved else None,
        "mount": mount.to_json() if mount else None,
        "room": room(folder),
        "synced": asdict(found) if found else None,
    }


def room(folder: str) -> dict[str, object]:
    """How much space is left for us, how many files, and if nothing can be written at all."""
    if sys.platform == "win32":
        return {"free": shutil.disk_usage(folder).free, "files": None, "read_only": False}
    status = os.statvfs(folder)
    return {
        "free": status.f_bavail * status.f_frsize,
        # Some file systems make inodes as they go, and say that they have none at all.
        "files": status.f_favail if status.f_files else None,
        "read_only": bool(status.f_flag & os.ST_RDONLY),
    }


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # which, unlike `Path.home`, need not find one


def _has(folder: str, pattern: str) -> bool:
    if "*" not in pattern:
        return os.path.lexists(os.path.join(folder, pattern))
    with suppress(OSError), os.scandir(folder) as entries:
        return any(fnmatch.fnmatchcase(entry.name, pattern) for entry in entries)
    return False


def _dropbox() -> list[Path]:
    places = [_home() / ".dropbox"]
    places += [
        Path(os.environ[variable]) / "Dropbox"
        for variable in ("APPDATA", "LOCALAPPDATA")
        if variable in os.environ
    ]
    found = []
    for place in places:
        with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
            accounts = json.loads((place / "info.json").read_text(encoding="utf-8"))
            found += [Path(account["path"]) for account in accounts.values()]
    return found


if sys.platform == "win32":
    import ctypes

    _READ_ONLY_VOLUME = 0x0008_0000

    def mount_of(folder: str) -> Mount | None:
        """The volume that a folder is on: GetVolumePathName, GetDriveType, GetVolumeInformation."""
        kernel = ctypes.windll.kernel32
        root = ctypes.create_unicode_buffer(1024)
        if not kernel.GetVolumePathNameW(folder, root, len(root)):
            return None
        label, name = (ctypes.create_unicode_buffer(261) for _ in range(2))
        flags = ctypes.c_uint32()
        known = kernel.GetVolumeInformationW(
            root, label, len(label), None, None, ctypes.byref(flags), name, len(name)
        )
        drive = kernel.GetDriveTypeW(root)
        options = ("ro",) if flags.value & _READ_ONLY_VOLUME else ()
        kind = name.value if known and name.value else "unknown"
        if drive == 6:
            kind = "ramfs"
        local = {2: True, 3: True, 4: False, 6: True}.get(drive)
        return Mount(kind, label.value or "no label", root.value, options, local)

elif sys.platform == "linux":

    def mount_of(folder: str) -> Mount | None:
        """The mount that a folder is on, by its number (proc_pid_fdinfo(5): `mnt_id`)."""
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
                mounts = parse_mountinfo(table.read())
        except OSError:
            return None
        with suppress(OSError):
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            try:
                with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
                    number = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
            finally:
                os.close(fd)
            if number and int(number[1]) in mounts:
                return mounts[int(number[1])]
        return mount_at(mounts.values(), folder)

else:

    def mount_of(folder: str) -> Mount | None:
        """The mount that a folder is on, as mount(8) lists it."""
        try:
            listed = subprocess.run(
                ["/sbin/mount"], capture_output=True, text=True, errors="replace", check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
        return mount_at(parse_mount(listed), folder)
