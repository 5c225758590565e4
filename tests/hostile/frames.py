"""QUIC frames by hand (RFC 9000, 19), with any number where a sane sender would put a sane one."""

from __future__ import annotations

from typing import Final

VARINT_MAX: Final = 2**62 - 1
EDGES: Final = (0, 1, 63, 64, 2**14 - 1, 2**14, 2**23 - 1, 2**23, 2**30 - 1, 2**31, 2**32, 2**48, 2**60, VARINT_MAX)
"""Where lengths of integers, windows and signs change."""

PING: Final = b"\x01"
HANDSHAKE_DONE: Final = b"\x1e"


def varint(value: int) -> bytes:
    """A number of one, two, four or eight bytes."""
    for size, tag in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | tag << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def _frame(kind: int, *values: int) -> bytes:
    return varint(kind) + b"".join(map(varint, values))


def stream(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    """STREAM with offset and length."""
    return _frame(0x0E | fin, stream_id, offset, len(data)) + data


def reset_stream(stream_id: int, code: int, final_size: int) -> bytes:
    return _frame(0x04, stream_id, code, final_size)


def stop_sending(stream_id: int, code: int) -> bytes:
    return _frame(0x05, stream_id, code)


def crypto(offset: int, data: bytes) -> bytes:
    return _frame(0x06, offset, len(data)) + data


def max_data(limit: int) -> bytes:
    return _frame(0x10, limit)


def max_stream_data(stream_id: int, limit: int) -> bytes:
    return _frame(0x11, stream_id, limit)


def max_streams(limit: int, *, unidirectional: bool) -> bytes:
    return _frame(0x12 | unidirectional, limit)


def data_blocked(limit: int) -> bytes:
    return _frame(0x14, limit)


def stream_data_blocked(stream_id: int, limit: int) -> bytes:
    return _frame(0x15, stream_id, limit)


def new_connection_id(number: int, retire_prior_to: int, connection_id: bytes, token: bytes) -> bytes:
    return _frame(0x18, number, retire_prior_to) + bytes([len(connection_id)]) + connection_id + token


def retire_connection_id(number: int) -> bytes:
    return _frame(0x19, number)


def path_challenge(data: bytes) -> bytes:
    return b"\x1a" + data


def path_response(data: bytes) -> bytes:
    return b"\x1b" + data


def acknowledgement(largest: int, first_range: int, ranges: tuple[tuple[int, int], ...] = ()) -> bytes:
    """ACK of packets that may never have been sent."""
    pairs = [number for pair in ranges for number in pair]
    return _frame(0x02, largest, 0, len(ranges), first_range, *pairs)


def new_token(token: bytes) -> bytes:
    return _frame(0x07, len(token)) + token


def datagram(data: bytes) -> bytes:
    return _frame(0x31, len(data)) + data


def connection_close(code: int, reason: bytes, *, application: bool) -> bytes:
    head = _frame(0x1D, code) if application else _frame(0x1C, code, 0)
    return head + varint(len(reason)) + reason
