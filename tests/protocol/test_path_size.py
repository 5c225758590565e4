"""Paths that carry less than the profile says: the probes alone, and endpoints in virtual time behind a small MTU."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from protocol import messages as m
from protocol.batch import Channel
from protocol.errors import PeerViolation
from protocol.path_size import PATH_ECHO, PATH_PROBE, PROBES_MAX, PathSize, Verdict, echo
from protocol.quic.settings import DATAGRAM_BYTES_MIN, PROFILES, Profile
from tests.oracles.clusters import TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import until
from tests.protocol.test_aioquic_contract import CLIENT_ADDRESS
from tests.protocol.test_liveness import HIGH, LOW, Site, Two, virtually
from tests.protocol.test_qh3_contract import Pair, heard, named

LAN, LOOPBACK = PROFILES["lan"], PROFILES["loopback"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("path"))


# --- probes ---


def test_an_echo_ends_the_asking() -> None:
    path = PathSize()
    assert path.probe() == bytes((PATH_PROBE, 1)) and path.verdict() is None
    assert path.probe() == bytes((PATH_PROBE, 2))
    assert path.echoed(echo(bytes((PATH_PROBE, 1)) + bytes(1000))) is Verdict.CARRIES
    assert path.echoed(bytes((PATH_ECHO, 2))) is None and path.probe() is None and path.verdict() is None


def test_silence_is_a_verdict_once_and_a_late_echo_takes_it_back() -> None:
    path, verdicts = PathSize(), []
    for _ in range(3 * PROBES_MAX):
        verdicts.append(path.verdict())
        path.probe()
    assert verdicts.count(Verdict.NARROW) == 1 and verdicts.index(Verdict.NARROW) == PROBES_MAX
    assert path.echoed(bytes((PATH_ECHO, PROBES_MAX))) is Verdict.CARRIES


@pytest.mark.parametrize("data", [b"\x03", b"\x03\x00", b"\x03\x02", b"\x03\xff"])
def test_echoes_of_what_was_never_asked_are_refused(data: bytes) -> None:
    path = PathSize()
    path.probe()
    with pytest.raises(PeerViolation, match="path_echo_malformed"):
        path.echoed(data)


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize("size", [1452, 16384])
def test_a_probe_fills_a_datagram_and_travels_alone(cluster: Cluster, libraries: str, size: int) -> None:
    """Right after the handshake, with control frames and stream data still to be sent."""
    pair = Pair(cluster, libraries, sizes=(size, size))
    pair.exchange(2)
    heard(pair.client), heard(pair.server)
    pair.client.send_stream_data(0, bytes(2000))
    pair.client.send_path_probe(b"\x02\x01")
    sizes = []
    for data, _ in pair.client.datagrams_to_send(pair.now):
        sizes.append(len(data))
        pair.server.receive_datagram(data, CLIENT_ADDRESS, pair.now)
        if named(pair.server, "DatagramFrameReceived"):
            assert sizes[-1] in (size, size - 2)
            break
    else:
        pytest.fail("no probe arrived")
    if libraries.startswith("aioquic"):
        assert max(sizes[:-1]) <= DATAGRAM_BYTES_MIN and sizes[-1] == size


def test_aioquic_sends_no_probe_past_streams_that_wait(cluster: Cluster) -> None:
    """They would ride along in the large datagram, and be lost with it."""
    pair = Pair(cluster, "aioquic dials aioquic")
    pair.exchange()
    pair.client.send_stream_data(0, bytes(1_000_000))
    pair.client.send_path_probe(b"\x02\x01")
    assert max(len(data) for data, _ in pair.client.datagrams_to_send(pair.now)) <= DATAGRAM_BYTES_MIN


# --- endpoints ---


def size(site: Site, other: str) -> int:
    found: int = site.line(other)["liveness"]["max_datagram_bytes"]
    return found


async def talk(two: Two) -> None:
    """300 kB each way, and all of it arrives."""
    parts = [m.StatusReply(number, bytes(30_000)) for number in range(10)]
    for site, index in ((two.low, 1), (two.high, 0)):
        site.heard.messages.clear()
        for part in parts:
            assert site.endpoint.send(index, part, channel=Channel.CONTROL)
    await until(lambda: all(len(site.heard.messages) == len(parts) for site in two.sites), 5)


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize("profile", [LAN, LOOPBACK], ids=lambda profile: profile.name)
def test_a_path_that_carries_it_is_used_at_once(cluster: Cluster, libraries: str, profile: Profile) -> None:
    async def script(two: Two) -> None:
        await asyncio.sleep(0.1)
        for site, other in ((two.low, HIGH), (two.high, LOW)):
            assert size(site, other) == profile.max_datagram_bytes
            assert site.counts(other)["path_probes"] == 1 and not site.counts(other)["path_narrow"]
        await talk(two)

    virtually(cluster, libraries, script, profile)


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize("mtu", [1280, 1422])
def test_a_narrow_path_is_noticed_and_carries_batches_all_the_same(cluster: Cluster, libraries: str, mtu: int) -> None:
    """What a tunnel leaves of an Ethernet. aioquic keeps its connection, qh3 begins a new one."""

    async def script(two: Two) -> None:
        await asyncio.sleep(6)
        assert two.low.endpoint.connected == {1} and two.high.endpoint.connected == {0}
        for site, other in ((two.low, HIGH), (two.high, LOW)):
            assert size(site, other) == DATAGRAM_BYTES_MIN
        await talk(two)
        assert two.low.endpoint.refused == two.high.endpoint.refused == {}

    two = virtually(cluster, libraries, script, LAN, mtu)
    narrow = [site.counts(other)["path_narrow"] for site, other in ((two.low, HIGH), (two.high, LOW))]
    if libraries == "aioquic dials aioquic":
        assert narrow == [1, 1] and two.low.heard.changes == [(HIGH, True)]
    if libraries != "qh3 dials qh3":  # there not even the handshake passes before the dialler asks for less
        assert sum(narrow) >= 1


def test_without_heartbeats_the_profile_is_believed(cluster: Cluster) -> None:
    async def script(two: Two) -> None:
        await talk(two)
        [link] = [link for link in two.low.endpoint._driver._links if link.greeted]
        assert link.connection.max_datagram_bytes == 1452

    virtually(cluster, "aioquic dials aioquic", script, replace(LAN, heartbeat_s=0.0))
