"""Positions and profit against a naive replay, and the identities that integers must keep."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.accounting import Portfolio, Position, decimal_text, divide_half_even, fee_of
from protocol.codes import Side
from protocol.errors import LocalMisuse

BUY, SELL = Side.BUY, Side.SELL

fills = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(Side), st.integers(1, 50), st.integers(1, 2_000_000)), max_size=40
)


def replay(script: list[tuple[int, Side, int, int]]) -> dict[int, tuple[int, Fraction, Fraction]]:
    """(quantity, basis, realised) per symbol by exact average cost, one share at a time."""
    books: dict[int, tuple[int, Fraction, Fraction]] = {}
    for symbol, side, quantity, price in script:
        held, basis, realised = books.get(symbol, (0, Fraction(0), Fraction(0)))
        for _ in range(quantity):
            if held * side.sign < 0:
                share = basis / abs(held)
                realised -= side.sign * price + share
                basis -= share
            else:
                basis += side.sign * price
            held += side.sign
        books[symbol] = (held, basis, realised)
    return books


@settings(max_examples=150, deadline=None)
@given(fills, st.integers(1, 2_000_000))
def test_equals_exact_average_cost_up_to_one_unit_a_fill(script: list, mark: int) -> None:
    portfolio = Portfolio()
    for number, (symbol, side, quantity, price) in enumerate(script):
        assert portfolio.apply_fill(symbol, side, quantity, price, number)
        portfolio.check_invariants()
    for symbol, (quantity, basis, realised) in replay(script).items():
        position = portfolio.position(symbol)
        assert position.quantity == quantity
        assert abs(position.basis - basis) <= len(script) and abs(position.realised - realised) <= len(script)
        assert position.realised - position.basis == realised - basis
        portfolio.mark(symbol, mark)
        assert position.realised + position.unrealised == realised - basis + quantity * mark
    portfolio.check_invariants()


@settings(max_examples=100, deadline=None)
@given(fills)
def test_a_fill_counts_once(script: list) -> None:
    once, twice = Portfolio(1.0), Portfolio(1.0)
    for number, fill in enumerate(script):
        once.apply_fill(*fill, number)
        assert twice.apply_fill(*fill, number)
        assert not twice.apply_fill(*fill, number)
    assert once.positions() == twice.positions()
    assert twice.repeated_fills == len(script)


@settings(max_examples=100, deadline=None)
@given(fills, st.floats(0, 20))
def test_profit_is_cash_plus_value_less_fees(script: list, fee_bps: float) -> None:
    portfolio, cash = Portfolio(fee_bps), 0
    for number, (symbol, side, quantity, price) in enumerate(script):
        portfolio.apply_fill(symbol, side, quantity, price, number)
        portfolio.mark(symbol, price)
        cash -= side.sign * quantity * price
    assert portfolio.realised + portfolio.unrealised == cash + portfolio.net_notional
    assert portfolio.profit == cash + portfolio.net_notional - portfolio.fees
    assert portfolio.gross_notional >= abs(portfolio.net_notional)


def test_a_round_trip_by_hand() -> None:
    position = Position()
    position.trade(10, 100)
    position.trade(-4, 110)
    assert (position.quantity, position.basis, position.realised) == (6, 600, 40)
    position.trade(-10, 90)
    assert (position.quantity, position.basis, position.realised) == (-4, -360, -20)
    position.mark_price = 95
    assert (position.value, position.unrealised, position.average_price) == (-380, -20, 90)
    position.trade(4, 80)
    assert (position.quantity, position.basis, position.realised, position.average_price) == (0, 0, 20, 0)


# --- working exposure ------------------------------------------------------------------------------------------------


def test_reservations_hold_the_worst_side() -> None:
    portfolio = Portfolio()
    portfolio.apply_fill(0, BUY, 10, 100, "held")
    portfolio.mark(0, 100)
    assert portfolio.reserve("buy", 0, BUY, 5, 110) and portfolio.reserve("sell", 0, SELL, 30, 90)
    assert not portfolio.reserve("buy", 0, BUY, 5, 110)
    assert portfolio.exposure(0) == max(1_000 + 550, abs(1_000 - 2_700)) == 1_700
    assert portfolio.exposure_with(0, BUY, 200) == 1_750
    assert portfolio.exposure_with(0, SELL, 200) == 1_900
    assert (portfolio.open_orders(), portfolio.open_orders(0), portfolio.open_orders(1)) == (2, 2, 0)
    assert portfolio.gross_exposure == 1_700 and portfolio.gross_notional == 1_000


def test_a_fill_uses_its_reservation_up_and_the_end_frees_the_rest() -> None:
    portfolio = Portfolio()
    portfolio.reserve("a", 0, BUY, 10, 100)
    portfolio.apply_fill(0, BUY, 4, 90, 1, "a")
    reservation = portfolio.reservation("a")
    assert reservation is not None and reservation.quantity == 6
    assert portfolio.exposure(0) == 360 + 600
    assert portfolio.release("a") and not portfolio.release("a")
    assert portfolio.exposure(0) == 360 and portfolio.open_orders() == 0
    portfolio.apply_fill(0, BUY, 6, 90, 2, "a")
    assert portfolio.exposure(0) == 900
    portfolio.check_invariants()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 6), st.integers(0, 2), st.sampled_from(Side), st.integers(1, 9),
                  st.integers(1, 99)),
        st.tuples(st.just("release"), st.integers(0, 6)),
        st.tuples(st.just("fill"), st.integers(0, 6), st.integers(1, 12), st.integers(1, 99)),
        st.tuples(st.just("mark"), st.integers(0, 2), st.integers(1, 99)),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(operations)
def test_running_sums_equal_sums_made_anew(script: list[tuple]) -> None:
    portfolio = Portfolio()
    live: dict[str, list] = {}
    for number, (verb, *rest) in enumerate(script):
        name = str(rest[0])
        if verb == "mark":
            portfolio.mark(rest[0], rest[1])
        elif verb == "reserve":
            if portfolio.reserve(name, *rest[1:]):
                live[name] = rest[1:]
        elif verb == "release":
            assert portfolio.release(name) == (live.pop(name, None) is not None)
        elif name in live:
            symbol, side, left, _ = live[name]
            portfolio.apply_fill(symbol, side, rest[1], rest[2], number, name)
            live[name][2] = left - rest[1]
            if live[name][2] <= 0:
                del live[name]
        portfolio.check_invariants()
        for symbol in range(3):
            of_symbol = [entry for entry in live.values() if entry[0] == symbol]
            buys, sells = (sum(q * p for _, s, q, p in of_symbol if s is side) for side in (BUY, SELL))
            value = portfolio.position(symbol).value
            assert portfolio.exposure(symbol) == max(abs(value + buys), abs(value - sells))
            assert portfolio.open_orders(symbol) == len(of_symbol)


@pytest.mark.parametrize(("quantity", "price"), [(0, 1), (1, 0), (-1, 1)])
def test_impossible_numbers_are_our_own_mistake(quantity: int, price: int) -> None:
    portfolio = Portfolio()
    with pytest.raises(LocalMisuse):
        portfolio.apply_fill(0, BUY, quantity, price, 1)
    with pytest.raises(LocalMisuse):
        portfolio.reserve("a", 0, BUY, quantity, price)
    with pytest.raises(LocalMisuse):
        portfolio.mark(0, 0)


# --- arithmetic ------------------------------------------------------------------------------------------------------


@given(st.integers(-(10**9), 10**9), st.integers(-(10**6), 10**6).filter(bool))
def test_division_rounds_like_fractions_do(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_fees_and_decimals() -> None:
    assert fee_of(1_000_000, 50) == 50
    assert decimal_text(-1_234_567) == "-123.4567"
    assert decimal_text(1_234_550, 2) == "123.46" and decimal_text(1_234_450, 2) == "123.44"
    assert decimal_text(-4_000, 0) == "0" and decimal_text(5) == "0.0005"
    with pytest.raises(LocalMisuse):
        decimal_text(1, 5)
