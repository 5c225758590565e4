"""Hours of heartbeats, restarts and key updates between real endpoints, in seconds. See ``oracles.virtual_network``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from protocol import messages as m
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.quic.chaos import parse_network
from protocol.quic.settings import PROFILES
from protocol.roster import Agent
from tests.oracles.clusters import Cluster, make_cluster
from tests.oracles.killed import kill
from tests.oracles.strangers import Recorder
from tests.oracles.virtual_network import MemoryNetwork, VirtualLoop, run_virtually

NAMES = ("trader-1", "risk-1", "executor-1")
HOUR_S = 3600.0
RECONNECT_S_MAX = 15.0
"""A killed peer is noticed by its stateless reset or by the idle timeout, and dialled again within the back-off."""
PACKETS_PER_KEY = 60
HEARTBEAT_S = 1.0
"""Slower than any profile's, so that a day of them takes minutes."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("virtual"))


class Day:
    """Three agents that talk a little, and a hand that kills one of them now and then."""

    def __init__(self, cluster: Cluster, loop: VirtualLoop, transport: str, seed: int) -> None:
        self.cluster = cluster
        self.loop = loop
        self.transport = transport
        self.rng = random.Random(seed)
        self.network = MemoryNetwork(loop, parse_network("rtt=2ms,jitter=1ms,loss=1%,reorder=1%,duplicate=1%"), seed)
        self.alive: dict[str, Endpoint] = {}
        self.heard: dict[str, Recorder] = {}
        self.epoch = 0
        self.kills = 0
        self.key_updates = 0
        self.heartbeats = 0
        """Most that one agent has heard of another in one life."""
        self.suspicions = 0
        self.wronged: list[tuple[str, bool]] = []
        """Who was suspected alive, whatever the network did to single datagrams: nobody."""

    async def begin(self, name: str) -> None:
        self.epoch += 1
        self.heard[name] = Recorder()
        self.alive[name] = Endpoint(
            self.cluster.identity(name),
            self.cluster.roster,
            codec_for("capnp"),
            on_message=self.heard[name].on_message,
            on_peer_change=self.heard[name].on_peer_change,
            rng=random.Random(self.epoch),
            epoch=self.epoch,
            transport=self.transport,
            on_suspicion=self.note_suspicion,
            profile=replace(PROFILES["loopback"], heartbeat_s=HEARTBEAT_S),
            port=self.network.port(),
            clock=self.loop.time,
        )
        await self.alive[name].start()

    def note_suspicion(self, agent: Agent, suspected: bool) -> None:
        self.suspicions += suspected
        if agent.id in self.alive:
            self.wronged.append((agent.id, suspected))

    def kill(self, name: str) -> None:
        kill(self.alive.pop(name))
        self.kills += 1

    async def meet(self) -> float:
        """Until everybody sees everybody; how long that took."""
        began = self.loop.time()
        while any(len(endpoint.connected) < len(NAMES) - 1 for endpoint in self.alive.values()):
            assert self.loop.time() - began < RECONNECT_S_MAX, {n: e.connected for n, e in self.alive.items()}
            await asyncio.sleep(0.05)
        return self.loop.time() - began

    async def talk(self) -> None:
        """Everybody says something to everybody, and all of it arrives."""
        for heard in self.heard.values():
            heard.messages.clear()
        for name, endpoint in self.alive.items():
            for index in endpoint.connected:
                message = m.Commit(0, index, bytes(32), self.cluster.agent(name).index, bytes(64))
                assert endpoint.send(index, message, channel=Channel.CONSENSUS)
        deadline = self.loop.time() + 5
        while any(len(self.heard[name].messages) < len(NAMES) - 1 for name in self.alive):
            assert self.loop.time() < deadline
            await asyncio.sleep(0.01)

    async def live(self, hours: float) -> None:
        for name in NAMES:
            await self.begin(name)
        until = self.loop.time() + hours * HOUR_S
        while self.loop.time() < until:
            await self.meet()
            await self.talk()
            await asyncio.sleep(self.rng.uniform(60, 600))
            assert all(len(endpoint.connected) == len(NAMES) - 1 for endpoint in self.alive.values()), "kept alive"
            self.check_bounds()
            victim = self.rng.choice(NAMES)
            self.key_updates += sum(map(_key_updates, self.alive.values()))
            self.kill(victim)
            await asyncio.sleep(self.rng.choice([0.0, 1.0, 20.0]))
            await self.begin(victim)
        await self.meet()
        await asyncio.gather(*(endpoint.close() for endpoint in self.alive.values()))

    def check_bounds(self) -> None:
        """Whatever came and went, an endpoint holds its two connections, nothing of earlier ones, and at most one call
        to risk-2, who is never there."""
        assert not self.wronged
        for endpoint in self.alive.values():
            driver = endpoint._driver
            assert sum(link.greeted for link in driver._links) == len(NAMES) - 1
            assert len(driver._links) <= len(NAMES)
            assert len(driver._routes) <= 20 * (len(NAMES) - 1)
            assert not driver._port._waiting or len(driver._port._waiting) < 64  # type: ignore[attr-defined]
            for name in NAMES:
                line = endpoint.statistics()["peers"].get(name, {})
                if line:
                    self.heartbeats = max(self.heartbeats, line["datagrams"]["heartbeats_in"])
                    assert line["liveness"]["phi"] < 4 and line["liveness"]["overtaken"] == 0
                    clock = line["liveness"]["clock"]
                    assert abs(clock["offset_ns"]) <= clock["uncertainty_ns"] < 10_000_000
                    assert not any(what.startswith("clock") for what in line["datagrams"])
            assert not endpoint._offences.bans and endpoint.refused.total() <= self.kills * 4, endpoint.refused
        assert len(asyncio.all_tasks(self.loop)) <= 2 + len(NAMES) * 2


def _key_updates(endpoint: Endpoint) -> int:
    return sum(link.connection.key_updates for link in endpoint._driver._links)


def live(cluster: Cluster, hours: float, transport: str, seed: int) -> Day:
    days: list[Day] = []

    def main(loop: VirtualLoop) -> Awaitable[None]:
        days.append(Day(cluster, loop, transport, seed))
        return days[0].live(hours)

    run_virtually(main)
    return days[0]


@pytest.mark.parametrize("transport", ["aioquic", "qh3"])
def test_a_quarter_of_an_hour(cluster: Cluster, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("connection", "qh3_connection"):
        monkeypatch.setattr(f"protocol.quic.{module}.PACKETS_PER_KEY", PACKETS_PER_KEY)
    day = live(cluster, 0.25, transport, seed=1)
    assert day.kills >= 2
    assert day.key_updates > 5
    assert day.heartbeats > 60


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("transport", ["aioquic", "qh3"])
def test_a_day(cluster: Cluster, transport: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("connection", "qh3_connection"):
        monkeypatch.setattr(f"protocol.quic.{module}.PACKETS_PER_KEY", PACKETS_PER_KEY)
    day = live(cluster, 24.0, transport, seed=2)
    assert day.kills >= 150
    assert day.key_updates > 1000
    assert day.heartbeats > 600
    assert day.suspicions > 50, "who is gone for 20 seconds is suspected before the idle timeout"
