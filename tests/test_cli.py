"""The command, one call at a time: what it prints, what it changes, how it ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import cosession
from cosession import BlockingSession, CosessionError, Revision, errors, files
from cosession.cli import exits
from cosession.cli.app import COMMANDS, app
from cosession.cli.exits import Exit, explain
from cosession.lock import LockFile
from cosession.records import Holder, TurnCard
from cosession.store import Store


def call(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    """Run `cosession` with these arguments, in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, prog_name="cosession")


def good(*arguments: str | Path, stdin: str | bytes | None = None) -> str:
    """What a call that succeeds prints on standard output."""
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def history(path: Path) -> list[dict[str, Any]]:
    """The messages in a session."""
    with BlockingSession(path, read_only=True) as session:
        return [message.model_dump(exclude_unset=True) for message in session.history]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a session will be: a name that wants quoting."""
    return tmp_path / "my ünicode session.jsonl"


# ---- the whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_each_command_says(name: str) -> None:
    """The table that saves importing the commands tells the same as they do."""
    with click.Context(app, info_name="cosession") as context:
        command = app.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert COMMANDS[name][1] == command.get_short_help_str(limit=200)


def test_unknown_commands_and_options_are_usage_errors(path: Path) -> None:
    """Status 2, and a way to the help."""
    assert call("frobnicate").exit_code == Exit.USAGE
    result = call("show", "--frobnicate", path)
    assert result.exit_code == Exit.USAGE
    assert "Try 'cosession show -" in result.stderr  # -h or --help, as click chooses


def test_the_version_is_the_package_s() -> None:
    """`--version` prints it."""
    assert good("--version").strip() == f"cosession, version {cosession.__version__}"


def test_every_status_is_explained_in_the_help() -> None:
    """The overview's table has every status that the command ends with."""
    assert set(exits.MEANINGS) == set(Exit)
    text = good("--help")
    assert all(f"  {int(status)}  " in text for status in Exit)


def test_every_error_of_the_library_has_words_and_a_status() -> None:
    """Only what the command never causes counts as a defect."""
    path, revision = "/tmp/x y.jsonl", Revision(1, 2)
    made: list[CosessionError] = [
        errors.LockTimeout(path, 1.5, None),
        errors.Conflict(path, revision, revision, 1),
        errors.Conflict(path, revision, revision, None),
        errors.UnknownCheckpoint(path, 3, (0, 1)),
        errors.UnknownRevision(path, revision, "no record ends there"),
        errors.UnknownRotation(path, 3, (1, 2)),
        errors.InvalidMessage("no"),
        errors.NotASession(path, "is a folder"),
        errors.HardLinked(path, 2),
        errors.SessionMissing(path, "there is no such file"),
        errors.StorageError(path, "append", errno.EIO),
        errors.StorageFull(path, "append", errno.ENOSPC),
        errors.NotWritable(path, "append", errno.EACCES),
        errors.FileBusy(path, "replace"),
        errors.SyncFailed(path, "sync", errno.EIO),
        errors.Unsettled(path, "append", errno.EIO),
        errors.TurnHeld(path, Holder(7)),
        errors.TurnHeld(path, None),
        errors.TurnTimeout(path, 1.5, Holder(7)),
        errors.TurnInterrupted(path, TurnCard(Holder(7), revision, 1)),
        errors.TurnOver(f"{path}: the turn is over"),
    ]
    internal = {
        errors.CosessionError,
        errors.SessionClosed,
        errors.ReadOnlySession,
    }
    known = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CosessionError)
    }
    assert {type(error) for error in made} | internal == known
    for error in made:
        failure = explain(error)
        assert failure.status not in (Exit.OK, Exit.OFF, Exit.DEFECT)
        assert failure.hint
        assert "\n" not in failure.text + failure.hint
        assert "timeout=" not in failure.text + failure.hint
        assert "read_only" not in failure.text + failure.hint


def test_a_defect_is_one_line_and_the_traceback_on_request(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody expected ends with status 7; `--debug` shows where it came from."""

    def broken(self: Store) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Store, "open", broken)
    result = call("append", path, "hi")
    assert result.exit_code == Exit.DEFECT
    assert result.stderr.splitlines()[0] == "cosession: unexpected RuntimeError: a bug"
    assert "Traceback" not in result.stderr
    for arguments in (("--debug", "append", path, "hi"), ("append", "--debug", path, "hi")):
        assert "Traceback" in call(*arguments).stderr


def test_a_full_disk_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 5, what was tried, and nothing half written."""
    good("append", path, "hi")
    before = path.read_bytes()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_all", full)
    result = call("append", path, "more")
    assert result.exit_code == Exit.STORAGE
    assert result.stderr.startswith(f"cosession: {path.resolve()}: append: No space left")
    assert result.stdout == ""
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["show", "verify", "heal", "clear"])
def test_a_missing_session_is_told_and_not_made(command: str, path: Path) -> None:
    """Status 6 for all commands that need one, and no file appears."""
    result = call(command, path)
    assert result.exit_code == Exit.NO_SESSION
    assert result.stderr.startswith(f"cosession: {path.resolve()}: ")
    assert list(path.parent.iterdir()) == []


