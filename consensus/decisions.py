"""The decision logs: what was decided, in order, as a chain of hashes that replicas and auditors can compare."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from protocol.messages import CommittedSlot, Outcome


@dataclass(slots=True)
class DecisionLog:
    """Two chains, one per path. Equal lengths and equal heads mean equal histories."""

    lane_length: int = 0
    lane_head: bytes = bytes(32)
    spine_length: int = 0
    spine_head: bytes = bytes(32)

    def append_lane(self, outcome: Outcome) -> None:
        """The codes are part of the chain, the votes are not: any q of them are equal evidence."""
        row = struct.pack(f"<Q{len(outcome.codes)}H", outcome.index, *outcome.codes)
        self.lane_head = hashlib.sha256(self.lane_head + row + outcome.digest).digest()
        self.lane_length += 1

    def append_spine(self, slot: CommittedSlot) -> None:
        self.spine_head = hashlib.sha256(self.spine_head + struct.pack("<Q", slot.sequence) + slot.digest).digest()
        self.spine_length += 1

    def summary(self) -> dict[str, object]:
        return {
            "lane_length": self.lane_length,
            "lane_head": self.lane_head.hex(),
            "spine_length": self.spine_length,
            "spine_head": self.spine_head.hex(),
        }
