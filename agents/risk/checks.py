"""Pre-trade checks, risk rows 1 to 10: pure, in a fixed order, the first that fails names the ``DenyCode``.

They fail closed: an instrument without a name, or without a fresh reference price, is denied. Inside a frame they are
cumulative: each intent sees the effect of those approved before it. Row 9, market orders become marketable limits at
the soft collar, is no check but a rewrite: here they are judged at that price, and the gate performs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Struct

from agents.risk.limits import RiskLimits
from agents.risk.rate import SubmitTokens
from consensus.route import effective_price, intent_notional, outside_collar
from protocol.codes import DenyCode, Side, TimeInForce
from protocol.messages import Denial, Frame, Intent


class Reference(Struct, frozen=True):
    """A replica's own price of a symbol for a bar."""

    price: int
    age_ms: float
    """From the bar or quote the price is taken from to the bar asked for, in market time: above 0 only in a gap."""


class RiskView(Protocol):
    """What the checks read of a replica's picture of the market and of the whole cluster's orders."""

    def instrument(self, symbol: int) -> str | None:
        """The symbol's name in the data set; None when there is none."""

    def reference(self, symbol: int, market_index: int) -> Reference | None:
        """None when the price is unknown, or when the bar has not been reached."""

    def position_quantity(self, symbol: int) -> int:
        """Net shares of all traders, short negative."""

    def working_quantity(self, symbol: int, side: int) -> int:
        """Unfilled shares of everything approved, working or UNKNOWN on this side; never negative."""

    def gross_notional(self) -> int:
        """Sum over all symbols of the worse side, ``max(position + buys, sells - position)``, at reference prices."""

    def open_orders(self, symbol: int) -> int:
        """Orders approved and not in a final state."""

    def open_orders_total(self) -> int: ...

    def submit_tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        """See ``agents.risk.rate.SubmitRates.tokens``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An intent on trial, with everything that its judge may look at."""

    view: RiskView
    limits: RiskLimits
    intent: Intent
    frame: Frame
    now_wall_ns: int

    @property
    def reference(self) -> Reference | None:
        return self.view.reference(self.intent.symbol, self.frame.market_index)

    @property
    def reference_price(self) -> int:
        """For rules that come after ``reference_fresh``."""
        reference = self.reference
        assert reference is not None
        return reference.price

    @property
    def price(self) -> int:
        return effective_price(self.intent, self.limits.price_collar_soft_bps)

    @property
    def notional(self) -> int:
        """At the intent's terms or at our own price, whichever is more: a false reference makes nothing small."""
        stated = intent_notional(self.intent, self.limits.price_collar_soft_bps)
        return max(stated, self.intent.quantity * self.reference_price)


# --- the rules, in order ---------------------------------------------------------------------------------------------


def frame_in_time(c: Candidate) -> DenyCode:
    return _deny_if(c.now_wall_ns >= c.frame.expires_at_ns, DenyCode.FRAME_EXPIRED)


def instrument_allowed(c: Candidate) -> DenyCode:
    name = c.view.instrument(c.intent.symbol)
    return _deny_if(name is None or name not in c.limits.instruments, DenyCode.INSTRUMENT_RESTRICTED)


def terms_valid(c: Candidate) -> DenyCode:
    intent = c.intent
    if intent.side not in (Side.BUY, Side.SELL):
        return DenyCode.INVALID_SIDE
    if intent.time_in_force not in (TimeInForce.DAY, TimeInForce.IOC):
        return DenyCode.FRAME_MALFORMED
    if intent.quantity <= 0:
        return DenyCode.INVALID_QUANTITY
    return _deny_if(intent.limit_price < 0 or intent.reference_price <= 0 or c.price <= 0, DenyCode.INVALID_PRICE)


def order_quantity(c: Candidate) -> DenyCode:
    return _deny_if(c.intent.quantity > c.limits.max_order_quantity, DenyCode.ORDER_QUANTITY_LIMIT)


