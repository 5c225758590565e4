"""What the ledger asks its shell to do, what it wants a person to hear, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from msgspec import Struct

from orders.order import Order
from orders.states import OrderState
from protocol.messages import ExecutionReport


class AlarmKind(Enum):
    """What a person should hear about. None of these stops the ledger."""

    LATE_FILL = "late_fill"
    OVERFILL = "overfill"
    FILLS_MISSING = "fills_missing"
    REVIVED = "revived"
    """An order that had ended by rejection or lapse is alive at the venue."""
    SECOND_VENUE_ORDER = "second_venue_order"
    DUPLICATE_REFUSED = "duplicate_refused"
    """The venue refused an id as already used: an earlier send has landed."""
    FORGOTTEN = "forgotten"
    """The venue no longer knows an order that it had acknowledged."""
    CONTRADICTION = "contradiction"
    """A report that does not fit the order's terms or its own numbers; not applied."""
    ILLEGAL_TRANSITION = "illegal_transition"


class Applied(Struct, frozen=True, gc=False):
    """A report took effect: to be journalled, and told to the swarm as an ``OrderEvent``."""

    order: Order
    previous: OrderState
    state: OrderState
    report: ExecutionReport
    fill_quantity: int
    first: bool
    """The first word of the venue about this order: its confirmation."""


class Alarm(Struct, frozen=True, gc=False):
    kind: AlarmKind
    order: Order
    report: ExecutionReport


class QueryNeeded(Struct, frozen=True, gc=False):
    """Ask the venue for everything that it knows about this order."""

    cl_ord_id: str


class AbsentAtVenue(Struct, frozen=True, gc=False):
    """The venue does not know an UNKNOWN order: it may now be sent again under its id, or lapse."""

    cl_ord_id: str


Effect = Applied | Alarm | QueryNeeded | AbsentAtVenue


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """Orders by what became of them, and what the ledger had to ignore."""

    opened: int
    sent: int
    working: int
    filled: int
    rejected: int
    expired: int
    canceled: int
    lapsed: int
    unknown: int
    duplicate: int
    """Orders that the venue was made to see twice: acknowledged twice, reported under two order ids, or refused as a
    duplicate although we had no reason to send them again."""
    lost: int
    """Sent, but neither ended nor working: still SENDING or UNKNOWN. 0 is the only good value after a run."""
    resent: int
    """Sent once more under their id, after the venue denied knowing them."""
    sends_refused: int
    """Attempts to send an order that was out or had ended; nothing left."""
    fills: int
    fills_missing: int
    late_fills: int
    overfilled: int
    protocol_errors: int
    ignored: dict[str, int]
    """Reports without effect, by reason."""
