"""`cosession chat`: a conversation with an agent, on a session that other terminals use too.

    command    the click command: options, exit status
    talk       what happens to a line that was entered, to Ctrl-C, to the end of the input
    commands   `/revert`, `/who` and the others
    exchange   a question and its answer: one turn
    agent      the program that answers; `echo` is the one that comes with cosession
    view       what anybody does to the session, as rows of text
    people     who is who, in words
    screen     the terminal: with a line editor (prompt_toolkit), or plain lines

What is above the prompt comes from the file, one's own question included: nobody sees anything
that the others don't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .command import chat

__all__ = ["chat"]


def __getattr__(name: str) -> object:
    if name == "chat":
        from .command import chat

        return chat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
