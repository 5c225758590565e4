"""What anybody can do who reaches the port and has no keys."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from aioquic import tls
from aioquic.quic.connection import QuicConnection

from tests.fuzz.mutate import mutate
from tests.hostile import frames as f
from tests.hostile.member import Attack, pause
from tests.hostile.wire import Wire
from tests.hostile.world import HONEST, World

INITIAL_BYTES: Final = 1200


def _wire(world: World) -> Wire:
    wire = world.dialler(world.stranger_identity())
    wire.target = world.victim_address
    return wire


async def garbage(world: World, rng: random.Random) -> None:
    """Datagrams of any bytes; some look like the beginning of something."""
    wire = _wire(world)
    for _ in range(rng.randint(10, 100)):
        size = rng.choice([0, 1, 5, 8, 9, 20, 21, 22, 43, 1199, 1200, 1201, 9000, 65507])
        first = bytes([rng.choice([0x00, 0x40, 0x80, 0xC0, 0xC3, 0xD0, 0xE0, 0xF0, 0xFF])])
        version = rng.choice([b"\0\0\0\1", b"\0\0\0\0", b"\x6b\x33\x43\xcf", rng.randbytes(4)])
        ids = bytes([rng.choice([0, 7, 8, 20, 21, 255])])
        wire.send((first + version + ids + rng.randbytes(min(size, 1500)))[:size])
    await pause(rng)


async def foreign_certificate(world: World, rng: random.Random) -> None:
    """A handshake with a certificate of another authority, none, another protocol's name, or an end in its middle."""
    wire = _wire(world)
    tune = rng.choice(["foreign", "none", "alpn", "stop"])
    settings: Any = wire.settings
    if tune == "none":
        settings.certificate = settings.private_key = None
    elif tune == "alpn":
        settings.alpn_protocols = [rng.choice(["h3", "x" * 255])]
    wire.dial(world.victim_address)
    if tune == "stop":
        wire.reads = False
    await wire.greet()
    await pause(rng)


async def initial_flood(world: World, rng: random.Random) -> None:
    """First packets of many connections, none of which goes on, while somebody honest wants to come in."""
    await flood(world, rng.choice([1, 8]), rng.choice([10, 100]))
    await world.newcomer()


async def flood(world: World, ports: int, count: int) -> None:
    """So many first packets from so many ports, as fast as they can be made."""
    wires = [_wire(world) for _ in range(ports)]
    for number in range(count):
        connection = QuicConnection(configuration=wires[0].settings)
        connection.connect(world.victim_address, now=world.clock())
        for data, _ in connection.datagrams_to_send(now=world.clock()):
            wires[number % ports].send(data)
        if number % 10 == 0:
            await asyncio.sleep(0)


async def crumbs_of_handshake(world: World, rng: random.Random) -> None:
    """The handshake's own bytes, every second one, in packets that anybody can protect."""
    wire = _wire(world)
    connection = QuicConnection(configuration=wire.settings)
    connection.connect(world.victim_address, now=world.clock())
    wire.send(connection.datagrams_to_send(now=world.clock())[0][0])
    for packet in range(rng.choice([1, 20])):
        first = 10_001 + 2 * 1000 * packet
        pieces = [f.crypto(first + 2 * number, b"x") for number in range(1000)]
        wire.send(initial_packet(connection, 1 + packet, b"".join(pieces)))
        await pause(rng, 0.005)
    await pause(rng)


def initial_packet(connection: QuicConnection, number: int, payload: bytes) -> bytes:
    """A client's first kind of packet, whose keys follow from what stands in it."""
    crypto = connection._cryptos[tls.Epoch.INITIAL]
    version = connection._version or 1
    ids = b"".join(bytes([len(each)]) + each for each in (connection._peer_cid.cid, connection.host_cid))
    size = (0x4000 | 2 + len(payload) + crypto.aead_tag_size).to_bytes(2, "big")
    head = b"\xc1" + version.to_bytes(4, "big") + ids + b"\0" + size + number.to_bytes(2, "big")
    data: bytes = crypto.encrypt_packet(head, payload, number)
    return data


async def forged_addresses(world: World, rng: random.Random) -> None:
    """Datagrams that seem to come from honest peers: nothing, rubbish, resets, and their own packets, damaged."""
    wire = _wire(world)
    wire.dial(world.victim_address)
    victims_of_forgery = [world.endpoints[name]._driver.local_address for name in HONEST]
    for _ in range(rng.randint(5, 40)):
        size = rng.choice([0, 0, 1, 9, 15, 16, 17, 20, 21, 22, 60, 1200])
        data = bytes([rng.choice([0x40, 0x41, 0x00, 0xC0])])[:size] + rng.randbytes(max(0, size - 1))
        if rng.random() < 0.3:
            known = rng.choice(wire.sent)
            data = mutate(rng, known, wire.sent) if known else b""
        world.front.forge(data, rng.choice(victims_of_forgery))
    await pause(rng)


async def damaged_initials(world: World, rng: random.Random) -> None:
    """First packets with damage in them, again and again with the same connection id."""
    wire = _wire(world)
    connection = QuicConnection(configuration=wire.settings)
    connection.connect(world.victim_address, now=world.clock())
    known = [data for data, _ in connection.datagrams_to_send(now=world.clock())]
    for _ in range(rng.randint(5, 40)):
        data = mutate(rng, rng.choice(known), known)
        wire.send(data + bytes(max(0, INITIAL_BYTES - len(data))))
    wire.send(known[0])
    await pause(rng)


async def stolen_packets(world: World, rng: random.Random) -> None:
    """Packets of a member's connection, whole or damaged, from a port that is not the member's."""
    member = world.dialler()
    member.dial(world.victim_address)
    await member.greet()
    wire = _wire(world)
    for data in member.sent:
        for _ in range(rng.randint(1, 3)):
            wire.send(rng.choice([data, mutate(rng, data, member.sent) if data else b""]))
    member.say(world.one_of_a_kind(), channel=1)
    await pause(rng)


async def probes_of_versions(world: World, rng: random.Random) -> None:
    """Versions that nobody speaks, and what is only for the other direction: negotiation, retry."""
    wire = _wire(world)
    for _ in range(rng.randint(1, 30)):
        kind = rng.choice([0xC0, 0xD0, 0xE0, 0xF0, 0x80])
        version = rng.choice([0, 1, 2, 0x1A2A3A4A, 2**32 - 1])
        sizes = rng.choice([(8, 8), (20, 20), (8, 0), (8, 255), (255, 8), (0, 0)])
        data = bytes([kind]) + version.to_bytes(4, "big")
        for size in sizes:
            data += bytes([size]) + rng.randbytes(min(size, 30))
        wire.send(data + bytes(rng.choice([0, 1, INITIAL_BYTES])))
    await pause(rng)


ATTACKS: Final[tuple[Attack, ...]] = (
    garbage, foreign_certificate, initial_flood, crumbs_of_handshake, forged_addresses, damaged_initials,
    stolen_packets, probes_of_versions,
)  # fmt: skip
