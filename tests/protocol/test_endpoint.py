"""Endpoints over real connections on 127.0.0.1: they talk, keep order, reconnect, and answer probes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from protocol import messages as m
from protocol.batch import BatchLimits, Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint, client_request
from protocol.errors import LocalMisuse, Unavailable, UsageError
from protocol.quic.settings import DATAGRAM_BYTES_MAX, profile_named
from protocol.roster import Roster
from tests.oracles.clusters import CLUSTER, CLUSTER_ID, TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.killed import kill
from tests.oracles.strangers import Recorder, until

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("endpoint"))


@pytest.fixture
def cluster(issued: Cluster) -> Cluster:
    return issued.moved()


@pytest.fixture(params=TRANSPORT_PAIRS)
async def start(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Endpoints of a cluster whose first agent, which dials all others, may use another library than they do."""
    running: list[Endpoint] = []
    dialler, listener = request.param.split(" dials ")

    async def begin(agent_id: str, **options: Any) -> tuple[Endpoint, Recorder]:
        recorder = Recorder()
        endpoint = Endpoint(
            options.pop("identity", None) or cluster.identity(agent_id),
            options.pop("roster", cluster.roster),
            codec_for(options.pop("codec", "capnp")),
            on_message=recorder.on_message,
            on_peer_change=recorder.on_peer_change,
            rng=random.Random(7),
            transport=dialler if agent_id == "trader-1" else listener,
            **options,
        )
        await endpoint.start()
        running.append(endpoint)
        return endpoint, recorder

    yield begin
    await asyncio.gather(*(endpoint.close() for endpoint in running))


def commit(sequence: int) -> m.Commit:
    return m.Commit(0, sequence, bytes(32), 0, bytes(64))


async def pair(start: Start, **options: Any) -> tuple[Endpoint, Recorder, Endpoint, Recorder]:
    low, heard_low = await start("trader-1", **options)
    high, heard_high = await start("risk-1", **options)
    await until(lambda: low.connected == {1} and high.connected == {0})
    return low, heard_low, high, heard_high


@pytest.mark.parametrize("options", [{"codec": "capnp"}, {"codec": "msgpack"}, {"busy_poll_s": 0.001}], ids=str)
async def test_a_pair_talks_both_ways(start: Start, options: dict[str, Any]) -> None:
    low, heard_low, high, heard_high = await pair(start, **options)
    assert low.send(1, commit(1), channel=Channel.CONSENSUS, trace=41)
    assert high.send(0, commit(2), channel=Channel.BULK, trace=42)
    await until(lambda: bool(heard_low.messages and heard_high.messages))
    assert heard_high.messages == [("trader-1", 41, commit(1))]
    assert heard_low.messages == [("risk-1", 42, commit(2))]
    assert heard_low.changes == [("risk-1", True)] and heard_high.changes == [("trader-1", True)]


async def test_everybody_meets_everybody_it_may_meet(start: Start, cluster: Cluster) -> None:
    names = [agent.id for agent in cluster.roster.agents if agent.id != "operator-1"]
    endpoints = {name: (await start(name))[0] for name in names}
    expected = {name: {0, 1, 2, 3} - {index} for index, name in enumerate(names)}
    expected["executor-1"] = {0, 1, 2, 4}
    expected["venue-1"] = {3}
    await until(lambda: all(endpoints[name].connected == expected[name] for name in names), 10)
    assert endpoints["trader-1"].broadcast(commit(1), channel=Channel.CONSENSUS) == 3
    assert set(endpoints["trader-1"].statistics()["peers"]) == {"risk-1", "risk-2", "executor-1"}
    assert set(endpoints["venue-1"].statistics()["peers"]) == {"executor-1"}


