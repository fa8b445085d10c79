"""Do an operation under a limit of the file size at each byte that it writes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from bad import mutants
from bad.operations import APPENDS, SEED, after, message
from bad.operations import OPERATIONS as ALL
from bad.soundness import assert_memory_is_file, assert_sound, rotated
from cosession import BlockingSession, StorageFull

PAST_THE_LOCK_FILE = 1024
"""A limit below that hits the lock file first."""

MOST = 400
"""Limits tried: all of a small write, a sample of a large one."""


OPERATIONS = ALL | {
    "append many": lambda session: session.append([message("x" * 300) for _ in range(1000)])
}
APPENDS = {**APPENDS, "append many": OPERATIONS["append many"]}


def main(folder: Path, name: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    clean = folder / "clean"
    clean.mkdir()
    folder = folder / "limited"
    folder.mkdir()
    path = folder / "context.jsonl"
    before, start, stop = SEED, 0, len(after(clean, name, OPERATIONS[name]))
    if name in APPENDS:
        past = PAST_THE_LOCK_FILE + (8 * 1000 if name == "append many" else 0)
        padding = b'{"role": "user", "content": "%s"}\n' % (b"x" * past)
        before = padding + SEED
        start, stop = len(before), len(padding) + stop
    failed, limits = 0, 0
    step = max(1, (stop - start) // MOST) | 1  # odd, so that no page's end is passed over for ever
    for limit in range(start, stop, step):
        for old in folder.glob("context*"):
            old.unlink()
        path.write_bytes(before)
        with BlockingSession(path) as session:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            limits += 1
            try:
                OPERATIONS[name](session)
            except StorageFull:
                failed += 1
                assert path.read_bytes() == before, limit
                assert not rotated(path), limit
                assert_memory_is_file(session)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            session.append(message("goes on"))
            assert_sound(session)
            assert session.history[-1].content == "goes on"
    print(f"{failed} of {limits} failed")
    assert limits > 20 or name == "checkpoint"
    assert failed == limits
    print("failed at every limit")


mutants.plant()

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
