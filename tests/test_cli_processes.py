"""The command as a process: pipes, terminals, signals, encodings, several at once."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cosession import BlockingSession
from cosession.cli.exits import Exit
from cosession.lock import LockFile

COMMAND = [sys.executable, "-m", "cosession"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and terminals")


def run(*arguments: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end."""
    given = [os.fsdecode(argument) for argument in arguments]
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*COMMAND, *given],
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes with pipes; none of them outlives the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            arguments, **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **options}
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait(timeout=30)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a session, gewöhnlich.jsonl"


def test_several_processes_share_a_session(path: Path, start: Start) -> None:
    """Started at once, each appends its messages in one piece, and every piece is there."""
    batches = {
        name: b"".join(
            json.dumps({"role": "user", "content": f"{name}{number}" * 50}).encode() + b"\n"
            for number in range(200)
        )
        for name in "abc"
    }
    running = [start(*COMMAND, "append", "--json", str(path)) for _ in batches]
    for process, data in zip(running, batches.values(), strict=True):
        assert process.stdin is not None
        process.stdin.write(data)
    revisions = set()
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        revisions.add(out)
    assert len(revisions) == 3
    with BlockingSession(path, read_only=True) as session:
        order = [str(message.content)[0] for message in session.history]
    assert len(order) == 600
    assert [order[at] * 200 for at in (0, 200, 400)] == [
        "".join(order[at : at + 200]) for at in (0, 200, 400)
    ]


def test_the_reader_of_the_output_may_go_away(path: Path, start: Start) -> None:
    """`show | head`: quiet, with the status that a program has whom the closed pipe kills."""
    line = b'{"role": "user", "content": "' + b"x" * 1000 + b'"}\n'
    path.write_bytes(line * 3000)
    process = start(*COMMAND, "show", str(path))
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"user"
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (Exit.OUTPUT_CLOSED, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_output_that_can_t_be_written_is_an_error(path: Path) -> None:
    """A full disk behind standard output: status 5 and one line, no traceback."""
    path.write_bytes(b'{"role": "user", "content": "hi"}\n')
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "show", str(path)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == Exit.STORAGE
    assert done.stderr.rstrip() == b"cosession: No space left on device"


def test_a_console_without_unicode_is_no_reason_to_crash(path: Path) -> None:
    """In cp1252 what it lacks is replaced, and signs become ASCII; JSON stays UTF-8."""
    message = {"role": "assistant", "content": "Grüße 你好 \U0001f600", "tool_calls": [{"id": "1"}]}
    path.write_bytes(json.dumps(message).encode() + b"\n{torn\n")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = run("show", path, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("cp1252")
    assert "  Grüße ?? ?\n" in text.replace("\r\n", "\n")
    assert "-> " in text
    assert "x damaged line" in text
    done = run("show", "--json", path, env=environment)
    assert done.stdout.splitlines()[0].endswith(
        json.dumps(message, ensure_ascii=False).encode() + b"}"
    )
    # And an error about a file that the console can't even name.
    done = run("show", path.with_name("你好.jsonl"), env=environment)
    assert done.returncode == Exit.NO_SESSION
    assert b"??.jsonl" in done.stderr


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux has file names of any bytes"
)
def test_a_file_name_of_any_bytes_works(tmp_path: Path) -> None:
    """A name that is no text in any encoding: the path that `clear` prints is the file's."""
    name = os.fsencode(tmp_path) + b"/caf\xe9 \xff.jsonl"
    assert run("append", name, "hi").returncode == 0
    done = run("clear", name)
    assert done.returncode == 0
    assert done.stdout == os.fsencode(tmp_path) + b"/caf\xe9 \xff_1.jsonl\n"
    assert os.path.exists(done.stdout[:-1])


@posix
def test_ctrl_c_ends_the_wait_for_somebody_else(path: Path, start: Start) -> None:
    """It says for whom it waits, and Ctrl-C ends it at once: status 130, nothing written."""
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "hi"})
    before = path.read_bytes()
    lock = LockFile(f"{path}.lock", beside=str(path))
    assert lock.try_acquire()
    # Started by a shell in the background, this process may ignore the signal, and so would its
    # child: it takes Python's usual handler first.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cosession.cli import main; main()"
    )
    process = start(sys.executable, "-c", program, "append", str(path), "never")
    try:
        assert process.stderr is not None
        notice = read_until(process.stderr.fileno(), b"(Ctrl-C gives up)\n").decode()
        if sys.platform.startswith("linux"):
            assert f"waiting for process {os.getpid()}" in notice
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - began < 10
        assert (process.returncode, out, err) == (Exit.INTERRUPTED, b"", b"")
    finally:
        lock.close()
    assert path.read_bytes() == before


def read_until(fd: int, wanted: bytes | None, seconds: float = 60) -> bytes:
    """What a pipe or terminal says up to (at least) the wanted bytes, or to its end."""
    said, deadline = b"", time.monotonic() + seconds
    while wanted is None or wanted not in said:
        ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"waited {seconds} s for {wanted!r}; got {said!r}"
        try:
            piece = os.read(fd, 65536)
        except OSError:  # Linux: nobody has the terminal open any more
            piece = b""
        if not piece:
            assert wanted is None, f"ended before {wanted!r}; got {said!r}"
            break
        said += piece
    return said


def on_a_terminal(start: Start, arguments: list[str], **environment: str) -> tuple[int, str]:
    """Run the command on a terminal of its own: its status and all that appeared there."""
    import pty

    master, slave = pty.openpty()
    inherited = {key: os.environ[key] for key in os.environ if not key.endswith("_COLOR")}
    process = start(
        *COMMAND,
        *arguments,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**inherited, "TERM": "xterm-256color", "COLUMNS": "60", **environment},
    )
    os.close(slave)
    try:
        said = read_until(master, None)
        return process.wait(timeout=30), said.decode().replace("\r\n", "\n")
    finally:
        os.close(master)


@posix
def test_a_terminal_gets_colours_and_a_pager(path: Path, start: Start) -> None:
    """The conversation goes through $PAGER, in colours; with NO_COLOR without; or not paged."""
    path.write_bytes(b'{"role": "user", "content": "' + b"word " * 20 + b'"}\n')
    pager = path.with_name("pager")
    pager.write_text("#!/bin/sh\nsed 's/^/paged: /'\n")
    pager.chmod(0o755)
    code, text = on_a_terminal(start, ["show", str(path)], PAGER=str(pager))
    assert code == 0
    assert text.startswith("paged: \x1b[1;32muser\x1b[0m\npaged:   word word")
    assert max(len(line) for line in text.splitlines()[1:]) <= 60 + len("paged: ")

    arguments = ["show", "--no-pager", str(path)]
    code, text = on_a_terminal(start, arguments, PAGER=str(pager), NO_COLOR="1")
    assert (code, text) == (0, "user\n  " + ("word " * 20).strip() + "\n")


@posix
def test_the_shells_take_the_completion(tmp_path: Path) -> None:
    """What bash is given to source defines a completion for the command."""
    environment = {**os.environ, "_COSESSION_COMPLETE": "bash_source"}
    done = run(env=environment)
    assert done.returncode == 0
    assert b"complete -o nosort -F _cosession_completion cosession" in done.stdout
