"""The public feed: a question with the first packet, answered once; and the swarm's port, where nothing is early."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import structlog
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite, SessionTicket
from cryptography import x509

from protocol import messages as m
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import PeerViolation, Unavailable
from protocol.feed import CODEC, FEED_PROFILE, FEED_STREAM, Feed, encoded
from protocol.feed_client import Answer, Session, ask_feed
from protocol.feed_tickets import Nonces, Tickets
from protocol.framing import frame
from protocol.pki import SERVER, admit
from protocol.quic.connection import quic_configuration
from protocol.quic.feed_connection import FeedConnection, visit
from protocol.quic.settings import ALPN
from protocol.roster import Agent
from tests.oracles.clusters import Cluster, free_ports, make_cluster
from tests.oracles.strangers import Recorder, until

PICTURE = b'{"state": "ready"}' * 20
Check = Callable[[x509.Certificate], Agent]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("feed"))


@dataclass
class Town:
    """risk-1 has a feed; anybody asks."""

    cluster: Cluster
    port: int
    feed: Feed
    pictures: int = 0

    async def ask(self, session: Session | None = None, who: str = "risk-1", timeout_s: float = 5.0) -> Answer:
        authorities, check = self.cluster.identity("risk-2").authorities, self.check(who)
        target = self.cluster.agent(who)
        return await ask_feed(target, self.address, authorities, check, session, timeout_s=timeout_s)

    def check(self, who: str = "risk-1") -> Check:
        return lambda certificate: admit(self.cluster.roster, certificate, SERVER, self.cluster.agent(who))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def session(self) -> Session:
        found = (await self.ask()).session
        assert found is not None
        return found

    def restart(self) -> None:
        self.feed.close()
        self.feed = open_feed(self.cluster, self.port, lambda: PICTURE)


def open_feed(cluster: Cluster, port: int, picture: Callable[[], bytes]) -> Feed:
    feed = Feed(cluster.identity("risk-1"), picture, logger=structlog.get_logger())
    feed.open("127.0.0.1", port)
    return feed


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may be late with the next session."""
    monkeypatch.setattr("protocol.feed_client.TICKET_WAIT_S", 10.0)


@pytest.fixture
async def town(issued: Cluster) -> AsyncIterator[Town]:
    port = free_ports(1)[0]
    made = Town(issued, port, open_feed(issued, port, lambda: PICTURE))
    yield made
    made.feed.close()


async def test_the_first_question_waits_for_the_handshake_and_the_next_does_not(town: Town) -> None:
    first = await town.ask()
    assert (first.body, first.early) == (PICTURE, "none")
    second = await town.ask(first.session)
    assert (second.body, second.early) == (PICTURE, "accepted")
    third = await town.ask(second.session)
    assert third.early == "accepted", "a resumed session gives a ticket too"
    assert town.feed.statistics() == {
        "answers": 1, "answers_early": 2, "tickets_issued": 3, "tickets_used": 2, "tickets_kept": 1,
    }  # fmt: skip


async def test_a_session_is_good_for_one_visit(town: Town) -> None:
    session = await town.session()
    assert (await town.ask(session)).early == "accepted"
    again = await town.ask(session)
    assert (again.body, again.early) == (PICTURE, "rejected"), "and answered all the same, after the handshake"
    assert town.feed.statistics()["answers_early"] == 1


async def test_a_restart_and_a_new_certificate_forget_all_sessions(town: Town) -> None:
    session = await town.session()
    town.feed.reload(town.cluster.identity("risk-1"))
    assert (await town.ask(session)).early == "rejected"
    session = await town.session()
    town.restart()
    assert (await town.ask(session)).early == "rejected"


async def test_a_forged_ticket_is_rejected(town: Town) -> None:
    session = await town.session()
    forged = msgspec.structs.replace(session, ticket=bytes(64))
    assert (await town.ask(forged)).early == "rejected"
    with pytest.raises(Unavailable, match="PSK validation failed"):  # the right label, not the secret
        await town.ask(msgspec.structs.replace(session, resumption_secret=bytes(32)))
    assert town.feed.statistics().get("answers_early", 0) == 0


