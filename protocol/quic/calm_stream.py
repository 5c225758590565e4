"""One stream of a calm connection, and the packets that carried it, as plain objects of numbers."""

from __future__ import annotations

from typing import Any, Final

from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

ONE_RTT: Final = tls.Epoch.ONE_RTT
SHORT_HEADER_PACKET: Final = QuicPacketType.ONE_RTT


class CalmStream:
    """What the library knows of a stream that is open both ways, has all its bytes in order, and has nothing to say but
    more of them. Offsets count from the stream's beginning."""

    def __init__(self, stream: QuicStream) -> None:
        assert stream.stream_id is not None, "only the handshake's streams have no number"
        self.stream = stream
        self.stream_id = stream.stream_id
        self.buffer = stream.sender._buffer
        """The library's own: what has been written and is not acknowledged."""
        self.buffer_start = 0
        """Offset of its first byte,"""
        self.next = 0
        """of the first byte that has not been sent,"""
        self.buffer_stop = 0
        """and behind its last."""
        self.send_max = 0
        """Where the peer's flow control ends."""
        self.received = 0
        """Offset of the next byte to come."""
        self.receive_max = 0
        """Where our flow control ends."""
        self.checked = 0
        """Scratch of whoever checks an acknowledgement of several packets."""

    def load(self) -> bool:
        """Take over what the library knows; false when it is anything but the usual."""
        stream = self.stream
        sender, receiver = stream.sender, stream.receiver
        if receiver.stop_pending or receiver.is_finished or receiver._final_size is not None or receiver._buffer:
            return False
        if sender.reset_pending or sender.is_finished or sender._buffer_fin is not None or stream.is_blocked:
            return False
        if sender._reset_error_code is not None or ranges_of(sender._acked):
            return False
        if stream.max_stream_data_local != stream.max_stream_data_local_sent:
            return False
        self.received = receiver.highest_offset
        self.receive_max = stream.max_stream_data_local
        self.send_max = stream.max_stream_data_remote
        self.buffer, self.buffer_start, self.buffer_stop = sender._buffer, sender._buffer_start, sender._buffer_stop
        pending = ranges_of(sender._pending)
        self.next = pending[0].start if pending else self.buffer_stop
        if len(pending) > 1 or (pending and pending[0].stop != self.buffer_stop):
            return False
        if sender.buffer_is_empty is not (not pending) or receiver._buffer_start != self.received:
            return False
        return sender.highest_offset == self.next

    def store(self) -> None:
        """Tell the library what has changed."""
        sender, receiver = self.stream.sender, self.stream.receiver
        receiver._buffer_start = receiver.highest_offset = self.received
        sender._buffer_start, sender._buffer_stop = self.buffer_start, self.buffer_stop
        sender.highest_offset = self.next
        sender.buffer_is_empty = self.next == self.buffer_stop
        ranges_of(sender._pending)[:] = [] if sender.buffer_is_empty else [range(self.next, self.buffer_stop)]


class Sent:
    """A packet that has left with an acknowledgement, bytes of one stream, or both. It stands among the library's own
    (``QuicSentPacket``), whose attributes it has."""

    def __init__(
        self, connection: QuicConnection, number: int, sent_time: float, stream: CalmStream | None, start: int
    ) -> None:
        self.packet_number = number
        self.sent_time = sent_time
        self.sent_bytes = 0
        self.stream = stream
        self.start = start
        self.stop = start
        self.acknowledged = -1
        """Highest packet number that it acknowledged; none: -1."""
        self._connection = connection

    @property
    def epoch(self) -> tls.Epoch:
        return ONE_RTT

    @property
    def packet_type(self) -> QuicPacketType:
        return SHORT_HEADER_PACKET

    @property
    def in_flight(self) -> bool:
        return self.stream is not None

    @property
    def is_ack_eliciting(self) -> bool:
        return self.stream is not None

    @property
    def is_crypto_packet(self) -> bool:
        return False

    @property
    def delivery_handlers(self) -> list[tuple[Any, Any]]:
        """Whom the library tells that it has arrived, or is lost."""
        handlers: list[tuple[Any, Any]] = []
        if self.acknowledged >= 0:
            space: QuicPacketSpace = self._connection._spaces[ONE_RTT]
            handlers.append((self._connection._on_ack_delivery, (space, self.acknowledged)))
        if self.stream is not None:
            handlers.append((self.stream.stream.sender.on_data_delivery, (self.start, self.stop, False)))
        return handlers


def ranges_of(ranges: RangeSet) -> list[range]:
    """The set's own list, to be looked at without a call for every item."""
    found: list[range] = getattr(ranges, "_RangeSet__ranges")  # noqa: B009 - the name is the library's, mangled
    return found
