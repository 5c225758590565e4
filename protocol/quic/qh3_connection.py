"""qh3's connection, whose packets are handled in Rust, in the shape that the driver knows.

What differs from aioquic. The listener cannot ask the dialler for a certificate: it comes with the HELLO, and so do two
signatures over this session's TLS exporter, by its key and by the agent's (``protocol.greeting``). The dialler checks
the listener's certificate when the handshake completes, before its owner hears of it. The library's own scheduler and
pacer stay in place: streams share a congestion window without priorities. The size of datagrams is fixed when a
connection begins: where a path does not carry it, the next connection to that peer begins with less. Every private
member that is used is pinned by ``tests/protocol/test_qh3_contract.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.packet import QuicProtocolVersion
from qh3.quic.tls_bridge import QuicTlsBridge

from protocol.errors import PeerViolation
from protocol.identity import Identity
from protocol.pki import private_pem
from protocol.quic.backend import PACKETS_PER_KEY, Admission, check_datagram, datagram_room
from protocol.quic.qh3_tls import ExportingTls
from protocol.quic.settings import (
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
from protocol.quic.settled_way import SettledWay, transmitted
from protocol.roster import Agent

BAD_CERTIFICATE: Final = 0x100 + 42
"""TLS alert 42 as a QUIC error code (RFC 8446, 6; RFC 9001, 4.8)."""
INITIAL_RTT_S_MIN: Final = 0.05
"""A first probe time-out costs the core its large datagrams for good: it must not come before any answer can."""
PATH_SIZE: Final = 5
"""Where the size of datagrams stands in the core's description of its path."""
PROBE_OVERHEAD_BYTES: Final = 32
"""As aioquic's, and two bytes that a packet number may grow by; no packet of streams is as full."""
CORE_ACK_DELAY_S: Final = 0.001
"""How long the core lets an acknowledgement wait, whatever it is told; a peer allows for 25 ms."""

logging.getLogger("quic").setLevel(logging.ERROR)  # the library warns of every peer that closes; we count those


