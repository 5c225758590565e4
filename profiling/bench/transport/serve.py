"""The far end of a benchmark, in a process of its own: ``python -m profiling.bench.transport.serve WHAT ...``.

A message is sent back unless it says that it is only to be counted. Every line on standard input is answered with this
process's processor time in nanoseconds and the datagrams that it has sent; the end of the input ends the process.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from profiling.bench.transport.site import HOST, Site
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.identity import load_identity
from protocol.messages import Message, Submit
from protocol.peer import Peer
from protocol.quic.backend import TRANSPORTS

LENGTH_BYTES: Final = 4
ALPN: Final = "bench"
POLLING: Final = "ours/aioquic/polling"
BUSY_POLL_S: Final = 100e-6
COUNT_ONLY: Final = 1 << 31
"""Bit of a length prefix: the message is not sent back."""


async def ours(site: Site, agent_id: str, transport: str, busy_poll_s: float = 0.0) -> Callable[[], int]:
    """An agent's endpoint that answers every message. Returns its counter of datagrams."""
    roster = site.roster

    def answer(peer: Peer, trace: int, message: Message) -> None:
        if isinstance(message, Submit) and message.propose:
            peer.send(message, channel=_channel(message), trace=trace)

    endpoint = Endpoint(
        load_identity(site.directory / agent_id, roster, agent_id),
        roster,
        codec_for("capnp"),
        on_message=answer,
        on_peer_change=lambda agent, connected: None,
        transport=transport,
        busy_poll_s=busy_poll_s,
    )
    await endpoint.start()
    return lambda: int(endpoint.statistics()["socket"].get("datagrams_out", 0))


def _channel(message: Submit) -> Channel:
    return Channel.CONSENSUS if message.path == 1 else Channel.BULK


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Length-prefixed messages there and back."""
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
            data = await reader.readexactly(size & ~COUNT_ONLY)
            if not size & COUNT_ONLY:
                writer.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
    except (asyncio.IncompleteReadError, ConnectionError):
        return


async def stock_aioquic(site: Site, agent_id: str) -> Callable[[], int]:
    """aioquic's own asyncio layer, with its defaults."""
    from aioquic.asyncio.server import serve
    from aioquic.quic.configuration import QuicConfiguration

    settings = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    folder = site.directory / agent_id
    settings.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    await serve(HOST, _port(site, agent_id), configuration=settings, stream_handler=_spawn)
    return lambda: 0


async def stock_qh3(site: Site, agent_id: str) -> Callable[[], int]:
    """qh3's own asyncio layer, with its defaults."""
    from qh3.asyncio.server import serve
    from qh3.quic.configuration import QuicConfiguration

    settings = QuicConfiguration(is_client=False, alpn_protocols=[ALPN])
    folder = site.directory / agent_id
    settings.load_cert_chain(str(folder / "tls.crt"), str(folder / "tls.key"))
    await serve(HOST, _port(site, agent_id), configuration=settings, stream_handler=_spawn)
    return lambda: 0


_running: set[asyncio.Task[None]] = set()


def _spawn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    task = asyncio.ensure_future(echo(reader, writer))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def tcp_tls(site: Site, agent_id: str) -> Callable[[], int]:
    """asyncio's streams over TCP and TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = site.directory / agent_id
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    await asyncio.start_server(echo, HOST, _port(site, agent_id), ssl=context)
    return lambda: 0


class _UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


async def udp(site: Site, agent_id: str) -> Callable[[], int]:
    """Datagrams back to where they came from."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(_UdpEcho, local_addr=(HOST, _port(site, agent_id)))
    return lambda: 0


def _port(site: Site, agent_id: str) -> int:
    agent = site.roster.by_id(agent_id)
    assert agent is not None
    return agent.port


SERVERS: Final[dict[str, Callable[[Site, str], Any]]] = {
    "aioquic": stock_aioquic,
    "qh3": stock_qh3,
    "tcp+tls": tcp_tls,
    "udp": udp,
    **{f"ours/{name}": partial(ours, transport=name) for name in TRANSPORTS},
    POLLING: partial(ours, transport="aioquic", busy_poll_s=BUSY_POLL_S),
}


async def _serve(what: str, site: Site, agent_id: str) -> None:
    datagrams = await SERVERS[what](site, agent_id)
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    class Questions(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            for _ in range(data.count(b"\n")):
                sys.stdout.write(f"{time.process_time_ns()} {datagrams()}\n")
            sys.stdout.flush()

        def connection_lost(self, exc: Exception | None) -> None:
            ended.cancel()

    await loop.connect_read_pipe(Questions, sys.stdin)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    gc.freeze()
    await ended


def main(arguments: list[str]) -> None:
    """Serve until standard input ends."""
    what, directory, ports, agent_id, loop = arguments
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    site = Site(Path(directory), tuple(map(int, ports.split(","))))
    try:
        (uvloop.run if loop == "uvloop" else asyncio.run)(_serve(what, site, agent_id))
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
