"""What is usual on a connection goes past its library's Python: a driver asks the short way before the connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

from protocol.quic.backend import Address


class ShortWay(ABC):
    """A method that says no has changed nothing: then the connection has to be asked. ``must_send``, ``timer_at`` and
    ``unsent_bytes`` are for a way that ``holds``."""

    def __init__(self, events: deque[Any]) -> None:
        self.events = events
        """What has happened, in order, whoever noticed: the connection's own."""

    @abstractmethod
    def holds(self) -> bool:
        """Whether it knows all that there is to know of the connection. Nothing is ending then."""

    @abstractmethod
    def receive_usual(self, data: bytes, address: Address, now: float) -> bool:
        """Take in a datagram. Says whether it did."""

    @abstractmethod
    def usual_datagrams(self, now: float) -> list[tuple[bytes, Address]] | None:
        """All that the connection has to say, or None."""

    @abstractmethod
    def write(self, stream_id: int, data: bytes) -> bool:
        """Append to an open stream. Says whether it did."""

    @abstractmethod
    def must_send(self, now: float) -> bool:
        """As ``Connection.must_send``."""

    @abstractmethod
    def timer_at(self) -> float:
        """As ``Connection.get_timer``; infinite for none."""

    @abstractmethod
    def unsent_bytes(self, stream_id: int) -> int:
        """As ``Connection.unsent_bytes``."""
