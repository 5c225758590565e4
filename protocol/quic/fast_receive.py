"""The usual datagram, read without the library's general packet parser.

Nearly all that an established connection receives is one packet of the current keys: an acknowledgement of one
unbroken range, data that follows what is there on one stream or a few, or both. aioquic asks of every packet whether it
may be any other of twelve kinds, copies it five times and dispatches each frame through a table. Here the same
questions decide once whether the packet is the usual one; nothing is changed before that is known, and whatever it is
not is left to the library, with every check and refusal that it has.
``tests/protocol/test_fast_datagrams.py`` holds the two to the same events and to the same books afterwards.
"""

from __future__ import annotations

from typing import Final

from aioquic import tls
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.stream import QuicStream

from protocol.quic.books import idle_timeout_s, note_received, take_acknowledgement, was_received
from protocol.quic.calm import Calm
from protocol.quic.sealing import SAMPLE_AFTER, SAMPLE_BYTES, opened

ONE_RTT: Final = tls.Epoch.ONE_RTT
SHORT_HEADER_MASK: Final = 0xC0
SHORT_HEADER: Final = 0x40
"""Fixed bit, and not the long form (RFC 9000, 17.3.1)."""
SPIN_BIT: Final = 0x20
ACK: Final = int(QuicFrameType.ACK)
STREAM_LENGTH_ONLY: Final = int(QuicFrameType.STREAM_BASE) | 2
"""With a length, at offset 0."""
STREAM_WITH_OFFSET: Final = STREAM_LENGTH_ONLY | 4


class _Piece:
    """What arrived for one stream, next after all that had arrived."""

    __slots__ = ("data", "stream", "stream_id")

    def __init__(self, stream: QuicStream, stream_id: int, data: bytes) -> None:
        self.stream = stream
        self.stream_id = stream_id
        self.data = data


class _Usual:
    """A payload that is the usual one, as far as it was read."""

    __slots__ = ("acknowledges", "delay", "highest", "lowest", "pieces")

    def __init__(self) -> None:
        self.acknowledges = False
        self.lowest = 0
        self.highest = 0
        """First and last packet number that it acknowledges,"""
        self.delay = 0
        """and the encoded delay."""
        self.pieces: list[_Piece] = []


class FastReceiver:
    """Takes in the usual datagrams of one connection."""

    def __init__(self, connection: QuicConnection, calm: Calm, ack_delay_s: float) -> None:
        self._connection = connection
        self._calm = calm
        self._ack_delay_s = ack_delay_s
        self._space = connection._spaces[ONE_RTT]
        self._crypto = connection._cryptos[ONE_RTT]
        self._loss = connection._loss

    def receive_usual(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        """Take in the datagram if it is the usual one. False, and nothing changed, when it is anything else."""
        calm, connection, space = self._calm, self._connection, self._space
        if not calm.holds and not calm.look():
            return False
        offset = 1 + len(calm.host_id)
        if len(data) < offset + SAMPLE_AFTER + SAMPLE_BYTES or data[0] & SHORT_HEADER_MASK != SHORT_HEADER:
            return False
        if data[1:offset] != calm.host_id or address != calm.address:
            return False
        found = opened(self._crypto.recv, data, offset, space.expected_packet_number)
        if found is None:
            return False
        first, number, payload = found
        usual = None if was_received(space, number) else self._parsed(payload)
        if usual is None:
            return False
        self._take_number(number, first)
        if usual.acknowledges:
            delay_s = (usual.delay << connection._remote_ack_delay_exponent) / 1000000
            if not take_acknowledgement(self._loss, space, usual.lowest, usual.highest, delay_s, now):
                calm.disturb()
        for piece in usual.pieces:
            self._take_piece(piece)
        connection._close_at = now + idle_timeout_s(self._loss, calm.idle_timeout_s)
        connection._ack_eliciting_sent_since_receipt = False
        note_received(space, number, now, self._ack_delay_s if usual.pieces else None)
        return True

    def _parsed(self, payload: bytes) -> _Usual | None:
        """The frames of a payload, if all are of the usual kinds and none breaks a rule."""
        usual = _Usual()
        position, end = 0, len(payload)
        grown = 0
        while position < end:
            kind = payload[position]
            if kind in (STREAM_LENGTH_ONLY, STREAM_WITH_OFFSET):
                position = self._read_piece(usual, payload, position + 1, kind == STREAM_WITH_OFFSET)
                if position > 0:
                    grown += len(usual.pieces[-1].data)
            elif kind == ACK and not usual.acknowledges:
                position = _read_acknowledgement(usual, payload, position + 1)
            else:
                return None
            if position <= 0:
                return None
        limit = self._connection._local_max_data
        if position != end or not end or limit.used + grown > limit.value:
            return None
        return usual

    def _read_piece(self, usual: _Usual, payload: bytes, position: int, with_offset: bool) -> int:
        """Where the stream frame ends; 0 unless what it brings comes next on a stream that is open, and the only piece
        of it here."""
        stream_id, position = _integer(payload, position)
        start = 0
        if with_offset:
            start, position = _integer(payload, position)
        size, position = _integer(payload, position)
        stop = start + size
        stream = self._connection._streams.get(stream_id)
        if stream is None or size <= 0 or position <= 0 or position + size > len(payload):
            return 0
        receiver = stream.receiver
        if start != receiver._buffer_start or start != receiver.highest_offset or receiver._buffer:
            return 0
        if receiver.is_finished or receiver._final_size is not None or stop > stream.max_stream_data_local:
            return 0
        for other in usual.pieces:
            if other.stream is stream:
                return 0
        usual.pieces.append(_Piece(stream, stream_id, payload[position : position + size]))
        return position + size

    def _take_number(self, number: int, first: int) -> None:
        connection, space = self._connection, self._space
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > connection._spin_highest_pn:
            spin = bool(first & SPIN_BIT)
            connection._spin_bit = not spin if connection._is_client else spin
            connection._spin_highest_pn = number

    def _take_piece(self, piece: _Piece) -> None:
        receiver, size = piece.stream.receiver, len(piece.data)
        receiver._buffer_start += size
        receiver.highest_offset += size
        self._connection._local_max_data.used += size
        self._calm.received(size)
        event = StreamDataReceived(data=piece.data, end_stream=False, stream_id=piece.stream_id)
        self._connection._events.append(event)


def _read_acknowledgement(usual: _Usual, payload: bytes, position: int) -> int:
    """Where the ACK frame ends; 0 unless it says one lawful range."""
    highest, position = _integer(payload, position)
    delay, position = _integer(payload, position)
    further, position = _integer(payload, position)
    before, position = _integer(payload, position)
    if position <= 0 or further or before > highest:
        return 0
    usual.acknowledges, usual.lowest, usual.highest, usual.delay = True, highest - before, highest, delay
    return position


def _integer(payload: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000, 16) and where it ends; 0 and 0 where the payload ends before, or had."""
    if position <= 0 or position >= len(payload):
        return 0, 0
    first = payload[position]
    end = position + (1 << (first >> 6))
    if end > len(payload):
        return 0, 0
    value = first & 0x3F
    for each in range(position + 1, end):
        value = value << 8 | payload[each]
    return value, end