async def test_a_session_is_not_resumed_when_its_certificate_is_not_good_any_more(town: Town) -> None:
    session = await town.session()
    now = datetime.now(UTC)
    assert session.resumable(town.check(), now) is not None
    assert session.resumable(town.check(), now + timedelta(days=2)) is None
    assert session.resumable(town.check("risk-2"), now) is None
    assert msgspec.structs.replace(session, certificate=b"x").resumable(town.check(), now) is None

    def revoked(certificate: x509.Certificate) -> Agent:
        raise PeerViolation("certificate_revoked")

    assert session.resumable(revoked, now) is None


async def test_the_feed_has_to_show_the_agents_certificate(town: Town) -> None:
    with pytest.raises(Unavailable, match="certificate_mismatch"):
        await town.ask(who="risk-2")


async def test_nobody_there_is_one_line() -> None:
    cluster_port = free_ports(1)[0]
    target = Agent("risk-1", None, 0, "", 0, True, b"")  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="the feed of risk-1"):
        await ask_feed(target, ("127.0.0.1", cluster_port), b"", lambda _: target, timeout_s=0.5)


async def test_the_picture_is_not_made_for_each_who_asks(issued: Cluster) -> None:
    made: list[None] = []

    def picture() -> bytes:
        made.append(None)
        return PICTURE

    now = [5.0]
    feed = Feed(issued.identity("risk-1"), picture, logger=structlog.get_logger(), clock=lambda: now[0])
    for nonce in range(50):
        feed.answer(m.StatusRequest(nonce, 0), early=False)
    assert len(made) == 1
    now[0] += 1
    feed.answer(m.StatusRequest(1, 0), early=False)
    assert len(made) == 2


def test_only_the_one_question_and_no_early_nonce_twice(issued: Cluster) -> None:
    feed = Feed(issued.identity("risk-1"), lambda: PICTURE, logger=structlog.get_logger())
    for question in (m.StatusRequest(1, 1), m.SlotRequest(0, 0), m.Commit(0, 1, bytes(32), 0, bytes(64))):
        with pytest.raises(PeerViolation, match="role_not_allowed"):
            feed.answer(question, early=True)
    feed.answer(m.StatusRequest(7, 0), early=True)
    with pytest.raises(PeerViolation, match="nonce_repeated"):
        feed.answer(m.StatusRequest(7, 0), early=True)
    feed.answer(m.StatusRequest(7, 0), early=False)


def test_tickets_are_bounded_and_taken_once() -> None:
    tickets = Tickets(limit=3, lifetime_s=10)
    for number in range(5):
        tickets.keep(bytes([number]), number, now=100.0)
    assert len(tickets) == 3
    assert [tickets.take(bytes([number]), 100.0) for number in (0, 1, 4, 4)] == [None, None, 4, None]
    assert tickets.take(bytes([2]), 110.1) is None, "too old"
    assert tickets.take(bytes([3]), 110.0) == 3
    tickets.keep(b"a", 1, now=0.0)
    tickets.forget()
    assert len(tickets) == 0 and tickets.take(b"a", 0.0) is None


def test_nonces_are_bounded() -> None:
    nonces = Nonces(limit=2)
    assert [nonces.fresh(number) for number in (1, 2, 2, 3, 1, 3)] == [True, True, False, True, True, False]


# --- byte for byte ---


@dataclass
class Wire(asyncio.DatagramProtocol):
    """A socket of the attacker's: sends recorded datagrams, keeps what comes back."""

    received: list[bytes] = field(default_factory=list)
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    yield made
    made.transport.close()


def first_flight(town: Town, session: Session, question: m.Message) -> tuple[FeedConnection, list[bytes]]:
    """What a visitor with a session sends before it has heard anything."""
    ticket = session.resumable(town.check(), datetime.now(UTC))
    authorities = town.cluster.identity("risk-2").authorities
    connection = visit(authorities, FEED_PROFILE, town.check(), ticket, lambda ticket: None)
    connection.connect(town.address, now=time.monotonic())
    connection.send_stream_data(FEED_STREAM, encoded(question))
    return connection, [data for data, _ in connection.datagrams_to_send(time.monotonic())]


