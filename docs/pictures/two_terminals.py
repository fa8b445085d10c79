"""Takes the picture in the README: `uv run python docs/pictures/two_terminals.py [FILE]`.

tmux runs two real `cosession chat` side by side on one session, keys are sent to both, and what is
on their screens, with its colours, is drawn as `two-terminals.svg`. The agent's answers are written
down (agent.py), the rest happens. Needs tmux.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.cells import cell_len
from rich.color import blend_rgb
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent
PICTURE = HERE / "two-terminals.svg"
FILE = "release.jsonl"
COLUMNS, ROWS = 56, 28
PATIENCE = 60.0

CELL, LINE, SIZE = 8.4, 19, 14
"""Width and height of a character's cell, and the size of the type, in pixels."""
FONT = (
    'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
    f'font-size="{SIZE}"'
)
MARGIN, TITLE, GAP = 16, 40, 22

THEME = TerminalTheme(
    (22, 27, 34),
    (214, 222, 230),
    [(72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65),
     (121, 192, 255), (210, 168, 255), (86, 212, 221), (214, 222, 230)],
    [(110, 118, 129), (255, 161, 152), (126, 231, 135), (242, 204, 96),
     (165, 214, 255), (226, 197, 255), (127, 230, 237), (255, 255, 255)],
)  # fmt: skip


class Tmux:
    """A tmux server of our own, with two panes."""

    def __init__(self, folder: str) -> None:
        self._name = f"cosession-{os.getpid()}"
        self._folder = folder

    def __call__(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self._name, "-f", os.devnull, *arguments],  # noqa: S607 - on the path
            check=True,
            capture_output=True,
            encoding="utf-8",
            cwd=self._folder,
            env=os.environ | {"TERM": "xterm-256color", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"},
        ).stdout

    def begin(self, left: str, right: str) -> None:
        size = ["-x", str(2 * COLUMNS + 1), "-y", str(ROWS)]
        self("new-session", "-d", *size, left, ";", "set", "status", "off")
        self("split-window", "-h", "-l", str(COLUMNS), right)

    def enter(self, pane: int, *keys: str) -> None:
        self("send-keys", "-t", f":.{pane}", *keys)

    def lines(self, pane: int) -> list[str]:
        """What is on the screen, with its colours."""
        screen = self("capture-pane", "-e", "-p", "-t", f":.{pane}")
        # The machine's name is nobody's business, and another one each time.
        return screen.replace(f"@{socket.gethostname()}", "@laptop").splitlines()

    def cursor(self, pane: int) -> tuple[int, int]:
        found = self("display", "-p", "-t", f":.{pane}", "#{cursor_x} #{cursor_y}")
        column, row = found.split()
        return int(column), int(row)

    def wait_for(self, pane: int, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in Text.from_ansi("\n".join(self.lines(pane))).plain:
            if time.monotonic() > deadline:
                sys.exit(f"{text!r} did not appear:\n" + "\n".join(self.lines(pane)))
            time.sleep(0.05)


def play(tmux: Tmux) -> None:
    """Two people on one session, up to the moment of the picture."""
    agent = shlex.join([sys.executable, str(HERE / "agent.py")])
    chat = [sys.executable, "-m", "cosession", "chat", FILE, "--agent", agent, "--name"]
    tmux.begin(shlex.join([*chat, "ada"]), shlex.join([*chat, "bob"]))
    tmux.wait_for(0, "ada>")
    tmux.wait_for(1, "bob>")
    tmux.enter(1, "which test is red?", "Enter")
    tmux.wait_for(0, "wrote UTC")
    tmux.wait_for(1, "wrote UTC")
    tmux.enter(0, "fix that", "Enter")
    tmux.wait_for(1, "→ run")
    tmux.enter(1, "then tag 2.4.1", "Enter")
    tmux.wait_for(1, "waiting for ada")
    tmux.enter(1, "and tell the")
    tmux.wait_for(1, "and tell the")
    time.sleep(1)  # for both to draw their last line


# ---- drawing ------------------------------------------------------------------------------------


def drawing(windows: list[tuple[str, list[str], tuple[int, int]]]) -> str:
    """The SVG: windows of a title, lines and a cursor, side by side."""
    width = COLUMNS * CELL + 2 * MARGIN
    height = TITLE + ROWS * LINE + MARGIN
    canvas = f"{2 * width + GAP + 2:g} {height + 2}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {canvas}" {FONT}>',
        "<title>Two terminals in one session: ada has the turn, bob reads along and waits</title>",
    ]
    for number, (title, lines, cursor) in enumerate(windows):
        parts.append(f'<g transform="translate({number * (width + GAP) + 1:g} 1)">')
        parts += frame(title, width, height)
        parts.append(f'<g transform="translate({MARGIN} {TITLE})" xml:space="preserve">')
        parts += text(lines)
        parts.append(block(*cursor))
        parts.append("</g></g>")
    return "\n".join([*parts, "</svg>\n"])


def frame(title: str, width: float, height: float) -> Iterator[str]:
    paper, edge = THEME.background_color.hex, "#8b949e"
    yield f'<rect width="{width:g}" height="{height}" rx="9" fill="{paper}" stroke="{edge}"/>'
    for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        yield f'<circle cx="{MARGIN + 4 + number * 18}" cy="16" r="5.5" fill="{colour}"/>'
    yield (
        f'<text x="{width / 2 + 20:g}" y="21" text-anchor="middle" fill="#9da7b3" font-size="13">'
        f"{escape(title)}</text>"
    )


def text(lines: list[str]) -> Iterator[str]:
    console = Console(color_system="truecolor")
    for row, line in enumerate(lines):
        column = 0
        for segment in Text.from_ansi(line).render(console):
            wide = cell_len(segment.text)
            if segment.text.strip():
                start = len(segment.text) - len(segment.text.lstrip())
                said = segment.text.strip()
                yield (
                    f'<text x="{(column + start) * CELL:g}" y="{row * LINE + 15}" '
                    f'textLength="{cell_len(said) * CELL:g}"{look(segment.style or Style())}>'
                    f"{escape(said)}</text>"
                )
            column += wide


def look(style: Style) -> str:
    colour = THEME.foreground_color
    if style.color is not None and not style.color.is_default:
        colour = style.color.get_truecolor(THEME)
    if style.dim:
        colour = blend_rgb(colour, THEME.background_color, 0.38)
    bold = ' font-weight="600"' if style.bold else ""
    italic = ' font-style="italic"' if style.italic else ""
    return f' fill="{colour.hex}"{bold}{italic}'


def block(column: int, row: int) -> str:
    return (
        f'<rect x="{column * CELL:g}" y="{row * LINE + 2}" width="{CELL}" height="{LINE - 2}" '
        f'fill="{THEME.foreground_color.hex}" opacity=".75"/>'
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tmux = Tmux(folder)
        try:
            play(tmux)
            windows = [
                (f"cosession chat {FILE} --name {name}", tmux.lines(pane), tmux.cursor(pane))
                for pane, name in enumerate(("ada", "bob"))
            ]
        finally:
            tmux("kill-server")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    picture.write_text(drawing(windows), encoding="utf-8", newline="\n")
    print(f"{picture} is taken")


if __name__ == "__main__":
    main()
