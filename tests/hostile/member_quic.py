"""What a member with valid keys can do to the connection itself: its streams, windows, packets and paths."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from protocol import messages as m
from protocol.batch import frame
from protocol.quic.settings import FLOW_WINDOW_BYTES
from tests.fuzz.mutate import mutate
from tests.hostile import frames as f
from tests.hostile.member import STREAMS, Attack, greeted, pause
from tests.hostile.world import World

# --- streams and flow control ---------------------------------------------------------------------------------------


async def odd_ends(world: World, rng: random.Random) -> None:
    """FIN, RESET_STREAM and STOP_SENDING at any moment, alone or behind a batch in the same packet."""
    wire = await greeted(world, rng)
    for _ in range(rng.randint(1, 3)):
        stream_id = rng.choice([*STREAMS, 1, 2, 3, 16, 16383])
        batch = frame(wire.payload(world.one_of_a_kind(), channel=1))
        before = [f.stream(4, wire.advance(4, len(batch)), batch)] if rng.random() < 0.5 else []
        wire.inject(
            *before,
            rng.choice(
                [
                    f.stream(stream_id, wire.offset(stream_id), b"", fin=True),
                    f.reset_stream(stream_id, rng.choice(f.EDGES), rng.choice([wire.offset(stream_id), *f.EDGES])),
                    f.stop_sending(stream_id, rng.choice(f.EDGES)),
                ]
            ),
        )
        await pause(rng, 0.02)


async def extra_streams(world: World, rng: random.Random) -> None:
    """Streams beyond the four, of both kinds, never finished, with a hole at the beginning."""
    wire = await greeted(world, rng)
    for number in range(rng.choice([1, 30, 200])):
        stream_id = 4 * (4 + number) + rng.choice([0, 2])
        wire.inject(f.stream(stream_id, rng.choice([0, 1, 1, 5000]), b"x"))
    await pause(rng)


async def holes(world: World, rng: random.Random) -> None:
    """Everything but the byte that is waited for, as far as the windows go: nothing of it can ever be delivered."""
    wire = await greeted(world, rng)
    stream_id = rng.choice([4, 8, 12])
    start, size = wire.offset(stream_id), FLOW_WINDOW_BYTES // 2
    for doubling in range(rng.choice([1, 2, 5])):
        reach = min(start + (size << doubling), f.VARINT_MAX - 1)
        wire.inject(f.stream(stream_id, reach, b"x"), f.PING)
        await wire.until(lambda: False, 0.02)
    await pause(rng)


async def crumbs(world: World, rng: random.Random) -> None:
    """Every second byte of a stream, each in a frame of its own: as many holes as bytes."""
    wire = await greeted(world, rng)
    stream_id = rng.choice([4, 8, 12])
    start = wire.offset(stream_id)
    for packet in range(rng.choice([2, 30])):
        first = start + 1 + 2 * 1000 * packet
        wire.inject(b"".join(f.stream(stream_id, first + 2 * number, b"x") for number in range(1000)))
        await pause(rng, 0.005)
    await pause(rng)


async def never_reads(world: World, rng: random.Random) -> None:
    """Acknowledges nothing, or opens no window, while the victim has to answer."""
    wire = await greeted(world, rng)
    if wire.connection is not None and rng.random() < 0.5:
        wire.connection.grants = False
    else:
        wire.reads = False
    for _ in range(rng.randint(1, 40)):
        wire.say(m.StatusRequest(rng.randrange(2**32), 1))
        wire.say(world.one_of_a_kind(), channel=rng.choice([1, 2, 3]))
    for _ in range(20):
        world.victim.send(wire.identity.agent.index, m.StatusReply(1, bytes(100_000)))
        await asyncio.sleep(0)
    await pause(rng, 0.2)


async def absurd_windows(world: World, rng: random.Random) -> None:
    """Flow-control limits of any size, rising and falling, and complaints about being blocked."""
    wire = await greeted(world, rng)
    for _ in range(rng.randint(1, 20)):
        limit, stream_id = rng.choice(f.EDGES), rng.choice([*STREAMS, 1, 3, 2, 20])
        wire.inject(
            rng.choice(
                [
                    f.max_data(limit),
                    f.max_stream_data(stream_id, limit),
                    f.max_streams(limit, unidirectional=rng.random() < 0.5),
                    f.data_blocked(limit),
                    f.stream_data_blocked(stream_id, limit),
                ]
            )
        )
    await pause(rng)


# --- the connection -------------------------------------------------------------------------------------------------


async def odd_frames(world: World, rng: random.Random) -> None:
    """Frames of the connection itself, with odd numbers, or out of their place."""
    wire = await greeted(world, rng)
    for _ in range(rng.randint(1, 10)):
        wire.inject(
            rng.choice(
                [
                    f.acknowledgement(rng.choice(f.EDGES), 0),
                    f.acknowledgement(100, rng.choice([0, 100, 101]), ((rng.randrange(40), rng.randrange(40)),) * 40),
                    f.crypto(rng.choice(f.EDGES[:-1]), rng.randbytes(rng.choice([0, 4, 900]))),
                    f.new_token(rng.randbytes(rng.choice([0, 40]))),
                    f.datagram(rng.randbytes(rng.choice([0, 1, 900]))),
                    f.varint(rng.choice([0x20, 0x30, 0x42, *f.EDGES])),
                    f.HANDSHAKE_DONE,
                    f.path_response(rng.randbytes(8)),
                    rng.randbytes(rng.randint(1, 200)),
                    f.connection_close(rng.choice(f.EDGES), rng.randbytes(rng.choice([0, 900])), application=True),
                ]
            )
        )
    await pause(rng)


async def connection_id_churn(world: World, rng: random.Random) -> None:
    """New ids, old ids, ids retired that were never given."""
    wire = await greeted(world, rng)
    number = 8
    for _ in range(rng.choice([3, 40, 150])):
        number += rng.choice([1, 1, 2, 10])
        size = rng.choice([8, 8, 8, 1, 20, 0, 21])
        wire.inject(
            rng.choice(
                [
                    f.new_connection_id(
                        number, rng.choice([0, number, number + 1]), rng.randbytes(size), rng.randbytes(16)
                    ),
                    f.retire_connection_id(rng.choice([0, 1, 2, number, rng.choice(f.EDGES)])),
                ]
            )
        )
    await pause(rng)


async def key_updates(world: World, rng: random.Random) -> None:
    """A storm of key updates, some of them before the last one was answered."""
    wire = await greeted(world, rng)
    for _ in range(rng.choice([2, 10, 60])):
        if wire.connection is not None and wire.connection._handshake_confirmed:
            wire.connection.request_key_update()
        wire.inject(f.PING)
        if rng.random() < 0.5:
            await pause(rng, 0.01)
    wire.say(world.one_of_a_kind(), channel=1)
    await pause(rng)


async def pings_and_challenges(world: World, rng: random.Random) -> None:
    """Everything that asks for an answer, as fast as it goes."""
    wire = await greeted(world, rng)
    for _ in range(rng.choice([10, 100, 400])):
        count = rng.randint(1, 40)
        wire.inject(b"".join(rng.choice([f.PING, f.path_challenge(rng.randbytes(8))]) for _ in range(count)))
    await pause(rng)


async def migrations(world: World, rng: random.Random) -> None:
    """The connection's packets from other ports than before."""
    wire = await greeted(world, rng, listens=False)
    if not wire.can_inject:
        return
    others = [world.dialler() for _ in range(rng.choice([1, 3, 12]))]
    for other in others:
        for _ in range(rng.randint(1, 5)):
            wire.say(world.one_of_a_kind(), channel=1)
            if wire.can_inject:
                other.send(
                    wire.packet(rng.choice([f.PING, f.path_challenge(bytes(8)), f.max_data(2**30)])), wire.target
                )
        await pause(rng, 0.01)
    await pause(rng)


