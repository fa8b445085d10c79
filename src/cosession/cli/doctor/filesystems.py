"""Mounts and what kind of file system they are. Pure: text in, values out.

Where the facts come from:

- Linux: `/proc/self/mountinfo` as proc_pid_mountinfo(5) describes it. The names are those that file
  systems register with the kernel (`register_filesystem`, see fs/*/ in its sources), `fuse.NAME`
  where a FUSE program gives its `subtype` (mount.fuse(8)). `fuseblk` is FUSE on a block device.
- NFS: nfs(5) on `nolock` and `local_lock`: with these, locks are not sent to the server. open(2):
  O_APPEND may lose data there. flock(2): locks over NFS are byte-range locks of the server's.
- SMB: flock(2) and mount.cifs(8) on `nobrl` and `nolock`.
- WSL: wsl.dev/technical-documentation/drvfs: Windows drives are `drvfs` in WSL 1, and 9p or
  virtiofs in WSL 2, with `aname=drvfs` among the options or `drvfs` in the source.
- macOS: mount(8) prints `local` for what `MNT_LOCAL` is set of, see statfs(2).
- Windows: GetDriveTypeW tells DRIVE_REMOTE (4) and DRIVE_RAMDISK (6), GetVolumeInformationW the
  name (learn.microsoft.com/windows/win32/api/fileapi).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum

from .findings import Finding, Remedy, State, note, off, ok


class Kind(Enum):
    """Where the files are, as far as locks are concerned."""

    LOCAL = "on this machine"
    MEMORY = "in memory"
    CONTAINER = "a container's layer"
    NETWORK = "on a network"
    HOST = "shared with the host of this virtual machine"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Mount:
    """What is mounted where."""

    type: str
    source: str
    point: str
    options: tuple[str, ...] = ()
    local: bool | None = None
    """What the system itself says, where it says it."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, object]) -> Mount:
        match value:
            case {
                "type": str(kind),
                "source": str(source),
                "point": str(point),
                "options": [*options],
                "local": bool() | None as local,
            }:
                return cls(kind, source, point, tuple(map(str, options)), local)
        raise ValueError(f"not a mount: {value}")


_LOCAL = frozenset({
    "apfs", "bcachefs", "btrfs", "ecryptfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fat",
    "fat32", "fuseblk", "hfs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs", "ntfs3", "refs",
    "reiserfs", "ubifs", "udf", "ufs", "vfat", "xfs", "zfs", "fuse.bindfs", "fuse.cryfs",
    "fuse.encfs", "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs", "fuse.ntfs-3g",
})  # fmt: skip
_MEMORY = frozenset({"devtmpfs", "ramfs", "rootfs", "tmpfs"})
_CONTAINER = frozenset({"aufs", "fuse.fuse-overlayfs", "overlay"})
_NETWORK = frozenset({
    "9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2",
    "smb3", "smbfs", "webdav", "fuse.ceph", "fuse.ceph-fuse", "fuse.cephfs", "fuse.curlftpfs",
    "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.google-drive-ocamlfuse",
    "fuse.gvfsd-fuse", "fuse.juicefs", "fuse.lizardfs", "fuse.moosefs", "fuse.mount-s3",
    "fuse.onedriver", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.smbnetfs", "fuse.sshfs",
})  # fmt: skip
_HOST = frozenset({
    "drvfs", "fakeowner", "fuse.grpcfuse", "fuse.vmhgfs-fuse", "osxfs", "prl_fs", "vboxsf",
    "virtiofs", "vmhgfs",
})  # fmt: skip

_FAT = frozenset({"exfat", "fat", "fat32", "msdos", "vfat"})

_PLACES = {
    **dict.fromkeys(_LOCAL, Kind.LOCAL),
    **dict.fromkeys(_MEMORY, Kind.MEMORY),
    **dict.fromkeys(_CONTAINER, Kind.CONTAINER),
    **dict.fromkeys(_NETWORK, Kind.NETWORK),
    **dict.fromkeys(_HOST, Kind.HOST),
}

_LOCAL_LOCKS = frozenset({"local_lock=all", "local_lock=flock", "nobrl", "nolock"})
"""Options with which locks stay on this machine."""


