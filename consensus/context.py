"""What the parts of one replica share: who it is, its keys, its clock, and the effects that it has collected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from consensus.budget import BudgetBook
from consensus.effects import Bodies, Effects, ReplicaKeys
from consensus.quorum import Quorum


@dataclass(slots=True)
class ReplicaContext:
    """Plain state; the rules live in ``lane``, ``voting`` and ``replica``."""

    own: int
    voters: tuple[int, ...]
    quorum: Quorum
    cluster_id: bytes
    keys: ReplicaKeys
    bodies: Bodies
    budget: BudgetBook
    now_ns: int = 0
    restoring: bool = True
    """The log and the slots are being read again: nothing is voted on before that is done."""
    effects: Effects = field(default_factory=Effects)
    ignored: Counter[str] = field(default_factory=Counter)

    def take_effects(self) -> Effects:
        effects, self.effects = self.effects, Effects()
        return effects

    def ignore(self, reason: str) -> None:
        self.ignored[reason] += 1
