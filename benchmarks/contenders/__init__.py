"""The contenders by the names that the command knows them by, in the order of the tables."""

from __future__ import annotations

from . import bare, broken, frameworks, kimi, lines, ours, sqlite, stores
from .base import Contender

CONTENDERS: dict[str, type[Contender]] = {
    "bare": bare.Bare,
    "bare-lock": bare.BareLock,
    "bare-json": bare.BareJson,
    "idle": bare.Idle,
    "cosession": ours.Asynchronous,
    "cosession-blocking": ours.Plain,
    "kimi": kimi.Kimi,
    "asyncio-lock": lines.AsyncioLock,
    "filelock": lines.FileLocked,
    "portalocker": lines.Portalocked,
    "portalocker-threads": lines.PortalockedInThreads,
    "sqlite3": sqlite.Sqlite,
    "sqlite3-threads": sqlite.SqliteInThreads,
    "aiosqlite": sqlite.AioSqlite,
    "agents": frameworks.Agents,
    "langchain": frameworks.Langchain,
    "langchain-threads": frameworks.LangchainInThreads,
    "diskcache": stores.Diskcache,
    "diskcache-threads": stores.DiskcacheInThreads,
    "lmdb": stores.Lmdb,
    "lmdb-threads": stores.LmdbInThreads,
    "lossy": broken.Lossy,
    "missing": broken.Missing,
}

HIDDEN = {"lossy", "missing"}
"""Left out unless asked for by name."""
