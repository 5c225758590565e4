"""The usual datagrams, written without the library's general packet builder.

Nearly all that an established connection sends is an acknowledgement of one unbroken range of packets, if one is due,
and the whole of what waits on one stream: one packet, or a few full ones in a row. aioquic asks some thirty questions
about frames that are not there, starts one more packet to find it empty, and copies each datagram four times. Here the
same questions decide once whether it is the usual case; if so the bytes are put together directly, and if not the
library does it.
``tests/protocol/test_fast_datagrams.py`` holds the two to the same frames, and to the same books afterwards.
"""

from __future__ import annotations

from typing import Final

from aioquic import tls
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.stream import QuicStream
from librt.strings import BytesWriter

from protocol.quic.books import add_next, idle_timeout_s, note_sent
from protocol.quic.calm import Calm
from protocol.quic.sealing import sealed

ONE_RTT: Final = tls.Epoch.ONE_RTT
SHORT_HEADER_PACKET: Final = QuicPacketType.ONE_RTT
FRAMES_OVERHEAD_BYTES_MAX: Final = 1 + 3 * 8 + 1 + 1 + 2 * 8 + 2
"""Acknowledgement of one range, and a stream frame's header, with every integer at its longest."""
TWO_BYTE_LENGTH: Final = 0x4000
TWO_BYTE_LENGTH_MAX: Final = 0x3FFF
ACK: Final = int(QuicFrameType.ACK)
STREAM_WITH_LENGTH: Final = int(QuicFrameType.STREAM_BASE) | 2
STREAM_OFFSET_BIT: Final = 4


