"""What a member with valid keys can say to another one, each as a coroutine that uses one number generator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from protocol import messages as m
from protocol.batch import frame
from protocol.credit import WINDOW_BYTES
from protocol.endpoint import PROBES_MAX
from protocol.framing import HEADER
from protocol.greeting import PROBE_EPOCH
from tests.fuzz.mutate import mutate
from tests.hostile import frames as f
from tests.hostile.wire import Wire
from tests.hostile.world import World
from tests.oracles.codec_examples import batch_example

Attack = Callable[[World, random.Random], Awaitable[None]]
LINGER_S: Final = 0.05
"""How long an attacker looks at what it has done before it goes on."""
STREAMS: Final = (0, 4, 8, 12)


async def greeted(world: World, rng: random.Random, *, listens: bool = True) -> Wire:
    """A member that has been let in, or will not be because it is banned: dialling, or dialled by the victim."""
    if listens and rng.random() < 0.25:
        wire = world.listener()
        await wire.until_dialled()
        await wire.greet()
    else:
        wire = world.dialler()
        wire.dial(world.victim_address)
        await wire.greet()
    return wire


async def pause(rng: random.Random, longest_s: float = LINGER_S) -> None:
    await asyncio.sleep(rng.uniform(0.0, longest_s))


# --- batches and framing --------------------------------------------------------------------------------------------


async def mutated_batches(world: World, rng: random.Random) -> None:
    """Truncated, oversized, spliced: pointers and counts as the decoder's own fuzzer damages them."""
    wire = await greeted(world, rng)
    examples = [wire.payload(envelope.message) for envelope in batch_example()[1][:24]]
    for _ in range(rng.randint(1, 12)):
        channel = rng.randrange(4)
        data = mutate(rng, rng.choice(examples), examples, repair_share=0.9)
        wire.write(4 * channel, frame(data or b"\0"))
        if rng.random() < 0.3:
            wire.say(world.one_of_a_kind(), channel=1)
        await pause(rng, 0.01)


async def mutated_frames(world: World, rng: random.Random) -> None:
    """The framing itself: lengths that lie, versions and flags that there are not."""
    wire = await greeted(world, rng)
    length = rng.choice([0, 1, 8, 2**16, 16 * 2**20, 16 * 2**20 + 1, 2**31, 2**32 - 1])
    head = HEADER.pack(length, rng.choice([1, 1, 1, 0, 2, 65535]), rng.choice([0, 0, 0, 1, 65535]))
    wire.write(rng.choice(STREAMS), head + rng.randbytes(rng.choice([0, 1, 7, 64, 4096])))
    await pause(rng)


async def slow_frame(world: World, rng: random.Random) -> None:
    """The largest length that is allowed, most of the bytes, and never the last."""
    wire = await greeted(world, rng)
    size = rng.choice([16 * 2**20, 2**20, 2**23])
    wire.write(rng.choice(STREAMS), HEADER.pack(size, 1, 0))
    for _ in range(rng.randint(1, 20)):
        wire.write(rng.choice(STREAMS), rng.randbytes(rng.choice([1, 1000, 60_000])))
        await pause(rng, 0.01)


async def replays(world: World, rng: random.Random) -> None:
    """The same bytes again, here or on another channel; numbers that fall or skip."""
    wire = await greeted(world, rng)
    for _ in range(rng.randint(1, 4)):
        channel = rng.choice([1, 2, 3])
        data = frame(wire.payload(world.one_of_a_kind(), channel=channel))
        wire.write(4 * channel, data)
        for _ in range(rng.randint(1, 3)):
            wire.write(4 * rng.choice([channel, rng.randrange(4)]), data)
        wire.say(world.one_of_a_kind(), channel=channel, number=rng.choice([0, 1, 4 * 2**40, 2**64 - 1]))
        await pause(rng)


async def foreign_batches(world: World, rng: random.Random) -> None:
    """In another's name, of types that the role may not send, or what only a greeting may be."""
    wire = await greeted(world, rng)
    commands: list[Callable[[], None]] = [
        lambda: wire.say(world.one_of_a_kind(), sender=rng.choice([0, 2, 9, 65535]), channel=1),
        lambda: wire.say(m.NewOrder("A", 0, 1, 0, 1, 1, 0), channel=2),
        lambda: wire.say(m.Hello(bytes(16), 1, 1, bytes(32), bytes(64))),
        lambda: wire.say(m.Refused(rng.choice(["shutdown", "offences", "no such reason", "x" * 1024]))),
        lambda: wire.say(*[m.StatusRequest(n, 1) for n in range(rng.choice([2, 300, 4096]))]),
    ]
    for _ in range(rng.randint(1, 4)):
        rng.choice(commands)()
        await pause(rng)


async def absurd_credit(world: World, rng: random.Random) -> None:
    """Promises of more than there is, on channels that there are not, or one after the other."""
    wire = await greeted(world, rng)
    for _ in range(rng.choice([1, 3, 50])):
        channel = rng.choice([0, 1, 2, 3, 4, 255])
        more = rng.choice([0, 1, WINDOW_BYTES[channel % 4], 2**32, 2**64 - 1])
        wire.say(m.Credit(channel, more))
    await pause(rng)


# --- greetings ------------------------------------------------------------------------------------------------------