def reference_fresh(c: Candidate) -> DenyCode:
    reference = c.reference
    fresh = reference is not None and reference.price > 0 and 0 <= reference.age_ms <= c.limits.max_ref_age_ms
    return _deny_if(not fresh, DenyCode.REFERENCE_STALE)


def price_collar(c: Candidate) -> DenyCode:
    """Both the price that would reach the venue and the trader's own reference must be within the hard collar."""
    hard_bps = c.limits.price_collar_hard_bps
    outside = [
        price for price in (c.price, c.intent.reference_price) if outside_collar(price, c.reference_price, hard_bps)
    ]
    return _deny_if(bool(outside), DenyCode.PRICE_COLLAR)


def order_notional(c: Candidate) -> DenyCode:
    return _deny_if(c.notional > c.limits.max_order_notional_units, DenyCode.ORDER_NOTIONAL_LIMIT)


def position_notional(c: Candidate) -> DenyCode:
    """Only the side that the intent adds to counts, so that a position which grew too large can be reduced."""
    exposure = _side_exposure(c.view, c.intent.symbol, c.intent.side) + c.intent.quantity
    over = exposure * c.reference_price > c.limits.max_position_notional_units
    return _deny_if(over, DenyCode.POSITION_NOTIONAL_LIMIT)


def gross_notional(c: Candidate) -> DenyCode:
    added = gross_notional_added(c.view, c.intent, c.reference_price)
    over = c.view.gross_notional() + added > c.limits.max_gross_notional_units
    return _deny_if(added > 0 and over, DenyCode.GROSS_NOTIONAL_LIMIT)


def open_orders(c: Candidate) -> DenyCode:
    full = c.view.open_orders(c.intent.symbol) >= c.limits.max_open_orders_instrument
    return _deny_if(full or c.view.open_orders_total() >= c.limits.max_open_orders_total, DenyCode.OPEN_ORDERS_LIMIT)


