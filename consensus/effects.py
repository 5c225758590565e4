"""What a replica remembers of a frame, and what it asks of its shell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from consensus.certificate import Certificate
from consensus.machine import Ready
from protocol.codes import Path
from protocol.messages import CommittedSlot, Frame, FrameVote, Outcome, SignedCommand, SliceGrant


class Debit(msgspec.Struct, frozen=True, array_like=True):
    """One intent's use of its slice, kept with the vote that signed it."""

    slice_id: int
    version: int
    trader: int
    intent: int
    symbol: int
    notional: int


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What this replica will say about a frame, for ever: the body of a ``VoteCast`` record."""

    denials: tuple[tuple[int, int], ...]
    debits: tuple[Debit, ...]


@dataclass(slots=True)
class FrameRecord:
    """A frame as one replica sees it."""

    digest: bytes
    command: SignedCommand
    frame: Frame
    opened_ns: int
    """When this replica first saw it; after a restart, when it looked at its log again."""
    submitted_ns: int
    """When it was last asked for: by its author, or by the order itself."""
    verdict: Verdict | None = None
    votes_nowhere: bool = False
    """A vote at position (0, 0) is wanted: the frame is on the spine, or its author coordinates first."""
    position: tuple[int, int] | None = None
    """(term, index) of its entry in our lane."""
    position_durable: bool = False
    proposed_term: int = 0
    """The term in which we, as leader, put it into the lane; it may not have come back as an entry yet."""
    cast: dict[tuple[int, int], FrameVote] = field(default_factory=dict)
    """Our votes by position, sent again as they are."""
    slot: CommittedSlot | None = None
    codes: tuple[int | None, ...] = ()
    """Per intent: what is known of its outcome. An approval stays, whatever another position's votes say."""
    coordinated_codes: tuple[int | None, ...] = ()
    """Outcome of the votes at position (0, 0), once every intent has one."""
    decided: bool = False
    """A valid OUTCOME of it is committed in the lane."""
    asked_count: int = 0
    """How often the peers were asked for their votes since we last voted."""

    @property
    def settled(self) -> bool:
        return bool(self.codes) and None not in self.codes

    @property
    def ordered(self) -> bool:
        """It stands in our lane's log, or in a committed slot of the spine."""
        return self.position is not None or self.slot is not None

    @property
    def closed(self) -> bool:
        """Nothing more has to happen to it here."""
        return self.decided if self.frame.path == Path.LANE else self.settled


@dataclass(frozen=True, slots=True)
class FrameSettled:
    """Some or all intents of a frame have their outcome. ``codes`` holds None for an intent still open."""

    record: FrameRecord
    codes: tuple[int | None, ...]
    """What the certificate's votes say. ``record.codes`` may know more, from another position."""
    certificate: Certificate
    """The votes; it proves the intents whose code is 0."""


class Effects(Ready):
    """One drain of a replica: what both machines want, and what else the agent has to do."""

    verify: list[FrameRecord] = msgspec.field(default_factory=list)
    settled: list[FrameSettled] = msgspec.field(default_factory=list)
    coordinated: list[FrameRecord] = msgspec.field(default_factory=list)
    grants: list[SliceGrant] = msgspec.field(default_factory=list)
    raft: Ready | None = None
    pbft: Ready | None = None
    own_votes: list[FrameVote] = msgspec.field(default_factory=list)

    @property
    def empty(self) -> bool:
        lists = (self.verify, self.settled, self.coordinated, self.grants, self.own_votes)
        return super().empty and self.raft is None and self.pbft is None and not any(lists)


@dataclass(frozen=True, slots=True)
class ReplicaKeys:
    """The cryptography a replica needs, handed in so that the machine stays pure."""

    sign: Callable[[bytes], bytes]
    verify: Callable[[int, bytes, bytes], bool]
    """``verify(roster position, data, signature)``."""


@dataclass(frozen=True, slots=True)
class Bodies:
    """How bodies become bytes and back; decoding raises ``PeerViolation``."""

    encode_outcome: Callable[[Outcome], bytes]
    decode_outcome: Callable[[bytes], Outcome]
    decode_frame: Callable[[bytes], Frame]
    decode_grant: Callable[[bytes], SliceGrant]


def merge(into: Ready, ready: Ready) -> None:
    """Append what ``ready`` holds; order within each list is kept."""
    into.records.extend(ready.records)
    into.send_now.extend(ready.send_now)
    into.send_after_sync.extend(ready.send_after_sync)
    into.committed_entries.extend(ready.committed_entries)
    into.committed_slots.extend(ready.committed_slots)
    into.reads.extend(ready.reads)


def join(into: Effects, more: Effects) -> None:
    """Append the effects of the votes to those of the machines that they followed from."""
    merge(into, more)
    into.verify.extend(more.verify)
    into.settled.extend(more.settled)
    into.coordinated.extend(more.coordinated)
    into.grants.extend(more.grants)
    into.own_votes.extend(more.own_votes)
