"""`cosession tail`, `who`, `hold` and `heal --turn`: several terminals on one session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aio.both import KINDS, Kind, opened, user
from cosession import BlockingSession, Conflict, TurnOver
from cosession.cli.exits import TURN_VARIABLE, Exit
from test_cli import call, good, history
from test_cli_processes import COMMAND, posix, read_until, run
from test_turns import CALL, dies_in_its_turn

BOUND = 60.0

INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.stdin.isatty():
    import fcntl, termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # whose Ctrl-C is ours
from cosession.cli import main
main()
"""
"""The command for tests that send SIGINT, which a job in the background would ignore."""


class Terminal:
    """A process of the command, what it has printed so far, and a wait for more of that."""

    def __init__(self, *arguments: str | Path, interruptible: bool = False) -> None:
        command = [sys.executable, "-c", INTERRUPTIBLE] if interruptible else COMMAND
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUTF8": "1"},
            start_new_session=interruptible,
        )
        self.said = {"out": "", "err": ""}
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe))
            for name, pipe in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, pipe: Any) -> None:
        for line in pipe:
            with self._news:
                self.said[name] += line.decode().replace("\r\n", "\n")
                self._news.notify_all()

    def until(self, text: str, where: str = "out") -> None:
        """Wait until it has printed this."""
        with self._news:
            assert self._news.wait_for(lambda: text in self.said[where], BOUND), self.said

    def end(self) -> int:
        """Wait for its end."""
        status = self.process.wait(BOUND)
        for reader in self._readers:
            reader.join(BOUND)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return status


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts processes of the command; none of them outlives the test."""
    started: list[Terminal] = []

    def start(*arguments: str | Path, **options: Any) -> Terminal:
        started.append(Terminal(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.end()


Start = Callable[..., Terminal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a session, gewöhnlich.jsonl"


def texts(path: Path) -> list[Any]:
    return [message["content"] for message in history(path)]


# ---- tail -----------------------------------------------------------------------------------


def test_tail_shows_the_end_and_takes_no_lock(path: Path) -> None:
    """The last messages with what stands between them; a file that isn't there is an error."""
    assert call("tail", path).exit_code == Exit.NO_SESSION
    lines = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    marked = [*lines, {"role": "_checkpoint", "id": 0}, {"role": "user", "content": "c"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in marked))
    assert good("tail", "-n", "2", path) == "assistant\n  b\n\n· checkpoint 0\n\nuser\n  c\n"
    assert good("tail", "-n", "0", path) == ""
    entry = json.loads(good("tail", "-n", "1", "--json", path))
    assert entry == {"change": "history", "revision": None, "records": marked[-1:]}
    assert os.listdir(path.parent) == [path.name]


def test_tail_tells_what_others_do_as_they_do_it(path: Path, terminal: Start) -> None:
    """Answers, turns, reverts, rewrites and clears, each told when it happens."""
    with BlockingSession(path) as session:
        session.append(user("before"))
        tail = terminal("tail", "-f", path)
        tail.until("before")
        with session.turn("answering") as turn:
            tail.until("has the turn: answering\n")
            turn.append({"role": "assistant", "content": "the answer"})
            tail.until("assistant\n  the answer\n")
        tail.until("is over\n")
        session.checkpoint()
        session.append([user("c"), user("d")])
        tail.until("  d\n")
        session.revert_to(0)
        tail.until("── reverted: 2 messages are gone, 2 stay\n")
        session.set_system_prompt("Be kind.")
        tail.until("── rewritten: the messages are the same\n· system prompt (8 characters)\n")
        with session.transaction() as transaction:
            transaction.clear()
            transaction.append(user("a summary"))
        tail.until("── rewritten: 1 message in place of 2\n\nuser\n  a summary\n")
        session.clear()
        tail.until("── cleared: 1 message is gone\n")
        session.append(user("anew"))
        tail.until("  anew\n")
    assert tail.said["err"] == ""
    assert tail.said["out"].count("the answer") == 1


def test_tail_waits_for_a_file_that_is_not_there(path: Path, terminal: Start) -> None:
    """It says so, and shows the session when somebody has made it; a folder must be there."""
    tail = terminal("tail", "-f", path)
    tail.until("waiting for it to appear", "err")
    with BlockingSession(path) as session:
        session.append(user("there"))
        tail.until("user\n  there\n")
    assert call("tail", "-f", path.parent / "none" / "c.jsonl").exit_code == Exit.NO_SESSION


