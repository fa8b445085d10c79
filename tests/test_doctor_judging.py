"""What the doctor makes of what it is told: file systems, synced folders, room, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath

import pytest

from cosession.cli.doctor import filesystems, synced
from cosession.cli.doctor.examination import room
from cosession.cli.doctor.filesystems import (
    Kind,
    Mount,
    kind_of,
    mount_at,
    parse_mount,
    parse_mountinfo,
)
from cosession.cli.doctor.findings import (
    Finding,
    Remedy,
    State,
    duration,
    note,
    off,
    ok,
    size,
    unknown,
)
from cosession.cli.doctor.verdict import verdict

# ---- file systems -------------------------------------------------------------------------------

MOUNTINFO = r"""
24 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw
30 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 30 0:27 / /dev/shm rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,inode64
40 30 0:50 / /home/ada/the\040server rw,relatime - nfs4 box:/srv rw,vers=4.2,local_lock=none
41 30 0:51 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\134;uid=1000
42 30 0:52 /@home /home rw master:1 propagate_from:2 - btrfs /dev/sdb1 rw,subvol=/@home
not a line at all
43 30 0:53 / /home rw - overlay
"""

MOUNTS_OF_A_MAC = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//ada@box/my%20share on /Volumes/my share (smbfs, nodev, nosuid, mounted by ada)
"""


def test_the_kernel_s_table_of_mounts_is_understood() -> None:
    """Optional fields, escapes, both kinds of options; what is no such line is skipped."""
    mounts = parse_mountinfo(MOUNTINFO)
    assert list(mounts) == [24, 30, 31, 40, 41, 42]
    assert mounts[30] == Mount(
        "ext4", "/dev/nvme0n1p2", "/", ("rw", "relatime", "errors=remount-ro")
    )
    assert mounts[40].point == "/home/ada/the server"
    assert "local_lock=none" in mounts[40].options
    assert mounts[41].source == "C:\\"
    assert mounts[42].type == "btrfs"


def test_what_mount_prints_on_a_mac_is_understood() -> None:
    """The type comes first among the options, and `local` is one of them."""
    mounts = parse_mount(MOUNTS_OF_A_MAC)
    assert [(mount.type, mount.point, mount.local) for mount in mounts] == [
        ("apfs", "/", True),
        ("apfs", "/System/Volumes/Data", True),
        ("autofs", "/System/Volumes/Data/home", False),
        ("smbfs", "/Volumes/my share", False),
    ]


@pytest.mark.parametrize(
    ("folder", "point"),
    [
        ("/", "/"),
        ("/etc", "/"),
        ("/home", "/home"),
        ("/home/ada", "/home"),
        ("/homely", "/"),
        ("/home/ada/the server/x", "/home/ada/the server"),
    ],
)
def test_a_folder_is_on_the_longest_mount_around_it(folder: str, point: str) -> None:
    """Whole names count, not their beginnings."""
    mount = mount_at(parse_mountinfo(MOUNTINFO).values(), folder)
    assert mount is not None
    assert mount.point == point


def test_of_two_mounts_at_one_place_the_later_one_covers_the_other() -> None:
    """And without any mount around it a folder has none."""
    lower, upper = Mount("ext4", "a", "/x"), Mount("nfs", "b", "/x")
    assert mount_at([lower, upper], "/x/y") == upper
    assert mount_at([lower], "/y") is None


KINDS: list[tuple[Mount, Kind]] = [
    (Mount("ext4", "/dev/sda1", "/"), Kind.LOCAL),
    (Mount("NTFS", "System", "C:\\", local=True), Kind.LOCAL),
    (Mount("NTFS", "share", "Z:\\", local=False), Kind.NETWORK),
    (Mount("apfs", "/dev/disk3s5", "/", ("local",), local=True), Kind.LOCAL),
    (Mount("fuseblk", "/dev/sdb1", "/mnt"), Kind.LOCAL),
    (Mount("tmpfs", "tmpfs", "/tmp"), Kind.MEMORY),
    (Mount("overlay", "overlay", "/"), Kind.CONTAINER),
    (Mount("nfs4", "box:/srv", "/mnt"), Kind.NETWORK),
    (Mount("nfs", "box:/srv", "/mnt", local=False), Kind.NETWORK),
    (Mount("cifs", "//box/srv", "/mnt"), Kind.NETWORK),
    (Mount("smb3", "//box/srv", "/mnt"), Kind.NETWORK),
    (Mount("fuse.sshfs", "box:", "/mnt"), Kind.NETWORK),
    (Mount("fuse", "https://box/dav/", "/mnt"), Kind.NETWORK),
    (Mount("fuse", "/something", "/mnt"), Kind.UNKNOWN),
    (Mount("macfuse", "somebody", "/Volumes/x", local=False), Kind.NETWORK),
    (Mount("9p", "box", "/mnt", ("trans=tcp",)), Kind.NETWORK),
    (Mount("9p", "share", "/mnt", ("rw", "trans=virtio")), Kind.HOST),
    (Mount("9p", "C:\\", "/mnt/c", ("aname=drvfs;path=C:\\",)), Kind.HOST),
    (Mount("9p", "drvfs", "/mnt/c"), Kind.HOST),
    (Mount("drvfs", "C:", "/mnt/c"), Kind.HOST),
    (Mount("virtiofs", "share", "/mnt"), Kind.HOST),
    (Mount("vboxsf", "share", "/media/sf_share"), Kind.HOST),
    (Mount("fakeowner", "/run/host_mark/Users", "/app"), Kind.HOST),
    (Mount("brandnewfs", "x", "/"), Kind.UNKNOWN),
    (Mount("brandnewfs", "x", "/", local=True), Kind.LOCAL),
    (Mount("brandnewfs", "x", "/", local=False), Kind.NETWORK),
]


