"""Run players at the same time, in rounds, and put down what they tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from cosession.files import rotations
from machine.reference import Line, parse

from .history import Round, from_json

HERE = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds that a round may take."""


def record(
    path: Path, *, seed: str, players: int, rounds: int, calls: int, mutant: str = ""
) -> list[Round]:
    """So many rounds of so many calls by each player; half of them are asyncio programs."""
    path.touch()
    names = [f"{'ab'[number % 2]}{number}" for number in range(players)]
    running = {name: _start(path, name, seed, mutant) for name in names}
    too_long = threading.Timer(PATIENCE + rounds, _end, (list(running.values()),))
    too_long.start()
    try:
        for process in running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return [_round(path, running, calls) for _ in range(rounds)]
    finally:
        too_long.cancel()
        for process in running.values():
            process.communicate(timeout=PATIENCE)


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()


def _start(path: Path, name: str, seed: str, mutant: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "linear.player", str(path), name, seed, *([mutant] * bool(mutant))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _round(path: Path, running: dict[str, subprocess.Popen[str]], count: int) -> Round:
    start, rotated = _lines(path), len(rotations(str(path)))
    for process in running.values():
        assert process.stdin is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
    calls = []
    for name, process in running.items():
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, f"{name} ended with status {process.wait(PATIENCE)}"
        calls += [from_json(name, event) for event in json.loads(said)]
    return Round(start, rotated, tuple(calls), _lines(path))


def _lines(path: Path) -> tuple[Line, ...]:
    return tuple(parse(line) for line in path.read_bytes().split(b"\n")[:-1])
