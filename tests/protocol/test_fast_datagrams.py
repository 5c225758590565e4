"""The short ways of sending and receiving against the library: the same packets, and the same books afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketNumberWindow

from protocol.quic.settings import FLOW_WINDOW_BYTES, PROFILES
from tests.oracles.clusters import Cluster, make_cluster
from tests.oracles.recorded_pair import DATAGRAM, STEPS, both, forged
from tests.protocol.test_aioquic_contract import CLIENT_ADDRESS, Pair, received


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(Path(tmp_path_factory.mktemp("fast")))


@pytest.mark.parametrize("seed", range(6))
def test_same_packets_and_same_books(cluster: Cluster, seed: int) -> None:
    short, long = both(cluster)
    short.live(seed)
    long.live(seed)
    assert all(end.closing is None for end in short.ends)
    assert short.short_packets > STEPS / 8 and short.short_receipts > STEPS / 8
    assert short.packets == long.packets and any(stream == DATAGRAM for stream, _ in short.heard)
    assert short.books() == long.books()
    assert short.heard == long.heard


def test_usual_message_goes_the_short_way(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client, server = short.ends
    for _ in range(10):
        client.send_stream_data(4, b"question")
        short.carry(client, server)
        server.send_stream_data(4, b"answer")
        short.carry(server, client)
    assert short.short_packets == 20
    assert short.heard == [(4, b"question"), (4, b"answer")] * 10


def test_a_message_of_several_datagrams_goes_the_short_way_too(cluster: Cluster) -> None:
    """Cut where the library cuts it; what no longer fits the congestion window is the library's."""
    short, long = both(cluster)
    for recorded in (short, long):
        client, server = recorded.ends
        for size in (16_300, 16_340, 16_384, 40_000, 65_000):
            client.send_stream_data(8, bytes(size))
            recorded.carry(client, server)
            server.send_stream_data(8, b"taken")
            recorded.carry(server, client)
    taken = short.short_packets
    assert taken == len(short.packets) > 15
    for recorded in (short, long):
        client, server = recorded.ends
        client.send_stream_data(8, bytes(2 * client._loss.congestion_window))
        recorded.carry(client, server)
    assert short.short_packets == taken
    assert short.packets == long.packets and short.books() == long.books() and short.heard == long.heard