def test_a_folder_in_the_file_s_place_is_no_session(tmp_path: Path) -> None:
    """Status 6."""
    for command in ("show", "append", "verify"):
        assert call(command, tmp_path, *["x"] * (command == "append")).exit_code == Exit.NO_SESSION


# ---- append -----------------------------------------------------------------------------------


def test_append_prints_the_revision_behind_the_message(path: Path) -> None:
    """The message is in, and the revision is the session's."""
    printed = good("append", path, "hi there")
    assert history(path) == [{"role": "user", "content": "hi there"}]
    with BlockingSession(path) as session:
        assert printed == f"{session.revision}\n"


def test_append_takes_role_name_and_tool_call(path: Path) -> None:
    """The message's other fields come from options."""
    good("append", path, "12", "--role", "tool", "--tool-call-id", "c1", "--name", "add")
    assert history(path) == [{"role": "tool", "content": "12", "name": "add", "tool_call_id": "c1"}]


@pytest.mark.parametrize("dash", [[], ["-"]], ids=["piped", "dash"])
def test_append_reads_standard_input(path: Path, dash: list[str]) -> None:
    """All of it is the text, but for one newline at the end."""
    good("append", path, *dash, stdin="two\nlines\n\n")
    good("append", path, *dash, stdin="Windows\r\n")
    assert [message["content"] for message in history(path)] == ["two\nlines\n", "Windows"]


def test_append_json_is_one_operation(path: Path) -> None:
    """Every line is a message, with all its fields; blank lines are none."""
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "\ud800 lone", "extra": {"a": [1]}},
    ]
    good("append", path, "--json", stdin="\n\n".join(map(json.dumps, messages)))
    assert history(path) == messages
    good("append", path, "--json", json.dumps({"role": "user", "content": "given"}))
    assert history(path)[-1] == {"role": "user", "content": "given"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"role": "user"', "not JSON"),
        ('["role"]', "not an object"),
        ('{"content": "no role"}', "role: Field required"),
        ('{"role": "_checkpoint", "id": 1}', "not be read back"),
        ('{"role": "user", "content": NaN}', "content"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["torn", "array", "roleless", "checkpoint", "nan", "deep"],
)
def test_append_json_refuses_all_because_of_one(path: Path, line: str, reason: str) -> None:
    """A bad line is named by its number, and none of the messages is written."""
    fine = '{"role": "user", "content": "fine"}'
    good("append", path, "first")
    before = path.read_bytes()
    result = call("append", path, "--json", stdin=f"{fine}\n\n{line}\n{fine}\n")
    assert result.exit_code == Exit.USAGE
    assert "standard input, line 3: " in result.stderr
    assert reason in result.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ([""], None),
        (["-"], ""),
        ([], "\n"),
        (["--json"], "\n\n"),
        ([], b"Latin-1 \xe4"),
        (["--json", "--role", "user"], "{}"),
        (["hi", "--expect", "yesterday"], None),
        (["hi", "--timeout", "-1"], None),
        (["hi", "there"], None),
    ],
    ids=["text", "dash", "newline", "json", "latin1", "role", "expect", "timeout", "two"],
)
def test_append_refuses_what_makes_no_message(
    path: Path, arguments: list[str], stdin: str | bytes | None
) -> None:
    """Nothing to say, bytes that are no text, options that contradict: status 2, no file."""
    result = call("append", path, *arguments, stdin=stdin)
    assert result.exit_code == Exit.USAGE
    assert not path.exists()


def test_a_stale_revision_is_a_conflict(path: Path) -> None:
    """`--expect` with a revision before somebody's message: status 4, nothing written."""
    first = good("append", path, "one").strip()
    second = good("append", path, "two", "--expect", first).strip()
    commands: list[list[str | Path]]
    commands = [["append", path, "late"], ["checkpoint", path], ["clear", path]]
    for command in commands:
        result = call(*command, "--expect", first)
        assert result.exit_code == Exit.CONFLICT
        assert f"--expect {second}" in result.stderr
        assert result.stdout == ""
    assert len(history(path)) == 2
    assert good("show", "--revision", path).strip() == second
    good("append", path, "three", "--expect", second)


