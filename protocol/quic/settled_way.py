"""The short way of one of qh3's connections: what is usual goes to its core, which is in Rust, and from it.

The library's own layer looks into each datagram three times for what only a handshake has, and reads each packet again
for a log that we have not. Everything that the core tells beside data is taken by that layer all the same.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from qh3.quic import events

from protocol.quic.backend import Address
from protocol.quic.short_way import ShortWay

ACK_TIMER: Final = "ack_application"
LONG_HEADER: Final = 0x80
"""In the first byte of a packet of the handshake (RFC 9000, 17.2); one with a short header fills its datagram."""
PATIENT_BYTES: Final = 4096
"""Of what has come since we spoke. Whoever sends more at a time waits for room, and its core wants to hear of it."""


class SettledWay(ShortWay):
    """Open from the end of the handshake until the connection is closing. The acknowledgement of a little waits
    ``patience_s`` longer than the core would let it, for data to ride on."""

    def __init__(self, connection: Any, patience_s: float) -> None:
        super().__init__(connection._events)
        self.datagrams_waiting: deque[bytes] = deque()
        """DATAGRAM frames, which only the connection hands over."""
        self.datagrams_sent = 0
        self._connection = connection
        self._patience_s = patience_s
        self._core: Any = None
        """The connection's, while this way is open."""
        self._heard_bytes = 0
        """Since something was sent."""
        self._written: set[int] = set()
        """Streams that the library knows to be open, because it was the first to write to them."""

    def holds(self) -> bool:
        return self._core is not None or self._look()

    def close(self) -> None:
        """The library goes on. It may be open again at the next look."""
        self._core = None

    def release(self) -> None:
        """Never open again: the connection is forgotten."""
        self._core = self._connection = None

    def heard(self, size: int) -> None:
        """A datagram has come."""
        self._heard_bytes += size

    def sent(self, datagrams: int) -> None:
        """So many have left."""
        if datagrams:
            self.datagrams_sent += datagrams
            self._heard_bytes = 0

    def receive_usual(self, data: bytes, address: Address, now: float) -> bool:
        """As ``ShortWay.receive_usual``: any packet that is not of the handshake."""
        if not self.holds() or data[0] & LONG_HEADER:
            return False
        core = self._core
        self._heard_bytes += len(data)
        core.receive_datagram(data, address, now, len(data))
        while (told := core.next_event()) is not None:
            if told[0] == "stream_data":
                self.events.append(events.StreamDataReceived(told[2], told[3], told[1]))
            else:
                self._connection.take(told)
        return True

    def usual_datagrams(self, now: float) -> list[tuple[bytes, Address]] | None:
        if self.datagrams_waiting or not self.holds():
            return None
        datagrams = transmitted(self._core, now)
        self.sent(len(datagrams))
        return datagrams

    def write(self, stream_id: int, data: bytes) -> bool:
        """As ``ShortWay.write``: anything but the first to a stream, with which the library opens it."""
        if not self.holds():
            return False
        if stream_id not in self._written:
            self._written.add(stream_id)
            return False
        try:
            self._core.send_stream(stream_id, data, False)
        except (RuntimeError, ValueError):
            return False  # the library will be told the same, and knows what it means
        return True

    def must_send(self, now: float) -> bool:
        """Asking the core for datagrams costs about a microsecond, but an acknowledgement that is due leaves alone."""
        if self.datagrams_waiting or self._core.get_send_buffer_size(None):
            return True
        timer = self._core.get_timer()
        waits = timer is not None and self._is_patient(timer[0]) and timer[1] <= now < timer[1] + self._patience_s
        return not waits

    def timer_at(self) -> float:
        timer = self._core.get_timer()
        if timer is None:
            return float("inf")
        at: float = timer[1]
        return at + self._patience_s if self._is_patient(timer[0]) else at

    def unsent_bytes(self, stream_id: int) -> int:
        size: int = self._core.get_send_buffer_size(stream_id)
        return size

    def _look(self) -> bool:
        connection = self._connection
        if connection is not None and connection._handshake_confirmed and connection._close_event is None:
            self._core = connection._core
        return self._core is not None

    def _is_patient(self, timer: str) -> bool:
        return timer == ACK_TIMER and self._heard_bytes < PATIENT_BYTES


def transmitted(core: Any, now: float) -> list[tuple[bytes, Address]]:
    """What the core has to say, as the library asks for it."""
    datagrams: list[tuple[bytes, Address]] = []
    while (transmit := core.poll_transmit(now)) is not None:
        datagrams.append((transmit[0], transmit[1]))
    return datagrams
