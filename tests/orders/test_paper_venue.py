"""The paper venue: what it answers, when it expires, and that equal inputs give equal reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.accounting import Portfolio
from orders.effects import Applied
from orders.lifecycle import OrderLedger
from orders.venues.latency import DelayQueue
from orders.venues.paper import PaperVenue, VenueConfig
from protocol.codes import ExecType, OrdStatus, RejectReason, Side, TimeInForce
from protocol.errors import LocalMisuse
from protocol.messages import ExecutionReport, NewOrder
from tests.oracles.order_examples import planned

BUY, SELL, DAY, IOC = Side.BUY, Side.SELL, TimeInForce.DAY, TimeInForce.IOC
E = ExecType
HIGH, LOW = 10_000_000, 1


def venue(closes: list[list[int]] | None = None, **config: Any) -> PaperVenue:
    """Two symbols, three bars; 10 bps half spread, so a close of 1,000,000 is quoted 999,000 to 1,001,000."""
    bars = np.array(closes or [[1_000_000, 500_000], [1_010_000, 500_000], [990_000, 500_000]], dtype=np.int64)
    settings = {"half_spread_bps": 10.0, "depth_levels": 2, "level_quantity": 100, **config}
    return PaperVenue(2, bars, VenueConfig(**settings))


def order(name: str, side: Side, quantity: int, price: int, tif: TimeInForce = IOC, index: int = 0, symbol: int = 0):
    return NewOrder(name, symbol, side, tif, quantity, price, index)


def kinds(reports: list[ExecutionReport]) -> list[ExecType]:
    return [ExecType(report.exec_type) for report in reports]


def test_a_marketable_order_walks_the_quotes() -> None:
    reports = venue().submit(order("a", BUY, 150, 1_002_000))
    assert kinds(reports) == [E.NEW, E.TRADE, E.TRADE]
    assert [(r.last_quantity, r.last_price, r.cumulative_quantity, r.leaves_quantity) for r in reports] == [
        (0, 0, 0, 150), (100, 1_001_000, 100, 50), (50, 1_002_000, 150, 0),
    ]  # fmt: skip
    assert reports[-1].ord_status == OrdStatus.FILLED
    assert [r.exec_id for r in reports] == [1, 2, 3] and {r.order_id for r in reports} == {1}


def test_what_an_immediate_order_cannot_fill_is_canceled() -> None:
    paper = venue()
    reports = paper.submit(order("a", SELL, 500, LOW))
    assert kinds(reports) == [E.NEW, E.TRADE, E.TRADE, E.CANCELED]
    assert (reports[-1].cumulative_quantity, reports[-1].leaves_quantity) == (200, 0)
    assert kinds(paper.submit(order("b", SELL, 5, LOW))) == [E.NEW, E.CANCELED]


def test_the_next_bar_brings_new_quotes_and_ends_the_day() -> None:
    paper = venue()
    assert kinds(paper.submit(order("rests", BUY, 10, 995_000, DAY))) == [E.NEW]
    expired = paper.advance(1)
    assert kinds(expired) == [E.EXPIRED] and expired[0].market_index == 0
    filled = paper.submit(order("b", BUY, 10, HIGH, index=1))
    assert filled[1].last_price == 1_010_000 + 1_010 and filled[1].market_index == 1


def test_a_longer_day_lets_orders_meet_later_quotes() -> None:
    paper = venue(bars_per_day=3)
    paper.submit(order("rests", BUY, 10, 995_000, DAY))
    assert paper.advance(1) == []
    (trade,) = paper.advance(2)
    assert (trade.exec_type, trade.last_price, trade.market_index) == (E.TRADE, 995_000, 2)
    assert kinds(paper.finish()) == []


def test_clients_meet_in_order_of_price_and_time() -> None:
    paper = venue()
    for name, price in (("first", 999_500), ("second", 999_500), ("better", 999_600)):
        paper.submit(order(name, BUY, 10, price, DAY))
    reports = paper.submit(order("seller", SELL, 25, 999_500))
    fills = [(r.cl_ord_id, r.last_quantity, r.last_price) for r in reports if r.exec_type == E.TRADE]
    assert fills == [
        ("better", 10, 999_600), ("seller", 10, 999_600), ("first", 10, 999_500), ("seller", 10, 999_500),
        ("second", 5, 999_500), ("seller", 5, 999_500),
    ]  # fmt: skip


def test_an_order_cannot_turn_the_clock_back() -> None:
    paper = venue()
    paper.advance(1)
    reports = paper.submit(order("late", BUY, 1, HIGH, index=0))
    assert reports[1].last_price == 1_011_010 and {r.market_index for r in reports} == {1}
    assert paper.advance(0) == [] and paper.market_index == 1


def test_an_order_moves_the_clock_and_what_that_ends_is_told_first() -> None:
    paper = venue()
    paper.submit(order("rests", BUY, 10, 900_000, DAY))
    reports = paper.submit(order("new", BUY, 1, HIGH, index=2))
    assert [(r.cl_ord_id, E(r.exec_type)) for r in reports] == [("rests", E.EXPIRED), ("new", E.NEW), ("new", E.TRADE)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (order("x", BUY, 0, 1), RejectReason.INVALID_QUANTITY),
        (order("x", BUY, -5, 1), RejectReason.INVALID_QUANTITY),
        (order("x", BUY, 5, 0), RejectReason.INVALID_PRICE),
        (order("x", BUY, 5, 1, symbol=2), RejectReason.UNKNOWN_SYMBOL),
        (order("x", BUY, 1_000_001, 1), RejectReason.EXCEEDS_LIMIT),
        (order("x", BUY, 5, 1, index=3), RejectReason.EXCHANGE_CLOSED),
    ],
)
def test_bad_orders_are_rejected_with_their_reason(bad: NewOrder, reason: RejectReason) -> None:
    paper = venue()
    (report,) = paper.submit(bad)
    assert (report.exec_type, report.ord_status, report.reason) == (E.REJECTED, OrdStatus.REJECTED, reason)
    assert paper.market_index in (-1, 0) and paper.counts.rejected == 1
    assert paper.status("x").reason == reason


def test_a_symbol_without_a_close_is_shut() -> None:
    paper = venue(closes=[[0, 500_000], [1_000_000, 500_000]])
    assert paper.submit(order("a", BUY, 1, HIGH))[0].reason == RejectReason.EXCHANGE_CLOSED
    assert kinds(paper.submit(order("b", BUY, 1, HIGH, index=1))) == [E.NEW, E.TRADE]


def test_an_id_is_refused_for_ever() -> None:
    paper = venue()
    paper.submit(order("a", BUY, 1, HIGH))
    paper.submit(order("bad", BUY, 0, HIGH))
    paper.advance(2)
    for name in ("a", "bad"):
        (refusal,) = paper.submit(order(name, SELL, 7, HIGH, index=2))
        assert (refusal.exec_type, refusal.reason) == (E.REJECTED, RejectReason.DUPLICATE_ORDER)
        assert refusal.order_id == 0
    assert paper.counts.duplicates == 2
    assert paper.status("a").ord_status == OrdStatus.FILLED


def test_status_and_history() -> None:
    paper = venue()
    told = paper.submit(order("a", BUY, 150, HIGH))
    status = paper.status("a")
    assert (status.exec_type, status.ord_status, status.exec_id) == (E.ORDER_STATUS, OrdStatus.FILLED, 0)
    assert status.cumulative_quantity == 150
    assert list(paper.history("a")) == told
    unknown = paper.status("never")
    assert (unknown.exec_type, unknown.reason) == (E.REJECTED, RejectReason.UNKNOWN_ORDER)
    assert paper.history("never") == ()


def test_finish_ends_everything() -> None:
    paper = venue()
    paper.submit(order("a", BUY, 150, 1_001_000, DAY))
    (expired,) = paper.finish()
    assert (expired.exec_type, expired.cumulative_quantity, expired.leaves_quantity) == (E.EXPIRED, 100, 0)
    assert paper.submit(order("b", BUY, 1, HIGH))[0].reason == RejectReason.EXCHANGE_CLOSED
    assert paper.finish() == [] and paper.advance(2) == [] and paper.market_index == 0


def test_bars_beyond_the_data_are_ignored() -> None:
    paper = venue()
    paper.submit(order("rests", BUY, 10, 900_000, DAY))
    assert paper.advance(3) == [] and paper.market_index == 0
    assert paper.counts.advances_ignored == 1


def test_faults_hit_the_same_orders_whatever_the_order_of_arrival() -> None:
    names = [f"order-{number}" for number in range(400)]

    def rejected(sequence: list[str], seed: int) -> set[str]:
        paper = venue(reject_rate=0.2, seed=seed)
        reports = [report for name in sequence for report in paper.submit(order(name, BUY, 1, LOW))]
        return {report.cl_ord_id for report in reports if report.reason == RejectReason.FAULT_INJECTED}

    first = rejected(names, 1)
    assert 40 < len(first) < 130
    assert first == rejected(names[::-1], 1) != rejected(names, 2)


def test_silence_and_repetition() -> None:
    silent = venue(silence_rate=1.0)
    assert silent.submit(order("a", BUY, 1, HIGH)) == []
    assert silent.status("a").ord_status == OrdStatus.FILLED and len(silent.history("a")) == 2
    double = venue(repeat_rate=1.0).submit(order("a", BUY, 1, HIGH))
    assert double[:2] == double[2:] and kinds(double[:2]) == [E.NEW, E.TRADE]


@pytest.mark.parametrize(
    "bad", [{"depth_levels": 0}, {"level_quantity": 0}, {"reject_rate": 1.5}, {"fee_bps": -1.0}, {"bars_per_day": 0}]
)
def test_a_config_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(LocalMisuse):
        VenueConfig(**bad)


def test_closes_of_a_wrong_shape_are_refused() -> None:
    for closes in (np.ones((3, 2)), np.ones(3, dtype=np.int64), np.ones((3, 1), dtype=np.int64)):
        with pytest.raises(LocalMisuse):
            PaperVenue(2, closes, VenueConfig())


# --- the venue, the ledger and the accounts together -----------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(Side), st.integers(1, 300), st.integers(985_000, 1_015_000), st.sampled_from(TimeInForce),
        st.integers(0, 2), st.integers(0, 1),
    ),
    max_size=25,
)  # fmt: skip


def play(script: list, config: dict[str, Any]) -> tuple[list[ExecutionReport], PaperVenue, OrderLedger, Portfolio]:
    paper, ledger, portfolio = venue(**config), OrderLedger(), Portfolio(fee_bps=0.5)
    told: list[ExecutionReport] = []
    for intent, (side, quantity, price, tif, index, symbol) in enumerate(script):
        plan = planned(intent, quantity, price, side, tif, symbol, index)
        ledger.open(plan)
        ledger.mark_sending(plan.terms.cl_ord_id, intent)
        told += paper.submit(plan.terms)
    told += paper.finish()
    for report in told:
        for effect in ledger.on_report(report):
            if isinstance(effect, Applied) and effect.fill_quantity:
                portfolio.apply_fill(
                    report.symbol, report.side, report.last_quantity, report.last_price,
                    (report.cl_ord_id, report.exec_id),
                )  # fmt: skip
    return told, paper, ledger, portfolio


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([{}, {"bars_per_day": 3}, {"reject_rate": 0.3}, {"repeat_rate": 0.5}]))
def test_every_order_ends_and_the_accounts_agree(script: list, config: dict[str, Any]) -> None:
    told, paper, ledger, portfolio = play(script, config)
    assert told == play(script, config)[0]
    counts = ledger.counts()
    assert (counts.lost, counts.working, counts.duplicate, counts.protocol_errors) == (0, 0, 0, 0)
    assert counts.filled + counts.rejected + counts.expired + counts.canceled == len(script)
    assert (counts.rejected, counts.expired, counts.canceled) == (
        paper.counts.rejected, paper.counts.expired, paper.counts.canceled,
    )  # fmt: skip
    booked = [record for record in ledger.orders.values() if record.cumulative_quantity]
    assert sum(record.cumulative_quantity for record in booked) == paper.counts.traded_quantity
    assert sum(record.cumulative_notional for record in booked) == paper.counts.traded_notional
    assert portfolio.fees == paper.counts.fees
    ledger.check_invariants()
    portfolio.check_invariants()


@settings(max_examples=40, deadline=None)
@given(steps)
def test_withheld_answers_come_back_by_query(script: list) -> None:
    _, paper, ledger, _ = play(script, {"silence_rate": 0.5, "bars_per_day": 3})
    for cl_ord_id in ledger.unresolved():
        ledger.mark_unknown(cl_ord_id)
    must_ask = ledger.unresolved() + [name for name, record in ledger.orders.items() if record.missing_quantity]
    for cl_ord_id in must_ask:
        for report in (*paper.history(cl_ord_id), paper.status(cl_ord_id)):
            ledger.on_report(report)
    counts = ledger.counts()
    assert (counts.lost, counts.fills_missing, counts.protocol_errors, counts.duplicate) == (0, 0, 0, 0)
    booked = sum(record.cumulative_quantity for record in ledger.orders.values())
    assert booked == paper.counts.traded_quantity


def test_quotes_posted_late_cannot_be_told_from_quotes_posted_at_once() -> None:
    generator = np.random.default_rng(5)
    closes = generator.integers(400_000, 600_000, size=(40, 2))
    eager, lazy = venue(closes.tolist(), bars_per_day=4), venue(closes.tolist(), bars_per_day=4)
    for number in range(300):
        index = number * 40 // 300
        side, symbol = Side(int(generator.integers(1, 3))), int(generator.integers(0, 2))
        new = order(f"o{number}", side, int(generator.integers(1, 300)), int(generator.integers(400_000, 600_000)),
                    TimeInForce(int(generator.choice([DAY, IOC]))), index, symbol)  # fmt: skip
        reports = eager.advance(index)
        for touched in (0, 1):
            eager._quote(touched, reports)
        assert reports + eager.submit(new) == lazy.submit(new)


# --- the way back ----------------------------------------------------------------------------------------------------


def test_the_delay_queue_keeps_order_and_respects_the_latency() -> None:
    queue: DelayQueue[int] = DelayQueue(latency_ns=1_000, jitter_ns=500, seed=3)
    for number in range(200):
        queue.push(number, now_ns=number * 10)
    assert queue.due(999) == []
    out, now_ns = [], 0
    while (deadline_ns := queue.next_deadline_ns()) is not None:
        assert deadline_ns >= now_ns
        now_ns = deadline_ns
        items = queue.due(now_ns)
        assert items and all(now_ns - item * 10 >= 1_000 for item in items)
        out += items
    assert out == list(range(200)) and len(queue) == 0 and now_ns <= 199 * 10 + 1_500


def test_reordering_is_seeded_and_loses_nothing() -> None:
    def delivered(seed: int) -> list[int]:
        queue: DelayQueue[int] = DelayQueue(100, 1_000, seed, reorder=True)
        for number in range(50):
            queue.push(number, number)
        return queue.due(10_000)

    assert sorted(delivered(1)) == list(range(50))
    assert delivered(1) == delivered(1) != delivered(2)
    assert delivered(1) != sorted(delivered(1))


def test_without_delay_everything_is_due_at_once() -> None:
    queue: DelayQueue[str] = DelayQueue(0)
    queue.push("a", 5)
    assert queue.next_deadline_ns() == 5 and queue.due(5) == ["a"] and queue.next_deadline_ns() is None
    with pytest.raises(LocalMisuse):
        DelayQueue(-1)
