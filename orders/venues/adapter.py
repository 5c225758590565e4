"""What an executor must know of a venue before it may send an order a second time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Deduplication(Enum):
    """How long a venue refuses a client order id that it has seen."""

    NONE = "none"
    OPEN_ORDERS = "open_orders"
    """Only while the first order is open: a fill that came quickly makes the id free again."""
    FOREVER = "forever"


@dataclass(frozen=True, slots=True)
class VenueCapabilities:
    name: str
    deduplication: Deduplication
    query_by_client_order_id: bool
    cancel_on_disconnect: bool

    @property
    def may_resend(self) -> bool:
        """An UNKNOWN order may be sent once more under its id without any risk of a second order."""
        return self.deduplication is Deduplication.FOREVER
