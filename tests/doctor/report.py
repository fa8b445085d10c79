"""The doctor called as users call it, and what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    """What `cosession doctor --json` printed."""

    status: int
    said: dict[str, Any]

    @property
    def verdict(self) -> str:
        return str(self.said["verdict"])

    def __getitem__(self, probe: str) -> dict[str, Any]:
        [found] = [finding for finding in self.said["findings"] if finding["probe"] == probe]
        return dict(found)

    def states(self) -> dict[str, str]:
        return {finding["probe"]: finding["state"] for finding in self.said["findings"]}


def examine(
    path: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Report:
    done = subprocess.run(
        [sys.executable, "-m", "cosession", "doctor", "--json", *options, str(path)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=120,
        check=False,
        preexec_fn=before,
    )
    assert done.stdout, done.stderr.decode()
    complaints = done.stderr.decode()  # not empty under Wine, which has its own to say
    assert "cosession" not in complaints, complaints
    assert "Traceback" not in complaints, complaints
    return Report(done.returncode, json.loads(done.stdout))


def drop_privileges() -> None:
    """Between fork and exec: lose root's right to write where others may not.

    The number stays 0, since another user may not be allowed to run this very interpreter.
    """
    import ctypes

    if os.geteuid() == 0:
        drop = 24  # PR_CAPBSET_DROP, see prctl(2)
        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(drop, right, 0, 0, 0) == 0
