"""A process of the doctor's: `python -m cosession.cli.doctor.helper`.

A line of JSON on standard input is something to do, and each gets one line as its answer. The deed
has a thread of its own, so that the end of the input (the doctor has gone) is noticed also while a
call into the system doesn't return.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback

from ...errors import CosessionError
from . import deeds


def main() -> None:
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_work, args=(orders,), daemon=True).start()
    _say({"ready": os.getpid()})
    for line in sys.stdin.buffer:
        orders.put(line)
    deeds.clean_up()
    os._exit(0)


def _work(orders: queue.SimpleQueue[bytes]) -> None:
    while True:
        _say(_done(json.loads(orders.get())))


def _done(order: dict[str, object]) -> dict[str, object]:
    try:
        return {"answer": deeds.DEEDS[str(order.pop("deed"))](**order)}
    except (OSError, CosessionError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        cause = error if isinstance(error, OSError) else error.__cause__
        return {
            "refused": text,
            "errno": getattr(cause, "errno", None),
            "kind": type(error).__name__,
        }
    except Exception:
        return {"defect": traceback.format_exc()}


def _say(answer: dict[str, object]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
