"""An agent that does what its test has written down, step by step: `python scripted.py FOLDER`.

The steps are in `FOLDER/steps.json`, one list for each run: `["print", text]`,
`["complain", text]`, `["await", name]` (until there is such a file), `["touch", name]`,
`["exit", status]`, `["child"]` (start a process that lives on), `["deaf"]` (don't end when asked
to, nor does what is started then). What it has read is left in `FOLDER/seen-N.json`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 120


def main() -> None:
    """Take the steps of this run."""
    folder = Path(sys.argv[1])
    number = len(list(folder.glob("seen-*.json")))
    (folder / f"pid-{number}").write_text(str(os.getpid()))
    seen = sys.stdin.buffer.read()
    (folder / "seen.tmp").write_bytes(seen)
    os.replace(folder / "seen.tmp", folder / f"seen-{number}.json")
    for step, *values in json.loads((folder / "steps.json").read_text())[number]:
        match step:
            case "print":
                sys.stdout.buffer.write(values[0].encode() + b"\n")
                sys.stdout.flush()
            case "complain":
                print(values[0], file=sys.stderr, flush=True)
            case "await":
                deadline = time.monotonic() + PATIENCE
                while not (folder / values[0]).exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
            case "touch":
                (folder / values[0]).touch()
            case "child":
                child = subprocess.Popen(
                    [sys.executable, "-c", f"import time; time.sleep({PATIENCE})"]
                )
                (folder / "child").write_text(str(child.pid))
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case "exit":
                sys.exit(values[0])


if __name__ == "__main__":
    main()
