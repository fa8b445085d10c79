"""Whether a folder is one that some program copies to other machines. Pure: looks are passed in.

Such a program knows no lock: it may keep a file open, put another machine's version in its place,
or leave two versions side by side.

Where the facts come from:

- OneDrive sets `OneDrive`, `OneDriveConsumer` and `OneDriveCommercial` on Windows, and names its
  folder `OneDrive` or `OneDrive - ORGANISATION`; abraunegg's client for Linux takes `~/OneDrive`.
- Dropbox tells its folders in `info.json` (help.dropbox.com, "locate the Dropbox folder
  programmatically"), and keeps `.dropbox.cache` in them.
- iCloud Drive is `~/Library/Mobile Documents` on macOS and `~/iCloudDrive` on Windows.
- Whatever uses macOS's File Provider is in `~/Library/CloudStorage/NAME-ACCOUNT`.
- Google Drive keeps `.tmp.drivedownload` in folders that it mirrors, and names its volume
  `Google Drive`.
- Syncthing keeps `.stfolder` at the top of each folder (docs.syncthing.net, "Folder Marker Name").
- Nextcloud and ownCloud keep their journal as `.sync_*.db` at the top (their desktop manuals).
- Resilio Sync keeps `.sync/ID` at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from .findings import Finding, Remedy, off, ok

_MARKERS = (
    (".stfolder", "Syncthing"),
    (".dropbox.cache", "Dropbox"),
    (".tmp.drivedownload", "Google Drive"),
    (".tmp.driveupload", "Google Drive"),
    (".sync_*.db", "Nextcloud or ownCloud"),
    (".sync/ID", "Resilio Sync"),
)
"""What lies at the top of a synced folder: a name, or a pattern for one."""

_VARIABLES = ("OneDrive", "OneDriveConsumer", "OneDriveCommercial")

_NAMES = (
    ("onedrive", "OneDrive"),
    ("dropbox", "Dropbox"),
    ("iclouddrive", "iCloud Drive"),
    ("icloud drive", "iCloud Drive"),
    ("google drive", "Google Drive"),
    ("googledrive", "Google Drive"),
    ("my drive", "Google Drive"),
    ("nextcloud", "Nextcloud"),
    ("owncloud", "ownCloud"),
    ("pclouddrive", "pCloud"),
    ("megasync", "MEGA"),
)
"""How clients call their folders, which they put right below the home folder or a drive."""


@dataclass(frozen=True, slots=True)
class Synced:
    """By whom, from where on, and what tells it."""

    by: str
    root: str
    sign: str


def synced(
    folder: PurePath,
    *,
    home: PurePath,
    environment: Mapping[str, str] | None = None,
    dropbox: Sequence[PurePath] = (),
    has: Callable[[str, str], bool] = lambda folder, pattern: False,
) -> Synced | None:
    """Who syncs a folder, if anybody.

    Args:
        folder: Absolute, links followed.
        home: The user's.
        environment: The variables.
        dropbox: The folders that Dropbox names in its `info.json`.
        has: Whether a folder has something of this name, in which `*` stands for anything.
    """
    family = [folder, *folder.parents]
    for variable in _VARIABLES:
        root = (environment or {}).get(variable)
        if root and type(folder)(root) in family:
            return Synced("OneDrive", root, f"the variable {variable}")
    for place in dropbox:
        if place in family:
            return Synced("Dropbox", str(place), "its info.json")
    for parent in family:
        by = _by_place(parent, home)
        if by is not None:
            return Synced(by, str(parent), "its name")
    for parent in family:
        for marker, by in _MARKERS:
            if has(str(parent), marker):
                return Synced(by, str(parent), f"{marker} in it")
    return None


def _by_place(folder: PurePath, home: PurePath) -> str | None:
    library = home / "Library"
    if folder == library / "Mobile Documents":
        return "iCloud Drive"
    if folder.parent == library / "CloudStorage":
        return folder.name.partition("-")[0]
    if folder.parent not in (home, type(folder)(folder.anchor)) or folder == folder.parent:
        return None
    name = folder.name.lower()
    for known, by in _NAMES:
        if name == known or name.startswith((f"{known} - ", f"{known} (")):
            return by
    return None


def judge(found: Synced | None) -> Finding:
    """What to say of it."""
    probe = "synced"
    if found is None:
        return ok(probe, "no sign of a program that copies the folder to other machines")
    return off(
        probe,
        f"{found.root} is synced by {found.by}, as {found.sign} tells: it takes no lock, and may "
        "put another machine's version in a file's place",
        f"the folder is synced by {found.by}",
        Remedy.FOLDER,
        by=found.by,
        root=found.root,
    )
