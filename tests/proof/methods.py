"""By which methods the promises are tested, and which tests each of them is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Method:
    """A way of testing, and what is counted in it."""

    does: str
    """What it tries, in a sentence."""
    unit: str
    """What is counted: a test that tallies nothing counts as one."""
    promises: tuple[int, ...]
    tests: dict[str, tuple[str, ...]]
    """By file, the test functions; none stand for all of them."""
    timed: tuple[str, ...] = ()
    """Of which of `default` and `deep` the number depends on how fast the machine is."""
    windows: bool = False
    """Whether it is run by a Windows Python."""

    def selection(self) -> list[str]:
        """What pytest is told to run, from the folder of the repository."""
        return [
            f"{file}::test_{name}" if name else file
            for file, names in self.tests.items()
            for name in names or ("",)
        ]


METHODS = {
    "kills": Method(
        "SIGKILL before every system call that changes something, and inside every write, of every "
        "operation; then another program's lines, or a second death while healing; and kills at "
        "random instants",
        "kills",
        (1, 2, 3, 4, 11),
        {
            "tests/test_crash.py": (
                "killed_at_any_call_an_operation_is_whole_or_absent",
                "foreign_lines_and_a_second_death_while_healing_change_nothing",
                "killed_while_taking_records_out_from_between_foreign_ones",
                "killed_where_there_are_no_hard_links",
                "the_asynchronous_session_dies_as_cleanly",
                "killed_without_warning_at_random_instants",
                "killed_without_warning_many_times",
                "every_kill_with_everything_after_it",
                "every_kill_after_every_foreign_line",
                "a_session_outlives_the_crash_of_another",
            )
        },
    ),
    "order of calls": Method(
        "the system calls of an operation, against the order of the protocol, and whether each is "
        "made under the lock",
        "operations",
        (1, 2, 3, 7),
        {
            "tests/test_crash.py": (
                "calls_come_in_the_order_of_the_protocol",
                "a_deleted_lock_file_is_noticed_before_anything_is_written",
            )
        },
    ),
    "power cuts": Method(
        "the calls of an operation, replayed to every state that a disk may be left in by a power "
        "cut ([more](power.md))",
        "states",
        (1, 2, 3),
        {
            "tests/test_power.py": (
                "a_power_cut_at_any_call_leaves_what_is_promised",
                "two_unsynced_calls_and_a_second_cut_while_healing",
            )
        },
        timed=("deep",),
    ),
    "a disk that forgets": Method(
        "processes on a file system that forgets what is not synced when its power is cut",
        "cuts",
        (2,),
        {
            "tests/test_power.py": (
                "a_file_system_that_forgets_what_is_not_synced",
                "a_file_system_that_forgets_many_times",
            )
        },
    ),
    "the protocol as a model": Method(
        "every interleaving of lock, commit, replace and turn, a crash at any step included, "
        "visited by spin ([more](model.md))",
        "states",
        (1, 2, 3, 4, 6, 7, 8),
        {
            "tests/test_model.py": (
                "a_few_models_come_out_as_expected",
                "all_models_come_out_as_expected",
            )
        },
    ),
    "a list that knows better": Method(
        "a hypothesis state machine does the same to five handles and to a plain list, and "
        "compares after every step",
        "steps",
        (1, 4, 5, 6, 11),
        {"tests/test_machine.py": ()},
    ),
    "histories": Method(
        "what processes were told, with slow system calls, must have one order that explains it: "
        "by revision, and by a search that looks at no revision",
        "calls",
        (2, 3, 5),
        {"tests/test_linearizability.py": ()},
    ),
    "storms": Method(
        "terminals at random operations amid kills, stops, restarts, full disks, foreign lines and "
        "slow system calls; then every promise is looked at",
        "operations",
        (1, 2, 3, 4, 6, 8, 11, 12, 14),
        {"tests/test_storms.py": ()},
        timed=("default", "deep"),
    ),
    "conformance": Method(
        "what any store has to do, by real processes, of `Session` and `BlockingSession` "
        "([more](conformance.md))",
        "clauses",
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        {
            "tests/test_conformance.py": (
                "session_conforms",
                "blocking_session_conforms",
                "our_sessions_conform_for_longer",
            )
        },
    ),
    "conflicts": Method(
        "each way in which something can have come in, and each answer to it",
        "tests",
        (5,),
        {"tests/test_conflicts.py": ()},
    ),
    "turns": Method(
        "turns that wait, are handed over, are left by a death, forked, cancelled, rolled back",
        "tests",
        (6, 8),
        {"tests/test_turns.py": ()},
    ),
    "followers": Method(
        "whether each change is told once and in order, in a busy session too",
        "tests",
        (3,),
        {"tests/test_follow.py": ()},
    ),
    "locks": Method(
        "processes that are killed, fork, share a lock with `filelock` and `portalocker`, wait "
        "for each other",
        "tests",
        (3, 7, 8),
        {"tests/test_processes.py": (), "tests/test_fork.py": ()},
    ),
    "waits": Method(
        "timeouts, Ctrl-C at many instants, signals by the hundred, exit with somebody waiting, a "
        "disk that is waited for, or refuses",
        "tests",
        (8, 12),
        {
            "tests/test_exit.py": (),
            "tests/test_interrupt.py": (),
            "tests/test_blocking.py": (),
            "tests/test_synced.py": (),
        },
    ),
    "heartbeat": Method(
        "how long the event loop stands still, against how long the thing takes and the noise that "
        "a busy thread makes",
        "measurements",
        (9,),
        {"tests/test_heartbeat.py": ()},
    ),
    "cancellation": Method(
        "every operation, cancelled at its 1st, 2nd, … suspension, the lock free or held by "
        "another process",
        "cancellations",
        (4, 8, 10),
        {"tests/test_cancelled_everywhere.py": (), "tests/test_cancellation.py": ()},
    ),
    "foreign lines": Method(
        "another program, which takes no lock, writes at any instant of an operation: lines, "
        "halves, damage, or all of it anew",
        "disturbances",
        (2, 4, 11),
        {
            "tests/test_crash.py": ("a_foreign_line_at_any_call_is_kept_and_tears_nothing",),
            "tests/test_foreign.py": (),
            "tests/test_bad_input.py": ("a_foreign_line_is_used_or_reported_and_always_kept",),
        },
    ),
    "kimi-cli": Method(
        "one suite over kimi-cli's own class and ours, in kimi-cli's own environment "
        "([more](kimi.md))",
        "tests",
        (11,),
        {"tests/test_kimi.py": ("behaviour", "deep_behaviour")},
    ),
    "faults": Method(
        "call *k* fails, alone or with all behind it, with ENOSPC, EDQUOT, EIO, EINTR, EACCES, "
        "EMFILE, ENFILE, EROFS, of 29 acts; or writes a part before",
        "faults",
        (1, 4, 11, 12),
        {
            "tests/test_faults.py": (),
            "tests/test_crash.py": (
                "memory_equals_the_file_after_any_failing_call",
                "what_the_disk_refuses_behind_the_unlocking_is_taken_back",
            ),
            "tests/test_bad_days.py": (
                "a_failing_call_undoes_the_operation_or_does_it_no_harm",
                "a_failing_call_where_there_are_no_hard_links",
                "a_failing_call_on_the_event_loops_thread",
                "a_failing_call_on_opening_is_an_error_and_no_loss",
            ),
        },
    ),
    "strace": Method(
        "the same without help from our code: strace kills, or refuses, at the *N*-th write, "
        "rename, link, unlink, sync, truncation, open",
        "injections",
        (1, 2, 12),
        {
            "tests/test_strace.py": (
                "killed_or_refused_at_any_call_of_the_kernel",
                "killed_at_any_call_of_the_kernel",
                "refused_at_any_call_of_the_kernel",
            )
        },
    ),
    "full disks": Method(
        "a file system with 0 to 7 free pages, and `RLIMIT_FSIZE` at every byte of a write",
        "limits",
        (12,),
        {
            "tests/test_bad_days.py": (
                "on_a_full_disk_an_operation_is_undone_and_works_again_with_space",
                "no_session_starts_on_a_full_disk_but_it_can_be_read",
                "a_size_limit_at_any_byte_undoes_the_operation",
            )
        },
    ),
    "fuzzing": Method(
        "hypothesis, and atheris if it is there: lines, folds split anywhere, headers, repairs, "
        "edits, sessions on any bytes",
        "examples",
        (2, 4, 11),
        {"tests/test_fuzz.py": ()},
        timed=("deep",),
    ),
    "hostile places": Method(
        "names of ours taken by links, pipes, folders, garbage; another user's files; modes; "
        "absurd sizes",
        "places",
        (12, 14),
        {"tests/test_hostile.py": (), "tests/test_bad_places.py": ()},
    ),
    "Windows": Method(
        "what Windows does to files and locks, by a Windows Python under Wine, where `.ci/run` "
        "runs those of sessions, turns, conflicts, lineage, presence and followers, too",
        "tests",
        (13,),
        {
            "tests_windows": (),
            "tests/test_platform.py": (),
            "tests/test_transfer.py": (),
        },
        windows=True,
    ),
}
