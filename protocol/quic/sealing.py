"""Packets with a short header, sealed and opened (RFC 9001, 5).

The library's own way to the same bytes copies a packet four times, and asks whether its header is a long one.
"""

from __future__ import annotations

from typing import Final

from aioquic.quic.crypto import CryptoContext
from cryptography.exceptions import InvalidTag
from librt.strings import BytesWriter

FIXED_BIT_AND_NUMBER_BYTES: Final = 0x41
"""Short header, packet number of two bytes (RFC 9000, 17.3.1)."""
PROTECTED_BITS: Final = 0x1F
RESERVED_BITS: Final = 0x18
SAMPLE_AFTER: Final = 4
"""The sample begins where the payload would after the longest packet number (RFC 9001, 5.4.2)."""
SAMPLE_BYTES: Final = 16
NONCE_BYTES: Final = 12


def sealed(crypto: CryptoContext, flags: int, connection_id: bytes, number: int, payload: bytes) -> bytes:
    """A datagram of one packet, whose number travels in two bytes. ``flags``: spin bit and key phase, in place."""
    protection, header_protection = crypto.aead, crypto.hp
    assert protection is not None and header_protection is not None, "an established connection has keys"
    first, high, low = FIXED_BIT_AND_NUMBER_BYTES | flags, number >> 8 & 0xFF, number & 0xFF
    header = BytesWriter()
    header.append(first)
    header.write(connection_id)
    header.append(high)
    header.append(low)
    nonce = (protection._iv ^ number).to_bytes(NONCE_BYTES, "big")
    body = protection._aead.encrypt(nonce, payload, header.getvalue())
    mask = header_protection._mask(body[SAMPLE_AFTER - 2 : SAMPLE_AFTER - 2 + SAMPLE_BYTES])
    packet = BytesWriter()
    packet.append(first ^ mask[0] & PROTECTED_BITS)
    packet.write(connection_id)
    packet.append(high ^ mask[1])
    packet.append(low ^ mask[2])
    packet.write(body)
    return packet.getvalue()


def opened(crypto: CryptoContext, data: bytes, offset: int, expected: int) -> tuple[int, int, bytes] | None:
    """First byte, packet number and payload of a datagram whose packet number is at ``offset``; ``None`` unless it is a
    packet of these keys and their phase. ``expected``: the number after the highest so far."""
    protection, header_protection = crypto.aead, crypto.hp
    if protection is None or header_protection is None:
        return None
    sample = offset + SAMPLE_AFTER
    mask = header_protection._mask(data[sample : sample + SAMPLE_BYTES])
    first = data[0] ^ mask[0] & PROTECTED_BITS
    if first & RESERVED_BITS or first >> 2 & 1 != crypto.key_phase:
        return None
    size = (first & 3) + 1
    header = BytesWriter()
    header.append(first)
    header.write(data[1:offset])
    truncated = 0
    for position in range(size):
        byte = data[offset + position] ^ mask[1 + position]
        header.append(byte)
        truncated = truncated << 8 | byte
    number = _whole_number(truncated, 1 << 8 * size, expected)
    nonce = (protection._iv ^ number).to_bytes(NONCE_BYTES, "big")
    try:
        return first, number, protection._aead.decrypt(nonce, data[offset + size :], header.getvalue())
    except InvalidTag:
        return None


def _whole_number(truncated: int, window: int, expected: int) -> int:
    """The packet number nearest to the expected one that ends in these bits (RFC 9000, A.3)."""
    candidate = expected - expected % window + truncated
    if candidate <= expected - window // 2 and candidate + window < 1 << 62:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate
