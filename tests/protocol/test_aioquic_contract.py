"""What we rely on inside aioquic, public or not. A version that moves one of these must fail here, not in production.

Connections run without sockets or clocks: two objects, their datagrams carried by hand.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery
from cryptography.x509 import Certificate

from protocol.errors import PeerViolation
from protocol.identity import Identity
from protocol.pki import CLIENT, SERVER, Authority, Subject, admit
from protocol.quic.backend import PACKETS_PER_KEY
from protocol.quic.connection import SwarmConnection, UnpacedSending, quic_configuration
from protocol.quic.settings import (
    CONNECTION_ID_BYTES,
    DATAGRAM_BYTES_MAX,
    DATAGRAM_FRAME_BYTES_MAX,
    DATAGRAM_FRAME_OVERHEAD_BYTES,
    PROFILES,
    Profile,
)
from protocol.quic.usual import UsualWays
from protocol.roster import Agent, Role
from tests.oracles.clusters import CLUSTER, Cluster, make_cluster

CLIENT_ADDRESS = ("127.0.0.1", 1)
SERVER_ADDRESS = ("127.0.0.1", 2)
LOOPBACK = PROFILES["loopback"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("contract"))


class Pair:
    """A client and a server, and a clock that moves when we say so."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        client_identity: Identity | None = None,
        profile: Profile = LOOPBACK,
        tune: Callable[[Any], None] = lambda settings: None,
        server_admission: Callable[[Certificate], Agent] | None = None,
    ) -> None:
        self.now = 100.0
        server_identity = cluster.identity("risk-1")
        settings = quic_configuration(client_identity or cluster.identity("trader-1"), profile, is_client=True)
        tune(settings)
        self.client = SwarmConnection(
            configuration=settings, profile=profile, admission=lambda leaf: admit(cluster.roster, leaf, SERVER)
        )
        self.client.connect(SERVER_ADDRESS, now=self.now)
        self.server = SwarmConnection(
            configuration=quic_configuration(server_identity, profile, is_client=False),
            profile=profile,
            admission=server_admission or (lambda leaf: admit(cluster.roster, leaf, CLIENT)),
            original_destination_connection_id=self.client.original_destination_connection_id,
            reset_token=lambda connection_id: connection_id * 2,
        )

    def to_server(self) -> list[bytes]:
        datagrams = [data for data, _ in self.client.datagrams_to_send(self.now)]
        for data in datagrams:
            self.server.receive_datagram(data, CLIENT_ADDRESS, self.now)
        return datagrams

    def to_client(self) -> list[bytes]:
        datagrams = [data for data, _ in self.server.datagrams_to_send(self.now)]
        for data in datagrams:
            self.client.receive_datagram(data, SERVER_ADDRESS, self.now)
        return datagrams

    def exchange(self, rounds: int = 6) -> None:
        for _ in range(rounds):
            self.to_server()
            self.to_client()
            self.now += 0.01

    def open_streams(self) -> None:
        self.exchange()
        for end in (self.client, self.server):
            end.settle_path(carries=True)
        for stream_id in (0, 4, 8, 12):
            self.client.send_stream_data(stream_id, b"*")
        self.exchange()
        heard(self.client), heard(self.server)


def heard(connection: QuicConnection) -> list[events.QuicEvent]:
    found = []
    while (event := connection.next_event()) is not None:
        found.append(event)
    return found


def received(connection: QuicConnection) -> list[tuple[int, bytes]]:
    return [(e.stream_id, e.data) for e in heard(connection) if isinstance(e, events.StreamDataReceived)]


def completed(connection: QuicConnection) -> bool:
    return any(isinstance(event, events.HandshakeCompleted) for event in heard(connection))


def test_version_is_the_one_that_was_read() -> None:
    assert version("aioquic") == "1.7.2"


