"""A matching engine that is slow and plainly right: one list per side, sorted anew before every match."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.codes import Side


@dataclass
class NaiveOrder:
    order_id: int
    side: Side
    price: int
    quantity: int
    arrival: int


class NaiveBook:
    def __init__(self) -> None:
        self.orders: list[NaiveOrder] = []
        self.arrivals = 0

    def submit(
        self, order_id: int, side: Side, price: int, quantity: int, rest: bool = True
    ) -> tuple[list[tuple[int, int, int, int]], int]:
        trades = []
        while quantity:
            crossing = [o for o in self.orders if o.side != side and (price - o.price) * side.sign >= 0]
            if not crossing:
                break
            maker = min(crossing, key=lambda o: (o.price * side.sign, o.arrival))
            matched = min(quantity, maker.quantity)
            trades.append((maker.order_id, order_id, maker.price, matched))
            quantity -= matched
            maker.quantity -= matched
            self.orders = [o for o in self.orders if o.quantity]
        if quantity and rest:
            self.orders.append(NaiveOrder(order_id, side, price, quantity, self.arrivals))
            self.arrivals += 1
        return trades, quantity

    def cancel(self, order_id: int) -> int:
        left = sum(o.quantity for o in self.orders if o.order_id == order_id)
        self.orders = [o for o in self.orders if o.order_id != order_id]
        return left

    def depth(self, side: Side) -> list[tuple[int, int]]:
        prices = sorted({o.price for o in self.orders if o.side == side}, key=lambda price: -price * side.sign)
        return [
            (price, sum(o.quantity for o in self.orders if o.side == side and o.price == price)) for price in prices
        ]
