"""The protocol without one of the steps that a power cut makes necessary.

In the terms of `crash.mutants`; the operation is a story here, and the kind a durability.
"""

from __future__ import annotations

from crash.mutants import Mutant

_APPEND = "cosession.appending:FileAppender._append"
_NOW = "cosession.appending:FileAppender.append_now"
_EXCHANGE = "cosession.replacing:FileReplacer._exchange"
_SYNC = "cosession.replacing:FileReplacer._sync"
_NAMES = "cosession.replacing:FileReplacer._sync_names"
_AGAIN = ("--again",)

MUTANTS = {
    # ---- an append's steps ------------------------------------------------------------------
    "data not synced before it is acknowledged": Mutant(
        _APPEND, {"if sync:": "if False:"}, "append-one", "power"
    ),
    "data not synced behind the unlocking": Mutant(
        _NOW, {"self._sync_unlocked(…": "pass"}, "appends", "power"
    ),
    "data of several appends not synced behind the unlocking": Mutant(
        "cosession.store:Store._append_each", {"self._sync_unlocked(…": "pass"}, "together", "power"
    ),
    "several records left for behind the unlocking": Mutant(
        "cosession.appending:FileAppender._may_sync_unlocked",
        {"return max(…": "return True"},
        "appends",
        "power",
    ),
    "published before the data is synced": Mutant(
        _APPEND,
        {"if sync:…": "self._publish(fd, header, stop, 0, data[-MARK:])\n{line}"},
        "append-many",
        "power",
    ),
    "announcement of several records not synced": Mutant(
        _APPEND,
        {
            "self.lock.announce_append(…": "self.lock.announce_append("
            "header, lines, name, durable=False)"
        },
        "append-many",
        "power",
    ),
    "announcement synced after the data": Mutant(
        _APPEND,
        {
            "self.lock.announce_append(…": "self.lock.announce_append("
            "header, lines, name, durable=False)",
            "if sync:…": "{line}\n    self.lock.sync()",
        },
        "append-many",
        "power",
    ),
    "several records written behind what others have not synced": Mutant(
        _APPEND, {"if durable and not self._is_on_disk…": "if False:"}, "foreign", "power"
    ),
    # ---- names and generations --------------------------------------------------------------
    "the session's folder never synced": Mutant(
        _NAMES, {"_platform.sync_folder(…": "pass"}, "create", "power"
    ),
    "names made by others not synced": Mutant(
        _SYNC,
        {"if upto.generation != self._on_disk.generation": "if False"},
        "replaced-by-another",
        "power",
    ),
    "the lock file's folder not synced": Mutant(
        _NAMES,
        {"for folder in …": "for folder in {os.path.dirname(self.path)}:"},
        "created-by-another-locks-elsewhere",
        "power",
    ),
    "generation not synced": Mutant(_NAMES, {"self.lock.sync()": "pass"}, "clears", "power"),
    # ---- a replace's steps ------------------------------------------------------------------
    "new file not synced before it takes the name": Mutant(
        "cosession.replacing:FileReplacer._fill",
        {"_platform.sync_data(new…": "pass"},
        "revert",
        "process",
    ),
    "old file's new name not synced before the replace": Mutant(
        _EXCHANGE, {"_platform.sync_folder(…": "pass"}, "revert", "process"
    ),
    "nothing synced after the replace": Mutant(
        "cosession.replacing:FileReplacer._replace",
        {"if self.durable": "if False"},
        "revert",
        "power",
    ),
    "copy of the old file not synced": Mutant(
        "cosession.files:_copied", {"_platform.sync_data(copy…": "pass"}, "no-links", "process"
    ),
    # ---- healing ----------------------------------------------------------------------------
    "gaps in an append not seen": Mutant(
        "cosession.repair:_has_gap", {"elif missing": "elif False"}, "append-many", "power"
    ),
    "boot not looked at": Mutant(
        "cosession.healing:FileHealer._is_settled",
        {"and header.boot == self._boot": ""},
        "append-many",
        "process",
    ),
    "torn bytes cut before they are synced elsewhere": Mutant(
        "cosession.files:put_aside",
        {"_platform.sync_data(fd…": "pass"},
        "append-many",
        "power",
        _AGAIN,
    ),
    "folder of torn bytes not synced": Mutant(
        "cosession.files:put_aside", {"if is_new": "if False"}, "append-many", "power", _AGAIN
    ),
    "torn bytes back after the announcement is gone": Mutant(
        "cosession.replacing:FileReplacer._cut_back",
        {"_platform.sync_data(fd…": "pass"},
        "append-many",
        "power",
        _AGAIN,
    ),
    "failed append back after the announcement is gone": Mutant(
        "cosession.replacing:FileReplacer._cut_back",
        {"_platform.sync_data(fd…": "pass"},
        "full-disk",
        "power",
    ),
    "splice published before its name is on the disk": Mutant(
        _EXCHANGE, {"if not announce:": "if False:"}, "large", "power", _AGAIN
    ),
    # ---- reading ----------------------------------------------------------------------------
    "reader waits for a writer of an earlier boot": Mutant(
        "cosession.reading:FileReader._is_quiet",
        {"if header.boot == self._boot or": "if True or"},
        "append-one",
        "power",
    ),
    "reader takes an unfinished append of an earlier boot": Mutant(
        "cosession.reading:FileReader._is_quiet",
        {"return isinstance(plan_repair…": "return True"},
        "append-many",
        "power",
    ),
}