def test_the_revision_of_a_file_that_cosession_never_saw_is_not_made_up(path: Path) -> None:
    """It can't be known before the file was opened for writing once."""
    path.write_bytes(b'{"role": "user", "content": "hi"}\n')
    result = call("show", "--revision", path)
    assert result.exit_code == Exit.OFF
    assert result.stdout == ""
    good("heal", path)
    revision = good("show", "--revision", path).strip()
    good("append", path, "mine", "--expect", revision)


def test_a_busy_session_ends_with_a_status_of_its_own(path: Path) -> None:
    """After `--timeout`, status 3 and the holder's name; nothing was changed."""
    good("append", path, "hi")
    mark = good("checkpoint", path).strip()
    before = path.read_bytes()
    writing: list[list[str | Path]]
    writing = [["append", path, "x"], ["checkpoint", path], ["revert", path, mark]]
    lock = LockFile(f"{path}.lock", beside=str(path))
    assert lock.try_acquire()
    try:
        for command in writing:
            result = call(*command, "--timeout", "0.05")
            assert result.exit_code == Exit.BUSY
            assert "--timeout SECONDS" in result.stderr
            if sys.platform.startswith("linux"):
                assert f"process {os.getpid()}" in result.stderr
        for name in ("clear", "heal"):
            assert call(name, path, "--timeout", "0").exit_code == Exit.BUSY
        for reading in (["show"], ["verify"], ["heal", "--dry-run"]):
            assert call(*reading, path).exit_code == 0
    finally:
        lock.close()
    assert path.read_bytes() == before


def test_durability_is_passed_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--durability power` syncs before it prints."""
    synced = []
    monkeypatch.setattr(Store, "_sync", lambda self, fd, upto: synced.append(fd))
    good("append", path, "hi")
    assert not synced
    good("append", path, "hi", "--durability", "power")
    assert synced


def test_the_lock_may_lie_elsewhere(path: Path, tmp_path: Path) -> None:
    """`--lock-dir` before or behind the command's name names the same folder."""
    locks = tmp_path / "locks"
    good("--lock-dir", locks, "append", path, "hi")
    good("checkpoint", "--lock-dir", locks, path)
    assert len(list(locks.iterdir())) == 1
    assert not Path(f"{path}.lock").exists()
    assert "note" not in good("verify", path, "--lock-dir", locks)


# ---- checkpoint, revert, clear ----------------------------------------------------------------


def test_checkpoints_are_numbered_and_reverted_to(path: Path) -> None:
    """The numbers are printed, and where the old file went."""
    assert good("checkpoint", path) == "0\n"
    good("append", path, "one")
    assert good("checkpoint", path) == "1\n"
    good("append", path, "two")
    before = path.read_bytes()
    rotated = good("revert", path, "1").removesuffix("\n")
    assert Path(rotated).read_bytes() == before
    assert Path(rotated).name == "my ünicode session_1.jsonl"
    assert [message["content"] for message in history(path)] == ["one"]


def test_an_unknown_checkpoint_is_told(path: Path) -> None:
    """Status 4, and which there are."""
    good("checkpoint", path)
    result = call("revert", path, "7")
    assert result.exit_code == Exit.CONFLICT
    assert "no checkpoint 7; it has 0" in result.stderr


def test_clear_starts_over_and_keeps_the_old_file(path: Path) -> None:
    """The path of the old file is printed; of an empty one there is nothing to keep."""
    good("append", path, "one")
    rotated = Path(good("clear", path).removesuffix("\n"))
    assert b"one" in rotated.read_bytes()
    assert path.read_bytes() == b""
    result = call("clear", path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "empty already" in result.stderr


# ---- verify and heal --------------------------------------------------------------------------


def half_written(path: Path) -> bytes:
    """A session with an append that its process announced and half wrote."""
    from dataclasses import replace

    from cosession.header import Appending, Span

    good("append", path, "whole")
    line = b'{"role": "user", "content": "never finished"}\n'
    lock = LockFile(f"{path}.lock", beside=str(path))
    assert lock.try_acquire()
    header = lock.read()
    assert header is not None
    intent = Appending(header.committed, (Span.of(line),))
    lock.announce(replace(header, intent=intent), "append", durable=False)
    with path.open("ab") as file:
        file.write(line[:25])
    lock.close()
    return line[:25]


def test_verify_lists_every_line(path: Path) -> None:
    """Number, offset, state and kind of each line, and the verdict."""
    good("append", path, "one")
    good("checkpoint", path)
    lines = good("verify", path).splitlines()
    assert " ".join(lines[0].split()) == "line 1 offset 0 ok message, user, 31 bytes"
    assert " ".join(lines[1].split()) == "line 2 offset 32 ok checkpoint 0"
    assert "2 lines" in lines[2]
    assert lines[-1] == "nothing is off"


def test_verify_ends_with_status_1_if_a_line_is_damaged(path: Path) -> None:
    """Damage is shown with its reason; `--quiet` leaves the rest out."""
    path.write_bytes(b'{"role": "user", "content": "hi"}\n{torn\n{"role": "user", "content": 5}\n')
    before = path.read_bytes()
    result = call("verify", "--quiet", path)
    assert result.exit_code == Exit.OFF
    lines = result.stdout.splitlines()
    assert [line.split()[:5] for line in lines[:2]] == [
        ["line", "2", "offset", "34", "damaged"],
        ["line", "3", "offset", "40", "damaged"],
    ]
    assert "2 damaged line(s)" in lines
    assert path.read_bytes() == before


def test_verify_json_is_one_object_a_line(path: Path) -> None:
    """Programs get the same facts, and a summary as the last line."""
    half = half_written(path)
    result = call("verify", "--json", path)
    assert result.exit_code == Exit.OFF
    *lines, last = map(json.loads, result.stdout.splitlines())
    assert lines == [
        {"line": 1, "offset": 0, "length": 33, "state": "ok", "kind": "message"},
        {
            "line": 2,
            "offset": 34,
            "length": len(half),
            "state": "pending",
            "kind": "damaged",
            "reason": lines[1]["reason"],
        },
    ]
    summary = last["summary"]
    assert summary["off"] is True
    assert summary["states"] == {"ok": 1, "damaged": 0, "pending": 1}
    assert [finding["code"] for finding in summary["findings"]] == ["unfinished-append"]


def test_heal_tells_first_and_then_does(path: Path) -> None:
    """`--dry-run` changes nothing and ends with 1; healing keeps the bytes and ends with 0."""
    half = half_written(path)
    before = {entry: entry.read_bytes() for entry in path.parent.iterdir()}
    plan = call("heal", "--dry-run", path)
    assert plan.exit_code == Exit.OFF
    assert "they are cut off and kept in" in plan.stdout
    assert {entry: entry.read_bytes() for entry in path.parent.iterdir()} == before
    level = logging.getLogger("cosession").level
    done = call("heal", path)
    assert done.exit_code == 0
    torn = Path(f"{path.resolve()}.torn")
    assert done.stdout == (
        f"settled: undid an unfinished write of {len(half)} bytes at offset 34; "
        f"they are kept in {torn}\n"
    )
    assert done.stderr == ""
    assert logging.getLogger("cosession").level == level
    assert torn.read_bytes() == half + b"\n"
    assert good("heal", "--dry-run", path) == "nothing to settle\n"
    assert good("heal", path) == "nothing to settle\n"
    assert good("verify", path).splitlines()[-1] == "nothing is off"


def test_heal_leaves_damaged_lines_and_says_so(path: Path) -> None:
    """They stay in the file: that is told, and is no failure."""
    path.write_bytes(b"{torn\n")
    result = call("heal", path)
    assert result.exit_code == 0
    assert "1 damaged line(s) stay in the file" in result.stderr
    assert path.read_bytes() == b"{torn\n"


def test_heal_removes_temporary_files_of_the_dead(path: Path) -> None:
    """What an interrupted replacement left is removed, and told."""
    good("append", path, "hi")
    name, fd = files.open_temporary(str(path), path.stat())
    os.close(fd)
    assert os.path.basename(name) in good("heal", path)
    assert not os.path.exists(name)


@pytest.mark.skipif(sys.platform == "win32", reason="the advice is for a POSIX shell")
def test_heal_can_not_help_a_hard_link(path: Path) -> None:
    """Status 6, and the commands that help."""
    good("append", path, "hi")
    os.link(path, path.with_name("other.jsonl"))
    assert call("verify", path).exit_code == Exit.OFF
    result = call("heal", path)
    assert result.exit_code == Exit.NO_SESSION
    assert f"cp '{path.resolve()}'" in result.stderr


# ---- completion -------------------------------------------------------------------------------


def completions(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bash completion offers behind these words."""
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - (not words.endswith(" "))))
    monkeypatch.setenv("_COSESSION_COMPLETE", "bash_complete")
    result = CliRunner().invoke(app, prog_name="cosession")
    return [line.partition(",")[2] for line in result.stdout.split()]


def test_completion_knows_commands_options_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands come from the table, checkpoints from the file named before."""
    path = tmp_path / "context.jsonl"
    for _ in range(3):
        good("checkpoint", path)
    assert completions("cosession ", monkeypatch) == list(COMMANDS)
    assert completions("cosession re", monkeypatch) == ["restore", "revert"]
    assert "--durability" in completions("cosession append --d", monkeypatch)
    assert completions(f"cosession revert {path.as_posix()} ", monkeypatch) == ["0", "1", "2"]
    assert completions(f"cosession revert {tmp_path.as_posix()}/none ", monkeypatch) == []
