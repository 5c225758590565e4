"""Positions, profit and working exposure from fills, in integers alone.

Values are notional in the price's unit (shares times 1/10,000 of the quote currency). The scheme is average cost
without fractions: an open position carries its ``basis``, the signed notional that was paid for it. Closing q of Q
shares releases ``basis * q / Q``, rounded half to even to one unit, and exactly that leaves the basis. Hence

    realised - basis = cash received - cash paid

holds to the unit at all times, a flat position has basis 0, and rounding can only move a unit between the realised and
the unrealised part of one fill, never in or out of their sum.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from protocol.codes import Side
from protocol.errors import LocalMisuse
from protocol.messages import PRICE_SCALE


@dataclass(slots=True)
class Position:
    """One symbol. ``quantity`` and ``basis`` are signed alike: negative is short."""

    quantity: int = 0
    basis: int = 0
    realised: int = 0
    fees: int = 0
    mark_price: int = 0
    """Last known price; 0 before the first."""

    @property
    def value(self) -> int:
        """Signed notional at the mark, or at cost while there is no mark."""
        return self.quantity * self.mark_price if self.mark_price else self.basis

    @property
    def unrealised(self) -> int:
        return self.value - self.basis

    @property
    def average_price(self) -> int:
        """Cost per share, rounded half to even; for display, nothing is computed from it."""
        return divide_half_even(self.basis, self.quantity) if self.quantity else 0

    def trade(self, signed_quantity: int, price: int) -> None:
        """Add a fill: it closes against the open position first and opens with what is left."""
        sign = 1 if signed_quantity > 0 else -1
        opening = abs(signed_quantity)
        if self.quantity * sign < 0:
            closing = min(opening, abs(self.quantity))
            released = divide_half_even(self.basis * closing, abs(self.quantity))
            self.realised -= sign * closing * price + released
            self.basis -= released
            self.quantity += sign * closing
            opening -= closing
        self.quantity += sign * opening
        self.basis += sign * opening * price


@dataclass(slots=True)
class Reservation:
    """Worst case of an order that may still be filled."""

    symbol: int
    side: Side
    quantity: int
    price: int


@dataclass(slots=True)
class _Working:
    """Sums over a symbol's reservations."""

    buy_notional: int = 0
    sell_notional: int = 0
    orders: int = 0