def test_tail_as_json_is_one_object_for_each_change(path: Path, terminal: Start) -> None:
    """What is there first; then the changes with their records as they stand in the file."""
    with BlockingSession(path) as session:
        session.append([user("a"), user("b")])
        first = str(session.revision)
        tail = terminal("tail", "-f", "--json", "-n", "1", path)
        tail.until("\n")
        with session.turn("t"):
            tail.until("turn began")
        tail.until("turn ended")
        session.append(CALL)
        tail.until("appended")
        session.clear()
        tail.until("cleared")
        last = str(session.revision)
    told = [json.loads(line) for line in tail.said["out"].splitlines()]
    assert told[0] == {"change": "history", "revision": first, "records": [user("b")]}
    assert [entry["change"] for entry in told[1:3]] == ["turn began", "turn ended"]
    assert (told[1]["label"], told[1]["pid"]) == ("t", os.getpid())
    assert (told[3]["change"], told[3]["records"]) == ("appended", [CALL])
    assert told[4] == {"change": "cleared", "revision": last}


@posix
def test_tail_ends_with_ctrl_c_or_with_its_reader(path: Path, terminal: Start) -> None:
    """Quiet both times, with the status for it."""
    with BlockingSession(path) as session:
        session.append(user("a"))
        tail = terminal("tail", "-f", path, interruptible=True)
        tail.until("  a\n")
        tail.process.send_signal(signal.SIGINT)
        assert (tail.end(), tail.said["err"]) == (Exit.INTERRUPTED, "")
        process = subprocess.Popen(
            [*COMMAND, "tail", "-f", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"user\n"
        process.stdout.close()
        process.stdout = None
        deadline = time.monotonic() + BOUND
        while process.poll() is None and time.monotonic() < deadline:
            session.append(user("more"))
            time.sleep(0.02)
        assert process.communicate(timeout=BOUND)[1] == b""
        assert process.returncode == Exit.OUTPUT_CLOSED


@posix
def test_tail_on_a_terminal_has_colours(path: Path) -> None:
    """Roles and events in colours, as they come; Ctrl-C on the terminal ends it."""
    import pty

    with BlockingSession(path) as session:
        session.append(user("a"))
        session.checkpoint()
        master, slave = pty.openpty()
        kept = {key: os.environ[key] for key in os.environ if not key.endswith("_COLOR")}
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "tail", "-f", str(path)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**kept, "TERM": "xterm-256color", "COLUMNS": "60"},
            start_new_session=True,
        )
        os.close(slave)
        try:
            read_until(master, b"checkpoint 0")
            session.append({"role": "assistant", "content": "b"})
            assert b"\x1b[1;36massistant\x1b[0m" in read_until(master, b"  b\r\n")
            session.revert_to(0)
            said = read_until(master, b"1 stay")
            assert "\x1b[1;34m── reverted: 1 message is gone, 1 stay".encode() in said
            os.write(master, b"\x03")
            read_until(master, None)
            assert process.wait(BOUND) == Exit.INTERRUPTED
        finally:
            process.kill()
            process.wait(BOUND)
            os.close(master)


# ---- who ------------------------------------------------------------------------------------


def test_who_is_there_and_whose_turn_it_is(path: Path) -> None:
    """The terminals, the turn, and since when; status 1 if nobody is there."""
    with BlockingSession(path) as session:
        result = call("who", path)
        assert (result.exit_code, result.stdout) == (Exit.OFF, "")
        assert "nobody is there" in result.stderr
        with session.present("chat"):
            said = good("who", path)
            assert f"process {os.getpid()}" in said
            assert ", chat, for " in said
            with session.turn("answering"):
                assert "has the turn: answering, for " in good("who", path)
                entry = json.loads(good("who", "--json", path))
                status = json.loads(good("status", "--json", path))
        assert [terminal["label"] for terminal in entry["terminals"]] == ["chat"]
        assert (entry["turn"]["label"], entry["turn"]["pid"]) == ("answering", os.getpid())
        assert (entry["waiting"], entry["interrupted"]) == ([], None)
        assert (status["turn"]["holder"], status["terminals"]) == (
            entry["turn"],
            entry["terminals"],
        )
    assert call("who", path.with_name("none.jsonl")).exit_code == Exit.NO_SESSION


# ---- hold -----------------------------------------------------------------------------------

WRITES_TWICE = """
import subprocess, sys
for text in "12":
    subprocess.run([sys.executable, "-m", "cosession", "append", sys.argv[1], text], check=True)
    print("wrote", text, flush=True)
    while len(sys.argv) > 2 and not __import__("os").path.exists(sys.argv[2]):
        __import__("time").sleep(0.01)
"""


