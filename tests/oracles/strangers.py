"""A client that can break the rules of the greeting, one at a time, for tests of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from cryptography import x509

from protocol.batch import FrameReader, frame
from protocol.codec import codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.greeting import Greeter
from protocol.identity import Identity, Verifier
from protocol.messages import Message
from protocol.quic.driver import Driver
from protocol.quic.link import Closed, Link
from protocol.quic.settings import PROFILES
from protocol.roster import Agent, Roster

CODEC = codec_for("capnp")


@dataclass
class Stranger:
    """Owner of one hand-made connection; keeps all that it is told."""

    identity: Identity
    roster: Roster
    epoch: int = 1
    transport: str = "aioquic"
    link: Link | None = None
    received: list[Message] = field(default_factory=list)
    datagrams: list[bytes] = field(default_factory=list)
    closed: Closed | None = None
    established: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    readers: dict[int, FrameReader] = field(default_factory=dict)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.greeter = Greeter(self.identity, self.roster, Verifier(self.roster), self.epoch)
        self.driver = Driver(
            self.identity,
            PROFILES["loopback"],
            admission=self._admit,
            accept=None,
            before_flush=lambda: 0,
            logger=structlog.get_logger(),
            transport=self.transport,
        )

    def _admit(self, certificate: x509.Certificate) -> Agent:
        return self.roster.agents[0]

    async def connect(self, target: Agent) -> Stranger:
        self.driver.open("127.0.0.1", 0)
        self.driver.connect((target.host, target.port), self, self._admit)
        return self

    async def greet(self, change: Callable[[Message], Message] = lambda hello: hello) -> None:
        """Open the streams and send HELLO, changed by the caller."""
        await asyncio.wait_for(self.established.wait(), 5)
        assert self.link is not None
        for channel in range(4):
            self.link.write(4 * channel, bytes([channel]))
        self.say(change(self.greeter.hello(self.link.exporter)))

    async def greet_or_end(self) -> None:
        """Greet, unless the handshake has ended it before."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self.established, self.gone)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        for each in waiting:
            each.cancel()
        if not self.gone.is_set():
            await self.greet()

    def say(self, *messages: Message, stream_id: int = 0, sender: int | None = None, number: int | None = None) -> None:
        """One batch, numbered as the protocol wants it unless ``number`` says otherwise."""
        self.sequence += 4
        number = self.sequence + stream_id // 4 if number is None else number
        index = self.identity.agent.index if sender is None else sender
        header = BatchHeader(epoch=self.epoch, sender=index, sequence=number, sent_at_ns=0)
        self.write(frame(CODEC.encode_batch(header, [Envelope(0, message) for message in messages])), stream_id)

    def write(self, data: bytes, stream_id: int = 0) -> None:
        assert self.link is not None
        self.link.write(stream_id, data)

    async def answer(self) -> Message:
        """The next message that is not yet looked at."""
        while not self.received:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)
        return self.received.pop(0)

    async def ending(self) -> Closed:
        await asyncio.wait_for(self.gone.wait(), 8)
        assert self.closed is not None
        return self.closed

    def stop(self) -> None:
        self.driver.close()

    # LinkOwner

    def on_established(self, link: Link) -> None:
        self.link = link
        link.greeted = True  # the stranger is patient
        self.established.set()

    def on_data(self, link: Link, stream_id: int, data: bytes) -> None:
        for payload in self.readers.setdefault(stream_id, FrameReader()).receive(data):
            self.received += [envelope.message for envelope in CODEC.decode_batch(payload)[1]]
        self.arrived.set()

    def on_datagram(self, link: Link, data: bytes) -> None:
        self.datagrams.append(data)
        self.arrived.set()

    def on_closed(self, link: Link, closed: Closed) -> None:
        self.closed = closed
        self.gone.set()


@dataclass
class Recorder:
    """Callbacks of an endpoint that keep what they are told."""

    messages: list[tuple[str, int, Message]] = field(default_factory=list)
    changes: list[tuple[str, bool]] = field(default_factory=list)
    handler: Callable[[Any, int, Message], None] | None = None

    def on_message(self, peer: Any, trace: int, message: Message) -> None:
        self.messages.append((peer.agent.id, trace, message))
        if self.handler is not None:
            self.handler(peer, trace, message)

    def on_peer_change(self, agent: Agent, connected: bool) -> None:
        self.changes.append((agent.id, connected))


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something that will be true soon."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)
