"""What we rely on inside qh3, public or not, and what it does together with aioquic. Without sockets or clocks."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
from qh3 import tls
from qh3.quic import events
from qh3.quic.connection import QuicConnection
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsCryptoData

from protocol.errors import PeerViolation
from protocol.identity import Identity
from protocol.pki import CLIENT, SERVER, admit
from protocol.quic.backend import Address, Connection, backend_for
from protocol.quic.qh3_connection import CORE_ACK_DELAY_S, PATH_SIZE, Qh3Connection
from protocol.quic.qh3_tls import CRYPTO_PIECE_BYTES
from protocol.quic.settings import DATAGRAM_FRAME_BYTES_MAX, PROFILES
from protocol.quic.settled_way import ACK_TIMER
from protocol.roster import Agent
from tests.oracles.clusters import TRANSPORT_PAIRS, Cluster, make_cluster

CLIENT_ADDRESS = ("127.0.0.1", 1)
SERVER_ADDRESS = ("127.0.0.1", 2)
SIZES = (1200, 1280, 1452, 8952, 16384)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("qh3"))


class Pair:
    """A dialler and a listener on libraries of their own, and a clock that moves when we say so."""

    def __init__(
        self,
        cluster: Cluster,
        libraries: str = "qh3 dials qh3",
        *,
        sizes: tuple[int, int] = (16384, 16384),
        listener: Identity | None = None,
    ) -> None:
        dialling, listening = libraries.split(" dials ")
        profiles = [replace(PROFILES["loopback"], max_datagram_bytes=size) for size in sizes]
        self.now = 100.0
        self.client: Connection = backend_for(dialling, cluster.identity("trader-1"), profiles[0]).dial(
            lambda leaf: admit(cluster.roster, leaf, SERVER, cluster.agent("risk-1"))
        )
        self.client.connect(SERVER_ADDRESS, now=self.now)
        first = self.client.datagrams_to_send(self.now)
        destination = first[0][0][6 : 6 + first[0][0][5]]
        self.server: Connection = backend_for(listening, listener or cluster.identity("risk-1"), profiles[1]).accept(
            destination, lambda leaf: admit(cluster.roster, leaf, CLIENT), lambda connection_id: connection_id * 2
        )
        assert not self.server.begun
        for data, _ in first:
            self.server.receive_datagram(data, CLIENT_ADDRESS, self.now)

    def exchange(self, rounds: int = 8) -> list[int]:
        """Sizes of the datagrams that went to the server."""
        sizes = []
        for _ in range(rounds):
            for sender, receiver, address in (
                (self.server, self.client, SERVER_ADDRESS),
                (self.client, self.server, CLIENT_ADDRESS),
            ):
                timer = sender.get_timer()
                if timer is not None and timer <= self.now:
                    sender.handle_timer(self.now)
                datagrams = [data for data, _ in sender.datagrams_to_send(self.now)]
                sizes += [len(data) for data in datagrams if sender is self.client]
                for data in datagrams:
                    receiver.receive_datagram(data, address, self.now)
            self.now += 0.01
        return sizes


def heard(connection: Connection) -> list[Any]:
    found = []
    while (event := connection.next_event()) is not None:
        found.append(event)
    return found


def named(connection: Connection, name: str) -> list[Any]:
    return [event for event in heard(connection) if type(event).__name__ == name]


def test_version_is_the_one_that_was_read() -> None:
    assert version("qh3") == "2.1.0"


def test_members_that_we_override_or_read(cluster: Cluster) -> None:
    assert list(inspect.signature(QuicConnection._create_tls).parameters) == ["self", "remote_source_cid"]
    assert list(inspect.signature(QuicConnection.receive_datagram).parameters) == ["self", "data", "addr", "now"]
    assert list(inspect.signature(QuicTlsBridge.next_crypto_data).parameters) == ["self"]
    assert list(inspect.signature(QuicTlsBridge.serialize_transport_parameters).parameters) == ["self"]
    parameters = inspect.signature(QuicTlsBridge._on_traffic_secret).parameters
    assert list(parameters) == ["self", "direction", "epoch", "cipher_suite", "secret"]
    assert list(inspect.signature(QuicTlsCryptoData).parameters) == ["epoch", "offset", "data"]
    pair = Pair(cluster)
    pair.exchange()
    for connection in (pair.client, pair.server):
        assert isinstance(connection, Qh3Connection)
        assert connection._handshake_confirmed is True and connection._close_event is None
        assert connection._core is not None and connection._core.received_authenticated_packet
        assert connection._core.smoothed_rtt is not None and connection.round_trip_s > 0
        assert isinstance(connection._tls, QuicTlsBridge) and not connection._tls._outbound
        assert connection._tls.tls.key_schedule is not None
        assert connection._remote_max_datagram_frame_size == DATAGRAM_FRAME_BYTES_MAX
        assert connection._core.active_path[PATH_SIZE] == 16384
        assert connection._core.congestion_window > 0 and isinstance(connection._core.bytes_in_flight, int)


def test_event_names_are_those_of_the_other_library() -> None:
    from aioquic.quic import events as theirs

    for name in ("StreamDataReceived", "DatagramFrameReceived", "HandshakeCompleted", "ConnectionTerminated",
                 "ConnectionIdIssued", "ConnectionIdRetired", "StreamReset", "StopSendingReceived"):  # fmt: skip
        ours, other = getattr(events, name), getattr(theirs, name)
        assert set(inspect.signature(ours).parameters) == set(inspect.signature(other).parameters)


def test_library_alone_sends_datagram_frames_past_its_congestion_window(cluster: Cluster) -> None:
    """Why ours wait in a queue of their own. If this fails the library has learnt to hold them back itself."""
    pair = Pair(cluster)
    pair.exchange()
    assert isinstance(pair.client, Qh3Connection) and pair.client._core is not None
    for _ in range(2 * pair.client._core.congestion_window // 1000):
        pair.client.send_datagram_frame(bytes(1000))
    pair.client.datagrams_to_send(pair.now)
    assert pair.client._core.bytes_in_flight > 1.5 * pair.client._core.congestion_window


def test_library_alone_fails_at_a_large_datagram_frame(cluster: Cluster) -> None:
    """Why sizes are checked before anything is handed over."""
    pair = Pair(cluster, sizes=(1200, 1200))
    pair.exchange()
    assert isinstance(pair.client, Qh3Connection)
    pair.client.send_datagram_frame(bytes(1200))
    with pytest.raises(Exception, match="capacity exhausted"):
        pair.client.datagrams_to_send(pair.now)


# --- both libraries together ---


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize("sizes", [(a, b) for a in SIZES for b in SIZES])
def test_handshake_and_exporter_whatever_the_datagrams(
    cluster: Cluster, libraries: str, sizes: tuple[int, int]
) -> None:
    pair = Pair(cluster, libraries, sizes=sizes)
    pair.exchange()
    assert named(pair.client, "HandshakeCompleted") and named(pair.server, "HandshakeCompleted")
    assert pair.client.exporter is not None and len(pair.client.exporter) == 32
    assert pair.client.exporter == pair.server.exporter
    assert pair.client.certified == cluster.agent("risk-1")
    asked = libraries.endswith(" aioquic")
    assert pair.server.certified == (cluster.agent("trader-1") if asked else None)


@pytest.mark.parametrize("chain", [0, 1, 3])
def test_a_long_certificate_chain_passes_the_limit_on_unproved_addresses(cluster: Cluster, chain: int) -> None:
    identity = cluster.identity("risk-1")
    pair = Pair(
        cluster, "aioquic dials qh3", listener=replace(identity, certificate_chain=(identity.certificate,) * chain)
    )
    pair.exchange()
    assert named(pair.client, "HandshakeCompleted") and named(pair.server, "HandshakeCompleted")


def test_the_library_alone_gives_up_on_large_handshake_frames(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why handshake data goes in pieces. If this fails the pieces may grow."""
    monkeypatch.setattr("protocol.quic.qh3_tls.CRYPTO_PIECE_BYTES", 100_000)
    with pytest.raises(Exception, match="capacity exhausted"):
        Pair(cluster, "aioquic dials qh3").exchange()
    assert CRYPTO_PIECE_BYTES <= 28


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_large_datagrams_carry_data_unharmed(cluster: Cluster, libraries: str) -> None:
    pair = Pair(cluster, libraries)
    pair.exchange()
    heard(pair.client), heard(pair.server)
    assert pair.client.settle_path(carries=True)
    data = bytes(range(256)) * 1000
    pair.client.send_stream_data(4, data)
    sizes = pair.exchange(40)
    received = b"".join(event.data for event in named(pair.server, "StreamDataReceived"))
    assert received == data
    assert 8000 < max(sizes) <= 16384
    assert not pair.client.has_unsent and pair.server.has_stream(4) and not pair.server.has_stream(8)


