"""The messages that everybody stores, and the check that they are all there afterwards.

1. A message says who wrote it and how many that writer wrote before it, and is made of nothing
   else that could differ: so whether one is whole shows by making it again.
2. A message is lost if its append returned and it isn't there; torn if something is there that is
   no message; repeated if it is there twice; out of order if it stands behind a later one of the
   same writer.
3. A message whose append raised may be there or not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

SIZE = 400
"""Bytes of a message's line."""
ROW = len('{"role": "user", "content": ""}\n')
SENTENCE = "The terminal reads along while the other one's agent looks for it in the sources. "


@dataclass
class Written:
    """What became of one writer's appends, whose messages are numbered from 0."""

    count: int = 0
    refused: list[int] = field(default_factory=list)
    """Those whose append raised."""
    size: int = SIZE


@dataclass(frozen=True)
class Audit:
    """What is wrong with a file."""

    lost: int = 0
    torn: int = 0
    repeated: int = 0
    disordered: int = 0

    @property
    def clean(self) -> bool:
        return not any(asdict(self).values())

    def __str__(self) -> str:
        names = {"disordered": "out of order"}
        found = {names.get(name, name): count for name, count in asdict(self).items() if count}
        return ", ".join(f"{count} {name}" for name, count in found.items())

    def __add__(self, other: Audit) -> Audit:
        mine, theirs = asdict(self), asdict(other)
        return Audit(**{name: mine[name] + theirs[name] for name in mine})


class Maker:
    """Makes messages of one size. What is made for each is a name, put in front of a filling."""

    def __init__(self, size: int = SIZE) -> None:
        self._filling = (SENTENCE * (size // len(SENTENCE) + 1))[: max(size - ROW - 10, 1)]

    def content(self, writer: int, number: int) -> str:
        return f"{writer} {number:07} {self._filling}"

    def message(self, writer: int, number: int) -> dict[str, str]:
        content = f"{writer} {number:07} {self._filling}"  # as above, and quicker
        return {"role": "user", "content": content}

    def messages(self, count: int, *, writer: int = 0) -> Iterator[dict[str, str]]:
        return (self.message(writer, number) for number in range(count))


def audit(stored: Iterable[str | None], written: Mapping[int, Written]) -> Audit:
    """Compare what is stored with what was acknowledged."""
    makers = {writer: Maker(log.size) for writer, log in written.items()}
    seen: Counter[tuple[int, int]] = Counter()
    last: dict[int, int] = {}
    torn = disordered = 0
    for content in stored:
        named = re.match(r"(\d+) (\d+) ", content or "")
        writer, number = map(int, named.groups()) if named else (-1, -1)
        if writer not in written or content != makers[writer].content(writer, number):
            torn += 1
            continue
        seen[writer, number] += 1
        disordered += number < last.get(writer, -1)
        last[writer] = max(number, last.get(writer, -1))
    lost = sum(
        (writer, number) not in seen
        for writer, log in written.items()
        for number in set(range(log.count)).difference(log.refused)
    )
    return Audit(lost, torn, sum(count - 1 for count in seen.values()), disordered)
