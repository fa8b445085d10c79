"""Is there any order at all that explains a short history? Revisions are not looked at. Pure.

Wing and Gong's search: of the calls that no other one had to come before, take one after the other,
see if the list gives the result that was told, and go on from there. What was found to lead
nowhere is remembered: which calls had been taken, and what the list was then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass

from machine.reference import NoCheckpoint, Point, Reference

from .by_revision import view
from .history import Call, Round


@dataclass(frozen=True)
class Verdict:
    explained: bool
    looked_at: int
    """How many states."""


def search(found: Round) -> Verdict:
    """Look for an order. Between rounds nobody is at it, so each stands for itself.

    An `expect` is what the process knew behind its last call: in the first call of a round, what
    it knew before, which only a longer history can tell. Such a conflict is taken as it comes.
    """
    model = Reference()
    model.lines = list(found.start)
    model.rotated = {number + 1: () for number in range(found.rotations)}
    return _Search(found).run(model)


class _Search:
    def __init__(self, found: Round) -> None:
        self._calls = found.calls
        self._end = list(found.end)
        self._dead: set[tuple[frozenset[int], str]] = set()
        self._looked_at = 0

    def run(self, model: Reference) -> Verdict:
        explained = self._explain(frozenset(), model, {})
        return Verdict(explained, self._looked_at)

    def _explain(self, taken: frozenset[int], model: Reference, known: dict[str, Point]) -> bool:
        if len(taken) == len(self._calls):
            return model.lines == self._end
        key = taken, json.dumps([model.lines, sorted(self._stale(model, known))])
        if key in self._dead:
            return False
        self._looked_at += 1
        for number in self._next(taken):
            after = copy.copy(model)
            after.lines, after.events = list(model.lines), list(model.events)
            after.rotated, after.kept_as = dict(model.rotated), dict(model.kept_as)
            call = self._calls[number]
            if _fits(call, after, known.get(call.process)):
                now_known = known | {call.process: after.point()}
                if self._explain(taken | {number}, after, now_known):
                    return True
        self._dead.add(key)
        return False

    def _next(self, taken: frozenset[int]) -> Sequence[int]:
        """The calls that may come now: no other one that is left had returned before them."""
        left = [number for number in range(len(self._calls)) if number not in taken]
        soonest = min(self._calls[number].responded for number in left)
        return [number for number in left if self._calls[number].invoked <= soonest]

    def _stale(self, model: Reference, known: dict[str, Point]) -> list[str]:
        """Whose knowledge is out of date; nothing else of it matters."""
        return [name for name, point in known.items() if model.conflicts(point, 0)]


def _fits(call: Call, model: Reference, known: Point | None) -> bool:
    """Whether the list gives the same result; then it is changed."""
    if call.expect is not None and known is not None:
        conflict = bool(model.conflicts(known, 0))
        if conflict != (call.error == "Conflict"):
            return False
    if call.error == "Conflict":
        return True
    if call.kind == "read":
        return call.seen is not None and list(call.seen) == view(model.lines)
    try:
        effect = model.apply(call.steps)
    except NoCheckpoint:
        return call.error == "UnknownCheckpoint"
    return not call.error and (call.checkpoints, call.rotated) == (
        effect.checkpoints,
        effect.rotated,
    )