async def nothing_at_all(world: World, rng: random.Random) -> None:
    """Datagrams of no bytes and of few, from the very port of a connection."""
    wire = await greeted(world, rng)
    for _ in range(rng.randint(1, 5)):
        wire.send(rng.randbytes(rng.choice([0, 0, 1, 8, 9, 16, 20, 21])))
    wire.say(world.one_of_a_kind(), channel=1)
    await pause(rng)


async def packet_gaps(world: World, rng: random.Random) -> None:
    """Packet numbers with holes between them, so that acknowledgements fall to pieces."""
    wire = await greeted(world, rng)
    for _ in range(rng.choice([20, 200, 600])):
        if wire.connection is not None:
            wire.connection._packet_number += rng.choice([1, 2, 30])
        wire.inject(f.PING)
    await pause(rng)


async def damaged_packets(world: World, rng: random.Random) -> None:
    """Packets of the connection, damaged, cut, doubled, and with reserved bits."""
    wire = await greeted(world, rng)
    wire.say(world.one_of_a_kind(), channel=1)
    for _ in range(rng.randint(1, 30)):
        known = rng.choice(wire.sent) if wire.sent else b"\x40"
        damaged = mutate(rng, known, wire.sent or [known]) if known else b""
        wire.send(rng.choice([known, damaged, known[: rng.randrange(60)]]))
    if wire.can_inject and rng.random() < 0.2:
        wire.send(wire.packet(f.PING, first=0x59))
    await pause(rng)


