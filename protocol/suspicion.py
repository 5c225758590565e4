"""How strange a peer's silence is: the phi-accrual failure detector (Hayashibara et al., 2004). Pure.

A detector keeps the gaps between a peer's latest heartbeats. Phi is minus the decimal logarithm of the chance that a
gap as long as the present silence is still an ordinary one, by a normal distribution with their mean and deviation:
at phi 1 one silence in ten is a false alarm, at phi 8 one in a hundred million. Phi informs; it ends no connection.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

BUSY_NS: Final = 300_000_000
GAPS_MAX: Final = 100
PHI_MAX: Final = 300.0
"""The chance is then below the smallest number; infinity is no JSON."""
SQRT_2: Final = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Patience:
    """What a detector puts up with, from the interval at which heartbeats are due."""

    interval_ns: int
    suspect_phi: float = 8.0
    trust_phi: float = 1.0
    """A heartbeat is in time when phi was no higher just before it came."""
    heartbeats_to_trust: int = 3
    """So many in a row, all in time, end a suspicion."""

    @property
    def deviation_ns_min(self) -> int:
        """A quiet host beats so evenly that the first late heartbeat would be a catastrophe."""
        return self.interval_ns // 2

    @property
    def pause_ns(self) -> int:
        """What any process may be late by without a word: two lost heartbeats, and a host that is busy with others."""
        return 2 * self.interval_ns + BUSY_NS

    @property
    def gap_ns_max(self) -> int:
        """Longer gaps count as this long: an outage would make the detector slow for a whole window after it."""
        return 10 * self.interval_ns


class PhiAccrual:
    """Phi of one peer. Times are nanoseconds of one clock; a time before the last is taken for the last."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._gaps: deque[int] = deque()
        self._sum = 0
        self._sum_of_squares = 0
        self._heard_at_ns: int | None = None

    def heard(self, now_ns: int) -> None:
        """A heartbeat has come."""
        if self._heard_at_ns is None:
            quarter = self._patience.interval_ns // 4  # stands in for a history, as wide as it is unsure
            self._record(self._patience.interval_ns - quarter)
            self._record(self._patience.interval_ns + quarter)
            self._heard_at_ns = now_ns
            return
        gap = max(now_ns - self._heard_at_ns, 0)
        self._record(min(gap, self._patience.gap_ns_max))
        self._heard_at_ns += gap

    def phi(self, now_ns: int) -> float:
        """0 before the first heartbeat; never falls while the peer is silent."""
        if self._heard_at_ns is None:
            return 0.0
        late_ns = now_ns - self._heard_at_ns - self.mean_gap_ns - self._patience.pause_ns
        chance = math.erfc(late_ns / (self._deviation_ns() * SQRT_2)) / 2
        return min(max(0.0, -math.log10(chance)), PHI_MAX) if chance else PHI_MAX

    @property
    def mean_gap_ns(self) -> float:
        """0 before the first heartbeat."""
        return self._sum / len(self._gaps) if self._gaps else 0.0

    def _deviation_ns(self) -> float:
        count = len(self._gaps)
        variance = (count * self._sum_of_squares - self._sum * self._sum) / (count * count)  # exact up to the division
        return max(math.sqrt(variance), self._patience.deviation_ns_min, 1)

    def _record(self, gap: int) -> None:
        if len(self._gaps) == GAPS_MAX:
            oldest = self._gaps.popleft()
            self._sum -= oldest
            self._sum_of_squares -= oldest * oldest
        self._gaps.append(gap)
        self._sum += gap
        self._sum_of_squares += gap * gap


class Change(Enum):
    """What there is to say about a peer."""

    SUSPECTED = "suspected"
    RECOVERED = "recovered"


class Suspicion:
    """Makes up its mind by phi, and changes it less easily than phi: one late heartbeat does not flap."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._phi = PhiAccrual(patience)
        self._in_time = 0
        self.suspected = False

    def heard(self, now_ns: int) -> Change | None:
        """A heartbeat has come; perhaps it was the one that restores trust."""
        late = self._phi.phi(now_ns) > self._patience.trust_phi
        self._phi.heard(now_ns)
        self._in_time = 0 if late else self._in_time + 1
        if not self.suspected or self._in_time < self._patience.heartbeats_to_trust:
            return None
        self.suspected = False
        return Change.RECOVERED

    def judge(self, now_ns: int) -> Change | None:
        """Look at the silence so far."""
        if self.suspected or self._phi.phi(now_ns) < self._patience.suspect_phi:
            return None
        self.suspected = True
        self._in_time = 0
        return Change.SUSPECTED

    def phi(self, now_ns: int) -> float:
        """As ``PhiAccrual.phi``."""
        return self._phi.phi(now_ns)

    @property
    def mean_gap_ns(self) -> float:
        """Gauge: how far apart heartbeats come."""
        return self._phi.mean_gap_ns