class FastSender:
    """Sends the usual datagrams of one connection. Only for connections without a pacer."""

    def __init__(self, connection: QuicConnection, calm: Calm) -> None:
        self._connection = connection
        self._calm = calm
        self._space = connection._spaces[ONE_RTT]
        self._crypto = connection._cryptos[ONE_RTT]
        self._loss = connection._loss
        self._congestion = connection._loss._cc

    def write(self, stream: QuicStream, data: bytes) -> bool:
        """Append to a stream, as the library does. False, and nothing changed, unless the connection is calm and the
        stream goes on."""
        sender = stream.sender
        if not self._calm.holds or not data or sender._buffer_fin is not None or sender._reset_error_code is not None:
            return False
        start = sender._buffer_stop
        stop = start + len(data)
        add_next(sender._pending, start, stop)
        sender._buffer += data
        sender._buffer_stop = stop
        sender.buffer_is_empty = False
        self._calm.wait(stream)
        return True

    def usual_datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]] | None:
        """All that there is to send, already in the books of loss recovery; ``None``, and nothing changed, when that is
        anything but the data of one stream."""
        calm, connection = self._calm, self._connection
        if not calm.holds and not calm.look():
            return None
        stream = calm.waiting
        if stream is None or calm.several or len(self._space.ack_queue) > 1:
            return None
        sender = stream.sender
        pending = sender._pending
        if len(pending) != 1 or sender._buffer_fin is not None:
            return None
        waiting = pending[0]
        start, stop = waiting.start, waiting.stop
        if stop > stream.max_stream_data_remote:
            return None
        new = stop - sender.highest_offset
        if connection._remote_max_data_used + (new if new > 0 else 0) > connection._remote_max_data:
            return None
        around = 3 + len(calm.peer_id) + self._crypto.aead_tag_size
        room = connection._max_datagram_size - around
        packets = 1 + (stop - start) // (room - FRAMES_OVERHEAD_BYTES_MAX)
        bytes_max = stop - start + packets * (FRAMES_OVERHEAD_BYTES_MAX + around)
        congestion = self._congestion
        if bytes_max > congestion.congestion_window - congestion.bytes_in_flight or room > TWO_BYTE_LENGTH_MAX:
            return None
        return self._datagrams(stream, start, stop, room, now)

    def _datagrams(
        self, stream: QuicStream, start: int, stop: int, room: int, now: float
    ) -> list[tuple[bytes, NetworkAddress]]:
        """All that waits on the stream, cut where the library would cut it: each packet but the last is full."""
        connection, sender, space = self._connection, stream.sender, self._space
        stream_id = stream.stream_id
        assert stream_id is not None, "only the handshake's streams have no number"
        datagrams: list[tuple[bytes, NetworkAddress]] = []
        sender._pending.shift()
        while start < stop:
            number = connection._packet_number
            packet = QuicSentPacket(ONE_RTT, True, True, False, number, SHORT_HEADER_PACKET, now)
            frames = BytesWriter()
            if space.ack_at is not None:  # one that is due later leaves now: there is data to carry it
                self._write_acknowledgement(frames, packet, now)
            header = 3 + _integer_bytes(stream_id) + (_integer_bytes(start) if start else 0)
            end = start + room - len(frames) - header
            if end > stop:
                end = stop
            _write_stream(frames, stream, stream_id, start, end)
            packet.delivery_handlers.append((sender.on_data_delivery, (start, end, False)))
            highest = sender.highest_offset
            if end > highest:
                connection._remote_max_data_used += end - highest
                sender.highest_offset = end
            datagrams.append(self._sent(frames.getvalue(), packet, number, now))
            start = end
        sender.buffer_is_empty = True
        self._calm.sent()
        return datagrams

    def _write_acknowledgement(self, frames: BytesWriter, packet: QuicSentPacket, now: float) -> None:
        connection, space = self._connection, self._space
        received, received_at = space.ack_queue[0], space.largest_received_time
        assert received_at is not None, "there is something to acknowledge"
        delay_us = int((now - received_at) * 1000000)
        last = received.stop - 1
        frames.append(ACK)
        _write_integer(frames, last)
        _write_integer(frames, delay_us >> connection._local_ack_delay_exponent)
        frames.append(0)  # ranges besides the first
        _write_integer(frames, last - received.start)
        packet.delivery_handlers.append((connection._on_ack_delivery, (space, space.largest_received_packet)))
        space.ack_at = None

    def _sent(self, payload: bytes, packet: QuicSentPacket, number: int, now: float) -> tuple[bytes, NetworkAddress]:
        connection, crypto = self._connection, self._crypto
        flags = connection._spin_bit << 5 | crypto.recv.key_phase << 2
        datagram = sealed(crypto.send, flags, self._calm.peer_id, number, payload)
        packet.sent_bytes = len(datagram)
        connection._packet_number = number + 1
        connection._pacing_at = None
        note_sent(self._loss, self._space, packet, now)
        if not connection._ack_eliciting_sent_since_receipt:
            connection._close_at = now + idle_timeout_s(self._loss, self._calm.idle_timeout_s)
            connection._ack_eliciting_sent_since_receipt = True
        path = connection._network_paths[0]
        path.bytes_sent += len(datagram)
        return datagram, path.addr


def _write_stream(frames: BytesWriter, stream: QuicStream, stream_id: int, start: int, stop: int) -> None:
    """The frame of these bytes of a stream."""
    sender = stream.sender
    frames.append(STREAM_WITH_LENGTH | (STREAM_OFFSET_BIT if start else 0))
    _write_integer(frames, stream_id)
    if start:
        _write_integer(frames, start)
    _write_bytes(frames, stop - start | TWO_BYTE_LENGTH, 2)
    first, data = sender._buffer_start, sender._buffer
    if start == first and stop - first == len(data):
        frames.write(data)
    else:
        frames.write(data[start - first : stop - first])


def _integer_bytes(value: int) -> int:
    """How long a variable-length integer is (RFC 9000, 16)."""
    return 1 if value < 1 << 6 else 2 if value < 1 << 14 else 4 if value < 1 << 30 else 8


def _write_integer(frames: BytesWriter, value: int) -> None:
    """A variable-length integer (RFC 9000, 16): the length's logarithm in the first two bits."""
    if value < 1 << 6:
        frames.append(value)
    elif value < 1 << 14:
        _write_bytes(frames, value | 1 << 14, 2)
    elif value < 1 << 30:
        _write_bytes(frames, value | 1 << 31, 4)
    else:
        _write_bytes(frames, value | 3 << 62, 8)


def _write_bytes(frames: BytesWriter, value: int, size: int) -> None:
    """An integer of so many bytes, the highest first."""
    for position in range(size - 1, -1, -1):
        frames.append(value >> 8 * position & 0xFF)
