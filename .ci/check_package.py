"""Look into the wheel and the sdist: `python check_package.py FOLDER`."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def main(folder: Path) -> None:
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    inside = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        source = [name.partition("/")[2] for name in archive.getnames()]

    require("cosession/py.typed" in inside, "the wheel has py.typed")
    require("cosession/_platform/_windows.py" in inside, "the wheel has both platforms")
    require(any(is_data(name) for name in inside), "the wheel has the demo's conversations")
    require(any(name.endswith("licenses/LICENSE") for name in inside), "the wheel has the licence")
    require(not [name for name in inside if "test_" in name], "the wheel has no tests")
    for name in ("tests/", "tests_windows/", "src/cosession/", "docs/"):
        require(any(file.startswith(name) for file in source), f"the sdist has {name}")
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"):
        require(name in source, f"the sdist has {name}")
    for name in [*inside, *source]:
        require("__pycache__" not in name, f"no leftovers: {name}")
    print(f"{wheel.name}: {len(inside)} files; {sdist.name}: {len(source)} files")


def is_data(name: str) -> bool:
    return name.startswith("cosession/") and name.endswith((".jsonl", ".jsonl.gz", ".json"))


def require(condition: bool, what: str) -> None:
    if not condition:
        sys.exit(f"not so: {what}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