async def test_ten_thousand_messages_arrive_in_order(start: Start) -> None:
    low, _, high, heard = await pair(start, limits=BatchLimits(queue_max=20_000))
    for sequence in range(10_000):
        assert low.send(1, commit(sequence), channel=Channel.CONSENSUS)
        if sequence % 500 == 499:
            await asyncio.sleep(0)
    await until(lambda: len(heard.messages) == 10_000, 20)
    assert [message.sequence for _, _, message in heard.messages] == list(range(10_000))  # type: ignore[attr-defined]
    sent = low.statistics()["peers"]["risk-1"]
    received = high.statistics()["peers"]["trader-1"]
    assert sent["messages_out"] == received["messages_in"] + 1  # the greeting
    assert sent["batches_out"] < 1000
    assert received["refused"] == {} and sent["unsent"] == {}


async def test_a_batch_of_one_is_the_baseline(start: Start) -> None:
    low, _, _, heard = await pair(start, batch_max=1)
    before = low.statistics()["peers"]["risk-1"]["batches_out"]
    for sequence in range(20):
        low.send(1, commit(sequence))
    await until(lambda: len(heard.messages) == 20)
    assert low.statistics()["peers"]["risk-1"]["batches_out"] - before == 20


async def test_large_messages_cross_many_datagrams(start: Start) -> None:
    low, _, _, heard = await pair(start)
    body = random.Random(3).randbytes(900_000)
    command = m.SignedCommand(1, 0, body, bytes(64))
    assert low.send(1, m.Submit(1, True, command), channel=Channel.BULK)
    await until(lambda: bool(heard.messages), 10)
    assert heard.messages[0][2] == m.Submit(1, True, command)


async def test_send_never_blocks_and_says_no_when_the_queue_is_full(start: Start) -> None:
    low, _, _, heard = await pair(start, limits=BatchLimits(queue_max=3))
    taken = [low.send(1, commit(sequence)) for sequence in range(5)]
    assert taken == [True, True, True, False, False]
    await until(lambda: len(heard.messages) == 3)
    assert low.statistics()["peers"]["risk-1"]["unsent"] == {"queue_full": 2}


async def test_send_says_no_while_the_peer_does_not_read(start: Start) -> None:
    low, _, high, _ = await pair(start)
    high._driver._loop.remove_reader(high._driver._port._socket.fileno())  # type: ignore[attr-defined,union-attr]
    message = m.Submit(1, True, m.SignedCommand(1, 0, bytes(500_000), bytes(64)))
    taken = 0
    while low.send(1, message, channel=Channel.BULK):
        taken += 1
        await asyncio.sleep(0)
        assert taken < 100
    assert low.statistics()["peers"]["risk-1"]["unsent"] == {"window_full": 1}
    assert low.send(1, commit(1), channel=Channel.CONSENSUS)  # other channels have windows of their own


async def test_lingering_batches_leave_in_time(start: Start) -> None:
    low, _, _, heard = await pair(start, limits=BatchLimits(linger_ns=20_000_000))
    began = time.monotonic()
    low.send(1, commit(1), channel=Channel.ORDERS)
    await asyncio.sleep(0)
    low.send(1, commit(2), channel=Channel.ORDERS)
    await until(lambda: len(heard.messages) == 2)
    assert time.monotonic() - began >= 0.019
    low.send(1, commit(3), channel=Channel.CONSENSUS)
    await until(lambda: len(heard.messages) == 3, 1)


async def test_nobody_there_is_counted_and_nonsense_is_ours(start: Start) -> None:
    low, _ = await start("trader-1")
    assert low.send(1, commit(1)) is False
    assert low.broadcast(commit(1)) == 0
    assert low.statistics()["peers"]["risk-1"]["unsent"] == {"not_connected": 2}
    with pytest.raises(LocalMisuse):
        low.send(0, commit(1))
    with pytest.raises(LocalMisuse):
        low.send(99, commit(1))


@pytest.mark.parametrize("restarted", ["trader-1", "risk-1"])
async def test_reconnects_when_a_peer_restarts_on_its_port(start: Start, restarted: str) -> None:
    low, heard_low, high, heard_high = await pair(start)
    stays, heard, goes = (high, heard_high, low) if restarted == "trader-1" else (low, heard_low, high)
    await goes.close()
    await until(lambda: not stays.connected, 2)
    again, heard_again = await start(restarted)
    await until(lambda: bool(stays.connected and again.connected))
    assert heard.changes == [(restarted, True), (restarted, False), (restarted, True)]
    assert stays.statistics()["peers"][restarted]["reconnects"] == 1
    assert stays.send(next(iter(stays.connected)), commit(5))
    await until(lambda: len(heard_again.messages) == 1)


