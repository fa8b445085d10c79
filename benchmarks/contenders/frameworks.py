"""The session classes of two agent frameworks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .base import Blocking, InThreads, Message
from .sqlite import Database, connect

START_AGENTS = """
import asyncio, sys
from agents import SQLiteSession
async def main():
    session = SQLiteSession("session", sys.argv[1])
    if sys.argv[2] == "all":
        len(await session.get_items())
asyncio.run(main())
"""
START_LANGCHAIN = """
import asyncio, sys
from langchain_community.chat_message_histories import FileChatMessageHistory
async def main():
    history = FileChatMessageHistory(sys.argv[1])
    if sys.argv[2] == "all":
        len(history.messages)
asyncio.run(main())
"""


class Agents(Database):
    """SQLite as it comes, which is FULL."""

    title = "openai-agents SQLiteSession"
    package = "openai-agents"
    remark = "always synced"
    colour = "#12909e"
    select = "SELECT message_data FROM agent_messages ORDER BY id"
    startup = START_AGENTS

    async def open(self) -> None:
        from agents import SQLiteSession

        self.session = SQLiteSession("session", self.path)

    async def append(self, message: Message) -> None:
        await self.session.add_items([message])

    async def close(self) -> None:
        self.session.close()

    async def usable(self) -> Sequence[Any]:
        items: list[Any] = await self.session.get_items()
        return items

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        from agents import SQLiteSession

        SQLiteSession("session", path).close()  # makes the tables
        database = connect(path)
        with database:
            database.execute("BEGIN")
            database.execute("INSERT INTO agent_sessions (session_id) VALUES ('session')")
            database.executemany(
                "INSERT INTO agent_messages (session_id, message_data) VALUES ('session', ?)",
                ((json.dumps(message),) for message in messages),
            )
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()


class Langchain(Blocking):
    """Reads and writes its whole file with every message."""

    title = "langchain FileChatMessageHistory"
    package = "langchain-community"
    durabilities = ("os",)
    colour = "#d6447c"
    file = "history.json"
    largest = 1_000_000
    startup = START_LANGCHAIN

    async def open(self) -> None:
        from langchain_community.chat_message_histories import FileChatMessageHistory
        from langchain_core.messages import HumanMessage

        self.history, self.model = FileChatMessageHistory(self.path), HumanMessage

    def append_now(self, message: Message) -> None:
        self.history.add_message(self.model(content=message["content"]))

    async def usable(self) -> Sequence[Any]:
        messages: list[Any] = self.history.messages
        return messages

    @classmethod
    def fill(cls, path: str, messages: Iterable[Message], mark: int | None = None) -> None:
        from langchain_core.messages import HumanMessage, messages_to_dict

        [form] = messages_to_dict([HumanMessage(content="")])
        filled = [form | {"data": form["data"] | {"content": m["content"]}} for m in messages]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(filled, file)

    @classmethod
    def stored(cls, path: str) -> Iterator[str | None]:
        try:
            with open(path, encoding="utf-8") as file:
                messages = json.load(file)
        except ValueError:
            yield None
            return
        for message in messages:
            yield message["data"]["content"]


class LangchainInThreads(InThreads, Langchain):
    title = "langchain FileChatMessageHistory, in threads"
    colour = ""