def test_members_that_we_override_or_replace() -> None:
    parameters = inspect.signature(QuicConnection._update_traffic_key).parameters
    assert list(parameters) == ["self", "direction", "epoch", "cipher_suite", "secret"]
    assert list(inspect.signature(QuicConnection._initialize).parameters) == ["self", "peer_cid"]
    for name, expected in {
        "_write_connection_limits": ["self", "builder", "space"],
        "_write_stream_limits": ["self", "builder", "space", "stream"],
        "_handle_crypto_frame": ["self", "context", "frame_type", "buf"],
        "_handle_stream_frame": ["self", "context", "frame_type", "buf"],
        "_on_connection_limit_delivery": ["self", "delivery", "limit"],
        "_on_max_stream_data_delivery": ["self", "delivery", "stream"],
    }.items():
        assert list(inspect.signature(getattr(QuicConnection, name)).parameters) == expected
    assert list(inspect.signature(QuicConnection.receive_datagram).parameters) == ["self", "data", "addr", "now"]
    assert list(inspect.signature(QuicConnection.datagrams_to_send).parameters) == ["self", "now"]
    for name in ("next_send_time", "update_after_send", "update_rate"):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (UnpacedSending, QuicPacketPacer))
        assert list(ours.parameters) == list(theirs.parameters)


def test_whatever_can_be_asked_of_the_library_ends_the_calm_or_changes_nothing() -> None:
    asked = {name for name, member in vars(QuicConnection).items() if name[0] != "_" and callable(member)}
    harmless = {"connect", "get_next_available_stream_id", "get_peer_address"}
    assert asked - harmless == asked & set(vars(UsualWays))


