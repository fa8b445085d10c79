"""A file system that forgets what was not synced: a second witness, with real processes on it.

`python -m power.forgetful FOLDER` mounts it there, says `ready`, and cuts the power for each line
on stdin: from then on the files are what they were when they were last synced, and the names what
they were when their folder was. Or, with the line `names`, the names stay, and only bytes go.

It speaks the kernel's protocol (linux/fuse.h) without a library. Mounting takes root.

A mount whose server was killed stays, and every look at it fails. So a second process, in a session
of its own, does nothing but wait for the end of the first, and then takes the mount away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

ROOT = 1
_HEADER = struct.Struct("<IIQQIIIHH")
_OPEN_DIRECTLY = 1
"""The kernel keeps no pages: what is forgotten here is forgotten."""

_MODE, _SIZE = 1, 8
_MODIFIED = 32
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)

_NAME = "cosession-forgetful"
"""What is said to be mounted, in /proc/mounts."""


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True)
class Node:
    number: int
    mode: int = stat.S_IFREG | 0o600
    data: bytearray = field(default_factory=bytearray)
    modified: int = field(default_factory=time.time_ns)
    synced: bytes = b""


class Forgetful:
    """One folder, no subfolders."""

    def __init__(self) -> None:
        self.nodes = {ROOT: Node(ROOT, stat.S_IFDIR | 0o700)}
        self.names: dict[str, int] = {}
        self.synced_names: dict[str, int] = {}

    def cut(self, *, names: bool) -> None:
        if names:
            self.synced_names = dict(self.names)
        self.names = dict(self.synced_names)
        for node in self.nodes.values():
            node.data = bytearray(node.synced)

    # ---- requests, by the kernel's numbers ---------------------------------------------------

    def lookup(self, _: int, body: bytes) -> bytes:
        return self._entry(self._named(_text(body)))

    def getattr(self, number: int, _: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self.nodes[number])

    def setattr(self, number: int, body: bytes) -> bytes:
        valid, _, _, size, _, _, modified, _, _, nanoseconds, _, mode = struct.unpack_from(
            "<II QQQ QQQ IIII", body
        )
        node = self.nodes[number]
        if valid & _SIZE:
            del node.data[size:]
            node.data += bytes(size - len(node.data))
            node.modified = time.time_ns()
        if valid & _MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & _MODIFIED:
            node.modified = modified * 10**9 + nanoseconds
        return self.getattr(number, b"")

    def create(self, _: int, body: bytes) -> bytes:
        mode, name = struct.unpack_from("<4xI", body)[0], _text(body[16:])
        node = Node(max(self.nodes) + 1, stat.S_IFREG | stat.S_IMODE(mode))
        self.nodes[node.number] = node
        self.names[name] = node.number
        return self._entry(node) + self.open(node.number, b"")

    def unlink(self, _: int, body: bytes) -> bytes:
        del self.names[self._present(_text(body))]
        return b""

    def rename(self, _: int, body: bytes, *, names_at: int = 8) -> bytes:
        old, new = (name.decode() for name in body[names_at:].split(b"\0")[:2])
        self.names[new] = self.names.pop(self._present(old))
        return b""

    def rename2(self, number: int, body: bytes) -> bytes:
        return self.rename(number, body, names_at=16)

    def link(self, _: int, body: bytes) -> bytes:
        number, name = struct.unpack_from("<Q", body)[0], _text(body[8:])
        if name in self.names:
            raise Refused(errno.EEXIST)
        self.names[name] = number
        return self._entry(self.nodes[number])

    def open(self, _: int, __: bytes) -> bytes:
        return struct.pack("<QII", 0, _OPEN_DIRECTLY, 0)

    def opendir(self, _: int, __: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0)

    def read(self, number: int, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<8xQI", body)
        return bytes(self.nodes[number].data[offset : offset + size])

    def write(self, number: int, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<8xQI", body)
        node = self.nodes[number]
        node.data += bytes(max(0, offset - len(node.data)))
        node.data[offset : offset + size] = body[40 : 40 + size]
        node.modified = time.time_ns()
        return struct.pack("<II", size, 0)

    def fsync(self, number: int, _: bytes) -> bytes:
        node = self.nodes[number]
        node.synced = bytes(node.data)
        return b""

    def fsyncdir(self, _: int, __: bytes) -> bytes:
        self.synced_names = dict(self.names)
        return b""

    def readdir(self, _: int, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<8xQI", body)
        listed = b""
        for at, (name, number) in enumerate(sorted(self.names.items())):
            encoded = name.encode()
            entry = struct.pack("<QQII", number, at + 1, len(encoded), stat.S_IFREG >> 12) + encoded
            entry += bytes(-len(entry) % 8)
            if at >= offset and len(listed) + len(entry) <= size:
                listed += entry
        return listed

    def statfs(self, _: int, __: bytes) -> bytes:
        return struct.pack(
            "<5Q4I24x", 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0
        )

    def init(self, _: int, body: bytes) -> bytes:
        ahead = struct.unpack_from("<8xI", body)[0]
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, ahead, 0, 12, 9, 1 << 17, 1, 32, 0, 0)

    def nothing(self, _: int, __: bytes) -> bytes:
        return b""

    # ---- their parts -------------------------------------------------------------------------

    def _present(self, name: str) -> str:
        if name not in self.names:
            raise Refused(errno.ENOENT)
        return name

    def _named(self, name: str) -> Node:
        return self.nodes[self.names[self._present(name)]]

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + self._attributes(node)

    def _attributes(self, node: Node) -> bytes:
        seconds, rest = divmod(node.modified, 10**9)
        links = sum(number == node.number for number in self.names.values())
        return struct.pack(
            "<QQQ QQQ III IIIIIII",
            *(node.number, len(node.data), -(-len(node.data) // 512)),
            *(seconds, seconds, seconds),
            *(rest, rest, rest),
            *(node.mode, 2 if node.number == ROOT else links, os.getuid(), os.getgid(), 0, 4096, 0),
        )


_UNANSWERED = (2, 36, 42)
"""FORGET, INTERRUPT, BATCH_FORGET."""


def _text(body: bytes) -> str:
    return body.split(b"\0", 1)[0].decode()


def serve(device: int, system: Forgetful) -> None:
    handlers: dict[int, Callable[[int, bytes], bytes]] = {
        1: system.lookup, 3: system.getattr, 4: system.setattr, 10: system.unlink,
        12: system.rename, 13: system.link, 14: system.open, 15: system.read, 16: system.write,
        17: system.statfs, 18: system.nothing, 20: system.fsync, 25: system.nothing,
        26: system.init, 27: system.opendir, 28: system.readdir, 29: system.nothing,
        30: system.fsyncdir, 35: system.create, 38: system.nothing, 45: system.rename2,
    }  # fmt: skip
    while True:
        ready, _, _ = select.select([device, sys.stdin], [], [])
        if device in ready:
            _answer(device, handlers)
        elif not (command := sys.stdin.readline()):
            return
        else:
            system.cut(names=command.strip() == "names")
            print("cut", flush=True)


def _answer(device: int, handlers: dict[int, Callable[[int, bytes], bytes]]) -> None:
    try:
        request = os.read(device, 1 << 18)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):  # the request was taken back
            return
        raise
    length, opcode, unique, number, *_ = _HEADER.unpack_from(request)
    if opcode in _UNANSWERED:
        return
    failed, body = 0, b""
    try:
        if opcode not in handlers:
            raise Refused(errno.ENOSYS)
        body = handlers[opcode](number, request[_HEADER.size : length])
    except Refused as refusal:
        failed = refusal.number
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(body), -failed, unique) + body)
    except OSError as error:
        if error.errno != errno.ENOENT:  # whoever asked was killed
            raise


def mount(folder: str) -> int:
    """The device, open, of a file system mounted there.

    Raises:
        OSError: There is no such device, or not the right to mount.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if _libc.mount(_NAME.encode(), os.fsencode(folder), b"fuse", 0, options.encode()):
        number = ctypes.get_errno()
        os.close(device)
        raise OSError(number, os.strerror(number))
    return device


