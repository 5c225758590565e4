"""Who is not let in, and who is shown the door: each refusal has a reason that both sides can count."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import messages as m
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.framing import HEADER, frame
from protocol.greeting import PROBE_EPOCH
from protocol.identity import Identity
from protocol.pki import Authority, Subject
from protocol.roster import Role, Roster
from tests.oracles.clusters import CLUSTER, CLUSTER_ID, TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import Recorder, Stranger, until

Call = Callable[..., Awaitable[Stranger]]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("refusals"))


@pytest.fixture
def cluster(issued: Cluster) -> Cluster:
    return issued.moved()


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


@pytest.fixture(params=TRANSPORT_PAIRS)
def transports(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The libraries of the stranger and of the listener."""
    dialler, listener = request.param.split(" dials ")
    return dialler, listener


@pytest.fixture
async def listener(cluster: Cluster, heard: Recorder, transports: tuple[str, str]) -> AsyncIterator[Endpoint]:
    """The agent risk-2, whom trader-1 and risk-1 dial."""
    endpoint = Endpoint(
        cluster.identity("risk-2"),
        cluster.roster,
        codec_for("capnp"),
        on_message=heard.on_message,
        on_peer_change=heard.on_peer_change,
        rng=random.Random(7),
        transport=transports[1],
    )
    await endpoint.start()
    yield endpoint
    await endpoint.close()


@pytest.fixture
async def call(cluster: Cluster, listener: Endpoint, transports: tuple[str, str]) -> AsyncIterator[Call]:
    """Connect a stranger to the listener."""
    strangers: list[Stranger] = []

    async def begin(
        who: str | Identity = "risk-1", *, epoch: int = 1, tune: Callable[[Any], None] = lambda settings: None
    ) -> Stranger:
        identity = cluster.identity(who) if isinstance(who, str) else who
        stranger = Stranger(identity, cluster.roster, epoch, transports[0])
        strangers.append(stranger)
        tune(stranger.driver._backend._client_settings)
        return await stranger.connect(cluster.agent("risk-2"))

    yield begin
    for stranger in strangers:
        stranger.stop()


