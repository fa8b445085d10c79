"""The state machine: the same things done to the library and to the list, then compared.

1. Four handles: blocking and asynchronous writers, one of each kind of reader, all in this process,
   so that an example is nothing but its steps. No call waits: `timeout=0`.
2. Other programs append whole, half and damaged lines, put another file in the session's place,
   write over it, and take the lock file away.
3. A terminal that dies in its turn is one whose turn lock is closed with nothing said; what else a
   death leaves behind is the matter of the crash tests.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bad.soundness import assert_memory_is_file
from cosession import (
    BlockingSession,
    Conflict,
    CosessionError,
    Fork,
    ReadOnlySession,
    Revision,
    Session,
    TurnHeld,
    TurnInterrupted,
    TurnTimeout,
    UnknownCheckpoint,
    UnknownRevision,
    UnknownRotation,
)
from cosession.files import rotated_name, rotations

from .reference import (
    Effect,
    Line,
    NoCheckpoint,
    Point,
    Record,
    Reference,
    Step,
    is_message,
    parse,
    role,
)

WRITERS = ("blocking", "asynchronous", "impatient")
READERS = ("blocking reader", "asynchronous reader")
OPTIONS: dict[str, dict[str, Any]] = {
    "blocking": {},
    "asynchronous": {},
    "impatient": {"during_turn": "raise"},
    "blocking reader": {"read_only": True, "create": False},
    "asynchronous reader": {"read_only": True, "create": False},
}

handles = st.sampled_from(WRITERS * 3 + READERS)
"""Readers are refused most things, so they get less to do."""
writers = st.sampled_from(WRITERS)
expectations = st.sampled_from([*[None] * 6, 0, 0, 1, 3])
"""Which of the revisions that were seen, counted from the latest; mostly none."""
texts = st.sampled_from(["", "x", "ünïcode", "\ud800", "two\nlines", "long " * 40])
step_kinds = st.sampled_from(
    ["append", "append", "checkpoint", "usage", "prompt", "revert", "clear"]
)


class Handle:
    """One session object, called the same way whichever kind it is."""

    def __init__(self, name: str, path: Path, runner: asyncio.Runner) -> None:
        self.name = name
        self.read_only = name in READERS
        self._runner = runner
        self._asynchronous = name.startswith("asynchronous")
        kind: Any = Session if self._asynchronous else BlockingSession
        self.session: Any = kind(path, **OPTIONS[name])
        self.known: Point | None = None
        self.revision: Revision | None = None
        self.turn: Any = None
        self.turn_manager: Any = None
        self.call("open")

    @property
    def token(self) -> int:
        return int(self.session._turn)

    def wait(self, value: Any) -> Any:
        """What a call returned, of either kind."""
        return self._runner.run(_awaited(value)) if hasattr(value, "__await__") else value

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        return self.wait(getattr(self.session, name)(*args, **options))

    def enter(self, manager: Any) -> Any:
        return self.wait(manager.__aenter__() if self._asynchronous else manager.__enter__())

    def leave(self, manager: Any) -> None:
        nothing = (None, None, None)
        if self._asynchronous:
            self.wait(manager.__aexit__(*nothing))
        else:
            manager.__exit__(*nothing)

    def transact(self, steps: list[Step], **options: Any) -> Any:
        manager = self.session.transaction(timeout=0, **options)
        transaction = self.enter(manager)
        for step in steps:
            match step.kind:
                case "append":
                    transaction.append(list(step.records))
                case "checkpoint":
                    transaction.checkpoint()
                case "usage":
                    transaction.record_usage(step.records[0]["token_count"])
                case "prompt":
                    transaction.set_system_prompt(step.records[0]["content"])
                case "revert":
                    transaction.revert_to(step.number)
                case "clear":
                    transaction.clear()
        self.leave(manager)
        return transaction


async def _awaited(value: Any) -> Any:
    return await value


class SessionMachine(RuleBasedStateMachine):
    """Every operation on several handles of one file, and on the list."""

    counts: dict[str, int] = {}  # noqa: RUF012 - over all examples
    """How often which operation was compared, and with what result."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cosession-model-"))
        self.path = self.folder / "context.jsonl"
        self.model = Reference()
        self.runner = asyncio.Runner()
        self.handles: dict[str, Handle] = {}
        for name in WRITERS + READERS:
            self.handles[name] = Handle(name, self.path, self.runner)
        self.numbers = 0
        self.seen: list[tuple[Revision, Point]] = []
        """Revisions that somebody was told, and what they stand for."""
        self.generations: dict[int, int] = {}
        self.began: Point | None = None
        """Where the turn that is on began."""
        self.interrupted = False
        self.check_everything()

    def teardown(self) -> None:
        for handle in self.handles.values():
            if handle.turn_manager is not None:
                handle.leave(handle.turn_manager)
            handle.call("close")
        self.runner.close()
        shutil.rmtree(self.folder)

    # ---- one operation ----------------------------------------------------------------------

    def message(self, text: str = "") -> Record:
        self.numbers += 1
        return {"role": "user", "content": f"m{self.numbers} {text}"}

    @property
    def owner(self) -> Handle | None:
        """Whose turn it is."""
        return next((one for one in self.handles.values() if one.turn is not None), None)

    def expected(self, which: int | None) -> tuple[Revision | None, Point | None]:
        if which is None or not self.seen:
            return None, None
        return self.seen[max(-len(self.seen), -1 - which)]

    def write(
        self,
        name: str,
        handle: Handle,
        call: Callable[[], Any],
        change: Callable[[], Any],
        *,
        expect: Point | None = None,
        any_time: bool = False,
    ) -> Any:
        """Do something that takes the lock to both; what the library returned, if it did.

        `change` does it to the list, and returns what the library is to return, or raises
        what it is to raise. The caller compares the two.
        """
        outcome: Any = None
        doubt = False
        if handle.read_only:
            wrong: type[Exception] | None = ReadOnlySession
        else:
            self.model.close_tail()
            wrong = self.refusal(handle, any_time=any_time)
            if wrong is None and expect is not None:
                conflict = self.model.conflicts(expect, handle.token)
                doubt = conflict is None
                wrong = Conflict if conflict else None
        try:
            outcome = call()
        except CosessionError as error:
            self.count(name, type(error).__name__)
            if isinstance(error, Conflict) and doubt:
                return None
            if wrong is None:
                with_what = self.raised(change)
                assert isinstance(error, with_what), f"{name}: {error!r}, not {with_what.__name__}"
            else:
                assert type(error) is wrong, f"{name}: {error!r}, not {wrong.__name__}"
            return None
        self.count(name, "done")
        assert wrong is None, f"{name} was done; it had to raise {wrong}"
        due = change()
        assert outcome == due, f"{name} returned {outcome}, not {due}"
        assert handle.session.revision.position == self.path.stat().st_size
        return outcome

    def raised(self, change: Callable[[], Any]) -> type[Exception]:
        """What the library is to raise where the list raises."""
        try:
            change()
        except NoCheckpoint:
            return UnknownCheckpoint
        except LookupError:
            return UnknownRevision
        raise AssertionError("the library refused what the list accepts")

    def refusal(self, handle: Handle, *, any_time: bool = False) -> type[Exception] | None:
        """What the turn that is on means for an operation of this handle."""
        if self.began is None or any_time or handle is self.owner:
            return None
        if self.interrupted:
            return TurnInterrupted
        return TurnHeld if handle.name == "impatient" else TurnTimeout

    def count(self, name: str, result: str) -> None:
        key = f"{name}: {result}"
        self.counts[key] = self.counts.get(key, 0) + 1

    # ---- rules: changing the session --------------------------------------------------------

    @rule(
        who=handles,
        size=st.sampled_from([None, 0, 1, 2, 3]),
        text=texts,
        which=expectations,
        policy=st.sampled_from(["raise", "raise", "rebase", "fork"]),
    )
    def append(self, who: str, size: int | None, text: str, which: int | None, policy: str) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        records = [self.message(text) for _ in range(1 if size is None else size)]
        given: Any = records[0] if size is None else records
        before = len(self.model.lines)

        def call() -> Any:
            return handle.call("append", given, timeout=0, expect=revision, on_conflict=policy)

        def change() -> Any:
            self.model.apply([Step("append", tuple(records))], handle.token)
            return handle.session.revision

        if policy != "fork" or point is None:
            expect = None if policy == "rebase" else point
            self.write("append", handle, call, change, expect=expect)
            return
        assert revision is not None
        self.model.close_tail()
        if handle.read_only or self.refusal(handle) or not self.conflicts(point, handle):
            self.write("append", handle, call, change)
            return
        self.forked(handle, call, point, [*records])
        assert len(self.model.lines) == before or not handle.read_only

    def conflicts(self, point: Point, handle: Handle) -> bool:
        """Whether it is a conflict; where nobody can say, the library does, in a call."""
        conflict = self.model.conflicts(point, handle.token)
        if conflict is not None:
            return conflict
        revision = next(r for r, p in self.seen if p is point)
        try:
            handle.call("append", [], timeout=0, expect=revision)
        except Conflict:
            return True
        return False

    @rule(who=handles, which=expectations, then=st.booleans())
    def checkpoint(self, who: str, which: int | None, then: bool) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        tag = self.message()["content"]

        def following(number: int) -> Record:
            return {"role": "user", "content": f"{tag} behind {number}"}

        def call() -> Any:
            follow: Any = following if then else None
            return handle.call("checkpoint", then=follow, timeout=0, expect=revision)

        def change() -> Any:
            step = Step("checkpoint", then=following if then else None)
            return self.model.apply([step], handle.token).checkpoints[0]

        self.write("checkpoint", handle, call, change, expect=point)

    @rule(who=handles, tokens=st.integers(0, 9999), which=expectations)
    def usage(self, who: str, tokens: int, which: int | None) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)

        def change() -> Any:
            self.model.apply([usage_step(tokens)])
            return handle.session.revision

        self.write(
            "record_usage",
            handle,
            lambda: handle.call("record_usage", tokens, timeout=0, expect=revision),
            change,
            expect=point,
            any_time=True,
        )

    @rule(who=handles, text=texts, which=expectations)
    def set_system_prompt(self, who: str, text: str, which: int | None) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        self.write(
            "set_system_prompt",
            handle,
            lambda: handle.call("set_system_prompt", text, timeout=0, expect=revision),
            lambda: self.rotation(self.model.apply([prompt_step(text)], handle.token)),
            expect=point,
        )

    @rule(who=handles, number=st.integers(0, 3), which=expectations)
    def revert(self, who: str, number: int, which: int | None) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        step = Step("revert", number=number)
        self.write(
            "revert_to",
            handle,
            lambda: handle.call("revert_to", number, timeout=0, expect=revision),
            lambda: self.rotation(self.model.apply([step], handle.token)),
            expect=point,
        )

    @rule(who=handles, which=expectations)
    def clear(self, who: str, which: int | None) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        self.write(
            "clear",
            handle,
            lambda: handle.call("clear", timeout=0, expect=revision),
            lambda: self.rotation(self.model.apply([Step("clear")], handle.token)),
            expect=point,
        )

    @rule(
        who=writers,
        which=expectations,
        kinds=st.lists(step_kinds, max_size=5),
        numbers=st.lists(st.integers(0, 3), min_size=5, max_size=5),
    )
    def transact(self, who: str, which: int | None, kinds: list[str], numbers: list[int]) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)
        steps = [self.step(kind, number) for kind, number in zip(kinds, numbers, strict=False)]

        def call() -> Any:
            done = handle.transact(steps, expect=revision)
            return done.checkpoints, done.rotated

        def change() -> Any:
            effect = self.model.apply(steps, handle.token)
            return effect.checkpoints, self.rotation(effect)

        self.write("transaction", handle, call, change, expect=point)

    def step(self, kind: str, number: int) -> Step:
        match kind:
            case "append":
                return Step("append", tuple(self.message() for _ in range(number)))
            case "usage":
                return usage_step(number)
            case "prompt":
                return prompt_step(f"prompt {number}")
            case "checkpoint":
                return Step("checkpoint")
            case "revert":
                return Step("revert", number=number)
        return Step("clear")

    def rotation(self, effect: Effect) -> Path | None:
        number = effect.rotated
        return None if number is None else Path(rotated_name(str(self.path), number))

    @rule(who=writers, number=st.integers(1, 4), which=expectations)
    def restore(self, who: str, number: int, which: int | None) -> None:
        handle = self.handles[who]
        revision, point = self.expected(which)

        def call() -> Any:
            return handle.call("restore", number, timeout=0, expect=revision)

        if number not in self.model.rotated:
            assert raises(call) is UnknownRotation
            self.count("restore", "UnknownRotation")
            return
        self.write(
            "restore",
            handle,
            call,
            lambda: self.rotation(Effect(rotated=self.model.restore(number, handle.token))),
            expect=point,
        )

    @rule(who=handles, at=st.sampled_from(["now", "revision", "checkpoint"]), n=st.integers(0, 5))
    def fork(self, who: str, at: str, n: int) -> None:
        handle = self.handles[who]
        point = handle.known
        assert point is not None
        given: Any = None
        if at == "revision" and self.seen:
            given, point = self.seen[max(-len(self.seen), -1 - n)]
        elif handle.session.revision.generation == 0:
            return  # a reader of a file whose lock file is lost: the revision names nothing
        elif at == "checkpoint":
            given = n % 4
            marks = [i for i, line in enumerate(point.lines) if _is_mark(line, given)]
            if not marks:
                assert raises(lambda: handle.call("fork", at=given)) is UnknownCheckpoint
                self.count("fork", "UnknownCheckpoint")
                return
            point = Point(point.epoch, point.lines[: marks[0]], 0)
        self.forked(handle, lambda: handle.call("fork", at=given), point, [])

    def forked(
        self, handle: Handle, call: Callable[[], Any], point: Point, new: list[Record]
    ) -> None:
        """Fork both, and compare the fork's file."""
        known = point.epoch == self.model.epoch or point.epoch in self.model.kept_as
        try:
            fork = call()
        except UnknownRevision:
            self.count("fork", "UnknownRevision")
            assert not known
            return
        assert isinstance(fork, Fork)
        self.count("fork", "done")
        assert known
        *lines, last = fork.path.read_bytes().split(b"\n")
        assert last == b""
        assert fork.parent == self.path
        origin = len(point.lines)
        assert [parse(line) for line in lines[:origin]] == list(point.lines)
        assert role(parse(lines[origin])) == "_fork"
        assert [parse(line) for line in lines[origin + 1 :]] == new
        for leftover in self.folder.glob(f"{fork.path.name}*"):
            leftover.unlink()

    # ---- rules: turns -----------------------------------------------------------------------

    @rule(
        who=writers,
        which=expectations,
        policy=st.sampled_from(["raise", "rebase"]),
    )
    def begin_turn(self, who: str, which: int | None, policy: str) -> None:
        handle = self.handles[who]
        if handle.turn is not None:
            return
        revision, point = self.expected(which)
        manager = handle.session.turn(who, timeout=0, expect=revision, on_conflict=policy)

        def call() -> Any:
            handle.turn = handle.enter(manager)
            handle.turn_manager = manager
            return handle.turn.began

        def change() -> Any:
            self.began = self.model.point()
            return handle.session.revision

        if self.owner is not None:  # found out before the lock is taken
            assert raises(call) is TurnTimeout
            self.count("turn", "TurnTimeout")
            return
        expect = None if policy == "rebase" else point
        self.write("turn", handle, call, change, expect=expect)

    @precondition(lambda self: self.owner is not None)
    @rule()
    def end_turn(self) -> None:
        owner = self.owner
        assert owner is not None
        self.model.close_tail()
        owner.leave(owner.turn_manager)
        owner.turn = owner.turn_manager = self.began = None
        self.count("turn", "ended")

    @precondition(lambda self: self.owner is not None)
    @rule(calls=st.integers(0, 2), answers=st.integers(0, 2))
    def write_in_turn(self, calls: int, answers: int) -> None:
        """A turn's own way to write: a call of tools, and some of its results."""
        owner = self.owner
        assert owner is not None
        question = self.message() | {"role": "assistant"}
        if calls:
            names = [f"{question['content']}/{number}" for number in range(calls)]
            question["tool_calls"] = [{"id": name} for name in names]
        records = [question]
        for name in [call["id"] for call in question.get("tool_calls", ())][:answers]:
            records.append({"role": "tool", "tool_call_id": name, "content": "42"})

        def change() -> Any:
            self.model.apply([Step("append", tuple(records))], owner.token)
            return owner.session.revision

        self.write("turn.append", owner, lambda: owner.wait(owner.turn.append(records)), change)

    @precondition(lambda self: self.owner is not None)
    @rule(which=st.integers(0, 4))
    def expect_in_turn(self, which: int) -> None:
        """What the turn itself has written since is no conflict, what others have is one."""
        owner = self.owner
        assert owner is not None
        record = self.message()
        revision, point = self.expected(which)

        def change() -> Any:
            self.model.apply([Step("append", (record,))], owner.token)
            return owner.session.revision

        def call() -> Any:
            return owner.call("append", record, timeout=0, expect=revision)

        self.write("append in a turn", owner, call, change, expect=point)

    @precondition(lambda self: self.owner is not None)
    @rule()
    def die_in_turn(self) -> None:
        """The kernel takes the lock of a dead process; nothing else happens."""
        owner = self.owner
        assert owner is not None
        owner.turn._is_over()
        owner.leave(owner.turn_manager)
        owner.turn = owner.turn_manager = None
        self.interrupted = True
        self.count("turn", "died")

    @precondition(lambda self: self.interrupted)
    @rule(who=writers, how=st.sampled_from(["keep", "keep open", "roll back"]))
    def settle_turn(self, who: str, how: str) -> None:
        handle = self.handles[who]
        began = self.began
        assert began is not None
        found = handle.session.interrupted
        assert found is not None
        self.model.close_tail()

        def call() -> Any:
            if how == "roll back":
                return handle.wait(found.roll_back(timeout=0))
            return handle.wait(found.keep(close_tool_calls=how == "keep", timeout=0))

        def change() -> Any:
            if how == "roll back":
                return self.rotation(Effect(rotated=self.model.roll_back(began)))
            if how == "keep":
                self.model.keep(began)
            return None

        self.interrupted = False
        waiting, self.began = self.began, None  # for whoever settles it, no turn is on
        self.write(how, handle, call, change)
        if handle.session.interrupted is not None:  # it could not be rolled back
            self.interrupted, self.began = True, waiting

    # ---- rules: reading ---------------------------------------------------------------------

    @rule(who=handles)
    def refresh(self, who: str) -> None:
        """Afterwards memory is all of the file, but for a line that somebody is just writing."""
        handle = self.handles[who]
        revision = handle.call("refresh")
        self.note_healing()
        assert revision == handle.session.revision
        assert revision.position == self.path.stat().st_size - len(self.model.tail)
        self.count("refresh", "done")

    @rule(who=handles)
    def reopen(self, who: str) -> None:
        """Closed and opened, a handle starts from the file."""
        handle = self.handles[who]
        if handle.turn is not None:
            return
        handle.call("close")
        handle.call("open")
        self.note_healing()
        assert handle.session.revision.position == self.path.stat().st_size - len(self.model.tail)
        self.count("open", "done")

    @rule(who=handles)
    def look_at_the_turn(self, who: str) -> None:
        """Everybody sees the same: who has the turn, or that it was interrupted."""
        session = self.handles[who].session
        assert (session.holder is not None) == (self.owner is not None)
        assert (session.interrupted is not None) == self.interrupted

    def note_healing(self) -> None:
        """Who looks ends an unfinished line if it gets the lock, which it need not."""
        if self.path.read_bytes().endswith(b"\n"):
            self.model.close_tail()

    # ---- rules: other programs --------------------------------------------------------------

    @rule(
        kind=st.sampled_from(
            ["message", "message", "rubbish", "torn", "invalid", "unknown", "checkpoint",
             "checkpoint",
             "usage", "prompt", "half", "open"]
        )
    )  # fmt: skip
    def append_foreign(self, kind: str) -> None:
        """A program without locks appends a line, or a piece of one."""
        self.numbers += 1
        data = {
            "message": '{"role": "user", "content": "f%d"}\n',
            "rubbish": "rubbish %d\n",
            "torn": '{"role": "user", "content": "f%d\n',
            "invalid": '{"role": "user", "content": %d}\n',
            "unknown": '{"role": "_note", "content": %d}\n',
            "checkpoint": '{"role": "_checkpoint", "id": 2, "by": %d}\n',
            "usage": '{"role": "_usage", "token_count": %d}\n',
            "prompt": '{"role": "_system_prompt", "content": "f%d"}\n',
            "half": '{"role": "user", "content": "f%d',
            "open": '{"role": "user", "content": "f%d"}',
        }[kind] % self.numbers
        with self.path.open("ab") as file:
            file.write(data.encode())
        self.age()
        self.model.append_foreign(data.encode())
        self.count("foreign append", kind)

    def age(self) -> None:
        """An unfinished line is closed at once if nobody has written to it for a while."""
        earlier = time.time() - 1
        os.utime(self.path, (earlier, earlier))

    @precondition(lambda self: self.path.stat().st_size > 0)
    @rule(size=st.integers(0, 4), in_place=st.booleans())
    def rewrite_foreign(self, size: int, in_place: bool) -> None:
        """A program without locks puts something else in the session's place."""
        lines: list[Line] = [self.message("rewritten") for _ in range(size)]
        data = b"".join(dump(line) for line in lines)
        if in_place:
            self.path.write_bytes(data)
        else:
            other = self.folder / "other"
            other.write_bytes(data)
            os.replace(other, self.path)
        with self.handles["blocking"].session._store.lock.peeking() as peek:
            header = peek() if peek else None
        if header is not None and header.committed == 0:
            # Nobody has adopted a line of it: that it was another one, nobody can know.
            self.seen = [pair for pair in self.seen if pair[1].epoch != self.model.epoch]
            self.generations.pop(self.model.epoch, None)
        self.model.rewrite_foreign(lines)
        self.count("foreign rewrite", "in place" if in_place else "replaced")

    @precondition(lambda self: self.began is None)
    @rule(how=st.sampled_from(["gone", "empty", "rubbish"]))
    def lose_the_lock_file(self, how: str) -> None:
        """Somebody deletes, empties or fills the lock file, while nobody has it."""
        lock = Path(f"{self.path}.lock")
        if how == "gone":
            with suppress(PermissionError):  # Windows has it open
                lock.unlink(missing_ok=True)
            if lock.exists():
                return
        else:
            lock.write_bytes(b"" if how == "empty" else os.urandom(600))
        self.model.forget_generation()
        self.count("lock file", how)

    # ---- what holds after every step --------------------------------------------------------

    @invariant()
    def check_everything(self) -> None:
        """The file is the list, and every handle's memory is the fold of a prefix of it."""
        data = self.path.read_bytes()
        *lines, tail = data.split(b"\n")
        assert [parse(line) for line in lines] == self.model.lines
        assert tail == self.model.tail
        self.check_rotated()
        for handle in self.handles.values():
            self.check_memory(handle, data)
        assert not [name for name in os.listdir(self.folder) if name.endswith((".tmp", ".torn"))]

    def check_rotated(self) -> None:
        found = {number: Path(path) for number, path in rotations(str(self.path))}
        assert set(found) == set(self.model.rotated)
        for number in sorted(found)[-2:]:  # the older ones were looked at before
            lines = found[number].read_bytes().split(b"\n")[:-1]
            assert [parse(line) for line in lines] == list(self.model.rotated[number])

    def check_memory(self, handle: Handle, data: bytes) -> None:
        revision = handle.session.revision
        if revision != handle.revision:
            # Somebody has looked: then it was at everything, and at this very file.
            assert revision.position == len(data) - len(self.model.tail)
            handle.known, handle.revision = self.model.point(), revision
            self.check_generation(revision)
            assert_memory_is_file(handle.session)
            if revision.generation:
                self.seen.append((revision, handle.known))
        assert handle.known is not None
        held = memory(handle.session)
        if revision.generation == 0 and held != folded(handle.known.lines):
            # A file without a lock file has no generation: rewritten, it may have the same length.
            handle.known = self.model.point()
        assert held == folded(handle.known.lines)

    def check_generation(self, revision: Revision) -> None:
        """Each epoch has one generation, and later ones have higher ones."""
        epoch, generation = self.model.epoch, revision.generation
        if generation == 0:
            return
        assert self.generations.setdefault(epoch, generation) == generation
        for other, its in self.generations.items():
            assert (other < epoch) == (its < generation)


