"""One short text for everything that a session's state holds, to compare states by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from ..._base import SessionBase
from ...messages import Message
from .script import JsonObject


def digest(
    prompt: str | None,
    tokens: int,
    checkpoints: Sequence[int],
    messages: Iterable[JsonObject],
) -> str:
    """The digest of a state, from its parts."""
    hashed = blake2b(digest_size=12)
    hashed.update(json.dumps([prompt, tokens, list(checkpoints)]).encode())
    for message in messages:
        hashed.update(json.dumps(message, sort_keys=True).encode() + b"\n")
    return hashed.hexdigest()


def digest_of(session: SessionBase[Message]) -> str:
    """The digest of what a session has in memory."""
    return digest(
        session.system_prompt,
        session.token_count,
        session.checkpoints,
        (message.model_dump(exclude_unset=True) for message in session.history),
    )
