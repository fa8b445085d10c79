"""`cosession show`: what people and programs get to see of a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cosession.cli.app import app
from cosession.cli.output import printable


def show(path: Path, *arguments: str, **environment: str) -> Result:
    """Run `cosession show` without a terminal."""
    return CliRunner().invoke(app, ["show", str(path), *arguments], env=environment)


def shown(path: Path, *arguments: str) -> str:
    """What it prints."""
    result = show(path, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def write(path: Path, *records: dict[str, Any] | bytes) -> None:
    """A session as another program leaves it."""
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "context.jsonl"


CALL = {
    "type": "function",
    "id": "c1",
    "function": {"name": "read_file", "arguments": '{"path": "a.txt", "lines": [1, 2]}'},
}


def test_a_conversation_reads_like_one(path: Path) -> None:
    """Roles, text, calls with short arguments, results under the tool's name, marks in between."""
    write(
        path,
        {"role": "_system_prompt", "content": "Be kind."},
        {"role": "_checkpoint", "id": 0},
        {"role": "user", "content": "What is in a.txt?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "one\ntwo"},
        {"role": "assistant", "content": "Two lines:\n\n    one\n    two"},
        {"role": "_usage", "token_count": 12345},
    )
    assert shown(path) == (
        "· system prompt (8 characters)\n"
        "  Be kind.\n"
        "· checkpoint 0\n"
        "\n"
        "user\n"
        "  What is in a.txt?\n"
        "\n"
        "assistant\n"
        '  → read_file(path="a.txt", lines=[1, 2])\n'
        "\n"
        "tool read_file\n"
        "  one\n"
        "  two\n"
        "\n"
        "assistant\n"
        "  Two lines:\n"
        "\n"
        "      one\n"
        "      two\n"
        "\n"
        "· 12,345 tokens\n"
    )


def test_parts_of_all_sorts_are_shown(path: Path) -> None:
    """The parts of kimi-cli, OpenAI and Anthropic; what nobody knows is shown as JSON."""
    write(
        path,
        {
            "role": "assistant",
            "name": "Ann",
            "content": [
                {"type": "think", "think": "Hm.", "encrypted": None},
                {"type": "thinking", "thinking": "Hm, hm."},
                {"type": "text", "text": "Look:"},
                {"type": "output_text", "text": "There."},
                {"type": "refusal", "refusal": "No."},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "input_audio", "input_audio": {"format": "wav"}},
                {"type": "tool_use", "id": "t", "name": "Shell", "input": {"command": "ls"}},
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text"}]},
                "bare",
                {"no": "type"},
                None,
            ],
        },
    )
    assert shown(path) == (
        "assistant Ann\n"
        "  Hm.\n"
        "  Hm, hm.\n"
        "  Look:\n"
        "  There.\n"
        "  No.\n"
        "  [image_url] image/png;base64, 26 characters\n"
        "  [image_url] https://example.org/a.png\n"
        '  [input_audio] {"input_audio": {"format": "wav"}}\n'
        '  → Shell(command="ls")\n'
        "  [text] {}\n"
        "  bare\n"
        '  {"no": "type"}\n'
    )


@pytest.mark.parametrize(
    "call",
    [
        None,
        "text",
        {},
        {"id": 3, "function": None},
        {"id": "x", "function": {"name": "f", "arguments": "{not json"}},
        {"id": "x", "function": {"name": "f", "arguments": "[" * 5000}},
        {"id": "x", "function": {"name": 7, "arguments": {}}},
    ],
)
def test_odd_tool_calls_do_no_harm(path: Path, call: object) -> None:
    """Whatever stands in `tool_calls`, the rest is shown."""
    write(path, {"role": "assistant", "tool_calls": [call], "content": "after"})
    for arguments in ([], ["--full"]):
        text = shown(path, *arguments)
        assert text.startswith("assistant\n  after\n")
        assert "→ " in text


def test_long_results_are_folded_and_unfolded(path: Path) -> None:
    """Folded they say how much there is more; `--full` shows everything, arguments included."""
    long = "\n".join(f"line {number}" for number in range(100))
    write(
        path,
        {"role": "_system_prompt", "content": long},
        {"role": "user", "content": long},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "custom": {"a": 1}},
        {"role": "tool", "tool_call_id": "c1", "content": long},
    )
    folded, full = shown(path), shown(path, "--full")
    assert folded.count("line 99") == 1
    assert full.count("line 99") == 3
    assert f"  line 2 … {len(long) - 20} more characters\n" in folded
    assert "custom" not in folded
    assert '  custom: {"a": 1}\n' in full
    assert '  → read_file\n    {\n      "path": "a.txt",\n' in full


def test_damaged_and_unknown_lines_are_marked(path: Path) -> None:
    """A damaged line is shown where it stands, with its offset and reason."""
    write(path, {"role": "user", "content": "hi"}, b"{torn", {"kind": "x"}, b"")
    text = shown(path)
    assert "✗ damaged line at offset 34, 5 bytes: not JSON" in text
    assert "  {torn\n" in text
    assert "another program's record\n" in text


def test_a_last_line_without_a_newline_is_shown(path: Path) -> None:
    """Other programs' files may lack the last newline; half a line is marked as unfinished."""
    path.write_bytes(b'{"role": "user", "content": "hi"}')
    assert shown(path) == "user\n  hi\n"
    path.write_bytes(b'{"role": "user", "cont')
    assert "✗ unfinished line at offset 0" in shown(path)