class Qh3Connection(QuicConnection):
    """A connection that names no dialler; its listener has proved who it is before the first byte is delivered."""

    events = events
    certified: Agent | None = None
    peer_certificate: x509.Certificate | None = None
    refusal: str | None = None
    key_updates: int = 0
    datagrams_overtaken: int = 0

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        profile: Profile,
        admission: Admission,
        narrow: set[Any],
        original_destination_connection_id: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._admission = admission
        self._narrow = narrow
        self._address: Any = None
        self._own_reset_token = reset_token
        self._keys_renewed_at = 0
        self.short_way = SettledWay(self, max(profile.ack_delay_s - CORE_ACK_DELAY_S, 0.0))

    # --- what the driver sees ---------------------------------------------------------------------------------------

    @property
    def is_client(self) -> bool:
        return bool(self._is_client)

    @property
    def exporter(self) -> bytes | None:
        return self._tls.exporter if isinstance(self._tls, ExportingTls) else None

    @property
    def begun(self) -> bool:
        return self.is_client or self.begun_by_peer

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

    def can_write(self, stream_id: int) -> bool:
        return self.has_stream(stream_id)

    def unsent_bytes(self, stream_id: int) -> int:
        return int(self.get_send_buffer_size(stream_id))

    @property
    def has_unsent(self) -> bool:
        return self.get_send_buffer_size() > 0

    def release(self) -> None:
        self.short_way.release()
        self._core = self._tls = None
        self._events.clear()

    @property
    def datagram_payload_bytes_max(self) -> int:
        return datagram_room(self.max_datagram_bytes, self._remote_max_datagram_frame_size)

    def send_datagram(self, data: bytes) -> None:
        check_datagram(data, self.datagram_payload_bytes_max)
        if len(self.short_way.datagrams_waiting) >= DATAGRAMS_WAITING_MAX:
            self.short_way.datagrams_waiting.popleft()
            self.datagrams_overtaken += 1
        self.short_way.datagrams_waiting.append(data)

    @property
    def max_datagram_bytes(self) -> int:
        """The core's own: it falls to the minimum for good when nothing answers its first packets for a moment."""
        core = self._core
        return int(self._configuration.max_datagram_size if core is None else core.active_path[PATH_SIZE])

    @property
    def path_unproved(self) -> bool:
        probe = self.max_datagram_bytes - PROBE_OVERHEAD_BYTES + DATAGRAM_FRAME_HEADER_BYTES
        return self.max_datagram_bytes > DATAGRAM_BYTES_MIN and probe <= (self._remote_max_datagram_frame_size or 0)

    def send_path_probe(self, beginning: bytes) -> None:
        self.short_way.datagrams_waiting.append(beginning.ljust(self.max_datagram_bytes - PROBE_OVERHEAD_BYTES, b"\0"))

    def settle_path(self, *, carries: bool) -> bool:
        if carries or self.max_datagram_bytes == DATAGRAM_BYTES_MIN:
            return True
        self._narrow.add(self._address)
        return False

    def connect(self, addr: Any, now: float) -> None:
        self._fit(addr)
        super().connect(addr, now)

    def _fit(self, addr: Any) -> None:
        """The core is about to be made, with a size for good."""
        self._address = addr
        if addr in self._narrow:
            self._narrow.discard(addr)
            self._configuration = replace(self._configuration, max_datagram_size=DATAGRAM_BYTES_MIN)

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """As the library's. A listener that was heard and yet could not finish the handshake sent something that the
        path did not carry: next time it is asked for less."""
        unfinished = self._close_event is None and self.refusal is None and not self._handshake_complete
        if self.is_client and unfinished and self.begun_by_peer:
            self._narrow.add(self._address)
        self.short_way.close()
        super().close(error_code, frame_type, reason_phrase)

    @property
    def begun_by_peer(self) -> bool:
        """Whether a packet of the peer could be decrypted."""
        return self._core is not None and bool(self._core.received_authenticated_packet)

    def renew_keys_if_due(self) -> None:
        sent = self.short_way.datagrams_sent
        if sent - self._keys_renewed_at < PACKETS_PER_KEY or not self._handshake_confirmed:
            return
        try:
            self.request_key_update()
        except ValueError:
            return  # the last update, ours or the peer's, is not yet acknowledged; there is time until the next look
        self._keys_renewed_at = sent
        self.key_updates += 1

    def must_send(self, now: float) -> bool:
        return not self.short_way.holds() or self.short_way.must_send(now)

    def get_timer(self) -> float | None:
        if not self.short_way.holds():
            return super().get_timer()
        at = self.short_way.timer_at()
        return None if at == float("inf") else at

    def handle_timer(self, now: float) -> None:
        self.short_way.close()
        super().handle_timer(now)

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self._close_event is not None or self.short_way.receive_usual(data, addr, now):
            return
        self.short_way.heard(len(data))
        if self._core is None:
            self._fit(addr)
        super().receive_datagram(data, addr, now)

    def take(self, told: tuple[Any, ...]) -> None:
        """What the core tells, as the library takes it."""
        core: Any = self._core
        told_again: Any = Told(core, told)
        self._core = told_again
        try:
            self._drain_core()
        finally:
            self._core = core
        self.short_way.close()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        if (usual := self.short_way.usual_datagrams(now)) is not None:
            return usual
        datagrams = self._transmitted(now)
        while self.short_way.datagrams_waiting and self._hand_over_datagram():
            datagrams += self._transmitted(now)
        self.short_way.sent(len(datagrams))
        return datagrams

    def _transmitted(self, now: float) -> list[tuple[bytes, Any]]:
        return [] if self._core is None else transmitted(self._core, now)

    def _hand_over_datagram(self) -> bool:
        """One, behind everything else, because the core fails at one that does not fit beside other frames; and only
        when the congestion window has room, which the core would not ask about."""
        core, data = self._core, self.short_way.datagrams_waiting[0]
        if core is None or self._close_event is not None or core.congestion_window - core.bytes_in_flight < len(data):
            return False
        self.short_way.datagrams_waiting.popleft()
        if len(data) <= self.max_datagram_bytes - PROBE_OVERHEAD_BYTES:  # the core may have become smaller meanwhile
            self.send_datagram_frame(data)
        return True

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
            self.peer_certificate = certificate
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


class Told:
    """A core that has told something already, and is to tell it again."""

    def __init__(self, core: Any, told: tuple[Any, ...]) -> None:
        self._core = core
        self._told: tuple[Any, ...] | None = told

    def next_event(self) -> Any:
        told, self._told = self._told, None
        return self._core.next_event() if told is None else told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


class Qh3Backend:
    """``Backend`` over qh3."""

    def __init__(self, identity: Identity, profile: Profile) -> None:
        self._profile = profile
        self._narrow: set[Any] = set()
        """Peers to which a path did not carry the profile's datagrams, for one connection each: paths change."""
        self._client_settings = _configuration(identity, profile, is_client=True)
        self._server_settings = _configuration(identity, profile, is_client=False)

    def dial(self, admission: Admission) -> Qh3Connection:
        return Qh3Connection(
            configuration=self._client_settings, profile=self._profile, admission=admission, narrow=self._narrow
        )

    def accept(self, destination: bytes, admission: Admission, reset_token: Callable[[bytes], bytes]) -> Qh3Connection:
        return Qh3Connection(
            configuration=self._server_settings,
            profile=self._profile,
            admission=admission,
            narrow=self._narrow,
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
        max_datagram_frame_size=DATAGRAM_FRAME_BYTES_MAX,
        probe_datagram_size=False,
        initial_rtt=max(profile.initial_rtt_s, INITIAL_RTT_S_MIN),
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_hostname=False,
        cadata=identity.authorities,
    )
    chain = b"".join(part.public_bytes(Encoding.PEM) for part in (identity.certificate, *identity.certificate_chain))
    configuration.load_cert_chain(chain, private_pem(identity.tls_key))
    return configuration
