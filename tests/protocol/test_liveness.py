"""Heartbeats between real endpoints, in virtual time: who is heard, suspected and trusted again, and what it costs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from protocol import messages as m
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.quic.chaos import ChaosPort, Impairment, Network
from protocol.quic.settings import HEARTBEAT_S, IDLE_TIMEOUT_S, PROFILES, Profile
from protocol.roster import Agent
from tests.oracles.clusters import TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import Recorder, Stranger, until
from tests.oracles.virtual_network import MemoryNetwork, MemoryPort, VirtualLoop, run_virtually

LOW, HIGH = "trader-1", "risk-1"
LOOPBACK = PROFILES["loopback"]
DRIFT_PPM = 50


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("liveness"))


@dataclass
class Site:
    """One endpoint, what it heard and said, and whom its datagrams do not reach."""

    endpoint: Endpoint
    heard: Recorder
    cut: set[tuple[str, int]] = field(default_factory=set)
    suspicions: list[tuple[str, bool]] = field(default_factory=list)

    def line(self, other: str) -> Any:
        return self.endpoint.statistics()["peers"][other]

    def counts(self, other: str) -> Counter[str]:
        return Counter(self.line(other)["datagrams"])


class Two:
    """A trader that dials a risk agent over 2 ms."""

    def __init__(
        self, cluster: Cluster, loop: VirtualLoop, libraries: str, profile: Profile = LOOPBACK, mtu: int = 0
    ) -> None:
        self.loop = loop
        self.cluster = cluster
        self.network = MemoryNetwork(loop, Network(rtt=0.002, mtu=mtu), 1)
        self.profile = profile
        dialling, listening = libraries.split(" dials ")
        self.low, self.high = self.site(LOW, dialling), self.site(HIGH, listening)

    def site(self, name: str, library: str) -> Site:
        heard, cut, suspicions = Recorder(), set[tuple[str, int]](), list[tuple[str, bool]]()

        def on_suspicion(agent: Agent, suspected: bool) -> None:
            suspicions.append((agent.id, suspected))

        impairment = Impairment(self.network.network, random.Random(name))
        endpoint = Endpoint(
            self.cluster.identity(name),
            self.cluster.roster,
            codec_for("capnp"),
            on_message=heard.on_message,
            on_peer_change=heard.on_peer_change,
            on_suspicion=on_suspicion,
            rng=random.Random(7),
            profile=self.profile,
            transport=library,
            port=ChaosPort(MemoryPort(self.network), impairment, self.loop.time, lambda: cut),
            clock=partial(self.shown, name),
        )
        return Site(endpoint, heard, cut, suspicions)

    def shown(self, name: str) -> float:
        """The listener's clock is an hour ahead and fast by 50 millionths."""
        now = self.loop.time()
        return now + 3600 + now * DRIFT_PPM * 1e-6 if name == HIGH else now

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.low, self.high

    async def meet(self) -> None:
        for site in self.sites:
            await site.endpoint.start()
        await until(lambda: self.low.endpoint.connected == {1} and self.high.endpoint.connected == {0})

    async def part(self) -> None:
        await asyncio.gather(*(site.endpoint.close() for site in self.sites))