def with_certificate(
    cluster: Cluster, subject: Subject, authority: Authority | None = None, now: datetime | None = None
) -> Identity:
    """risk-1's keys behind another certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (authority or cluster.authority).issue(subject, key.public_key(), now=now)
    return replace(cluster.identity("risk-1"), certificate=certificate, tls_key=key)


# --- during the TLS handshake ---


def _no_certificate(settings: Any) -> None:
    settings.certificate = settings.private_key = None


def _other_alpn(settings: Any) -> None:
    settings.alpn_protocols = ["h3"]


def _no_alpn(settings: Any) -> None:
    settings.alpn_protocols = None


ASKS_FOR_CERTIFICATES = pytest.mark.parametrize(
    "transports", [pair for pair in TRANSPORT_PAIRS if pair.endswith(" aioquic")], indirect=True
)


@ASKS_FOR_CERTIFICATES
@pytest.mark.parametrize(
    ("tune", "ours", "theirs"),
    [
        (_no_certificate, "certificate_missing", "certificate_missing"),
        (_other_alpn, "alpn", "alpn"),
        (_no_alpn, "alpn", "alpn"),
    ],
)
async def test_bad_handshake(
    call: Call, listener: Endpoint, heard: Recorder, tune: Callable[[Any], None], ours: str, theirs: str
) -> None:
    stranger = await call(tune=tune)
    closed = await stranger.ending()
    assert (closed.reason, closed.by_peer) == (theirs, True)
    await until(lambda: listener.refused[ours] == 1)
    assert heard.messages == [] and heard.changes == []


RISK_1 = Subject("risk-1", Role.RISK, "127.0.0.1")


@pytest.mark.parametrize(
    ("subject", "options", "reason"),
    [
        (RISK_1, {"authority": Authority.create(CLUSTER)}, "certificate_untrusted"),
        (RISK_1, {"now": datetime.now(UTC) - timedelta(days=3)}, "certificate_expired"),
        (RISK_1, {"now": datetime.now(UTC) + timedelta(days=3)}, "certificate_expired"),
        (Subject("risk-9", Role.RISK, ""), {}, "agent_unknown"),
        (Subject("risk-1", Role.EXECUTOR, ""), {}, "agent_unknown"),
        (RISK_1, {"authority": replace(Authority.create("elsewhere"))}, "certificate_untrusted"),
    ],
)
async def test_bad_certificate(
    call: Call, cluster: Cluster, listener: Endpoint, heard: Recorder, subject: Subject, options: Any, reason: str
) -> None:
    """Seen in the handshake where the library asks for it, in the greeting where it does not."""
    stranger = await call(with_certificate(cluster, subject, **options))
    await stranger.greet_or_end()
    closed = await stranger.ending()
    assert (closed.reason, closed.by_peer) == (reason, True)
    await until(lambda: listener.refused[reason] == 1)
    assert heard.messages == [] and heard.changes == []


async def test_certificate_of_the_right_authority_for_another_cluster(
    call: Call, cluster: Cluster, listener: Endpoint
) -> None:
    twin = replace(cluster.authority, cluster_name="elsewhere")
    stranger = await call(with_certificate(cluster, RISK_1, twin))
    await stranger.greet_or_end()
    assert (await stranger.ending()).reason == "agent_unknown"


async def test_dialler_refuses_a_listener_with_another_agents_certificate(cluster: Cluster) -> None:
    """risk-2 listens where risk-1 should be: same authority, wrong name."""
    swapped = replace(cluster.identity("risk-2"), agent=cluster.agent("risk-1"))
    impostor, heard = _endpoint(cluster, swapped)
    dialler, heard_dialler = _endpoint(cluster, cluster.identity("trader-1"))
    await impostor.start()
    await dialler.start()
    try:
        await until(lambda: dialler.refused["certificate_mismatch"] >= 1)
        assert dialler.statistics()["peers"]["risk-1"]["refused"]["certificate_mismatch"] >= 1
        assert heard.changes == [] and heard_dialler.changes == []
        assert impostor.last_refusal(0) is None, "the listener does not even know who it was"
    finally:
        await asyncio.gather(dialler.close(), impostor.close())


async def test_dialler_refuses_a_listener_with_another_signing_key(cluster: Cluster) -> None:
    forged = replace(cluster.identity("risk-1"), signing_key=Ed25519PrivateKey.generate())
    impostor, _ = _endpoint(cluster, forged)
    dialler, heard = _endpoint(cluster, cluster.identity("trader-1"))
    await impostor.start()
    await dialler.start()
    try:
        await until(lambda: dialler.refused["signature"] >= 1)
        await until(lambda: impostor.last_refusal(0) == "signature")
        assert heard.changes == []
    finally:
        await asyncio.gather(dialler.close(), impostor.close())


async def test_dialler_surfaces_why_it_was_refused(cluster: Cluster, listener: Endpoint) -> None:
    other = Roster(CLUSTER, bytes(16), cluster.roster.agents)
    dialler, _ = _endpoint(cluster, cluster.identity("risk-1"), other)
    await dialler.start()
    try:
        await until(lambda: dialler.last_refusal(2) == "cluster")
        assert dialler.statistics()["peers"]["risk-2"]["last_refusal"] == "cluster"
        assert listener.statistics()["peers"]["risk-1"]["refused"]["cluster"] >= 1
    finally:
        await dialler.close()


def _endpoint(cluster: Cluster, identity: Identity, roster: Roster | None = None) -> tuple[Endpoint, Recorder]:
    heard = Recorder()
    endpoint = Endpoint(
        identity,
        roster or cluster.roster,
        codec_for("capnp"),
        on_message=heard.on_message,
        on_peer_change=heard.on_peer_change,
        rng=random.Random(7),
    )
    return endpoint, heard


# --- during the greeting ---


async def _refused(stranger: Stranger, listener: Endpoint, reason: str) -> None:
    assert (await stranger.ending()).reason == reason
    assert stranger.received[-1] == m.Refused(reason)
    assert listener.refused[reason] == 1
    assert listener.connected == frozenset()


def _changed(**fields: Any) -> Callable[[m.Message], m.Message]:
    return lambda hello: msgspec.structs.replace(hello, **fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_changed(cluster_id=bytes(16)), "cluster"),
        (_changed(roster_digest=bytes(32)), "roster"),
        (_changed(agent=0), "identity"),
        (_changed(agent=999), "identity"),
        (_changed(epoch=2), "signature"),
        (_changed(signature=bytes(64)), "signature"),
        (lambda hello: m.StatusRequest(1, 1), "before_greeting"),
        (lambda hello: m.HelloAck(1, 1, bytes(32), bytes(64)), "before_greeting"),
    ],
)
async def test_bad_greeting(
    call: Call, listener: Endpoint, change: Callable[[m.Message], m.Message], reason: str
) -> None:
    stranger = await call()
    await stranger.greet(change)
    await _refused(stranger, listener, reason)


async def test_greeting_signed_for_another_session(call: Call, listener: Endpoint, transports: tuple[str, str]) -> None:
    first, second = await call(), await call()
    await first.established.wait()
    assert first.link is not None
    replayed = first.greeter.hello(first.link.exporter)
    await second.greet(lambda hello: replayed)
    await _refused(second, listener, "signature" if transports[1] == "aioquic" else "certificate_not_owned")


async def test_own_greeting_cannot_be_sent_back(call: Call, listener: Endpoint) -> None:
    """A listener's acknowledgement is signed for its direction."""
    stranger = await call()
    await stranger.greet(lambda hello: _as_listener(stranger))
    await _refused(stranger, listener, "signature")