async def test_a_recorded_first_flight_is_served_once(town: Town, wire: Wire) -> None:
    _, flight = first_flight(town, await town.session(), m.StatusRequest(11, 0))
    for repetition in range(3):  # while the connection lives, and anew
        for data in flight:
            wire.transport.sendto(data, town.address)
        await until(lambda: town.feed.statistics().get("answers_early") == 1)
        await asyncio.sleep(0.1)
        if repetition == 1:
            for link in list(town.feed._driver._links):
                town.feed._driver._forget(link)
    await until(lambda: town.feed.statistics().get("tickets_unknown") == 1)  # the second connection found it used
    statistics = town.feed.statistics()
    assert statistics["answers_early"] == 1 and statistics["answers"] == 1  # the latter got us the session


async def test_an_address_that_is_not_validated_gets_three_times_its_bytes_at_most(town: Town, wire: Wire) -> None:
    town.feed._picture = lambda: b"x" * 60_000
    _, flight = first_flight(town, await town.session(), m.StatusRequest(12, 0))
    assert len(town.feed._picture()) > 10 * sum(map(len, flight))
    for data in flight:
        wire.transport.sendto(data, town.address)
    await until(lambda: town.feed.statistics().get("answers_early") == 1)
    await asyncio.sleep(1.2)  # several probe timeouts
    assert 0 < sum(map(len, wire.received)) <= 3 * sum(map(len, flight))


@pytest.mark.parametrize(
    ("data", "stream_id", "says"),
    [
        (b"\x00" * 8, 0, "frame_version"),
        (encoded(m.SlotRequest(0, 0)), 0, "role_not_allowed"),
        (encoded(m.StatusRequest(1, 1)), 0, "role_not_allowed"),
        (encoded(m.StatusRequest(1, 0)) * 2, 0, "role_not_allowed"),
        (encoded(m.StatusReply(1, bytes(2000))), 0, "frame_too_large"),
        (encoded(m.StatusRequest(1, 0)), 4, "stream_unknown"),
    ],
)
async def test_anything_else_ends_the_visit_and_is_counted(town: Town, data: bytes, stream_id: int, says: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.feed_client.FEED_STREAM", stream_id)
        patch.setattr("protocol.feed_client.encoded", lambda question: data)
        with pytest.raises(Unavailable, match=says):
            await town.ask()
    assert town.feed.statistics()[f"refused_{says}"] == 1
    assert (await town.ask()).body == PICTURE, "and nobody else is hurt"


# --- the swarm's own port ---

VOTE = b"\x00" + frame(
    CODEC.encode_batch(BatchHeader(1, 0, 4, 0), [Envelope(0, m.Commit(0, 1, bytes(32), 0, bytes(64)))])
)


@pytest.fixture(params=["aioquic", "qh3"])
async def listener(
    issued: Cluster, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Endpoint, Recorder, Cluster]]:
    cluster, heard = issued.moved(), Recorder()
    endpoint = Endpoint(
        cluster.identity("risk-2"),
        cluster.roster,
        codec_for("capnp"),
        on_message=heard.on_message,
        on_peer_change=heard.on_peer_change,
        rng=random.Random(7),
        transport=request.param,
    )
    await endpoint.start()
    yield endpoint, heard, cluster
    await endpoint.close()


def swarm_client(cluster: Cluster, ticket: SessionTicket | None, tickets: list[SessionTicket]) -> QuicConnection:
    """A member's connection to the swarm's port that takes tickets, and offers one."""
    settings = quic_configuration(cluster.identity("trader-1"), FEED_PROFILE, is_client=True)
    assert settings.alpn_protocols == [ALPN]
    settings.session_ticket = ticket
    return QuicConnection(configuration=settings, session_ticket_handler=tickets.append)


