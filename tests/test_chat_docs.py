"""What docs/chat.md says of agents is so."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from chat.support import command_line, messages, talk

FILE = Path(__file__).parent.parent / "docs" / "chat.md"
PAGE = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
pytestmark = pytest.mark.skipif(not PAGE, reason="docs/ is not beside the tests")


def program(language: str) -> str:
    """The one example in that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert isinstance(found, str)
    return found


def test_the_agent_in_python_answers_and_sums_up(tmp_path: Path) -> None:
    """The page's example calls a tool, answers, and is of use for `/compact`."""
    (tmp_path / "agent.py").write_text(program("python"), encoding="utf-8")
    agent = command_line([sys.executable, str(tmp_path / "agent.py")])
    path = tmp_path / "notes.jsonl"
    done = talk(path, "how long?\n", "--agent", agent)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [message["role"] for message in messages(path)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages(path)[-1]["content"] == "Your question has 9 characters."
    assert talk(path, "/compact\n", "--agent", agent).exit_code == 0
    assert messages(path)[0]["content"].endswith("4 messages, of no importance")


@pytest.mark.skipif(sys.platform == "win32", reason="the example is for a POSIX shell")
def test_the_agent_in_shell_answers(tmp_path: Path) -> None:
    """The page's example reads the conversation, and its two lines are one message."""
    (tmp_path / "agent.sh").write_text(program("sh"), encoding="utf-8")
    agent = command_line(["sh", str(tmp_path / "agent.sh")])
    path = tmp_path / "notes.jsonl"
    done = talk(path, "hello\n", "--agent", agent)
    assert (done.exit_code, done.stderr) == (0, "")
    said = messages(path)[-1]["content"].split("\n")
    assert said[0] == "I have read 1 messages."
    assert len(said) == 2
