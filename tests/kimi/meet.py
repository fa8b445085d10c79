"""Wait for others: `python meet.py FOLDER NAME COUNT` ends when COUNT names have come there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

PATIENCE = 100.0
"""Seconds."""


def meet(folder: Path, name: str, count: int) -> None:
    """Come to the folder, and stay until everybody is there.

    Raises:
        TimeoutError: Somebody did not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {sorted(folder.iterdir())} came")
        time.sleep(0.005)


if __name__ == "__main__":
    meet(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print("met")
