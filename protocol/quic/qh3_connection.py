"""qh3's connection, whose packets are handled in Rust, in the shape that the driver knows.

What differs from aioquic. The listener cannot ask the dialler for a certificate: who dials is known by its HELLO alone,
whose Ed25519 signature covers this session's TLS exporter (``protocol.greeting``). The dialler checks the listener's
certificate when the handshake completes, before its owner hears of it. The library's own scheduler and pacer stay in
place: streams share a congestion window without priorities. Every private member that is used is pinned by
``tests/protocol/test_qh3_contract.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from qh3 import tls
from qh3._hazmat import Buffer
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.packet import (
    QuicProtocolVersion,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsCryptoData

from protocol.errors import PeerViolation
from protocol.identity import Identity
from protocol.pki import private_pem
from protocol.quic.backend import EXPORTER_BYTES, EXPORTER_LABEL, PACKETS_PER_KEY, Admission
from protocol.quic.settings import ALPN, CONNECTION_ID_BYTES, FLOW_WINDOW_BYTES, IDLE_TIMEOUT_S, Profile
from protocol.roster import Agent

BAD_CERTIFICATE: Final = 0x100 + 42
"""TLS alert 42 as a QUIC error code (RFC 8446, 6; RFC 9001, 4.8)."""
CRYPTO_PIECE_BYTES: Final = 20
_PARAMETERS_BYTES: Final = 4096

logging.getLogger("quic").setLevel(logging.ERROR)  # the library warns of every peer that closes; we count those


class ExportingTls(QuicTlsBridge):
    """The library's TLS half, and what it keeps to itself: the exporter, and datagrams larger than an Ethernet's."""

    exporter: bytes | None = None

    def serialize_transport_parameters(self) -> bytes:
        """As the library's, but a client accepts datagrams of any size that its network carries, not 1472 bytes."""
        written = super().serialize_transport_parameters()
        if not self.configuration.is_client:
            return written
        parameters = pull_quic_transport_parameters(Buffer(data=written))
        parameters.max_udp_payload_size = max(1472, self.configuration.max_datagram_size)
        buffer = Buffer(capacity=_PARAMETERS_BYTES)
        push_quic_transport_parameters(buffer, parameters)
        data: bytes = buffer.data
        return data

    def next_crypto_data(self) -> QuicTlsCryptoData | None:
        """In pieces: before it has validated the dialler's address the core does not count the padding behind its first
        packet, and gives up, instead of waiting, on a frame that does not fit what it may still send."""
        crypto = super().next_crypto_data()
        if crypto is None or len(crypto.data) <= CRYPTO_PIECE_BYTES:
            return crypto
        rest = crypto.offset + CRYPTO_PIECE_BYTES, crypto.data[CRYPTO_PIECE_BYTES:]
        self._outbound.appendleft(QuicTlsCryptoData(crypto.epoch, *rest))
        return QuicTlsCryptoData(crypto.epoch, crypto.offset, crypto.data[:CRYPTO_PIECE_BYTES])

    def _on_traffic_secret(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        super()._on_traffic_secret(direction, epoch, cipher_suite, secret)
        if epoch == tls.Epoch.ONE_RTT and self.exporter is None:
            # As with aioquic: the transcript ends here with the server's Finished (RFC 8446, 7.5).
            self.exporter = _exporter(self.tls.key_schedule)


class Qh3Connection(QuicConnection):
    """A connection that names no dialler, and whose listener has proved who it is before the first byte is
    delivered."""

    events = events
    certified: Agent | None = None
    peer_valid_until: datetime | None = None
    refusal: str | None = None
    key_updates: int = 0

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        admission: Admission,
        original_destination_connection_id: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._admission = admission
        self._own_reset_token = reset_token
        self._sent_since_renewal = 0

    # --- what the driver sees ---------------------------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return bool(self._is_client)

    @property
    def exporter(self) -> bytes | None:
        return self._tls.exporter if isinstance(self._tls, ExportingTls) else None

    @property
    def begun(self) -> bool:
        return self.is_client or (self._core is not None and self._core.received_authenticated_packet)

    @property
    def closing(self) -> Any:
        return self._close_event

    @property
    def closed_by_peer(self) -> bool:
        return self._core is not None and self._core.state == "draining"

    @property
    def round_trip_s(self) -> float:
        return (self._core.smoothed_rtt or 0.0) if self._core is not None else 0.0

    @property
    def reset_token_of_peer(self) -> bytes:
        parameters = self._tls.remote_transport_parameters if self._tls is not None else None
        return (parameters.stateless_reset_token or b"") if parameters is not None else b""

    def has_stream(self, stream_id: int) -> bool:
        return bool(self._core is not None and self._core.can_send_stream(stream_id))

    def unsent_bytes(self, stream_id: int) -> int:
        return int(self.get_send_buffer_size(stream_id))

    @property
    def has_unsent(self) -> bool:
        return self.get_send_buffer_size() > 0

    def renew_keys_if_due(self) -> None:
        if self._sent_since_renewal >= PACKETS_PER_KEY and self._handshake_confirmed:
            self._sent_since_renewal = 0
            self.key_updates += 1
            self.request_key_update()

    def must_send(self, now: float) -> bool:
        return True  # asking costs about a microsecond here

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._close_event is None:
            super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        datagrams: list[tuple[bytes, Any]] = super().datagrams_to_send(now)
        self._sent_since_renewal += len(datagrams)
        return datagrams

    def next_event(self) -> Any:
        """As the library's; the handshake is only complete once the listener's certificate has been looked at."""
        while (event := super().next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted) and self.is_client:
                self._admit()
            if self.refusal is None or not isinstance(event, events.HandshakeCompleted | events.StreamDataReceived):
                return event
        return None

    # --- identity ---------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        shown = self.get_peercert()
        assert shown is not None, "the handshake is complete, and a listener always shows one"
        certificate = x509.load_der_x509_certificate(shown.public_bytes())
        try:
            self.certified = self._admission(certificate)
            self.peer_valid_until = certificate.not_valid_after_utc
        except PeerViolation as violation:
            self.refusal = violation.reason
            self.close(BAD_CERTIFICATE, reason_phrase=f"{violation.reason}: {violation.detail}")

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        """The library's own, with our TLS half and our stateless reset token."""
        token = self._own_reset_token(self.host_cid) if self._own_reset_token is not None else None
        assert self._version is not None, "chosen before TLS begins"
        self._tls = ExportingTls(
            self._configuration,
            version=self._version,
            local_initial_source_connection_id=self.host_cid,
            remote_initial_source_connection_id=remote_source_cid,
            original_destination_connection_id=self._original_destination_connection_id,
            retry_source_connection_id=self._retry_source_connection_id,
            stateless_reset_token=token,
            version_change_handler=self._set_version,
        )
        return self._tls


class Qh3Backend:
    """``Backend`` over qh3."""

    def __init__(self, identity: Identity, profile: Profile) -> None:
        self._client_settings = _configuration(identity, profile, is_client=True)
        self._server_settings = _configuration(identity, profile, is_client=False)

    def dial(self, admission: Admission) -> Qh3Connection:
        return Qh3Connection(configuration=self._client_settings, admission=admission)

    def accept(self, destination: bytes, admission: Admission, reset_token: Callable[[bytes], bytes]) -> Qh3Connection:
        return Qh3Connection(
            configuration=self._server_settings,
            admission=admission,
            original_destination_connection_id=destination,
            reset_token=reset_token,
        )


def _configuration(identity: Identity, profile: Profile, *, is_client: bool) -> QuicConfiguration:
    """qh3 settings of one side. Host names are not compared: the admission compares the SPIFFE URI instead."""
    configuration = QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=FLOW_WINDOW_BYTES,
        max_stream_data=FLOW_WINDOW_BYTES,
        max_datagram_size=profile.max_datagram_bytes,
        probe_datagram_size=False,
        initial_rtt=profile.initial_rtt_s,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_hostname=False,
        cadata=identity.authorities,
    )
    chain = b"".join(part.public_bytes(Encoding.PEM) for part in (identity.certificate, *identity.certificate_chain))
    configuration.load_cert_chain(chain, private_pem(identity.tls_key))
    return configuration


def _exporter(schedule: Any) -> bytes:
    assert schedule is not None, "a 1-RTT key was just derived from it"
    master = schedule.derive_secret(b"exp master")
    empty, algorithm, size = schedule.hash_empty_value, schedule.algorithm, schedule.digest_size
    secret = tls.hkdf_expand_label(algorithm, master, EXPORTER_LABEL, empty, size)
    exporter: bytes = tls.hkdf_expand_label(algorithm, secret, b"exporter", empty, EXPORTER_BYTES)
    return exporter
