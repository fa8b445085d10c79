"""A worker of `crash.worker` that waits for the disk, maybe with a defect."""

from __future__ import annotations

import sys

from cosession import SessionMissing
from crash import mutants, worker

from .mutants import MUTANTS

if __name__ == "__main__":
    path, journal, seed, *names = sys.argv[1:]
    for name in names:
        mutants.apply(name, MUTANTS)
    try:
        worker.main(path, journal, seed, power="power")
    except SessionMissing:
        pass  # the test is over, and the folder with it