def test_what_a_command_writes_in_hold_is_in_one_piece(path: Path, terminal: Start) -> None:
    """Its `cosession append` writes in the turn, while others wait for the end."""
    go = path.with_name("go")
    inside = [sys.executable, "-c", WRITES_TWICE, str(path), str(go)]
    hold = terminal("hold", path, "--label", "testing", "--", *inside)
    hold.until("wrote 1\n")
    with BlockingSession(path) as other:
        assert other.holder is not None
        assert other.holder.operation == "testing"
        result = call("append", path, "refused", "--timeout", "0")
        assert result.exit_code == Exit.BUSY
        assert "doing testing" in result.stderr
        waiting = threading.Thread(target=other.append, args=(user("other"),))
        waiting.start()
        go.touch()
        waiting.join(BOUND)
        assert hold.end() == 0
        assert other.holder is None
    assert texts(path) == ["1", "2", "other"]


def test_hold_ends_as_its_command_does(path: Path) -> None:
    """Its status is passed on; what can't be run has a status of its own, and the turn ends."""
    code = [sys.executable, "-c", "import sys; sys.exit(int(sys.argv[1]))"]
    assert call("hold", path, "--", *code, "0").exit_code == 0
    assert call("hold", path, "--", *code, "23").exit_code == 23
    missing = call("hold", path, "--", "no such command")
    assert missing.exit_code == 127
    assert "no such command" in missing.stderr
    assert call("hold", path).exit_code == Exit.USAGE
    with BlockingSession(path) as session:
        assert session.interrupted is None
        session.append(user("free"), timeout=0)
        with session.turn("mine"):
            late = call("hold", path, "--timeout", "0.1", "--", *code, "0")
            assert late.exit_code == Exit.BUSY
            assert "doing mine" in late.stderr


def test_a_hold_inside_a_hold_is_part_of_it(path: Path) -> None:
    """The inner one takes no turn of its own, and ends none."""
    inner = [sys.executable, "-m", "cosession", "hold", str(path), "--"]
    append = [sys.executable, "-m", "cosession", "append", str(path), "deep"]
    done = run("hold", path, "--", *inner, *append)
    assert (done.returncode, done.stderr) == (0, b"")
    assert texts(path) == ["deep"]


def test_a_turn_is_joined_only_while_it_is_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is refused after its end, and means nothing to another session."""
    with BlockingSession(path) as session:
        with session.turn() as turn:
            monkeypatch.setenv(TURN_VARIABLE, turn.key)
            good("append", path, "in")
        late = call("append", path, "late")
        assert late.exit_code == Exit.CONFLICT
        assert TURN_VARIABLE in late.stderr
        assert session.holder is None
        with session.turn():
            assert call("append", path, "later").exit_code == Exit.CONFLICT
        good("append", path.with_name("other.jsonl"), "elsewhere")
        assert call("hold", path, "--", "true").exit_code == Exit.CONFLICT
    assert texts(path) == ["in"]


@pytest.mark.parametrize("kind", KINDS)
async def test_both_sessions_can_join_a_turn(path: Path, kind: Kind) -> None:
    """What they write is part of it; they take no turns, and are told when it is over."""
    with BlockingSession(path) as holder:
        async with opened(kind, path) as joined:
            assert not joined.session.join_turn(None)
            with holder.turn() as turn:
                turn.append(user("a"))
                assert joined.session.join_turn(turn.key)
                await joined.append(user("b"))
                await joined.call("checkpoint")
                turn.append(user("c"))
                with pytest.raises(TurnOver):
                    if kind == "async":
                        async with joined.session.turn():
                            pass
                    else:
                        with joined.session.turn():
                            pass
            with pytest.raises(TurnOver):
                await joined.append(user("late"))
            with pytest.raises(TurnOver):
                await joined.call("record_usage", 1)
    assert texts(path) == ["a", "b", "c"]


def test_a_command_whose_hold_was_killed_writes_until_the_turn_is_settled(
    path: Path, terminal: Start
) -> None:
    """Part of the turn up to then, nobody's message in between; refused from then on."""
    go = path.with_name("go")
    inside = [sys.executable, "-c", ASKED_TO_WRITE, str(path), str(go)]
    hold = terminal("hold", path, "--", *inside)
    hold.until("status 0\n")
    hold.process.kill()
    hold.process.wait(BOUND)
    result = call("append", path, "refused")
    assert result.exit_code == Exit.CONFLICT
    assert "cosession heal --turn keep" in result.stderr
    go.write_text("2")
    hold.until("status 0\nstatus 0\n")
    assert good("heal", "--turn", "keep", path).startswith("settled: kept the turn of process")
    good("append", path, "behind")
    go.write_text("3")
    hold.until("status 4\n")
    assert texts(path) == ["1", "2", "behind"]


