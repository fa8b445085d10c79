"""Machinery of the power tests: what a file system may leave when the power is cut.

1. `recorder` notes every call that changes a file or a folder, and every sync, as an event with
   its bytes.
2. `disk` is a file system as a value: it says which events a sync has pinned, what may be there of
   the others, and makes real files of each state.
3. `stories` lists what is going on, `campaign` records a story, makes every state of it, and
   `examine` opens each as the next process would, and says what is wrong with it in sentences.
4. While a state is healed the power can be cut again (`--again`).
5. `mutants` leaves out one sync, or one check, each, to show that the examination notices.
6. `table` prints all of it: `python -m power.table`.

No call of the file system under the tests is trusted with any of this: nothing waits for a disk.
"""