def virtually(
    cluster: Cluster,
    libraries: str,
    script: Callable[[Two], Awaitable[None]],
    profile: Profile = LOOPBACK,
    mtu: int = 0,
) -> Two:
    """Two that have met live through a script."""
    pairs: list[Two] = []

    async def live(loop: VirtualLoop) -> None:
        pairs.append(Two(cluster, loop, libraries, profile, mtu))
        await pairs[0].meet()
        await script(pairs[0])
        await pairs[0].part()

    run_virtually(live)
    return pairs[0]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_both_ends_hear_one_heartbeat_an_interval(cluster: Cluster, libraries: str) -> None:
    async def script(two: Two) -> None:
        await asyncio.sleep(20)
        for site, other in ((two.low, HIGH), (two.high, LOW)):
            counts, liveness = site.counts(other), site.line(other)["liveness"]
            assert 95 <= counts["heartbeats_in"] <= 102 and 95 <= counts["heartbeats_out"] <= 102
            assert counts["heartbeats_missed"] == counts["unasked"] == counts["unsupported"] == 0
            assert liveness["gap_ms"] == pytest.approx(200, abs=10)
            assert liveness["phi"] == 0 and not liveness["suspected"] and liveness["overtaken"] == 0
            assert site.endpoint.suspects == []

    two = virtually(cluster, libraries, script)
    assert two.low.suspicions == two.high.suspicions == []


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_silence_is_told_to_the_owner_and_ends_nothing(cluster: Cluster, libraries: str) -> None:
    """Seven seconds without a datagram either way: less than the idle timeout."""

    async def script(two: Two) -> None:
        await asyncio.sleep(3)
        for site, other in ((two.low, two.high), (two.high, two.low)):
            site.cut.add(other.endpoint._driver.local_address)
        await asyncio.sleep(IDLE_TIMEOUT_S - 3)
        assert two.low.endpoint.suspects == [HIGH] and two.high.endpoint.suspects == [LOW]
        assert two.low.line(HIGH)["liveness"]["suspected"] and two.low.line(HIGH)["liveness"]["phi"] == 300
        for site in two.sites:
            site.cut.clear()
        await asyncio.sleep(5)
        assert two.low.endpoint.suspects == two.high.endpoint.suspects == []
        assert two.low.endpoint.send(1, m.Commit(0, 9, bytes(32), 0, bytes(64)))
        await until(lambda: len(two.high.heard.messages) == 1)

    two = virtually(cluster, libraries, script)
    assert two.low.suspicions == [(HIGH, True), (HIGH, False)] and two.high.suspicions == [(LOW, True), (LOW, False)]
    assert two.low.heard.changes == [(HIGH, True)] and two.high.heard.changes == [(LOW, True)]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_the_idle_timeout_still_ends_a_connection_and_its_suspicion(cluster: Cluster, libraries: str) -> None:
    async def script(two: Two) -> None:
        await asyncio.sleep(3)
        two.low.cut.add(two.high.endpoint._driver.local_address)
        two.high.cut.add(two.low.endpoint._driver.local_address)
        await asyncio.sleep(2 * IDLE_TIMEOUT_S)
        assert not two.low.endpoint.connected and not two.high.endpoint.connected
        assert two.low.endpoint.suspects == [] and two.low.line(HIGH)["liveness"] is None
        assert max(site.counts(other)["heartbeats_out"] for site, other in ((two.low, HIGH), (two.high, LOW))) < 120

    two = virtually(cluster, libraries, script)
    assert two.low.suspicions == [(HIGH, True)] and two.low.heard.changes == [(HIGH, True), (HIGH, False)]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
