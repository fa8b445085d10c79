"""The environment that the contenders' packages are in.

1. It is made by uv, beside this file, when it is missing or the list of packages has changed. The
   packages are no dependencies of the project, not even for its tests.
2. kimi-cli wants Python 3.12, so everybody gets a Python that is new enough: figures of two Pythons
   can't be compared.
3. All packages are installed at once, so that they fit together. Where that fails, one after the
   other: what can't be had is then missing in the table, and not the table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE / ".environment"
PYTHON = HOME / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
READY = HOME / "ready.txt"

PACKAGES = (
    "aiofiles",
    "aiosqlite",
    "diskcache",
    "filelock",
    "kimi-cli==1.49.0",
    "langchain-community",
    "lmdb",
    "matplotlib",
    "openai-agents",
    "portalocker",
)


def is_this() -> bool:
    """Whether this Python is the environment's."""
    return Path(sys.prefix).resolve() == HOME.resolve()


def run_there(command: list[str]) -> int:
    """Run this command with the environment's Python, and return its exit status."""
    if not READY.exists() or READY.read_text(encoding="utf-8") != repr(PACKAGES):
        make()
    return subprocess.run([str(PYTHON), *command], check=False).returncode


def make() -> None:
    """Make the environment."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if not uv:
        sys.exit("uv is needed to make the contenders' environment; --here does without it")
    print(f"making {HOME.name}: a minute or two, once", file=sys.stderr)
    subprocess.run([uv, "venv", "-q", "--clear", "--python", new_python(), HOME], check=True)
    install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(PYTHON)]
    project = ["--editable", str(HERE.parent)]
    if subprocess.run([*install, *project, *PACKAGES], check=False).returncode:
        subprocess.run([*install, *project], check=True)
        for package in PACKAGES:
            subprocess.run([*install, package], check=False)
    READY.write_text(repr(PACKAGES), encoding="utf-8")


def new_python() -> str:
    """A Python that kimi-cli runs on: this one, the newest of pyenv's, or one that uv finds."""
    if sys.version_info >= (3, 12):
        return str(getattr(sys, "_base_executable", sys.executable))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {
        tuple(map(int, folder.name.split("."))): folder / "bin/python"
        for folder in root.glob("versions/3.*")
        if re.fullmatch(r"3\.1[2-4]\.\d+", folder.name)
    }
    return str(found[max(found)]) if found else ">=3.12"