def unmount(folder: str) -> None:
    _libc.umount2(os.fsencode(folder), _DETACH)


def unmount_orphans() -> None:
    """Take away what killed servers left behind, in case their watchers were killed as well."""
    with open("/proc/self/mounts", encoding="utf-8") as table:
        mounts = [line.split() for line in table]
    for name, written, *_ in mounts:
        if name == _NAME:
            folder = written.encode().decode("unicode_escape")  # blanks are written as \040
            try:
                os.stat(folder)
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    unmount(folder)


def unmount_behind_me(folder: str) -> None:
    """See to it that the folder is unmounted as soon as this process ends, however it does."""
    alive, mine = os.pipe()
    if os.fork():
        os.close(alive)
        return  # the other end stays open for as long as this process lives
    try:
        os.setsid()  # what is sent to all of a group ends the server, and not this
        os.close(mine)
        with open(os.devnull, "r+b") as nothing:
            for fd in (0, 1, 2):
                os.dup2(nothing.fileno(), fd)
        os.read(alive, 1)
        unmount(folder)
    finally:
        os._exit(0)


def main(folder: str) -> None:
    unmount_behind_me(folder)  # before there is a device that it could keep open
    try:
        device = mount(folder)
    except OSError as error:
        print(f"can't be mounted here: {error}", flush=True)
        return
    try:
        print("ready", flush=True)
        serve(device, Forgetful())
    finally:
        unmount(folder)


if __name__ == "__main__":
    main(sys.argv[1])
