"""Names on Windows: long, in any case, reserved, and with characters of every kind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("needs Windows: its rules for names", allow_module_level=True)

from cosession import BlockingSession, Message, NotASession
from cosession._platform import _windows

USER = {"role": "user", "content": "hi"}


def use(path: Path) -> BlockingSession[Message]:
    """A session through all that makes files: append, rotate, and read again."""
    with BlockingSession(path) as session:
        session.append(USER)
        session.revert_to(session.checkpoint())
        session.clear()
        session.append(USER)
    with BlockingSession(path) as again:
        assert len(again.history) == 1
        return again


@pytest.mark.parametrize("length", [215, 225, 226, 241, 247, 258, 259, 260, 261, 400])
def test_a_path_of_any_length(tmp_path: Path, length: int) -> None:
    """No path is too long, nor is any name that is derived from it."""
    folder = str(tmp_path)
    while length - len(folder) > 100:
        folder = os.path.join(folder, "f" * 50)
    os.makedirs("\\\\?\\" + folder, exist_ok=True)
    path = os.path.join(folder, "n" * (length - len(folder) - 1))
    assert len(path) == length
    use(Path(path))
    names = sorted(os.listdir("\\\\?\\" + folder))
    name = os.path.basename(path)
    assert names == [name, f"{name}.lineage", f"{name}.lock", f"{name}_1", f"{name}_2"]


def test_every_name_the_system_is_given_is_within_its_limit() -> None:
    """Without the prefix, a path and the names derived from it stay below 260 characters."""
    for length in range(200, 300):
        path = "C:\\" + "n" * (length - 3)
        longest = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{'0' * 12}.tmp")
        assert _windows.spelled(path).startswith("\\\\?\\") or len(longest) < 260


def test_a_long_path_has_one_spelling() -> None:
    """The prefix goes in front of drives and shares, once, and not in front of devices."""
    tail = "n" * 300
    assert _windows.spelled(f"C:\\{tail}") == f"\\\\?\\C:\\{tail}"
    assert _windows.spelled(f"\\\\server\\share\\{tail}") == f"\\\\?\\UNC\\server\\share\\{tail}"
    for spelled in (f"\\\\?\\C:\\{tail}", f"\\\\.\\{tail}", "C:\\short", "\\\\server\\short"):
        assert _windows.spelled(spelled) == spelled


def test_a_prefixed_short_path_is_the_plain_one(tmp_path: Path) -> None:
    r"""`\\?\C:\x` and `C:\x` are one session with one lock, also in a folder of locks."""
    path, locks = tmp_path / "context.jsonl", tmp_path / "locks"
    with (
        BlockingSession(path, lock_dir=locks) as plain,
        BlockingSession("\\\\?\\" + str(path), lock_dir=locks) as prefixed,
    ):
        assert plain.path == prefixed.path
    assert len(list(locks.iterdir())) == 1


@pytest.mark.parametrize("name", ["with space.jsonl", "é漢字😀.jsonl", "%TEMP%.jsonl", "no suffix"])
def test_an_unusual_name(tmp_path: Path, name: str) -> None:
    """Spaces, any characters and no suffix at all are fine."""
    assert use(tmp_path / name).path.name == name


def test_the_case_on_the_disk_counts(tmp_path: Path) -> None:
    """However it is written, a session goes by the name that its file has."""
    use(tmp_path / "Context.jsonl")
    with BlockingSession(tmp_path / "CONTEXT.JSONL") as session:
        session.append(USER)
        assert session.path.name == "Context.jsonl"
    assert {file.name for file in tmp_path.iterdir()} == {
        "Context.jsonl",
        "Context.jsonl.lineage",
        "Context.jsonl.lock",
        "Context_1.jsonl",
        "Context_2.jsonl",
    }


@pytest.mark.parametrize("name", ["NUL", "nul", "CON"])
def test_a_reserved_name_is_no_session(tmp_path: Path, name: str) -> None:
    """A device in the file's place is refused before anything is written to it."""
    with pytest.raises(NotASession):
        use(tmp_path / name)


def test_a_trailing_dot_is_no_part_of_the_name(tmp_path: Path) -> None:
    """Windows drops it, and so do we, before a lock's name is derived."""
    assert use(tmp_path / "context.jsonl.").path.name == "context.jsonl"
    assert (tmp_path / "context.jsonl.lock").exists()
