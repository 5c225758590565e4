"""What the fuzzer has found, each by itself, so that it stays mended."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator

import pytest
from aioquic.quic.connection import QuicConnection

from protocol import messages as m
from protocol.batch import frame
from protocol.fields import BODY_BYTES_MAX
from protocol.quic.backend import TRANSPORTS
from protocol.quic.driver import GREETINGS_MAX
from protocol.quic.port import UdpPort
from protocol.quic.settings import FLOW_WINDOW_BYTES
from tests.hostile import frames as f
from tests.hostile import stranger
from tests.hostile.wire import Wire
from tests.hostile.world import HONEST, World, buffered_bytes, hostile_cluster
from tests.oracles.clusters import Cluster
from tests.oracles.strangers import until


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return hostile_cluster(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=TRANSPORTS)
async def world(issued: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(issued.moved(), UdpPort, time.monotonic, request.param, seed=1)
    await world.begin()
    yield world
    await world.end()
    world.check()


async def established(world: World) -> Wire:
    wire = world.dialler()
    wire.dial(world.victim_address)
    assert await wire.until(lambda: wire.established)
    return wire


async def greeted(world: World) -> Wire:
    wire = world.dialler()
    wire.settings.max_datagram_frame_size = None  # it answers no heartbeats, and says so
    wire.dial(world.victim_address)
    assert await wire.greet()
    return wire


async def test_a_stream_that_ends_before_it_begins(world: World) -> None:
    """Its owner was handed no bytes and looked at the first of them."""
    wire = await established(world)
    wire.inject(f.stream(4, 0, b"", fin=True))
    await until(lambda: world.victim.refused["greeting_malformed"] == 1)


async def test_a_greeting_whose_answer_is_not_wanted(world: World) -> None:
    """STOP_SENDING in HELLO's own packet: the answer was written to a stream that takes no more."""
    wire = await established(world)
    assert wire.connection is not None and wire.connection.exporter is not None
    hello = b"\0" + frame(wire.payload(wire.greeter.hello(wire.connection.exporter)))
    wire.inject(f.stream(0, 0, hello), f.stop_sending(0, 7))
    await until(lambda: world.victim.refused["stream_closed"] == 1)
    assert wire.identity.agent.index not in world.victim.connected


@pytest.mark.parametrize("size", [0, 1, 16, 20])
async def test_a_datagram_too_short_for_a_reset(world: World, size: int) -> None:
    """No bytes at all compared equal to the reset token of a peer that gave none, and ended its connection."""
    for name in HONEST:
        world.front.forge(bytes(size), world.endpoints[name]._driver.local_address)
    await asyncio.sleep(0.05)
    world.check()


@pytest.mark.parametrize("world", ["aioquic"], indirect=True)
async def test_holes_do_not_widen_the_window(world: World) -> None:
    """aioquic doubles its windows with what was received, not with what could be delivered: a few packets with one byte
    far ahead each made it hold gigabytes."""
    wire = await greeted(world)
    start = wire.offset(4)
    for doubling in range(6):
        wire.inject(f.stream(4, start + (FLOW_WINDOW_BYTES // 2 << doubling), b"x"), f.PING)
        await asyncio.sleep(0.02)
    held = max(buffered_bytes(link.connection) for link in world.victim._driver._links)
    assert held <= FLOW_WINDOW_BYTES


async def test_windows_widen_with_what_is_delivered(world: World) -> None:
    """More than two windows of good bytes pass."""
    wire = await greeted(world)
    wanted = 3 * FLOW_WINDOW_BYTES

    def heard_bytes() -> int:
        return int(world.victim.statistics()["peers"]["risk-1"]["bytes_in"])

    assert wire.connection is not None
    command = m.SignedCommand(1, 0, bytes(BODY_BYTES_MAX), bytes(64))
    while heard_bytes() < wanted:
        before = heard_bytes()
        wire.say(m.Submit(1, True, command), channel=1)
        assert await wire.until(lambda before=before: heard_bytes() > before, 10)  # type: ignore[misc]


async def test_a_stream_in_crumbs(world: World) -> None:
    """aioquic looks through all holes of a stream for every frame: some datagrams kept the loop busy for a minute."""
    wire = await greeted(world)
    began = time.thread_time()
    for packet in range(20):
        first = wire.offset(4) + 1 + 2000 * packet
        wire.inject(b"".join(f.stream(4, first + 2 * number, b"x") for number in range(1000)))
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert time.thread_time() - began < 5


async def test_a_handshake_in_crumbs(world: World) -> None:
    """The same without any keys: sixty datagrams of a stranger."""
    began = time.thread_time()
    wire = world.dialler(world.stranger_identity())
    wire.target = world.victim_address
    connection = QuicConnection(configuration=wire.settings)
    connection.connect(world.victim_address, now=time.monotonic())
    for packet in range(60):
        pieces = [f.crypto(10_001 + 2000 * packet + 2 * number, b"x") for number in range(1000)]
        wire.send(stranger.initial_packet(connection, 1 + packet, b"".join(pieces)))
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert time.thread_time() - began < 3


async def test_a_flood_of_first_packets_keeps_nobody_out(world: World) -> None:
    """Sixty-four of them took every place for five seconds."""
    await stranger.flood(world, ports=8, count=GREETINGS_MAX + 6)
    await world.newcomer()


@pytest.mark.sources
async def test_what_has_ended_is_given_back_without_the_collector(world: World) -> None:
    """Connection, owner and library held each other in circles, with megabytes in them, until the collector came."""
    wire = await greeted(world)
    peer = world.victim._peers[wire.identity.agent.index]
    assert peer._link is not None
    connection, ended = peer._link.connection, weakref.ref(peer)
    del peer
    gc.disable()
    try:
        assert wire.connection is not None
        wire.connection.close()
        wire.transmit()
        await until(lambda: ended() is None, 10)
    finally:
        gc.enable()
    assert buffered_bytes(connection) == 0 and not connection.has_unsent
