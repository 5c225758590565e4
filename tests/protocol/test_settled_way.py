"""The short way of qh3's connections, held to what the library does. Without sockets or clocks."""

from __future__ import annotations

from typing import Any

import pytest
from qh3.quic.connection import QuicConnection

from protocol.quic.backend import Address
from protocol.quic.qh3_connection import Qh3Connection
from tests.oracles.clusters import Cluster, make_cluster
from tests.protocol.test_qh3_contract import CLIENT_ADDRESS, SERVER_ADDRESS, Pair, heard


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("settled"))


class Recorder:
    """A core that only notes what it is asked, and tells what it is given."""

    def __init__(self, *told: tuple[Any, ...]) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._told = list(told)
        self._transmits: list[tuple[bytes, Address] | None] = [
            (b"\x40one", CLIENT_ADDRESS),
            (b"\x40two", CLIENT_ADDRESS),
        ]

    def receive_datagram(self, *arguments: Any) -> tuple[Any, ...]:
        self.asked.append(("receive_datagram", *arguments))
        return (0, 0, True, 0, False)

    def poll_transmit(self, now: float) -> tuple[bytes, Address] | None:
        self.asked.append(("poll_transmit", now))
        return self._transmits.pop(0) if self._transmits else None

    def next_event(self) -> tuple[Any, ...] | None:
        self.asked.append(("next_event",))
        return self._told.pop(0) if self._told else None

    def send_stream(self, *arguments: Any) -> None:
        self.asked.append(("send_stream", *arguments))

    def handshake_confirmed(self) -> None:
        self.asked.append(("handshake_confirmed",))


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_core_of_a_settled_connection_is_asked_what_the_library_asks(cluster: Cluster, side: str) -> None:
    """Our ways to and from the core leave out the library's looks for what only a handshake has, and nothing else."""
    pair = Pair(cluster)
    pair.exchange()
    pair.client.send_stream_data(4, b"the dialler opens it")
    pair.exchange()
    connection = getattr(pair, side)
    asked = []
    for ways in (Qh3Connection, QuicConnection):
        connection.short_way.close()
        core = connection._core = Recorder()
        ways.receive_datagram(connection, b"\x40" + bytes(40), SERVER_ADDRESS, 5.0)
        sent = ways.datagrams_to_send(connection, 6.0)
        assert sent == [(b"\x40one", CLIENT_ADDRESS), (b"\x40two", CLIENT_ADDRESS)]
        if ways is QuicConnection:
            connection.send_stream_data(4, b"more")
        else:
            assert [connection.short_way.write(4, b"more") for _ in range(2)] == [False, True]
        asked.append(core.asked)
    assert asked[0] == asked[1]
    assert asked[0][0] == ("receive_datagram", b"\x40" + bytes(40), SERVER_ADDRESS, 5.0, 41)


TOLD: list[tuple[Any, ...]] = [
    ("stream_data", False, 8, b"data"),
    ("datagram", b"frame"),
    ("stream_data", True, 8, b"and its end"),
    ("ping_acknowledged", 3),
    ("handshake_done",),
    ("connection_id_issued", b"12345678"),
    ("connection_id_retired", b"12345678"),
    ("stream_reset", 7, 8),
    ("stop_sending", 7, 8),
    ("stream_finished", 8),
]


@pytest.mark.parametrize("told", [TOLD, TOLD[::-1], TOLD[:1], TOLD[1:2], TOLD[:3]], ids=len)
def test_what_the_core_tells_becomes_what_the_library_makes_of_it(cluster: Cluster, told: list[Any]) -> None:
    pair = Pair(cluster)
    pair.exchange()
    connection = pair.client
    assert isinstance(connection, Qh3Connection)
    heard(connection)
    found = []
    for ways in (Qh3Connection, QuicConnection):
        connection.short_way.close()
        core = connection._core = Recorder(*told)
        ways.receive_datagram(connection, b"\x40" + bytes(40), SERVER_ADDRESS, 5.0)
        assert connection._core is core
        found.append((heard(connection), [each for each in core.asked if each != ("next_event",)]))
    assert found[0] == found[1] and found[0][0]


@pytest.mark.parametrize("side", ["client", "server"])
def test_no_short_way_leads_to_a_connection_that_is_ending(cluster: Cluster, side: str) -> None:
    """Neither where we have closed it, nor where the peer has, nor after the driver has forgotten it."""
    pair = Pair(cluster)
    pair.exchange()
    ends = [pair.client, pair.server]
    assert all(isinstance(end, Qh3Connection) and end.short_way.holds() for end in ends)
    getattr(pair, side).close(error_code=0, reason_phrase="done")
    pair.exchange(2)
    for end in ends:
        assert isinstance(end, Qh3Connection)
        assert end.closing is not None and not end.short_way.holds()
        assert not end.short_way.receive_usual(b"\x40" + bytes(40), SERVER_ADDRESS, pair.now)
        end.release()
        assert not end.short_way.holds()


def test_a_write_that_the_core_refuses_is_the_librarys_to_explain(cluster: Cluster) -> None:
    pair = Pair(cluster)
    pair.exchange()
    connection = pair.client
    assert isinstance(connection, Qh3Connection)
    connection.send_stream_data(4, b"one")
    assert [connection.short_way.write(4, b"two") for _ in range(2)] == [False, True]
    connection.reset_stream(4, 0)
    assert not connection.short_way.write(4, b"three")
    with pytest.raises(Exception, match="RESET_STREAM"):
        connection.send_stream_data(4, b"three")
