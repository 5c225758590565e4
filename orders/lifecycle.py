"""The ledger of an executor: every order it is responsible for, driven by the venue's reports. A pure machine.

What it guarantees, whatever the venue sends: a report takes effect at most once, cumulative quantities never fall, a
fill is never dropped because it came late, early or in excess, and UNKNOWN ends only by the venue's word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from orders.effects import AbsentAtVenue, Alarm, AlarmKind, Applied, Effect, LedgerCounts, QueryNeeded
from orders.order import Order, PlannedOrder
from orders.states import TERMINAL, TRANSITIONS, UNRESOLVED, OrderState, OrderTrigger
from protocol.codes import ExecType, OrdStatus, RejectReason
from protocol.errors import LocalMisuse
from protocol.messages import ExecutionReport

__all__ = ["AbsentAtVenue", "Alarm", "AlarmKind", "Applied", "Effect", "LedgerCounts", "OrderLedger", "QueryNeeded"]


class OrderLedger:
    """Registry and lifecycle of orders by client order id."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self._awaiting: dict[str, int] = {}
        self._ignored: Counter[str] = Counter()
        self._sends_refused = 0
        self._resends = 0
        self._fills = 0
        self._late_fills = 0

    # --- what the executor does --------------------------------------------------------------------------------------

    def open(self, planned: PlannedOrder) -> Order:
        """Take charge of a COMMITTED order. Opening an id twice is ``LocalMisuse``: the gate admits it once."""
        cl_ord_id = planned.terms.cl_ord_id
        if cl_ord_id in self.orders:
            raise LocalMisuse(f"order {cl_ord_id} is already open")
        order = self.orders[cl_ord_id] = Order(planned)
        return order

    def mark_sending(self, cl_ord_id: str, now_ns: int) -> bool:
        """The order is durable and about to leave. False: it must not leave, for it is out or has ended already."""
        order = self._known(cl_ord_id)
        again = order.state is OrderState.UNKNOWN
        if (order.state, OrderTrigger.SEND) not in TRANSITIONS or (again and not order.absent_at_venue):
            self._sends_refused += 1
            return False
        order.apply(OrderTrigger.SEND)
        order.sends += 1
        order.sent_at_ns = now_ns
        order.absent_at_venue = False
        self._resends += again
        self._awaiting[cl_ord_id] = now_ns
        return True

    def mark_unknown(self, cl_ord_id: str) -> bool:
        """No answer in time, connection lost or process restarted. False if the venue has answered meanwhile."""
        order = self._known(cl_ord_id)
        self._awaiting.pop(cl_ord_id, None)
        if order.state not in (OrderState.SENDING, OrderState.PENDING_NEW):
            return False
        return order.apply(OrderTrigger.LOSE_TRACK) is None

    def mark_lapsed(self, cl_ord_id: str, reason: int) -> bool:
        """The order will never reach the venue. ``reason`` is a ``DenyCode``.

        Legal before any byte left, and for an UNKNOWN order only after the venue said that it does not know it.
        """
        order = self._known(cl_ord_id)
        if order.state is OrderState.UNKNOWN and not order.absent_at_venue:
            return False
        if (order.state, OrderTrigger.LAPSE) not in TRANSITIONS:
            return False
        order.apply(OrderTrigger.LAPSE)
        order.reason = reason
        return True

    def request_cancel(self, cl_ord_id: str) -> bool:
        """A cancel is about to leave. False if the venue does not hold the order (any more)."""
        order = self._known(cl_ord_id)
        if (order.state, OrderTrigger.REQUEST_CANCEL) not in TRANSITIONS:
            return False
        return order.apply(OrderTrigger.REQUEST_CANCEL) is None

    def cancel_refused(self, cl_ord_id: str) -> bool:
        """The venue refused the cancel: the order is what it was before. False if it has ended meanwhile."""
        order = self._known(cl_ord_id)
        if (order.state, OrderTrigger.REFUSE_CANCEL) not in TRANSITIONS:
            return False
        order.apply(OrderTrigger.REFUSE_CANCEL)
        if order.cumulative_quantity:
            order.apply(OrderTrigger.PARTIAL_FILL)
        return True

    def overdue(self, now_ns: int, timeout_ns: int) -> list[str]:
        """Ids sent at least ``timeout_ns`` ago without any word of the venue since, oldest first."""
        due = []
        for cl_ord_id, sent_at_ns in self._awaiting.items():
            if now_ns - sent_at_ns < timeout_ns:
                break
            due.append(cl_ord_id)
        return due

    def next_overdue_ns(self, timeout_ns: int) -> int | None:
        """When ``overdue`` will next have something to say; None if nothing is awaited."""
        oldest = next(iter(self._awaiting.values()), None)
        return None if oldest is None else oldest + timeout_ns

    # --- what the venue says -----------------------------------------------------------------------------------------

    def on_report(self, report: ExecutionReport) -> list[Effect]:
        """Apply one report. Effects come in the order in which they are to be performed; empty if it was ignored."""
        order = self.orders.get(report.cl_ord_id)
        if order is None:
            return self._ignore("unknown_order")
        if report.exec_id and report.exec_id in order.exec_ids:
            return self._ignore("repeated_report")
        handler = _HANDLERS.get(report.exec_type)
        if handler is None:
            return self._ignore("exec_type_unknown")
        if order.state in _BEFORE_SENDING and report.exec_type != ExecType.TRADE:
            order.protocol_errors += 1
            self._ignore("never_sent")
            return [Alarm(AlarmKind.CONTRADICTION, order, report)]
        return handler(self, order, report)

    def _on_new(self, order: Order, report: ExecutionReport) -> list[Effect]:
        alarms: list[Effect] = []
        if order.acknowledged:
            order.doubled = True
            alarms.append(Alarm(AlarmKind.SECOND_VENUE_ORDER, order, report))
        order.acknowledged = True
        return self._take(order, report, _alive(order)) + alarms

    def _on_trade(self, order: Order, report: ExecutionReport) -> list[Effect]:
        if not _plausible_fill(order, report):
            order.protocol_errors += 1
            self._ignore("contradiction")
            return [Alarm(AlarmKind.CONTRADICTION, order, report), QueryNeeded(order.cl_ord_id)]
        if (report.order_id, report.cumulative_quantity) in order.fill_ends:
            return self._ignore("repeated_fill")
        previous, was_overfilled = order.state, order.overfilled
        trigger = order.record_fill(report)
        self._fills += 1
        effects = self._take(order, report, trigger, fill_quantity=report.last_quantity)
        if previous in TERMINAL:
            self._late_fills += 1
            effects.append(Alarm(AlarmKind.LATE_FILL, order, report))
        if order.overfilled and not was_overfilled:
            effects.append(Alarm(AlarmKind.OVERFILL, order, report))
        return effects

    def _on_canceled(self, order: Order, report: ExecutionReport) -> list[Effect]:
        return self._take(order, report, OrderTrigger.CANCEL)

    def _on_expired(self, order: Order, report: ExecutionReport) -> list[Effect]:
        return self._take(order, report, OrderTrigger.EXPIRE)

    def _on_rejected(self, order: Order, report: ExecutionReport) -> list[Effect]:
        if report.reason == RejectReason.UNKNOWN_ORDER:
            return self._on_absent(order, report)
        if report.reason == RejectReason.DUPLICATE_ORDER:
            return self._on_duplicate(order, report)
        effects = self._take(order, report, OrderTrigger.REJECT)
        if order.state is OrderState.REJECTED:
            order.reason = report.reason
        return effects

    def _on_absent(self, order: Order, report: ExecutionReport) -> list[Effect]:
        if order.absent_at_venue:
            return self._ignore("absence_known")
        if order.state is OrderState.UNKNOWN and not order.confirmed:
            order.absent_at_venue = True
            return [AbsentAtVenue(order.cl_ord_id)]
        if order.state is not OrderState.UNKNOWN and not order.working:
            return self._ignore("absence_not_asked_for")
        # A venue that once confirmed the order and now denies it proves nothing: it must not be sent a second time.
        if order.working:
            order.apply(OrderTrigger.LOSE_TRACK)
        return [Alarm(AlarmKind.FORGOTTEN, order, report)]

    def _on_duplicate(self, order: Order, report: ExecutionReport) -> list[Effect]:
        """The id is taken, so an earlier send has landed: this is news of that order, not a rejection of it."""
        effects: list[Effect] = [Alarm(AlarmKind.DUPLICATE_REFUSED, order, report)]
        self._mark_seen(order, report)
        if order.sends < 2:
            order.doubled = True
        if order.state is OrderState.SENDING:
            order.apply(OrderTrigger.LOSE_TRACK)
            self._awaiting.pop(order.cl_ord_id, None)
        if order.state is OrderState.UNKNOWN:
            order.absent_at_venue = False
            effects.append(QueryNeeded(order.cl_ord_id))
        return effects

    def _on_status(self, order: Order, report: ExecutionReport) -> list[Effect]:
        trigger = _STATUS_TRIGGERS.get(report.ord_status)
        if trigger is None:
            return self._ignore("status_unknown")
        if trigger is OrderTrigger.REJECT:
            return self._on_rejected(order, report)
        return self._take(order, report, _alive(order) if trigger is OrderTrigger.ACKNOWLEDGE else trigger)

    # --- common to all reports ---------------------------------------------------------------------------------------

    def _take(
        self, order: Order, report: ExecutionReport, trigger: OrderTrigger, fill_quantity: int = 0
    ) -> list[Effect]:
        previous, first = order.state, not order.confirmed
        illegal = order.apply(trigger)
        order.confirmed = True
        order.absent_at_venue = False
        self._mark_seen(order, report)
        self._awaiting.pop(order.cl_ord_id, None)
        effects: list[Effect] = []
        if fill_quantity or order.state is not previous:
            effects.append(Applied(order, previous, order.state, report, fill_quantity, first))
        if illegal is not None:
            effects.append(Alarm(AlarmKind.ILLEGAL_TRANSITION, order, report))
        if previous in TERMINAL and order.state not in TERMINAL:
            effects.append(Alarm(AlarmKind.REVIVED, order, report))
        self._note_venue_order(order, report, effects)
        self._note_missing_fills(order, report, effects)
        return effects

    def _mark_seen(self, order: Order, report: ExecutionReport) -> None:
        """Only after a report took effect: one that was refused may come again in a better shape."""
        if report.exec_id:
            order.exec_ids.add(report.exec_id)
            order.last_exec_id = report.exec_id

    def _note_venue_order(self, order: Order, report: ExecutionReport, effects: list[Effect]) -> None:
        if report.order_id == 0:
            return
        if order.venue_order_id not in (0, report.order_id):
            order.doubled = True
            effects.append(Alarm(AlarmKind.SECOND_VENUE_ORDER, order, report))
            return
        order.venue_order_id = report.order_id

    def _note_missing_fills(self, order: Order, report: ExecutionReport, effects: list[Effect]) -> None:
        if report.cumulative_quantity <= order.venue_cumulative_quantity:
            return
        order.venue_cumulative_quantity = report.cumulative_quantity
        if order.missing_quantity:
            effects.append(Alarm(AlarmKind.FILLS_MISSING, order, report))
            effects.append(QueryNeeded(order.cl_ord_id))

    def _known(self, cl_ord_id: str) -> Order:
        order = self.orders.get(cl_ord_id)
        if order is None:
            raise LocalMisuse(f"order {cl_ord_id} was never opened")
        return order

    def _ignore(self, reason: str) -> list[Effect]:
        self._ignored[reason] += 1
        return []

    # --- what the report says ----------------------------------------------------------------------------------------

    def unresolved(self) -> list[str]:
        """Ids of orders that may be out and have no answer, in the order in which they were opened."""
        return [cl_ord_id for cl_ord_id, order in self.orders.items() if order.state in UNRESOLVED]

    def counts(self) -> LedgerCounts:
        """One pass over all orders."""
        orders = self.orders.values()
        states = Counter(order.state for order in orders)
        return LedgerCounts(
            opened=len(self.orders),
            sent=sum(order.sends > 0 for order in orders),
            working=sum(order.working for order in orders),
            filled=states[OrderState.FILLED],
            rejected=states[OrderState.REJECTED],
            expired=states[OrderState.EXPIRED],
            canceled=states[OrderState.CANCELED],
            lapsed=states[OrderState.LAPSED],
            unknown=states[OrderState.UNKNOWN],
            duplicate=sum(order.doubled for order in orders),
            lost=sum(states[state] for state in UNRESOLVED),
            resent=self._resends,
            sends_refused=self._sends_refused,
            fills=self._fills,
            fills_missing=sum(order.missing_quantity > 0 for order in orders),
            late_fills=self._late_fills,
            overfilled=sum(order.overfilled for order in orders),
            protocol_errors=sum(order.protocol_errors for order in orders),
            ignored=dict(sorted(self._ignored.items())),
        )

    def check_invariants(self) -> None:
        for cl_ord_id, order in self.orders.items():
            order.check_invariants()
            assert order.cl_ord_id == cl_ord_id
            assert cl_ord_id not in self._awaiting or order.state is OrderState.SENDING


