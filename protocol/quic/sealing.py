"""Packets with a short header, sealed and opened (RFC 9001, 5), with keys taken out of the library's contexts once.

The library's own way to the same bytes copies a packet four times, and asks whether its header is a long one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aioquic.quic.crypto import CryptoContext
from cryptography.exceptions import InvalidTag
from librt.strings import BytesWriter, write_i64_be

FIXED_BIT_AND_NUMBER_BYTES: Final = 0x41
"""Short header, packet number of two bytes (RFC 9000, 17.3.1)."""
PROTECTED_BITS: Final = 0x1F
RESERVED_BITS: Final = 0x18
SAMPLE_AFTER: Final = 4
"""The sample begins where the payload would after the longest packet number (RFC 9001, 5.4.2)."""
SAMPLE_BYTES: Final = 16
NONCE_BYTES: Final = 12


class Keys:
    """One direction's keys: the cipher, its static nonce in two parts, and what hides headers."""

    def __init__(self, context: CryptoContext) -> None:
        protection, header_protection = context.aead, context.hp
        assert protection is not None and header_protection is not None, "an established connection has keys"
        nonce = protection._iv.to_bytes(NONCE_BYTES, "big")
        self._nonce_start = nonce[:4]
        self._nonce_end = int.from_bytes(nonce[4:], "big", signed=True)
        self._encrypt: Callable[[bytes, bytes, bytes], bytes] = protection._aead.encrypt
        self._decrypt: Callable[[bytes, bytes, bytes], bytes] = protection._aead.decrypt
        # What the library's method adds is a question about ChaCha20, which needs more than an update.
        by_method = header_protection._is_chacha20
        self._mask: Callable[[bytes], bytes] = (
            header_protection._mask if by_method else header_protection._encryptor.update
        )
        self.phase = context.key_phase

    def sealed(self, spin: int, connection_id: bytes, number: int, payload: bytes) -> bytes:
        """A datagram of one packet, whose number travels in two bytes."""
        first, high, low = FIXED_BIT_AND_NUMBER_BYTES | spin << 5 | self.phase << 2, number >> 8 & 0xFF, number & 0xFF
        header = BytesWriter()
        header.append(first)
        header.write(connection_id)
        header.append(high)
        header.append(low)
        body = self._encrypt(self._nonce(number), payload, header.getvalue())
        mask = self._mask(body[SAMPLE_AFTER - 2 : SAMPLE_AFTER - 2 + SAMPLE_BYTES])
        packet = BytesWriter()
        packet.append(first ^ mask[0] & PROTECTED_BITS)
        packet.write(connection_id)
        packet.append(high ^ mask[1])
        packet.append(low ^ mask[2])
        packet.write(body)
        return packet.getvalue()

    def opened(self, data: bytes, offset: int, expected: int) -> tuple[int, int, bytes] | None:
        """First byte, packet number and payload of a datagram whose packet number is at ``offset``; ``None`` unless it
        is a packet of these keys and their phase. ``expected``: the number after the highest so far."""
        sample = offset + SAMPLE_AFTER
        mask = self._mask(data[sample : sample + SAMPLE_BYTES])
        first = data[0] ^ mask[0] & PROTECTED_BITS
        if first & RESERVED_BITS or first >> 2 & 1 != self.phase:
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
        try:
            return first, number, self._decrypt(self._nonce(number), data[offset + size :], header.getvalue())
        except InvalidTag:
            return None

    def _nonce(self, number: int) -> bytes:
        """RFC 9001, 5.3."""
        nonce = BytesWriter()
        nonce.write(self._nonce_start)
        write_i64_be(nonce, self._nonce_end ^ number)
        return nonce.getvalue()


def _whole_number(truncated: int, window: int, expected: int) -> int:
    """The packet number nearest to the expected one that ends in these bits (RFC 9000, A.3)."""
    candidate = expected - expected % window + truncated
    if candidate <= expected - window // 2 and candidate + window < 1 << 62:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate
