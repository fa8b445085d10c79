"""Machinery of the crash tests: children that die, or are disturbed, at a chosen system call.

1. `shim` counts every system call that the library makes, and does something at the k-th: die by
   SIGKILL before it, after it or in the middle of its bytes, fail, or let a foreign program write.
2. `operations` lists what is interrupted: each a preparation and an act.
3. `scene` holds the folder of one case: the states before and after the act, a session that was
   opened before and outlives it, and the children that act.
4. `examine` says what is wrong with a scene afterwards, in sentences; an empty list is the promise
   kept.
5. `campaign` runs every case of one operation in a process without threads (one that is forked
   from a test runner with threads would prove nothing) and reports in JSON.
6. `mutants` breaks one step of the protocol each, to show that the examination notices.
"""
