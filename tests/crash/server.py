"""Run campaigns in a process without threads, and each in a child of its own.

A line of arguments in JSON is answered by a line with a report, or with a traceback. So the
imports are paid once, and still nothing that one campaign breaks is seen by the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def serve(main: Callable[[list[str]], Any]) -> None:
    """Answer what is asked for on stdin, by a `main` that takes arguments and returns a report."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                answer = main(json.loads(line))
            except BaseException:
                answer = {"traceback": traceback.format_exc()}
            print(json.dumps(answer), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)


class Campaigns:
    """The process that runs the campaigns of a module, `crash.campaign` or `power.campaign`."""

    def __init__(self, module: str) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, root: Path, *options: str, timeout: float = 300) -> Any:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        too_long = threading.Timer(timeout, self.server.kill)
        too_long.start()
        try:
            self.server.stdin.write(json.dumps([str(root), *options]) + "\n")
            self.server.stdin.flush()
            answer = self.server.stdout.readline()
        finally:
            too_long.cancel()
        assert answer, f"no answer within {timeout} s"
        report = json.loads(answer)
        assert "traceback" not in report, report["traceback"]
        return report

    def close(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.server.communicate(timeout=5)
        self.server.kill()
        self.server.communicate(timeout=20)  # and its pipes are closed
