"""The paper venue: a market of replayed bars with a matching engine per symbol. A pure machine.

Every bar has one close per symbol. A market maker quotes ``depth_levels`` levels on both sides of it and is replaced
with the next bar; clients' orders match against these quotes and against each other. Prices are int64 in units of
1/10,000, quantities are shares.

A symbol's quotes are posted when the symbol is first touched in a bar. That cannot be told from posting them at once:
books are independent, and an untouched book without clients' orders trades with nobody. Books where a client's order
rests are requoted as soon as the bar begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from orders.accounting import fee_of
from orders.venues.adapter import Deduplication, VenueCapabilities
from orders.venues.book import OrderBook
from orders.venues.chance import draw
from protocol.codes import ExecType, OrdStatus, RejectReason, Side, TimeInForce
from protocol.errors import LocalMisuse
from protocol.messages import ExecutionReport, NewOrder

PAPER_CAPABILITIES: Final = VenueCapabilities(
    name="paper",
    deduplication=Deduplication.FOREVER,
    query_by_client_order_id=True,
    cancel_on_disconnect=False,
)


@dataclass(frozen=True, slots=True)
class VenueConfig:
    """How the market behaves. Rates are shares of orders between 0 and 1, decided by ``seed`` and the order's id."""

    half_spread_bps: float = 2.0
    depth_levels: int = 5
    level_quantity: int = 1_000
    fee_bps: float = 0.5
    order_quantity_max: int = 1_000_000
    bars_per_day: int = 1
    """DAY orders live until the day of their arrival ends."""
    reject_rate: float = 0.0
    """Refused with FAULT_INJECTED."""
    silence_rate: float = 0.0
    """Taken, but the answer to the submission is withheld; only a query brings it out."""
    repeat_rate: float = 0.0
    """Every report of the submission is delivered twice."""
    latency_ns: int = 0
    jitter_ns: int = 0
    reorder: bool = False
    """Jitter may let a report overtake another one; see ``DelayQueue``."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.depth_levels, self.level_quantity, self.order_quantity_max, self.bars_per_day) < 1:
            raise LocalMisuse("depth_levels, level_quantity, order_quantity_max and bars_per_day must be at least 1")
        if self.half_spread_bps < 0 or self.fee_bps < 0:
            raise LocalMisuse("half_spread_bps and fee_bps must not be negative")
        if any(not 0 <= rate <= 1 for rate in (self.reject_rate, self.silence_rate, self.repeat_rate)):
            raise LocalMisuse("rates must be between 0 and 1")


@dataclass(slots=True)
class VenueCounts:
    """What the venue did, for its side of a run's report."""

    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    """Submissions refused because their id had been used."""
    trades: int = 0
    """Fills of clients' orders; a match between two clients counts twice."""
    canceled: int = 0
    expired: int = 0
    traded_quantity: int = 0
    traded_notional: int = 0
    fees: int = 0
    advances_ignored: int = 0
    """Bars asked for that the data does not have."""


@dataclass(slots=True, eq=False)
class _ClientOrder:
    terms: NewOrder
    order_id: int
    status: OrdStatus
    cumulative_quantity: int = 0
    reason: int = RejectReason.NONE
    reports: list[ExecutionReport] = field(default_factory=list)

    @property
    def leaves_quantity(self) -> int:
        working = self.status in (OrdStatus.NEW, OrdStatus.PARTIALLY_FILLED)
        return self.terms.quantity - self.cumulative_quantity if working else 0


