"""A process that changes a session at random, notes what it was told, and waits for nothing."""

from __future__ import annotations

import random
import sys

import cosession.messages  # noqa: F401 - now, and not in the time in which it is killed
from cosession import BlockingSession, SessionMissing


def main(path: str, journal: str, seed: str, power: str = "") -> None:
    choices = random.Random(seed)
    durable = choices.random() < 0.2 or bool(power)
    session = BlockingSession(path, durability="power" if durable else "process")
    session.open()
    with open(journal, "a", buffering=1) as told:
        session.append({"role": "user", "content": "m0/0/1"})
        told.write("m0/0/1.\n")
        print("ready", flush=True)  # from here on any instant may be the last
        number = 0
        while True:
            number += 1
            count = choices.choice([1, 1, 2, 5, 50])
            texts = [f"m{number}/{index}/{count}" for index in range(count)]
            long = "x" * choices.choice([0, 0, 10_000])
            messages = [{"role": "user", "content": text, "long": long} for text in texts]
            match choices.randrange(8):
                case 0:
                    session.checkpoint()
                case 1:
                    session.record_usage(number)
                case 2:
                    session.set_system_prompt(f"prompt {number}")
                case 3 if session.checkpoints:
                    session.revert_to(choices.choice(session.checkpoints))
                case 4:
                    with session.transaction() as changes:
                        changes.clear()
                        changes.checkpoint()
                        changes.append(messages)
                    told.write(" ".join(texts) + ".\n")
                case _:
                    session.append(messages)
                    told.write(" ".join(texts) + ".\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SessionMissing:
        pass  # the test is over, and the folder with it
