"""The usual datagrams, written without the library's general packet builder.

Nearly all that an established connection sends is an acknowledgement of one unbroken range of packets, if one is due,
and the whole of what waits on one stream: one packet, or a few full ones in a row. aioquic asks some thirty questions
about frames that are not there, starts one more packet to find it empty, and copies each datagram four times. Here the
same questions decide once whether it is the usual case; if so the bytes are put together directly, and if not the
library does it.
``tests/protocol/test_fast_datagrams.py`` holds the two to the same frames, and to the same books afterwards.
"""

from __future__ import annotations

from math import inf
from typing import Final

from aioquic.quic.connection import NetworkAddress
from aioquic.quic.packet import QuicFrameType
from librt.strings import BytesWriter

from protocol.quic.books import note_sent
from protocol.quic.calm import Calm
from protocol.quic.calm_stream import CalmStream, Sent

FRAMES_OVERHEAD_BYTES_MAX: Final = 1 + 3 * 8 + 1 + 1 + 2 * 8 + 2
"""Acknowledgement of one range, and a stream frame's header, with every integer at its longest."""
PACKET_OVERHEAD_BYTES: Final = 3 + 20 + 16
"""Short header, connection id at its longest, and seal: what the congestion window is asked for, or a little more."""
TWO_BYTE_LENGTH: Final = 0x4000
TWO_BYTE_LENGTH_MAX: Final = 0x3FFF
ACK: Final = int(QuicFrameType.ACK)
STREAM_WITH_LENGTH: Final = int(QuicFrameType.STREAM_BASE) | 2
STREAM_OFFSET_BIT: Final = 4


class FastSender:
    """Sends the usual datagrams of one connection. Only for connections without a pacer."""

    def __init__(self, calm: Calm) -> None:
        self._calm = calm

    def write(self, stream_id: int, data: bytes) -> bool:
        """Append to a stream, as the library does. False, and nothing changed, unless the connection is calm."""
        calm = self._calm
        if not calm.holds or not data:
            return False
        stream = calm.streams.get(stream_id)
        if stream is None:
            return False
        buffer = stream.buffer
        buffer += data
        stream.buffer_stop += len(data)
        calm.wait(stream)
        return True

    def usual_datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]] | None:
        """All that there is to send, already in the books of loss recovery; ``None``, and nothing changed, when that is
        anything but the data of one stream, an acknowledgement that is due, or both."""
        calm = self._calm
        if not calm.holds and not calm.look():
            return None
        stream = calm.waiting
        if stream is None:
            return [self._acknowledgement(now)] if calm.ack_at <= now else []
        start, stop, room = stream.next, stream.buffer_stop, calm.packet_room
        if calm.several or stop > stream.send_max or calm.credit_used + stop - start > calm.credit_max:
            return None
        packets = 1 + (stop - start) // (room - FRAMES_OVERHEAD_BYTES_MAX)
        bytes_max = stop - start + packets * (FRAMES_OVERHEAD_BYTES_MAX + PACKET_OVERHEAD_BYTES)
        window_left = calm.window.congestion_window - calm.window.bytes_in_flight
        if window_left <= 0:  # nothing but an acknowledgement may leave
            return [self._acknowledgement(now)] if calm.ack_at != inf else []
        if bytes_max > window_left or room > TWO_BYTE_LENGTH_MAX:
            return None
        datagrams: list[tuple[bytes, NetworkAddress]] = []
        while start < stop:
            datagrams.append(self._packet(stream, start, stop, now))
            start = stream.next
        calm.sent()
        return datagrams

    def _packet(self, stream: CalmStream, start: int, stop: int, now: float) -> tuple[bytes, NetworkAddress]:
        """As much as one packet holds, cut where the library would cut it: each but the last is full."""
        calm = self._calm
        packet = Sent(calm.connection, calm.number_next, now, stream, start)
        frames = BytesWriter()
        if calm.ack_at != inf:  # one that is due later leaves now: there is data to carry it
            self._write_acknowledgement(frames, packet, now)
        header = 3 + _integer_bytes(stream.stream_id) + (_integer_bytes(start) if start else 0)
        end = start + calm.packet_room - len(frames) - header
        if end > stop:
            end = stop
        _write_stream(frames, stream, start, end)
        packet.stop = stream.next = end
        calm.credit_used += end - start
        return self._sealed(frames, packet, now)

    def _acknowledgement(self, now: float) -> tuple[bytes, NetworkAddress]:
        """A packet of nothing else."""
        calm = self._calm
        packet = Sent(calm.connection, calm.number_next, now, None, 0)
        frames = BytesWriter()
        self._write_acknowledgement(frames, packet, now)
        return self._sealed(frames, packet, now)

    def _write_acknowledgement(self, frames: BytesWriter, packet: Sent, now: float) -> None:
        calm = self._calm
        last = calm.ack_stop - 1
        frames.append(ACK)
        _write_integer(frames, last)
        _write_integer(frames, int((now - calm.largest_at) * 1000000) >> calm.ack_delay_unit)
        frames.append(0)  # ranges besides the first
        _write_integer(frames, last - calm.ack_start)
        packet.acknowledged = calm.largest
        calm.ack_at = inf
        calm.acknowledge_from = calm.received_bytes + calm.acknowledge_every

    def _sealed(self, frames: BytesWriter, packet: Sent, now: float) -> tuple[bytes, NetworkAddress]:
        calm = self._calm
        keys = calm.sending
        assert keys is not None, "it is calm"
        datagram = keys.sealed(calm.spin, calm.peer_id, packet.packet_number, frames.getvalue())
        packet.sent_bytes = len(datagram)
        note_sent(calm, packet, now)
        return datagram, calm.address


def _write_stream(frames: BytesWriter, stream: CalmStream, start: int, stop: int) -> None:
    """The frame of these bytes of a stream."""
    frames.append(STREAM_WITH_LENGTH | (STREAM_OFFSET_BIT if start else 0))
    _write_integer(frames, stream.stream_id)
    if start:
        _write_integer(frames, start)
    _write_bytes(frames, stop - start | TWO_BYTE_LENGTH, 2)
    first, data = stream.buffer_start, stream.buffer
    if start == first and stop == stream.buffer_stop:
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