def usage_step(tokens: int) -> Step:
    return Step("usage", ({"role": "_usage", "token_count": tokens},))


def prompt_step(text: str) -> Step:
    return Step("prompt", ({"role": "_system_prompt", "content": text},))


def dump(line: Line) -> bytes:
    import json

    return json.dumps(line).encode() + b"\n"


def _is_mark(line: Line, number: int) -> bool:
    return isinstance(line, dict) and role(line) == "_checkpoint" and line["id"] == number


def raises(call: Callable[[], Any]) -> type[Exception] | None:
    try:
        call()
    except CosessionError as error:
        return type(error)
    return None


def memory(session: Any) -> tuple[Any, ...]:
    """What a session object holds."""
    return (
        [message.model_dump(exclude_unset=True) for message in session.history],
        session.system_prompt,
        session.token_count,
        list(session.checkpoints),
        len(session.damage),
    )


def folded(lines: tuple[Line, ...]) -> tuple[Any, ...]:
    """What it is to hold."""
    prompt, tokens, marks, damaged = None, 0, [], 0
    messages = []
    for line in lines:
        match line:
            case bytes():
                damaged += 1
            case {"role": "_system_prompt", "content": prompt}:
                pass
            case {"role": "_usage", "token_count": tokens}:
                pass
            case {"role": "_checkpoint", "id": number}:
                marks.append(number)
            case _ if is_message(line):
                messages.append(line)
            case {"role": str(kind)} if not kind.startswith("_"):
                damaged += 1
    return messages, prompt, tokens, marks, damaged
