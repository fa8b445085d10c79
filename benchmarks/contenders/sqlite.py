"""SQLite in its write-ahead mode: NORMAL survives a kill, FULL a power cut."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .base import PATIENCE, Blocking, Contender, Durability, InThreads, Message, Parsed

TABLE = "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, body TEXT NOT NULL)"
INSERT = "INSERT INTO messages (body) VALUES (?)"
SELECT = "SELECT body FROM messages ORDER BY id"
DELETE = "DELETE FROM messages WHERE id > ?"

START = """
import asyncio, sqlite3, sys
async def main():
    database = sqlite3.connect(sys.argv[1])
    if sys.argv[2] == "all":
        len(database.execute("SELECT body FROM messages ORDER BY id").fetchall())
asyncio.run(main())
"""
START_AIO = """
import aiosqlite, asyncio, sys
async def main():
    async with aiosqlite.connect(sys.argv[1]) as database:
        if sys.argv[2] == "all":
            len(await database.execute_fetchall("SELECT body FROM messages ORDER BY id"))
asyncio.run(main())
"""


class Database(Contender):
    """A file that SQLite understands."""

    file = "messages.db"
    shares = True
    select = SELECT

    def __init__(self, path: str, durability: Durability) -> None:
        super().__init__(path, durability)
        level = "FULL" if self.durable else "NORMAL"
        self.pragmas = ("PRAGMA journal_mode=WAL", f"PRAGMA synchronous={level}")

    @contextmanager
    def hold(self) -> Iterator[None]:
        database = connect(self.path)
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
        database.close()

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        database = connect(path)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(TABLE)
        database.execute("BEGIN")
        database.executemany(INSERT, ((json.dumps(message),) for message in messages))
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        database = connect(path)
        for (body,) in database.execute(cls.select):
            yield json.loads(body)["content"]
        database.close()


def connect(path: str) -> sqlite3.Connection:
    """Connect with every statement a transaction, and calls from any thread."""
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


class Sqlite(Database, Blocking):
    title = "sqlite3, WAL"
    colour = "#2f9e44"
    largest = 1_000_000_000
    startup = START

    async def open(self) -> None:
        self.database = connect(self.path)
        for statement in (*self.pragmas, TABLE):
            self.database.execute(statement)

    def append_now(self, message: Message) -> None:
        self.database.execute(INSERT, (json.dumps(message),))

    async def close(self) -> None:
        self.database.close()

    async def usable(self) -> Sequence[Any]:
        return Parsed([body for (body,) in self.database.execute(SELECT)])

    async def revert(self, kept: int) -> None:
        self.database.execute(DELETE, (kept,))


class SqliteInThreads(InThreads, Sqlite):
    """One connection, which one thread at a time may use."""

    title = "sqlite3, WAL, in threads"
    colour = ""

    async def open(self) -> None:
        await super().open()
        self.lock = threading.Lock()

    def append_now(self, message: Message) -> None:
        with self.lock:
            super().append_now(message)


class AioSqlite(Database):
    title = "aiosqlite, WAL"
    package = "aiosqlite"
    colour = "#2f9e44"
    startup = START_AIO

    async def open(self) -> None:
        import aiosqlite

        self.database = await aiosqlite.connect(self.path, timeout=PATIENCE, isolation_level=None)
        for statement in (*self.pragmas, TABLE):
            await self.database.execute(statement)

    async def append(self, message: Message) -> None:
        await self.database.execute(INSERT, (json.dumps(message),))

    async def close(self) -> None:
        await self.database.close()

    async def usable(self) -> Sequence[Any]:
        return Parsed([body for (body,) in await self.database.execute_fetchall(SELECT)])

    async def revert(self, kept: int) -> None:
        await self.database.execute(DELETE, (kept,))