class Portfolio:
    """Positions of the whole swarm or of one executor, and the exposure that is still working. A pure machine.

    ``fee_bps`` is charged on every fill's notional, rounded half to even; execution reports carry no fee.
    """

    def __init__(self, fee_bps: float = 0.0) -> None:
        self._fee_bps_x100 = round(fee_bps * 100)
        self._positions: dict[int, Position] = {}
        self._working: dict[int, _Working] = {}
        self._reservations: dict[str, Reservation] = {}
        self._seen: set[Hashable] = set()
        self._gross_exposure = 0
        self.repeated_fills = 0

    # --- fills and marks ---------------------------------------------------------------------------------------------

    def apply_fill(
        self, symbol: int, side: int, quantity: int, price: int, exec_key: Hashable, cl_ord_id: str | None = None
    ) -> bool:
        """Book a fill once per ``exec_key``, which must name it across venues and executors; False if it was booked.

        ``cl_ord_id`` names the reservation that the fill uses up, if there is one. Quantity and price are positive.
        """
        if exec_key in self._seen:
            self.repeated_fills += 1
            return False
        if quantity <= 0 or price <= 0:
            raise LocalMisuse(f"fill of {quantity} at {price}: both must be positive")
        before = self.exposure(symbol)
        position = self._position(symbol)
        position.trade(Side(side).sign * quantity, price)
        position.fees += fee_of(quantity * price, self._fee_bps_x100)
        if cl_ord_id is not None:
            self._use_up(cl_ord_id, quantity)
        self._gross_exposure += self.exposure(symbol) - before
        self._seen.add(exec_key)
        return True

    def mark(self, symbol: int, price: int) -> None:
        """A new price. Not positive is ``LocalMisuse``: the feed validates before it marks."""
        if price <= 0:
            raise LocalMisuse(f"mark of symbol {symbol} at {price}")
        before = self.exposure(symbol)
        self._position(symbol).mark_price = price
        self._gross_exposure += self.exposure(symbol) - before

    # --- working orders ----------------------------------------------------------------------------------------------

    def reserve(self, cl_ord_id: str, symbol: int, side: int, quantity: int, price: int) -> bool:
        """Hold an order's worst case from its commitment on. False if the id holds a reservation already."""
        if cl_ord_id in self._reservations:
            return False
        if quantity <= 0 or price <= 0:
            raise LocalMisuse(f"reservation of {quantity} at {price}: both must be positive")
        before = self.exposure(symbol)
        self._reservations[cl_ord_id] = Reservation(symbol, Side(side), quantity, price)
        self._add_working(symbol, Side(side), quantity * price)
        self._working[symbol].orders += 1
        self._gross_exposure += self.exposure(symbol) - before
        return True

    def release(self, cl_ord_id: str) -> bool:
        """The order has ended: what it did not use is free again. An UNKNOWN order has not ended. False if unknown."""
        reservation = self._reservations.get(cl_ord_id)
        if reservation is None:
            return False
        before = self.exposure(reservation.symbol)
        self._use_up(cl_ord_id, reservation.quantity)
        self._gross_exposure += self.exposure(reservation.symbol) - before
        return True

    def reservation(self, cl_ord_id: str) -> Reservation | None:
        return self._reservations.get(cl_ord_id)

    # --- what risk checks and reports ask ----------------------------------------------------------------------------

    def position(self, symbol: int) -> Position:
        """The live record; an empty one for a symbol never traded nor marked. Read only."""
        return self._positions.get(symbol) or Position()

    def positions(self) -> dict[int, Position]:
        """Symbols with shares or a history, in ascending order. Read only."""
        return {symbol: self._positions[symbol] for symbol in sorted(self._positions)}

    def open_orders(self, symbol: int | None = None) -> int:
        """Reservations held, of one symbol or in all."""
        if symbol is None:
            return len(self._reservations)
        working = self._working.get(symbol)
        return working.orders if working else 0

    def exposure(self, symbol: int) -> int:
        """Absolute notional of a symbol in the worst case: all buys filled or all sells filled."""
        return self.exposure_with(symbol, Side.BUY, 0)

    def exposure_with(self, symbol: int, side: int, notional: int) -> int:
        """``exposure`` as it would be with one more order of this side and notional."""
        value = self.position(symbol).value
        working = self._working.get(symbol)
        buys = (working.buy_notional if working else 0) + (notional if side == Side.BUY else 0)
        sells = (working.sell_notional if working else 0) + (notional if side == Side.SELL else 0)
        return max(abs(value + buys), abs(value - sells))

    @property
    def gross_exposure(self) -> int:
        """Sum of ``exposure`` over all symbols, kept up to date with every change."""
        return self._gross_exposure

    @property
    def gross_notional(self) -> int:
        """Sum of absolute position values, working orders not counted."""
        return sum(abs(position.value) for position in self._positions.values())

    @property
    def net_notional(self) -> int:
        return sum(position.value for position in self._positions.values())

    @property
    def realised(self) -> int:
        """Realised profit before fees."""
        return sum(position.realised for position in self._positions.values())

    @property
    def unrealised(self) -> int:
        return sum(position.unrealised for position in self._positions.values())

    @property
    def fees(self) -> int:
        return sum(position.fees for position in self._positions.values())

    @property
    def profit(self) -> int:
        """Realised plus unrealised less fees."""
        return self.realised + self.unrealised - self.fees

    def check_invariants(self) -> None:
        for position in self._positions.values():
            assert position.quantity * position.basis >= 0
            assert position.quantity or position.basis == 0
        assert all(reservation.quantity > 0 for reservation in self._reservations.values())
        assert self._gross_exposure == sum(self.exposure(symbol) for symbol in {*self._positions, *self._working})

    # --- inside ------------------------------------------------------------------------------------------------------

    def _position(self, symbol: int) -> Position:
        position = self._positions.get(symbol)
        if position is None:
            position = self._positions[symbol] = Position()
        return position

    def _add_working(self, symbol: int, side: Side, notional: int) -> None:
        working = self._working.get(symbol)
        if working is None:
            working = self._working[symbol] = _Working()
        if side is Side.BUY:
            working.buy_notional += notional
        else:
            working.sell_notional += notional

    def _use_up(self, cl_ord_id: str, quantity: int) -> None:
        reservation = self._reservations.get(cl_ord_id)
        if reservation is None:
            return
        used = min(quantity, reservation.quantity)
        reservation.quantity -= used
        self._add_working(reservation.symbol, reservation.side, -used * reservation.price)
        if reservation.quantity == 0:
            del self._reservations[cl_ord_id]
            self._working[reservation.symbol].orders -= 1


def divide_half_even(numerator: int, denominator: int) -> int:
    """Integer quotient rounded to nearest, ties to even; ``denominator`` may be negative, not 0."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))


def fee_of(notional: int, fee_bps_x100: int) -> int:
    """Fee on a notional at ``fee_bps_x100`` hundredths of a basis point, rounded half to even."""
    return divide_half_even(notional * fee_bps_x100, 1_000_000)


def decimal_text(value: int, digits: int = 4) -> str:
    """A price or notional for people: ``-1234567`` is ``-123.4567``. ``digits`` below 4 rounds half to even."""
    if not 0 <= digits <= 4:
        raise LocalMisuse(f"{digits} digits of a scale of 4")
    scaled = divide_half_even(value, 10 ** (4 - digits))
    whole, fraction = divmod(abs(scaled), 10**digits)
    sign = "-" if scaled < 0 else ""
    return f"{sign}{whole}.{fraction:0{digits}d}" if digits else f"{sign}{whole}"


assert PRICE_SCALE == 10**4
