"""The command's end of the line to the workers.

1. A contender has a team: processes that are started when they are needed, do one job after the
   other, and end together.
2. Jobs that run at the same time begin at the same moment: when all have said that they are ready.
3. Every wait has a bound. A worker that does not answer, or says what went wrong, ends the
   measurement and its team with it; the next one starts anew.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

WORKER = Path(__file__).with_name("worker.py")
LONGEST = 300.0
"""Seconds after which a worker is given up."""
HEAD_START = 0.02
"""Seconds from the word to the beginning, so that all have heard it."""


class Failed(Exception):
    """A contender could not do what it was asked; the text says why."""


class Worker:
    """A process of one contender."""

    def __init__(self, contender: str, log: TextIO) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), contender],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def tell(self, **request: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Failed("its process is gone") from error

    def hear(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=LONGEST)
        except queue.Empty:
            raise Failed(f"no answer for {LONGEST:.0f} seconds") from None
        if not line:
            raise Failed(f"its process ended, status {self._process.wait(LONGEST)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, job: str, **request: Any) -> dict[str, Any]:
        self.tell(job=job, **request)
        return self.hear()

    def let_go(self) -> None:
        """Tell it that there will be no more jobs."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass

    def end(self) -> None:
        """Have it end, in peace if it can."""
        self.let_go()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def soon() -> int:
    """The moment to begin at."""
    return time.perf_counter_ns() + int(HEAD_START * 1e9)


class Team:
    """The workers of one contender."""

    def __init__(self, contender: str) -> None:
        self._contender = contender
        self._workers: list[Worker] = []
        self._log = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- closed by `end`

    def workers(self, count: int) -> list[Worker]:
        """So many processes; those that there are already, and new ones."""
        while len(self._workers) < count:
            self._workers.append(Worker(self._contender, self._log))
        return self._workers[:count]

    def ask(self, job: str, **request: Any) -> dict[str, Any]:
        """Have a job done by one process."""
        return self.workers(1)[0].ask(job, **request)

    def ask_newcomer(self, job: str, **request: Any) -> dict[str, Any]:
        """Have a job done by a process that has done nothing before."""
        worker = Worker(self._contender, self._log)
        try:
            return worker.ask(job, **request)
        finally:
            worker.end()

    def assemble(self, count: int, job: str, **request: Any) -> None:
        """Have so many processes, each of which has done this job: so its imports are done."""
        for worker in self.workers(count):
            worker.tell(job=job, **request)
        for worker in self.workers(count):
            worker.hear()

    def together(self, job: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have jobs done that begin at the same moment, each by a process of its own."""
        workers = self.workers(len(requests))
        for worker, request in zip(workers, requests, strict=True):
            worker.tell(job=job, **request)
        for worker in workers:
            worker.hear()
        at = soon()
        for worker in workers:
            worker.tell(at=at)
        return [worker.hear() for worker in workers]

    def dismiss(self) -> None:
        """End the processes; new ones are started when they are needed."""
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def end(self) -> None:
        self.dismiss()
        self._log.close()
