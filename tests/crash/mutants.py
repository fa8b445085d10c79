"""The protocol with one step left out or moved, to show that the tests notice.

A mutant names a function and replaces a piece of its source. If the piece is not there any more,
the mutant fails loudly: it has to be written anew for the new code.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    where: str
    """`module:qualified.name` of the function."""
    edits: dict[str, str]
    """Which pieces of its source are replaced with what. A piece that ends in `…` stands for the
    whole line that it begins, which `{line}` puts into the new text.
    """
    operation: str
    """The operation that shows it."""
    kind: str
    """The kind of campaign that shows it."""
    options: tuple[str, ...] = ()


_APPEND = "cosession.appending:FileAppender._append"
_EXCHANGE = "cosession.replacing:FileReplacer._exchange"

_WRITE = "files.write_all(fd, data…"
_ANNOUNCE = "self.lock.announce(…"
_ANNOUNCE_APPEND = "self.lock.announce_append(…"
_KEEP = "rotated = files.keep_old(…"
_SWAP = "_platform.replace_file(temporary…"
_POWER = ("--durability=power",)

MUTANTS = {
    # ---- an append's steps ------------------------------------------------------------------
    "published before the bytes are written": Mutant(
        _APPEND,
        {_WRITE: "self._publish(fd, header, start + len(data), 0, data[-MARK:])\n{line}"},
        "append-many",
        "kill",
    ),
    "not announced": Mutant(_APPEND, {_ANNOUNCE_APPEND: "pass"}, "append-many", "kill"),
    "announced after the bytes are written": Mutant(
        _APPEND,
        {
            _ANNOUNCE_APPEND: "pass",
            _WRITE: "{line}\nself.lock.announce_append(header, lines, name, durable=durable)",
        },
        "append-many",
        "kill",
    ),
    "announcement cleared before the bytes are written": Mutant(
        _APPEND, {_WRITE: "self.lock.publish(header)\n{line}"}, "append-many", "kill"
    ),
    "one write for each record": Mutant(
        _APPEND,
        {_ANNOUNCE_APPEND: "pass", _WRITE: "[files.write_all(fd, line) for line in lines]"},
        "append-many",
        "kill",
    ),
    "memory changed before the bytes are in": Mutant(
        "cosession.appending:FileAppender.append_now",
        {"header, _ = self._append(…": "self._view.state = self.state.fold(data)\n{line}"},
        "append-one",
        "fail",
    ),
    "unlocked before publishing": Mutant(
        _APPEND, {_WRITE: "{line}\nself.lock.release()"}, "append-one", "order"
    ),
    "not synced before publishing": Mutant(
        _APPEND, {"if sync:": "if False:"}, "append-many", "order", _POWER
    ),
    "announcement of several records not synced": Mutant(
        _APPEND, {"durable = sync and…": "durable = False"}, "append-many", "order", _POWER
    ),
    "not synced behind the unlocking": Mutant(
        "cosession.appending:FileAppender.append_now",
        {"self._sync_unlocked(…": "pass"},
        "append-known",
        "order",
        _POWER,
    ),
    "what the disk refused stays": Mutant(
        "cosession.appending:FileAppender._sync_unlocked",
        {"self._take_back(…": "pass"},
        "append-known",
        "fail",
        _POWER,
    ),
    "place of the bytes not checked": Mutant(
        _APPEND, {"self._place(fd, start, status.st_size, data)": "0"}, "append-one", "disturb"
    ),
    # ---- a replace's steps ------------------------------------------------------------------
    "replaced before the old file is kept": Mutant(
        _EXCHANGE,
        {_SWAP: "{line}\nrotated = files.keep_old(self.path, new, old)"},
        "revert",
        "kill",
    ),
    "old file not kept": Mutant(_EXCHANGE, {_KEEP: "rotated = self.path"}, "clear", "kill"),
    "replace not announced": Mutant(_EXCHANGE, {_ANNOUNCE: "pass"}, "revert", "kill"),
    "generation published before the replace": Mutant(
        _EXCHANGE,
        {
            _SWAP: "early = Header(header.generation + 1, identity, status.st_size)\n"
            "self.lock.publish(early)\n{line}"
        },
        "revert",
        "kill",
    ),
    "new file not synced before the replace": Mutant(
        "cosession.replacing:FileReplacer._fill",
        {"_platform.sync_data(new…": "pass"},
        "revert",
        "order",
    ),
    "folder not synced after the replace": Mutant(
        "cosession.replacing:FileReplacer._replace",
        {"if self.durable": "if False"},
        "revert",
        "order",
        _POWER,
    ),
    "no last look before the replace": Mutant(
        _EXCHANGE, {"self._require_untouched(…": "pass"}, "prompt-on-filled", "disturb"
    ),
    "planned for a file that has grown": Mutant(
        _EXCHANGE, {"if old.st_size != header.committed": "if False"}, "prompt-on-filled", "disturb"
    ),
    "batch not planned anew behind foreign lines": Mutant(
        "cosession.store:Store._commit",
        {"if header.committed != batch.state.position": "if False"},
        "batch",
        "disturb",
    ),
    # ---- healing ----------------------------------------------------------------------------
    "repair trusts places, not checksums": Mutant(
        "cosession.repair:_locate",
        {"if crc32(tail[stop : stop + span.length]) != span.checksum": "if False"},
        "append-many",
        "kill",
    ),
    "repair cuts whatever is there": Mutant(
        "cosession.healing:plan_repair",
        {"ours_to_the_end = …": "ours_to_the_end = True"},
        "append-many",
        "kill_and_more",
    ),
    "cut bytes not put aside": Mutant(
        "cosession.healing:FileHealer._finish_append",
        {"where = files.put_aside(…": "where = self.path"},
        "append-many",
        "kill",
    ),
    "second name left behind": Mutant(
        "cosession.files:drop_second_name", {"os.unlink(…": "pass"}, "revert", "kill"
    ),
    "temporary file left behind": Mutant(
        "cosession.files:remove_leftovers", {"os.unlink(…": "pass"}, "revert", "kill"
    ),
    "open line of another program not closed": Mutant(
        "cosession.healing:FileHealer._close_last_line",
        {'files.write_all(fd, b"\\n"…': "return status"},
        "append-one",
        "kill_and_more",
    ),
    "foreign lines behind a torn append are cut with it": Mutant(
        "cosession.replacing:FileReplacer._splice",
        {"edges = […": "size = cuts[-1][1]\n{line}"},
        "append-many",
        "splice",
    ),
    # ---- undoing ----------------------------------------------------------------------------
    "failed append not undone": Mutant(
        _APPEND, {"undone = self._undo_append(…": "undone = True"}, "append-many", "fail"
    ),
    "failed replace not undone": Mutant(
        "cosession.replacing:FileReplacer._undo_exchange", {"os.unlink(…": "pass"}, "revert", "fail"
    ),
    "undoing cuts foreign bytes": Mutant(
        "cosession.appending:FileAppender._undo_append",
        {"if len(placed) > 1…": "if False:"},
        "append-many",
        "fail",
    ),
    # ---- the lock ---------------------------------------------------------------------------
    "lock file not looked at again": Mutant(
        "cosession.kernel_lock:KernelLock._is_ours",
        {"self.held = there.st_ino…": "self.held = True", "pass": "self.held = True"},
        "append-one",
        "order",
        ("--lock-deleted",),
    ),
    # ---- reading ----------------------------------------------------------------------------
    "reader ignores announcements": Mutant(
        "cosession.reading:FileReader._look",
        {"self._is_quiet(fd, header, size)": "True"},
        "append-many",
        "kill",
    ),
    "reader ignores the header": Mutant(
        "cosession.reading:FileReader._look",
        {"status = os.fstat(fd)": "header, still = None, lambda: True\nstatus = os.fstat(fd)"},
        "append-many",
        "kill",
    ),
}


def apply(name: str, mutants: Mapping[str, Mutant] = MUTANTS) -> None:
    """Put the mutant in the place of the real function, in this process.

    Raises:
        LookupError: The code has changed, and the mutant must follow.
    """
    mutant = mutants[name]
    put_in_place(name, mutant.where, mutant.edits)


def put_in_place(name: str, where: str, edits: dict[str, str]) -> None:
    """Replace pieces of a function's source, for whoever has imported it too.

    Raises:
        LookupError: One of the pieces isn't there.
    """
    function, code = changed(name, where, edits)
    names: dict[str, FunctionType] = {}
    exec(code, function.__globals__, names)
    function.__code__ = names[function.__name__].__code__


def changed(name: str, where: str, edits: dict[str, str]) -> tuple[FunctionType, CodeType]:
    """A function, and what defines it with pieces of its source replaced.

    Raises:
        LookupError: One of the pieces isn't there.
    """
    module_name, _, path = where.partition(":")
    module = importlib.import_module(module_name)
    function: Any = module
    for part in path.split("."):
        function = getattr(function, part)
    source = mutated(textwrap.dedent(inspect.getsource(function)), where, edits)
    code = compile(source, f"<mutant: {name}>", "exec", __future__.annotations.compiler_flag)
    return function, code


def mutated(source: str, where: str, edits: dict[str, str]) -> str:
    """The source with the pieces replaced, each where it is first found."""
    lines = source.splitlines()
    for old, new in edits.items():
        piece, whole = old.removesuffix("…"), old.endswith("…")
        found = [at for at, line in enumerate(lines) if piece in line]
        if whole:
            found = [at for at in found if lines[at].lstrip().startswith(piece)]
        if not found:
            raise LookupError(f"{where} has no {piece!r} any more")
        line = lines[found[0]]
        indent = line[: len(line) - len(line.lstrip())]
        statement = line.strip()
        text = new.replace("{line}", statement) if whole else statement.replace(piece, new)
        lines[found[0]] = "\n".join(indent + part for part in text.splitlines())
    return "\n".join(lines) + "\n"
