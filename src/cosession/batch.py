"""What waiting operations do to the file, one behind the other, before a byte is written. Pure.

Operations that were waiting at the same moment go out in one write. They stay separate: each is
planned behind what the ones before it lead to, and has a result of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .edits import Add, Edit, Step, plan_edit
from .errors import Conflict
from .history import Decoder
from .records import Outcome, Revision
from .state import State
from .values import replace, value


@value
class Request:
    """One operation, ready to be committed: its records are encoded. It never changes."""

    name: str
    steps: tuple[Step, ...]
    expect: Revision | None = None
    turn: int = 0
    """The turn that it is part of; 0 if none."""
    joined: bool = False
    """Whether that is another process's, which alone can tell it from one that is over."""
    any_time: bool = False
    """Whether somebody else's turn is no obstacle: a token count carries no order."""
    begins: Callable[[Revision], int] | None = None
    """Makes the card of a turn that begins with this operation, and returns the turn's number."""
    ends: bool = False
    """Whether the turn that is on is over behind this operation."""
    settles: int = 0
    """The interrupted turn that this operation decides about; no other one."""
    alone: bool = False
    """Whether the caller has the turn's lock: then a turn that is on was interrupted."""
    apart: bool = False
    """Whether its steps, all of them appends, are operations of their own to those who asked."""
    decode: Decoder | None = None
    """What a conflict shows the records with that came in."""

    @property
    def appends(self) -> Sequence[tuple[bytes, ...]]:
        """The records of each append, if it does nothing else, whatever comes before, outside of
        any turn; else nothing.
        """
        if self.turn or self.expect is not None or self.begins or self.settles or self.alone:
            return ()
        steps = self.steps
        if self.apart or (len(steps) == 1 and isinstance(steps[0], Add)):
            return [step.lines for step in steps if isinstance(step, Add)]
        return ()


Result = Outcome | Exception


@value
class Own:
    """What this handle has written in its turn, with nobody else's messages in between.

    Whoever expects a revision of its course knows all of it, and so expects its end.
    """

    turn: int
    start: Revision
    end: Revision

    def __contains__(self, revision: Revision) -> bool:
        return self.start <= revision <= self.end


class Batch:
    """Appends that go out in one write, and the state that they would lead to."""

    def __init__(self, generation: int, state: State, own: Own) -> None:
        self.state = state
        self.own = own
        self.lines: list[bytes] = []
        self.outcomes: dict[int, Outcome] = {}
        self.name = ""
        self._generation = generation

    @property
    def revision(self) -> Revision:
        return Revision(self._generation, self.state.position)

    def plan(self, request: Request, path: str) -> Edit:
        """What the request does behind the batch so far.

        Raises:
            Conflict: It expects an older revision.
            UnknownCheckpoint: It reverts to one that isn't there.
        """
        self._require_expected(request, path)
        return plan_edit(self.state, request.steps, path=path)

    def _require_expected(self, request: Request, path: str) -> None:
        expect, current = request.expect, self.revision
        if expect is None or self._is_own(request, expect):
            return
        known = expect.generation == current.generation and expect.position <= current.position
        new = self.state.messages_since(expect.position) if known else None
        if new == 0:
            return
        assert request.decode is not None
        start = expect.position if known else 0
        records = partial(self.state.records_since, start, request.decode)
        raise Conflict(path, expect, current, new, records)

    def _is_own(self, request: Request, expect: Revision) -> bool:
        """Whether what came since is the turn's own."""
        own = self.own
        if not request.turn or request.turn != own.turn:
            return False
        if expect.generation == own.start.generation and expect < own.start:
            since = self.state.messages_since
            if own.start.generation != self._generation:
                return False
            return since(expect.position) == since(own.start.position)
        return expect in own

    def add(self, number: int, request: Request, edit: Edit) -> None:
        self.state = edit.state
        self.lines += edit.lines
        self.name = self.name or request.name
        if request.turn:
            self.own = replace(self.own, end=self.revision)
        self.outcomes[number] = Outcome(self.revision, edit.checkpoints)

    def shifted(self, by: int) -> dict[int, Outcome]:
        """The outcomes, if foreign lines of so many bytes came to lie before ours."""
        if not by:
            return self.outcomes
        return {
            number: replace(
                outcome, revision=Revision(self._generation, outcome.revision.position + by)
            )
            for number, outcome in self.outcomes.items()
        }
