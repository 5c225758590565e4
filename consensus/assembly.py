"""Builds a replica from its settings and from what its storage holds: the one place that knows how the parts fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consensus.budget import BudgetBook
from consensus.effects import Bodies, ReplicaKeys
from consensus.pbft.config import PbftConfig
from consensus.pbft.core import Pbft
from consensus.pbft.safety import SafetyRules
from consensus.quorum import Quorum
from consensus.raft.config import RaftConfig
from consensus.raft.core import Raft
from consensus.replica import Replica
from consensus.storage import StoredState
from protocol.messages import CommittedSlot, SignedCommand


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What a replica is, apart from what it remembers."""

    own: int
    voters: tuple[int, ...]
    quorum: Quorum
    cluster_id: bytes
    rng: random.Random
    raft: RaftConfig
    pbft: PbftConfig
    keys: ReplicaKeys
    bodies: Bodies
    validate: Callable[[SignedCommand], str | None]
    """May the spine order this command? Depends on its bytes and the roster alone."""


@dataclass(frozen=True, slots=True)
class ReplicaParts:
    replica: Replica
    budget: BudgetBook
    spine_quorum: Quorum
    """The spine's is Byzantine in every profile."""


def build_replica(settings: ReplicaSettings, stored: StoredState) -> ReplicaParts:
    """A replica that goes on where ``stored`` ends; for an empty store, a new one."""
    raft = Raft(
        settings.own,
        settings.voters,
        settings.quorum.size_for,
        settings.rng,
        settings.raft,
        stored.hard_state,
        stored.entries,
        snapshot=stored.snapshot,
        log_base=stored.log_base,
    )
    safety = SafetyRules(settings.own, settings.cluster_id, settings.keys.sign, stored.signed_phases)
    executed = _contiguous(stored.slots)
    spine_quorum = Quorum(settings.quorum.n, settings.quorum.f, "pbft")
    pbft = Pbft(
        settings.own,
        settings.voters,
        spine_quorum.size,
        settings.cluster_id,
        safety,
        settings.keys.verify,
        settings.pbft,
        settings.validate,
        stored.slots,
        stored.signed_phases,
        executed_upto=len(executed),
    )
    budget = BudgetBook(settings.cluster_id)
    replica = Replica(
        settings.own,
        settings.voters,
        settings.quorum,
        settings.cluster_id,
        raft,
        pbft,
        settings.keys,
        settings.bodies,
        budget,
        executed,
        stored.votes,
    )
    return ReplicaParts(replica, budget, spine_quorum)


def _contiguous(slots: Sequence[CommittedSlot]) -> tuple[CommittedSlot, ...]:
    """The decided slots from sequence 1 on without a gap: what had been executed."""
    by_sequence = {slot.sequence: slot for slot in slots}
    executed: list[CommittedSlot] = []
    while (following := by_sequence.get(len(executed) + 1)) is not None:
        executed.append(following)
    return tuple(executed)
