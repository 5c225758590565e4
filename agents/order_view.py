"""What a voter knows of everybody's orders: positions, working exposure and profit, from the executors' event streams.

Pure. Each executor numbers its events; a gap is noticed, asked for and never guessed over, so that all voters come to
the same positions whatever was lost on the way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from orders.accounting import Portfolio
from orders.states import TERMINAL, OrderState
from protocol.codes import ExecType, Side
from protocol.messages import Intent, OrderEvent, OrderEventsHead

EVENTS_HELD_MAX: Final = 4096
"""Events that may wait behind a gap; beyond it they are dropped and asked for again."""


@dataclass(slots=True)
class IntentOrders:
    """What became of one intent's orders."""

    symbol: int
    side: Side
    quantity: int
    cycle: int
    certified: bool = True
    """False while only events speak of it: its certificate is still on its way to us."""
    filled_quantity: int = 0
    ended_quantity: int = 0
    """Quantity of legs that have ended, filled or not."""
    confirmed_legs: set[int] = field(default_factory=set)
    states: dict[int, OrderState] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.ended_quantity >= self.quantity

    @property
    def confirmed(self) -> bool:
        """The venue has spoken about some leg, or the order has ended without it."""
        return bool(self.confirmed_legs) or self.ended


@dataclass(slots=True)
class _Stream:
    next_sequence: int = 1
    held: dict[int, OrderEvent] = field(default_factory=dict)
    head: int | None = None
    """The executor's next sequence as of its last complete repetition."""


class OrderView:
    """Applies ``OrderEvent`` streams to one ``Portfolio``. Intents are known by (trader, sequence)."""

    def __init__(self, fee_bps: float) -> None:
        self.portfolio = Portfolio(fee_bps)
        self.intents: dict[tuple[int, int], IntentOrders] = {}
        self._open: dict[tuple[int, int], IntentOrders] = {}
        """The part of ``intents`` that has not ended."""
        self.ignored: Counter[str] = Counter()
        self._streams: dict[int, _Stream] = {}

    def commit(self, trader: int, intent: Intent, cycle: int, price: int) -> None:
        """An intent is certified: hold its worst case until its orders have ended. Repeating it changes nothing."""
        key = (trader, intent.sequence)
        orders = self.intents.get(key)
        if orders is None:
            orders = IntentOrders(intent.symbol, Side(intent.side), intent.quantity, cycle)
        elif orders.certified:
            return
        # Events may have come first, and they spoke of single legs: only the intent says how much there is in all.
        orders.certified, orders.quantity = True, intent.quantity
        left = orders.quantity - orders.filled_quantity
        if not orders.ended and left > 0:
            self.portfolio.reserve(_reservation(key), intent.symbol, intent.side, left, price)
        self._add(key, orders)

    def on_event(self, event: OrderEvent) -> list[OrderEvent]:
        """Take one event in; returns the events that became applicable by it, in order."""
        stream = self._streams.setdefault(event.executor, _Stream())
        if event.sequence < stream.next_sequence or event.sequence in stream.held:
            self.ignored["event_repeated"] += 1
            return []
        if len(stream.held) >= EVENTS_HELD_MAX and event.sequence != stream.next_sequence:
            self.ignored["events_held_limit"] += 1
            return []
        stream.held[event.sequence] = event
        applied: list[OrderEvent] = []
        while (following := stream.held.pop(stream.next_sequence, None)) is not None:
            stream.next_sequence += 1
            self._apply(following)
            applied.append(following)
        return applied

    def on_head(self, head: OrderEventsHead) -> None:
        self._streams.setdefault(head.executor, _Stream()).head = head.next_sequence

    def next_sequence(self, executor: int) -> int:
        """Where to ask an executor to repeat from."""
        return self._streams.setdefault(executor, _Stream()).next_sequence

    def has_gap(self, executor: int) -> bool:
        return bool(self._streams.setdefault(executor, _Stream()).held)

    def caught_up(self, executor: int) -> bool:
        """Whether everything that the executor had said when we last asked has been applied."""
        stream = self._streams.setdefault(executor, _Stream())
        return stream.head is not None and stream.next_sequence >= stream.head

    def working_quantity(self, symbol: int, side: Side) -> int:
        """Shares on one side that certified intents may still trade; never negative."""
        total = 0
        for key, orders in self._open.items():
            if orders.symbol == symbol and orders.side is side:
                reservation = self.portfolio.reservation(_reservation(key))
                total += reservation.quantity if reservation is not None else 0
        return total

    def working_orders(self, symbol: int | None = None) -> int:
        """Certified intents that have not ended, of one symbol or in all."""
        return sum(symbol is None or orders.symbol == symbol for orders in self._open.values())

    def position_quantity(self, symbol: int) -> int:
        """Net shares, short negative."""
        return self.portfolio.position(symbol).quantity

    def unconfirmed(self, cycle: int | None = None) -> int:
        """Certified intents, of a cycle or in all, about which no word of the venue has come."""
        return sum(cycle in (None, orders.cycle) and not orders.confirmed for orders in self._open.values())

    def _add(self, key: tuple[int, int], orders: IntentOrders) -> None:
        self.intents[key] = orders
        if not orders.ended:
            self._open[key] = orders

    def _apply(self, event: OrderEvent) -> None:
        key = (event.trader, event.intent)
        report = event.report
        orders = self.intents.get(key)
        if orders is None:
            # The order overtook our own certificate: until that comes, this leg is all that we know of it.
            orders = IntentOrders(report.symbol, Side(report.side), report.order_quantity, event.cycle, certified=False)
            self._add(key, orders)
        if report.exec_type == ExecType.TRADE and report.last_quantity > 0:
            exec_key = (event.executor, event.sequence)  # the venue's own ids may start again when it restarts
            self.portfolio.apply_fill(
                report.symbol, report.side, report.last_quantity, report.last_price, exec_key, _reservation(key)
            )
            orders.filled_quantity += report.last_quantity
        if report.exec_id:
            orders.confirmed_legs.add(event.leg)
        self._advance(key, orders, event)

    def _advance(self, key: tuple[int, int], orders: IntentOrders, event: OrderEvent) -> None:
        state, before = OrderState(event.state), orders.states.get(event.leg)
        orders.states[event.leg] = state
        if state in TERMINAL and before not in TERMINAL:
            orders.ended_quantity += event.report.order_quantity
        if orders.ended:
            self._open.pop(key, None)
            self.portfolio.release(_reservation(key))


def _reservation(key: tuple[int, int]) -> str:
    return f"{key[0]}:{key[1]}"
