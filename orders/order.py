"""One order: its terms, what the venue has done with it, and the id by which everyone knows it."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from orders.states import TERMINAL, TRANSITIONS, WORKING, OrderState, OrderTrigger
from protocol.errors import LocalMisuse
from protocol.messages import ExecutionReport, NewOrder

CLIENT_ORDER_ID_LENGTH: Final = 17
"""Short enough for the tightest venues, which allow 18 characters."""

_LEGS: Final = "abcdefghijklmnopqrstuvwxyz234567"


def client_order_id(cluster_id: bytes, trader: int, intent_sequence: int, leg: int) -> str:
    """The id of one leg of an intent: 16 base32 characters of a SHA-256 and one for the leg, all lower case.

    It depends on nothing but the intent, so every path, every restart and every successor derives the same id.
    ``leg`` is 0 to 31; anything else is ``LocalMisuse``.
    """
    if not 0 <= leg < len(_LEGS):
        raise LocalMisuse(f"leg {leg} is outside 0..{len(_LEGS) - 1}")
    identity = struct.pack("<QHQ", len(cluster_id), trader, intent_sequence)
    hashed = hashlib.sha256(b"swarm/order/1" + identity + cluster_id).digest()
    return base64.b32encode(hashed[:10]).decode("ascii").lower() + _LEGS[leg]


class PlannedOrder(Struct, frozen=True, gc=False):
    """An order that the gate has let through: the very terms that will leave, and why they may."""

    terms: NewOrder
    trader: int
    intent: int
    """The intent's sequence number at its trader."""
    leg: int
    cycle: int
    decision_digest: bytes
    """Digest of the command whose certificate released this order."""
    slice_id: int = 0
    slice_version: int = 0
    spent_notional: int = 0
    """What this order took from its slice version, kept so that the gate is rebuilt from the journal. Of several legs
    only one carries it."""


class IllegalTransition(Struct, frozen=True, gc=False):
    """A protocol error: ``trigger`` has no row in the table for ``state``. The order was left as it was."""

    cl_ord_id: str
    state: OrderState
    trigger: OrderTrigger


@dataclass(slots=True, eq=False)
class Order:
    """An order's live record. Prices and notional in units of 1/10,000, quantities in shares.

    Invariant: ``cumulative_quantity <= quantity`` unless ``overfilled``; it never falls.
    """

    planned: PlannedOrder
    state: OrderState = OrderState.COMMITTED
    cumulative_quantity: int = 0
    cumulative_notional: int = 0
    """Sum of quantity times price over the fills: the average price without its division."""
    venue_order_id: int = 0
    """0 until the venue has named one."""
    venue_cumulative_quantity: int = 0
    """The most that the venue has ever said to be filled; above ``cumulative_quantity``, fills are missing."""
    last_exec_id: int = 0
    reason: int = 0
    """``RejectReason`` of a rejected order, ``DenyCode`` of a lapsed one."""
    sends: int = 0
    """How often the order was handed to the wire. More than 1 only on the venue's word that it does not know it."""
    sent_at_ns: int = 0
    acknowledged: bool = False
    confirmed: bool = False
    """Some word of the venue about this order has been applied."""
    overfilled: bool = False
    absent_at_venue: bool = False
    """The venue has answered a query with: never heard of it. Cleared by any later word about the order."""
    doubled: bool = False
    """The venue has seen this id twice without a reason of ours; see ``LedgerCounts.duplicate``."""
    protocol_errors: int = 0
    exec_ids: set[int] = field(default_factory=set)
    """Reports that have been applied. An id enters only after its report took effect."""
    fill_ends: set[tuple[int, int]] = field(default_factory=set)
    """(venue order id, its cumulative quantity) after each applied fill: known again under another exec id."""

    @property
    def cl_ord_id(self) -> str:
        return self.planned.terms.cl_ord_id

    @property
    def quantity(self) -> int:
        return self.planned.terms.quantity

    @property
    def leaves_quantity(self) -> int:
        """What may still be filled; 0 for an order that has ended."""
        return 0 if self.state in TERMINAL else max(0, self.quantity - self.cumulative_quantity)

    @property
    def missing_quantity(self) -> int:
        """Filled according to the venue, but no fill report has reached us."""
        return max(0, self.venue_cumulative_quantity - self.cumulative_quantity)

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def working(self) -> bool:
        return self.state in WORKING

    def apply(self, trigger: OrderTrigger) -> IllegalTransition | None:
        """Take the table's row, or count a protocol error and return it; never raises."""
        target = TRANSITIONS.get((self.state, trigger))
        if target is None:
            self.protocol_errors += 1
            return IllegalTransition(self.cl_ord_id, self.state, trigger)
        self.state = target
        return None

    def record_fill(self, report: ExecutionReport) -> OrderTrigger:
        """Add a TRADE report to the quantities and name the trigger that it pulls. The state is left to ``apply``."""
        self.cumulative_quantity += report.last_quantity
        self.cumulative_notional += report.last_quantity * report.last_price
        self.fill_ends.add((report.order_id, report.cumulative_quantity))
        self.overfilled = self.overfilled or self.cumulative_quantity > self.quantity
        return OrderTrigger.FILL if self.cumulative_quantity >= self.quantity else OrderTrigger.PARTIAL_FILL

    def check_invariants(self) -> None:
        assert self.cumulative_quantity >= 0
        assert self.cumulative_quantity <= self.quantity or self.overfilled
        assert self.cumulative_quantity == 0 or self.cumulative_notional > 0
        assert self.state is not OrderState.FILLED or self.cumulative_quantity >= self.quantity
