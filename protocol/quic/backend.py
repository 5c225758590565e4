"""What the driver needs of a QUIC library, so that two of them carry the same swarm.

``aioquic`` is the default and the reference for mutual TLS; ``qh3`` keeps its packets in Rust and costs a fraction of
the processor. Both speak QUIC version 1 to each other, so that agents may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.x509 import Certificate

from protocol.errors import LocalMisuse, UsageError
from protocol.identity import Identity
from protocol.quic.settings import DATAGRAM_FRAME_HEADER_BYTES, DATAGRAM_FRAME_OVERHEAD_BYTES, Profile
from protocol.roster import Agent

if TYPE_CHECKING:
    from protocol.quic.short_way import ShortWay

Admission = Callable[[Certificate], Agent]
"""Says whom a peer's certificate names, once its chain is verified; refuses with ``PeerViolation``."""
Address = tuple[str, int]

AIOQUIC: Final = "aioquic"
QH3: Final = "qh3"
TRANSPORTS: Final = (AIOQUIC, QH3)

EXPORTER_LABEL: Final = b"EXPORTER-swarm-hello-1"
EXPORTER_BYTES: Final = 32
PACKETS_PER_KEY: Final = 2**22
"""Half of what RFC 9001, 6.6 allows for AES-GCM."""


class Connection(Protocol):
    """One connection, without I/O: datagrams and times go in, datagrams and events come out."""

    @property
    def events(self) -> Any:
        """The library's module of event types; the names are the same in both."""

    @property
    def is_client(self) -> bool: ...

    @property
    def exporter(self) -> bytes | None:
        """TLS exporter value (RFC 8446, 7.5), equal on both ends and different for every session."""

    certified: Agent | None
    """The agent whom the peer's certificate names."""

    peer_certificate: Certificate | None
    """What the peer has shown and proved to be its own: in the handshake, or in its greeting where the library of a
    listener cannot ask for it."""

    @property
    def refusal(self) -> str | None:
        """Why we refused the peer, as a countable label."""

    @property
    def key_updates(self) -> int:
        """How often this end has asked for new keys."""

    @property
    def short_way(self) -> ShortWay | None:
        """Asked before the connection is, where a library has one."""

    @property
    def host_cid(self) -> bytes: ...

    @property
    def begun(self) -> bool:
        """Whether a packet of the peer could be decrypted; until then an accepted connection may be plain rubbish."""

    @property
    def closing(self) -> Any:
        """Why the connection is ending, known long before the library announces that it has ended."""

    @property
    def closed_by_peer(self) -> bool: ...

    @property
    def round_trip_s(self) -> float:
        """Smoothed round-trip time; 0 before the first sample."""

    @property
    def reset_token_of_peer(self) -> bytes:
        """What the end of a stateless reset from the peer looks like (RFC 9000, 10.3); empty when it gave none."""

    def has_stream(self, stream_id: int) -> bool: ...

    def can_write(self, stream_id: int) -> bool:
        """Whether an open stream takes more: not when the peer has stopped it, or either end has ended it."""

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that wait in the library's own buffer, which has no bound."""

    @property
    def has_unsent(self) -> bool:
        """Whether something that was written has not left yet: a congestion window or a pacer holds it back."""

    @property
    def datagram_payload_bytes_max(self) -> int:
        """Most bytes that one DATAGRAM frame (RFC 9221) can carry to this peer; 0 when it takes none."""

    @property
    def datagrams_overtaken(self) -> int:
        """DATAGRAM frames dropped unsent, because newer ones came before a congestion window let them go."""

    def send_datagram(self, data: bytes) -> None:
        """Send once, unreliably. Raises ``LocalMisuse`` for more than ``datagram_payload_bytes_max`` bytes, which would
        block the library's queue for ever."""

    @property
    def max_datagram_bytes(self) -> int:
        """Size of UDP payloads that this end sends at present."""

    @property
    def path_unproved(self) -> bool:
        """Whether the profile wants larger datagrams than every path carries, and the peer can echo one of them."""

    def send_path_probe(self, beginning: bytes) -> None:
        """Send a DATAGRAM frame that fills a datagram of the profile's size, alone, when nothing else is to be sent."""

    def settle_path(self, *, carries: bool) -> bool:
        """Keep to what the path carries: the profile's datagrams, or ``DATAGRAM_BYTES_MIN``. False where the library
        cannot change its mind: the next connection to that host will, and this one is of no use."""

    def renew_keys_if_due(self) -> None:
        """Ask for new keys well before the AEAD's limit; neither library counts."""

    def must_send(self, now: float) -> bool:
        """Whether what has arrived may call for a datagram now."""

    def connect(self, addr: Any, now: float) -> None: ...

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None: ...

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]: ...

    def next_event(self) -> Any: ...

    def get_timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...

    def send_stream_data(self, stream_id: int, data: bytes) -> None: ...

    def send_ping(self, uid: int) -> None: ...

    def release(self) -> None:
        """Let go of all that streams hold. Libraries are full of cycles, which the collector may leave for minutes.
        Nothing is asked of the connection any more but why it ended."""

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None: ...


def datagram_room(max_datagram_bytes: int, peer_frame_bytes: int | None) -> int:
    """What fits into a DATAGRAM frame, by our datagrams' size and by what the peer offered to take, if anything."""
    if not peer_frame_bytes:
        return 0
    room = min(max_datagram_bytes - DATAGRAM_FRAME_OVERHEAD_BYTES, peer_frame_bytes - DATAGRAM_FRAME_HEADER_BYTES)
    return max(room, 0)


def check_datagram(data: bytes, room: int) -> None:
    """Raises ``LocalMisuse`` for one that could never leave."""
    if len(data) > room:
        raise LocalMisuse(f"a DATAGRAM frame of {len(data)} bytes, where {room} have room")


class Backend(Protocol):
    """Makes the connections of one agent."""

    def dial(self, admission: Admission) -> Connection:
        """The client's end; ``connect`` starts it."""

    def accept(self, destination: bytes, admission: Admission, reset_token: Callable[[bytes], bytes]) -> Connection:
        """The server's end for the first datagram's destination connection id."""


def backend_for(name: str, identity: Identity, profile: Profile) -> Backend:
    """The library of that name. Raises ``UsageError``."""
    if name == AIOQUIC:
        from protocol.quic.connection import AioquicBackend

        return AioquicBackend(identity, profile)
    if name == QH3:
        from protocol.quic.qh3_connection import Qh3Backend

        return Qh3Backend(identity, profile)
    raise UsageError(f"transport '{name}' does not exist: choose one of {', '.join(TRANSPORTS)}")
