"""The limits of risk rows 1 to 10, as they stand in the ``[risk]`` table of ``cluster.toml``.

Money is written in quote currency and read through the properties ending in ``_units``, integers of 1/10,000 like
every price (``protocol.messages.PRICE_SCALE``).
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import asdict

from protocol.messages import PRICE_SCALE

NS_PER_SECOND = 1_000_000_000
ZERO_REFUSED = ("lot_shares", "bar_seconds")


class RiskLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one cluster; every replica must hold the same. 0 means "nothing of this", never "no limit".

    Raises ``ValueError``, one line that names the key: a negative or non-finite value, a collar whose soft side is
    wider than its hard side.
    """

    instruments: tuple[str, ...] = ()
    """Names that may be traded. Empty: nothing trades."""
    lot_shares: int = 100
    max_order_qty_lots: int = 10
    max_order_notional: float = 25_000.0
    max_position_notional: float = 100_000.0
    """Per instrument: net position and everything working on the worse side."""
    max_gross_notional: float = 250_000.0
    """Whole cluster: the worse side of every instrument, added up."""
    max_open_orders_instrument: int = 50
    max_open_orders_total: int = 200
    price_collar_soft_pct: float = 2.0
    """Beyond it an intent is critical and must take the spine; market orders are priced at it."""
    price_collar_hard_pct: float = 5.0
    max_ref_age_ms: int = 1_000
    submit_rate_venue: float = 100.0
    """Orders per second of market time, as are the two below; bursts of one second's worth (at least one order)."""
    submit_rate_strategy: float = 20.0
    submit_rate_instrument: float = 10.0
    bar_seconds: float = 86_400.0
    """Market time that one bar of the data set stands for."""

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if key == "instruments":
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and key in ZERO_REFUSED):
                least = "above 0" if key in ZERO_REFUSED else "of 0 or more"
                raise ValueError(f"risk.{key} = {value}: give a finite number {least}")
        if self.price_collar_soft_pct > self.price_collar_hard_pct:
            raise ValueError(
                f"risk.price_collar_soft_pct = {self.price_collar_soft_pct}: "
                f"give at most price_collar_hard_pct ({self.price_collar_hard_pct})"
            )

    @property
    def max_order_quantity(self) -> int:
        """Shares."""
        return self.max_order_qty_lots * self.lot_shares

    @property
    def max_order_notional_units(self) -> int:
        return round(self.max_order_notional * PRICE_SCALE)

    @property
    def max_position_notional_units(self) -> int:
        return round(self.max_position_notional * PRICE_SCALE)

    @property
    def max_gross_notional_units(self) -> int:
        return round(self.max_gross_notional * PRICE_SCALE)

    @property
    def price_collar_soft_bps(self) -> int:
        """What the router and the gate take as ``collar_bps``."""
        return round(self.price_collar_soft_pct * 100)

    @property
    def price_collar_hard_bps(self) -> int:
        return round(self.price_collar_hard_pct * 100)

    @property
    def bar_ns(self) -> int:
        return round(self.bar_seconds * NS_PER_SECOND)

    def market_time_ns(self, market_index: int) -> int:
        """Market time at a bar, counted from bar 0: what the rate limits are measured in."""
        return market_index * self.bar_ns