def test_short_way_respects_the_peers_credit(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client._disturb()
    client._remote_max_data = client._remote_max_data_used + 3
    client.send_stream_data(4, b"four")
    assert client.usual_datagrams(short.pair.now) is None
    client._disturb()
    client._remote_max_data += 1
    assert client.usual_datagrams(short.pair.now) is not None
    client._disturb()
    client._streams[4].max_stream_data_remote = client._streams[4].sender.highest_offset + 3
    client.send_stream_data(4, b"four")
    assert client.usual_datagrams(short.pair.now) is None


def test_short_way_announces_credit_by_the_long_one(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client.send_stream_data(4, b"x")
    client._disturb()
    client._streams[8].receiver.highest_offset = FLOW_WINDOW_BYTES // 2 + 1
    assert client.usual_datagrams(short.pair.now) is None


def test_windows_open_in_time_on_a_calm_connection(cluster: Cluster) -> None:
    """More than both windows hold, in order and without a loss: nothing but what has come says that they must open."""
    short, long = both(cluster)
    chunk = 60_000
    for recorded in (short, long):
        client, server = recorded.ends
        for end in (client, server):
            end._loss._cc.congestion_window = 10 * chunk
        for _ in range(2 * FLOW_WINDOW_BYTES // chunk):
            client.send_stream_data(8, bytes(chunk))
            recorded.carry(client, server)
            server.send_stream_data(8, b"taken")
            recorded.carry(server, client)
            recorded.pair.now += 0.001
    assert sum(len(data) for _, data in short.heard) > 1.9 * FLOW_WINDOW_BYTES
    assert short.short_packets > 0.9 * len(short.packets)
    assert short.packets == long.packets and short.books() == long.books() and short.heard == long.heard


def test_whoever_asks_for_another_frame_gets_it_with_the_next_datagram(cluster: Cluster) -> None:
    asks: list[Callable[[Any], None]] = [
        lambda client: client.send_ping(0),
        lambda client: client.request_key_update(),
        lambda client: client.change_connection_id(),
        lambda client: client.stop_stream(8, 0),
        lambda client: client.reset_stream(12, 0),
        lambda client: client.close(),
    ]
    for ask in asks:
        short, _ = both(cluster)
        client: Any = short.pair.client
        client.send_stream_data(4, b"usual")
        assert client.usual_datagrams(short.pair.now) is not None, "calm"
        ask(client)
        client.send_stream_data(4, b"usual")
        assert client.usual_datagrams(short.pair.now) is None
        short.carry(client, short.pair.server)
        client.datagrams_to_send(short.pair.now)


def test_the_lists_that_are_written_are_the_librarys_own() -> None:
    ranges = RangeSet([range(3, 5)])
    getattr(ranges, "_RangeSet__ranges").append(range(7, 9))  # noqa: B009 - mangled
    assert list(ranges) == [range(3, 5), range(7, 9)]
    window = QuicPacketNumberWindow()
    window._received.add(1)
    assert 1 in window and (window._lower, window._size) == (0, 2 * MAX_ACK_RANGES)


@pytest.mark.parametrize("way", [0, 1], ids=["short", "long"])
def test_much_is_acknowledged_without_delay(cluster: Cluster, way: int) -> None:
    """A single message waits for data that its acknowledgement can ride on, four full datagrams do not."""
    recorded = both(cluster)[way]
    client, server = recorded.ends
    client.send_stream_data(8, bytes(200))
    recorded.carry(client, server)
    assert not server.must_send(recorded.pair.now) and server.datagrams_to_send(recorded.pair.now) == []
    client.send_stream_data(8, bytes(client._acknowledge_every))
    recorded.carry(client, server)
    assert server.must_send(recorded.pair.now)
    recorded.carry(server, client)
    assert client.unsent_bytes(8) == 0 and not server.must_send(recorded.pair.now)
    client.send_stream_data(8, bytes(client._acknowledge_every - 1))
    recorded.carry(client, server)
    assert not server.must_send(recorded.pair.now)


def test_an_acknowledgement_that_is_due_leaves_the_short_way(cluster: Cluster) -> None:
    """The timer for what may be lost, and the one for silence, are the library's."""
    short, long = both(cluster)
    for recorded in (short, long):
        client, server = recorded.ends
        client.send_stream_data(4, b"question")
        recorded.carry(client, server)
        due = server.get_timer()
        assert due == pytest.approx(recorded.pair.now + server._ack_delay)
        recorded.pair.now = due
        server.handle_timer(due)
        recorded.carry(server, client)
        assert client.unsent_bytes(4) == 0
        client.send_stream_data(4, b"lost")
        client.datagrams_to_send(recorded.pair.now)
        recorded.pair.now = client.get_timer() or 0.0
        client.handle_timer(recorded.pair.now)
        recorded.carry(client, server)
    assert short.short_packets == 3 and short.short_receipts == 2
    assert short.packets == long.packets and len(short.packets) == 4
    assert short.books() == long.books() and short.heard == long.heard == [(4, b"question"), (4, b"lost")]


def test_the_timer_of_an_acknowledgement_leaves_a_connection_calm(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client, server = short.ends
    client.send_stream_data(4, b"question")
    short.carry(client, server)
    calm = server._calm
    assert calm is not None and calm.holds
    server.handle_timer(short.pair.now + server._ack_delay)
    assert calm.holds
    server.handle_timer(calm.close_at)
    assert not calm.holds and server.closing is not None


def test_a_full_window_sends_nothing_but_acknowledgements(cluster: Cluster) -> None:
    short, long = both(cluster)
    for recorded in (short, long):
        client, server = recorded.ends
        client._disturb()
        client._loss._cc.congestion_window = 1
        client.send_stream_data(4, b"in flight")
        client._loss._cc.bytes_in_flight += 1
        assert client.datagrams_to_send(recorded.pair.now) == []
        server.send_stream_data(4, b"hello")
        recorded.carry(server, client)
        recorded.carry(client, server)
        assert server.unsent_bytes(4) == 0 and client.unsent_bytes(4) == 9
    assert short.packets == long.packets and len(short.packets) == 2


def test_a_narrow_congestion_window_is_left_to_the_library(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client: Any = short.pair.client
    client._loss._cc.congestion_window = 10
    client.send_stream_data(4, b"four")
    assert client.usual_datagrams(short.pair.now) is None


def test_a_datagram_frame_is_left_to_the_library_and_leaves_before_streams(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client, server = short.ends
    client.send_stream_data(4, b"four")
    client.send_datagram(b"beat")
    assert client.usual_datagrams(short.pair.now) is None
    short.carry(client, server)
    assert short.heard == [(DATAGRAM, b"beat"), (4, b"four")] and len(short.packets) == 1
    client.send_stream_data(4, b"five")
    assert client.usual_datagrams(short.pair.now) is not None


def test_paced_profiles_use_the_library_alone(cluster: Cluster) -> None:
    pair = Pair(cluster, profile=PROFILES["wan"])
    pair.open_streams()
    assert pair.client._calm is None and pair.server._calm is None
    pair.client.send_stream_data(4, b"x")
    assert pair.to_server()
    assert received(pair.server) == [(4, b"x")]


def payloads(rng: random.Random, server: Any) -> Iterator[bytes]:
    """What an authenticated peer may put into a packet: lawful frames for the most part, near misses, and rubbish."""

    def one_of(lawful: int, *others: int) -> int:
        return rng.choice(others) if rng.random() < 0.04 else lawful

    while True:
        number, size = rng.choice((0, 4, 8, 12)), rng.choice((1, 5, 60, 300))
        offset = server._streams[number].receiver._buffer_start
        kind = one_of(0x0E, 0x08, 0x0A, 0x0C, 0x0F)
        start = one_of(offset, offset + 1, max(offset - 1, 0), 0, 2**40)
        stream_id, claimed = one_of(number, 16, 1, 3), one_of(size, size + 1, 0)
        frame = bytes([kind]) + b"".join(map(encode_uint_var, (stream_id, start, claimed))) + rng.randbytes(size)
        highest = one_of(server._packet_number - 1, 2**30, 0)
        ranges = (highest, one_of(0, 900), one_of(0, 1), one_of(0, 3, 31), 0, 0)
        ack = b"\x02" + b"".join(map(encode_uint_var, ranges[: one_of(4, 3, 6)]))
        found = rng.choice((frame, frame, ack, ack + frame, frame + ack, ack + ack, frame + frame, frame + b"\0"))
        if rng.random() < 0.1:
            spoiled = bytearray(found)
            spoiled[rng.randrange(len(found))] = rng.randrange(256)
            found = bytes(spoiled)
        yield found[: one_of(len(found), max(len(found) - 2, 1))].ljust(2, b"\x01")


@pytest.mark.parametrize("seed", range(4))
def test_a_forged_payload_is_taken_or_refused_alike(cluster: Cluster, seed: int) -> None:
    """By the same refusal, the same events, and the same books until then."""
    rng, refusals, receipts = random.Random(seed), Counter[tuple[int, int | None] | None](), 0
    for _ in range(50):
        pairs = both(cluster)
        for payload in islice(payloads(rng, pairs[0].ends[1]), 12):
            for recorded in pairs:
                client, server = recorded.ends
                server.receive_datagram(forged(client, payload), CLIENT_ADDRESS, recorded.pair.now)
            short, long = (recorded.ends[1] for recorded in pairs)
            assert received(short) == received(long)
            assert _ending(short) == _ending(long)
            assert pairs[0].books()[1] == pairs[1].books()[1]
            refusals[_ending(short)] += 1
            if short.closing is not None:
                break
        receipts += pairs[0].short_receipts
    assert receipts > 30 and len(refusals) > 3


def _ending(end: Any) -> tuple[int, int | None] | None:
    return None if end.closing is None else (end.closing.error_code, end.closing.frame_type)


def test_unusual_datagrams_are_left_to_the_library(cluster: Cluster) -> None:
    short, _ = both(cluster)
    client, server = short.ends
    client.send_stream_data(4, b"usual")
    [(data, _)] = client.datagrams_to_send(short.pair.now)
    before = short.books()
    spoiled = bytearray(data)
    spoiled[-1] ^= 1
    for other in (b"", data[:20], bytes(spoiled), b"\xc0" + data[1:], data[:1] + bytes(8) + data[9:]):
        assert not server.receive_usual(other, CLIENT_ADDRESS, short.pair.now)
    assert not server.receive_usual(data, ("127.0.0.1", 9), short.pair.now), "a path that is not validated"
    assert short.books() == before
    assert server.receive_usual(data, CLIENT_ADDRESS, short.pair.now)
    assert not server.receive_usual(data, CLIENT_ADDRESS, short.pair.now), "the same packet again"
