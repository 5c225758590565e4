"""The worse network: what can be asked for, that the seed decides, and what real endpoints make of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol import messages as m
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.errors import UsageError
from protocol.quic.chaos import QUEUE_S, ChaosPort, Impairment, Network, parse_network
from protocol.quic.port import UdpPort
from tests.oracles.clusters import Cluster, make_cluster
from tests.oracles.strangers import Recorder, until

HERE, THERE = ("127.0.0.1", 1), ("127.0.0.1", 2)
MANY = 20_000


def impair(network: Network, seed: int = 1) -> list[list[tuple[float, bytes]]]:
    """Fates of ``MANY`` datagrams of 100 bytes, one a millisecond."""
    impairment = Impairment(network, random.Random(seed))
    return [impairment.impair(numbered(number), THERE, number * 0.001) for number in range(MANY)]


def numbered(number: int) -> bytes:
    return number.to_bytes(4, "big") + bytes(96)


# --- the specification ---


def test_everything_can_be_written_down() -> None:
    text = "rtt=4ms,jitter=500us,loss=0.1%,duplicate=2%,reorder=1%,corrupt=0.01%,bandwidth=100mbit,mtu=1400"
    expected = Network(0.004, 0.0005, 0.001, 0.02, 0.01, 0.0001, 1e8, 1400)
    parsed = parse_network(text)
    for name in Network.__dataclass_fields__:
        assert getattr(parsed, name) == pytest.approx(getattr(expected, name))
    assert parse_network("rtt=0ms") == Network()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is unknown"),
        ("rtt", "rtt= is no quantity"),
        ("latency=4ms", "'latency' is unknown; use rtt, jitter"),
        ("rtt=4", "give a number in us, ms, s"),
        ("rtt=-4ms", "is no quantity"),
        ("rtt=4%", "is no quantity"),
        ("rtt=61s", "longer than any network"),
        ("loss=101%", "more than all datagrams"),
        ("loss=nan%", "is no quantity"),
        ("rtt=1ms,rtt=2ms", "stands there twice"),
        ("bandwidth=0mbit", "would carry nothing"),
        ("bandwidth=1e9mbit", "is no quantity"),
        ("mtu=1400b", "give a number in bytes"),
        ("mtu", "give a number in bytes"),
        ("mtu=1199", "carries no QUIC; give 1200 or more"),
    ],
)
def test_bad_specifications_are_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"network '") as caught:
        parse_network(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


# --- the fate of datagrams ---


def test_a_seed_is_a_fate() -> None:
    network = parse_network("rtt=4ms,jitter=1ms,loss=1%,duplicate=1%,reorder=1%,corrupt=1%,bandwidth=10mbit")
    assert impair(network, 1) == impair(network, 1)
    assert impair(network, 1) != impair(network, 2)


def test_a_good_network_changes_nothing() -> None:
    fates = impair(Network())
    assert all(fate == [(number * 0.001, numbered(number))] for number, fate in enumerate(fates))


@pytest.mark.parametrize(
    ("field", "count"),
    [("loss", lambda fate: not fate), ("duplicate", lambda fate: len(fate) == 2)],
)
def test_shares_are_shares(field: str, count: Any) -> None:
    fates = impair(Network(**{field: 0.05}))
    assert sum(map(count, fates)) / MANY == pytest.approx(0.05, rel=0.2)


def test_delays_lie_between_half_a_round_trip_and_the_jitter_more() -> None:
    delays = [at - number * 0.001 for number, [(at, _)] in enumerate(impair(Network(rtt=0.01, jitter=0.002)))]
    assert min(delays) >= 0.005 - 1e-9 and max(delays) <= 0.007 + 1e-9
    assert sum(delays) / MANY == pytest.approx(0.006, rel=0.02)


def test_reordered_datagrams_are_overtaken() -> None:
    arrivals = [at for [(at, _)] in impair(Network(rtt=0.004, reorder=0.02))]
    overtaken = sum(late > early for late, early in itertools.pairwise(arrivals))
    assert overtaken / MANY == pytest.approx(0.02, rel=0.3)


def test_damage_is_one_bit() -> None:
    damaged = 0
    for number, [(_, data)] in enumerate(impair(Network(corrupt=0.1))):
        difference = int.from_bytes(data, "big") ^ int.from_bytes(numbered(number), "big")
        assert difference.bit_count() <= 1
        damaged += difference.bit_count()
    assert damaged / MANY == pytest.approx(0.1, rel=0.2)


def test_a_narrow_line_carries_its_rate_and_its_queue_is_bounded() -> None:
    """Twice as much as fits: half of it is dropped, and what passes has waited ``QUEUE_S`` at most."""
    rate = 100 * 8 / 0.001 / 2
    fates = impair(Network(bandwidth=rate))
    arrived = [(number * 0.001, at) for number, fate in enumerate(fates) for at, _ in fate]
    assert len(arrived) / MANY == pytest.approx(0.5, abs=0.03)
    assert max(at - sent for sent, at in arrived) <= QUEUE_S + 0.003
    assert [at for _, at in arrived] == sorted(at for _, at in arrived)


def test_what_is_larger_than_the_path_takes_is_dropped() -> None:
    impairment = Impairment(parse_network("mtu=1300"), random.Random(1))
    assert impairment.impair(bytes(1300), THERE, 0.0) == [(0.0, bytes(1300))]
    assert impairment.impair(bytes(1301), THERE, 0.0) == []
    assert impairment.counters == {"too_large": 1}


def test_a_cut_is_one_way_and_for_one_address() -> None:
    impairment = Impairment(Network(), random.Random(1))
    impairment.cut = frozenset({THERE})
    assert impairment.impair(b"x", THERE, 0.0) == []
    assert impairment.impair(b"x", HERE, 0.0) == [(0.0, b"x")]
    impairment.cut = frozenset()
    assert impairment.impair(b"x", THERE, 0.0) == [(0.0, b"x")]
    assert impairment.counters == {"cut": 1}


# --- real endpoints behind it ---


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("chaos"))


class Site:
    """An endpoint behind an impairment of its own."""

    def __init__(self, cluster: Cluster, agent_id: str, network: Network, transport: str) -> None:
        self.heard = Recorder()
        self.impairment = Impairment(network, random.Random(agent_id))
        self.cut: set[tuple[str, int]] = set()
        self.endpoint = Endpoint(
            cluster.identity(agent_id),
            cluster.roster,
            codec_for("capnp"),
            on_message=self.heard.on_message,
            on_peer_change=self.heard.on_peer_change,
            rng=random.Random(7),
            transport=transport,
            port=ChaosPort(UdpPort(), self.impairment, time.monotonic, lambda: self.cut),
        )


@pytest.fixture(params=["aioquic", "qh3"])
async def sites(issued: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    running: list[Site] = []

    async def begin(network: str) -> tuple[Site, Site]:
        cluster = issued.moved()
        for agent_id in ("trader-1", "risk-1"):
            site = Site(cluster, agent_id, parse_network(network), request.param)
            await site.endpoint.start()
            running.append(site)
        await until(lambda: running[0].endpoint.connected == {1} and running[1].endpoint.connected == {0}, 10)
        return running[0], running[1]

    yield begin
    await asyncio.gather(*(site.endpoint.close() for site in running))


async def test_messages_arrive_whole_once_and_in_order_whatever_happens_to_datagrams(sites: Any) -> None:
    low, high = await sites("rtt=4ms,jitter=4ms,loss=5%,duplicate=5%,reorder=10%,corrupt=10%")
    for number in range(400):
        assert low.endpoint.send(1, m.Commit(0, number, bytes(32), 0, bytes(64)), channel=Channel(1 + number % 3))
        if number % 2:
            await asyncio.sleep(0.001)
    await until(lambda: len(high.heard.messages) == 400, 20)
    for channel in range(3):
        numbers = [message.sequence for _, _, message in high.heard.messages if message.sequence % 3 == channel]
        assert numbers == list(range(channel, 400, 3))
    fates = low.endpoint.statistics()["socket"]
    assert all(fates[f"chaos_{fate}"] > 0 for fate in ("lost", "duplicated", "reordered", "corrupted"))
    assert high.endpoint.refused == {}


async def test_a_round_trip_takes_as_long_as_was_asked(sites: Any) -> None:
    low, high = await sites("rtt=40ms")
    high.heard.handler = lambda peer, trace, message: peer.send(m.Commit(1, 1, bytes(32), 0, bytes(64)))
    began = time.monotonic()
    low.endpoint.send(1, m.Commit(0, 1, bytes(32), 0, bytes(64)))
    await until(lambda: bool(low.heard.messages))
    assert 0.04 <= time.monotonic() - began < 0.2


@pytest.mark.parametrize("deaf", [0, 1])
async def test_a_one_way_cut_is_noticed_by_both_and_heals(
    sites: Any, monkeypatch: pytest.MonkeyPatch, deaf: int
) -> None:
    monkeypatch.setattr("protocol.quic.connection.IDLE_TIMEOUT_S", 1.0)
    monkeypatch.setattr("protocol.quic.qh3_connection.IDLE_TIMEOUT_S", 1.0)
    monkeypatch.setattr("protocol.quic.driver.KEEP_ALIVE_S", 0.3)
    pair = await sites("rtt=0ms")
    speaker, listener = pair[1 - deaf], pair[deaf]
    speaker.cut.add(listener.endpoint._driver.local_address)
    await until(lambda: not pair[0].endpoint.connected and not pair[1].endpoint.connected, 10)
    assert speaker.impairment.counters["cut"] > 0 and not listener.impairment.counters["cut"]
    speaker.cut.clear()
    await until(lambda: pair[0].endpoint.connected == {1} and pair[1].endpoint.connected == {0}, 10)
    assert pair[0].endpoint.send(1, m.Commit(0, 9, bytes(32), 0, bytes(64)))
    await until(lambda: len(pair[1].heard.messages) == 1)
