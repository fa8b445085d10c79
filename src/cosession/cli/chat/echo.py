"""The agent that comes with cosession: it says again what was said, after a while.

It is run as a program, and is all that an agent has to be: it needs nothing but the standard
library, reads one JSON document, and prints text.
"""

import json
import sys
import time
from typing import Any


def text_of(content: Any) -> str:
    """What a message says, be it a string or a list of parts."""
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if "text" in part)
    return str(content or "")


def answer(conversation: dict[str, Any]) -> str:
    """What the agent says to a conversation."""
    questions = [
        text_of(message.get("content"))
        for message in conversation["messages"]
        if message.get("role") == "user"
    ]
    if conversation["task"] == "compact":  # the last one asks for the summary
        return "So far you said: " + " / ".join(questions[:-1])
    return f"You said: {questions[-1]}"


def main() -> None:
    """Read the conversation, take the time that was asked for, and print the answer."""
    conversation = json.loads(sys.stdin.buffer.read())
    time.sleep(float(sys.argv[1]))
    sys.stdout.buffer.write(answer(conversation).encode(errors="backslashreplace") + b"\n")


if __name__ == "__main__":
    main()
