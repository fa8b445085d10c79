"""Several processes on one session: nothing lost, nothing torn, one order, and a lock that ends.

Four processes append 300 operations each while a fifth checkpoints and reverts 30 times and a
sixth reads along without a lock.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import portalocker
import pytest

from cosession import BlockingSession, LockTimeout
from crash import contender

HERE = Path(__file__).parent
APPENDS, REVERTS = 300, 30
PATIENCE = 60.0

forks = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
stops = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP on Windows")

Role = tuple[str, str, int]


def contend(path: Path, roles: list[Role], *, forked: bool = False) -> dict[str, Any]:
    """Let everybody go at once, and the readers end when the others have; what each was told."""
    groups: list[list[Role]] = [roles] if forked else [[role] for role in roles]
    started = [(group, start(path, group)) for group in groups]
    try:
        for _, child in started:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"ready"
        for _, child in started:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
        if forked:
            wait_for(path, [name for role, name, _ in roles if role != "follow"])
        for group, child in started:
            if group[0][0] != "follow" and not forked:
                assert child.wait(timeout=PATIENCE) == 0
        path.with_name(f"{path.name}.stop").touch()
        for _, child in started:
            assert child.wait(timeout=PATIENCE) == 0
    finally:
        for _, child in started:
            child.kill()
            child.communicate(timeout=PATIENCE)
    return {name: told(path, name) for _, name, _ in roles}


def start(path: Path, roles: list[Role]) -> subprocess.Popen[bytes]:
    words = [word for role, name, count in roles for word in (role, str(path), name, str(count))]
    return subprocess.Popen(
        [sys.executable, "-m", "crash.contender", *words],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_for(path: Path, names: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not all(path.with_name(f"{path.name}.{name}.told").exists() for name in names):
        assert time.monotonic() < deadline, "the children do not end"
        time.sleep(0.01)


def told(path: Path, name: str) -> Any:
    return json.loads(path.with_name(f"{path.name}.{name}.told").read_text())


def files(path: Path) -> list[Path]:
    """The live file and the rotated ones."""
    rotated = [f for f in path.parent.iterdir() if re.fullmatch(r"context_\d+\.jsonl", f.name)]
    return [path, *sorted(rotated)]


def missing(path: Path, acknowledged: list[str]) -> list[str]:
    """Acknowledged messages that are in no file."""
    everything = b"".join(file.read_bytes() for file in files(path))
    return [text for text in acknowledged if f'"{text}"'.encode() not in everything]


def check(path: Path, results: dict[str, Any]) -> None:
    """Everything that is promised about what is on the disk afterwards."""
    acknowledged = [text for texts in results.values() for text in texts if isinstance(text, str)]
    assert len(acknowledged) > APPENDS
    assert missing(path, acknowledged) == []
    for file in files(path):
        content = file.read_bytes()
        assert content == b"" or content.endswith(b"\n"), file
        records = [json.loads(line) for line in content.splitlines()]
        ids = [record["id"] for record in records if record["role"] == "_checkpoint"]
        assert len(ids) == len(set(ids)), (file, ids)
        seen = [record["content"] for record in records if record["role"] == "user"]
        assert contender.disorder(seen) == [], file
        assert len(seen) == len(set(seen)), file
        assert file.stat().st_nlink == 1
    leftovers = [file.name for file in path.parent.iterdir() if file.name.endswith(".tmp")]
    assert leftovers == []
    with BlockingSession(path) as session:
        assert session.repairs == ()
        assert session.damage == ()


def appenders(kinds: str) -> list[Role]:
    names = {"b": "append-blocking", "a": "append-async"}
    return [(names[kind], f"p{number}", APPENDS) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("kinds", "reverter", "forked"),
    [
        ("abab", "revert-async", False),
        pytest.param("bbbb", "revert-blocking", False, marks=pytest.mark.deep),
        pytest.param("aaaa", "revert-async", False, marks=pytest.mark.deep),
        pytest.param("abab", "revert-blocking", True, marks=forks),
    ],
)
def test_four_processes_append_while_one_reverts(
    tmp_path: Path, kinds: str, reverter: str, forked: bool
) -> None:
    """Every acknowledged message is in the live or a rotated file; no reader sees half of one."""
    path = tmp_path / "context.jsonl"
    path.touch()
    roles = [*appenders(kinds), (reverter, "reverter", REVERTS), ("follow", "reader", 0)]
    results = contend(path, roles, forked=forked)
    looks, *wrong = results.pop("reader")
    assert wrong == []
    assert int(looks.split()[1]) >= 3
    made = results.pop("reverter")
    assert len(made) == REVERTS
    check(path, results)
    assert len(files(path)) == 1 + REVERTS


def test_the_same_without_locks_loses_messages(tmp_path: Path) -> None:
    """The pattern of today's programs, in the same harness: the check is able to fail."""
    path = tmp_path / "context.jsonl"
    path.touch()
    roles: list[Role] = [("append-unlocked", f"p{number}", APPENDS) for number in range(4)]
    results = contend(path, [*roles, ("revert-unlocked", "reverter", REVERTS)])
    del results["reverter"]
    assert missing(path, [text for texts in results.values() for text in texts])
    with pytest.raises(AssertionError):
        check(path, results)