async def bad_greetings(world: World, rng: random.Random) -> None:
    """HELLO twice, HELLO of another cluster, roster, agent or epoch, or something else in its place."""
    wire = world.dialler()
    wire.dial(world.victim_address)
    changes: list[Any] = [
        lambda hello: msgspec.structs.replace(hello, cluster_id=rng.randbytes(rng.choice([1, 16, 64]))),
        lambda hello: msgspec.structs.replace(hello, roster_digest=rng.randbytes(32)),
        lambda hello: msgspec.structs.replace(hello, agent=rng.choice([0, 2, 3, 99, 65535])),
        lambda hello: msgspec.structs.replace(hello, epoch=rng.choice([0, 1, 2**64 - 1])),
        lambda hello: msgspec.structs.replace(hello, signature=rng.randbytes(64)),
        lambda hello: m.StatusRequest(1, 1),
        lambda hello: m.HelloAck(1, 1, bytes(32), bytes(64)),
        lambda hello: m.Refused("shutdown"),
        lambda hello: m.Credit(1, 1),
        lambda hello: hello,
    ]
    await wire.greet(rng.choice(changes))
    if wire.connection is not None and wire.connection.exporter is not None:
        wire.say(wire.greeter.hello(wire.connection.exporter))
    await pause(rng)


async def before_greeting(world: World, rng: random.Random) -> None:
    """Data, ends and resets on any stream before HELLO, or a part of it, or nothing for a while."""
    wire = world.dialler()
    wire.dial(world.victim_address)
    await wire.until(lambda: wire.established)
    for _ in range(rng.randint(1, 3)):
        stream_id = rng.choice([*STREAMS, 2, 3, 16, 400])
        wire.inject(
            rng.choice(
                [
                    f.stream(stream_id, 0, b"", fin=True),
                    f.stream(stream_id, 0, bytes([stream_id // 4 % 256])),
                    f.stream(stream_id, 0, bytes([stream_id // 4 % 256]), fin=True),
                    f.stream(stream_id, 1, rng.randbytes(40)),
                    f.stream(stream_id, rng.choice(f.EDGES[:-1]), b"x"),
                    f.reset_stream(stream_id, 0, rng.choice(f.EDGES)),
                    f.stop_sending(stream_id, 0),
                ]
            )
        )
        await pause(rng, 0.01)
    if rng.random() < 0.5:
        await wire.greet()


async def greeting_and_stop(world: World, rng: random.Random) -> None:
    """HELLO, and in the same packet a word that takes the way of the answer away."""
    wire = world.dialler()
    wire.dial(world.victim_address)
    if not await wire.until(lambda: wire.established):
        return
    assert wire.connection is not None and wire.connection.exporter is not None
    hello = b"\0" + frame(wire.payload(wire.greeter.hello(wire.connection.exporter)))
    tail = rng.choice([f.stop_sending(0, 7), f.reset_stream(0, 7, len(hello)), f.stream(0, len(hello), b"", fin=True)])
    wire.inject(f.stream(0, 0, hello), tail)
    await pause(rng)


async def before_acknowledgement(world: World, rng: random.Random) -> None:
    """A listener that keeps the victim waiting for its answer, and sends everything else."""
    wire = world.listener()
    if not await wire.until_dialled() or not await wire.until(lambda: bool(wire.received)):
        return
    stream_id = rng.choice([4, 8, 12])
    for _ in range(rng.choice([1, 10])):
        pieces = [f.stream(stream_id, wire.advance(stream_id, 1), b"x") for _ in range(rng.choice([1, 1000]))]
        wire.inject(b"".join(pieces))
        await pause(rng, 0.01)
    if rng.random() < 0.5:
        await wire.greet()


async def dialling_storm(world: World, rng: random.Random) -> None:
    """In and out again, with and without a word, before and after the greeting."""
    epoch = world.next_epoch() if rng.random() < 0.5 else None
    for _ in range(rng.randint(2, 6)):
        wire = world.dialler(epoch=epoch)
        wire.dial(world.victim_address)
        await wire.greet()
        if wire.connection is not None and rng.random() < 0.5:
            wire.connection.close(error_code=rng.choice([0, 1, 2**61]), reason_phrase="x" * rng.choice([0, 5, 900]))
            wire.transmit()


async def two_lives(world: World, rng: random.Random) -> None:
    """Two processes with one name, older and newer, and both talk."""
    first = await greeted(world, rng, listens=False)
    second = world.dialler(epoch=rng.choice([0, 1, first.epoch, first.epoch + 1]))
    second.dial(world.victim_address)
    await second.greet()
    for wire in (first, second, first):
        wire.say(world.one_of_a_kind(), channel=1)
        await pause(rng, 0.02)


async def hoarded_probes(world: World, rng: random.Random) -> None:
    """More visitors than may ask at a time, who ask nothing and stay; the operator still gets an answer."""
    for _ in range(PROBES_MAX + rng.randint(0, 2)):
        wire = world.dialler(epoch=PROBE_EPOCH)
        wire.dial(world.victim_address)
        await wire.greet()
    operator = world.dialler(world.cluster.identity("operator-1"), epoch=PROBE_EPOCH)
    operator.dial(world.victim_address)
    if not await operator.greet():
        world.wrong.append(f"the operator was kept out: {dict(world.victim.refused)}")


ATTACKS: Final[tuple[Attack, ...]] = (
    mutated_batches, mutated_frames, slow_frame, replays, foreign_batches, absurd_credit, bad_greetings,
    before_greeting, greeting_and_stop, before_acknowledgement, dialling_storm, two_lives, hoarded_probes,
)  # fmt: skip
