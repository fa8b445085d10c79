"""`cosession doctor`: whether a folder is fit for sessions that processes share, found by trying.

    command       the click command: options, output, exit status
    findings      what a probe found: a value
    verdict       the findings → a verdict in words
    filesystems   mounts and their kinds: what is local, on a network, in memory
    synced        folders that a program copies to other machines
    examination   the probes, one after another, and the private folder they work in
    dialogues     the probes themselves: who of two processes does what, and what it should see
    crew          the processes that do it, each with a deadline
    helper        such a process: does what it is told, and ends when nobody tells any more
    deeds         what it can do in the folder
    place         what it can tell of the folder: mount, room, rights

1. The doctor's own process never touches the folder. A call on a dead network mount may never
   return; whoever does not answer in time is killed, and that is a finding.
2. Everything is tried in a folder of its own inside the folder, which is removed afterwards, also
   on Ctrl-C, and also if the doctor is killed. The session is only looked at.
3. What is tried is the library's own code for locks, opening, replacing and syncing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .command import doctor

__all__ = ["doctor"]


def __getattr__(name: str) -> object:
    if name == "doctor":
        from .command import doctor

        return doctor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