def test_an_unfinished_write_is_not_shown_but_told(path: Path) -> None:
    """What readers must not see yet isn't printed; standard error says that it is there."""
    from dataclasses import replace

    from cosession import BlockingSession
    from cosession.header import Appending, Span
    from cosession.lock import LockFile

    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "seen"})
    line = b'{"role": "user", "content": "unseen"}\n'
    lock = LockFile(f"{path}.lock", beside=str(path))
    assert lock.try_acquire()
    header = lock.read()
    assert header is not None
    intent = Appending(header.committed, (Span.of(line), Span.of(line)))
    lock.announce(replace(header, intent=intent), "append", durable=False)
    lock.close()
    with path.open("ab") as file:
        file.write(line)
    result = show(path)
    assert (result.exit_code, result.stdout) == (0, "user\n  seen\n")
    assert f"{len(line)} bytes of an unfinished write are not shown" in result.stderr
    assert "unseen" not in show(path, "--json").stdout


def test_only_the_last_messages(path: Path) -> None:
    """`--last` counts messages, and shows the marks between and behind them."""
    records: list[dict[str, Any]] = []
    for number in range(5):
        records += [
            {"role": "user", "content": f"message {number}"},
            {"role": "_checkpoint", "id": number},
        ]
    write(path, *records)
    assert shown(path, "--last", "2") == (
        "user\n  message 3\n\n· checkpoint 3\n\nuser\n  message 4\n\n· checkpoint 4\n"
    )
    assert shown(path, "--last", "99").count("message") == 5


def test_json_is_one_object_for_each_line(path: Path) -> None:
    """Each has its offset, and the record as it is; damage has its reason and its text."""
    write(
        path,
        {"role": "user", "content": "你好"},
        b"{torn \xff",
        {"role": "_usage", "token_count": 3},
    )
    result = show(path, "--json")
    lines = [json.loads(line) for line in result.stdout_bytes.decode().splitlines()]
    assert lines == [
        {"offset": 0, "kind": "message", "record": {"role": "user", "content": "你好"}},
        {
            "offset": 44,
            "kind": "damaged",
            "reason": "not UTF-8 at its byte 6",
            "raw": "{torn \\xff",
        },
        {"offset": 52, "kind": "usage", "record": {"role": "_usage", "token_count": 3}},
    ]
    assert "你好" in result.stdout_bytes.decode()


def test_json_stays_json_whatever_is_in_the_file(path: Path) -> None:
    """Lone surrogates, NaN and deep nesting don't break a program that reads it strictly."""
    deep = b'{"role": "user", "content": [' + b"[" * 900 + b"]" * 900 + b"]}"
    write(path, {"role": "user", "content": "\ud800"}, b'{"role": "user", "x": NaN}', deep, b"")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in show(path, "--json").stdout_bytes.splitlines():
        entry = json.loads(line.decode(), parse_constant=refuse)
        assert ("record" in entry) != ("raw" in entry)


def test_nothing_in_a_message_drives_the_terminal(path: Path) -> None:
    """Escape sequences, C1 controls and text direction marks are written out."""
    evil = "a\x1b[2J\x07b\x9b31mc\u202ed\ud800\r\n\ttab"
    write(path, {"role": f"us\x1ber{evil}", "name": evil, "content": evil, "k\x1bey": evil})
    for arguments in ([], ["--full"]):
        text = shown(path, *arguments)
        assert all(ord(c) >= 32 or c in "\n\t" for c in text)
        assert not set(text) & set("\x7f\x9b\u202e\ud800")
        assert "\\x1b[2J\\x07b\\x9b31mc\\u202ed\\ud800" in text


def test_printable_leaves_what_people_write() -> None:
    """Text of all scripts, newlines and tabs stay as they are."""
    text = "Grüße, 你好, עברית, \U0001f600\n\tindented"
    assert printable(text) == text


def test_an_empty_session_says_that_it_is_empty(path: Path) -> None:
    """On standard error, so that standard output stays what it is."""
    path.touch()
    result = show(path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is in it yet" in result.stderr


def test_colours_on_request(path: Path) -> None:
    """FORCE_COLOR colours even a pipe, and then wraps with the indentation; NO_COLOR wins."""
    write(path, {"role": "user", "content": "word " * 40})
    coloured = show(path, FORCE_COLOR="1", COLUMNS="40", TERM="xterm-256color").stdout
    assert coloured.startswith("\x1b[1;32muser\x1b[0m\n  word word")
    assert max(map(len, coloured.splitlines()[1:])) <= 40
    assert all(line.startswith("  word") for line in coloured.splitlines()[1:])
    assert "\x1b" not in show(path, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b" not in show(path).stdout


def test_a_rotated_file_is_shown(path: Path) -> None:
    """It has no lock file, gets none, and reads like any other."""
    from cosession import BlockingSession

    with BlockingSession(path) as session:
        session.append({"role": "user", "content": "old"})
        rotated = session.clear()
    assert rotated is not None
    before = sorted(path.parent.iterdir())
    assert shown(rotated) == "user\n  old\n"
    assert sorted(path.parent.iterdir()) == before
