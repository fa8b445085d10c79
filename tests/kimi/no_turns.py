"""The command, with our class and without turns: `python no_turns.py …`, as `kimi …`."""

from __future__ import annotations

import sys

from kimi_cli.__main__ import main

from cosession.adapters.kimi import install

if __name__ == "__main__":
    install(turns=False)
    sys.exit(main())
