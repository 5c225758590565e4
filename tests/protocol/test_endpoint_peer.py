"""One connection without a network: what happens when a lost packet lets batches overtake the greeting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from profiling.clock import now_ns
from protocol import messages as m
from protocol.batch import BatchLimits, Channel
from protocol.codec import codec_for
from protocol.errors import PeerViolation
from protocol.greeting import Greeter
from protocol.identity import Verifier
from protocol.intake import EARLY_BYTES_MAX
from protocol.peer import Peer, Traffic
from protocol.quic.link import Closed, Link
from protocol.roster import Agent
from tests.oracles.clusters import Cluster, make_cluster

pytestmark = pytest.mark.sources

QUESTION = m.StatusRequest(3, 1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("peer"))


@dataclass
class Wire:
    """A connection that only writes down what is written to it."""

    certified: Agent
    exporter: bytes = bytes(32)
    closed: bool = False
    greeted: bool = False
    written: list[tuple[int, bytes]] = field(default_factory=list)
    connection: Any = field(default_factory=lambda: SimpleNamespace(round_trip_s=0.0))

    def write(self, stream_id: int, data: bytes) -> None:
        self.written.append((stream_id, data))

    def close(self, code: int, reason: str) -> None:
        self.closed = True

    def unsent_bytes(self, stream_id: int) -> int:
        return 0

    def has_stream(self, stream_id: int) -> bool:
        return True


class Host:
    """An endpoint that lets everybody in and remembers what it is told."""

    def __init__(self, cluster: Cluster, agent_id: str, epoch: int) -> None:
        self.codec = codec_for("capnp")
        self.limits = BatchLimits()
        self.greeter = Greeter(cluster.identity(agent_id), cluster.roster, Verifier(cluster.roster), epoch)
        self.traffic = Traffic()
        self.messages: list[tuple[int, m.Message]] = []
        self.gone: list[Closed] = []
        self.ask_on_greeting = False

    def traffic_of(self, agent: Agent) -> Traffic:
        return self.traffic

    def reason_to_refuse(self, peer: Peer) -> str | None:
        return None

    def on_greeted(self, peer: Peer) -> None:
        if self.ask_on_greeting:
            peer.send(QUESTION, channel=Channel.CONTROL, trace=8)
            peer.send(QUESTION, channel=Channel.CONSENSUS, trace=9)
            peer.flush(now_ns())

    def on_message(self, peer: Peer, trace: int, message: m.Message) -> None:
        self.messages.append((trace, message))

    def on_offence(self, peer: Peer, violation: PeerViolation) -> bool:
        return False

    def on_gone(self, peer: Peer, closed: Closed) -> None:
        self.gone.append(closed)

    def want_flush(self, peer: Peer) -> None:
        return


Ends = tuple[Host, Peer, Wire, Host, Peer, Wire]


@pytest.fixture
def ends(cluster: Cluster) -> Ends:
    """A dialler that has not yet heard its listener, which has already greeted and asked on two streams."""
    dialler_host, listener_host = Host(cluster, "trader-1", 5), Host(cluster, "risk-1", 6)
    listener_host.ask_on_greeting = True
    dialler, listener = Peer(dialler_host, cluster.agent("risk-1")), Peer(listener_host, None)
    to_listener, to_dialler = Wire(cluster.agent("risk-1")), Wire(cluster.agent("trader-1"))
    listener.on_established(cast(Link, to_dialler))
    dialler.on_established(cast(Link, to_listener))
    for stream_id, data in to_listener.written:
        listener.on_data(cast(Link, to_dialler), stream_id, data)
    assert listener.greeted and not dialler.greeted
    return dialler_host, dialler, to_listener, listener_host, listener, to_dialler


def deliver(peer: Peer, wire: Wire, pieces: list[tuple[int, bytes]]) -> None:
    for stream_id, data in pieces:
        peer.on_data(cast(Link, wire), stream_id, data)


@pytest.mark.parametrize("order", [lambda pieces: pieces, lambda pieces: pieces[::-1]])
def test_batches_that_overtake_the_greeting_are_kept(
    ends: Ends, order: Callable[[list[tuple[int, bytes]]], list[tuple[int, bytes]]]
) -> None:
    host, dialler, wire, _, _, answers = ends
    control = b"".join(data for stream_id, data in answers.written if stream_id == 0)
    others = [piece for piece in answers.written if piece[0] != 0]
    assert len(others) == 1
    deliver(dialler, wire, order([(0, control), *others]))
    assert dialler.greeted and not wire.closed
    assert sorted(host.messages) == [(8, QUESTION), (9, QUESTION)]


def test_greeting_that_arrives_byte_by_byte(ends: Ends) -> None:
    host, dialler, wire, _, _, answers = ends
    deliver(dialler, wire, [(s, data[i : i + 1]) for s, data in answers.written for i in range(len(data))])
    assert dialler.greeted
    assert sorted(host.messages) == [(8, QUESTION), (9, QUESTION)]


def test_what_overtakes_is_bounded(ends: Ends) -> None:
    host, dialler, wire, _, _, _ = ends
    deliver(dialler, wire, [(12, bytes(EARLY_BYTES_MAX // 2))] * 3)
    assert wire.closed and host.gone[0].reason == "before_greeting"


def test_refusal_before_the_greeting_is_surfaced(ends: Ends) -> None:
    host, dialler, wire, _, listener, answers = ends
    answers.written.clear()
    listener.refuse("superseded")
    deliver(dialler, wire, answers.written)
    assert host.traffic.last_refusal == "superseded"
    assert host.gone == [Closed("superseded", by_peer=True)]
    assert not dialler.send(QUESTION) and host.traffic.unsent == {"not_connected": 1}


def test_a_reason_out_of_nowhere_is_not_repeated(ends: Ends) -> None:
    host, dialler, wire, _, listener, answers = ends
    answers.written.clear()
    listener.refuse("<b>anything</b>")
    deliver(dialler, wire, answers.written)
    assert host.traffic.last_refusal == "other"
