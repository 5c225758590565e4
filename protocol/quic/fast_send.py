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
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.connection import NetworkAddress, QuicConnectionState
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from protocol.quic.windows import DeliveredWindows

ONE_RTT: Final = tls.Epoch.ONE_RTT
FIXED_BIT_AND_NUMBER_BYTES: Final = 0x41
"""Short header, packet number of two bytes (RFC 9000, 17.3.1)."""
FRAMES_OVERHEAD_BYTES_MAX: Final = 1 + 3 * 8 + 1 + 1 + 2 * 8 + 2
"""Acknowledgement of one range, and a stream frame's header, with every integer at its longest."""
TWO_BYTE_LENGTH: Final = 0x4000
TWO_BYTE_LENGTH_MAX: Final = 0x3FFF
ACK: Final = int(QuicFrameType.ACK)
STREAM_WITH_LENGTH: Final = int(QuicFrameType.STREAM_BASE) | 2
STREAM_OFFSET_BIT: Final = 4


class FastSending(DeliveredWindows):
    """A connection that sends its usual datagrams the short way. Only for connections without a pacer."""

    def usual_datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]] | None:
        """All that there is to send, already in the books of loss recovery; ``None``, and nothing changed, when that is
        anything but the data of one stream."""
        if not self._only_streams_can_speak():
            return None
        stream = self._only_stream_to_send()
        space = self._spaces[ONE_RTT]
        if stream is None or len(space.ack_queue) > 1:
            return None
        sender = stream.sender
        if len(sender._pending) != 1 or sender._buffer_fin is not None:
            return None
        start, stop = sender._pending[0].start, sender._pending[0].stop
        if stop > stream.max_stream_data_remote:
            return None
        if self._remote_max_data_used + max(stop - sender.highest_offset, 0) > self._remote_max_data:
            return None
        around = 3 + len(self._peer_cid.cid) + self._cryptos[ONE_RTT].aead_tag_size
        room = self._max_datagram_size - around
        packets = 1 + (stop - start) // (room - FRAMES_OVERHEAD_BYTES_MAX)
        bytes_max = stop - start + packets * (FRAMES_OVERHEAD_BYTES_MAX + around)
        if bytes_max > self._loss.congestion_window - self._loss.bytes_in_flight or room > TWO_BYTE_LENGTH_MAX:
            return None
        return self._datagrams(stream, space, room, now)

    def _datagrams(
        self, stream: QuicStream, space: QuicPacketSpace, room: int, now: float
    ) -> list[tuple[bytes, NetworkAddress]]:
        """All that waits on the stream, cut where the library would cut it: each packet but the last is full."""
        sender, crypto, datagrams = stream.sender, self._cryptos[ONE_RTT], []
        assert stream.stream_id is not None, "only the handshake's streams have no number"
        pending = sender._pending.shift()
        start, stop = pending.start, pending.stop
        while start < stop:
            packet = QuicSentPacket(ONE_RTT, True, True, False, self._packet_number, QuicPacketType.ONE_RTT, now)
            frames = Buffer(min(room, stop - start + FRAMES_OVERHEAD_BYTES_MAX))
            if space.ack_at is not None and space.ack_at <= now:
                self._write_acknowledgement(frames, space, packet, now)
            header = 3 + size_uint_var(stream.stream_id) + (size_uint_var(start) if start else 0)
            end = min(stop, start + room - frames.tell() - header)
            _write_stream(frames, stream, start, end)
            packet.delivery_handlers.append((sender.on_data_delivery, (start, end, False)))
            self._remote_max_data_used += max(end - sender.highest_offset, 0)
            sender.highest_offset = max(sender.highest_offset, end)
            datagrams.append(self._sent(self._protected(crypto, frames), packet, space, now))
            start = end
        sender.buffer_is_empty = True
        return datagrams

    def _only_streams_can_speak(self) -> bool:
        """Whether the connection is in its long middle life, and nobody has asked for a frame of another kind."""
        path = self._network_paths[0]
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and not (self._close_pending or self._handshake_done_pending or self._probe_pending)
            and not (self._ping_pending or self._datagrams_pending or self._retire_connection_ids)
            and not (self._streams_blocked_pending or path.remote_challenges or len(self._network_paths) > 1)
            and path.is_validated
            and self._remote_preferred_address is None
            and self._quic_logger is None
            and self._crypto_streams[ONE_RTT].sender.buffer_is_empty
            and not self.window_due()
            and self._local_max_streams_bidi.value == self._local_max_streams_bidi.sent
            and self._local_max_streams_uni.value == self._local_max_streams_uni.sent
            and all([connection_id.was_sent for connection_id in self._host_cids])  # noqa: C419 - cheaper than lazily
        )

    def _only_stream_to_send(self) -> QuicStream | None:
        """The stream with something to send; ``None`` unless it is one, and no stream has a word about itself."""
        found: QuicStream | None = None
        for stream in self._streams.values():
            sender = stream.sender
            if self.stream_window_due(stream) or stream.receiver.stop_pending:
                return None
            if sender.reset_pending or sender.is_finished:
                return None
            if not sender.buffer_is_empty:
                if found is not None or stream.is_blocked:
                    return None
                found = stream
        return found

    def _write_acknowledgement(
        self, frames: Buffer, space: QuicPacketSpace, packet: QuicSentPacket, now: float
    ) -> None:
        received = space.ack_queue[0]
        assert space.largest_received_time is not None, "there is something to acknowledge"
        delay_us = int((now - space.largest_received_time) * 1000000)
        frames.push_uint8(ACK)
        frames.push_uint_var(received.stop - 1)
        frames.push_uint_var(delay_us >> self._local_ack_delay_exponent)
        frames.push_uint8(0)  # ranges besides the first
        frames.push_uint_var(received.stop - 1 - received.start)
        packet.delivery_handlers.append((self._on_ack_delivery, (space, space.largest_received_packet)))
        space.ack_at = None

    def _protected(self, crypto: CryptoPair, frames: Buffer) -> bytes:
        first = FIXED_BIT_AND_NUMBER_BYTES | self._spin_bit << 5 | crypto.key_phase << 2
        number = (self._packet_number & 0xFFFF).to_bytes(2, "big")
        header = b"%c%b%b" % (first, self._peer_cid.cid, number)
        return crypto.encrypt_packet(header, frames.data, self._packet_number)

    def _sent(
        self, datagram: bytes, packet: QuicSentPacket, space: QuicPacketSpace, now: float
    ) -> tuple[bytes, NetworkAddress]:
        packet.sent_bytes = len(datagram)
        self._packet_number += 1
        self._pacing_at = None
        self._loss.on_packet_sent(packet=packet, space=space)
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        path = self._network_paths[0]
        path.bytes_sent += len(datagram)
        return datagram, path.addr


def _write_stream(frames: Buffer, stream: QuicStream, start: int, stop: int) -> None:
    """The frame of these bytes of a stream."""
    sender = stream.sender
    assert stream.stream_id is not None
    frames.push_uint8(STREAM_WITH_LENGTH | (STREAM_OFFSET_BIT if start else 0))
    frames.push_uint_var(stream.stream_id)
    if start:
        frames.push_uint_var(start)
    frames.push_uint16(stop - start | TWO_BYTE_LENGTH)
    frames.push_bytes(bytes(sender._buffer[start - sender._buffer_start : stop - sender._buffer_start]))
