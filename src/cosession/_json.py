"""The standard library's `json`, imported when something is first asked of it. Pure.

A program that opens a session and reads plain messages needs nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from json import JSONEncoder, dumps, loads

    __all__ = ["JSONEncoder", "dumps", "loads"]
else:

    def __getattr__(name: str) -> object:
        import json

        found = globals()[name] = getattr(json, name)
        return found