@pytest.mark.parametrize("libraries", ["qh3 dials qh3", "qh3 dials aioquic"])
def test_dialler_refuses_before_its_owner_hears_of_it(cluster: Cluster, libraries: str) -> None:
    pair = Pair(cluster, libraries, listener=cluster.identity("risk-2"))
    pair.exchange()
    assert not named(pair.client, "HandshakeCompleted")
    assert pair.client.refusal == "certificate_mismatch" and pair.client.certified is None
    pair.exchange(1)
    assert pair.server.closing is not None and pair.server.closed_by_peer
    assert pair.server.closing.reason_phrase.startswith("certificate_mismatch")


def test_a_listener_of_another_authority_is_refused(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = make_cluster(tmp_path_factory.mktemp("elsewhere"))
    pair = Pair(cluster, listener=replace(elsewhere.identity("risk-1"), agent=cluster.agent("risk-1")))
    pair.exchange()
    assert not named(pair.client, "HandshakeCompleted")
    assert pair.client.closing is not None
    assert pair.client.closing.error_code in {0x100 + 42, 0x100 + 48}


def test_keys_are_renewed_after_a_number_of_packets(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.quic.qh3_connection.PACKETS_PER_KEY", 3)
    pair = Pair(cluster)
    pair.exchange()
    assert isinstance(pair.client, Qh3Connection) and pair.client._core is not None
    before = pair.client._core.send_key_phase
    for number in range(6):
        pair.client.send_stream_data(0, bytes([number]))
        pair.exchange(2)
    pair.client.renew_keys_if_due()
    pair.client.send_stream_data(0, b"under the new key")
    pair.exchange()
    assert pair.client._core.send_key_phase != before
    assert named(pair.server, "StreamDataReceived")[-1].data == b"under the new key"


def test_library_falls_to_small_datagrams_when_its_first_packet_is_not_answered(cluster: Cluster) -> None:
    """Why the size is asked of the core, never of the settings."""
    client = backend_for("qh3", cluster.identity("trader-1"), PROFILES["loopback"]).dial(_nobody)
    client.connect(SERVER_ADDRESS, now=100.0)
    client.datagrams_to_send(100.0)
    assert client.max_datagram_bytes == 16384
    for step in range(1, 100):
        client.handle_timer(100.0 + step * 0.01)
        client.datagrams_to_send(100.0 + step * 0.01)
    assert client.max_datagram_bytes == 1200


def test_an_update_that_is_under_way_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library raises at a second request; ours asks again at the next look."""
    monkeypatch.setattr("protocol.quic.qh3_connection.PACKETS_PER_KEY", 1)
    pair = Pair(cluster)
    pair.exchange()
    assert isinstance(pair.client, Qh3Connection)
    pair.client.renew_keys_if_due()
    pair.client.send_stream_data(0, b"not yet acknowledged")
    assert pair.client.datagrams_to_send(pair.now)
    with pytest.raises(ValueError, match="invalid key phase"):
        pair.client.request_key_update()
    pair.client.renew_keys_if_due()
    assert pair.client.key_updates == 1
    pair.now += 1.0
    pair.exchange()
    pair.client.renew_keys_if_due()
    assert pair.client.key_updates == 2


def test_listener_gives_our_reset_token(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.exchange()
    assert pair.client.reset_token_of_peer == pair.server.host_cid * 2
    assert pair.server.reset_token_of_peer == b""


def test_rubbish_does_not_begin_a_connection(cluster: Cluster) -> None:
    server = backend_for("qh3", cluster.identity("risk-1"), PROFILES["loopback"]).accept(
        bytes(8), _nobody, lambda connection_id: connection_id * 2
    )
    server.receive_datagram(bytes(1500), CLIENT_ADDRESS, 1.0)
    assert not server.begun
    assert server.datagrams_to_send(1.0) == []


def test_no_session_tickets(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.exchange()
    assert isinstance(pair.server, Qh3Connection) and isinstance(pair.server.tls, tls.Context)
    assert pair.server.tls.new_session_ticket_cb is None and pair.server.tls.get_session_ticket_cb is None


def _nobody(certificate: object) -> Agent:
    raise PeerViolation("agent_unknown", "for this test")


def test_the_core_lets_an_acknowledgement_wait_for_a_millisecond(cluster: Cluster) -> None:
    """And we for as long as the profile says; what it can ride on takes it along."""
    pair = calm_pair(cluster)
    pair.client.send_stream_data(4, b"question")
    carry(pair, pair.client, pair.server, CLIENT_ADDRESS)
    core: Any = pair.server._core  # type: ignore[attr-defined]
    assert core.get_timer() == (ACK_TIMER, pytest.approx(pair.now + CORE_ACK_DELAY_S))
    delay_s = PROFILES["loopback"].ack_delay_s
    assert pair.server.get_timer() == pytest.approx(pair.now + delay_s)
    assert pair.server.must_send(pair.now + delay_s / 10) and not pair.server.datagrams_to_send(pair.now + delay_s / 10)
    assert not pair.server.must_send(pair.now + delay_s / 2)
    assert pair.server.must_send(pair.now + delay_s + 1e-6)
    pair.server.send_stream_data(4, b"answer")
    assert pair.server.must_send(pair.now + delay_s / 2)
    pair.now += delay_s / 2
    assert carry(pair, pair.server, pair.client, SERVER_ADDRESS) == 1
    assert pair.client.unsent_bytes(4) == 0


def test_much_is_acknowledged_when_the_core_wants_to(cluster: Cluster) -> None:
    """Whose window is narrow at first: with its second packet."""
    pair = calm_pair(cluster)
    pair.client.send_stream_data(4, bytes(16_384))
    assert carry(pair, pair.client, pair.server, CLIENT_ADDRESS) == 2
    assert pair.server.get_timer() == pytest.approx(pair.now)
    assert pair.server.must_send(pair.now + 1e-6)
    assert carry(pair, pair.server, pair.client, SERVER_ADDRESS) == 1


def calm_pair(cluster: Cluster) -> Pair:
    """With streams, and nothing left to say."""
    pair = Pair(cluster)
    pair.exchange()
    for stream_id in (0, 4):
        pair.client.send_stream_data(stream_id, b"*")
    pair.exchange()
    heard(pair.client), heard(pair.server)
    return pair


def carry(pair: Pair, sender: Connection, receiver: Connection, address: Address) -> int:
    """How many datagrams it took."""
    datagrams = [data for data, _ in sender.datagrams_to_send(pair.now)]
    for data in datagrams:
        receiver.receive_datagram(data, address, pair.now)
    return len(datagrams)
