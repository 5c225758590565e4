"""Connections of the feed: the listener shows its certificate and asks for none, sessions resume, data may come early.

Another protocol (ALPN) on another port than the swarm's, whose connections take part in none of this: there every
connection proves both ends anew, and nothing is read before that. aioquic only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import SessionTicket
from cryptography.x509 import Certificate

from protocol.errors import LocalMisuse
from protocol.feed_tickets import Tickets
from protocol.identity import Identity
from protocol.quic.backend import Admission
from protocol.quic.connection import SwarmConnection
from protocol.quic.settings import CONNECTION_ID_BYTES, Profile
from protocol.roster import Agent

FEED_ALPN: Final = "swarm-feed/1"
FEED_WINDOW_BYTES: Final = 64 * 1024
"""Of one stream and of a connection: a visitor asks one short question."""
FEED_IDLE_TIMEOUT_S: Final = 5.0


class FeedConnection(SwarmConnection):
    """One visit, at either end. The dialler checks the listener's certificate, or resumes a session in which it did."""

    @property
    def is_early(self) -> bool:
        """Whether the handshake is still going on: what has arrived may be a recording."""
        return not self._handshake_complete

    @property
    def shown(self) -> Certificate | None:
        """The listener's certificate; ``None`` in a resumed session."""
        return self.tls._peer_certificate

    def _enforce_on_client_certificate(self) -> None:
        """Visitors need none."""

    def use_tickets(
        self, fetch: Callable[[bytes], SessionTicket | None] | None, keep: Callable[[SessionTicket], None]
    ) -> None:
        """Before the first packet: where tickets are looked up, at the listener, and where new ones go."""
        self._session_ticket_fetcher = fetch
        self._session_ticket_handler = keep


class FeedBackend:
    """``Backend`` of a feed's listener."""

    def __init__(
        self, identity: Identity, profile: Profile, tickets: Tickets, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._profile = profile
        self._tickets = tickets
        self._clock = clock
        self._settings = _configuration(profile, is_client=False)
        self._settings.certificate = identity.certificate
        self._settings.certificate_chain = list(identity.certificate_chain)
        self._settings.private_key = identity.tls_key

    def dial(self, admission: Admission) -> FeedConnection:
        raise LocalMisuse("a feed dials nobody")

    def accept(self, destination: bytes, admission: Admission, reset_token: Callable[[bytes], bytes]) -> FeedConnection:
        connection = FeedConnection(
            configuration=self._settings,
            profile=self._profile,
            admission=admission,
            original_destination_connection_id=destination,
            reset_token=reset_token,
        )
        connection.use_tickets(self._take, self._keep)
        return connection

    def _take(self, label: bytes) -> SessionTicket | None:
        ticket: SessionTicket | None = self._tickets.take(label, self._clock())
        return ticket

    def _keep(self, ticket: SessionTicket) -> None:
        self._tickets.keep(ticket.ticket, ticket, self._clock())


def visit(
    authorities: bytes,
    profile: Profile,
    admission: Callable[[Certificate], Agent],
    ticket: SessionTicket | None,
    keep: Callable[[SessionTicket], None],
) -> FeedConnection:
    """The visitor's end; with a ticket what is written before the handshake leaves with its first packet."""
    settings = _configuration(profile, is_client=True)
    settings.cadata = authorities
    settings.session_ticket = ticket
    connection = FeedConnection(configuration=settings, profile=profile, admission=admission)
    connection.use_tickets(None, keep)
    return connection


def _configuration(profile: Profile, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[FEED_ALPN],
        congestion_control_algorithm=profile.congestion_control,
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=FEED_IDLE_TIMEOUT_S,
        max_data=FEED_WINDOW_BYTES,
        max_stream_data=FEED_WINDOW_BYTES,
        max_datagram_size=profile.max_datagram_bytes,
        initial_rtt=profile.initial_rtt_s,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )
