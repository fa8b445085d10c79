"""`cosession demo`: its checker finds every kind of loss, and a run of real processes is clean."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cosession import BlockingSession
from cosession.cli.demo import command, demo
from cosession.cli.demo.aim import Strike
from cosession.cli.demo.checker import Findings, check
from cosession.cli.demo.ledger import Ledger, Operation, Report, Witness
from cosession.cli.demo.script import BadInput, Script, load, parse, validate
from cosession.cli.demo.terminal import PROMPT, Terminal, position
from cosession.cli.demo.writers import AsyncWriter, BlockingWriter, Writer
from cosession.header import HEADER_AT, HEADER_SIZE, Appending, Span, pack, unpack

Json = dict[str, Any]
RUN = [sys.executable, "-c", "from cosession.cli.demo import demo; demo()"]


@dataclass
class Played:
    """A session that two terminals wrote, and what they were told."""

    path: Path
    ledger: Ledger
    script: Script
    terminals: list[Terminal]

    def check(self) -> Findings:
        return check(self.path, self.ledger, self.script)

    def lines(self, path: Path | None = None) -> list[bytes]:
        return (path or self.path).read_bytes().splitlines(keepends=True)

    def write(self, lines: list[bytes], path: Path | None = None) -> None:
        """Change a file in place, as the same file."""
        with (path or self.path).open("r+b") as file:
            file.write(b"".join(lines))
            file.truncate()

    def last(self, kind: str, *counts: int) -> Operation:
        """The last operation of a kind, with so many messages."""
        return [x for x in self.ledger if x.kind == kind and (not counts or x.count in counts)][-1]

    def at(self, operation: Operation) -> int:
        """Which line of the live file holds an operation's first message."""
        mark = f'"id":"{operation.id}"'.encode()
        return next(at for at, line in enumerate(self.lines()) if mark in line)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    """Two terminals, one blocking and one async, that did everything a terminal does."""
    folder = tmp_path / "session"
    folder.mkdir()
    path = folder / "context.jsonl"
    with BlockingSession(path) as session:
        session.set_system_prompt(PROMPT)
    ledger, script = Ledger(), load(None)
    writers: list[Writer] = [
        BlockingWriter(str(path), "process"),
        AsyncWriter(str(path), "process"),
    ]
    terminals = [
        Terminal(writer, script, Ear(ledger, number), number=number)
        for number, writer in enumerate(writers, 1)
    ]
    one, two = terminals
    write(one, two)
    two.revert()
    write(two, one)
    one.compact()
    write(one, two)
    for terminal in terminals:
        terminal.report()
    yield Played(path, ledger, script, terminals)
    for terminal in terminals:
        terminal.writer.close()


def write(one: Terminal, two: Terminal) -> None:
    one.checkpoint()
    for _ in range(4):
        one.step()
        two.step()
    two.record_usage()
    two.checkpoint()
    one.bulk(20_000)
    two.step()


class Ear:
    """Puts down what a terminal says, in place of a pipe."""

    def __init__(self, ledger: Ledger, terminal: int) -> None:
        self._witness = Witness(ledger, terminal)
        self.events: list[Json] = []

    def __call__(self, event: Json) -> None:
        self.events.append(event)
        self._witness.hear(json.loads(json.dumps(event)))


# ---- the checker ----------------------------------------------------------------------------


def test_what_terminals_leave_is_clean(played: Played) -> None:
    """Nothing is off with a session that the library wrote, and the figures say what it holds."""
    findings = played.check()

    assert findings.problems == []
    assert findings.files == 3
    assert findings.messages == sum(x.count for x in played.ledger.acknowledged())
    assert (findings.completed, findings.absent) == (0, 0)


Tamper = Callable[[Played], str]
"""Spoils a session, and returns what the verdict must say."""


def lose_a_message(played: Played) -> str:
    lost = played.last("append", 1)
    lines = played.lines()
    del lines[played.at(lost)]
    played.write(lines)
    return f"lost: {lost} was acknowledged, but its message(s) 1 of 1 are in no file"


