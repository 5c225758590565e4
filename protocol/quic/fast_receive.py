"""The usual datagram, read without the library's general packet parser.

Nearly all that an established connection receives is one packet of the current keys: an acknowledgement of one
unbroken range, data that follows what is there on one stream or a few, or both. aioquic asks of every packet whether it
may be any other of twelve kinds, copies it five times and dispatches each frame through a table. Here the same
questions decide once whether the packet is the usual one; nothing is changed before that is known, and whatever it is
not is left to the library, with every check and refusal that it has.
``tests/protocol/test_fast_datagrams.py`` holds the two to the same events and to the same books afterwards.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from aioquic import tls
from aioquic._crypto import CryptoError
from aioquic.quic.connection import NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicFrameType, decode_packet_number
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.quic.stream import QuicStream

ONE_RTT: Final = tls.Epoch.ONE_RTT
SHORT_HEADER_MASK: Final = 0xC0
SHORT_HEADER: Final = 0x40
"""Fixed bit, and not the long form (RFC 9000, 17.3.1)."""
PROTECTED_BITS: Final = 0x1F
RESERVED_BITS: Final = 0x18
KEY_PHASE_BIT: Final = 0x04
SPIN_BIT: Final = 0x20
SAMPLE_AFTER: Final = 4
"""The sample begins where the payload would after the longest packet number (RFC 9001, 5.4.2)."""
SAMPLE_BYTES: Final = 16
ACK: Final = int(QuicFrameType.ACK)
STREAM_LENGTH_ONLY: Final = int(QuicFrameType.STREAM_BASE) | 2
"""With a length, at offset 0."""
STREAM_WITH_OFFSET: Final = STREAM_LENGTH_ONLY | 4
_LENGTHS: Final = (1, 2, 4, 8)
_VALUE_MASKS: Final = (0x3F, 0x3FFF, 0x3FFFFFFF, 0x3FFFFFFFFFFFFFFF)


class _Piece(NamedTuple):
    """What arrived for one stream, next after all that had arrived."""

    stream: QuicStream
    stream_id: int
    data: bytes


class _Usual(NamedTuple):
    """A payload that is the usual one."""

    acknowledged: tuple[int, int, int] | None
    """First and last packet number, and the encoded delay."""
    pieces: list[_Piece]


class FastReceiving(QuicConnection):
    """A connection that takes in its usual datagrams the short way."""

    def receive_usual(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        """Take in the datagram if it is the usual one. False, and nothing changed, when it is anything else."""
        offset = 1 + len(self.host_cid)
        if not self._may_be_usual(data, offset, address):
            return False
        opened = self._opened(self._cryptos[ONE_RTT], data, offset)
        if opened is None:
            return False
        first, number, payload = opened
        space = self._spaces[ONE_RTT]
        usual = None if number in space.received_packets else self._parsed(payload)
        if usual is None:
            return False
        self._take_number(space, number, first)
        if usual.acknowledged is not None:
            self._take_acknowledgement(space, usual.acknowledged, now)
        for piece in usual.pieces:
            self._take_piece(piece)
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        _note_received(space, number, now, self._ack_delay if usual.pieces else None)
        return True

    def _may_be_usual(self, data: bytes, offset: int, address: NetworkAddress) -> bool:
        """Whether the connection is in its long middle life, and the datagram came to it on its only path."""
        if not self._handshake_confirmed:
            return False
        path = self._network_paths[0]
        return (
            self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and len(data) >= offset + SAMPLE_AFTER + SAMPLE_BYTES
            and data[0] & SHORT_HEADER_MASK == SHORT_HEADER
            and data[1:offset] == self.host_cid
            and path.addr == address
            and path.is_validated
            and len(self._network_paths) == 1
            and self._loss.peer_completed_address_validation
            and self._quic_logger is None
            and not self._cryptos[tls.Epoch.ZERO_RTT].recv.is_valid()
        )

    def _opened(self, pair: CryptoPair, data: bytes, offset: int) -> tuple[int, int, bytes] | None:
        """First byte, packet number and payload of a packet of the current keys; ``None`` for any other."""
        crypto = pair.recv
        if crypto.hp is None or crypto.aead is None:
            return None
        sample = offset + SAMPLE_AFTER
        mask = crypto.hp._mask(data[sample : sample + SAMPLE_BYTES])
        first = data[0] ^ mask[0] & PROTECTED_BITS
        if first & RESERVED_BITS or (first & KEY_PHASE_BIT) >> 2 != crypto.key_phase:
            return None
        size = (first & 3) + 1
        begin = offset + size
        truncated = int.from_bytes(data[offset:begin], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        number = decode_packet_number(truncated, 8 * size, self._spaces[ONE_RTT].expected_packet_number)
        header = b"%c%b%b" % (first, data[1:offset], truncated.to_bytes(size, "big"))
        try:
            return first, number, crypto.aead.decrypt(data[begin:], header, number)
        except CryptoError:
            return None

    def _parsed(self, payload: bytes) -> _Usual | None:
        """The frames of a payload, if all are of the usual kinds and none breaks a rule."""
        acknowledged = None
        pieces: list[_Piece] = []
        position, end = 0, len(payload)
        grown = 0
        try:
            while position < end:
                kind = payload[position]
                if kind in (STREAM_LENGTH_ONLY, STREAM_WITH_OFFSET):
                    position, piece = self._piece_at(payload, position + 1, kind == STREAM_WITH_OFFSET)
                    if piece is None or piece.stream in [other.stream for other in pieces]:
                        return None
                    pieces.append(piece)
                    grown += len(piece.data)
                elif kind == ACK and acknowledged is None:
                    position, acknowledged = _acknowledged_at(payload, position + 1)
                    if acknowledged is None:
                        return None
                else:
                    return None
        except IndexError:
            return None
        if position != end or not end or self._local_max_data.used + grown > self._local_max_data.value:
            return None
        return _Usual(acknowledged, pieces)

    def _piece_at(self, payload: bytes, position: int, with_offset: bool) -> tuple[int, _Piece | None]:
        """Where the stream frame ends, and what it brings; ``None`` unless that comes next on a stream that is open."""
        stream_id, position = _integer(payload, position)
        start = 0
        if with_offset:
            start, position = _integer(payload, position)
        size, position = _integer(payload, position)
        stream, stop = self._streams.get(stream_id), start + size
        if stream is None or not size or position + size > len(payload):
            return position, None
        receiver = stream.receiver
        in_order = start == receiver._buffer_start == receiver.highest_offset and not receiver._buffer
        if not in_order or receiver.is_finished or receiver._final_size is not None:
            return position, None
        if stop > stream.max_stream_data_local:
            return position, None
        return position + size, _Piece(stream, stream_id, payload[position : position + size])

    def _take_number(self, space: QuicPacketSpace, number: int, first: int) -> None:
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            spin = bool(first & SPIN_BIT)
            self._spin_bit = not spin if self._is_client else spin
            self._spin_highest_pn = number

    def _take_acknowledgement(self, space: QuicPacketSpace, acknowledged: tuple[int, int, int], now: float) -> None:
        lowest, highest, delay = acknowledged
        self._loss.on_ack_received(
            ack_rangeset=RangeSet([range(lowest, highest + 1)]),
            ack_delay=(delay << self._remote_ack_delay_exponent) / 1000000,
            now=now,
            space=space,
        )

    def _take_piece(self, piece: _Piece) -> None:
        receiver, size = piece.stream.receiver, len(piece.data)
        receiver._buffer_start += size
        receiver.highest_offset += size
        self._local_max_data.used += size
        self._events.append(StreamDataReceived(data=piece.data, end_stream=False, stream_id=piece.stream_id))


def _note_received(space: QuicPacketSpace, number: int, now: float, ack_delay_s: float | None) -> None:
    """What will be acknowledged. ``ack_delay_s`` is ``None`` for a packet that asks for no acknowledgement."""
    if number > space.largest_received_packet:
        space.largest_received_packet = number
        space.largest_received_time = now
    space.ack_queue.add(number)
    space.received_packets.add(number)
    if len(space.ack_queue) > MAX_ACK_RANGES:
        space.ack_queue.shift()
    if ack_delay_s is not None and space.ack_at is None:
        space.ack_at = now + ack_delay_s


def _acknowledged_at(payload: bytes, position: int) -> tuple[int, tuple[int, int, int] | None]:
    """Where the ACK frame ends, and what it says; ``None`` unless that is one lawful range."""
    highest, position = _integer(payload, position)
    delay, position = _integer(payload, position)
    further, position = _integer(payload, position)
    before, position = _integer(payload, position)
    return position, None if further or before > highest else (highest - before, highest, delay)


def _integer(payload: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000, 16) and where it ends. Raises ``IndexError`` where the payload ends."""
    first = payload[position]
    if first < 0x40:
        return first, position + 1
    form = first >> 6
    end = position + _LENGTHS[form]
    if end > len(payload):
        raise IndexError(position)
    return int.from_bytes(payload[position:end], "big") & _VALUE_MASKS[form], end