class PaperVenue:
    """``closes`` is int64 of shape [bars, symbols]; a close of 0 or less means that the symbol is shut in that bar.

    The clock stands before the first bar until an order or an advance names one; that bar opens the market. From then
    on bars are played one by one. Two venues with equal inputs give equal reports.
    """

    def __init__(self, symbol_count: int, closes: NDArray[np.int64], config: VenueConfig) -> None:
        if closes.dtype != np.int64 or closes.ndim != 2 or closes.shape[1] != symbol_count:
            raise LocalMisuse(f"closes must be int64 [bars, {symbol_count}], not {closes.dtype} {closes.shape}")
        self.config = config
        self.counts = VenueCounts()
        self.market_index = -1
        self._closes = closes
        self._half_spread_bps_x100 = round(config.half_spread_bps * 100)
        self._fee_bps_x100 = round(config.fee_bps * 100)
        self._books = [OrderBook() for _ in range(symbol_count)]
        self._quoted_at = [-1] * symbol_count
        self._quotes: list[list[int]] = [[] for _ in range(symbol_count)]
        self._by_id: dict[str, _ClientOrder] = {}
        self._resting: dict[int, _ClientOrder] = {}
        self._next_order_id = 1
        self._next_quote_id = -1
        self._next_exec_id = 1
        self._finished = False

    # --- the market --------------------------------------------------------------------------------------------------

    def advance(self, market_index: int) -> list[ExecutionReport]:
        """Play every bar up to ``market_index``. One that is past, or beyond the data, changes nothing."""
        if not 0 <= market_index < len(self._closes) or self._finished:
            self.counts.advances_ignored += 1
            return []
        if self.market_index < 0:
            self.market_index = market_index
        reports: list[ExecutionReport] = []
        while self.market_index < market_index:
            self._next_bar(reports)
        return reports

    def finish(self) -> list[ExecutionReport]:
        """Close the market for good: everything that still rests expires."""
        reports: list[ExecutionReport] = []
        self._expire_resting(reports)
        self._finished = True
        return reports

    def _next_bar(self, reports: list[ExecutionReport]) -> None:
        if (self.market_index + 1) // self.config.bars_per_day != self.market_index // self.config.bars_per_day:
            self._expire_resting(reports)
        self.market_index += 1
        for symbol in sorted({order.terms.symbol for order in self._resting.values()}):
            self._quote(symbol, reports)

    def _expire_resting(self, reports: list[ExecutionReport]) -> None:
        for order in list(self._resting.values()):
            self._books[order.terms.symbol].cancel(order.order_id)
            self._end(order, OrdStatus.EXPIRED, ExecType.EXPIRED, reports)
            self.counts.expired += 1

    def _quote(self, symbol: int, reports: list[ExecutionReport]) -> None:
        """Pull the market maker's old quotes and post those of the present bar, which may meet clients' orders."""
        if self._quoted_at[symbol] == self.market_index:
            return
        self._quoted_at[symbol] = self.market_index
        book = self._books[symbol]
        for quote_id in self._quotes[symbol]:
            book.cancel(quote_id)
        self._quotes[symbol] = []
        close = int(self._closes[self.market_index, symbol])
        if close <= 0:
            return
        half_spread = max(1, close * self._half_spread_bps_x100 // 1_000_000)
        for level in range(1, self.config.depth_levels + 1):
            self._post(symbol, Side.BUY, close - level * half_spread, reports)
            self._post(symbol, Side.SELL, close + level * half_spread, reports)

    def _post(self, symbol: int, side: Side, price: int, reports: list[ExecutionReport]) -> None:
        if price <= 0:
            return
        quote_id, self._next_quote_id = self._next_quote_id, self._next_quote_id - 1
        trades, _ = self._books[symbol].submit(quote_id, side, price, self.config.level_quantity)
        self._quotes[symbol].append(quote_id)
        for trade in trades:
            self._fill(self._resting[trade.maker_id], trade.price, trade.quantity, reports)

    # --- orders ------------------------------------------------------------------------------------------------------

    def submit(self, terms: NewOrder) -> list[ExecutionReport]:
        """Take an order and return every report that follows at once, those of other clients' orders included.

        The order trades at the present bar, which its ``market_index`` may move forward but never back.
        """
        if terms.cl_ord_id in self._by_id:
            self.counts.duplicates += 1
            return [self._refusal(terms, RejectReason.DUPLICATE_ORDER)]
        reports: list[ExecutionReport] = []
        reason = self._why_not(terms)
        if reason is RejectReason.NONE:
            reports += self.advance(terms.market_index)
            self._quote(terms.symbol, reports)
            if self._closes[self.market_index, terms.symbol] <= 0:
                reason = RejectReason.EXCHANGE_CLOSED
        own: list[ExecutionReport] = []
        if reason is RejectReason.NONE:
            self._accept(terms, own)
        else:
            self._reject(terms, reason, own)
        return reports + self._with_faults(terms.cl_ord_id, own)

    def status(self, cl_ord_id: str) -> ExecutionReport:
        """ORDER_STATUS of an order that was ever submitted, or REJECTED with UNKNOWN_ORDER. ``exec_id`` is 0."""
        order = self._by_id.get(cl_ord_id)
        if order is None:
            nothing = NewOrder(cl_ord_id, 0, Side.BUY, TimeInForce.IOC, 0, 0, 0)
            return self._refusal(nothing, RejectReason.UNKNOWN_ORDER, exec_id=0)
        return self._report(order, ExecType.ORDER_STATUS, exec_id=0)

    def history(self, cl_ord_id: str) -> tuple[ExecutionReport, ...]:
        """Every report ever made about an order, oldest first, under their first exec ids; empty if unknown.

        Sent ahead of ``status`` it gives back the fills that a client has lost, once each.
        """
        order = self._by_id.get(cl_ord_id)
        return tuple(order.reports) if order else ()

    def _why_not(self, terms: NewOrder) -> RejectReason:
        if self._finished or terms.market_index >= len(self._closes):
            return RejectReason.EXCHANGE_CLOSED
        if terms.symbol >= len(self._books):
            return RejectReason.UNKNOWN_SYMBOL
        if terms.quantity <= 0 or terms.side not in (Side.BUY, Side.SELL):
            return RejectReason.INVALID_QUANTITY
        if terms.quantity > self.config.order_quantity_max:
            return RejectReason.EXCEEDS_LIMIT
        if terms.limit_price <= 0:
            return RejectReason.INVALID_PRICE
        if self._happens("reject", terms.cl_ord_id, self.config.reject_rate):
            return RejectReason.FAULT_INJECTED
        return RejectReason.NONE

    def _accept(self, terms: NewOrder, reports: list[ExecutionReport]) -> None:
        order = self._register(terms, OrdStatus.NEW)
        self.counts.accepted += 1
        self._tell(order, ExecType.NEW, reports)
        day = terms.time_in_force == TimeInForce.DAY
        trades, left = self._books[terms.symbol].submit(
            order.order_id, terms.side, terms.limit_price, terms.quantity, rest=day
        )
        if day and left:
            self._resting[order.order_id] = order
        for trade in trades:
            maker = self._resting.get(trade.maker_id)
            if maker is not None:
                self._fill(maker, trade.price, trade.quantity, reports)
            self._fill(order, trade.price, trade.quantity, reports)
        if left and not day:
            self._end(order, OrdStatus.CANCELED, ExecType.CANCELED, reports)
            self.counts.canceled += 1

    def _reject(self, terms: NewOrder, reason: RejectReason, reports: list[ExecutionReport]) -> None:
        order = self._register(terms, OrdStatus.REJECTED)
        order.reason = reason
        self.counts.rejected += 1
        self._tell(order, ExecType.REJECTED, reports)

    def _register(self, terms: NewOrder, status: OrdStatus) -> _ClientOrder:
        order = self._by_id[terms.cl_ord_id] = _ClientOrder(terms, self._next_order_id, status)
        self._next_order_id += 1
        return order

    def _fill(self, order: _ClientOrder, price: int, quantity: int, reports: list[ExecutionReport]) -> None:
        order.cumulative_quantity += quantity
        filled = order.cumulative_quantity == order.terms.quantity
        order.status = OrdStatus.FILLED if filled else OrdStatus.PARTIALLY_FILLED
        if filled:
            self._resting.pop(order.order_id, None)
        self.counts.trades += 1
        self.counts.traded_quantity += quantity
        self.counts.traded_notional += quantity * price
        self.counts.fees += fee_of(quantity * price, self._fee_bps_x100)
        self._tell(order, ExecType.TRADE, reports, quantity, price)

    def _end(self, order: _ClientOrder, status: OrdStatus, exec_type: ExecType, reports: list[ExecutionReport]) -> None:
        self._resting.pop(order.order_id, None)
        order.status = status
        self._tell(order, exec_type, reports)

    def _with_faults(self, cl_ord_id: str, own: list[ExecutionReport]) -> list[ExecutionReport]:
        """Withhold or repeat the answer to a submission. The venue's own record of it stays true."""
        if self._happens("silence", cl_ord_id, self.config.silence_rate):
            return [report for report in own if report.cl_ord_id != cl_ord_id]
        if self._happens("repeat", cl_ord_id, self.config.repeat_rate):
            return own + own
        return own

    def _happens(self, fault: str, cl_ord_id: str, rate: float) -> bool:
        return rate > 0 and draw(self.config.seed, f"{fault}/{cl_ord_id}") < rate

    # --- reports -----------------------------------------------------------------------------------------------------

    def _tell(
        self,
        order: _ClientOrder,
        exec_type: ExecType,
        reports: list[ExecutionReport],
        last_quantity: int = 0,
        last_price: int = 0,
    ) -> None:
        report = self._report(order, exec_type, self._take_exec_id(), last_quantity, last_price)
        order.reports.append(report)
        reports.append(report)

    def _take_exec_id(self) -> int:
        exec_id, self._next_exec_id = self._next_exec_id, self._next_exec_id + 1
        return exec_id

    def _report(
        self, order: _ClientOrder, exec_type: ExecType, exec_id: int, last_quantity: int = 0, last_price: int = 0
    ) -> ExecutionReport:
        terms = order.terms
        return ExecutionReport(
            cl_ord_id=terms.cl_ord_id,
            order_id=order.order_id,
            exec_id=exec_id,
            exec_type=exec_type,
            ord_status=order.status,
            symbol=terms.symbol,
            side=terms.side,
            order_quantity=terms.quantity,
            last_quantity=last_quantity,
            last_price=last_price,
            cumulative_quantity=order.cumulative_quantity,
            leaves_quantity=order.leaves_quantity,
            reason=order.reason,
            market_index=max(self.market_index, 0),
        )

    def _refusal(self, terms: NewOrder, reason: RejectReason, exec_id: int | None = None) -> ExecutionReport:
        """A REJECTED that belongs to no order of the venue: ``order_id`` 0, nothing cumulative."""
        nobody = _ClientOrder(terms, 0, OrdStatus.REJECTED, reason=reason)
        return self._report(nobody, ExecType.REJECTED, self._take_exec_id() if exec_id is None else exec_id)
