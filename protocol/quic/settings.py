"""What a QUIC connection of the swarm looks like: protocol constants, and one profile per kind of network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass, replace
from typing import Final

from protocol.errors import UsageError
from protocol.quic import newreno

ALPN: Final = "swarm/1"
CONNECTION_ID_BYTES: Final = 8
IDLE_TIMEOUT_S: Final = 10.0
KEEP_ALIVE_S: Final = 3.0
HEARTBEAT_S: Final = 0.2
"""On one host, each end of a connection pays 4 ms of processor time a second for this, and twice that at 0.1 s."""
HANDSHAKE_TIMEOUT_S: Final = 5.0
FLOW_WINDOW_BYTES: Final = 8 * 1024 * 1024
SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024

DATAGRAM_BYTES_MIN: Final = 1200
DATAGRAM_BYTES_MAX: Final = 16384
"""aioquic writes lengths in 14 bits: anything above corrupts streams without an error."""

DATAGRAM_FRAME_BYTES_MAX: Final = DATAGRAM_BYTES_MAX
"""What we offer to take in one DATAGRAM frame (RFC 9221); a peer that offers nothing is sent none."""
DATAGRAM_FRAME_OVERHEAD_BYTES: Final = 40
"""Packet header, frame header and seal around a DATAGRAM frame's data, with every integer at its longest."""
DATAGRAM_FRAME_HEADER_BYTES: Final = 5
"""The part of it that counts towards what the peer takes."""
ACKNOWLEDGE_DATAGRAMS: Final = 4
"""Full ones, that may come without being acknowledged at once. A congestion window has ten at first."""
DATAGRAMS_WAITING_MAX: Final = 4
"""DATAGRAM frames that may wait for a congestion window; what is older than that tells the peer nothing any more."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Transport settings for one kind of network."""

    name: str
    max_datagram_bytes: int
    initial_rtt_s: float
    congestion_control: str
    paced: bool
    """The library's pacer holds a burst back for a timer that is coarser than a local round trip."""
    ack_delay_s: float
    """How long an acknowledgement waits for data that it can ride on; the peer allows for 25 ms."""
    loopback_only: bool = False
    heartbeat_s: float = HEARTBEAT_S
    """How often each end of a connection says that it is there; 0 for never."""


PROFILES: Final = {
    "loopback": Profile("loopback", 16384, 0.001, newreno.NAME, False, 0.005, loopback_only=True),
    "lan": Profile("lan", 1452, 0.001, newreno.NAME, False, 0.005),
    "wan": Profile("wan", 1200, 0.1, "cubic", True, 0.001, heartbeat_s=0.5),
}


def profile_named(name: str, max_datagram_bytes: int | None = None) -> Profile:
    """A profile by name, with another datagram size when the network is known to carry it. Raises ``UsageError``."""
    if name not in PROFILES:
        raise UsageError(f"network profile '{name}' does not exist: choose one of {', '.join(PROFILES)}")
    if max_datagram_bytes is None:
        return PROFILES[name]
    if not DATAGRAM_BYTES_MIN <= max_datagram_bytes <= DATAGRAM_BYTES_MAX:
        raise UsageError(
            f"max_datagram_bytes {max_datagram_bytes} is out of range: "
            f"choose {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX}"
        )
    return replace(PROFILES[name], max_datagram_bytes=max_datagram_bytes)


def check_address(profile: Profile, owner: str, address: str) -> None:
    """Refuse large datagrams where they would be fragmented. ``address`` is a resolved IPv4 address."""
    if profile.loopback_only and not ipaddress.IPv4Address(address).is_loopback:
        raise UsageError(
            f"agent '{owner}' is at {address}, outside 127.0.0.0/8, which network profile '{profile.name}' "
            "does not serve: set profile 'lan' for the cluster"
        )


def is_address(host: str) -> bool:
    """Whether a roster's host is an IPv4 address rather than a name."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


async def resolve(owner: str, host: str, port: int) -> tuple[str, int]:
    """IPv4 address of a roster's host, looked up anew each time: containers move. Raises ``UsageError``."""
    if is_address(host):
        return host, port
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise UsageError(
            f"host '{host}' of agent '{owner}' does not resolve ({error.strerror}): check the name in the cluster file"
        ) from None
    return str(found[0][4][0]), port


def bind_udp(owner: str, host: str, port: int) -> socket.socket:
    """A UDP socket that does not block, with large buffers asked for. Raises ``UsageError``."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    try:
        udp.bind((host, port))
    except OSError as error:
        udp.close()
        reason = (error.strerror or "error").lower()
        raise UsageError(
            f"agent '{owner}' cannot listen on UDP {host}:{port} ({reason}): stop what uses it, or give the agent "
            "another port or host in the cluster file"
        ) from None
    return udp
