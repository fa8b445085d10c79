"""A terminal that takes turns: `python -m turns.terminal PATH NAME TURNS SEED LOG`.

It says in its log which turns it began and which it finished. A turn that it finds interrupted it
keeps, or rolls back, as a coin decides, and says so as well.
"""

from __future__ import annotations

import random
import sys
import time
from contextlib import suppress

from cosession import BlockingSession, TurnInterrupted, TurnOver

RECORDS = 6


def main(path: str, name: str, turns: int, seed: int, log: str) -> None:
    chance = random.Random(seed)
    with BlockingSession(path) as session, open(log, "a", encoding="utf-8", buffering=1) as diary:
        for number in range(turns):
            tag = f"{name}-{seed}-{number}"
            while True:
                try:
                    with session.turn(tag, timeout=60) as turn:
                        print("began", tag, file=diary)
                        for place in range(RECORDS):
                            turn.append({"role": "user", "content": tag, "place": place})
                            time.sleep(chance.uniform(0, 0.002))
                    break
                except TurnInterrupted:
                    interrupted = session.interrupted
                    if interrupted is None:
                        continue
                    with suppress(TurnOver):  # another terminal was faster
                        if chance.random() < 0.5:
                            interrupted.keep(timeout=60)
                            print("kept", interrupted.holder.operation, file=diary)
                        else:
                            interrupted.roll_back(timeout=60)
                            print("rolled-back", interrupted.holder.operation, file=diary)
            print("finished", tag, file=diary)
            session.record_usage(number, timeout=60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
