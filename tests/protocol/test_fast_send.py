"""The short way of sending against the library's: the same frames in the same packets, and the same books afterwards.

Two pairs of connections live through the same script under the same clock, one with the short way and one without.
What differs by chance (keys, connection ids) is left out: headers and payloads are compared before encryption.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from aioquic import tls

from protocol.quic.connection import SwarmConnection
from protocol.quic.settings import FLOW_WINDOW_BYTES, PROFILES
from tests.oracles.clusters import Cluster, make_cluster
from tests.protocol.test_aioquic_contract import CLIENT_ADDRESS, SERVER_ADDRESS, Pair, received

STREAMS = (0, 4, 8, 12)
STEPS = 400
WINDOW_BYTES = 300_000
"""The handshake leaves a window that depends on the length of signatures, which varies."""

Packet = tuple[int, int, bytes]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(Path(tmp_path_factory.mktemp("fast")))


class Recorded:
    """An established pair whose packets are written down before they are encrypted. ``short`` allows the short way."""

    def __init__(self, cluster: Cluster, short: bool) -> None:
        self.pair = Pair(cluster)
        self.pair.open_streams()
        self.packets: list[Packet] = []
        self.short_packets = 0
        self.heard: list[tuple[int, bytes]] = []
        for end in self.ends:
            end._loss._cc.congestion_window = WINDOW_BYTES
            self._record(end)
            self._count(end) if short else self._forbid(end)

    @property
    def ends(self) -> tuple[SwarmConnection, SwarmConnection]:
        return self.pair.client, self.pair.server

    def _record(self, end: Any) -> None:
        crypto = end._cryptos[tls.Epoch.ONE_RTT]
        encrypt = crypto.encrypt_packet

        def encrypt_packet(header: bytes, payload: bytes, number: int) -> Any:
            self.packets.append((number, header[0], payload))
            return encrypt(header, payload, number)

        crypto.encrypt_packet = encrypt_packet

    def _count(self, end: Any) -> None:
        usual = end.usual_datagram

        def usual_datagram(now: float) -> Any:
            found = usual(now)
            self.short_packets += found is not None
            return found

        end.usual_datagram = usual_datagram

    @staticmethod
    def _forbid(end: Any) -> None:
        end.usual_datagram = lambda now: None

    def live(self, seed: int, steps: int = STEPS) -> None:
        """Writes of all sizes, pings, loss, late timers and new keys, in an order that the seed decides."""
        rng = random.Random(seed)
        for _ in range(steps):
            sender, receiver = self.ends if rng.random() < 0.5 else self.ends[::-1]
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                sender.send_stream_data(rng.choice(STREAMS), rng.randbytes(rng.choice((1, 200, 200, 4096, 40_000))))
            if rng.random() < 0.05:
                sender.send_ping(0)
            if rng.random() < 0.01:
                sender.request_key_update()
            self._carry(sender, receiver, lost=rng.random() < 0.1)
            self.pair.now += rng.choice((0.0001, 0.001, 0.006))
            for end in self.ends:
                timer = end.get_timer()
                if timer is not None and timer <= self.pair.now:
                    end.handle_timer(self.pair.now)

    def _carry(self, sender: SwarmConnection, receiver: SwarmConnection, lost: bool) -> None:
        address = CLIENT_ADDRESS if sender is self.pair.client else SERVER_ADDRESS
        for data, _ in sender.datagrams_to_send(self.pair.now):
            if not lost:
                receiver.receive_datagram(data, address, self.pair.now)
        self.heard += received(receiver)

    def books(self) -> list[Any]:
        return [_books(end) for end in self.ends]


def _books(end: Any) -> dict[str, Any]:
    space = end._spaces[tls.Epoch.ONE_RTT]
    return {
        "next packet": end._packet_number,
        "sent": {
            number: (p.sent_time, p.sent_bytes, p.in_flight, p.is_ack_eliciting, p.is_crypto_packet, p.packet_type)
            for number, p in space.sent_packets.items()
        },
        "in flight": (end._loss.bytes_in_flight, space.ack_eliciting_in_flight),
        "credit used": end._remote_max_data_used,
        "acknowledgement due": space.ack_at,
        "bytes sent": end._network_paths[0].bytes_sent - end._bytes_sent_before,
        "timers": (end.get_timer(), end._close_at, end._pacing_at),
        "streams": [
            (s.stream_id, s.sender.highest_offset, s.sender.buffer_is_empty, list(s.sender._pending), s.sender._buffer)
            for s in sorted(end._streams.values(), key=lambda stream: stream.stream_id)
        ],
    }


def both(cluster: Cluster) -> tuple[Recorded, Recorded]:
    found = Recorded(cluster, short=True), Recorded(cluster, short=False)
    for recorded in found:
        for end in recorded.ends:
            end._bytes_sent_before = end._network_paths[0].bytes_sent  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_same_packets_and_same_books(cluster: Cluster, seed: int) -> None:
    short, long = both(cluster)
    short.live(seed)
    long.live(seed)
    assert all(end.closing is None for end in short.ends) and short.short_packets > STEPS / 8
    assert short.packets == long.packets
    assert short.books() == long.books()
    assert short.heard == long.heard


def test_usual_message_goes_the_short_way(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client, server = short.ends
    for _ in range(10):
        client.send_stream_data(4, b"question")
        short._carry(client, server, lost=False)
        server.send_stream_data(4, b"answer")
        short._carry(server, client, lost=False)
    assert short.short_packets == 20
    assert short.heard == [(4, b"question"), (4, b"answer")] * 10


def test_short_way_respects_the_peers_credit(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client._remote_max_data = client._remote_max_data_used + 3
    client.send_stream_data(4, b"four")
    assert client.usual_datagram(short.pair.now) is None
    client._remote_max_data += 1
    assert client.usual_datagram(short.pair.now) is not None
    client._streams[4].max_stream_data_remote = client._streams[4].sender.highest_offset + 3
    client.send_stream_data(4, b"four")
    assert client.usual_datagram(short.pair.now) is None


def test_short_way_announces_credit_by_the_long_one(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client.send_stream_data(4, b"x")
    client._streams[8].receiver.highest_offset = FLOW_WINDOW_BYTES // 2 + 1
    assert client.usual_datagram(short.pair.now) is None


def test_full_congestion_window_is_left_to_the_library(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client._loss._cc.congestion_window = 10
    client.send_stream_data(4, b"four")
    assert client.usual_datagram(short.pair.now) is None


def test_paced_profiles_use_the_library_alone(cluster: Cluster) -> None:
    pair = Pair(cluster, profile=PROFILES["wan"])
    pair.open_streams()
    pair.client.usual_datagram = pytest.fail  # type: ignore[assignment]
    pair.client.send_stream_data(4, b"x")
    assert pair.to_server()
    assert received(pair.server) == [(4, b"x")]
