"""What may become of a proposal."""

from __future__ import annotations

from enum import Enum

import msgspec


class Standing(Enum):
    """What a replica can say about a key."""

    PENDING = "pending"
    """In the log of this replica, which leads."""
    COMMITTED = "committed"
    REFUSED = "refused"
    """Nothing was appended, or no copy that ever stood here since it was asked for can be committed any more. The same
    key may be proposed again; what a client asked of other replicas, they know."""
    UNKNOWN = "unknown"
    """This replica led when it appended the entry and does not lead now. It may yet be committed, or be overwritten."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The answer to a proposal, now or later."""

    standing: Standing
    index: int = 0
    """Where the entry stands in the log; 0 when it does not."""
    reason: str = ""
    """Why it was refused."""
