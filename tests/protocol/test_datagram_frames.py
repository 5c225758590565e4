"""DATAGRAM frames on both libraries: sent once, never too large, few that wait, none where the peer offers none."""

from __future__ import annotations

import asyncio

import pytest

from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.errors import LocalMisuse
from protocol.quic.backend import Connection, check_datagram, datagram_room
from protocol.quic.link import Link
from protocol.quic.settings import DATAGRAM_FRAME_OVERHEAD_BYTES, DATAGRAMS_WAITING_MAX
from tests.oracles.clusters import TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import Recorder, Stranger, until
from tests.protocol.test_qh3_contract import CLIENT_ADDRESS, Pair, heard, named


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("datagrams"))


def established(cluster: Cluster, libraries: str, size: int = 1200) -> Pair:
    pair = Pair(cluster, libraries, sizes=(size, size))
    pair.exchange()
    heard(pair.client), heard(pair.server)
    assert pair.client.settle_path(carries=True) and pair.server.settle_path(carries=True)
    return pair


def arrived(connection: Connection) -> list[bytes]:
    return [event.data for event in named(connection, "DatagramFrameReceived")]


def fill_window(pair: Pair) -> None:
    """Stream data without an answer, until no more leaves."""
    pair.client.send_stream_data(0, bytes(1_000_000))
    while pair.client.datagrams_to_send(pair.now):
        pass


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize("size", [1200, 1452, 16384])
def test_every_size_that_is_allowed_arrives_both_ways(cluster: Cluster, libraries: str, size: int) -> None:
    pair = established(cluster, libraries, size)
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        room = sender.datagram_payload_bytes_max
        assert room == size - DATAGRAM_FRAME_OVERHEAD_BYTES
        for length in (0, 1, 100, room - 1, room):
            sender.send_datagram(bytes(length))
            assert max(pair.exchange(2), default=0) <= size
            assert arrived(receiver) == [bytes(length)]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_one_that_is_too_large_is_our_own_mistake_and_blocks_nothing(cluster: Cluster, libraries: str) -> None:
    pair = established(cluster, libraries)
    with pytest.raises(LocalMisuse, match="1161 bytes, where 1160 have room"):
        pair.client.send_datagram(bytes(1161))
    pair.client.send_datagram(b"small")
    pair.exchange(2)
    assert arrived(pair.server) == [b"small"]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_largest_leaves_whatever_there_is_to_acknowledge(cluster: Cluster, libraries: str) -> None:
    """Every second packet of the peer is missing, so that the acknowledgement has many ranges."""
    pair = established(cluster, libraries)
    pair.client.send_stream_data(0, b"x")
    pair.exchange(2)
    for number in range(80):
        pair.server.send_stream_data(0, b"y" * 10)
        for data, _ in pair.server.datagrams_to_send(pair.now):
            if number % 2:
                pair.client.receive_datagram(data, ("127.0.0.1", 2), pair.now)
    pair.client.send_datagram(bytes(pair.client.datagram_payload_bytes_max))
    for data, _ in pair.client.datagrams_to_send(pair.now + 0.03):
        pair.server.receive_datagram(data, CLIENT_ADDRESS, pair.now + 0.03)
    assert arrived(pair.server) == [bytes(1160)]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_those_that_wait_for_a_window_are_few_and_the_newest(cluster: Cluster, libraries: str) -> None:
    pair = established(cluster, libraries)
    fill_window(pair)
    count = 3 * DATAGRAMS_WAITING_MAX
    for number in range(count):
        pair.client.send_datagram(bytes([number]) * 1000)
        assert pair.client.datagrams_to_send(pair.now) == []
    assert pair.client.datagrams_overtaken == count - DATAGRAMS_WAITING_MAX
    pair.now += 3.0
    pair.exchange(100)
    numbers = [data[0] for data in arrived(pair.server)]
    assert numbers == list(range(count - DATAGRAMS_WAITING_MAX, count))


@pytest.mark.parametrize("library", ["aioquic", "qh3"])
@pytest.mark.parametrize("deaf", [0, 1])
def test_a_peer_that_offers_none_is_sent_none(
    cluster: Cluster, library: str, deaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aioquic without the setting, as in a release that does not know datagrams, against either library."""
    libraries = (f"{library} dials aioquic", f"aioquic dials {library}")[deaf]
    monkeypatch.setattr("protocol.quic.connection.DATAGRAM_FRAME_BYTES_MAX", None)
    pair = established(cluster, libraries)
    hearing, silent = (pair.client, pair.server) if deaf == 0 else (pair.server, pair.client)
    assert hearing.datagram_payload_bytes_max == 0
    with pytest.raises(LocalMisuse):
        hearing.send_datagram(b"x")
    hearing.send_stream_data(0, b"*") if deaf == 0 else silent.send_stream_data(0, b"*")
    pair.exchange(4)
    assert hearing.closing is None and silent.closing is None


def test_room_is_the_smaller_of_ours_and_theirs() -> None:
    assert datagram_room(1200, None) == 0
    assert datagram_room(1200, 0) == 0
    assert datagram_room(1200, 3) == 0
    assert datagram_room(1200, 105) == 100
    assert datagram_room(1200, 65536) == 1160
    check_datagram(bytes(5), 5)
    with pytest.raises(LocalMisuse):
        check_datagram(bytes(6), 5)


# --- between endpoints ---


class Meeting:
    """A listener, and a stranger that dials it."""

    def __init__(self, cluster: Cluster, transport: str) -> None:
        moved, recorder = cluster.moved(), Recorder()
        self.target = moved.agent("risk-1")
        self.stranger = Stranger(moved.identity("trader-1"), moved.roster, transport=transport)
        self.listener = Endpoint(
            moved.identity("risk-1"),
            moved.roster,
            codec_for("capnp"),
            on_message=recorder.on_message,
            on_peer_change=recorder.on_peer_change,
            transport=transport,
        )

    async def __aenter__(self) -> Meeting:
        await self.listener.start()
        await self.stranger.connect(self.target)
        await asyncio.wait_for(self.stranger.established.wait(), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stranger.stop()
        await self.listener.close()

    @property
    def link(self) -> Link:
        assert self.stranger.link is not None
        return self.stranger.link

    def counted(self) -> dict[str, int]:
        counts: dict[str, int] = self.listener.statistics()["peers"]["trader-1"]["datagrams"]
        return counts


@pytest.mark.parametrize("transport", ["aioquic", "qh3"])
async def test_a_datagram_before_the_greeting_ends_the_connection(cluster: Cluster, transport: str) -> None:
    async with Meeting(cluster, transport) as meeting:
        assert meeting.link.send_datagram(b"early")
        assert (await meeting.stranger.ending()).reason == "before_greeting"


@pytest.mark.parametrize("transport", ["aioquic", "qh3"])
async def test_an_unknown_kind_of_datagram_is_counted_and_nothing_more(cluster: Cluster, transport: str) -> None:
    async with Meeting(cluster, transport) as meeting:
        await meeting.stranger.greet()
        await meeting.stranger.answer()
        for data in (b"", b"\xff", b"\xff" * 1000):
            assert meeting.link.send_datagram(data)
        assert not meeting.link.send_datagram(bytes(20_000)), "larger than the profile's datagrams"
        await until(lambda: meeting.counted().get("unknown") == 3)
        assert meeting.listener.connected == {0}