def lose_a_rotated_message(played: Played) -> str:
    rotated = played.path.with_name("context_1.jsonl")
    lines = played.lines(rotated)
    lost = json.loads(lines[-1])["demo"]["id"]
    played.write(lines[:-1], rotated)
    return f"lost: {played.ledger.operations[lost]} was acknowledged"


def lose_half_an_append(played: Played) -> str:
    halved = played.last("append", 2, 3)
    lines = played.lines()
    del lines[played.at(halved) + 1]
    played.write(lines)
    return f"half: {halved} in context.jsonl: parts "


def lose_half_an_unacknowledged_append(played: Played) -> str:
    played.last("append", 2, 3).state = "begun"
    return lose_half_an_append(played)


def lose_a_token_count(played: Played) -> str:
    lost = played.last("usage")
    played.write([line for line in played.lines() if str(lost.value).encode() not in line])
    return f"lost: {lost}: token count {lost.value} stands 0 times in context.jsonl"


def tear_the_last_line(played: Played) -> str:
    lines = played.lines()
    played.write([*lines[:-1], lines[-1][: len(lines[-1]) // 2]])
    return "torn: context.jsonl does not end with a whole line"


def tear_a_line_in_the_middle(played: Played) -> str:
    lines = played.lines()
    played.write([*lines[:5], lines[5][:20] + b"\n", *lines[6:]])
    return "torn: line 6 of context.jsonl"


def write_a_message_twice(played: Played) -> str:
    lines = played.lines()
    lines.append(lines[played.at(played.last("append", 1))])
    played.write(lines)
    return f"duplicate: message {json.loads(lines[-1])['demo']['id']} part 1 stands 2 times"


def repeat_a_checkpoint(played: Played) -> str:
    number = played.last("checkpoint").checkpoint
    played.write([*played.lines(), b'{"role": "_checkpoint", "id": %d}\n' % (number or 0)])
    return f"checkpoint: number {number} stands 2 times in context.jsonl"


def renumber_a_checkpoint(played: Played) -> str:
    mark = played.last("checkpoint")
    lines = played.lines()
    lines[played.at(mark) - 1] = b'{"role": "_checkpoint", "id": 77}\n'
    played.write(lines)
    return f"checkpoint: {mark} in context.jsonl: number 77 stands before its message"


def interleave(played: Played) -> str:
    split = played.last("append", 2, 3)
    at = played.at(split) + 1
    lines = played.lines()
    played.write([*lines[:at], b'{"role": "_usage", "token_count": 1}\n', *lines[at:]])
    return f"interleaved: {split} in context.jsonl"


def change_a_text(played: Played) -> str:
    changed = played.last("append")
    lines = played.lines()
    at = played.at(changed)
    message = json.loads(lines[at])
    message["content"] = "something else"
    lines[at] = json.dumps(message).encode() + b"\n"
    played.write(lines)
    return f"changed: {changed} in context.jsonl: message 1 (line {at + 1}) is not as written"


def swap_two_messages(played: Played) -> str:
    appends = [x for x in played.ledger if x.kind == "append" and x.terminal == 1]
    lines = played.lines()
    first, second = played.at(appends[-2]), played.at(appends[-1])
    lines[first], lines[second] = lines[second], lines[first]
    played.write(lines)
    return f"message {appends[-2].id} part 1 stands behind a later one of terminal 1"


def add_a_strange_message(played: Played) -> str:
    lines = [*played.lines(), b'{"role": "user", "content": "who am I?"}\n']
    played.write(lines)
    return f"unknown: line {len(lines)} of context.jsonl is nobody's message"


def keep_a_refused_operation(played: Played) -> str:
    refused = played.last("append")
    refused.state = "refused"
    return f"refused: {refused} was refused, but it is there"


def leave_a_temporary_file(played: Played) -> str:
    played.path.with_name(".context.jsonl.0123456789ab.tmp").write_bytes(b"{")
    return "leftover: .context.jsonl.0123456789ab.tmp (1 bytes)"


def leave_a_second_name(played: Played) -> str:
    os.link(played.path, played.path.with_name("context_3.jsonl"))
    return "hard link: context.jsonl has 2 names"


def leave_an_announcement(played: Played) -> str:
    with played.path.with_name("context.jsonl.lock").open("r+b") as file:
        file.seek(HEADER_AT)
        header = unpack(file.read(HEADER_SIZE))
        assert header is not None
        file.seek(HEADER_AT)
        span = Span.of(b"never written\n")
        # The table of announced records is what an earlier large append left there, or nothing.
        file.write(pack(replace(header, intent=Appending(header.committed, (span,)))))
        file.seek(512)
        file.write(span.length.to_bytes(4, "little") + span.checksum.to_bytes(4, "little"))
    return "header: an announcement is left over"


def lose_the_header(played: Played) -> str:
    with played.path.with_name("context.jsonl.lock").open("r+b") as file:
        file.seek(HEADER_AT)
        file.write(bytes(HEADER_SIZE))
    return "header: context.jsonl.lock is missing or can't be read"


def lose_a_rotated_file(played: Played) -> str:
    played.path.with_name("context_2.jsonl").unlink()
    lost = played.last("compact")
    return f"rotated: {lost}: its rotated file 'context_2.jsonl' is missing"


def revert_too_far(played: Played) -> str:
    rotated = played.path.with_name("context_2.jsonl")
    played.write(played.lines(rotated)[1:], rotated)
    return f"rotated: {played.last('revert')}: context_2.jsonl does not begin with what stood"


def halve_a_compaction(played: Played) -> str:
    lines = played.lines()
    played.write([lines[0], *lines[2:]])
    return f"half: {played.last('compact')} in context.jsonl: without its prompt"


def forget_a_message_in_memory(played: Played) -> str:
    report = played.ledger.reports[1]
    played.ledger.reports[1] = Report(report.terminal, "0" * 24, report.messages - 1, 0)
    return f"digest: terminal 2 ended with {'0' * 24}"


def see_damage(played: Played) -> str:
    played.ledger.reports[0] = replace(played.ledger.reports[0], damage=1)
    return "damage: terminal 1 saw 1 damaged line(s)"


def lose_everything(played: Played) -> str:
    played.path.unlink()
    return "lost: the session's file context.jsonl is gone"


@pytest.mark.parametrize(
    "tamper",
    [
        lose_a_message,
        lose_a_rotated_message,
        lose_half_an_append,
        lose_half_an_unacknowledged_append,
        lose_a_token_count,
        tear_the_last_line,
        tear_a_line_in_the_middle,
        write_a_message_twice,
        repeat_a_checkpoint,
        renumber_a_checkpoint,
        interleave,
        change_a_text,
        swap_two_messages,
        add_a_strange_message,
        keep_a_refused_operation,
        leave_a_temporary_file,
        leave_a_second_name,
        leave_an_announcement,
        lose_the_header,
        lose_a_rotated_file,
        revert_too_far,
        halve_a_compaction,
        forget_a_message_in_memory,
        see_damage,
        lose_everything,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_whatever_is_off_is_named(played: Played, tamper: Tamper) -> None:
    """The checker names each kind of loss, with the operation and the file that it is about."""
    expected = tamper(played)

    problems = played.check().problems
    assert any(expected in problem for problem in problems), problems


@pytest.mark.skipif(os.name != "posix", reason="modes mean something on POSIX systems only")
def test_a_file_that_others_may_read_is_named(played: Played) -> None:
    """Sessions are private: a file with a wider mode is off."""
    played.path.with_name("context_1.jsonl").chmod(0o644)

    assert played.check().problems == ["mode: context_1.jsonl has 0644 in place of 0600"]


def test_an_unacknowledged_operation_may_be_there_or_not(played: Played) -> None:
    """Of what was begun and never acknowledged, both outcomes are fine, and are counted."""
    there = played.last("append", 2, 3)
    there.state = "begun"
    absent = Operation(1, 1, 10_000, "append", 0, 0, 1)
    played.ledger.operations[absent.id] = absent

    findings = played.check()

    assert findings.problems == []
    assert (findings.completed, findings.absent) == (1, 1)


def test_many_problems_of_a_kind_are_cut_short(played: Played) -> None:
    """Five of a kind are named, the others counted."""
    played.write(played.lines()[:1])

    lost = [text for text in played.check().problems if text.startswith("lost:")]

    assert len(lost) == 6
    assert lost[-1].endswith("more")


# ---- terminals ------------------------------------------------------------------------------


def test_a_terminal_goes_on_where_the_session_says(played: Played) -> None:
    """A terminal started again continues behind its own last message, also after a compaction."""
    one, two = played.terminals
    one.writer.refresh()
    before = position(one.writer.session.history, 2)
    two.compact()
    one.writer.refresh()
    after = position(one.writer.session.history, 2)

    ear = Ear(Ledger(), 2)
    Terminal(one.writer, played.script, ear, number=2, start=2)

    assert before is not None
    assert after == before
    ready = ear.events[0]
    assert ready["resumed"] is True
    assert (ready["conversation"], ready["message"]) == before


def test_a_terminal_ends_when_its_stdin_does(tmp_path: Path) -> None:
    """A terminal whose parent is gone ends by itself, whatever it is doing."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path):
        pass  # it is there now
    conversations = tmp_path / "conversations.jsonl"
    conversations.write_bytes(load(None).dump())
    options = {
        "number": 1,
        "start": 1,
        "terminals": 2,
        "seed": 0,
        "role": "write",
        "pace": 0.0,
        "durability": "process",
    }
    terminal = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cosession.cli.demo.terminal",
            str(path),
            str(conversations),
            json.dumps(options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert terminal.stdout is not None
    assert terminal.stdin is not None
    try:
        assert json.loads(terminal.stdout.readline())["is"] == "ready"
        assert json.loads(terminal.stdout.readline())["is"] == "begin"
        terminal.stdin.close()
        terminal.stdout.read()
        assert terminal.wait(20) == 0
    finally:
        terminal.kill()
        terminal.wait(20)
        terminal.stdout.close()


def test_a_strike_waits_for_the_announcement_of_its_victim(played: Played) -> None:
    """An aimed kill comes when the lock file announces a write of that very process."""
    leave_an_announcement(played)
    lock = str(played.path.with_name("context.jsonl.lock"))
    strike = Strike("bulk", "announcement", 0.0, patience=0.3)

    began = time.monotonic()
    strike.wait_for_the_moment(lock, os.getpid())
    for_us = time.monotonic() - began
    strike.wait_for_the_moment(lock, os.getpid() + 1)
    for_another = time.monotonic() - began - for_us

    assert for_us < 0.2
    assert for_another > 0.25


# ---- conversations --------------------------------------------------------------------------


def test_the_shipped_conversations_are_what_the_demo_needs() -> None:
    """Tool calls with several results, long texts, other scripts: all of it can be stored."""
    script = load(None)
    validate(script)

    steps = [
        conversation.step(at)
        for conversation in script.conversations
        for at in range(len(conversation.messages))
    ]
    texts = [json.dumps(m) for c in script.conversations for m in c.messages]
    assert len(script.conversations) >= 12
    assert max(steps) > 3
    assert max(map(len, texts)) > 10_000


def test_input_may_be_compressed(tmp_path: Path) -> None:
    """Plain and gzip files of the same conversations are the same."""
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_bytes(load(None).dump())
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert load(plain) == load(packed) == load(None)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it holds no conversation"),
        (b"\n\n", "it holds no conversation"),
        (b'{"id": 1, "messages": [{"role": "user"}]}\n{', "line 2 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b"[]", "line 1 is not {"),
        (b'{"id": "a", "messages": []}', "line 1 is not {"),
        (b'{"id": "a", "messages": ["hi"]}', "line 1, message 0: not a message"),
        (b'{"id": "a", "messages": [{"role": "_usage"}]}', "line 1, message 0: not a message"),
        (b'{"id": "a", "messages": [{"role": "user", "demo": 1}]}', "nor may it have a field"),
    ],
)
def test_bad_input_is_refused_with_its_place(data: bytes, reason: str) -> None:
    """What isn't conversations is refused before anything starts, with the line."""
    with pytest.raises(BadInput, match=reason.replace("{", r"\{")):
        parse(data)


def test_a_message_that_cannot_be_stored_is_refused() -> None:
    """Messages are tried out beforehand, so a run never fails because of its input."""
    script = parse(b'{"id": "a", "messages": [{"role": "user", "content": 5}]}')

    with pytest.raises(BadInput, match="conversation 'a', message 0"):
        validate(script)


# ---- the command ----------------------------------------------------------------------------


def test_bad_input_ends_the_command_with_status_2(tmp_path: Path) -> None:
    """The command says in one line what is wrong with its input."""
    source = tmp_path / "bad.jsonl.gz"
    source.write_bytes(gzip.compress(b"{}\n")[:-9])

    result = CliRunner().invoke(demo, ["--input", str(source)])

    assert result.exit_code == 2
    assert "bad.jsonl.gz: can't be read" in result.output


def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    """`--keep` never mixes a run's files with others."""
    (tmp_path / "precious").write_text("mine")

    result = CliRunner().invoke(demo, ["--keep", str(tmp_path)])

    assert result.exit_code == 2
    assert "the folder is not empty" in result.output
    assert os.listdir(tmp_path) == ["precious"]


def test_a_run_of_real_processes_is_clean(tmp_path: Path) -> None:
    """Killed and started again, terminals keep everything that was acknowledged to them."""
    folder = tmp_path / "kept"
    arguments = ["--terminals", "3", "--seconds", "1.5", "--kills", "2", "--seed", "5"]

    run = subprocess.run(
        [*RUN, *arguments, "--keep", str(folder)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "CLEAN" in run.stdout
    assert "kills                 2, " in run.stdout
    assert "seed 5" in run.stdout
    assert (folder / "context.jsonl").exists()


def test_a_loss_in_a_real_run_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One message that went missing makes the verdict, the exit status, and keeps the files."""

    def lose_one_and_check(path: Path, ledger: Ledger, script: Script) -> Findings:
        played = Played(path, ledger, script, [])
        messages = [line for line in played.lines() if b'"demo":' in line]
        played.write([line for line in played.lines() if line != messages[-1]])
        return check(path, ledger, script)

    monkeypatch.setattr(command, "check", lose_one_and_check)
    arguments = ["--terminals", "2", "--seconds", "0.8", "--kills", "0"]

    result = CliRunner().invoke(demo, [*arguments, "--keep", str(tmp_path / "kept")])

    assert result.exit_code == 1, result.output
    assert "OFF: " in result.output
    assert "- digest: terminal 1 ended with" in result.output
    assert (tmp_path / "kept" / "context.jsonl").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    """Interrupted, the demo says so, ends with status 130, and leaves no process behind."""
    folder = tmp_path / "kept"
    run = subprocess.Popen(
        [*RUN, "--terminals", "2", "--seconds", "60", "--keep", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    try:
        while " messages in " not in run.stdout.readline():
            pass
        assert processes_on(folder), "the terminals are writing by now"
        run.send_signal(signal.SIGINT)
        output = run.stdout.read()
        assert run.wait(30) == 130
    finally:
        run.kill()
        run.wait(30)
        run.stdout.close()

    assert "Interrupted. All terminals were killed" in output
    assert processes_on(folder) == []


def processes_on(folder: Path) -> list[int]:
    """The terminals of a run, as the system lists them."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        if b"demo.terminal" in words and os.fsencode(folder) in words:
            found.append(int(entry))
    return found
