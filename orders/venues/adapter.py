"""What an executor asks of a venue, whatever protocol the venue speaks.

The contract is as large as its use. The three answers to a query are kept apart with care: a venue that says no is
evidence, a venue that cannot be reached is none, and to take one for the other is how orders are lost or doubled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from protocol.messages import ExecutionReport, NewOrder


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


@dataclass(frozen=True, slots=True)
class Found:
    """Every report that the venue has made about the order, oldest first, and its present status last."""

    reports: tuple[ExecutionReport, ...]


@dataclass(frozen=True, slots=True)
class NotFound:
    """The venue's own word that it does not know the order: ``report`` is REJECTED with UNKNOWN_ORDER."""

    report: ExecutionReport


@dataclass(frozen=True, slots=True)
class CannotTell:
    """No evidence either way: not connected, no answer in time, an answer that cannot be read."""

    reason: str


QueryAnswer = Found | NotFound | CannotTell


class VenueAdapter(Protocol):
    """One connection to one venue. The adapter never retries and never invents an outcome."""

    @property
    def capabilities(self) -> VenueCapabilities: ...

    def submit(self, orders: Sequence[NewOrder]) -> None:
        """Hand orders to the wire, in order, without waiting for any answer.

        Raises ``Unavailable`` only if it is certain that no byte of any of them left. Once it returns, the outcome of
        each order is known from ``events`` or ``query`` and from nothing else.
        """
        ...

    async def query(self, cl_ord_id: str) -> QueryAnswer: ...

    def events(self) -> AsyncIterator[Sequence[ExecutionReport]]:
        """Reports as they come, in batches, until the connection is closed; ``Unavailable`` if it is lost."""
        ...
