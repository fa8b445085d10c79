"""A plain list against the library: every operation, on several handles of one file.

1. `reference` is the session as it ought to be: a list of records, a list of rotated lists, and
   who wrote what. It knows nothing of locks, bytes, offsets or processes.
2. `machine` is a hypothesis state machine that does the same things to both, and compares file,
   memory, results and errors after every step.
"""
