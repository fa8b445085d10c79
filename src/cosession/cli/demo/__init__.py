"""`cosession demo`: terminals that write into one session at once, get killed, and are checked.

    command    the click command: options, exit status
    stage      the parent process: starts terminals, kills some, starts them again
    aim        when to kill: in the middle of a write
    terminal   one terminal, a process of its own
    writers    the session as a terminal uses it, async or blocking
    script     the conversations, and which messages go out together
    ledger     what terminals said they began and what was acknowledged: the ground truth
    checker    the ledger against the files
    display    the live table, the plain lines, the verdict

Reading `stage` and `terminal` shows what happens, reading `checker` what is promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .command import demo

__all__ = ["demo"]


def __getattr__(name: str) -> object:
    # A terminal is a module of this package and starts often: it does without click and rich.
    if name == "demo":
        from .command import demo

        return demo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
