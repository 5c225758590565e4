"""Batches on a byte stream: eight bytes of header, then the payload. No I/O.

``u32 length | u16 version | u16 flags``, little-endian. Eight bytes keep the payload on a word boundary.
"""

from __future__ import annotations

import struct
from typing import Final

from protocol.errors import LocalMisuse, PeerViolation
from protocol.fields import BATCH_BYTES_MAX

HEADER: Final = struct.Struct("<IHH")
FRAME_VERSION: Final = 1
FRAME_FLAGS: Final = 0


def frame(payload: bytes) -> bytes:
    """The payload with its header. Raises LocalMisuse for one that no reader would take."""
    if not 0 < len(payload) <= BATCH_BYTES_MAX:
        raise LocalMisuse(f"a frame of {len(payload)} bytes, outside 1 to {BATCH_BYTES_MAX}")
    return HEADER.pack(len(payload), FRAME_VERSION, FRAME_FLAGS) + payload


class FrameReader:
    """Cuts a stream into payloads, however the bytes arrive.

    Invariant: at most one unfinished frame is buffered, and its header has been accepted as soon as it was whole; so a
    peer can make us hold ``limit_bytes`` and a header, no more. After a violation the reader stays refused.
    """

    def __init__(self, limit_bytes: int = BATCH_BYTES_MAX) -> None:
        if limit_bytes < 1:
            raise LocalMisuse(f"limit of {limit_bytes} bytes")
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._refusal: tuple[str, str] | None = None

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    def receive(self, data: bytes) -> list[bytes]:
        """Payloads that ``data`` completes, in order. Raises PeerViolation; frames before the offence in the same call
        are lost with it, as the connection is."""
        if self._refusal is not None:
            raise PeerViolation(*self._refusal)
        if not self._buffer:  # as a rule: what arrives is whole, and is cut where it lies
            payloads, position = self._cut(data)
            if position < len(data):
                self._buffer += data[position:]
            return payloads
        self._buffer += data
        payloads, position = self._cut(self._buffer)
        del self._buffer[:position]
        return payloads

    def _cut(self, data: bytes | bytearray) -> tuple[list[bytes], int]:
        """The payloads that are complete, and where the rest begins."""
        payloads: list[bytes] = []
        position, size = 0, len(data)
        while size - position >= HEADER.size:
            start = position + HEADER.size
            end = start + self._accepted_length(data, position)
            if size < end:
                break
            payloads.append(bytes(data[start:end]))
            position = end
        return payloads, position

    def _accepted_length(self, data: bytes | bytearray, position: int) -> int:
        length, version, flags = HEADER.unpack_from(data, position)
        if version != FRAME_VERSION:
            self._refuse("frame_version", f"{version}, this build reads {FRAME_VERSION}")
        if flags != FRAME_FLAGS:
            self._refuse("frame_flags", f"{flags:#06x}")
        if not length:
            self._refuse("frame_empty", "")
        if length > self._limit_bytes:
            self._refuse("frame_too_large", f"{length} bytes, at most {self._limit_bytes}")
        return int(length)

    def _refuse(self, reason: str, detail: str) -> None:
        self._refusal = (reason, detail)
        self._buffer.clear()
        raise PeerViolation(reason, detail)
