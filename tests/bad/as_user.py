"""Try a session as a user who isn't root, and print how that ends."""

from __future__ import annotations

import os
import sys

import portalocker  # noqa: F401 - imported while the interpreter's own files can still be read

from bad.operations import OPERATIONS, REPLACES, message
from bad.soundness import assert_memory_is_file, open_descriptors
from cosession import BlockingSession, CosessionError, Message

NOBODY = 65534


def main(whats: str, path: str, *options: str) -> None:
    with BlockingSession(f"{path}.warm") as session:  # all that is imported late
        session.append(Message(role="user"))
        session.clear()
        _ = session.history, session.damage
    if os.getuid() == 0:
        os.setgroups([NOBODY + 1] if "in the group" in options else [])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.umask(0)
    for what in whats.split(","):
        before = open_descriptors()
        try:
            with BlockingSession(path, read_only=what == "read") as session:
                assert_memory_is_file(session)
                if what in OPERATIONS:
                    OPERATIONS[what](session)
                    assert_memory_is_file(session)
                elif what == "suffer":
                    suffer(session, os.path.dirname(path))
                print(f"{what}: read {len(session.history)}")
        except CosessionError as error:
            print(f"{what}: {type(error).__name__} of {type(error.__cause__).__name__}: {error}")
        assert before == open_descriptors(), "a descriptor was lost"


def suffer(session: BlockingSession[Message], folder: str) -> None:
    """Lose the right to write to the folder for a while."""
    mode = os.stat(folder).st_mode & 0o777
    for lost in (0o500, 0o000):
        os.chmod(folder, lost)
        for name, operation in OPERATIONS.items():
            try:
                operation(session)
            except CosessionError as error:
                print(f"refused: {name} {type(error).__name__}")
            else:
                assert lost
                assert name not in REPLACES
        os.chmod(folder, mode)
        session.append(message("goes on"))
        assert_memory_is_file(session)


if __name__ == "__main__":
    main(*sys.argv[1:])