ASKED_TO_WRITE = """
import subprocess, sys, time
done = ""
def write(text):
    command = [sys.executable, "-m", "cosession", "append", sys.argv[1], text]
    print("status", subprocess.run(command, stdout=subprocess.DEVNULL).returncode, flush=True)
write("1")
deadline = time.monotonic() + 60
while done != "3" and time.monotonic() < deadline:
    try: asked = open(sys.argv[2]).read()
    except OSError: asked = ""
    if asked and asked != done:
        write(asked)
        done = asked
    time.sleep(0.01)
"""


@posix
def test_signals_to_hold_end_the_command_and_then_the_turn(path: Path, terminal: Start) -> None:
    """SIGTERM is passed on; a signal that ends the command is told as shells tell it."""
    sleeps = [sys.executable, "-c", "print('on', flush=True); __import__('time').sleep(60)"]
    hold = terminal("hold", path, "--", *sleeps)
    hold.until("on\n")
    hold.process.send_signal(signal.SIGTERM)
    assert hold.end() == 128 + signal.SIGTERM
    with BlockingSession(path) as session:
        assert session.interrupted is None


@posix
def test_ctrl_c_in_hold_is_the_command_s(path: Path, terminal: Start) -> None:
    """It may do something about it and go on; `hold` waits for it, and has its status."""
    program = (
        "import signal, time, sys\n"
        "def stop(*_): print('cleaning up', flush=True); time.sleep(0.3); sys.exit(9)\n"
        "signal.signal(signal.SIGINT, stop); print('on', flush=True); time.sleep(60)"
    )
    hold = terminal("hold", path, "--", sys.executable, "-c", program, interruptible=True)
    hold.until("on\n")
    os.killpg(hold.process.pid, signal.SIGINT)  # as a terminal does it
    hold.until("cleaning up\n")
    assert hold.end() == 9
    with BlockingSession(path) as session:
        assert session.interrupted is None


# ---- heal --turn ----------------------------------------------------------------------------


def test_an_interrupted_turn_is_found_and_kept(path: Path) -> None:
    """`verify` and `heal` say so with status 1, `append` with what to do; a call gets a result."""
    dies_in_its_turn(path, user("a"), CALL)
    for command in ("verify", "heal"):
        result = call(command, path)
        assert result.exit_code == Exit.OFF
        assert "was interrupted" in result.stdout
        assert "--turn keep" in result.stdout
    assert call("heal", "--dry-run", path).exit_code == Exit.OFF
    result = call("append", path, "b")
    assert result.exit_code == Exit.CONFLICT
    assert "hint: nothing was changed: `cosession heal --turn keep" in result.stderr
    assert "was interrupted" in call("who", path).stderr
    assert good("heal", "--turn", "keep", path).startswith("settled: kept the turn of process")
    assert [message["role"] for message in history(path)] == [
        "user", "assistant", "tool", "tool",
    ]  # fmt: skip
    assert good("heal", "--turn", "keep", path) == "nothing to settle\n"
    assert call("verify", path).exit_code == 0


def test_an_interrupted_turn_is_rolled_back(path: Path) -> None:
    """To where it began, and the old file is kept."""
    good("append", path, "before")
    dies_in_its_turn(path, user("a"), CALL)
    said = good("heal", "--turn", "roll-back", path)
    assert said.startswith("settled: rolled back the turn of process")
    assert said.rstrip("\n").endswith("_1.jsonl")
    assert texts(path) == ["before"]
    assert call("verify", path).exit_code == 0


def test_a_turn_that_is_on_is_a_remark_and_no_obstacle_to_heal(path: Path) -> None:
    """`verify` mentions it, and `heal` settles what it can without waiting for its end."""
    with BlockingSession(path) as session, session.turn("thinking"):
        result = call("verify", path)
        assert result.exit_code == 0
        assert "note: it is the turn of" in result.stdout
        assert "thinking" in result.stdout
        assert good("heal", "--turn", "keep", "--timeout", "5", path) == "nothing to settle\n"
        assert session.holder is not None


def test_keeping_a_turn_that_a_child_still_writes_in_is_a_conflict(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that comes in while a stand-in for it is made: nothing is changed, call again."""
    dies_in_its_turn(path, user("a"), CALL)
    with BlockingSession(path) as session, BlockingSession(path) as child:
        turn = session.interrupted
        assert turn is not None
        child.join_turn(f"{turn.card.token}:{session.path}")
        closing = session._closing

        def slow(began: Any) -> Any:
            found = closing(began)
            child.append({"role": "tool", "tool_call_id": "call-1", "content": "42"})
            return found

        monkeypatch.setattr(session, "_closing", slow)
        with pytest.raises(Conflict):
            turn.keep()
        monkeypatch.undo()
        turn.keep()
    assert [message.get("tool_call_id") for message in history(path)[2:]] == ["call-1", "call-2"]