@pytest.mark.parametrize(("mount", "kind"), KINDS, ids=lambda value: getattr(value, "type", value))
def test_the_kind_of_a_file_system(mount: Mount, kind: Kind) -> None:
    """Its name tells, and where that doesn't, what the system says of it."""
    assert kind_of(mount) is kind
    assert Mount.from_json(mount.to_json()) == mount


@pytest.mark.parametrize(
    ("mount", "locks", "state", "words"),
    [
        (Mount("ext4", "a", "/"), None, State.OK, "on this machine"),
        (Mount("vfat", "a", "/"), None, State.NOTE, "without modes"),
        (Mount("tmpfs", "a", "/"), None, State.NOTE, "gone at the next boot"),
        (Mount("overlay", "a", "/"), None, State.NOTE, "gone with the container"),
        (Mount("brandnewfs", "a", "/"), None, State.NOTE, "not known"),
        (Mount("nfs4", "a", "/"), None, State.OFF, "on a network"),
        (Mount("nfs", "a", "/", ("local_lock=flock",)), None, State.OFF, "do not see its locks"),
        (Mount("drvfs", "C:", "/mnt/c"), None, State.OFF, "Windows drive inside WSL"),
        (Mount("virtiofs", "a", "/"), None, State.OFF, "with the host"),
        (Mount("nfs4", "a", "/"), Mount("ext4", "b", "/l"), State.NOTE, "ext4 at /l"),
        (Mount("nfs4", "a", "/"), Mount("cifs", "b", "/l"), State.OFF, "on a network"),
    ],
)
def test_what_is_said_of_a_file_system(
    mount: Mount, locks: Mount | None, state: State, words: str
) -> None:
    """A network is off, unless the locks lie on this machine; the rest is fine."""
    found = filesystems.judge(mount, locks=locks)
    assert found.state is state
    assert words in found.text


# ---- synced folders -----------------------------------------------------------------------------

ADA, ADA_ON_WINDOWS = PurePosixPath("/home/ada"), PureWindowsPath(r"C:\Users\Ada")
MAC = PurePosixPath("/Users/ada")
NOWHERE: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("folder", "home", "environment", "dropbox", "markers", "by"),
    [
        (ADA / "work", ADA, {}, [], NOWHERE, None),
        (ADA / "Dropbox/x", ADA, {}, [], NOWHERE, "Dropbox"),
        (ADA / "Dropbox (Personal)", ADA, {}, [], NOWHERE, "Dropbox"),
        (ADA / "src/Dropbox", ADA, {}, [], NOWHERE, None),
        (ADA / "Dropboxes", ADA, {}, [], NOWHERE, None),
        (ADA / "elsewhere/x", ADA, {}, [ADA / "elsewhere"], NOWHERE, "Dropbox"),
        (ADA / "elsewhere", ADA, {}, [], [f"{ADA}/elsewhere|.dropbox.cache"], "Dropbox"),
        (ADA / "a/b/c", ADA, {}, [], [f"{ADA}/a|.stfolder"], "Syncthing"),
        (ADA / "a/b", ADA, {}, [], [f"{ADA}/a|.sync_*.db"], "Nextcloud or ownCloud"),
        (ADA / "a/b", ADA, {}, [], [f"{ADA}/c|.stfolder"], None),
        (MAC / "Library/Mobile Documents/com~x/y", MAC, {}, [], NOWHERE, "iCloud Drive"),
        (MAC / "Library/CloudStorage/OneDrive-Acme/y", MAC, {}, [], NOWHERE, "OneDrive"),
        (MAC / "Library/CloudStorage/GoogleDrive-a@b.c", MAC, {}, [], NOWHERE, "GoogleDrive"),
        (MAC / "Library/CloudStorage", MAC, {}, [], NOWHERE, None),
        (
            PureWindowsPath(r"d:\FILES\x"), ADA_ON_WINDOWS, {"OneDriveCommercial": r"D:\Files"}, [],
            NOWHERE, "OneDrive",
        ),
        (ADA_ON_WINDOWS / "OneDrive - Acme" / "x", ADA_ON_WINDOWS, {}, [], NOWHERE, "OneDrive"),
        (ADA_ON_WINDOWS / "iclouddrive", ADA_ON_WINDOWS, {}, [], NOWHERE, "iCloud Drive"),
        (PureWindowsPath(r"G:\My Drive\x"), ADA_ON_WINDOWS, {}, [], NOWHERE, "Google Drive"),
        (PureWindowsPath("G:\\"), ADA_ON_WINDOWS, {}, [], NOWHERE, None),
        (PurePosixPath("/"), ADA, {"OneDrive": ""}, [], NOWHERE, None),
    ],
)  # fmt: skip
def test_who_syncs_a_folder(
    folder: PurePath,
    home: PurePath,
    environment: Mapping[str, str],
    dropbox: list[PurePath],
    markers: list[str],
    by: str | None,
) -> None:
    """By variables, by what a client says, by well-known places and by markers around it."""
    found = synced.synced(
        folder,
        home=home,
        environment=environment,
        dropbox=dropbox,
        has=lambda place, pattern: f"{place}|{pattern}" in markers,
    )
    assert (found.by if found else None) == by
    said = synced.judge(found)
    assert said.state is (State.OFF if by else State.OK)
    assert by is None or by in said.reason


