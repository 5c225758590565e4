"""What is read and written of a datagram before any connection has seen it (RFC 8999)."""

from __future__ import annotations

from aioquic.quic.packet import QuicProtocolVersion, encode_quic_version_negotiation

from protocol.quic.settings import CONNECTION_ID_BYTES


def destination_of(data: bytes) -> bytes:
    """Destination connection id of a datagram's first packet; empty when it is too short to have one."""
    if len(data) <= CONNECTION_ID_BYTES:
        return b""
    if data[0] & 0x80:
        return data[6 : 6 + data[5]]
    return data[1 : 1 + CONNECTION_ID_BYTES]


def version_offer(data: bytes, destination: bytes) -> bytes | None:
    """The answer to a first packet of a version that we do not speak. ``None`` when it is such an answer itself: two
    servers could be set against each other."""
    source_at = 6 + len(destination)
    if int.from_bytes(data[1:5], "big") == 0 or len(data) <= source_at:
        return None
    source = data[source_at + 1 : source_at + 1 + data[source_at]]
    versions: list[int] = [QuicProtocolVersion.VERSION_1]
    return encode_quic_version_negotiation(source_cid=destination, destination_cid=source, supported_versions=versions)
