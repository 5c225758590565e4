"""The ledger: ids, the ordinary life of an order, and everything that a venue or a network can do to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.effects import AbsentAtVenue, Alarm, AlarmKind, Applied, QueryNeeded
from orders.lifecycle import OrderLedger
from orders.order import CLIENT_ORDER_ID_LENGTH, Order, PlannedOrder, client_order_id
from orders.states import TERMINAL, OrderState
from protocol.codes import DenyCode, ExecType, OrdStatus, RejectReason
from protocol.errors import LocalMisuse
from protocol.messages import ExecutionReport
from tests.oracles.order_examples import CLUSTER, planned, report

S, E = OrderState, ExecType


def sent(order: PlannedOrder, now_ns: int = 5) -> tuple[OrderLedger, Order]:
    ledger = OrderLedger()
    record = ledger.open(order)
    assert ledger.mark_sending(order.terms.cl_ord_id, now_ns)
    return ledger, record


def alarms(effects: list) -> list[AlarmKind]:
    return [effect.kind for effect in effects if isinstance(effect, Alarm)]


def test_client_order_ids_depend_on_the_intent_alone() -> None:
    first = client_order_id(CLUSTER, 2, 41, 0)
    assert first == client_order_id(CLUSTER, 2, 41, 0)
    assert len(first) == CLIENT_ORDER_ID_LENGTH
    assert first.isascii() and first.isalnum() and first == first.lower()
    others = {client_order_id(CLUSTER, 2, 41, leg) for leg in range(32)}
    assert len(others) == 32 and len({other[:16] for other in others}) == 1
    assert client_order_id(CLUSTER, 3, 41, 0) != first != client_order_id(b"other", 2, 41, 0)
    with pytest.raises(LocalMisuse):
        client_order_id(CLUSTER, 2, 41, 32)


def test_the_client_order_id_never_changes() -> None:
    assert client_order_id(b"c" * 16, 1, 2**64 - 1, 31) == "7c4mafq4miuxnkeq7"


def test_an_ordinary_life() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    steps = [
        (report(order, E.NEW, 1), S.ACCEPTED),
        (report(order, E.TRADE, 2, last=4, cumulative=4), S.PARTIALLY_FILLED),
        (report(order, E.TRADE, 3, last=6, cumulative=10, price=1_000_100), S.FILLED),
    ]
    for index, (message, state) in enumerate(steps):
        (applied,) = ledger.on_report(message)
        assert isinstance(applied, Applied)
        assert (applied.state, applied.fill_quantity, applied.first) == (state, message.last_quantity, index == 0)
    assert record.cumulative_notional == 4 * 1_000_000 + 6 * 1_000_100
    assert record.venue_order_id == 77 and record.last_exec_id == 3 and record.leaves_quantity == 0
    counts = ledger.counts()
    assert (counts.sent, counts.filled, counts.fills, counts.lost, counts.duplicate) == (1, 1, 2, 0, 0)


@pytest.mark.parametrize(
    ("exec_type", "state"), [(E.CANCELED, S.CANCELED), (E.EXPIRED, S.EXPIRED), (E.REJECTED, S.REJECTED)]
)
def test_the_other_endings(exec_type: ExecType, state: OrderState) -> None:
    order = planned()
    ledger, record = sent(order)
    ledger.on_report(report(order, exec_type, 1, reason=RejectReason.EXCEEDS_LIMIT))
    assert record.state is state and record.terminal
    assert record.reason == (RejectReason.EXCEEDS_LIMIT if state is S.REJECTED else 0)


def test_a_fill_before_its_acknowledgement() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, E.TRADE, 2, last=4, cumulative=4))
    assert ledger.on_report(report(order, E.NEW, 1)) == []
    assert record.state is S.PARTIALLY_FILLED and record.protocol_errors == 0


@pytest.mark.parametrize(("ending", "state"), [(E.CANCELED, S.CANCELED), (E.EXPIRED, S.EXPIRED)])
def test_a_late_fill_counts_and_does_not_reopen(ending: ExecType, state: OrderState) -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, ending, 1))
    effects = ledger.on_report(report(order, E.TRADE, 2, last=4, cumulative=4))
    assert isinstance(effects[0], Applied) and effects[0].fill_quantity == 4
    assert alarms(effects) == [AlarmKind.LATE_FILL]
    assert (record.state, record.cumulative_quantity) == (state, 4)
    ledger.on_report(report(order, E.TRADE, 3, last=6, cumulative=10))
    assert record.state is S.FILLED


def test_an_overfill_is_kept_and_flagged() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, E.TRADE, 1, last=10, cumulative=10))
    effects = ledger.on_report(report(order, E.TRADE, 2, last=5, cumulative=15))
    assert set(alarms(effects)) == {AlarmKind.LATE_FILL, AlarmKind.OVERFILL}
    assert record.cumulative_quantity == 15 and record.overfilled and ledger.counts().overfilled == 1


def test_a_gap_in_the_fills_is_noticed_and_closes() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    effects = ledger.on_report(report(order, E.TRADE, 3, last=6, cumulative=10))
    assert alarms(effects) == [AlarmKind.FILLS_MISSING] and QueryNeeded(record.cl_ord_id) in effects
    assert (record.state, record.missing_quantity) == (S.PARTIALLY_FILLED, 4)
    ledger.on_report(report(order, E.TRADE, 2, last=4, cumulative=4))
    assert (record.state, record.missing_quantity) == (S.FILLED, 0)


def test_a_fill_under_a_second_exec_id_is_the_same_fill() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, E.TRADE, 2, last=4, cumulative=4))
    assert ledger.on_report(report(order, E.TRADE, 9, last=4, cumulative=4)) == []
    assert record.cumulative_quantity == 4
    assert ledger.counts().ignored == {"repeated_fill": 1}


@pytest.mark.parametrize(
    "change", [{"symbol": 4}, {"side": 2}, {"order_quantity": 11}, {"last_price": 0}, {"last_quantity": 5}]
)
def test_a_fill_that_does_not_fit_is_not_applied(change: dict[str, int]) -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    good = report(order, E.TRADE, 2, last=4, cumulative=4)
    effects = ledger.on_report(ExecutionReport(**{**{f: getattr(good, f) for f in good.__struct_fields__}, **change}))
    assert alarms(effects) == [AlarmKind.CONTRADICTION]
    assert record.cumulative_quantity == 0 and record.protocol_errors == 1
    ledger.on_report(good)
    assert record.cumulative_quantity == 4


def test_reports_for_unknown_orders_are_counted() -> None:
    ledger = OrderLedger()
    assert ledger.on_report(report(planned(), E.NEW, 1)) == []
    assert ledger.counts().ignored == {"unknown_order": 1}


def test_a_venue_that_speaks_of_an_unsent_order() -> None:
    order, ledger = planned(quantity=10), OrderLedger()
    record = ledger.open(order)
    assert alarms(ledger.on_report(report(order, E.NEW, 1))) == [AlarmKind.CONTRADICTION]
    effects = ledger.on_report(report(order, E.TRADE, 2, last=4, cumulative=4))
    assert isinstance(effects[0], Applied) and effects[0].fill_quantity == 4
    assert alarms(effects) == [AlarmKind.ILLEGAL_TRANSITION]
    assert (record.state, record.cumulative_quantity, record.protocol_errors) == (S.COMMITTED, 4, 2)


# --- not knowing -----------------------------------------------------------------------------------------------------


def test_overdue_orders_come_oldest_first_and_once_answered_not_at_all() -> None:
    ledger, orders = OrderLedger(), [planned(intent) for intent in (1, 2, 3)]
    for at, order in enumerate(orders):
        ledger.open(order)
        ledger.mark_sending(order.terms.cl_ord_id, at * 100)
    ids = [order.terms.cl_ord_id for order in orders]
    assert ledger.overdue(499, 500) == [] and ledger.next_overdue_ns(500) == 500
    ledger.on_report(report(orders[1], E.NEW, 1))
    assert ledger.overdue(700, 500) == [ids[0], ids[2]]
    assert ledger.mark_unknown(ids[0]) and ledger.mark_unknown(ids[2])
    assert not ledger.mark_unknown(ids[1])
    assert ledger.overdue(10_000, 500) == [] and ledger.next_overdue_ns(500) is None
    assert (ledger.counts().unknown, ledger.counts().lost) == (2, 2)


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ((E.NEW, 1), S.ACCEPTED),
        ((E.TRADE, 1, 4, 4), S.PARTIALLY_FILLED),
        ((E.TRADE, 1, 10, 10), S.FILLED),
        ((E.CANCELED, 1), S.CANCELED),
        ((E.REJECTED, 1), S.REJECTED),
        ((E.EXPIRED, 1), S.EXPIRED),
        ((E.ORDER_STATUS, 0), S.ACCEPTED),
    ],
)
def test_unknown_ends_by_any_word_of_the_venue(message: tuple, state: OrderState) -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.mark_unknown(record.cl_ord_id)
    ledger.on_report(report(order, *message))
    assert record.state is state


def test_no_second_send_and_no_lapse_without_evidence() -> None:
    order = planned()
    ledger, record = sent(order)
    assert not ledger.mark_sending(record.cl_ord_id, 6)
    ledger.mark_unknown(record.cl_ord_id)
    assert not ledger.mark_sending(record.cl_ord_id, 7)
    assert not ledger.mark_lapsed(record.cl_ord_id, DenyCode.GATE_EXPIRED)
    assert record.state is S.UNKNOWN and record.sends == 1
    assert (ledger.counts().sends_refused, ledger.counts().duplicate) == (2, 0)


def absent(order: PlannedOrder) -> ExecutionReport:
    return report(order, E.REJECTED, 0, reason=RejectReason.UNKNOWN_ORDER, order_id=0)


def test_with_the_venues_word_it_may_go_again_or_lapse() -> None:
    order = planned()
    ledger, record = sent(order)
    ledger.mark_unknown(record.cl_ord_id)
    assert ledger.on_report(absent(order)) == [AbsentAtVenue(record.cl_ord_id)]
    assert ledger.on_report(absent(order)) == []
    assert ledger.mark_sending(record.cl_ord_id, 9)
    assert (record.sends, ledger.counts().resent, ledger.counts().duplicate) == (2, 1, 0)
    ledger.mark_unknown(record.cl_ord_id)
    assert not ledger.mark_lapsed(record.cl_ord_id, DenyCode.GATE_EXPIRED)
    ledger.on_report(absent(order))
    assert ledger.mark_lapsed(record.cl_ord_id, DenyCode.GATE_EXPIRED)
    assert (record.state, record.reason) == (S.LAPSED, DenyCode.GATE_EXPIRED)


def test_a_lapsed_order_that_arrived_after_all() -> None:
    order = planned()
    ledger, record = sent(order)
    ledger.mark_unknown(record.cl_ord_id)
    ledger.on_report(absent(order))
    ledger.mark_lapsed(record.cl_ord_id, DenyCode.GATE_EXPIRED)
    assert alarms(ledger.on_report(report(order, E.NEW, 1))) == [AlarmKind.REVIVED]
    assert record.state is S.ACCEPTED


def test_absence_proves_nothing_about_an_order_that_was_confirmed() -> None:
    order = planned()
    ledger, record = sent(order)
    ledger.on_report(report(order, E.NEW, 1))
    for _ in range(2):
        assert alarms(ledger.on_report(absent(order))) == [AlarmKind.FORGOTTEN]
        assert record.state is S.UNKNOWN and not ledger.mark_sending(record.cl_ord_id, 9)


def test_absence_that_nobody_asked_for_changes_nothing() -> None:
    order = planned()
    ledger, record = sent(order)
    assert ledger.on_report(absent(order)) == []
    assert record.state is S.SENDING


def test_a_duplicate_refusal_is_news_of_the_first_send() -> None:
    order = planned()
    ledger, record = sent(order)
    effects = ledger.on_report(report(order, E.REJECTED, 4, reason=RejectReason.DUPLICATE_ORDER, order_id=0))
    assert alarms(effects) == [AlarmKind.DUPLICATE_REFUSED] and QueryNeeded(record.cl_ord_id) in effects
    assert record.state is S.UNKNOWN and ledger.counts().duplicate == 1
    ledger.on_report(report(order, E.NEW, 1))
    assert alarms(ledger.on_report(report(order, E.REJECTED, 5, reason=RejectReason.DUPLICATE_ORDER, order_id=0))) == [
        AlarmKind.DUPLICATE_REFUSED
    ]
    assert record.state is S.ACCEPTED


def test_a_venue_that_catches_our_second_send_did_what_it_should() -> None:
    order = planned()
    ledger, record = sent(order)
    ledger.mark_unknown(record.cl_ord_id)
    ledger.on_report(absent(order))
    assert ledger.mark_sending(record.cl_ord_id, 9)
    ledger.on_report(report(order, E.NEW, 1))
    ledger.on_report(report(order, E.REJECTED, 2, reason=RejectReason.DUPLICATE_ORDER, order_id=0))
    assert record.state is S.ACCEPTED and ledger.counts().duplicate == 0


def test_two_orders_at_the_venue_are_a_duplicate() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, E.NEW, 1))
    assert AlarmKind.SECOND_VENUE_ORDER in alarms(ledger.on_report(report(order, E.NEW, 2, order_id=78)))
    ledger.on_report(report(order, E.TRADE, 3, last=10, cumulative=10))
    ledger.on_report(report(order, E.TRADE, 4, last=10, cumulative=10, order_id=78))
    assert record.cumulative_quantity == 20 and record.overfilled
    assert ledger.counts().duplicate == 1


def test_a_status_names_the_state_but_brings_no_fills() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.mark_unknown(record.cl_ord_id)
    effects = ledger.on_report(report(order, E.ORDER_STATUS, 0, cumulative=10, status=OrdStatus.FILLED))
    assert (record.state, record.missing_quantity, record.cumulative_quantity) == (S.ACCEPTED, 10, 0)
    assert alarms(effects) == [AlarmKind.FILLS_MISSING]
    ledger.on_report(report(order, E.TRADE, 1, last=10, cumulative=10))
    assert (record.state, record.missing_quantity) == (S.FILLED, 0)


def test_known_fills_survive_not_knowing() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    ledger.on_report(report(order, E.TRADE, 1, last=4, cumulative=4))
    ledger.on_report(absent(order))
    assert record.state is S.UNKNOWN
    ledger.on_report(report(order, E.ORDER_STATUS, 0, cumulative=4, status=OrdStatus.PARTIALLY_FILLED))
    assert record.state is S.PARTIALLY_FILLED


def test_a_cancel_under_way() -> None:
    order = planned(quantity=10)
    ledger, record = sent(order)
    assert not ledger.request_cancel(record.cl_ord_id)
    ledger.on_report(report(order, E.TRADE, 1, last=4, cumulative=4))
    assert ledger.request_cancel(record.cl_ord_id)
    ledger.on_report(report(order, E.TRADE, 2, last=1, cumulative=5))
    assert record.state is S.PENDING_CANCEL
    assert ledger.cancel_refused(record.cl_ord_id) and record.state is S.PARTIALLY_FILLED
    assert ledger.request_cancel(record.cl_ord_id)
    ledger.on_report(report(order, E.CANCELED, 3, cumulative=5))
    assert record.state is S.CANCELED and not ledger.cancel_refused(record.cl_ord_id)


def test_misuse_is_raised() -> None:
    ledger, order = OrderLedger(), planned()
    ledger.open(order)
    with pytest.raises(LocalMisuse):
        ledger.open(order)
    with pytest.raises(LocalMisuse):
        ledger.mark_unknown("nobody")


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn) -> tuple[PlannedOrder, list[ExecutionReport], list[ExecutionReport]]:
    """An order, what an honest venue says about it, and how that arrives: in any order and with repetitions."""
    fills = draw(st.lists(st.integers(1, 5), max_size=6))
    left = draw(st.integers(0, 3)) if fills else draw(st.integers(1, 3))
    order = planned(quantity=sum(fills) + left)
    said, cumulative = [report(order, E.NEW, 1)], 0
    for number, quantity in enumerate(fills):
        cumulative += quantity
        said.append(report(order, E.TRADE, 10 + number, last=quantity, cumulative=cumulative))
    if left:
        ending = draw(st.sampled_from([E.CANCELED, E.EXPIRED]))
        said.append(report(order, ending, 90, cumulative=cumulative))
    trades = [message for message in said if message.exec_type == E.TRADE]
    reissued = [
        report(
            order, E.TRADE, 200 + message.exec_id, last=message.last_quantity, cumulative=message.cumulative_quantity
        )
        for message in (draw(st.lists(st.sampled_from(trades), max_size=3, unique_by=id)) if trades else [])
    ]
    repeated = draw(st.lists(st.sampled_from(said), max_size=6))
    return order, said, draw(st.permutations(said + reissued + repeated))


@settings(max_examples=150, deadline=None)
@given(lives(), st.booleans())
def test_any_delivery_of_an_honest_life_ends_the_same(life: tuple, unknown: bool) -> None:
    order, said, arriving = life
    ledger, record = sent(order)
    if unknown:
        ledger.mark_unknown(record.cl_ord_id)
    seen, booked = 0, 0
    for message in arriving:
        for effect in ledger.on_report(message):
            booked += effect.fill_quantity if isinstance(effect, Applied) else 0
        ledger.check_invariants()
        assert seen <= record.cumulative_quantity <= order.terms.quantity
        seen = record.cumulative_quantity
    total = sum(message.last_quantity for message in said)
    assert record.cumulative_quantity == booked == total and record.missing_quantity == 0
    assert record.cumulative_notional == sum(message.last_quantity * message.last_price for message in said)
    endings = {E.CANCELED: S.CANCELED, E.EXPIRED: S.EXPIRED}
    assert record.state is endings.get(ExecType(said[-1].exec_type), S.FILLED)
    assert not (record.overfilled or record.doubled or record.protocol_errors)
    assert [effect for message in arriving for effect in ledger.on_report(message)] == []


@st.composite
def noise(draw: st.DrawFn) -> ExecutionReport:
    small = st.integers(-2, 12)
    return ExecutionReport(
        cl_ord_id=draw(st.sampled_from([planned().terms.cl_ord_id, "stranger"])),
        order_id=draw(st.integers(0, 2)),
        exec_id=draw(st.integers(0, 12)),
        exec_type=draw(st.sampled_from([*E, 0, 255])),
        ord_status=draw(st.sampled_from([*OrdStatus, 0])),
        symbol=3,
        side=1,
        order_quantity=10,
        last_quantity=draw(small),
        last_price=draw(st.integers(-1, 3)),
        cumulative_quantity=draw(small),
        leaves_quantity=draw(small),
        reason=draw(st.sampled_from([*RejectReason, 77])),
        market_index=0,
    )


actions = st.sampled_from(["mark_sending", "mark_unknown", "mark_lapsed", "request_cancel", "cancel_refused"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(noise(), noise(), actions), max_size=40))
def test_no_venue_can_break_the_ledger(script: list) -> None:
    ledger = OrderLedger()
    record = ledger.open(planned(quantity=10))
    arguments = {"mark_sending": (1,), "mark_lapsed": (DenyCode.GATE_EXPIRED,)}
    booked = 0
    for step in script:
        before, ended = record.cumulative_quantity, record.state in TERMINAL
        if isinstance(step, str):
            getattr(ledger, step)(record.cl_ord_id, *arguments.get(step, ()))
            assert not ended or record.state in TERMINAL
        else:
            effects = ledger.on_report(step)
            booked += sum(effect.fill_quantity for effect in effects if isinstance(effect, Applied))
        ledger.check_invariants()
        assert record.cumulative_quantity >= before
    assert booked == record.cumulative_quantity
    assert record.cumulative_quantity <= 10 or record.overfilled