async def odd_parameters(world: World, rng: random.Random) -> None:
    """Transport parameters at their edges, beyond them, and of kinds that are not for a client."""
    numbers = [
        "max_idle_timeout", "max_udp_payload_size", "initial_max_data", "initial_max_stream_data_bidi_local",
        "initial_max_stream_data_bidi_remote", "initial_max_streams_bidi", "ack_delay_exponent", "max_ack_delay",
        "active_connection_id_limit", "max_datagram_frame_size",
    ]  # fmt: skip

    def change(parameters: Any) -> None:
        for name in rng.sample(numbers, rng.choice([1, 1, 2])):
            setattr(parameters, name, rng.choice([*f.EDGES, 2, 20, 21, 1199, 1200]))
        if rng.random() < 0.3:
            parameters.initial_source_connection_id = rng.randbytes(rng.choice([0, 8]))
        if rng.random() < 0.1:
            parameters.stateless_reset_token = rng.randbytes(16)

    wire = world.dialler()
    wire.dial(world.victim_address, change)
    if await wire.greet():
        wire.say(world.one_of_a_kind(), channel=1)
        for _ in range(5):
            world.victim.send(wire.identity.agent.index, m.StatusReply(1, bytes(20_000)))
    await pause(rng, 0.2)


async def acknowledgements(world: World, rng: random.Random) -> None:
    """Much is on its way, and a thousand ranges acknowledge none of it, or a little."""
    wire = await greeted(world, rng)
    wire.reads = False
    for _ in range(30):
        world.victim.send(wire.identity.agent.index, m.StatusReply(1, bytes(200_000)))
        await asyncio.sleep(0)
    for _ in range(rng.choice([2, 20])):
        wire.inject(f.acknowledgement(rng.choice([4000, 4100, 60_000]), 0, ((0, 0),) * rng.choice([500, 1990])))
        await pause(rng, 0.01)
    await pause(rng)


ATTACKS: Final[tuple[Attack, ...]] = (
    odd_ends, extra_streams, holes, crumbs, never_reads, absurd_windows, odd_frames, connection_id_churn, key_updates,
    pings_and_challenges, migrations, nothing_at_all, packet_gaps, damaged_packets, odd_parameters, acknowledgements,
)  # fmt: skip