@pytest.mark.parametrize(("heartbeat_s", "pings"), [(0.0, True), (HEARTBEAT_S, False)])
def test_an_idle_connection_lives_by_heartbeats_or_by_pings(
    cluster: Cluster, libraries: str, heartbeat_s: float, pings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    for name in ("protocol.quic.connection.SwarmConnection", "protocol.quic.qh3_connection.Qh3Connection"):
        _watch_pings(monkeypatch, name, sent)

    async def script(two: Two) -> None:
        await asyncio.sleep(3 * IDLE_TIMEOUT_S)
        assert two.low.endpoint.connected == {1} and two.high.endpoint.connected == {0}

    two = virtually(cluster, libraries, script, replace(LOOPBACK, heartbeat_s=heartbeat_s))
    assert bool(sent) is pings
    assert two.low.heard.changes == [(HIGH, True)]


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
def test_each_knows_how_far_the_other_s_clock_is_ahead(cluster: Cluster, libraries: str) -> None:
    async def script(two: Two) -> None:
        await asyncio.sleep(30)
        ahead_ns = (two.shown(HIGH) - two.shown(LOW)) * 1e9
        for site, other, sign in ((two.low, HIGH, 1), (two.high, LOW, -1)):
            clock = site.line(other)["liveness"]["clock"]
            assert abs(clock["offset_ns"] - sign * ahead_ns) <= clock["uncertainty_ns"] < 2_000_000
            assert 2_000_000 <= clock["rtt_ns"] < 4_000_000
            assert not any(name.startswith("clock") for name in site.counts(other))

    virtually(cluster, libraries, script)


@pytest.mark.parametrize("libraries", TRANSPORT_PAIRS)
async def test_on_one_host_the_clocks_are_one(cluster: Cluster, libraries: str) -> None:
    """Over real sockets, in real time: the offset is nothing, within what is said to be unsure."""
    moved, recorder = cluster.moved(), Recorder()
    endpoints = [
        Endpoint(
            moved.identity(name),
            moved.roster,
            codec_for("capnp"),
            on_message=recorder.on_message,
            on_peer_change=recorder.on_peer_change,
            profile=replace(LOOPBACK, heartbeat_s=0.02),
            transport=library,
        )
        for name, library in zip((LOW, HIGH), libraries.split(" dials "), strict=True)
    ]

    def clock(endpoint: Endpoint, other: str) -> Any:
        liveness = endpoint.statistics()["peers"][other]["liveness"]
        return liveness and liveness["clock"]

    for endpoint in endpoints:
        await endpoint.start()
    await until(lambda: bool(clock(endpoints[0], HIGH) and clock(endpoints[1], LOW)))
    await asyncio.sleep(0.2)
    for endpoint, other in zip(endpoints, (HIGH, LOW), strict=True):
        assert abs(clock(endpoint, other)["offset_ns"]) <= clock(endpoint, other)["uncertainty_ns"]
        assert clock(endpoint, other)["rtt_ns"] > 0
    await asyncio.gather(*(endpoint.close() for endpoint in endpoints))


def _watch_pings(monkeypatch: pytest.MonkeyPatch, name: str, sent: list[int]) -> None:
    module, _, kind = name.rpartition(".")
    original = getattr(__import__(module, fromlist=[kind]), kind).send_ping

    def send_ping(self: Any, uid: int) -> None:
        sent.append(uid)
        original(self, uid)

    monkeypatch.setattr(f"{name}.send_ping", send_ping)


def test_a_peer_without_datagrams_is_kept_alive_as_before(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """aioquic without the setting, as in a release that does not know datagrams."""
    monkeypatch.setattr("protocol.quic.connection.DATAGRAM_FRAME_BYTES_MAX", None)

    async def script(two: Two) -> None:
        await asyncio.sleep(3 * IDLE_TIMEOUT_S)
        for site, other in ((two.low, HIGH), (two.high, LOW)):
            assert site.counts(other) == {"unsupported": 1} and site.line(other)["liveness"] is None
        assert two.low.endpoint.send(1, m.Commit(0, 9, bytes(32), 0, bytes(64)))
        await until(lambda: len(two.high.heard.messages) == 1)

    two = virtually(cluster, "aioquic dials aioquic", script)
    assert two.low.heard.changes == [(HIGH, True)] and two.low.suspicions == []


def test_our_own_pause_is_nobody_elses_silence(cluster: Cluster) -> None:
    """The process, or its host, stands still for five seconds; what has come in the meantime is read afterwards."""

    async def script(two: Two) -> None:
        await asyncio.sleep(3)
        two.loop.virtual.now += 5
        await asyncio.sleep(3)

    two = virtually(cluster, "aioquic dials aioquic", script)
    assert two.low.suspicions == two.high.suspicions == []
    assert two.low.heard.changes == [(HIGH, True)]


def test_an_idle_second_costs_fifteen_packets(cluster: Cluster) -> None:
    """Five heartbeats, five answers that carry the acknowledgement, five acknowledgements of those."""

    async def script(two: Two) -> None:
        await asyncio.sleep(5)
        before = two.network.delivered
        await asyncio.sleep(20)
        assert two.network.delivered - before == pytest.approx(300, abs=10)

    virtually(cluster, "aioquic dials aioquic", script)


@pytest.mark.parametrize("transport", ["aioquic", "qh3"])
async def test_malformed_heartbeats_are_offences(cluster: Cluster, transport: str) -> None:
    moved, heard = cluster.moved(), Recorder()
    listener = Endpoint(
        moved.identity(HIGH),
        moved.roster,
        codec_for("capnp"),
        on_message=heard.on_message,
        on_peer_change=heard.on_peer_change,
        transport=transport,
    )
    await listener.start()
    stranger = await Stranger(moved.identity(LOW), moved.roster, transport=transport).connect(moved.agent(HIGH))
    await stranger.greet()
    await stranger.answer()
    assert stranger.link is not None
    for _ in range(3):
        assert stranger.link.send_datagram(b"\x01too short")
    assert (await stranger.ending()).reason == "offences"
    assert listener.statistics()["peers"][LOW]["refused"] == {"heartbeat_malformed": 3, "offences": 1}
    stranger.stop()
    await listener.close()
