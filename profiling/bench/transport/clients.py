"""The near ends: one class per transport with the same three verbs, and the far end's process beside each."""

from __future__ import annotations

import asyncio
import importlib
import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

import uvloop

from profiling.bench.transport.serve import ALPN, COUNT_ONLY, LENGTH_BYTES
from profiling.bench.transport.site import HOST, SERVERS, Site, message_of
from protocol.batch import BatchLimits, Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.errors import RunFailure
from protocol.identity import load_identity
from protocol.messages import Message, Submit
from protocol.peer import Peer
from protocol.roster import Agent

T = TypeVar("T")
CONNECT_S = 10.0


class Client(Protocol):
    """One connection, or several to the same number of servers."""

    async def open(self) -> None: ...

    async def round_trip(self, size: int) -> None:
        """A message of ``size`` bytes to the first server and back."""

    async def close(self) -> None: ...


@runtime_checkable
class DeliveringClient(Client, Protocol):
    """A client of a transport that delivers what it takes."""

    async def one_way(self, size: int, messages: int, together: int = 64) -> None:
        """``messages`` to every server, as fast as they go, the loop's turn after so many; returns when the last has
        arrived everywhere."""


@dataclass
class FarEnd:
    """A server's process."""

    what: str
    site: Site
    agent_id: str = SERVERS[0]
    loop: str = "uvloop"
    process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> FarEnd:
        ports = ",".join(map(str, self.site.ports))
        command = [sys.executable, "-m", "profiling.bench.transport.serve", self.what, str(self.site.directory), ports]
        self.process = subprocess.Popen(
            [*command, self.agent_id, self.loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            self.__exit__(None, None, None)
            raise RunFailure(f"the far end of {self.what} did not start; run it alone to see why")
        return self

    def spent(self) -> tuple[int, int]:
        """(processor time in nanoseconds, datagrams sent) of the process so far."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        cpu_ns, datagrams = self._line().split()
        return int(cpu_ns), int(datagrams)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def run_on(loop: str, work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on asyncio's own loop or on uvloop."""
    return uvloop.run(work) if loop == "uvloop" else asyncio.run(work)


class Ours:
    """Endpoint to endpoint, with all that the swarm's agents do: codec, batches, framing, mutual TLS, greeting."""

    def __init__(
        self, site: Site, transport: str, servers: int = 1, batch_max: int = 256, busy_poll_s: float = 0.0
    ) -> None:
        roster = site.roster
        self._servers = range(1, 1 + servers)
        self._back = asyncio.Event()
        self._missing = 0
        self.endpoint = Endpoint(
            load_identity(site.directory / "trader-1", roster, "trader-1"),
            roster,
            codec_for("capnp"),
            on_message=self._on_message,
            on_peer_change=self._on_peer_change,
            limits=BatchLimits(batch_max=batch_max),
            transport=transport,
            busy_poll_s=busy_poll_s,
        )
        self.vote_back: asyncio.Event = asyncio.Event()

    def _on_message(self, peer: Peer, trace: int, message: Message) -> None:
        if trace:
            self.vote_back.set()
            return
        self._missing -= 1
        if self._missing <= 0:
            self._back.set()

    def _on_peer_change(self, agent: Agent, connected: bool) -> None:
        if len(self.endpoint.connected) >= len(self._servers):
            self._back.set()

    async def open(self) -> None:
        await self.endpoint.start()
        async with asyncio.timeout(CONNECT_S):
            while not self.endpoint.connected >= set(self._servers):
                self._back.clear()
                await self._back.wait()

    async def round_trip(self, size: int) -> None:
        self._back.clear()
        self._missing = 1
        self.endpoint.send(1, message_of(size), channel=Channel.CONSENSUS)
        await self._back.wait()

    async def one_way(self, size: int, messages: int, together: int = 64) -> None:
        """``together`` messages are pushed before the loop goes on: they travel in as few batches as ``batch_max``
        allows."""
        quiet, last = message_of(size), message_of(size)
        quiet = Submit(quiet.path, False, quiet.command)
        self._back.clear()
        self._missing = len(self._servers)
        for index in self._servers:
            for number in range(messages):
                await self._sent(index, last if number == messages - 1 else quiet)
                if number % together == together - 1:
                    await asyncio.sleep(0)
        await self._back.wait()

    async def _sent(self, index: int, message: Submit) -> None:
        while not self.endpoint.send(index, message, channel=Channel.CONSENSUS):  # noqa: ASYNC110 - its queue is full
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.endpoint.close()


class Streams(ABC):
    """What users of asyncio streams write: a length, the message, and the same back."""

    def __init__(self, site: Site, servers: int = 1) -> None:
        self.site = site
        self.servers = servers
        self.pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open = AsyncExitStack()

    async def open(self) -> None:
        for agent_id in SERVERS[: self.servers]:
            agent = self.site.roster.by_id(agent_id)
            assert agent is not None
            self.pairs.append(await self.connect(agent))

    @abstractmethod
    async def connect(self, agent: Agent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]: ...

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """The writers of both QUIC libraries have nothing to wait for; the loop gets its turn."""
        await asyncio.sleep(0)

    async def round_trip(self, size: int) -> None:
        reader, writer = self.pairs[0]
        writer.write(size.to_bytes(LENGTH_BYTES, "big") + bytes(size))
        await reader.readexactly(LENGTH_BYTES + size)

    async def one_way(self, size: int, messages: int, together: int = 64) -> None:
        quiet = (size | COUNT_ONLY).to_bytes(LENGTH_BYTES, "big") + bytes(size)
        for reader, writer in self.pairs:
            for number in range(messages - 1):
                writer.write(quiet)
                if number % together == together - 1:
                    await self.drain(writer)
            writer.write(size.to_bytes(LENGTH_BYTES, "big") + bytes(size))
            await reader.readexactly(LENGTH_BYTES + size)

    async def close(self) -> None:
        for _, writer in self.pairs:
            writer.close()
        await self._open.aclose()


class StockQuic(Streams):
    """A QUIC library's own asyncio layer with its own defaults; aioquic and qh3 name everything alike."""

    library: str

    async def connect(self, agent: Agent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        client = importlib.import_module(f"{self.library}.asyncio.client")
        configuration = importlib.import_module(f"{self.library}.quic.configuration")
        settings = configuration.QuicConfiguration(is_client=True, alpn_protocols=[ALPN], server_name=agent.id)
        settings.load_verify_locations(cafile=str(self.site.directory / "ca.crt"))
        connection = client.connect(HOST, agent.port, configuration=settings)
        protocol = await self._open.enter_async_context(connection)
        reader, writer = await protocol.create_stream()
        return reader, writer


class StockAioquic(StockQuic):
    """As users of aioquic get it."""

    library = "aioquic"


class StockQh3(StockQuic):
    """As users of qh3 get it."""

    library = "qh3"


class TcpTls(Streams):
    """asyncio streams over TLS 1.3 on TCP."""

    async def connect(self, agent: Agent) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=str(self.site.directory / "ca.crt"))
        return await asyncio.open_connection(HOST, agent.port, ssl=context, server_hostname=agent.id)

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        await writer.drain()

    async def close(self) -> None:
        await super().close()
        for _, writer in self.pairs:
            await writer.wait_closed()


class Udp(asyncio.DatagramProtocol):
    """Bare datagrams, no encryption, no delivery: the floor. Messages larger than one datagram are not for it."""

    def __init__(self, site: Site, servers: int = 1) -> None:
        assert servers == 1, "a bare socket has one far end"
        agent = site.roster.by_id(SERVERS[0])
        assert agent is not None
        self._address = (HOST, agent.port)
        self._transport: Any = None
        self._back: asyncio.Future[None] | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=self._address)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._back is not None and not self._back.done():
            self._back.set_result(None)

    async def round_trip(self, size: int) -> None:
        self._back = asyncio.get_running_loop().create_future()
        self._transport.sendto(bytes(size))
        await self._back

    async def close(self) -> None:
        self._transport.close()
        await asyncio.sleep(0)