# ---- room ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "files", "read_only", "state", "remedy"),
    [
        (1 << 40, 10**6, False, State.OK, None),
        (1 << 40, None, False, State.OK, None),
        (1 << 20, 10**6, False, State.NOTE, None),
        (1 << 40, 100, False, State.NOTE, None),
        (4096, 10**6, False, State.OFF, Remedy.ROOM),
        (1 << 40, 0, False, State.OFF, Remedy.ROOM),
        (1 << 40, 10**6, True, State.OFF, Remedy.FOLDER),
    ],
)
def test_room(
    free: int, files: int | None, read_only: bool, state: State, remedy: Remedy | None
) -> None:
    """Bytes and names can both run out, and neither helps where nothing can be written."""
    found = room(free, files, read_only=read_only)
    assert (found.state, found.remedy) == (state, remedy)


# ---- the verdict --------------------------------------------------------------------------------

LOCKS = [ok("lock", ""), ok("turn's lock", "")]
UNTRIED = "Can't tell if sessions can be shared here: the locks could not be tried"
DONT = "Don't share sessions here"
ELSEWHERE = (
    "Use --lock-dir with a folder on a disk of this machine, the same for every program on the "
    "session, or keep the session in another folder"
)
ON_A_DISK = "Use another folder, on a disk of this machine"
SAFE = "Safe to share between processes on this machine."
BAD_LOCK = off("lock", "long", "locks do nothing", Remedy.LOCK_DIR)
BAD_TURN = off("turn's lock", "long", "locks do nothing", Remedy.LOCK_DIR)
SYNCED = off("synced", "long", "it is synced", Remedy.FOLDER)
FULL = off("room", "long", "the disk is full", Remedy.ROOM)
HURT = off("session", "long", "something is off with the session", Remedy.HEAL)


@pytest.mark.parametrize(
    ("findings", "fit", "is_off", "said"),
    [
        (LOCKS, True, False, SAFE),
        ([*LOCKS, note("watch", "slow")], True, False, SAFE),
        ([*LOCKS, note("fs", "x", reason="it forgets")], True, False, f"{SAFE} Mind: it forgets."),
        ([*LOCKS, unknown("watch", "no")], True, False, SAFE),
        (
            [*LOCKS, HURT], True, True,
            f"{SAFE} But something is off with the session: `cosession heal` settles it.",
        ),
        (
            [unknown("lock", ""), LOCKS[1]], False, True,
            f"{UNTRIED}.",
        ),
        ([], False, True, f"{UNTRIED}."),
        (
            [BAD_LOCK, BAD_TURN], False, True,
            f"{DONT}: locks do nothing. {ELSEWHERE}.",
        ),
        (
            [BAD_LOCK, SYNCED, HURT], False, True,
            f"{DONT}: locks do nothing; it is synced. {ON_A_DISK}.",
        ),
        (
            [*LOCKS, FULL], False, True,
            f"{DONT}: the disk is full. Free some space first.",
        ),
    ],
)  # fmt: skip
def test_the_verdict(findings: list[Finding], fit: bool, is_off: bool, said: str) -> None:
    """Reasons once each, the advice that helps against all, and no promise without locks."""
    judged = verdict(findings)
    assert (judged.fit, judged.off, judged.text) == (fit, is_off, said)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0 µs"), (1.24e-5, "12.4 µs"), (0.0034, "3.4 ms"), (1.25, "1.25 s"), (0.9999, "1 s")],
)
def test_durations(seconds: float, said: str) -> None:
    """Three digits and a unit that suits."""
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (1020 << 20, "1020 MiB"),
        (5 << 40, "5 TiB"),
    ],
)
def test_sizes(count: int, said: str) -> None:
    """Three digits and a unit that suits."""
    assert size(count) == said
