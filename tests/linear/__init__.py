"""Recorded histories of processes on one session, checked for linearizability.

1. `player` is a process that does random operations and says, for each, when it was called, when
   it returned (`time.monotonic`, which is one clock for all processes), and with what.
2. `recorder` runs players in rounds: in a round they are at it all at once, between two rounds
   nobody is. So a run is one long history, and each round a short one of its own.
3. `by_revision` checks the long one. Every result has a revision, so the order that there must
   have been is known: it has to respect real time, and a plain list (`machine.reference`), taken
   through it, has to come to every single result and everything that was read.
4. `by_search` checks the short ones without looking at a revision: it searches for *some* order
   that explains the results (Wing and Gong's way). It would notice if revisions themselves lied.
"""
