"""Stateless resets (RFC 9000, 10.3): how a process that has restarted says so, and how that is known. Pure."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

RESET_TOKEN_BYTES: Final = 16
RESET_BYTES_MIN: Final = 21
RESET_BYTES_MAX: Final = 42


def reset_token(key: bytes, connection_id: bytes) -> bytes:
    """What the end of a reset of that connection looks like; the same after a restart."""
    return hmac.digest(key, connection_id, hashlib.sha256)[:RESET_TOKEN_BYTES]


def is_reset(data: bytes, token: bytes) -> bool:
    """Whether a datagram is the stateless reset of a peer whose token that is (RFC 9000, 10.3); never without one."""
    if len(token) != RESET_TOKEN_BYTES or len(data) < RESET_BYTES_MIN:
        return False
    return hmac.compare_digest(token, data[-RESET_TOKEN_BYTES:])


def reset_for(data: bytes, destination: bytes, key: bytes, noise: bytes) -> bytes | None:
    """Tells a peer that we have restarted; shorter than what it answers, so that two of us cannot answer for ever.
    ``noise`` are random bytes, ``RESET_BYTES_MAX`` of them. ``None`` for datagrams that are too short."""
    if len(data) <= RESET_BYTES_MIN:
        return None
    head = bytearray(noise[: min(len(data) - 1, RESET_BYTES_MAX) - RESET_TOKEN_BYTES])
    head[0] = head[0] & 0x3F | 0x40  # looks like any short-header packet
    return bytes(head) + reset_token(key, destination)
