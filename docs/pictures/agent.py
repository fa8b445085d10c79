"""The agent in the picture: it knows two questions, and takes its time.

It speaks as any agent of `cosession chat` may (docs/chat.md): a record on each line, text last.
"""

import json
import sys
import time

ANSWERS = {
    "which test is red?": [
        "test_dates: since Sunday the export writes local time where it wrote UTC.",
    ],
    "fix that": [
        ("edit", {"file": "export.py", "line": 88}, "- datetime.now()\n+ datetime.now(UTC)"),
        ("run", {"command": "pytest -q"}, None),
    ],
}


def say(record: dict[str, object]) -> None:
    """Print a record."""
    print(json.dumps(record), flush=True)


def main() -> None:
    """Answer the last question."""
    question = json.load(sys.stdin)["messages"][-1]["content"]
    for number, step in enumerate(ANSWERS[question]):
        time.sleep(0.3)
        if isinstance(step, str):
            print(step)
            continue
        name, arguments, result = step
        call = {"name": name, "arguments": json.dumps(arguments)}
        calls = [{"id": f"c{number}", "type": "function", "function": call}]
        say({"role": "assistant", "content": None, "tool_calls": calls})
        time.sleep(0.3 if result else 600)  # the picture is taken meanwhile
        say({"role": "tool", "tool_call_id": f"c{number}", "content": result})


if __name__ == "__main__":
    main()
