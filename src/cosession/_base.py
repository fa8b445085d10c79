"""What the asynchronous and the blocking session have in common: everything but the waiting."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from . import _fork, files, lineage
from . import _json as json
from .batch import Request
from .codec import (
    Checkpoint,
    Origin,
    SystemPrompt,
    Unknown,
    Usage,
    encode_system_prompt,
    encode_usage,
)
from .commits import CommitQueue
from .edits import Add, AddCheckpoint, CutTo, Restore, SetSystemPrompt, Step
from .errors import (
    InvalidMessage,
    ReadOnlySession,
    SessionClosed,
    TurnHeld,
    TurnInterrupted,
    TurnTimeout,
    UnknownCheckpoint,
    UnknownRevision,
    UnknownRotation,
)
from .files import translated
from .history import Decoder, History, Prover
from .plain import encode_plain
from .records import Damage, Fork, Holder, Outcome, Repair, Revision, TurnCard, TurnStatus
from .state import State
from .store import Store
from .values import replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Self, TypeGuard

    from pydantic import TypeAdapter

    from .messages import MessageCodec

T = TypeVar("T")

INTERRUPTED = "No result: the program that made this call ended before it had one."
"""The content of a result that closes a tool call of an interrupted turn."""

_NO_MESSAGES = (SystemPrompt, Usage, Checkpoint, Origin, Unknown, Damage)
"""What a state's records are that no message type has decoded."""

Durability = Literal["process", "power"]
DuringTurn = Literal["wait", "raise"]
OnConflict = Literal["raise", "rebase", "fork"]