def test_members_that_we_read(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    for connection in (pair.client, pair.server):
        connection._settle()
        assert connection._close_event is None
        assert connection._state is QuicConnectionState.CONNECTED
        assert isinstance(connection._packet_number, int) and connection._packet_number > 0
        assert isinstance(connection._loss._rtt_smoothed, float) and connection._loss._rtt_smoothed > 0
        assert connection._spaces[tls.Epoch.ONE_RTT].ack_at is None
        assert connection._handshake_confirmed is True
        assert connection._handshake_done_pending is False
        assert connection._probe_pending is False
        assert connection._ack_delay == LOOPBACK.ack_delay_s
        assert set(connection._streams) == {0, 4, 8, 12}
        assert connection._streams[0].sender._buffer == b""
        assert connection._streams[0].sender.buffer_is_empty
        assert connection.round_trip_s == connection._loss._rtt_smoothed
        assert connection._datagrams_pending == deque() and isinstance(connection._datagrams_pending, deque)
        assert connection._remote_max_datagram_frame_size == DATAGRAM_FRAME_BYTES_MAX
        assert len(connection._peer_cid.cid) == CONNECTION_ID_BYTES


def test_pacer_asks_nothing_that_the_stand_in_lacks() -> None:
    used = {name for name in dir(QuicPacketPacer) if not name.startswith("_")}
    source = inspect.getsource(QuicPacketRecovery) + inspect.getsource(QuicConnection)
    assert {name for name in used if f"_pacer.{name}(" in source} == {
        "next_send_time",
        "update_after_send",
        "update_rate",
    }


# --- mutual TLS ---


def test_valid_pair_knows_each_other(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.exchange()
    assert completed(pair.client) and completed(pair.server)
    assert pair.client.certified == cluster.agent("risk-1")
    assert pair.server.certified == cluster.agent("trader-1")
    assert pair.client.exporter is not None and len(pair.client.exporter) == 32
    assert pair.client.exporter == pair.server.exporter


def test_exporters_differ_between_sessions(cluster: Cluster) -> None:
    pairs = [Pair(cluster), Pair(cluster)]
    for pair in pairs:
        pair.exchange()
    assert pairs[0].client.exporter != pairs[1].client.exporter


def _no_certificate(settings: Any) -> None:
    settings.certificate = settings.private_key = None


def _stranger(cluster: Cluster) -> Identity:
    """trader-1's name and key, certified by nobody we know."""
    identity = cluster.identity("trader-1")
    stranger = Authority.create(CLUSTER)
    leaf = stranger.issue(Subject("trader-1", Role.TRADER, ""), identity.tls_key.public_key())
    return replace(identity, certificate=leaf)


@pytest.mark.parametrize(
    ("case", "alert", "reason"),
    [
        ("none", tls.AlertDescription.handshake_failure, "certificate_missing"),
        ("foreign", tls.AlertDescription.bad_certificate, "certificate_untrusted"),
    ],
)
def test_client_without_a_good_certificate_is_closed(cluster: Cluster, case: str, alert: int, reason: str) -> None:
    foreign = _stranger(cluster) if case == "foreign" else None
    pair = Pair(cluster, client_identity=foreign, tune=_no_certificate if case == "none" else lambda settings: None)
    pair.exchange()
    assert not completed(pair.server)
    assert pair.server.refusal == reason
    assert pair.client.closing is not None and pair.client.closed_by_peer
    assert pair.client.closing.error_code == 0x100 + alert
    assert pair.client.closing.reason_phrase.startswith(f"{reason}: ")


def test_the_flag_alone_admits_strangers(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why we enforce: what aioquic does when it is merely told to ask. If this fails, our checks may be redundant."""

    def only_ask(connection: SwarmConnection) -> None:
        connection.tls._request_client_certificate = True

    monkeypatch.setattr(SwarmConnection, "_enforce_on_client_certificate", only_ask)
    for options in ({"tune": _no_certificate}, {"client_identity": _stranger(cluster)}):
        pair = Pair(cluster, **options)
        pair.exchange()
        assert completed(pair.server)


def test_a_refused_client_cannot_go_on_in_the_same_read(cluster: Cluster) -> None:
    """After its alert the TLS engine would still take FINISHED from the next datagram, and complete the handshake."""

    def refuse(certificate: Certificate) -> Agent:
        raise PeerViolation("agent_unknown", "for this test")

    def attack(receive: Callable[[SwarmConnection, bytes, Any, float], None]) -> bool:
        pair = Pair(cluster, server_admission=refuse)
        pair.to_server()
        pair.to_client()
        pair.client._crypto_streams[tls.Epoch.HANDSHAKE].sender.write(b"\0")  # pushes the engine once more
        first, *_ = (data for data, _ in pair.client.datagrams_to_send(pair.now))
        pair.client._crypto_streams[tls.Epoch.HANDSHAKE].sender.write(b"\0")
        second, *_ = (data for data, _ in pair.client.datagrams_to_send(pair.now))
        for data in (first, second):
            receive(pair.server, data, CLIENT_ADDRESS, pair.now)
        assert pair.server.refusal == "agent_unknown"
        return completed(pair.server)

    assert attack(QuicConnection.receive_datagram), "the library now stops by itself: the guard may go"
    assert not attack(SwarmConnection.receive_datagram)


def test_nothing_is_delivered_before_the_client_is_known(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.to_server()
    pair.to_client()
    pair.client.send_stream_data(0, b"hello")
    assert not received(pair.server)
    pair.to_server()
    assert received(pair.server) == [(0, b"hello")]


def test_no_session_tickets(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.exchange()
    assert pair.server.tls.new_session_ticket_cb is None and pair.server.tls.get_session_ticket_cb is None


# --- sending ---


def test_lower_streams_are_served_strictly_first(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    for stream_id in (12, 8, 4):  # least urgent first, each more than a datagram
        pair.client.send_stream_data(stream_id, bytes([stream_id]) * 40_000)
    pair.to_server()
    overtaken_bytes, last_of = 0, {4: 40_000, 8: 40_000, 12: 40_000}
    for stream_id, data in received(pair.server):
        last_of[stream_id] -= len(data)
        overtaken_bytes += len(data) if any(last_of[lower] for lower in last_of if lower < stream_id) else 0
    assert last_of == {4: 0, 8: 0, 12: 0}
    assert overtaken_bytes < 100, "only crumbs at the end of a full packet go to a lower priority"


def test_library_alone_rotates_streams(cluster: Cluster) -> None:
    """Why the queue is a property: sorted once before the call, the second packet already serves another stream."""
    source = inspect.getsource(QuicConnection._write_application)
    assert "self._streams_queue = [" in source and "self._streams_queue.extend(sent)" in source


def test_burst_leaves_at_once(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    sent = 0
    for number in range(64):
        pair.client.send_stream_data(4, bytes([number]) * 100)
        sent += len(pair.client.datagrams_to_send(pair.now))
    assert sent == 64


def test_wan_profile_keeps_the_pacer(cluster: Cluster) -> None:
    assert isinstance(Pair(cluster, profile=PROFILES["wan"]).client._loss._pacer, QuicPacketPacer)
    assert isinstance(Pair(cluster).client._loss._pacer, UnpacedSending)


def test_acknowledgement_rides_on_a_reply(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    space = pair.server._spaces[tls.Epoch.ONE_RTT]
    pair.client.send_stream_data(4, b"question")
    pair.to_server()
    pair.server._settle()
    assert space.ack_at is not None and space.ack_at > pair.now
    assert pair.server.datagrams_to_send(pair.now) == []  # alone it waits
    pair.server.send_stream_data(4, b"answer")
    assert len(pair.to_client()) == 1
    assert pair.client.unsent_bytes(4) == 0, "the answer carried the acknowledgement"


def test_arrivals_that_call_for_nothing_do_not_cost_a_flush(cluster: Cluster) -> None:
    pair = Pair(cluster)
    assert pair.client.must_send(pair.now), "always during the handshake"
    pair.open_streams()
    pair.client.send_stream_data(4, b"question")
    assert pair.client.must_send(pair.now)
    pair.to_server()
    assert not pair.server.must_send(pair.now) and pair.server.datagrams_to_send(pair.now) == []
    assert pair.server.must_send(pair.now + LOOPBACK.ack_delay_s)
    pair.server.close()
    assert pair.server.must_send(pair.now)


def test_unsent_bytes_count_what_is_not_acknowledged(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    assert pair.client.unsent_bytes(99) == 0
    pair.client.send_stream_data(4, bytes(1000))
    pair.client.datagrams_to_send(pair.now)  # lost
    assert pair.client.unsent_bytes(4) == 1000


def test_largest_datagram_carries_data_unharmed(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    data = bytes(range(256)) * 400
    pair.client.send_stream_data(4, data)
    sizes = [len(datagram) for datagram in pair.to_server()]
    pair.exchange()
    assert max(sizes) == DATAGRAM_BYTES_MAX
    assert b"".join(piece for _, piece in received(pair.server)).startswith(data[:60_000])


def test_library_alone_lets_one_large_datagram_frame_block_all_others(cluster: Cluster) -> None:
    """Why sizes are checked before anything is queued. If this fails the check may go."""
    pair = Pair(cluster)
    pair.open_streams()
    pair.client.send_datagram_frame(bytes(DATAGRAM_BYTES_MAX))
    pair.client.send_datagram_frame(b"small")
    pair.exchange()
    assert not any(isinstance(event, events.DatagramFrameReceived) for event in heard(pair.server))
    assert len(pair.client._datagrams_pending) == 2


def test_largest_datagram_frame_fits_behind_nothing_else(cluster: Cluster) -> None:
    """The overhead that we allow for is never less than the library's own."""
    pair = Pair(cluster)
    pair.open_streams()
    assert pair.client.datagram_payload_bytes_max == DATAGRAM_BYTES_MAX - DATAGRAM_FRAME_OVERHEAD_BYTES
    pair.client.send_datagram(bytes(pair.client.datagram_payload_bytes_max))
    [datagram] = pair.to_server()
    assert DATAGRAM_BYTES_MAX - 16 < len(datagram) <= DATAGRAM_BYTES_MAX


# --- life ---


def test_end_is_known_before_the_library_says_so(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    pair.client.close(error_code=1, reason_phrase="superseded: newer")
    pair.to_server()
    assert pair.server.closing is not None and pair.server.closed_by_peer
    assert (pair.server.closing.error_code, pair.server.closing.reason_phrase) == (1, "superseded: newer")
    assert not any(isinstance(event, events.ConnectionTerminated) for event in heard(pair.server))
    assert not pair.client.closed_by_peer


def test_server_gives_our_reset_token(cluster: Cluster) -> None:
    pair = Pair(cluster)
    assert pair.client.reset_token_of_peer == b""
    pair.exchange()
    assert pair.client.reset_token_of_peer == pair.server.host_cid * 2
    assert pair.server.reset_token_of_peer == b""


def test_rubbish_does_not_begin_a_connection(cluster: Cluster) -> None:
    pair = Pair(cluster)
    initial = pair.client.datagrams_to_send(pair.now)[0][0]
    pair.server.receive_datagram(initial[:100] + bytes(len(initial) - 100), CLIENT_ADDRESS, pair.now)
    assert not pair.server.begun and pair.client.begun
    pair.server.receive_datagram(initial, CLIENT_ADDRESS, pair.now)
    assert pair.server.begun


def test_keys_are_renewed_before_their_limit(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.open_streams()
    phase = pair.client._cryptos[tls.Epoch.ONE_RTT].key_phase
    pair.client.renew_keys_if_due()
    assert pair.client._cryptos[tls.Epoch.ONE_RTT].key_phase == phase
    pair.client._key_renewed_at -= PACKETS_PER_KEY
    pair.client.renew_keys_if_due()
    assert pair.client._cryptos[tls.Epoch.ONE_RTT].key_phase != phase
    pair.client.renew_keys_if_due()
    pair.client.send_stream_data(4, b"under new keys")
    pair.exchange()
    assert received(pair.server) == [(4, b"under new keys")]
