"""Price-time priority matching for one symbol, in integers. A pure machine.

Each side is a ladder: price levels in a dictionary, their prices in a heap, orders of a level in a queue. Cancelling
only marks the order dead; dead orders and empty levels go when matching reaches them, or when a heap has grown to
twice its levels. Both sides share one code path through a key that is the price for asks and its negative for bids, so
that the best level always has the smallest key.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final, NamedTuple

from protocol.codes import Side
from protocol.errors import LocalMisuse

_COMPACT_ABOVE: Final = 64


class Trade(NamedTuple):
    """One match. The price is the maker's: who waited sets it, who came takes it."""

    maker_id: int
    taker_id: int
    price: int
    quantity: int


class _Resting:
    __slots__ = ("level", "order_id", "remaining")

    def __init__(self, order_id: int, remaining: int, level: _Level) -> None:
        self.order_id = order_id
        self.remaining = remaining
        self.level = level


class _Level:
    """Orders at one price, oldest first. ``live`` counts those not cancelled, ``quantity`` sums what they have left."""

    __slots__ = ("ladder", "live", "price", "quantity", "queue")

    def __init__(self, ladder: _Ladder, price: int) -> None:
        self.ladder = ladder
        self.price = price
        self.queue: deque[_Resting] = deque()
        self.live = 0
        self.quantity = 0


class _Ladder:
    """One side of the book. ``sign`` turns a price into its key: +1 for asks, -1 for bids."""

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, _Level] = {}
        self.keys: list[int] = []

    def level_at(self, price: int) -> _Level:
        key = price * self.sign
        level = self.levels.get(key)
        if level is None:
            level = self.levels[key] = _Level(self, price)
            heapq.heappush(self.keys, key)
        return level

    def best(self) -> _Level | None:
        keys, levels = self.keys, self.levels
        while keys:
            level = levels.get(keys[0])
            if level is not None:
                return level
            heapq.heappop(keys)
        return None

    def drop(self, level: _Level) -> None:
        del self.levels[level.price * self.sign]
        if len(self.keys) > 2 * len(self.levels) + _COMPACT_ABOVE:
            self.keys = list(self.levels)
            heapq.heapify(self.keys)


class OrderBook:
    """Limit order book of one symbol. Order ids are the caller's; an id may rest at most once at a time."""

    __slots__ = ("_asks", "_bids", "_resting")

    def __init__(self) -> None:
        self._bids = _Ladder(-1)
        self._asks = _Ladder(1)
        self._resting: dict[int, _Resting] = {}

    def submit(self, order_id: int, side: int, price: int, quantity: int, rest: bool = True) -> tuple[list[Trade], int]:
        """Match a limit order against the other side; what is left rests, or is dropped with ``rest`` false (IOC).

        Returns the trades in the order in which they happened, and the quantity left unmatched.
        """
        if quantity <= 0 or price <= 0 or order_id in self._resting:
            raise LocalMisuse(f"order {order_id}: {quantity} at {price} cannot enter the book")
        own, other = (self._bids, self._asks) if side == Side.BUY else (self._asks, self._bids)
        trades: list[Trade] = []
        limit_key = price * other.sign
        while quantity:
            level = other.best()
            if level is None or level.price * other.sign > limit_key:
                break
            quantity = self._match_level(level, order_id, quantity, trades)
        if quantity and rest:
            self._rest(own.level_at(price), order_id, quantity)
        return trades, quantity

    def cancel(self, order_id: int) -> int:
        """Take a resting order out. Returns the quantity that it had left; 0 if it does not rest here."""
        order = self._resting.pop(order_id, None)
        if order is None:
            return 0
        remaining, level = order.remaining, order.level
        order.remaining = 0
        level.quantity -= remaining
        level.live -= 1
        if level.live == 0:
            level.ladder.drop(level)
        return remaining

    def best_bid(self) -> int | None:
        level = self._bids.best()
        return level.price if level else None

    def best_ask(self) -> int | None:
        level = self._asks.best()
        return level.price if level else None

    def depth(self, side: int) -> list[tuple[int, int]]:
        """(price, quantity) of one side's levels, best first."""
        ladder = self._bids if side == Side.BUY else self._asks
        return [(level.price, level.quantity) for _, level in sorted(ladder.levels.items())]

    def remaining(self, order_id: int) -> int:
        """Quantity that a resting order has left; 0 if it does not rest here."""
        order = self._resting.get(order_id)
        return order.remaining if order else 0

    def resting_ids(self) -> list[int]:
        """Every resting order, in the order of arrival."""
        return list(self._resting)

    def _match_level(self, level: _Level, taker_id: int, quantity: int, trades: list[Trade]) -> int:
        queue = level.queue
        while quantity and level.live:
            maker = queue[0]
            available = maker.remaining
            if available == 0:
                queue.popleft()
                continue
            matched = available if available < quantity else quantity
            trades.append(Trade(maker.order_id, taker_id, level.price, matched))
            quantity -= matched
            level.quantity -= matched
            maker.remaining = available - matched
            if matched == available:
                queue.popleft()
                level.live -= 1
                del self._resting[maker.order_id]
        if level.live == 0:
            level.ladder.drop(level)
        return quantity

    def _rest(self, level: _Level, order_id: int, quantity: int) -> None:
        order = self._resting[order_id] = _Resting(order_id, quantity, level)
        level.queue.append(order)
        level.live += 1
        level.quantity += quantity

    def check_invariants(self) -> None:
        bid, ask = self.best_bid(), self.best_ask()
        assert bid is None or ask is None or bid < ask
        for ladder in (self._bids, self._asks):
            assert set(ladder.levels) <= set(ladder.keys)
            assert len(ladder.keys) <= 2 * len(ladder.levels) + _COMPACT_ABOVE
            for level in ladder.levels.values():
                live = [order for order in level.queue if order.remaining]
                assert level.live == len(live) > 0
                assert level.quantity == sum(order.remaining for order in live)
                assert all(self._resting[order.order_id] is order for order in live)
        assert len(self._resting) == sum(
            level.live for side in (self._bids, self._asks) for level in side.levels.values()
        )