def test_handles_threads_and_event_loops_of_one_process(tmp_path: Path) -> None:
    """Blocking sessions and event loops in threads of one process exclude each other as well."""
    path = tmp_path / "context.jsonl"
    results: dict[str, Any] = {}

    def play(role: str, name: str, count: int) -> None:
        results[name] = contender.ROLES[role](str(path), name, count)

    roles = [*((role, name, 150) for role, name, _ in appenders("abab")),
             ("revert-async", "reverter", 10)]  # fmt: skip
    threads = [threading.Thread(target=play, args=role, daemon=True) for role in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()
    assert len(results.pop("reverter")) == 10
    check(path, results)


def test_a_follower_is_not_misled_when_the_file_is_replaced_twice(tmp_path: Path) -> None:
    """Another program replaces the file twice; who only reads never mixes the two contents."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as writer:
        writer.append({"role": "user", "content": "ours"})
        with BlockingSession(path, read_only=True) as reader:
            for text in ("first", "other"):
                new = tmp_path / "new"
                new.write_text(f'{{"role": "user", "content": "{text}"}}\n')
                os.replace(new, path)
                reader.refresh()
                assert [message.content for message in reader.history] == [text]
            writer.append({"role": "user", "content": "more"})
            reader.refresh()
            assert [message.content for message in reader.history] == ["other", "more"]


# ---- other people's locks ------------------------------------------------------------------------


def test_filelock_on_our_lock_file_shuts_us_out(tmp_path: Path) -> None:
    """A script can take `filelock.FileLock(path + ".lock")`, and hand it back."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        with filelock.FileLock(f"{path}.lock"):
            with pytest.raises(LockTimeout) as caught:
                session.append({"role": "user", "content": "1"}, timeout=0)
            assert caught.value.waited < 1
        session.append({"role": "user", "content": "2"}, timeout=10)
        assert [message.content for message in session.history] == ["2"]


def test_we_shut_filelock_out(tmp_path: Path) -> None:
    """While we are in a commit, `FileLock` waits, and gets the lock afterwards."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        assert session._store.lock.try_acquire()
        try:
            with pytest.raises(filelock.Timeout):
                filelock.FileLock(f"{path}.lock").acquire(timeout=0.05)
        finally:
            session._store.lock.release()
        with filelock.FileLock(f"{path}.lock", timeout=10):
            pass


@stops
def test_portalocker_and_we_shut_each_other_out(tmp_path: Path) -> None:
    """`portalocker` takes the same kernel lock on POSIX."""
    path = tmp_path / "context.jsonl"
    flags = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
    with BlockingSession(path) as session, open(f"{path}.lock", "r+b") as file:
        portalocker.lock(file, flags)
        with pytest.raises(LockTimeout):
            session.append({"role": "user", "content": "1"}, timeout=0)
        portalocker.unlock(file)
        assert session._store.lock.try_acquire()
        try:
            with pytest.raises(portalocker.exceptions.LockException):
                portalocker.lock(file, flags)
        finally:
            session._store.lock.release()
        session.append({"role": "user", "content": "2"}, timeout=10)


# ---- a process that stands still in the middle of a commit --------------------------------------

_STOPS_IN_COMMIT = """
import os, signal, sys
from cosession import BlockingSession, files
session = BlockingSession(sys.argv[1]); session.open()
real = files.write_all
def stop(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)
    real(*arguments)
files.write_all = stop
session.append({"role": "user", "content": "from the one that stood still"})
session.close()
"""


@contextmanager
def stopped_in_commit(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that has announced an append, and stands still before it writes."""
    child = subprocess.Popen([sys.executable, "-c", _STOPS_IN_COMMIT, str(path)])
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, "the child does not stop"
            pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                break
            assert not pid, f"the child ended with {status}"
            time.sleep(0.005)
        yield child
    finally:
        child.kill()
        child.wait(timeout=PATIENCE)


@stops
def test_a_timeout_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    """Whoever waits in vain is told who is in the way, and what it is doing."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, stopped_in_commit(path) as child:
        for timeout in (0, 0.05):
            began = time.monotonic()
            with pytest.raises(LockTimeout) as caught:
                session.append({"role": "user", "content": "mine"}, timeout=timeout)
            assert time.monotonic() - began < 5
            holder = caught.value.holder
            assert holder is not None
            assert holder.pid == child.pid
            assert holder.operation == "append"
            assert f"process {child.pid}" in str(caught.value)


@stops
def test_a_reader_does_not_wait_for_the_one_that_stands_still(tmp_path: Path) -> None:
    """Opening and refreshing show what is committed while somebody is in a commit."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "before"})
        with stopped_in_commit(path):
            session.refresh()
            with BlockingSession(path) as another, BlockingSession(path, read_only=True) as reader:
                for one in (session, another, reader):
                    assert [message.content for message in one.history] == ["before"]


@stops
def test_a_waiter_is_woken_when_the_holder_goes_on(tmp_path: Path) -> None:
    """No polling: the append that waited is done as soon as the holder has unlocked."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, stopped_in_commit(path) as child:
        waiter = threading.Thread(
            target=session.append, args=({"role": "user", "content": "waited"},), daemon=True
        )
        waiter.start()
        waiter.join(timeout=0.1)
        assert waiter.is_alive()
        os.kill(child.pid, signal.SIGCONT)
        waiter.join(timeout=5)
        assert not waiter.is_alive()
        assert child.wait(timeout=PATIENCE) == 0
        expected = ["from the one that stood still", "waited"]
        assert [message.content for message in session.history] == expected


@stops
def test_a_waiter_that_gave_up_hands_the_lock_back(tmp_path: Path) -> None:
    """After a timeout nothing of it is written, and the lock is free for others."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session:
        with stopped_in_commit(path) as child:
            with pytest.raises(LockTimeout):
                session.append({"role": "user", "content": "withdrawn"}, timeout=0.05)
            os.kill(child.pid, signal.SIGCONT)
            assert child.wait(timeout=PATIENCE) == 0
        with filelock.FileLock(f"{path}.lock", timeout=10):
            assert b"withdrawn" not in path.read_bytes()
        session.append({"role": "user", "content": "next"}, timeout=10)
        expected = ["from the one that stood still", "next"]
        assert [message.content for message in session.history] == expected


@stops
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    """The kernel's lock dies with its holder, and its announcement is settled by the next one."""
    path = tmp_path / "context.jsonl"
    with BlockingSession(path) as session, stopped_in_commit(path) as child:
        waiter = threading.Thread(
            target=session.append, args=({"role": "user", "content": "waited"},), daemon=True
        )
        waiter.start()
        waiter.join(timeout=0.05)
        child.kill()
        waiter.join(timeout=5)
        assert not waiter.is_alive()
        assert [message.content for message in session.history] == ["waited"]
        assert path.read_bytes().count(b"\n") == 1