def _as_listener(stranger: Stranger) -> m.Hello:
    assert stranger.link is not None
    answer = stranger.greeter.acknowledgement(stranger.link.exporter)
    return msgspec.structs.replace(stranger.greeter.hello(stranger.link.exporter), signature=answer.signature)


async def test_roles_without_business(call: Call, cluster: Cluster, listener: Endpoint) -> None:
    stranger = await call("venue-1")
    await stranger.greet()
    await _refused(stranger, listener, "role_pair")


async def test_only_the_first_of_a_pair_dials(call: Call, listener: Endpoint) -> None:
    stranger = await call("executor-1")
    await stranger.greet()
    await _refused(stranger, listener, "wrong_direction")


async def test_nothing_is_taken_before_the_greeting(call: Call, listener: Endpoint, heard: Recorder) -> None:
    stranger = await call()
    await stranger.established.wait()
    stranger.write(b"\x00", stream_id=0)
    stranger.write(b"\x01" + frame(b"early"), stream_id=4)
    await _refused(stranger, listener, "before_greeting")
    assert heard.messages == []


HALF_A_GREETING_BYTES = 600


async def test_nothing_rides_along_with_the_greeting(call: Call, listener: Endpoint, heard: Recorder) -> None:
    stranger = await call()
    said = bytearray()
    write, stranger.write = stranger.write, lambda data, stream_id=0: said.extend(data)  # type: ignore[method-assign]
    await stranger.greet()
    stranger.say(m.StatusRequest(1, 1))
    write(bytes(said[:HALF_A_GREETING_BYTES]))
    await asyncio.sleep(0.02)
    write(bytes(said[HALF_A_GREETING_BYTES:]))  # in one datagram, so before the answer
    await _refused(stranger, listener, "before_greeting")
    assert heard.messages == []


@pytest.mark.parametrize(
    ("data", "stream_id", "reason"),
    [
        (b"\x07", 0, "greeting_malformed"),
        (b"\x00" + frame(b"not a batch"), 0, "greeting_malformed"),
        (b"\x00" + HEADER.pack(5000, 1, 0), 0, "frame_too_large"),
        (b"\x00", 16, "stream_unknown"),
        (b"\x00", 2, "stream_unknown"),
    ],
)
async def test_malformed_greeting(call: Call, listener: Endpoint, data: bytes, stream_id: int, reason: str) -> None:
    stranger = await call()
    await stranger.established.wait()
    stranger.write(data, stream_id)
    assert (await stranger.ending()).reason == reason
    assert listener.refused[reason] == 1


async def test_a_stream_that_only_ends_is_no_opening(call: Call, listener: Endpoint) -> None:
    stranger = await call()
    await stranger.established.wait()
    assert stranger.link is not None
    stranger.link.connection.send_stream_data(4, b"", True)  # type: ignore[call-arg] - both libraries take it
    stranger.driver.touch(stranger.link)
    assert (await stranger.ending()).reason == "greeting_malformed"
    assert listener.refused["greeting_malformed"] == 1


