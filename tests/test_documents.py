"""Small JSON documents shared between processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from cosession import LockTimeout, NotASession
from cosession.documents import DamagedDocument, edit_document, read_document

COUNT = """
import sys
from cosession.documents import edit_document
for _ in range(int(sys.argv[2])):
    with edit_document(sys.argv[1], timeout=60) as document:
        document["count"] = document.get("count", 0) + 1
"""


def test_a_missing_document_is_empty_and_made_private(tmp_path: Path) -> None:
    """A document that isn't there reads as empty, and is made with the first change."""
    path = tmp_path / "settings.json"
    assert read_document(path) == {}
    with edit_document(path) as settings:
        settings["theme"] = "dark"
    assert json.loads(path.read_text()) == {"theme": "dark"}
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_no_count_of_several_processes_is_lost(tmp_path: Path) -> None:
    """Processes that read, change and write at once don't undo each other."""
    path = tmp_path / "counter.json"
    children = [subprocess.Popen([sys.executable, "-c", COUNT, str(path), "10"]) for _ in range(3)]
    assert [child.wait(90) for child in children] == [0, 0, 0]
    assert read_document(path) == {"count": 30}


def test_nothing_is_written_if_nothing_changed_or_the_block_raises(tmp_path: Path) -> None:
    """A block that raises leaves the document alone, and so does one that changes nothing."""
    path = tmp_path / "settings.json"
    path.write_text('{"a": 1}')
    with pytest.raises(KeyError), edit_document(path) as settings:
        settings["a"] = 2
        raise KeyError
    with edit_document(path) as settings:
        settings["a"] = 1
    assert path.read_text() == '{"a": 1}'
    with edit_document(path, timeout=0) as settings:  # the lock is free again
        settings["a"] = "\ud800"
    assert read_document(path) == {"a": "\ud800"}


@pytest.mark.parametrize("text", ["[1]", "{", "\ufeff{]", "[" * 100_000, "3"])
def test_a_damaged_document_is_never_written_over(tmp_path: Path, text: str) -> None:
    """What holds no JSON object raises an error that names it, and stays."""
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedDocument, match=r"settings\.json"), edit_document(path):
        pytest.fail("the block must not run")
    assert path.read_text(encoding="utf-8") == text


def test_a_document_is_an_object_in_a_plain_file(tmp_path: Path) -> None:
    """A folder in the document's place is refused by a typed error."""
    with pytest.raises(NotASession):
        read_document(tmp_path)


def test_the_wait_for_a_document_is_bounded(tmp_path: Path) -> None:
    """Another holder of the lock makes `timeout` end the wait."""
    path = tmp_path / "settings.json"
    with FileLock(f"{path}.lock"), pytest.raises(LockTimeout), edit_document(path, timeout=0.1):
        pytest.fail("the block must not run")


def test_a_failed_write_leaves_the_old_document_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the replace fails, the old document is there, and no temporary file."""
    from cosession import StorageError, _platform

    path = tmp_path / "settings.json"
    with edit_document(path) as settings:
        settings["a"] = 1

    def fail(source: str, target: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(_platform, "replace_file", fail)
    with pytest.raises(StorageError), edit_document(path) as settings:
        settings["a"] = 2
    assert read_document(path) == {"a": 1}
    assert {entry.name for entry in tmp_path.iterdir()} <= {"settings.json", "settings.json.lock"}
