"""What the driver needs of a QUIC library, so that two of them carry the same swarm.

``aioquic`` is the default and the reference for mutual TLS; ``qh3`` keeps its packets in Rust and costs a fraction of
the processor. Both speak QUIC version 1 to each other, so that agents may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography.x509 import Certificate

from protocol.errors import UsageError
from protocol.identity import Identity
from protocol.quic.settings import Profile
from protocol.roster import Agent

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

    @property
    def certified(self) -> Agent | None:
        """The agent whom the peer's certificate names; ``None`` where the library cannot ask a client for one."""

    @property
    def peer_valid_until(self) -> datetime | None:
        """When the certificate ends that the peer showed, UTC; ``None`` as for ``certified``."""

    @property
    def refusal(self) -> str | None:
        """Why we refused the peer, as a countable label."""

    @property
    def key_updates(self) -> int:
        """How often this end has asked for new keys."""

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

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that wait in the library's own buffer, which has no bound."""

    @property
    def has_unsent(self) -> bool:
        """Whether something that was written has not left yet: a congestion window or a pacer holds it back."""

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

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None: ...


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
