"""On what it was measured."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from contenders.base import Contender


@dataclass(frozen=True)
class Place:
    """A machine, and the folder on it."""

    system: str
    processor: str
    processors: int
    memory: str
    load: str
    """How busy it was before the first measurement."""
    file_system: str
    python: str
    packages: dict[str, str]

    @property
    def in_memory(self) -> bool:
        """Whether nothing is ever written to a disk there."""
        return self.file_system in ("tmpfs", "ramfs")

    def lines(self) -> list[str]:
        """For people to read."""
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        disk = f"{self.file_system}, which is memory" if self.in_memory else self.file_system
        return [
            f"{self.system}; {self.processors} × {self.processor}, {self.memory}, {self.load}",
            f"files on {disk}; Python {self.python}",
            packages,
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def here(cls, folder: Path, contenders: Iterable[type[Contender]]) -> Place:
        """Look around."""
        load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
        return cls(
            f"{platform.system()} {platform.release()}, {platform.machine()}",
            processor(),
            os.cpu_count() or 1,
            memory(),
            load,
            file_system(folder),
            platform.python_version(),
            dict(versions(contenders)),
        )


def versions(contenders: Iterable[type[Contender]]) -> Iterable[tuple[str, str]]:
    """The contenders' packages, and the SQLite beneath some of them."""
    yield "SQLite", sqlite3.sqlite_version
    for package in sorted({contender.package for contender in contenders if contender.package}):
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            yield package, "not installed"


def processor() -> str:
    """The processor's name, as the system has it."""
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or "unknown processor"


def memory() -> str:
    """How much memory there is."""
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            return f"{int(line.split()[1]) / 1e6:.0f} GB"
    return "memory unknown"


def file_system(folder: Path) -> str:
    """The name of the file system that a folder is on."""
    found, depth = "unknown file system", -1
    for line in _lines("/proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        point = Path(fields.split()[4].encode().decode("unicode_escape"))
        if folder.resolve().is_relative_to(point) and len(point.parts) >= depth:
            found, depth = rest.split()[0], len(point.parts)
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
