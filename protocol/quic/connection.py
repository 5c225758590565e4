"""aioquic's connection with what it lacks for a swarm: mutual TLS that is enforced, an exporter, strict priorities.

aioquic can ask a client for a certificate but accepts none, or a stranger's; the checks here close both gaps. Every
private member that is used is pinned by ``tests/protocol/test_aioquic_contract.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import NetworkAddress, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.quic.stream import QuicStream
from cryptography.x509 import Certificate

from protocol.errors import PeerViolation
from protocol.identity import Identity
from protocol.quic.backend import (
    EXPORTER_BYTES,
    EXPORTER_LABEL,
    PACKETS_PER_KEY,
    Admission,
    check_datagram,
    datagram_room,
)
from protocol.quic.settings import (
    ACKNOWLEDGE_DATAGRAMS,
    ALPN,
    CONNECTION_ID_BYTES,
    DATAGRAM_BYTES_MIN,
    DATAGRAM_FRAME_BYTES_MAX,
    DATAGRAM_FRAME_HEADER_BYTES,
    DATAGRAMS_WAITING_MAX,
    FLOW_WINDOW_BYTES,
    IDLE_TIMEOUT_S,
    Profile,
)
from protocol.quic.usual import UsualWays
from protocol.roster import Agent

PROBE_OVERHEAD_BYTES: Final = 3 + CONNECTION_ID_BYTES + 3 + 16
"""Short header with a number of two bytes, frame header with a length of two, and seal: so that a probe fills its
datagram to the last byte."""
_STREAM_NUMBER: Final = attrgetter("stream_id")  # compiled: a function of ours would cost a tenth of a packet


class UnpacedSending:
    """Stands in for aioquic's pacer and never holds a packet back. For trusted links only."""

    def next_send_time(self, now: float) -> float | None:
        return None

    def update_after_send(self, now: float) -> None:
        return

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        return