async def converse(
    connection: QuicConnection, address: tuple[str, int], early: bytes, done: Callable[[list[Any]], bool]
) -> list[Any]:
    """Send ``early`` with the first packet and listen until it is done, and a little longer; all events."""
    wire, loop, events = Wire(), asyncio.get_running_loop(), []
    await loop.create_datagram_endpoint(lambda: wire, local_addr=("127.0.0.1", 0))
    connection.connect(address, now=time.monotonic())
    connection.send_stream_data(0, early)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        if done(events):
            until_s = min(until_s, time.monotonic() + 0.2)
            done = _never
        for data, _ in connection.datagrams_to_send(time.monotonic()):
            wire.transport.sendto(data, address)
        await asyncio.sleep(0.005)
        for data in wire.received:
            connection.receive_datagram(data, address, time.monotonic())
        wire.received.clear()
        timer = connection.get_timer()
        if timer is not None and timer <= time.monotonic():
            connection.handle_timer(time.monotonic())
        while (event := connection.next_event()) is not None:
            events.append(event)
    wire.transport.close()
    return events


def _never(events: list[Any]) -> bool:
    return False


def names(events: list[Any]) -> set[str]:
    return {type(event).__name__ for event in events}


async def test_the_swarms_port_gives_no_tickets(listener: tuple[Endpoint, Recorder, Cluster]) -> None:
    _, heard, cluster = listener
    tickets: list[SessionTicket] = []
    connection = swarm_client(cluster, None, tickets)

    def greeted(events: list[Any]) -> bool:
        return "HandshakeCompleted" in names(events)

    events = await converse(connection, ("127.0.0.1", cluster.agent("risk-2").port), b"", greeted)
    assert "HandshakeCompleted" in names(events), "it was a good handshake"
    assert tickets == [] and heard.messages == []


async def test_the_swarms_port_takes_nothing_early(listener: tuple[Endpoint, Recorder, Cluster], town: Town) -> None:
    """With a ticket of a feed of the same cluster, and with one that never existed."""
    endpoint, heard, cluster = listener
    session = await town.session()
    captured = session.resumable(town.check(), datetime.now(UTC))
    assert captured is not None

    def refused(count: int) -> Callable[[list[Any]], bool]:
        return lambda events: endpoint.refused["before_greeting"] == count

    forged = SessionTicket(
        1, CipherSuite(session.cipher_suite), session.not_valid_after, session.not_valid_before, bytes(32), None,
        bytes(64), session.max_early_data_size, session.other_extensions,
    )  # fmt: skip
    for number, ticket in enumerate((captured, forged), start=1):
        connection = swarm_client(cluster, ticket, [])
        events = await converse(connection, ("127.0.0.1", cluster.agent("risk-2").port), VOTE, refused(number))
        assert not connection.tls.early_data_accepted and not connection.tls.session_resumed
        assert "HandshakeCompleted" in names(events), "a full one"
        assert endpoint.refused["before_greeting"] == number, "and what was sent early came after it, to no avail"
    assert heard.messages == [] and heard.changes == [] and endpoint.connected == frozenset()
    assert (await town.ask(session)).early == "accepted", "the ticket itself was good"


async def test_a_recorded_first_flight_of_the_swarm_is_worth_nothing(
    listener: tuple[Endpoint, Recorder, Cluster], town: Town, wire: Wire
) -> None:
    endpoint, heard, cluster = listener
    ticket = (await town.session()).resumable(town.check(), datetime.now(UTC))
    connection = swarm_client(cluster, ticket, [])
    address = ("127.0.0.1", cluster.agent("risk-2").port)
    connection.connect(address, now=time.monotonic())
    connection.send_stream_data(0, VOTE)
    flight = [data for data, _ in connection.datagrams_to_send(time.monotonic())]
    for _ in range(3):
        for data in flight:
            wire.transport.sendto(data, address)
        await asyncio.sleep(0.1)
    await until(lambda: bool(wire.received))  # the handshake is answered
    assert heard.messages == [] and heard.changes == [] and endpoint.connected == frozenset()
    assert endpoint.refused.total() == 0, "nothing of it was even looked at"
