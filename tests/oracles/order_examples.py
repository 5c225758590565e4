"""Orders and reports for tests, with everything that does not matter filled in."""

from __future__ import annotations

from orders.order import PlannedOrder, client_order_id
from protocol.codes import ExecType, OrdStatus, RejectReason, Side, TimeInForce
from protocol.messages import ExecutionReport, NewOrder

CLUSTER = b"a cluster of tests"

_STATUS = {
    ExecType.NEW: OrdStatus.NEW,
    ExecType.TRADE: OrdStatus.PARTIALLY_FILLED,
    ExecType.CANCELED: OrdStatus.CANCELED,
    ExecType.EXPIRED: OrdStatus.EXPIRED,
    ExecType.REJECTED: OrdStatus.REJECTED,
    ExecType.ORDER_STATUS: OrdStatus.NEW,
}


def planned(
    intent: int = 1,
    quantity: int = 10,
    price: int = 1_000_000,
    side: Side = Side.BUY,
    tif: TimeInForce = TimeInForce.DAY,
    symbol: int = 3,
    market_index: int = 0,
    trader: int = 2,
    leg: int = 0,
) -> PlannedOrder:
    cl_ord_id = client_order_id(CLUSTER, trader, intent, leg)
    terms = NewOrder(cl_ord_id, symbol, side, tif, quantity, price, market_index)
    return PlannedOrder(terms, trader, intent, leg, 7, b"d" * 32, 1, 2, quantity * price)


def report(
    order: PlannedOrder,
    exec_type: ExecType,
    exec_id: int,
    last: int = 0,
    cumulative: int = 0,
    price: int = 1_000_000,
    reason: RejectReason = RejectReason.NONE,
    status: OrdStatus | None = None,
    order_id: int = 77,
) -> ExecutionReport:
    terms = order.terms
    return ExecutionReport(
        cl_ord_id=terms.cl_ord_id,
        order_id=order_id,
        exec_id=exec_id,
        exec_type=exec_type,
        ord_status=_STATUS[exec_type] if status is None else status,
        symbol=terms.symbol,
        side=terms.side,
        order_quantity=terms.quantity,
        last_quantity=last,
        last_price=price if last else 0,
        cumulative_quantity=cumulative,
        leaves_quantity=terms.quantity - cumulative,
        reason=reason,
        market_index=0,
    )
