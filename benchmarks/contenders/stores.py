"""Two stores that are no SQL: diskcache, which is SQLite beneath, and LMDB."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from .base import PATIENCE, Blocking, InThreads, Message, Parsed

MAP_SIZE = 4 << 30

START_DISKCACHE = """
import asyncio, diskcache, sys
async def main():
    cache = diskcache.Cache(sys.argv[1], eviction_policy="none")
    len([cache[key] for key in cache.iterkeys()])
asyncio.run(main())
"""
START_LMDB = """
import asyncio, lmdb, sys
async def main():
    with lmdb.open(sys.argv[1]).begin() as transaction:
        len([value for _, value in transaction.cursor()])
asyncio.run(main())
"""


class Diskcache(Blocking):
    """Used as a queue that nobody takes anything from."""

    title = "diskcache"
    package = "diskcache"
    shares = True
    file = "cache"
    startup = START_DISKCACHE

    async def open(self) -> None:
        self.cache = cache(self.path, synchronous=2 if self.durable else 1)

    def append_now(self, message: Message) -> None:
        self.cache.push(json.dumps(message))

    async def close(self) -> None:
        self.cache.close()

    async def usable(self) -> Sequence[Any]:
        return [self.cache[key] for key in self.cache.iterkeys()]

    def hold(self) -> AbstractContextManager[object]:
        transaction: AbstractContextManager[object] = self.cache.transact()
        return transaction

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        with cache(path, synchronous=1) as filled, filled.transact():
            for message in messages:
                filled.push(json.dumps(message))

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        with cache(path, synchronous=1) as filled:
            for key in filled.iterkeys():
                yield json.loads(filled[key])["content"]


def cache(path: str, *, synchronous: int) -> Any:
    """Open a cache from which nothing is ever evicted."""
    from diskcache import Cache

    return Cache(path, timeout=PATIENCE, eviction_policy="none", sqlite_synchronous=synchronous)


class DiskcacheInThreads(InThreads, Diskcache):
    title = "diskcache, in threads"


class Lmdb(Blocking):
    """Numbers for keys. Without a sync a power cut may cost it more than the last messages."""

    title = "lmdb"
    largest = 1_000_000_000
    package = "lmdb"
    shares = True
    colour = "#a24fd0"
    file = "lmdb"
    startup = START_LMDB

    async def open(self) -> None:
        self.environment = environment(self.path, sync=self.durable)

    def append_now(self, message: Message) -> None:
        body = json.dumps(message).encode()
        with self.environment.begin(write=True) as transaction:
            with transaction.cursor() as cursor:
                number = int.from_bytes(cursor.key()) + 1 if cursor.last() else 0
            transaction.put(number.to_bytes(8), body, append=True)

    async def close(self) -> None:
        self.environment.close()

    async def usable(self) -> Sequence[Any]:
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            return Parsed([bytes(value) for value in cursor.iternext(keys=False)])

    async def revert(self, kept: int) -> None:
        with self.environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(kept.to_bytes(8))
            while found:
                found = cursor.delete()

    def hold(self) -> AbstractContextManager[object]:
        transaction: AbstractContextManager[object] = self.environment.begin(write=True)
        return transaction

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        with environment(path, sync=True) as filled, filled.begin(write=True) as transaction:
            for number, message in enumerate(messages):
                transaction.put(number.to_bytes(8), json.dumps(message).encode(), append=True)

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        with environment(path, sync=False) as filled, filled.begin() as transaction:
            for _, value in transaction.cursor():
                yield json.loads(value)["content"]


def environment(path: str, *, sync: bool) -> Any:
    """Open a folder of LMDB's."""
    import lmdb

    return lmdb.open(path, map_size=MAP_SIZE, sync=sync, metasync=sync)


class LmdbInThreads(InThreads, Lmdb):
    title = "lmdb, in threads"
