"""The matching engine against its slow twin, and the rules that it must keep by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.venues.book import OrderBook
from protocol.codes import Side
from protocol.errors import LocalMisuse
from tests.oracles.naive_book import NaiveBook

BUY, SELL = Side.BUY, Side.SELL

submits = st.tuples(st.just("submit"), st.sampled_from(Side), st.integers(1, 12), st.integers(1, 9), st.booleans())
cancels = st.tuples(st.just("cancel"), st.integers(0, 60))
operations = st.lists(st.one_of(submits, submits, cancels), max_size=60)


@settings(max_examples=200, deadline=None)
@given(operations)
def test_equals_the_naive_book(script: list[tuple]) -> None:
    book, naive = OrderBook(), NaiveBook()
    submitted = traded = gone = dropped = 0
    for number, operation in enumerate(script):
        if operation[0] == "cancel":
            canceled = book.cancel(operation[1])
            assert canceled == naive.cancel(operation[1])
            gone += canceled
        else:
            _, side, price, quantity, rest = operation
            trades, left = book.submit(number, side, price, quantity, rest)
            assert ([tuple(trade) for trade in trades], left) == naive.submit(number, side, price, quantity, rest)
            submitted += quantity
            traded += sum(trade.quantity for trade in trades)
            dropped += 0 if rest else left
            assert all((price - trade.price) * side.sign >= 0 for trade in trades)
        book.check_invariants()
        assert book.depth(BUY) == naive.depth(BUY)
        assert book.depth(SELL) == naive.depth(SELL)
    resting = sum(quantity for side in Side for _, quantity in book.depth(side))
    assert submitted == 2 * traded + gone + dropped + resting


@pytest.mark.parametrize("side", Side)
def test_better_price_first_then_first_come(side: Side) -> None:
    book = OrderBook()
    for order_id, price in ((1, 101), (2, 100), (3, 100), (4, 99)):
        book.submit(order_id, side, price, 5)
    taker = SELL if side is BUY else BUY
    trades, left = book.submit(9, taker, 99 if side is BUY else 101, 18)
    best_first = [1, 2, 3, 4] if side is BUY else [4, 2, 3, 1]
    assert [trade.maker_id for trade in trades] == best_first
    assert [trade.quantity for trade in trades] == [5, 5, 5, 3]
    assert left == 0
    assert book.remaining(best_first[-1]) == 2


def test_the_maker_sets_the_price() -> None:
    book = OrderBook()
    book.submit(1, SELL, 100, 10)
    assert book.submit(2, BUY, 105, 4) == ([(1, 2, 100, 4)], 0)


def test_a_partly_filled_maker_keeps_its_place() -> None:
    book = OrderBook()
    book.submit(1, SELL, 100, 10)
    book.submit(2, SELL, 100, 10)
    book.submit(3, BUY, 100, 4)
    assert [trade.maker_id for trade in book.submit(4, BUY, 100, 8)[0]] == [1, 2]


def test_immediate_orders_never_rest() -> None:
    book = OrderBook()
    book.submit(1, SELL, 100, 3)
    assert book.submit(2, BUY, 100, 10, rest=False) == ([(1, 2, 100, 3)], 7)
    assert book.best_bid() is None
    assert book.resting_ids() == []


def test_pulled_quotes_leave_nothing_behind() -> None:
    book = OrderBook()
    for bar in range(2_000):
        book.submit(2 * bar, BUY, 10_000 + bar, 1)
        book.submit(2 * bar + 1, SELL, 10_002 + bar, 1)
        book.cancel(2 * bar)
        book.cancel(2 * bar + 1)
        book.check_invariants()
    assert book.depth(BUY) == book.depth(SELL) == book.resting_ids() == []


@pytest.mark.parametrize(("quantity", "price", "order_id"), [(0, 1, 2), (-1, 1, 2), (1, 0, 2), (1, 1, 1)])
def test_what_cannot_enter_is_our_own_mistake(quantity: int, price: int, order_id: int) -> None:
    book = OrderBook()
    book.submit(1, BUY, 1, 1)
    with pytest.raises(LocalMisuse):
        book.submit(order_id, BUY, price, quantity)