def kind_of(mount: Mount) -> Kind:
    """Where its files are. The name decides; what the system says is for names not known here."""
    name = mount.type.lower()
    if name == "9p" and _is_host_share(mount):
        return Kind.HOST
    if name in ("fuse", "macfuse", "osxfuse") and mount.source.startswith(("http://", "https://")):
        return Kind.NETWORK  # davfs2 gives the address as its source
    if mount.local is False and _PLACES.get(name) is not Kind.HOST:
        return Kind.NETWORK  # a drive letter may stand for NTFS on another machine
    if name in _PLACES:
        return _PLACES[name]
    return Kind.LOCAL if mount.local else Kind.UNKNOWN


def _is_host_share(mount: Mount) -> bool:
    said = ",".join((mount.source, *mount.options))
    return "drvfs" in said or "trans=virtio" in said or bool(re.match(r"[A-Za-z]:", mount.source))


def parse_mountinfo(text: str) -> dict[int, Mount]:
    """The lines of `/proc/self/mountinfo`, by the number of the mount."""
    mounts = {}
    for line in text.splitlines():
        fields = line.split(" ")
        try:
            dash = fields.index("-", 6)
            number, point, options = int(fields[0]), fields[4], fields[5]
            kind, source, more = fields[dash + 1 : dash + 4]
        except ValueError:
            continue
        both = dict.fromkeys([*options.split(","), *more.split(",")])
        mounts[number] = Mount(
            _unescaped(kind), _unescaped(source), _unescaped(point), tuple(map(_unescaped, both))
        )
    return mounts


def parse_mount(text: str) -> list[Mount]:
    """What mount(8) of macOS prints."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"(.+?) on (/.*) \(([^()]*)\)", line)
        if match:
            kind, *options = match[3].split(", ")
            found.append(Mount(kind, match[1], match[2], tuple(options), "local" in options))
    return found


def mount_at(mounts: Iterable[Mount], folder: str) -> Mount | None:
    """The one that a folder is on, by their places; of two at the same place the later one."""
    best = None
    for mount in mounts:
        inside = folder == mount.point or folder.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def judge(mount: Mount, *, locks: Mount | None = None) -> Finding:
    """What to say of the file system of a session's folder.

    Args:
        mount: Where the session is.
        locks: Where its locks are, if elsewhere.
    """
    probe, kind = "file system", kind_of(mount)
    name = f"{mount.type} ({mount.source}) at {mount.point}"
    figures = mount.to_json() | {"kind": kind.name.lower()}
    if kind in (Kind.NETWORK, Kind.HOST):
        where = _where(mount, kind)
        text = f"{name}, {where}{_about_locks(mount)}"
        if locks is not None and kind_of(locks) in (Kind.LOCAL, Kind.MEMORY, Kind.CONTAINER):
            return note(
                probe,
                f"{text}; the locks are on this machine, {locks.type} at {locks.point}",
                reason=f"the folder is {where}, and programs elsewhere do not see the locks",
                **figures,
            )
        return off(probe, text, f"the folder is {where}", Remedy.LOCK_DIR, **figures)
    if kind is Kind.MEMORY:
        lost = "its files are gone at the next boot"
        return note(probe, f"{name}, in memory: {lost}", reason=lost, **figures)
    if kind is Kind.CONTAINER:
        lost = "its files may be gone with the container"
        return note(probe, f"{name}, the layer of a container: {lost}", reason=lost, **figures)
    if kind is Kind.UNKNOWN:
        return Finding(probe, State.NOTE, f"{name}: a kind that is not known here", figures=figures)
    if mount.type.lower() in _FAT:
        text = f"{name}, on this machine: without modes, hard links or a journal"
        return Finding(probe, State.NOTE, text, figures=figures)
    return ok(probe, f"{name}, on this machine", **figures)


def _where(mount: Mount, kind: Kind) -> str:
    if kind is Kind.HOST and ("drvfs" in ",".join((mount.type, mount.source, *mount.options))):
        return "on a Windows drive inside WSL"
    return kind.value


def _about_locks(mount: Mount) -> str:
    if _LOCAL_LOCKS.intersection(mount.options):
        return "; mounted so that other machines do not see its locks"
    return ""


def _unescaped(text: str) -> str:
    r"""`\040` and its like, which stand for spaces, tabs, newlines, backslashes and `#`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
