"""The layers import in one direction, and the pure ones touch no system."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cosession

PACKAGE = Path(cosession.__file__).parent

LAYERS = (
    "_json", "values", "interrupts", "errors", "records", "codec", "history", "marks", "state",
    "edits", "batch", "changes", "header", "repair", "plain", "messages", "_platform",
    "_fork", "trace", "kernel_lock", "lock", "files", "documents", "card", "presence", "lineage",
    "turn_lock", "reading", "replacing", "healing", "appending", "store", "transfer", "findings",
    "inspect", "operation", "commits", "event_loop", "together", "_base", "transaction", "follow",
    "turn", "session", "blocking",
)  # fmt: skip
"""From the bottom to the top, as `docs/design.md` lists them; nothing imports upwards."""

PURE = (
    "_json", "values", "interrupts", "errors", "records", "codec", "history", "marks", "state",
    "edits", "batch", "changes", "header", "repair", "plain", "messages",
)  # fmt: skip
SYSTEM = {
    "asyncio", "fcntl", "io", "msvcrt", "os", "pathlib", "shutil", "socket", "subprocess",
    "tempfile", "time",
}  # fmt: skip
HARMLESS = {"errors": {"os"}}
"""`os.strerror` names an error number; it touches nothing."""

OUTSIDE = ("adapters", "cli", "testing")


def module_files() -> dict[str, Path]:
    """Every module by its dotted name within the package."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__") or "__init__"] = path
    return files


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, at_run_time: bool = True) -> Iterator[tuple[str, bool]]:
    """What a file imports, `cosession` modules as `.name`, and if that is at module level."""
    tree = parsed(path)
    depth = len(path.relative_to(PACKAGE).parts)

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if (
                at_run_time
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.dump(child.test)
            ):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    name = alias.name
                    inside = name.split(".")[0] == "cosession"
                    yield (name.removeprefix("cosession") or ".") if inside else name, top
            elif isinstance(child, ast.ImportFrom):
                yield from ((name, top) for name in from_names(child))
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, top and not inner)

    def from_names(node: ast.ImportFrom) -> Iterator[str]:
        if node.level == 0:
            module = node.module or ""
            inside = module.split(".")[0] == "cosession"
            yield module.removeprefix("cosession") if inside else module
            return
        above = path.relative_to(PACKAGE).parts[: depth - node.level]
        if node.module:
            yield "." + ".".join([*above, node.module])
        else:
            yield from ("." + ".".join([*above, alias.name]) for alias in node.names)

    yield from walk(tree, True)


def inside(path: Path) -> set[str]:
    return {name.split(".")[1] for name, _ in imports(path) if name.startswith(".") and name != "."}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer: str) -> None:
    """Errors at the bottom, sessions at the top, and no arrow back."""
    path = PACKAGE / f"{layer}.py"
    path = path if path.exists() else PACKAGE / layer / "__init__.py"
    below = set(LAYERS[: LAYERS.index(layer)])
    own = {layer} | ({"_posix", "_windows"} if layer == "_platform" else set())
    assert inside(path) <= below | own


def test_the_core_knows_nothing_of_what_is_outside() -> None:
    """No layer imports an adapter, the command or the conformance kit."""
    for layer in LAYERS:
        for name, path in module_files().items():
            if name == layer:
                assert not inside(path) & set(OUTSIDE), name


@pytest.mark.parametrize("layer", PURE)
def test_pure_layers_import_nothing_of_the_system(layer: str) -> None:
    """Values in, values out: no files, locks, clocks or event loops."""
    roots = {name.split(".")[0] for name, _ in imports(PACKAGE / f"{layer}.py")}
    assert not roots & (SYSTEM - HARMLESS.get(layer, set()))


def test_one_place_asks_which_system_it_is_on() -> None:
    """In the core, `sys.platform` and `os.name` appear in `_platform` alone."""
    asking = {
        name
        for name, path in module_files().items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("sys", "platform"), ("os", "name")}
    }
    assert "_platform" in asking
    core = {name for name in asking if name.split(".")[0] not in OUTSIDE}
    assert {name for name in core if not name.startswith("_platform")} == set()


def test_one_core_module_imports_pydantic_when_it_is_loaded() -> None:
    """`import cosession` stays cheap: pydantic comes with the first message."""
    loading = {
        name
        for name, path in module_files().items()
        for imported, top in imports(path)
        if top and imported.split(".")[0] in {"pydantic", "pydantic_core"}
    }
    core = {name for name in loading if name.split(".")[0] in LAYERS}
    assert core == {"messages"}


def test_every_module_of_the_core_has_its_place() -> None:
    """A module that is in no layer would be checked by nobody."""
    top = {name.split(".")[0] for name in module_files()}
    apart = {"__init__", "__main__", *OUTSIDE}
    unplaced = top - apart - set(LAYERS)
    assert unplaced == set()
