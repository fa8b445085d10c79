"""The protocol with one step left out or moved, to show that the tests notice.

A mutant names a function and replaces a piece of its source. If the piece is not there any more,
the mutant fails loudly: it has to be written anew for the new code.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    where: str
    """`module:qualified.name` of the function."""
    old: str
    new: str
    operation: str
    """The operation that shows it."""
    kind: str
    """The kind of campaign that shows it."""
    options: tuple[str, ...] = ()


_APPEND = "cosession.store:Store._append"
_EXCHANGE = "cosession.store:Store._exchange"
_HEAL = "cosession.store:Store._heal"
_UNDO = "cosession.store:Store._undo_append"

_WRITE = "files.write_all(fd, data)"
_ANNOUNCE = "self.lock.announce(header.announcing(intent), batch.name, durable=durable)"
_KEEP = "rotated = files.keep_old(self.path, fd, old)"
_SWAP = "_platform.replace_file(temporary, self.path)"
_PUBLISH_SWAP = "header = self._publish(fd, header, status.st_size)"
_SWAP_ANNOUNCED = "self.lock.announce(header.announcing(intent), announce, durable=False)"

MUTANTS = {
    # ---- an append's steps ------------------------------------------------------------------
    "published before the bytes are written": Mutant(
        _APPEND,
        _WRITE,
        f"self._publish(fd, header, start + len(data), data[-_MARK:])\n{_WRITE}",
        "append-many",
        "kill",
    ),
    "not announced": Mutant(_APPEND, _ANNOUNCE, "pass", "append-many", "kill"),
    "announced after the bytes are written": Mutant(
        _APPEND, f"{_ANNOUNCE}\n{_WRITE}", f"{_WRITE}\n{_ANNOUNCE}", "append-many", "kill"
    ),
    "announcement cleared before the bytes are written": Mutant(
        _APPEND, _WRITE, f"self.lock.publish(header)\n{_WRITE}", "append-many", "kill"
    ),
    "one write for each record": Mutant(
        _APPEND,
        f"{_ANNOUNCE}\n{_WRITE}",
        "[files.write_all(fd, line) for line in batch.lines]",
        "append-many",
        "kill",
    ),
    "memory changed before the bytes are in": Mutant(
        _APPEND,
        "data, start =",
        "self._view = _View(header.generation, header.identity, batch.state)\ndata, start =",
        "append-one",
        "fail",
    ),
    "unlocked before publishing": Mutant(
        _APPEND, _WRITE, f"{_WRITE}\nself.lock.release()", "append-one", "order"
    ),
    "not synced before publishing": Mutant(
        _APPEND, "if self.durable:", "if False:", "append-one", "order", ("--durability=power",)
    ),
    "announcement of several records not synced": Mutant(
        _APPEND,
        "self.durable and len(batch.lines) > 1",
        "False",
        "append-many",
        "order",
        ("--durability=power",),
    ),
    "place of the bytes not checked": Mutant(
        _APPEND, "self._place(fd, start, data)", "0", "append-one", "disturb"
    ),
    # ---- a replace's steps ------------------------------------------------------------------
    "replaced before the old file is kept": Mutant(
        _EXCHANGE, _SWAP, f"{_SWAP}\n{_KEEP.replace('fd', 'new')}", "revert", "kill"
    ),
    "old file not kept": Mutant(_EXCHANGE, _KEEP, "rotated = self.path", "clear", "kill"),
    "replace not announced": Mutant(_EXCHANGE, _SWAP_ANNOUNCED, "pass", "revert", "kill"),
    "generation published before the replace": Mutant(
        _EXCHANGE,
        _SWAP,
        "self.lock.publish(Header(header.generation + 1, identity, status.st_size))\n" + _SWAP,
        "revert",
        "kill",
    ),
    "new file not synced before the replace": Mutant(
        "cosession.store:Store._fill", "_platform.sync_data(new)", "pass", "revert", "order"
    ),
    "folder not synced after the replace": Mutant(
        "cosession.store:Store._replace",
        "if self.durable:",
        "if False:",
        "revert",
        "order",
        ("--durability=power",),
    ),
    "no last look before the replace": Mutant(
        _EXCHANGE, "self._require_untouched(old)", "pass", "prompt-on-filled", "disturb"
    ),
    "planned for a file that has grown": Mutant(
        _EXCHANGE,
        "if old.st_size != header.committed:",
        "if False:",
        "prompt-on-filled",
        "disturb",
    ),
    "batch not planned anew behind foreign lines": Mutant(
        "cosession.store:Store._commit",
        "if header.committed != batch.state.position:",
        "if False:",
        "batch",
        "disturb",
    ),
    # ---- healing ----------------------------------------------------------------------------
    "repair trusts places, not checksums": Mutant(
        "cosession.repair:_locate",
        "if crc32(tail[stop : stop + span.length]) != span.checksum:",
        "if False:",
        "append-many",
        "kill",
    ),
    "repair cuts whatever is there": Mutant(
        "cosession.store:plan_repair",
        'start == 0 and b"\\n" not in rest and len(tail) < intent.length',
        "True",
        "append-many",
        "kill_and_more",
    ),
    "cut bytes not put aside": Mutant(
        "cosession.store:Store._finish_append",
        "files.put_aside(self.path, tail, os.fstat(fd))",
        "self.path",
        "append-many",
        "kill",
    ),
    "second name left behind": Mutant(
        "cosession.files:drop_second_name", "os.unlink(rotated)", "pass", "revert", "kill"
    ),
    "temporary file left behind": Mutant(
        "cosession.files:remove_leftovers",
        "os.unlink(os.path.join(folder, entry))",
        "pass",
        "revert",
        "kill",
    ),
    "open line of another program not closed": Mutant(
        "cosession.store:Store._close_last_line",
        'files.write_all(fd, b"\\n")',
        "pass",
        "append-one",
        "kill_and_more",
    ),
    "splice in place instead of a new file": Mutant(
        "cosession.store:Store._splice",
        'new, rotated = self._exchange(fd, header, edit, announce="")',
        "rest = files.read_all(fd, splice.stop, size)\n"
        "os.ftruncate(fd, splice.start)\n"
        "files.write_all(fd, rest)\n"
        "new, rotated = header, self.path",
        "append-many",
        "splice",
    ),
    # ---- undoing ----------------------------------------------------------------------------
    "failed append not undone": Mutant(
        _APPEND, "self._undo_append(fd, header, intent, data)", "True", "append-many", "fail"
    ),
    "undoing cuts foreign bytes": Mutant(
        _UNDO,
        "data.startswith(tail) or at + len(data) == len(tail) > at >= 0",
        "True",
        "append-many",
        "fail",
    ),
    # ---- the lock ---------------------------------------------------------------------------
    "lock file not looked at again": Mutant(
        "cosession.lock:LockFile.is_current",
        "return False",
        "return True",
        "append-one",
        "order",
        ("--lock-deleted",),
    ),
    # ---- reading ----------------------------------------------------------------------------
    "reader ignores announcements": Mutant(
        "cosession.store:Store._look",
        "(header is None or header.intent is None)",
        "True",
        "append-many",
        "kill",
    ),
    "reader ignores the header": Mutant(
        "cosession.store:Store._look",
        "status = os.fstat(fd)",
        "header, peek = None, None\nstatus = os.fstat(fd)",
        "append-many",
        "kill",
    ),
}


def apply(name: str) -> None:
    """Put the mutant in the place of the real function, in this process.

    Raises:
        LookupError: The code has changed, and the mutant must follow.
    """
    mutant = MUTANTS[name]
    module_name, _, path = mutant.where.partition(":")
    module = importlib.import_module(module_name)
    owner: object = module
    *parents, function_name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function = getattr(owner, function_name)
    source = mutated(textwrap.dedent(inspect.getsource(function)), mutant)
    names: dict[str, object] = {}
    code = compile(source, f"<mutant: {name}>", "exec", __future__.annotations.compiler_flag)
    exec(code, function.__globals__, names)
    setattr(owner, function_name, names[function_name])


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the piece replaced, lines of it keeping the indentation of the first."""
    old = mutant.old.splitlines()
    lines = source.splitlines()
    for at, line in enumerate(lines):
        indent = line[: len(line) - len(line.lstrip())]
        if old[0] not in line:
            continue
        block = "\n".join(lines[at : at + len(old)])
        wanted = f"\n{indent}".join(old)
        if wanted in block:
            new = f"\n{indent}".join(mutant.new.splitlines())
            lines[at : at + len(old)] = block.replace(wanted, new).splitlines()
            return "\n".join(lines) + "\n"
    raise LookupError(f"{mutant.where} has no {mutant.old!r} any more")