@pytest.mark.parametrize("restarted", ["trader-1", "risk-1"])
async def test_a_killed_peer_is_noticed_when_it_is_back(start: Start, restarted: str) -> None:
    low, heard_low, high, heard_high = await pair(start)
    stays, heard, goes = (high, heard_high, low) if restarted == "trader-1" else (low, heard_low, high)
    kill(goes)
    again, _ = await start(restarted)
    if restarted == "risk-1":
        stays.send(1, commit(1))  # whatever is sent next is answered by a reset: no wait for the idle time-out
    await until(lambda: heard.changes[1:] == [(restarted, False), (restarted, True)], 4)
    await until(lambda: bool(again.connected))


async def test_keeps_dialling_until_the_peer_is_there(
    start: Start, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.endpoint.DIAL_TIMEOUT_S", 0.1)
    low, _ = await start("trader-1")
    await until(lambda: low.statistics()["peers"]["risk-1"]["dials"] >= 2)
    line = low.statistics()["peers"]["risk-1"]
    assert line["refused"] == {} and low.refused == {}, "nobody is to blame"
    await start("risk-1")
    await until(lambda: low.connected == {1}, 6)


async def test_the_older_of_two_processes_with_one_id_is_told(start: Start, cluster: Cluster) -> None:
    older, _ = await start("trader-1", epoch=100)
    listener, heard = await start("risk-1")
    await until(lambda: listener.connected == {0})
    elsewhere = replace(cluster.agent("trader-1"), port=cluster.agent("operator-1").port)
    moved = Roster(CLUSTER, CLUSTER_ID, (elsewhere, *cluster.roster.agents[1:]))
    identity = replace(cluster.identity("trader-1"), agent=elsewhere)
    newer, _ = await start("trader-1", epoch=200, identity=identity, roster=moved)
    await until(lambda: older.last_refusal(1) == "superseded")
    await until(lambda: newer.connected == {1})
    await asyncio.sleep(0.3)  # the older one keeps trying, in vain
    assert older.connected == frozenset() and newer.connected == {1}
    assert listener.refused["superseded"] >= 2
    assert older.statistics()["peers"]["risk-1"]["last_refusal"] == "superseded"
    assert heard.changes == [("trader-1", True), ("trader-1", False), ("trader-1", True)]


async def test_close_is_quick_and_peers_know(start: Start, cluster: Cluster) -> None:
    endpoints = [(await start(agent.id))[0] for agent in cluster.roster.voters]
    await until(lambda: all(len(endpoint.connected) == 3 for endpoint in endpoints), 10)
    began = time.monotonic()
    await endpoints[1].close()
    assert time.monotonic() - began < 0.5
    await until(lambda: all(1 not in endpoint.connected for endpoint in endpoints), 1)
    await endpoints[1].close()


async def test_what_was_sent_before_close_still_arrives(start: Start) -> None:
    low, _, _, heard = await pair(start)
    assert low.send(1, commit(9))
    await low.close()
    await until(lambda: len(heard.messages) == 1, 1)


async def test_port_in_use(start: Start, cluster: Cluster) -> None:
    await start("risk-1")
    with pytest.raises(UsageError, match=rf"127.0.0.1:{cluster.agent('risk-1').port} .*in use.*another port") as caught:
        await start("risk-1")
    assert "\n" not in str(caught.value)


async def test_profile_loopback_is_refused_elsewhere(start: Start, cluster: Cluster) -> None:
    far = replace(cluster.agent("risk-1"), host="10.1.2.3")
    roster = Roster(CLUSTER, CLUSTER_ID, (cluster.roster.agents[0], far, *cluster.roster.agents[2:]))
    with pytest.raises(UsageError, match=r"'risk-1' is at 10.1.2.3.*set profile 'lan'"):
        await start("trader-1", roster=roster)


async def test_profiles_are_checked() -> None:
    assert profile_named("loopback").max_datagram_bytes == 16384
    assert profile_named("lan", 8952).max_datagram_bytes == 8952
    with pytest.raises(UsageError, match="choose one of loopback, lan, wan"):
        profile_named("moon")
    for size in (1199, DATAGRAM_BYTES_MAX + 1):
        with pytest.raises(UsageError, match="is out of range"):
            profile_named("lan", size)


@pytest.mark.parametrize("profile", ["lan", "wan"])
async def test_other_profiles_work_too(start: Start, profile: str) -> None:
    low, _, _, heard = await pair(start, profile=profile)
    for sequence in range(200):
        low.send(1, commit(sequence))
    await until(lambda: len(heard.messages) == 200)
    assert low.statistics()["profile"] == profile


async def test_a_host_name_is_resolved(start: Start, cluster: Cluster) -> None:
    named = replace(cluster.agent("risk-1"), host="localhost")
    roster = Roster(CLUSTER, CLUSTER_ID, (cluster.roster.agents[0], named, *cluster.roster.agents[2:]))
    low, _ = await start("trader-1", roster=roster)
    await start("risk-1", roster=roster, identity=replace(cluster.identity("risk-1"), agent=named))
    await until(lambda: low.connected == {1})


def answer(peer: Any, trace: int, message: m.Message) -> None:
    if isinstance(message, m.StatusRequest):
        assert peer.send(m.StatusReply(message.nonce, b'{"state":"live"}'), trace=trace)


async def test_operator_asks_for_the_status(start: Start, cluster: Cluster) -> None:
    risk, heard = await start("risk-1")
    heard.handler = answer
    request = m.StatusRequest(77, 1)
    target = cluster.agent("risk-1")
    for asker in ("operator-1", "risk-1", "trader-1"):  # a person, the agent's own health check, a colleague
        reply = await client_request(cluster.identity(asker), cluster.roster, target, request, 5)
        assert reply == m.StatusReply(77, b'{"state":"live"}')
    assert heard.changes == [] and risk.connected == frozenset()
    await until(lambda: risk.statistics()["probes"] == 0)


async def test_a_probe_does_not_disturb_the_connection(start: Start, cluster: Cluster) -> None:
    _, _, high, heard = await pair(start)
    heard.handler = answer
    target = cluster.agent("risk-1")
    await client_request(cluster.identity("trader-1"), cluster.roster, target, m.StatusRequest(1, 0), 5)
    assert high.connected == {0} and heard.changes == [("trader-1", True)]


async def test_status_of_nobody_is_unavailable(cluster: Cluster) -> None:
    target = cluster.agent("risk-1")
    with pytest.raises(Unavailable, match=r"did not answer within 0.3 s"):
        await client_request(cluster.identity("operator-1"), cluster.roster, target, m.StatusRequest(1, 0), 0.3)


async def test_statistics_tell_what_the_kernel_granted(start: Start) -> None:
    low, _, high, _ = await pair(start)
    socket = low.statistics()["socket"]
    assert socket["receive_buffer_bytes"] > 0 and socket["send_buffer_bytes"] > 0
    assert socket["datagrams_out"] > 0 and socket["bytes_in"] > 0
    low.send(1, commit(1))
    await until(lambda: high.statistics()["peers"]["trader-1"]["rtt_ms"] > 0)


def test_uvloop_carries_the_same(issued: Cluster) -> None:
    cluster = issued.moved()

    async def exchange() -> list[int]:
        heard = Recorder()
        endpoints = [
            Endpoint(
                cluster.identity(agent_id),
                cluster.roster,
                codec_for("capnp"),
                on_message=heard.on_message,
                on_peer_change=heard.on_peer_change,
            )
            for agent_id in ("trader-1", "risk-1")
        ]
        for endpoint in endpoints:
            await endpoint.start()
        await until(lambda: endpoints[0].connected == {1})
        for sequence in range(1000):
            assert endpoints[0].send(1, commit(sequence))
        await until(lambda: len(heard.messages) == 1000)
        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))
        return [message.sequence for _, _, message in heard.messages]  # type: ignore[attr-defined]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(exchange()) == list(range(1000))