class SessionBase(Generic[T]):
    """The state of a session, as of its last operation or `refresh`, and how to name changes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        message_type: type[T] | TypeAdapter[T] | None = None,
        durability: Durability = "process",
        create: bool = True,
        read_only: bool = False,
        lock_dir: str | os.PathLike[str] | None = None,
        during_turn: DuringTurn = "wait",
    ) -> None:
        """Name a session file. Nothing is touched before it is opened.

        Args:
            path: The session's file. Links are followed.
            message_type: A pydantic model or `TypeAdapter`; `cosession.Message` by default.
            durability: What an acknowledged operation survives: the death of this process, or
                also a power cut (a sync to the disk in every operation).
            create: Whether to make the file if it is missing. Its folder must be there.
            read_only: Never lock and never write, not even to heal.
            lock_dir: A folder for the lock file, where the session's own folder can't hold one.
                Every process on the session must name the same.
            during_turn: What a call does that meets another terminal's turn: wait for its end,
                or raise `TurnHeld` at once, whatever its `timeout`. Token counts and reading never
                wait.
        """
        if during_turn not in ("wait", "raise"):
            raise ValueError(f"during_turn must be 'wait' or 'raise', not {during_turn!r}")
        if durability not in ("process", "power"):
            raise ValueError(f"durability must be 'process' or 'power', not {durability!r}")
        self._store = Store(
            path,
            durable=durability == "power",
            create=create,
            read_only=read_only,
            lock_dir=lock_dir,
        )
        self._options: dict[str, Any] = {
            "message_type": message_type,
            "durability": durability,
            "read_only": read_only,
            "lock_dir": lock_dir,
            "during_turn": during_turn,
        }
        self._during_turn = during_turn
        self._turn = 0
        """The number of the turn that this object has; 0 if it has none."""
        self._joined = False
        """Whether that turn is another process's."""
        self._queue: CommitQueue | None = None
        self._opening = threading.RLock()
        self._owner = os.getpid()
        _fork.watch(self)
        self._message_type = message_type
        self._codec_: MessageCodec[Any] | None = None

    # ---- opening and closing ----------------------------------------------------------------

    def _open(self) -> CommitQueue:
        """Open the file, with a store of its own: the last one may have a thread asleep on it."""
        try:
            if not self._opening.acquire(blocking=False):
                raise SessionClosed(f"{self.path}: the session is being opened already")
            if self._queue is not None:
                raise SessionClosed(f"{self.path}: the session is open already")
            store = self._store.fresh()
            try:
                store.open()
                self._store, self._queue = store, CommitQueue(store)
            except BaseException:
                store.close()
                raise
            self._owner = os.getpid()
            return self._queue
        finally:
            try:
                self._opening.release()
            except RuntimeError:
                pass  # another thread has it

    def _forget_queue(self, queue: CommitQueue) -> None:
        if self._queue is queue:
            self._queue = None

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        queue = self.__dict__.get("_queue")
        if queue is None or is_finalizing() or self._owner != os.getpid():
            return
        if self._warns_unclosed:
            message = f"the session {self._store.path} was not closed"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        queue.abandon()

    _warns_unclosed = True

    def after_fork_in_child(self) -> None:
        self._opening = threading.RLock()
        if not self._joined:
            self._turn = 0  # it is the parent's

    # ---- the state --------------------------------------------------------------------------

    @property
    def _state(self) -> State:
        if self._queue is not None and self._store.knows_nothing:
            self._queue.look()  # Ctrl-C or a fork made us drop what we knew
        return self._store.state

    @property
    def path(self) -> Path:
        """The session's file, absolute, links followed."""
        return as_path(self._store.path)

    @property
    def history(self) -> History[T]:
        """The messages, oldest first, as of `revision`. They are decoded when they are looked at.

        The last few by themselves. For anything else, `len(session.history)` included, every line
        is looked at, and for a message type of one's own decoded.
        """
        return self._state.messages(self._decode, self._proves)

    @property
    def system_prompt(self) -> str | None:
        return self._state.system_prompt

    @property
    def token_count(self) -> int:
        """The last recorded count; 0 if there is none."""
        return self._state.token_count

    @property
    def history_after_usage(self) -> Sequence[T]:
        """The messages that the token count doesn't cover yet."""
        state = self._state
        return state.log.messages_between(
            state.messages_at_usage, state.message_count, self._decode
        )

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The checkpoints that can be reverted to, oldest first."""
        return self._state.checkpoints()

    @property
    def next_checkpoint(self) -> int:
        """The number that the next checkpoint will get, unless another process is faster."""
        return self._state.next_checkpoint

    @property
    def revision(self) -> Revision:
        """Where in the file this state stands; what `expect=` takes."""
        _ = self._state
        return self._store.revision

    @property
    def damage(self) -> tuple[Damage, ...]:
        """The lines that can't be used, in their order. Looks at every line."""
        state = self._state
        undecodable = state.log.damage(state.message_count, self._decode, self._proves)
        return tuple(sorted(state.damaged_lines() + undecodable, key=lambda line: line.offset))

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """Unfinished writes of dead processes that this object found and undid."""
        return self._store.repairs

    @property
    def holder(self) -> Holder | None:
        """Whose turn it is: a live terminal, this one included, with the turn's label as operation.

        Looks at the lock files; takes some ten microseconds, and waits for nobody.
        """
        card = self._store.turn_that_is_on()
        return card.holder if card and self._store.turns.held() else None

    def present(self, label: str = "") -> AbstractContextManager[None]:
        """Be on the list of this session's terminals for as long as the block lasts."""
        from .presence import present

        return present(self._store.path, label)

    def terminals(self) -> list[Holder]:
        """The live terminals on this session that are `present`, the longest there first."""
        from .presence import terminals

        return terminals(self._store.path)

    def waiting(self) -> list[Holder]:
        """Who waits for the turn for longer than a moment, the longest waiting first."""
        from .presence import terminals

        return terminals(self._store.path, kind="waiting")

    def _turn_status(self) -> TurnStatus | None:
        card = self._store.turn_that_is_on()
        if card is None or not self._store.turns.held():
            return None
        same = card.began.generation == self._store.generation
        records = self._store.state.count_since(card.began.position) if same else None
        return TurnStatus(card.holder, card.began, records, tuple(self.waiting()))

    def join_turn(self, key: str | None) -> bool:
        """Write in a turn that another process has, as its child: `key` is that turn's `key`.

            session.join_turn(os.environ.get("COSESSION_TURN"))  # as `cosession hold` sets it

        From then on all that this object writes is part of that turn, and raises `TurnOver` once
        it is over: at its end, or, if its process died, when somebody has settled it.

        Returns:
            Whether it is a turn of this session. Nothing happens if it isn't, or `key` is `None`.
        """
        token, _, path = (key or "").partition(":")
        if path != self._store.path or not token.isdecimal():
            return False
        self._turn, self._joined = int(token), True
        return True

    def _turn_held(self) -> TurnTimeout:
        """What to tell who tries once: that is a timeout like any other."""
        return self._turn_timeout(0.0)

    def _turn_timeout(self, waited: float) -> TurnTimeout:
        return TurnTimeout(self._store.path, waited, self.holder)

    def _ask_for_turn(self, label: str) -> Holder | None:
        card = self._store.turn_that_is_on()
        if card is None:
            return None
        with translated(self._store.turns.path, "ask for the turn"):
            self._store.turns.ask(card.token, label)
        return card.holder

    def _refusal(self, held: TurnHeld) -> TurnHeld | TurnTimeout | TurnInterrupted:
        """What to tell who would not wait for a turn: if nobody has it, waiting is no use."""
        card = self._interrupted_card()
        if card is not None:
            return TurnInterrupted(self._store.path, card)
        return held if self._during_turn == "raise" else self._turn_held()

    def _interrupted_card(self) -> TurnCard | None:
        card = self._store.turn_that_is_on()
        if card is None or self._store.turns.held():
            return None
        # It may have ended between the two looks: its number goes before its lock does.
        still = self._store.turn_that_is_on()
        return card if still is not None and still.token == card.token else None

    @property
    def _codec(self) -> MessageCodec[Any]:
        if self._codec_ is None:
            from .messages import Message, MessageCodec

            self._codec_ = MessageCodec(self._message_type or Message)
        return self._codec_

    def _make_codec(self) -> None:
        """Import what messages need, and make the codec. Takes a while; on any thread."""
        _ = self._codec

    # ---- requests ---------------------------------------------------------------------------

    def _request(self, name: str, expect: Revision | None, *steps: Step) -> Request:
        if self._store.read_only:
            raise ReadOnlySession(self._store.path)
        if expect is not None and not isinstance(expect, Revision):
            raise TypeError(f"expect is a Revision, not {type(expect).__name__}")
        return Request(
            name, steps, expect, turn=self._turn, joined=self._joined, decode=self._decode
        )

    def _usage_request(self, token_count: int, expect: Revision | None) -> Request:
        return replace(self._request("record usage", expect, usage(token_count)), any_time=True)

    @property
    def _decode(self) -> Decoder:
        """Decodes message lines. Nobody who keeps it keeps the session, as soon as that can be."""
        return self._decode_late if self._codec_ is None else self._codec_.decode

    @property
    def _proves(self) -> Prover:
        return self._proves_late if self._codec_ is None else self._codec_.proves

    def _proves_late(self, text: bytes) -> bool:
        return self._codec.proves(text)

    def _decode_late(self, lines: Sequence[bytes]) -> Sequence[Any]:
        return self._codec.decode(lines)

    def _expectation(self, expect: Revision | None, on_conflict: OnConflict) -> Revision | None:
        """What a request expects under this policy."""
        if on_conflict not in ("raise", "rebase", "fork"):
            raise ValueError(
                f"on_conflict must be 'raise', 'rebase' or 'fork', not {on_conflict!r}"
            )
        return None if on_conflict == "rebase" else expect

    def _restoring(self, number: int) -> Restore:
        """The step that brings a rotated file back. Looks at the folder."""
        with translated(self._store.path, "look for the rotated file"):
            known = dict(files.rotations(self._store.path))
            if number not in known:
                raise UnknownRotation(self._store.path, number, tuple(known))
            return Restore(known[number], os.stat(known[number]).st_size)

    def _back_to(self, began: Revision) -> CutTo | Restore:
        """The step that takes the session back to where a turn began."""
        if began.generation == self.revision.generation:
            return CutTo(began.position)
        # The turn itself has replaced the file: the one that it found is a rotated one.
        source = lineage.file_of(self._store.path, began)
        if source is None:
            raise UnknownRevision(self._store.path, began, "no file is known to hold it")
        return Restore(source, began.position)

    def _fork_now(
        self,
        path: str | os.PathLike[str] | None,
        at: int | Revision | None,
        lines: Sequence[bytes] = (),
    ) -> Fork:
        from . import transfer

        return transfer.fork(self._store, path, self._as_revision(at), lines)

    def _as_revision(self, at: int | Revision | None) -> Revision:
        if isinstance(at, Revision):
            return at
        revision, state = self.revision, self._store.state
        if at is None:
            return revision
        offset = state.checkpoint_offset(at)
        if offset is None:
            raise UnknownCheckpoint(self._store.path, at, state.checkpoints())
        return Revision(revision.generation, offset)

    def _on(self, fork: Fork) -> Self:
        """A session like this one on a fork of it."""
        session = type(self)(fork.path, create=False, **self._options)
        session._codec_ = self._codec_
        return session

    def _closing(self, began: Revision) -> Add:
        """Results for the tool calls since then that have none, saying so; encoded."""
        codec = self._codec
        start = began.position if began.generation == self.revision.generation else 0
        open_calls: dict[str, None] = {}
        for record in self._store.state.records_since(start, codec.decode):
            if isinstance(record, _NO_MESSAGES):
                continue
            match json.loads(codec.encode(record)):
                case {"tool_calls": list(calls)}:
                    open_calls |= {
                        call["id"]: None
                        for call in calls
                        if isinstance(call, dict) and isinstance(call.get("id"), str)
                    }
                case {"role": "tool", "tool_call_id": str(answered)}:
                    open_calls.pop(answered, None)
        return Add(
            tuple(
                codec.encode({"role": "tool", "tool_call_id": call, "content": INTERRUPTED})
                for call in open_calls
            )
        )

    def _add(self, messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]]) -> Add:
        """Encode one message or several, before any lock is taken."""
        if _are_many(messages):
            return Add(tuple(self._encode(m, i) for i, m in enumerate(messages)))
        return Add((self._encode(messages),))

    def _add_at_once(
        self, messages: T | Mapping[str, Any] | Sequence[T | Mapping[str, Any]]
    ) -> Add | None:
        """The same; None if the codec has to be made for it, which takes a while."""
        if self._codec_ is not None:
            return self._add(messages)
        if self._message_type is not None:
            return None
        many = messages if _are_many(messages) else (messages,)
        lines = [line for message in many if (line := encode_plain(message)) is not None]
        return Add(tuple(lines)) if len(lines) == len(many) else None

    def _encode(self, message: object, index: int | None = None) -> bytes:
        codec = self._codec_
        if codec is None:
            if self._message_type is None and (line := encode_plain(message)) is not None:
                return line  # spares a small program the import of pydantic
            codec = self._codec
        return codec.encode(message, index)

    def _add_checkpoint(self, then: Callable[[int], T] | None) -> AddCheckpoint:
        if then is None:
            return AddCheckpoint()
        return AddCheckpoint(lambda number: (self._encode(then(number)),))


def _are_many(messages: object) -> TypeGuard[Sequence[object]]:
    if type(messages) is dict:  # and the answer is near
        return False
    return isinstance(messages, Sequence) and not isinstance(messages, str | bytes | bytearray)


def usage(token_count: int) -> Add:
    if not _is_whole(token_count):
        raise InvalidMessage(f"a token count is a whole number, not {token_count!r}")
    if abs(token_count) >= 1 << 63:
        raise InvalidMessage("a token count has at most 63 bits")
    return Add((encode_usage(token_count),))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def system_prompt(text: str) -> SetSystemPrompt:
    if not isinstance(text, str):
        raise InvalidMessage(f"a system prompt is a string, not {type(text).__name__}")
    return SetSystemPrompt(encode_system_prompt(text))


def rotated_path(outcome: Outcome) -> Path | None:
    return None if outcome.rotated is None else as_path(outcome.rotated)


def as_path(path: str) -> Path:
    """The path, for callers; a program that never asks for one is spared the import."""
    from pathlib import Path

    return Path(path)
