"""The usual datagram, read without the library's general packet parser.

Nearly all that an established connection receives is one packet of the current keys: an acknowledgement of one
unbroken range, data that follows what is there on one stream or a few, or both. aioquic asks of every packet whether it
may be any other of twelve kinds, copies it five times and dispatches each frame through a table. Here the same
questions decide once whether the packet is the usual one; nothing is changed before that is known, and whatever it is
not is left to the library, with every check and refusal that it has.
``tests/protocol/test_fast_datagrams.py`` holds the two to the same events and to the same books afterwards.
"""

from __future__ import annotations

from math import inf
from typing import Final

from aioquic.quic.connection import NetworkAddress
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicFrameType

from protocol.quic.books import acknowledged_by, note_received, take_acknowledgement
from protocol.quic.calm import Calm
from protocol.quic.calm_stream import CalmStream, Sent
from protocol.quic.sealing import SAMPLE_AFTER, SAMPLE_BYTES

SHORT_HEADER_MASK: Final = 0xC0
SHORT_HEADER: Final = 0x40
"""Fixed bit, and not the long form (RFC 9000, 17.3.1)."""
SPIN_SHIFT: Final = 5
ACK: Final = int(QuicFrameType.ACK)
STREAM_LENGTH_ONLY: Final = int(QuicFrameType.STREAM_BASE) | 2
"""With a length, at offset 0."""
STREAM_WITH_OFFSET: Final = STREAM_LENGTH_ONLY | 4


class _Piece:
    """What arrived for one stream, next after all that had arrived."""

    def __init__(self, stream: CalmStream, data: bytes) -> None:
        self.stream = stream
        self.data = data


class _Usual:
    """A payload that is the usual one, as far as it was read."""

    def __init__(self) -> None:
        self.acknowledges = False
        self.lowest = 0
        self.highest = 0
        """First and last packet number that it acknowledges,"""
        self.delay = 0
        """and the encoded delay."""
        self.pieces: list[_Piece] = []
        self.grown = 0
        """Bytes of all pieces."""


class FastReceiver:
    """Takes in the usual datagrams of one connection."""

    def __init__(self, calm: Calm, ack_delay_s: float) -> None:
        self._calm = calm
        self._ack_delay_s = ack_delay_s
        self._refused: tuple[bytes, NetworkAddress, float] | None = None
        """The last one that was not the usual: the connection asks again when the driver has."""

    def receive_usual(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        """Take in the datagram if it is the usual one. False, and nothing changed, when it is anything else."""
        before, self._refused = self._refused, None
        if before is not None and before[0] is data and before[1] is address and before[2] == now:
            return False
        taken = self._receive(data, address, now)
        if not taken:
            self._refused = data, address, now
        return taken

    def _receive(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        calm = self._calm
        if not calm.holds and not calm.look():
            return False
        offset = 1 + len(calm.host_id)
        if len(data) < offset + SAMPLE_AFTER + SAMPLE_BYTES or data[0] & SHORT_HEADER_MASK != SHORT_HEADER:
            return False
        if data[1:offset] != calm.host_id or address != calm.address:
            return False
        keys = calm.receiving
        assert keys is not None, "it is calm"
        opened = keys.opened(data, offset, calm.number_expected)
        if opened is None:
            return False
        first, number, payload = opened
        usual = _parsed(calm, payload) if number == calm.largest + 1 else None
        if usual is None:
            return False
        found: list[Sent] | None = None
        if usual.acknowledges:
            found = acknowledged_by(calm, usual.lowest, usual.highest)
            if found is None:
                return False
        self._take_spin(number, first)
        if found is not None:
            delay_s = (usual.delay << calm.ack_delay_unit_peer) / 1000000
            take_acknowledgement(calm, found, usual.highest, delay_s, now)
        for piece in usual.pieces:
            stream, size = piece.stream, len(piece.data)
            stream.received += size
            calm.events.append(StreamDataReceived(piece.data, False, stream.stream_id))
        note_received(calm, number, now, self._ack_delay_s if usual.grown else inf)
        calm.received_bytes += usual.grown
        if calm.received_bytes >= calm.acknowledge_from and calm.ack_at > now and calm.ack_at != inf:
            calm.ack_at = now
        calm.credit -= usual.grown
        if calm.credit < 0:  # a window may have to be opened
            calm.disturb()
        return True

    def _take_spin(self, number: int, first: int) -> None:
        calm = self._calm
        if number > calm.spin_number:
            spin = first >> SPIN_SHIFT & 1
            calm.spin = 1 - spin if calm.is_client else spin
            calm.spin_number = number


def _parsed(calm: Calm, payload: bytes) -> _Usual | None:
    """The frames of a payload, if all are of the usual kinds and none breaks a rule."""
    usual = _Usual()
    position, end = 0, len(payload)
    while position < end:
        kind = payload[position]
        if kind in (STREAM_LENGTH_ONLY, STREAM_WITH_OFFSET):
            position = _read_piece(calm, usual, payload, position + 1, kind == STREAM_WITH_OFFSET)
        elif kind == ACK and not usual.acknowledges:
            position = _read_acknowledgement(usual, payload, position + 1)
        else:
            return None
        if position <= 0:
            return None
    if position != end or not end or calm.received_bytes + usual.grown > calm.received_max:
        return None
    return usual


def _read_piece(calm: Calm, usual: _Usual, payload: bytes, position: int, with_offset: bool) -> int:
    """Where the stream frame ends; 0 unless what it brings comes next on a stream that is open, and the only piece of
    it here."""
    stream_id, position = _integer(payload, position)
    start = 0
    if with_offset:
        start, position = _integer(payload, position)
    size, position = _integer(payload, position)
    stream = calm.streams.get(stream_id)
    if stream is None or size <= 0 or position <= 0 or position + size > len(payload):
        return 0
    if start != stream.received or start + size > stream.receive_max:
        return 0
    for other in usual.pieces:
        if other.stream is stream:
            return 0
    usual.pieces.append(_Piece(stream, payload[position : position + size]))
    usual.grown += size
    return position + size


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