def _alive(order: Order) -> OrderTrigger:
    """The venue holds the order. Fills that we know of must not be forgotten on the way out of UNKNOWN."""
    lost_track = order.state is OrderState.UNKNOWN
    return OrderTrigger.PARTIAL_FILL if lost_track and order.cumulative_quantity else OrderTrigger.ACKNOWLEDGE


def _plausible_fill(order: Order, report: ExecutionReport) -> bool:
    terms = order.planned.terms
    same_order = report.symbol == terms.symbol and report.side == terms.side and report.order_quantity == terms.quantity
    return same_order and report.last_price > 0 and 0 < report.last_quantity <= report.cumulative_quantity


_BEFORE_SENDING: Final = frozenset({OrderState.PROPOSED, OrderState.DENIED, OrderState.COMMITTED})

_STATUS_TRIGGERS: Final[dict[int, OrderTrigger]] = {
    OrdStatus.PENDING_NEW: OrderTrigger.RECEIVE,
    OrdStatus.NEW: OrderTrigger.ACKNOWLEDGE,
    # Fills come as TRADE reports alone, for a status has no price. Until they are here the order is merely alive.
    OrdStatus.PARTIALLY_FILLED: OrderTrigger.ACKNOWLEDGE,
    OrdStatus.FILLED: OrderTrigger.ACKNOWLEDGE,
    OrdStatus.CANCELED: OrderTrigger.CANCEL,
    OrdStatus.EXPIRED: OrderTrigger.EXPIRE,
    OrdStatus.REJECTED: OrderTrigger.REJECT,
}

_HANDLERS: Final[dict[int, Callable[[OrderLedger, Order, ExecutionReport], list[Effect]]]] = {
    ExecType.NEW: OrderLedger._on_new,
    ExecType.TRADE: OrderLedger._on_trade,
    ExecType.CANCELED: OrderLedger._on_canceled,
    ExecType.EXPIRED: OrderLedger._on_expired,
    ExecType.REJECTED: OrderLedger._on_rejected,
    ExecType.ORDER_STATUS: OrderLedger._on_status,
}
