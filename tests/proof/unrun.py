"""Why some lines of the library are run by none of the default tests."""

from __future__ import annotations

RARE = "depends on which of two processes is faster; either order is right"
REFUSED = "the system has to refuse in the middle of undoing another refusal"
DEFECT = "only if the library itself has a defect"
VIOLATED = "only if a promise is broken: broken stores and variants show it"
DEEP = "run by the deep tests"
TERMINAL = "no test of the chat comes here, or only one whose process dies with its terminal"
ODD = "no default test comes here; what is printed depends on it, and no file"
ANOTHER_SYSTEM = "on other systems, or with other rights than those of the tests"
ANOTHER_FOLDER = "of folders that are broken in another way than those of the tests"
INTERRUPTED = "Ctrl-C in exactly that instant; test_interrupt.py tries hundreds of others"
KILLED = "the process is killed there, before it can write down what it has run"

LATE_IMPORT = "test_heartbeat.py comes here, which is not measured: that would make it slow"

REASONS: dict[tuple[str, str], str] = {
    # ---- the core ---------------------------------------------------------------------------
    ("_base.py", "SessionBase._add_at_once"): LATE_IMPORT,
    ("_base.py", "SessionBase._forget_queue"): RARE,
    ("_base.py", "SessionBase._open"): INTERRUPTED,
    ("_base.py", "SessionBase.after_fork_in_child"): RARE,
    ("_base.py", "SessionBase._closing"): DEEP,
    ("_platform/_posix.py", ""): ANOTHER_SYSTEM,
    ("appending.py", "FileAppender._take_over"): REFUSED,
    ("appending.py", "FileAppender._undo_append"): KILLED,
    ("appending.py", "FileAppender.append_now"): RARE,
    ("batch.py", "Batch._is_own"): RARE,
    ("blocking.py", "BlockingSession._begin_turn"): INTERRUPTED,
    ("blocking.py", "BlockingSession._commit"): INTERRUPTED,
    ("blocking.py", "BlockingSession._wait"): RARE,
    ("card.py", "from_json"): ODD,
    ("commits.py", "CommitQueue.abandon"): INTERRUPTED,
    ("commits.py", "CommitQueue.look"): RARE,
    ("commits.py", "CommitQueue._refuse_once"): RARE,
    ("commits.py", "CommitQueue._settle_errors"): DEFECT,
    ("interrupts.py", "insist"): INTERRUPTED,
    ("edits.py", "plan_edit"): "the steps are all there are: no other one comes",
    ("edits.py", "plan_edit.cut"): "a cut behind the last line is none, and is not asked for",
    ("files.py", "_copied"): RARE,
    ("files.py", "ours"): ANOTHER_SYSTEM,
    ("files.py", "require_plain_file"): ANOTHER_SYSTEM,
    ("files.py", "read_lines"): RARE,
    ("files.py", "suppress_blocked"): ANOTHER_SYSTEM,
    ("follow.py", "Follower._compare"): INTERRUPTED,
    ("follow.py", "Follower._mend"): RARE,
    ("follow.py", "_traces"): RARE,
    ("follow.py", "_watching.end"): RARE,
    ("findings.py", ""): ODD,
    ("header.py", "pack"): "a header announces an append, a replace or nothing",
    ("history.py", "MessageLog._note_broken"): INTERRUPTED,
    ("healing.py", "FileHealer._close_last_line"): "a foreign line that grows for a second",
    ("healing.py", "FileHealer._survey"): RARE,
    ("inspect.py", ""): RARE,
    ("lock.py", "KernelLock.acquire"): RARE,
    ("lock.py", "KernelLock.is_at_its_path"): RARE,
    ("lock.py", "KernelLock.is_current"): RARE,
    ("lock.py", "LockFile._left_over"): REFUSED,
    ("lock.py", "LockFile.holder"): RARE,
    ("lock.py", "_command_of"): RARE,
    ("messages.py", "MessageCodec._decode_line"): "pydantic refuses such nesting before",
    ("messages.py", "MessageCodec.encode"): "pydantic refuses such nesting before",
    ("presence.py", "_Locked.after_fork_in_child"): RARE,
    ("presence.py", "_Locked.close"): RARE,
    ("reading.py", ""): RARE,
    ("records.py", "Revision.__lt__"): "nobody compares a revision with anything else",
    ("replacing.py", "FileReplacer._exchange"): ANOTHER_SYSTEM,
    ("replacing.py", "FileReplacer._require_untouched"): RARE,
    ("replacing.py", "FileReplacer._undo_exchange"): REFUSED,
    ("session.py", "Session._begin_turn"): RARE,
    ("session.py", "Session._commit"): RARE,
    ("session.py", "Session.append"): LATE_IMPORT,
    ("session.py", "Session.open"): RARE,
    ("session.py", "uncancelled"): RARE,
    ("store.py", "Store._commit"): RARE,
    ("store.py", "Store._require_turn"): RARE,
    ("trace.py", ""): ODD,
    ("transfer.py", "fork"): "the count has no end",
    ("turn_lock.py", "TurnLock.acquire"): RARE,
    ("turn_lock.py", "TurnLock.held"): ODD,
    ("turn_lock.py", "Turns._read"): RARE,
    ("turn_lock.py", "Turns.read"): RARE,
    # ---- around it --------------------------------------------------------------------------
    ("cli/shapes.py", ""): ODD,
    ("cli/trace_reader.py", ""): ODD,
    ("adapters/_kimi_soul.py", ""): ODD,
    ("adapters/_kimi_turn.py", ""): RARE,
    ("adapters/kimi.py", ""): RARE,
    ("cli/app.py", ""): "how a shell completes, and ends a pipe",
    ("cli/append.py", ""): "standard input is a terminal, or a message has no place in the input",
    ("cli/chat", ""): TERMINAL,
    ("cli/contention.py", ""): ANOTHER_SYSTEM,
    ("cli/conversation.py", ""): ODD,
    ("cli/demo", ""): VIOLATED,
    ("cli/docs.py", ""): ODD,
    ("cli/doctor", ""): ANOTHER_FOLDER,
    ("cli/exits.py", ""): DEFECT,
    ("cli/heal.py", ""): RARE,
    ("cli/hold.py", ""): RARE,
    ("cli/live.py", ""): ODD,
    ("cli/output.py", ""): ODD,
    ("cli/rewind.py", ""): ODD,
    ("cli/show.py", ""): ODD,
    ("cli/status.py", ""): RARE,
    ("cli/tail.py", ""): RARE,
    ("cli/timeline.py", ""): ODD,
    ("cli/timeline_svg.py", ""): ODD,
    ("cli/verify.py", ""): ODD,
    ("cli/who.py", ""): ODD,
    ("cli/words.py", ""): ODD,
    ("testing/alone.py", ""): DEEP,
    ("testing/deaths.py", ""): DEEP,
    ("testing/ours.py", ""): DEEP,
    ("testing", ""): VIOLATED,
}
"""By file and function; a file, or a folder, alone stands for all that is in it."""
