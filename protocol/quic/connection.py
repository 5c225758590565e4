"""aioquic's connection with what it lacks for a swarm: mutual TLS that is enforced, an exporter, strict priorities.

aioquic can ask a client for a certificate but accepts none, or a stranger's; the checks here close both gaps. Every
private member that is used is pinned by ``tests/protocol/test_aioquic_contract.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.stream import QuicStream
from cryptography.x509 import Certificate

from protocol.errors import PeerViolation
from protocol.quic.settings import Profile
from protocol.roster import Agent

EXPORTER_LABEL: Final = b"EXPORTER-swarm-hello-1"
EXPORTER_BYTES: Final = 32
PACKETS_PER_KEY: Final = 2**22
"""Half of what RFC 9001, 6.6 allows for AES-GCM."""

Admission = Callable[[Certificate], Agent]
"""Says whom a peer's certificate names, once its chain is verified; refuses with ``PeerViolation``."""


class UnpacedSending:
    """Stands in for aioquic's pacer and never holds a packet back. For trusted links only."""

    def next_send_time(self, now: float) -> float | None:
        return None

    def update_after_send(self, now: float) -> None:
        return

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        return


class SwarmConnection(QuicConnection):
    """A connection whose two ends have proved who they are before the first byte is delivered.

    ``admission`` sees the peer's certificate on either side. After a refusal nothing that arrives is looked at, even
    in the same read of the socket: the TLS engine would otherwise go on and complete the handshake.
    """

    exporter: bytes | None = None
    """TLS exporter value (RFC 8446, 7.5), equal on both ends and different for every session; set by the handshake."""
    certified: Agent | None = None
    """The agent whom the peer's certificate names; set by the handshake."""
    refusal: str | None = None
    """Why we refused the peer, as a countable label."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        profile: Profile,
        admission: Admission,
        original_destination_connection_id: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._by_priority: list[QuicStream] = []
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._admission = admission
        self._key_renewed_at = 0
        self._ack_delay = profile.ack_delay_s
        if not profile.paced:
            self._loss._pacer = UnpacedSending()  # type: ignore[assignment]
        if reset_token is not None and not configuration.is_client:
            self._host_cids[0].stateless_reset_token = reset_token(self.host_cid)

    # --- what the driver sees ---------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether a packet of the peer could be decrypted; until then an accepted connection may be plain rubbish."""
        return self._is_client or self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def closing(self) -> ConnectionTerminated | None:
        """Why the connection is ending, known long before aioquic announces that it has ended."""
        return self._close_event

    @property
    def closed_by_peer(self) -> bool:
        return self._state is QuicConnectionState.DRAINING

    @property
    def round_trip_s(self) -> float:
        """Smoothed round-trip time; 0 before the first sample. aioquic never takes less than 1 ms."""
        return self._loss._rtt_smoothed

    @property
    def reset_token_of_peer(self) -> bytes:
        """What the end of a stateless reset from the peer looks like (RFC 9000, 10.3); empty when it gave none."""
        return self._peer_cid.stateless_reset_token or b""

    def has_stream(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes of a stream that are not yet acknowledged: aioquic's send buffer has no bound of its own."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def renew_keys_if_due(self) -> None:
        """Ask for new keys well before the AEAD's limit; aioquic does not count."""
        if self._packet_number - self._key_renewed_at >= PACKETS_PER_KEY:
            self._key_renewed_at = self._packet_number
            self.request_key_update()

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        if self._close_event is None:
            super().receive_datagram(data, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """As in aioquic, and an acknowledgement that is due later leaves now if there is data to carry it."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        if space is not None and space.ack_at is not None and space.ack_at > now and self._has_data():
            space.ack_at = now
        return super().datagrams_to_send(now)

    def must_send(self, now: float) -> bool:
        """Whether what has arrived calls for a datagram now. What else there may be to say rides with the
        acknowledgement, whose timer runs; an empty ``datagrams_to_send`` costs as much as half a packet."""
        if not self._handshake_confirmed or self._handshake_done_pending or self._close_event is not None:
            return True
        ack_at = self._spaces[tls.Epoch.ONE_RTT].ack_at
        return self._has_data() or self._probe_pending or (ack_at is not None and ack_at <= now)

    def _has_data(self) -> bool:
        return any(not stream.sender.buffer_is_empty for stream in self._streams.values())

    # --- strict priority --------------------------------------------------------------------------------------------

    @property
    def _streams_queue(self) -> list[QuicStream]:
        """Streams in the order of service. aioquic moves those that it has served to the end, in place, after each
        packet; so the order is restored whenever the list is asked for."""
        self._by_priority.sort(key=_stream_number)
        return self._by_priority

    @_streams_queue.setter
    def _streams_queue(self, streams: list[QuicStream]) -> None:
        self._by_priority = streams

    # --- mutual TLS -------------------------------------------------------------------------------------------------

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self._is_client:
            self._enforce_on_server_certificate()
        else:
            self._enforce_on_client_certificate()

    def _enforce_on_client_certificate(self) -> None:
        context: Any = self.tls
        context._request_client_certificate = True
        handle_certificate = context._server_handle_certificate
        handle_verify = context._server_handle_certificate_verify

        def on_certificate(message: Any) -> None:
            handle_certificate(message)
            if context._peer_certificate is None:
                self._refuse(tls.AlertHandshakeFailure, "certificate_missing", "a client certificate is required")

        def on_verify(message: Any) -> None:
            self._checked(lambda: handle_verify(message))
            self._checked(self._verify_chain)
            self._admit()

        context._server_handle_certificate = on_certificate
        context._server_handle_certificate_verify = on_verify

    def _enforce_on_server_certificate(self) -> None:
        context: Any = self.tls
        handle_verify = context._client_handle_certificate_verify

        def on_verify(message: Any) -> None:
            self._checked(lambda: handle_verify(message))
            self._admit()

        context._client_handle_certificate_verify = on_verify

    def _verify_chain(self) -> None:
        context: Any = self.tls
        tls.verify_certificate(
            certificate=context._peer_certificate,
            chain=context._peer_certificate_chain,
            cadata=context._cadata,
            cafile=context._cafile,
            capath=context._capath,
        )

    def _checked(self, check: Callable[[], None]) -> None:
        try:
            check()
        except tls.AlertCertificateExpired as alert:
            self._refuse(type(alert), "certificate_expired", str(alert))
        except tls.AlertBadCertificate as alert:
            self._refuse(type(alert), "certificate_untrusted", str(alert))
        except tls.AlertDecryptError as alert:
            self._refuse(type(alert), "certificate_not_owned", str(alert))

    def _admit(self) -> None:
        certificate = self.tls._peer_certificate
        assert certificate is not None, "the TLS engine verified it a moment ago"
        try:
            self.certified = self._admission(certificate)
        except PeerViolation as violation:
            self._refuse(tls.AlertBadCertificate, violation.reason, violation.detail)

    def _refuse(self, alert: type[tls.Alert], reason: str, detail: str) -> None:
        self.refusal = reason
        raise alert(f"{reason}: {detail}")

    def _update_traffic_key(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        super()._update_traffic_key(direction, epoch, cipher_suite, secret)
        if epoch == tls.Epoch.ONE_RTT and self.exporter is None:
            # The first 1-RTT key is made when the transcript ends with the server's Finished: exactly where
            # RFC 8446 derives the exporter secret.
            self.exporter = _exporter(self.tls.key_schedule)


def _exporter(schedule: tls.KeySchedule | None) -> bytes:
    assert schedule is not None, "a 1-RTT key was just derived from it"
    master = schedule.derive_secret(b"exp master")
    empty, algorithm = schedule.hash_empty_value, schedule.algorithm
    secret = tls.hkdf_expand_label(algorithm, master, EXPORTER_LABEL, empty, algorithm.digest_size)
    return tls.hkdf_expand_label(algorithm, secret, b"exporter", empty, EXPORTER_BYTES)


def _stream_number(stream: QuicStream) -> int:
    assert stream.stream_id is not None, "only the handshake's own streams have no number"
    return stream.stream_id
