"""How far a peer's clock is ahead of ours, and how sure that is, from the times of questions and answers. Pure.

We ask at t1, the peer hears it at t2 and answers at t3, we hear that at t4; t2 and t3 are by its clock. Nothing arrives
before it was sent: the peer's clock is ahead by t3 - t4 at least and by t2 - t1 at most. The middle is NTP's offset,
and half the width is half the round trip, so that the fastest round trip is the surest (RFC 5905, 8 and 10).

Each bound stays true later if it is widened by what two clocks may drift apart meanwhile. So the estimate is the
intersection of all that was ever heard, each widened by its age: never wider than the best round trip of any window,
surer where the two directions were fast at different times, and two numbers to keep. What does not meet the estimate
contradicts it: a clock that was set, or a liar. It is refused, and believed when nothing else is heard any more.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

DRIFT_PPM_MAX: Final = 200
"""Two clocks of 100 millionths each; a good one drifts by a tenth of that."""
MILLION: Final = 1_000_000
TIME_NS_MAX: Final = 1 << 60
"""Nobody's host has been up for 36 years."""
ROUND_TRIP_WINDOW_NS: Final = 10_000_000_000
CONTRADICTIONS_MAX: Final = 8
"""So many in a row, and the clock was set."""


class Estimate(NamedTuple):
    """The peer's clock shows ours plus ``offset_ns``, give or take ``uncertainty_ns``."""

    offset_ns: int
    uncertainty_ns: int
    rtt_ns: int
    """The fastest round trip of the last 10 to 20 seconds, without the time that the peer held it."""


class Verdict(Enum):
    """What became of a sample."""

    TAKEN = "clock_taken"
    ABSURD = "clock_absurd"
    """Answered before it was heard, held for longer than it was away, or out of any clock's range."""
    CONTRADICTED = "clock_contradicted"
    RESTARTED = "clock_restarted"
    """The last of too many contradictions: what was known is forgotten."""


class ClockOffset:
    """One peer's clock, as far as it is known."""

    def __init__(self) -> None:
        self._low: int | None = None
        self._high = 0
        self._at_ns = 0
        self._contradictions = 0
        self._fastest = _Fastest()

    def sample(self, asked_ns: int, heard_ns: int, answered_ns: int, now_ns: int) -> Verdict:
        """One round trip: the four times in order, the middle two by the peer's clock."""
        away_ns, held_ns = now_ns - asked_ns, answered_ns - heard_ns
        round_trip_ns = away_ns - held_ns
        if not 0 <= heard_ns <= answered_ns < TIME_NS_MAX or away_ns < 0 or round_trip_ns < -_drift(held_ns):
            return Verdict.ABSURD
        low, high = answered_ns - now_ns, heard_ns - asked_ns + _drift(away_ns)
        verdict = self._meet(low, max(low, high), now_ns)
        if verdict is not Verdict.CONTRADICTED:
            self._fastest.add(max(round_trip_ns, 0), now_ns)
        return verdict

    def estimate(self, now_ns: int) -> Estimate | None:
        """``None`` before the first sample. Without new ones it grows less sure."""
        if self._low is None:
            return None
        drift = _drift(now_ns - self._at_ns)
        return Estimate((self._low + self._high) // 2, (self._high - self._low + 1) // 2 + drift, self._fastest.value)

    def _meet(self, low: int, high: int, now_ns: int) -> Verdict:
        verdict = Verdict.TAKEN
        if self._low is not None:
            drift = _drift(now_ns - self._at_ns)
            known_low, known_high = self._low - drift, self._high + drift
            if low <= known_high and known_low <= high:
                low, high = max(low, known_low), min(high, known_high)
            elif self._contradictions + 1 < CONTRADICTIONS_MAX:
                self._contradictions += 1
                return Verdict.CONTRADICTED
            else:
                self._fastest = _Fastest()
                verdict = Verdict.RESTARTED
        self._contradictions = 0
        self._low, self._high, self._at_ns = low, high, now_ns
        return verdict


class _Fastest:
    """Smallest of the present window and the one before."""

    def __init__(self) -> None:
        self._before: int | None = None
        self._present: int | None = None
        self._since_ns = 0

    def add(self, value: int, now_ns: int) -> None:
        if self._present is None or now_ns - self._since_ns >= ROUND_TRIP_WINDOW_NS:
            self._before, self._present, self._since_ns = self._present, value, now_ns
        self._present = min(self._present, value)

    @property
    def value(self) -> int:
        """0 before the first."""
        return min((each for each in (self._before, self._present) if each is not None), default=0)


def _drift(span_ns: int) -> int:
    """By how much two clocks may part in a time, rounded up."""
    return -(-max(span_ns, 0) * DRIFT_PPM_MAX // MILLION)
