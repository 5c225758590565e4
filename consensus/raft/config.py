"""Timings and limits of the lane, and the names of its roles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

NOBODY: Final = -1
"""``HardState.voted_for`` when no vote was given in the term."""


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Times in nanoseconds. Raises ``ValueError`` when the numbers cannot work together."""

    heartbeat_ns: int = 50_000_000
    election_timeout_min_ns: int = 400_000_000
    """Also how long a follower that hears its leader refuses to help anybody else."""
    election_timeout_max_ns: int = 800_000_000
    """Also how long a leader goes on without an answer from a quorum."""
    entries_per_append_max: int = 256
    bytes_per_append_max: int = 512 * 1024
    """Payloads plus ``log.ENTRY_OVERHEAD_BYTES`` each; a single larger entry still goes, alone."""
    inflight_appends_max: int = 8
    """Unanswered messages with entries per follower. Deep pipelines raise the latency on a slow disk."""
    inflight_bytes_max: int = 4 * 2**20
    """The same in bytes; the window closes once they are reached, so it holds less than one message more."""
    commit_delay_ns: int = 0
    """How long news of the commit index may wait for entries to ride on. Messages that carry nothing else cost as much
    as those with entries; without them, a follower that nobody sends more applies what is committed so much later."""
    thrift_delay_ns: int = 0
    """How long entries may wait for followers that the quorum can do without; 0 sends to all at once. A leader whose
    few fail commits so much later, once."""
    prompt: frozenset[int] = frozenset()
    """Followers that get entries at once all the same, because others wait for what they do with them."""
    uncommitted_bytes_max: int = 64 * 2**20
    """What a leader appends ahead of its commit index; beyond it proposals are refused. One alone always fits."""
    committed_bytes_per_ready_max: int = 16 * 2**20
    """Committed entries in one Ready, so that a replica that catches up applies in steps; one entry always goes."""
    snapshots: bool = False
    """Take snapshots from a leader. Only where the application can restore itself from one."""
    snapshot_chunk_bytes_max: int = 256 * 1024
    snapshot_bytes_max: int = 256 * 2**20
    """A follower holds a whole snapshot in memory while it arrives."""
    reads_open_max: int = 4096
    """Reads without an answer, of this replica's own and, for a leader, of all."""
    lease_reads: bool = False
    """Answer reads without a round while a quorum is bound to the leader. Safety then rests on the next number."""
    clock_drift_ppm: int = 10_000
    """By how much a second of any replica's clock may differ from a true one, in millionths."""

    @property
    def lease_ns(self) -> int:
        """How long, by a slow leader's clock, a follower with a fast one keeps its promise to help nobody."""
        drift = self.clock_drift_ppm
        return self.election_timeout_min_ns * (1_000_000 - drift) // (1_000_000 + drift)

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ns < self.election_timeout_min_ns < self.election_timeout_max_ns:
            raise ValueError(
                f"heartbeat {self.heartbeat_ns} ns, election timeout {self.election_timeout_min_ns} to "
                f"{self.election_timeout_max_ns} ns: each must be larger than the one before, and positive"
            )
        if not 0 <= self.clock_drift_ppm < 1_000_000:
            raise ValueError(f"clock_drift_ppm is {self.clock_drift_ppm}: use a bound below 1,000,000, or no leases")
        for name in _DELAYS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use 0 for none")
        for name in _LIMITS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use at least 1")


_DELAYS: Final = ("commit_delay_ns", "thrift_delay_ns")
_LIMITS: Final = (
    "entries_per_append_max", "bytes_per_append_max", "inflight_appends_max", "inflight_bytes_max",
    "uncommitted_bytes_max", "committed_bytes_per_ready_max", "reads_open_max",
    "snapshot_chunk_bytes_max", "snapshot_bytes_max",
)  # fmt: skip
