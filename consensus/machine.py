"""The one shape that both consensus machines have: inputs in, effects out (after etcd's ``Ready``).

The shell that drives a machine keeps this order:

1. ``step(sender, message, now_ns)`` or ``tick(now_ns)`` or a proposal;
2. ``ready = take_ready()``; nothing happens when it is ``empty``;
3. send ``ready.send_now``; make ``ready.records`` durable, in the order in which the Readys were taken;
4. only then send ``ready.send_after_sync`` and call ``persisted(ready)``, and go on with 2;
5. ``ready.committed`` may be applied at once: what it holds is durable on a quorum.

Promises (votes, acknowledgements, signed phases) sit in ``send_after_sync`` by type, so that no discipline is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from protocol.messages import CommittedSlot, Entry, Message, SignedCommand

BROADCAST: Final = -1
"""Destination: every other voter."""


class HardState(msgspec.Struct, frozen=True, gc=False):
    """Raft's persistent term and vote (figure 2). ``voted_for`` is -1 for nobody."""

    term: int
    voted_for: int


@dataclass(frozen=True, slots=True)
class LogAppend:
    """Write these entries; whatever stood at or after the first one's index is gone."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The application's state after the entry at ``index``, in place of the log up to there (paper, section 7)."""

    index: int
    term: int
    """Of the entry at ``index``."""
    membership: bytes
    """Who votes and who learns, as of ``index``."""
    digest: bytes
    """Over everything else, 32 bytes."""
    data: bytes
    """Opaque to everybody but the application."""


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """Keep this snapshot in place of any earlier one."""

    snapshot: Snapshot
    restarts_log: bool
    """True: the whole log is gone with it, and goes on after ``snapshot.index``."""


@dataclass(frozen=True, slots=True)
class Compact:
    """Entries up to ``index`` are no longer needed. The log begins after ``index``, whose entry has this ``term``."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class SignedPhase:
    """A PBFT promise that is about to leave: never sign another digest for the same (view, sequence, phase)."""

    view: int
    sequence: int
    phase: str
    digest: bytes
    commands: tuple[SignedCommand, ...]
    """The slot's commands; empty for a COMMIT, whose commands were recorded with PREPARE or PRE-PREPARE."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class SlotCommit:
    """A slot that is decided, with its certificate."""

    slot: CommittedSlot


@dataclass(frozen=True, slots=True)
class VoteCast:
    """A risk verdict that is about to leave, with the budget it debits. Kept so that it is repeated, not redone."""

    path: int
    digest: bytes
    body: bytes
    """The encoded verdict; opaque to the storage."""


Record = HardState | LogAppend | SnapshotRecord | Compact | SignedPhase | SlotCommit | VoteCast


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    destination: int
    """Roster position, or ``BROADCAST``."""
    message: Message


class ReadResult(msgspec.Struct, frozen=True, gc=False):
    """Raft: the answer to ``read``. Once entries up to ``index`` are applied here, the state is fresh enough for it."""

    request: int
    index: int | None
    """None when it was refused; nothing was promised then, and the reader may ask again."""
    reason: str = ""


class Ready(msgspec.Struct):
    """Effects of one drain, in the order in which the shell must perform them."""

    records: list[Record] = msgspec.field(default_factory=list)
    send_now: list[Outgoing] = msgspec.field(default_factory=list)
    send_after_sync: list[Outgoing] = msgspec.field(default_factory=list)
    committed_entries: list[Entry] = msgspec.field(default_factory=list)
    """Raft: newly committed, in log order, each exactly once per process life (from the first one after a restart)."""
    committed_slots: list[CommittedSlot] = msgspec.field(default_factory=list)
    """PBFT: newly decided, in sequence order without gaps, each exactly once per process life."""
    reads: list[ReadResult] = msgspec.field(default_factory=list)
    snapshot: Snapshot | None = None
    """Raft: restore the application from this before anything else; ``committed_entries`` go on after it."""

    @property
    def empty(self) -> bool:
        sends = self.send_now or self.send_after_sync
        committed = self.committed_entries or self.committed_slots
        return not (self.records or sends or committed or self.reads or self.snapshot)


class Machine(Protocol):
    """What the runner, the simulator and a recorder rely on."""

    def step(self, sender: int, message: Message, now_ns: int) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def take_ready(self) -> Ready: ...
    def persisted(self, ready: Ready) -> None: ...
    def next_deadline_ns(self) -> int | None: ...
