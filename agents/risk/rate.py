"""Token buckets of risk row 10, filled by MARKET time, so that a replay's outcome does not depend on the machine."""

from __future__ import annotations

from typing import Final, NamedTuple

from agents.risk.limits import NS_PER_SECOND, RiskLimits

NANO: Final = 1_000_000_000
"""Levels are integers in billionths of a token."""


class SubmitTokens(NamedTuple):
    """Whole submissions that each bucket would allow now."""

    venue: int
    strategy: int
    instrument: int


class TokenBucket:
    """``rate_per_s`` tokens per second of market time; holds one second's worth, at least one token unless the rate is
    0; full at first. Time that goes back (frames of traders at different bars) fills nothing."""

    # Invariant: 0 <= _level <= _capacity.

    def __init__(self, rate_per_s: float) -> None:
        self._rate = round(rate_per_s * NANO)
        self._capacity = max(self._rate, NANO) if self._rate else 0
        self._level = self._capacity
        self._at_ns = 0

    def tokens(self, market_time_ns: int) -> int:
        return self._level_at(market_time_ns) // NANO

    def take(self, market_time_ns: int) -> None:
        """Use one token; the level stops at 0, because what was decided elsewhere has happened all the same."""
        self._level = max(0, self._level_at(market_time_ns) - NANO)
        self._at_ns = max(self._at_ns, market_time_ns)

    def _level_at(self, market_time_ns: int) -> int:
        elapsed_ns = max(0, market_time_ns - self._at_ns)
        return min(self._capacity, self._level + self._rate * elapsed_ns // NS_PER_SECOND)


class SubmitRates:
    """The buckets of one replica: one for the venue, one per trader, one per symbol.

    Ask with ``tokens`` while judging a frame; ``take`` once for each intent that the verdict approves.
    """

    def __init__(self, limits: RiskLimits) -> None:
        self._limits = limits
        self._venue = TokenBucket(limits.submit_rate_venue)
        self._strategy: dict[int, TokenBucket] = {}
        self._instrument: dict[int, TokenBucket] = {}

    def tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        at_ns = self._limits.market_time_ns(market_index)
        return SubmitTokens(*(bucket.tokens(at_ns) for bucket in self._buckets(trader, symbol)))

    def take(self, trader: int, symbol: int, market_index: int) -> None:
        at_ns = self._limits.market_time_ns(market_index)
        for bucket in self._buckets(trader, symbol):
            bucket.take(at_ns)

    def _buckets(self, trader: int, symbol: int) -> tuple[TokenBucket, TokenBucket, TokenBucket]:
        if trader not in self._strategy:
            self._strategy[trader] = TokenBucket(self._limits.submit_rate_strategy)
        if symbol not in self._instrument:
            self._instrument[symbol] = TokenBucket(self._limits.submit_rate_instrument)
        return self._venue, self._strategy[trader], self._instrument[symbol]
