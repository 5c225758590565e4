"""Quorum arithmetic, shared by both consensus paths, certificates and the gate. No state, no messages.

``n`` replicas, ``f`` of them faulty. The Byzantine profiles use q = ceil((n+f+1)/2): any two quorums then share at
least f+1 replicas, so at least one honest one. The crash-fault profile ``raft`` uses a plain majority: any two quorums
share one replica, which is enough when nobody lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BYZANTINE_PROFILES: Final = ("hybrid", "pbft")
CRASH_PROFILE: Final = "raft"
PROFILES: Final = (*BYZANTINE_PROFILES, CRASH_PROFILE)


@dataclass(frozen=True, slots=True)
class Quorum:
    """Sizes that follow from n, f and the profile. Raises ``ValueError`` when n is too small for f."""

    n: int
    f: int
    profile: str = "hybrid"

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"unknown profile {self.profile!r}: use one of {', '.join(PROFILES)}")
        if self.n < 1 or self.f < 0:
            raise ValueError(f"n={self.n}, f={self.f}: use at least one replica and no negative number of faults")
        liars = self.profile != CRASH_PROFILE
        needed = 3 * self.f + 1 if liars else 2 * self.f + 1
        if self.n < needed:
            fault = "Byzantine" if liars else "crash"
            most = (self.n - 1) // (3 if liars else 2)
            raise ValueError(
                f"{self.n} replicas cannot survive {self.f} {fault} faults in profile {self.profile!r}: "
                f"use at least {needed} replicas, or set f to at most {most}"
            )

    @property
    def size(self) -> int:
        """q: enough acknowledgements to decide."""
        if self.profile == CRASH_PROFILE:
            return self.n // 2 + 1
        return (self.n + self.f + 2) // 2

    def size_for(self, n: int) -> int:
        """q for another number of replicas under the same f and profile; 0 when n is too small for f."""
        try:
            return Quorum(n, self.f, self.profile).size
        except ValueError:
            return 0

    @property
    def weak(self) -> int:
        """f+1: at least one of them is honest."""
        return self.f + 1

    @property
    def denial(self) -> int:
        """n-q+1: so many refusals that a quorum can no longer form."""
        return self.n - self.size + 1


def agreed_index(match_indices: Sequence[int], size: int) -> int:
    """The highest index that at least ``size`` replicas have reached: the ``size``-th largest."""
    assert 0 < size <= len(match_indices)
    return sorted(match_indices, reverse=True)[size - 1]
