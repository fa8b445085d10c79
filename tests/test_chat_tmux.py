"""Two chats in two panes of tmux, driven by its keys and read from its screens."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chat.support import COMMAND, contents, wait_until

TMUX = shutil.which("tmux")
pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
pytest.importorskip("prompt_toolkit", reason="the line editor is prompt_toolkit's")

Tmux = Callable[..., str]


PICTURES = Path(__file__).parent.parent / "docs" / "pictures"


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux server of the test's own."""

    def tmux(*arguments: str) -> str:
        assert TMUX is not None
        command = [TMUX, "-S", str(tmp_path / "socket"), "-f", os.devnull, *arguments]
        environment = os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", timeout=60, env=environment
        ).stdout

    yield tmux
    tmux("kill-server")


def test_two_chats_in_tmux_show_each_others_lines(tmux: Tmux, tmp_path: Path) -> None:
    """What is asked in one pane is answered in both, above what is half typed in the other."""
    path = tmp_path / "context.jsonl"

    def chat(name: str) -> str:
        return shlex.join([*COMMAND, str(path), "--agent", "echo:0.5", "--name", name])

    def screen(pane: int) -> str:
        return tmux("capture-pane", "-p", "-t", f":.{pane}").rstrip()

    def sees(pane: int, text: str) -> bool:
        return text in screen(pane)

    tmux("new-session", "-d", "-x", "161", "-y", "50", chat("ada"))
    tmux("split-window", "-h", chat("bob"))
    for pane, name in enumerate(("ada", "bob")):
        wait_until(partial(sees, pane, f"{name}>"), f"{name} has a prompt")
    tmux("send-keys", "-t", ":.1", "half a thought")
    tmux("send-keys", "-t", ":.0", "what is 6 x 7?", "Enter")
    for pane in (0, 1):
        answer = "You said: what is 6 x 7?"
        wait_until(partial(sees, pane, answer), f"pane {pane} shows the answer")
    wait_until(lambda: screen(1).endswith("\nbob> half a thought"), "bob's line has survived")
    tmux("send-keys", "-t", ":.1", ", finished", "Enter")
    answer = "You said: half a thought, finished"
    wait_until(partial(sees, 0, answer), "ada sees bob's answer")
    assert contents(path)[2:] == ["half a thought, finished", answer]


@pytest.mark.deep
@pytest.mark.skipif(not PICTURES.exists(), reason="docs/ is not beside the tests")
def test_the_picture_in_the_readme_is_what_happens(tmp_path: Path) -> None:
    """Its script takes one like it, and neither needs anything from outside."""
    taken = tmp_path / "taken.svg"
    script = PICTURES / "two_terminals.py"
    subprocess.run([sys.executable, str(script), str(taken)], check=True, timeout=300)
    for picture in (taken, PICTURES / "two-terminals.svg"):
        texts = ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")
        words = " ".join(text.text or "" for text in texts)
        assert words.count("where it wrote UTC.") == 2
        assert "the agent answers" in words
        assert "waiting for ada@laptop (answering fix that" in words
        assert words.endswith("bob> and tell the")
        assert picture.read_text(encoding="utf-8").count("//") == 1  # the name space
