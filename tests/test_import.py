"""What importing the package costs: no library that it doesn't need, no thread, no file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("aiofiles", "click", "filelock", "portalocker", "pydantic", "rich")

PROGRAM = """\
import sys
before = set(sys.modules)
{statements}
import json, threading
loaded = sorted({{name.partition(".")[0] for name in set(sys.modules) - before}})
ours = sorted(name for name in sys.modules if name.startswith("cosession"))
print(json.dumps({{"loaded": loaded, "ours": ours, "threads": threading.active_count()}}))
"""


def loaded_by(statements: str) -> dict[str, object]:
    """What a fresh interpreter has loaded, and how many threads it runs, after the statements."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statements=statements)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_importing_the_package_loads_no_dependency_and_starts_no_thread() -> None:
    """`import cosession` loads nothing but the standard library, and starts nothing."""
    found = loaded_by("import cosession; cosession.Session; cosession.BlockingSession")
    loaded, ours = found["loaded"], found["ours"]
    assert isinstance(loaded, list)
    assert isinstance(ours, list)
    assert "cosession" in loaded
    assert set(loaded).isdisjoint(HEAVY)
    assert not any(name.startswith(("cosession.cli", "cosession.messages")) for name in ours)
    assert found["threads"] == 1


def test_a_blocking_session_loads_no_asyncio() -> None:
    """A script, or a command, that blocks is not made to wait for an event loop's modules."""
    found = loaded_by("from cosession import BlockingSession")
    assert isinstance(found["loaded"], list)
    assert "asyncio" not in found["loaded"]


def test_the_message_type_is_what_brings_pydantic() -> None:
    """The check above can fail: asking for `Message` loads pydantic."""
    found = loaded_by("from cosession import Message")
    loaded = found["loaded"]
    assert isinstance(loaded, list)
    assert "pydantic" in loaded


def test_a_small_program_loads_neither_models_nor_an_event_loop(tmp_path: Path) -> None:
    """Who only appends plain messages is spared pydantic, and asyncio if he blocks."""
    path = str(tmp_path / "context.jsonl")
    found = loaded_by(
        f"from cosession import BlockingSession\nwith BlockingSession({path!r}) as session:\n"
        "    session.append({'role': 'user', 'content': 'hi'})\n"
        "    session.checkpoint(then=lambda number: {'role': 'user', 'content': str(number)})\n"
        "    session.record_usage(5); session.system_prompt"
    )
    assert isinstance(found["loaded"], list)
    assert {"pydantic", "asyncio", "pathlib"}.isdisjoint(found["loaded"])
    found = loaded_by(
        "import asyncio\nfrom cosession import Session\nasync def main():\n"
        f"    async with Session({path!r}) as session:\n"
        "        await session.append({'role': 'user', 'content': 'hi'})\n"
        "asyncio.run(main())"
    )
    assert isinstance(found["loaded"], list)
    assert "pydantic" not in found["loaded"]


def test_a_program_that_stays_has_loaded_what_messages_need(tmp_path: Path) -> None:
    """A little after opening, on a thread, so that looking at messages doesn't wait for it."""
    found = loaded_by(
        "import asyncio\nfrom cosession import Session\nasync def main():\n"
        f"    async with Session({str(tmp_path / 'context.jsonl')!r}):\n"
        "        for _ in range(400):\n"
        "            await asyncio.sleep(0.05)\n"
        "            if hasattr(sys.modules.get('cosession.messages'), 'MessageCodec'): return\n"
        "asyncio.run(main())"
    )
    assert isinstance(found["loaded"], list)
    assert "pydantic" in found["loaded"]


@pytest.mark.parametrize(
    ("arguments", "needed", "not_needed"),
    [
        (["--help"], {"click"}, {"pydantic", "rich", "cosession.cli.show", "cosession.cli.demo"}),
        (["show", "--help"], {"cosession.cli.show"}, {"rich", "cosession.cli.append"}),
        (
            ["chat", "--help"],
            {"cosession.cli.chat.command"},
            {"rich", "prompt_toolkit", "cosession.cli.append"},
        ),
        (
            ["append", "--help"],
            {"cosession.cli.append"},
            {"rich", "pydantic", "cosession.cli.show", "cosession.inspect"},
        ),
    ],
    ids=["help", "show", "chat", "append"],
)
def test_the_command_loads_only_what_it_runs(
    arguments: list[str], needed: set[str], not_needed: set[str]
) -> None:
    """A subcommand imports neither the others nor rich; the overview imports none at all."""
    found = loaded_by(
        f"import contextlib\nsys.argv = ['cosession', *{arguments!r}]\n"
        "from cosession.cli import main\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    loaded, ours = found["loaded"], found["ours"]
    assert isinstance(loaded, list)
    assert isinstance(ours, list)
    seen = {*loaded, *ours}
    assert needed <= seen
    assert seen.isdisjoint(not_needed)
