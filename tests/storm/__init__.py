"""Storms: processes that do everything at once, on a bad day, and what is left of it.

1. `run` is the weather: it starts terminals, kills, stops and continues them, limits the size of
   the files that they may write, appends to the session like a program without locks, and ends in
   an orderly way. It has no threads, so it forks a terminal in milliseconds.
2. `terminal` is one process with a session. It does random operations, with system calls that take
   their time (`delays`), and says what it is about to do and what it was told, on a pipe: what it
   said survives its death. What can be seen from inside only, it looks at itself.
3. `checker` reads the files without the library, and compares them with what was said.

A seed fixes what is decided: which operations, which disturbances, in which order. The instants at
which they meet are the system's.
"""
