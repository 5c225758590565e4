"""Back-pressure by credit: the pure accounts, and real endpoints with a reader that does not read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import messages as m
from protocol.batch import BatchLimits, Channel, frame
from protocol.codec import codec_for
from protocol.credit import MIB, WINDOW_BYTES, CreditIn, CreditOut
from protocol.endpoint import Endpoint
from protocol.errors import LocalMisuse, PeerViolation
from protocol.peer import Peer
from tests.oracles.clusters import Cluster, make_cluster
from tests.oracles.strangers import Recorder, Stranger, until

BULK = int(Channel.BULK)


@given(st.lists(st.tuples(st.integers(1, 200_000), st.booleans()), max_size=200))
def test_an_honest_sender_is_never_refused_and_never_stuck(steps: list[tuple[int, bool]]) -> None:
    """Whatever is handled when, the receiver holds a window and a batch at most, and the credit comes back."""
    out, receiver, held = CreditOut(), CreditIn(), []

    def handle() -> None:
        credit = receiver.handled(BULK, held.pop(0))
        if credit is not None:
            out.granted(credit)

    for size, handles in steps:
        if out.may_send(BULK):
            out.sent(BULK, size)
            receiver.received(BULK, size)
            held.append(size)
        elif not handles:
            assert sum(held) >= WINDOW_BYTES[BULK] / 2
        assert sum(held) <= WINDOW_BYTES[BULK] + 200_000
        if handles and held:
            handle()
    while held:
        handle()
    assert out.may_send(BULK)


def test_who_sends_without_credit_is_refused() -> None:
    receiver = CreditIn()
    receiver.received(BULK, WINDOW_BYTES[BULK])
    with pytest.raises(PeerViolation) as caught:
        receiver.received(BULK, 1)
    assert caught.value.reason == "credit_exceeded"
    receiver.received(int(Channel.ORDERS), 1)


def test_a_promise_that_could_not_be_sent_is_made_again() -> None:
    receiver, half = CreditIn(), WINDOW_BYTES[BULK] // 2
    receiver.received(BULK, half)
    first = receiver.handled(BULK, half)
    assert first == m.Credit(BULK, half)
    receiver.unsaid(first)
    receiver.received(BULK, 100)
    assert receiver.handled(BULK, 100) == m.Credit(BULK, half + 100)


@pytest.mark.parametrize(
    "credit", [m.Credit(0, 1), m.Credit(4, 1), m.Credit(3, 0), m.Credit(3, 4 * MIB + 1), m.Credit(3, 1)]
)
def test_promises_that_make_no_sense_are_refused(credit: m.Credit) -> None:
    with pytest.raises(PeerViolation) as caught:
        CreditOut().granted(credit)
    assert caught.value.reason == "credit_malformed"


def test_the_control_channel_needs_no_credit() -> None:
    out, receiver = CreditOut(), CreditIn()
    for _ in range(100):
        assert out.may_send(Channel.CONTROL)
        out.sent(Channel.CONTROL, MIB)
        receiver.received(Channel.CONTROL, MIB)
        assert receiver.handled(Channel.CONTROL, MIB) is None


# --- real endpoints ---


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("credit"))


@pytest.fixture(params=["aioquic", "qh3"])
async def pair(issued: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Endpoint, Endpoint, Recorder]]:
    cluster, running, heard = issued.moved(), [], [Recorder(), Recorder()]
    for agent_id, recorder in zip(("trader-1", "risk-1"), heard, strict=True):
        endpoint = Endpoint(
            cluster.identity(agent_id),
            cluster.roster,
            codec_for("capnp"),
            on_message=recorder.on_message,
            on_peer_change=recorder.on_peer_change,
            limits=BatchLimits(queue_max=200),
            rng=random.Random(7),
            transport=request.param,
        )
        await endpoint.start()
        running.append(endpoint)
    await until(lambda: running[0].connected == {1} and running[1].connected == {0})
    yield running[0], running[1], heard[1]
    await asyncio.gather(*(endpoint.close() for endpoint in running))


def bulk(number: int) -> m.Submit:
    return m.Submit(1, True, m.SignedCommand(1, 0, number.to_bytes(4, "big") + bytes(40_000), bytes(64)))


async def test_a_slow_reader_slows_the_sender_and_nobody_else(pair: tuple[Endpoint, Endpoint, Recorder]) -> None:
    sender, receiver, heard = pair
    slow: Peer = receiver._peers[0]
    slow.pause(Channel.BULK)
    taken = 0
    for _ in range(600):
        while sender.send(1, bulk(taken), channel=Channel.BULK):
            taken += 1
        await asyncio.sleep(0.001)
    traffic = sender.statistics()["peers"]["risk-1"]
    assert traffic["unsent"]["queue_full"] > 0
    assert heard.messages == []
    window = WINDOW_BYTES[Channel.BULK]
    assert window <= receiver.statistics()["peers"]["trader-1"]["held_bytes"] <= window + 100_000
    assert taken * 40_000 < window + 200 * 41_000 + 4 * 100_000, "the rest waits at the sender, bounded"
    assert not sender._peers[1].unsent, "nothing waits in the transport"

    assert sender.send(1, m.Commit(0, 1, bytes(32), 0, bytes(64)), channel=Channel.CONSENSUS)
    await until(lambda: len(heard.messages) == 1)

    slow.resume(Channel.BULK)
    await until(lambda: len(heard.messages) == 1 + taken, 10)
    numbers = [int.from_bytes(message.command.body[:4], "big") for _, _, message in heard.messages[1:]]  # type: ignore[attr-defined]
    assert numbers == list(range(taken))
    assert receiver.statistics()["peers"]["trader-1"]["held_bytes"] == 0
    assert receiver.refused == {} and sender.refused == {}


async def test_a_long_stream_never_runs_dry(pair: tuple[Endpoint, Endpoint, Recorder]) -> None:
    sender, receiver, heard = pair
    count = 3 * WINDOW_BYTES[Channel.BULK] // 40_000
    for number in range(count):
        message = bulk(number)
        await until(lambda message=message: sender.send(1, message, channel=Channel.BULK))  # type: ignore[misc]
    await until(lambda: len(heard.messages) == count, 20)
    assert receiver.statistics()["peers"]["trader-1"]["refused"] == {}


async def test_control_is_never_paused(pair: tuple[Endpoint, Endpoint, Recorder]) -> None:
    with pytest.raises(LocalMisuse):
        pair[1]._peers[0].pause(Channel.CONTROL)


async def test_a_stranger_that_ignores_credit_is_thrown_out(issued: Cluster) -> None:
    cluster, heard = issued.moved(), Recorder()
    listener = Endpoint(
        cluster.identity("risk-2"),
        cluster.roster,
        codec_for("capnp"),
        on_message=heard.on_message,
        on_peer_change=lambda agent, connected: _pause_all(listener),
    )
    await listener.start()
    stranger = await Stranger(cluster.identity("risk-1"), cluster.roster).connect(cluster.agent("risk-2"))
    try:
        await stranger.greet()
        await until(lambda: listener.connected == {1})
        piece: Any = bulk(0)
        for _ in range(150):
            stranger.say(piece, stream_id=12)
        assert (await stranger.ending()).reason == "credit_exceeded"
        assert listener.refused["credit_exceeded"] == 1
        assert heard.messages == []
    finally:
        stranger.stop()
        await listener.close()


def _pause_all(listener: Endpoint) -> None:
    for peer in listener._peers.values():
        peer.pause(Channel.BULK)


def test_framing_overhead_counts_too() -> None:
    assert len(frame(b"x" * 100)) == 108