async def test_silence_instead_of_a_greeting(call: Call, listener: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.quic.link.HANDSHAKE_TIMEOUT_S", 0.2)
    stranger = await call()
    assert (await stranger.ending()).reason == "handshake_timeout"
    assert listener.refused["handshake_timeout"] == 1


@pytest.mark.sources
async def test_probes_are_bounded(call: Call, listener: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.endpoint.PROBES_MAX", 2)
    probes = [await greeted(call, "operator-1", PROBE_EPOCH) for _ in range(3)]
    await _refused(probes[0], listener, "too_many_probes")
    assert [probe.closed for probe in probes[1:]] == [None, None]
    assert listener.statistics()["probes"] == 2


# --- after the greeting ---


async def greeted(call: Call, who: str = "risk-1", epoch: int = 1) -> Stranger:
    stranger = await call(who, epoch=epoch)
    await stranger.greet()
    assert isinstance(await stranger.answer(), m.HelloAck)
    return stranger


async def test_good_stranger_is_heard(call: Call, listener: Endpoint, heard: Recorder) -> None:
    stranger = await greeted(call)
    stranger.say(m.StatusRequest(5, 1))
    await until(lambda: heard.messages == [("risk-1", 0, m.StatusRequest(5, 1))])
    assert listener.connected == {1}


async def test_frame_too_large(call: Call, listener: Endpoint) -> None:
    stranger = await greeted(call)
    stranger.write(HEADER.pack(2**31, 1, 0), stream_id=4)
    assert (await stranger.ending()).reason == "frame_too_large"
    assert stranger.received == [m.Refused("frame_too_large")]
    await until(lambda: listener.connected == frozenset())
    assert listener.statistics()["peers"]["risk-1"]["refused"] == {"frame_too_large": 1}


REPORT = m.ExecutionReport("A", 1, 1, 48, 48, 0, 1, 1, 0, 0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("who", "epoch", "message"),
    [
        ("risk-1", 1, m.NewOrder("A", 0, 1, 0, 1, 1, 0)),
        ("risk-1", 1, REPORT),
        ("risk-1", 1, m.Hello(CLUSTER_ID, 1, 1, bytes(32), bytes(64))),
        ("operator-1", PROBE_EPOCH, m.SlotRequest(0, 0)),
        ("operator-1", 7, m.SlotRequest(0, 0)),
        ("risk-1", PROBE_EPOCH, m.SlotRequest(0, 0)),
        ("risk-2", PROBE_EPOCH, m.SlotRequest(0, 0)),
    ],
)
async def test_message_that_the_role_may_not_send(
    call: Call, listener: Endpoint, heard: Recorder, who: str, epoch: int, message: m.Message
) -> None:
    stranger = await greeted(call, who, epoch)
    stranger.say(m.StatusRequest(1, 1), message)  # the whole batch is thrown away
    stranger.say(m.StatusRequest(2, 1))
    await until(lambda: bool(heard.messages))
    assert heard.messages == [(who, 0, m.StatusRequest(2, 1))]
    assert listener._traffic[stranger.identity.agent.index].refused == {"role_not_allowed": 1}


async def test_a_batch_is_delivered_once(call: Call, listener: Endpoint, heard: Recorder) -> None:
    """The very bytes again, an older number, and the number of another channel: refused, counted, and not heard."""
    stranger = await greeted(call)
    stranger.say(m.Commit(0, 1, bytes(32), 1, bytes(64)), stream_id=4, number=401)
    stranger.say(m.Commit(0, 2, bytes(32), 1, bytes(64)), stream_id=8, number=406)
    await until(lambda: len(heard.messages) == 2)
    stranger.say(m.Commit(0, 1, bytes(32), 1, bytes(64)), stream_id=4, number=401)
    stranger.say(m.Commit(0, 3, bytes(32), 1, bytes(64)), stream_id=4, number=406)
    await until(lambda: sum(listener.statistics()["peers"]["risk-1"]["refused"].values()) == 2)
    refused = listener.statistics()["peers"]["risk-1"]["refused"]
    assert refused == {"replayed": 1, "wrong_channel": 1}
    stranger.say(m.Commit(0, 4, bytes(32), 1, bytes(64)), stream_id=4, number=405)
    await until(lambda: len(heard.messages) == 3)
    assert [message.sequence for _, _, message in heard.messages] == [1, 2, 4]


async def test_three_offences_and_out(call: Call, listener: Endpoint, heard: Recorder) -> None:
    stranger = await greeted(call)
    stranger.write(frame(b"rubbish!"), stream_id=4)
    stranger.say(m.StatusRequest(1, 1), sender=0)
    await until(lambda: sum(listener.statistics()["peers"]["risk-1"]["refused"].values()) == 2)
    assert listener.connected == {1}
    stranger.say(REPORT)
    assert (await stranger.ending()).reason == "offences"
    assert stranger.received == [m.Refused("offences")]
    assert heard.messages == [] and heard.changes == [("risk-1", True), ("risk-1", False)]
    again = await call()
    await again.greet()
    await _refused(again, listener, "banned")
    other = await greeted(call, "trader-1")
    assert listener.connected == {other.identity.agent.index}


async def test_refused_peer_is_not_dialled_while_it_is_banned(cluster: Cluster) -> None:
    dialler, _ = _endpoint(cluster, cluster.identity("trader-1"))
    other, _ = _endpoint(cluster, cluster.identity("risk-1"))
    await dialler.start()
    await other.start()
    try:
        await until(lambda: dialler.connected == {1})
        for _ in range(3):
            other.send(0, REPORT)
            await asyncio.sleep(0.01)
        await until(lambda: other.last_refusal(0) == "offences")
        await asyncio.sleep(0.3)
        assert dialler.connected == frozenset() == other.connected
        assert dialler.statistics()["peers"]["risk-1"]["refused"] == {"role_not_allowed": 3, "offences": 1}
    finally:
        await asyncio.gather(dialler.close(), other.close())


async def test_same_process_dials_again(call: Call, listener: Endpoint, heard: Recorder) -> None:
    first = await greeted(call, epoch=5)
    second = await greeted(call, epoch=5)
    assert (await first.ending()).reason == "replaced"
    second.say(m.StatusRequest(1, 1))
    await until(lambda: bool(heard.messages))
    assert heard.changes == [("risk-1", True), ("risk-1", False), ("risk-1", True)]
    assert listener.refused == {}


async def test_older_process_is_superseded(call: Call, listener: Endpoint) -> None:
    newer = await greeted(call, epoch=6)
    older = await call(epoch=5)
    await older.greet()
    assert (await older.ending()).reason == "superseded"
    assert newer.closed is None and listener.connected == {1}


async def test_a_newer_process_supersedes_every_connection_of_an_older_one(
    call: Call, listener: Endpoint, heard: Recorder
) -> None:
    retiring = await greeted(call, epoch=5)
    present = await greeted(call, epoch=5)
    assert retiring.closed is None, "it may say for a moment what is on its way"
    await greeted(call, epoch=6)
    assert [(await older.ending()).reason for older in (retiring, present)] == ["superseded", "superseded"]
    assert listener.connected == {1}


async def test_streams_that_end_end_the_connection(call: Call, listener: Endpoint) -> None:
    stranger = await greeted(call)
    assert stranger.link is not None
    stranger.link.connection.send_stream_data(4, b"", end_stream=True)
    stranger.driver.touch(stranger.link)
    assert (await stranger.ending()).reason == "stream_closed"
    await until(lambda: listener.connected == frozenset())


async def test_rubbish_on_the_socket_disturbs_nobody(call: Call, cluster: Cluster, listener: Endpoint) -> None:
    stranger = await greeted(call)
    rng = random.Random(11)
    target = cluster.agent("risk-2")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for size in [0, 1, 5, 8, 9, 20, 21, 22, 43, 1199, 1200, 1500, 9000] * 8:
            first = bytes([rng.choice([0x00, 0x40, 0xC0, 0xC3, 0xE0, 0xFF])])
            version = rng.choice([b"\0\0\0\1", b"\0\0\0\0", b"\x6b\x33\x43\xcf"])
            body = (first + version + b"\x08" + rng.randbytes(size))[:size]
            udp.sendto(body, (target.host, target.port))
    await until(lambda: listener.statistics()["socket"].get("stray_datagrams", 0) > 20)
    stranger.say(m.StatusRequest(1, 1))
    await until(lambda: listener.connected == {1} and listener.statistics()["peers"]["risk-1"]["messages_in"] == 1)
    assert listener.statistics()["socket"].get("closed_library_failure", 0) == 0