def submit_rate(c: Candidate) -> DenyCode:
    tokens = c.view.submit_tokens(c.frame.trader, c.intent.symbol, c.frame.market_index)
    return _deny_if(min(tokens) < 1, DenyCode.SUBMIT_RATE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table in README.md, which a test compares with this one."""

    row: int
    """Of the checklist; 0 for the frame itself."""
    check: Callable[[Candidate], DenyCode]
    keys: tuple[str, ...]
    codes: tuple[DenyCode, ...]


RULES: Final = (
    Rule(0, frame_in_time, (), (DenyCode.FRAME_EXPIRED,)),
    Rule(1, instrument_allowed, ("instruments",), (DenyCode.INSTRUMENT_RESTRICTED,)),
    Rule(
        2,
        terms_valid,
        (),
        (DenyCode.INVALID_SIDE, DenyCode.FRAME_MALFORMED, DenyCode.INVALID_QUANTITY, DenyCode.INVALID_PRICE),
    ),
    Rule(3, order_quantity, ("max_order_qty_lots", "lot_shares"), (DenyCode.ORDER_QUANTITY_LIMIT,)),
    # Row 8 stands before 4 to 6, which need its reference price.
    Rule(8, reference_fresh, ("max_ref_age_ms",), (DenyCode.REFERENCE_STALE,)),
    Rule(8, price_collar, ("price_collar_hard_pct",), (DenyCode.PRICE_COLLAR,)),
    Rule(4, order_notional, ("max_order_notional",), (DenyCode.ORDER_NOTIONAL_LIMIT,)),
    Rule(5, position_notional, ("max_position_notional",), (DenyCode.POSITION_NOTIONAL_LIMIT,)),
    Rule(6, gross_notional, ("max_gross_notional",), (DenyCode.GROSS_NOTIONAL_LIMIT,)),
    Rule(7, open_orders, ("max_open_orders_instrument", "max_open_orders_total"), (DenyCode.OPEN_ORDERS_LIMIT,)),
    Rule(
        10,
        submit_rate,
        ("submit_rate_venue", "submit_rate_strategy", "submit_rate_instrument", "bar_seconds"),
        (DenyCode.SUBMIT_RATE,),
    ),
)


def check_intent(view: RiskView, limits: RiskLimits, intent: Intent, frame: Frame, now_wall_ns: int) -> DenyCode:
    """The first rule that fails, or APPROVED. Looks, changes nothing: tokens are taken by whoever signs the verdict."""
    candidate = Candidate(view, limits, intent, frame, now_wall_ns)
    for rule in RULES:
        code = rule.check(candidate)
        if code is not DenyCode.APPROVED:
            return code
    return DenyCode.APPROVED


def check_frame(view: RiskView, limits: RiskLimits, frame: Frame, now_wall_ns: int) -> tuple[Denial, ...]:
    """Denials by position in the frame; empty when all is approved. A sequence that comes twice is INTENT_REPEATED.

    An intent that is denied leaves no trace for the ones after it.
    """
    ahead = FrameAhead(view)
    seen: set[int] = set()
    denials: list[Denial] = []
    for position in range(len(frame.intents)):
        intent = frame.intents[position]  # one row at a time: what it may do depends on those approved before it
        code = DenyCode.INTENT_REPEATED
        if intent.sequence not in seen:
            code = check_intent(ahead, limits, intent, frame, now_wall_ns)
        seen.add(intent.sequence)
        if code is DenyCode.APPROVED:
            ahead.approve(intent, frame)
        else:
            denials.append(Denial(position, code))
    return tuple(denials)


# --- exposure --------------------------------------------------------------------------------------------------------


def _deny_if(broken: bool, code: DenyCode) -> DenyCode:
    return code if broken else DenyCode.APPROVED


def _side_exposure(view: RiskView, symbol: int, side: int) -> int:
    """Shares that the cluster would hold on this side if everything working there filled; may be negative."""
    sign = 1 if side == Side.BUY else -1
    return sign * view.position_quantity(symbol) + view.working_quantity(symbol, side)


def gross_notional_added(view: RiskView, intent: Intent, reference_price: int) -> int:
    """What the intent adds to ``RiskView.gross_notional``: nothing while the other side stays the worse one."""
    other = Side.SELL if intent.side == Side.BUY else Side.BUY
    own_side = _side_exposure(view, intent.symbol, intent.side)
    other_side = _side_exposure(view, intent.symbol, other)
    before = max(own_side, other_side)
    return (max(before, own_side + intent.quantity) - before) * reference_price


class FrameAhead:
    """A view that runs ahead of its base: as if the intents approved so far were working already."""

    def __init__(self, base: RiskView) -> None:
        self._base = base
        self._working: Counter[tuple[int, int]] = Counter()
        self._open_orders: Counter[int] = Counter()
        self._gross_notional = 0

    def approve(self, intent: Intent, frame: Frame) -> None:
        """``intent`` has passed every rule against this very view."""
        reference = self._base.reference(intent.symbol, frame.market_index)
        assert reference is not None
        self._gross_notional += gross_notional_added(self, intent, reference.price)
        self._working[(intent.symbol, intent.side)] += intent.quantity
        self._open_orders[intent.symbol] += 1

    def instrument(self, symbol: int) -> str | None:
        return self._base.instrument(symbol)

    def reference(self, symbol: int, market_index: int) -> Reference | None:
        return self._base.reference(symbol, market_index)

    def position_quantity(self, symbol: int) -> int:
        return self._base.position_quantity(symbol)

    def working_quantity(self, symbol: int, side: int) -> int:
        return self._base.working_quantity(symbol, side) + self._working[(symbol, side)]

    def gross_notional(self) -> int:
        return self._base.gross_notional() + self._gross_notional

    def open_orders(self, symbol: int) -> int:
        return self._base.open_orders(symbol) + self._open_orders[symbol]

    def open_orders_total(self) -> int:
        return self._base.open_orders_total() + self._open_orders.total()

    def submit_tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        """A frame has one trader, so all its orders come from the same venue and strategy buckets."""
        venue, strategy, instrument = self._base.submit_tokens(trader, symbol, market_index)
        ahead = self._open_orders.total()
        return SubmitTokens(venue - ahead, strategy - ahead, instrument - self._open_orders[symbol])