class SwarmConnection(UsualWays):
    """A connection whose two ends have proved who they are before the first byte is delivered.

    ``admission`` sees the peer's certificate on either side. After a refusal nothing that arrives is looked at, even
    in the same read of the socket: the TLS engine would otherwise go on and complete the handshake.
    """

    events = events
    exporter: bytes | None = None
    certified: Agent | None = None
    peer_certificate: Certificate | None = None
    refusal: str | None = None
    key_updates: int = 0
    datagrams_overtaken: int = 0

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
        # Recovery has taken the profile's size; what every path carries must do until the path is proved.
        self._wanted_datagram_bytes = self._max_datagram_size
        self._max_datagram_size = DATAGRAM_BYTES_MIN
        self._admission = admission
        self._key_renewed_at = 0
        self._ack_delay = profile.ack_delay_s
        self._acknowledge_every = ACKNOWLEDGE_DATAGRAMS * profile.max_datagram_bytes
        self._paced = profile.paced
        if not profile.paced:
            self._loss._pacer = UnpacedSending()  # type: ignore[assignment]
        if reset_token is not None and not configuration.is_client:
            self._host_cids[0].stateless_reset_token = reset_token(self.host_cid)

    # --- what the driver sees ---------------------------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return self._is_client

    @property
    def begun(self) -> bool:
        return self._is_client or self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def closing(self) -> ConnectionTerminated | None:
        return self._close_event

    @property
    def closed_by_peer(self) -> bool:
        return self._state is QuicConnectionState.DRAINING

    @property
    def round_trip_s(self) -> float:
        self._settle()
        # The library takes no sample below 1 ms.
        return self._loss._rtt_smoothed

    @property
    def reset_token_of_peer(self) -> bytes:
        return self._peer_cid.stateless_reset_token or b""

    def has_stream(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def can_write(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and stream.sender._buffer_fin is None and stream.sender._reset_error_code is None

    def unsent_bytes(self, stream_id: int) -> int:
        """Here also what has left and is not yet acknowledged."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    @property
    def datagram_payload_bytes_max(self) -> int:
        return datagram_room(self._max_datagram_size, self._remote_max_datagram_frame_size)

    def send_datagram(self, data: bytes) -> None:
        check_datagram(data, self.datagram_payload_bytes_max)
        if len(self._datagrams_pending) >= DATAGRAMS_WAITING_MAX:
            self._datagrams_pending.popleft()
            self.datagrams_overtaken += 1
        self.send_datagram_frame(data)

    @property
    def max_datagram_bytes(self) -> int:
        return self._max_datagram_size

    @property
    def path_unproved(self) -> bool:
        probe = self._wanted_datagram_bytes - PROBE_OVERHEAD_BYTES + DATAGRAM_FRAME_HEADER_BYTES
        return self._wanted_datagram_bytes > DATAGRAM_BYTES_MIN and probe <= (self._remote_max_datagram_frame_size or 0)

    def send_path_probe(self, beginning: bytes) -> None:
        self._disturb()
        self._path_probe = beginning.ljust(self._wanted_datagram_bytes - PROBE_OVERHEAD_BYTES, b"\0")

    def settle_path(self, *, carries: bool) -> bool:
        self._disturb()
        self._max_datagram_size = self._wanted_datagram_bytes if carries else DATAGRAM_BYTES_MIN
        return True

    def release(self) -> None:
        super().release()
        self._by_priority.clear()

    def renew_keys_if_due(self) -> None:
        self._settle()
        if self._packet_number - self._key_renewed_at >= PACKETS_PER_KEY:
            self._key_renewed_at = self._packet_number
            self.key_updates += 1
            self.request_key_update()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """And the probe of the path behind them, if one is due."""
        datagrams = super().datagrams_to_send(now)
        return datagrams if self._path_probe is None else datagrams + self._large_datagram(now)

    def _large_datagram(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """The probe of the path, unless streams would ride along and be lost with it; a later probe tries again."""
        probe, self._path_probe = self._path_probe, None
        assert probe is not None, "checked by the caller"
        if self.has_unsent:
            return []
        waiting, self._datagrams_pending = self._datagrams_pending, deque([probe])
        size, self._max_datagram_size = self._max_datagram_size, self._wanted_datagram_bytes
        self._disturb()
        try:
            return super().datagrams_to_send(now)
        finally:
            self._datagrams_pending, self._max_datagram_size = waiting, size

    # --- strict priority --------------------------------------------------------------------------------------------

    @property
    def _streams_queue(self) -> list[QuicStream]:
        """Streams in the order of service. aioquic moves those that it has served to the end, in place, after each
        packet; so the order is restored whenever the list is asked for."""
        self._by_priority.sort(key=_STREAM_NUMBER)
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
            self.peer_certificate = certificate
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


class AioquicBackend:
    """``Backend`` over aioquic."""

    def __init__(self, identity: Identity, profile: Profile) -> None:
        self._profile = profile
        self._client_settings = quic_configuration(identity, profile, is_client=True)
        self._server_settings = quic_configuration(identity, profile, is_client=False)

    def dial(self, admission: Admission) -> SwarmConnection:
        return SwarmConnection(configuration=self._client_settings, profile=self._profile, admission=admission)

    def accept(
        self, destination: bytes, admission: Admission, reset_token: Callable[[bytes], bytes]
    ) -> SwarmConnection:
        return SwarmConnection(
            configuration=self._server_settings,
            profile=self._profile,
            admission=admission,
            original_destination_connection_id=destination,
            reset_token=reset_token,
        )


def quic_configuration(identity: Identity, profile: Profile, *, is_client: bool) -> QuicConfiguration:
    """aioquic settings of one side. No session tickets: resumption would bypass the client's certificate."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        congestion_control_algorithm=profile.congestion_control,
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=IDLE_TIMEOUT_S,
        max_data=FLOW_WINDOW_BYTES,
        max_stream_data=FLOW_WINDOW_BYTES,
        max_datagram_size=profile.max_datagram_bytes,
        max_datagram_frame_size=DATAGRAM_FRAME_BYTES_MAX,
        initial_rtt=profile.initial_rtt_s,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        certificate=identity.certificate,
        certificate_chain=list(identity.certificate_chain),
        private_key=identity.tls_key,
        cadata=identity.authorities,
    )
