"""The hostile end of a connection: a real aioquic connection on a port of its own, whose every rule can be broken.

It keeps its own books apart from the endpoint's driver, so that whatever breaks in the process is the victim's fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.packet import (
    QuicTransportParameters,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from cryptography import x509

from protocol.batch import FrameReader, frame
from protocol.codec import codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import PeerViolation
from protocol.greeting import Greeter
from protocol.identity import Identity, Verifier
from protocol.messages import HelloAck, Message
from protocol.quic.backend import Address
from protocol.quic.connection import AioquicBackend, SwarmConnection, quic_configuration
from protocol.quic.port import DatagramPort
from protocol.quic.settings import PROFILES
from protocol.roster import Agent, Roster

CODEC = codec_for("capnp")
PATIENCE_S: Final = 2.0
"""How long an attacker waits for an answer. Without one it goes on all the same."""
STEP_S: Final = 0.005
DIALLED_S_MAX: Final = 3.0
"""How long it takes until the victim dials again, at most."""
KEPT_MAX: Final = 32
"""Datagrams that are kept to be mutated or sent again."""


class HostileConnection(SwarmConnection):
    """May keep the flow-control windows of its peer shut. Its books are the library's, to be written in by hand."""

    grants = True
    parameters: Callable[[QuicTransportParameters], None] = staticmethod(lambda parameters: None)
    """Changes what the handshake says of this end."""

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._calm = self.short_way = None

    def _serialize_transport_parameters(self) -> bytes:
        written = pull_quic_transport_parameters(Buffer(data=super()._serialize_transport_parameters()))
        self.parameters(written)
        buffer = Buffer(capacity=65536)
        push_quic_transport_parameters(buffer, written)
        data: bytes = buffer.data
        return data

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        if self.grants:
            super()._write_connection_limits(builder, space)

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        if self.grants:
            super()._write_stream_limits(builder, space, stream)


class Wire:
    """A port, and one connection on it: dialled, or accepted from the victim."""

    def __init__(
        self, identity: Identity, roster: Roster, port: DatagramPort, clock: Callable[[], float], epoch: int
    ) -> None:
        self.identity = identity
        self.roster = roster
        self.port = port
        self.clock = clock
        self.epoch = epoch
        self.greeter = Greeter(identity, roster, Verifier(roster), epoch)
        self.settings = quic_configuration(identity, PROFILES["loopback"], is_client=True)
        self.connection: HostileConnection | None = None
        self.target: Address = ("", 0)
        self.listens_to: Address | None = None
        self.reads = True
        self.established = False
        self.gone = False
        self.failed = ""
        self.received: list[Message] = []
        self.sent: list[bytes] = []
        self._readers: dict[int, FrameReader] = {}
        self._numbers = [0, 0, 0, 0]
        self._injected: dict[int, int] = {}

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self, host: str, number: int = 0) -> None:
        self.port.open(self.identity.agent.id, host, number, self.on_readable)

    def dial(self, target: Address, parameters: Callable[[QuicTransportParameters], None] | None = None) -> None:
        """Begin a new connection; an old one is forgotten without a word. ``parameters`` changes what is said first."""
        self._forget()
        self.target = target
        self.connection = HostileConnection(
            configuration=self.settings, profile=PROFILES["loopback"], admission=self._anybody
        )
        if parameters is not None:
            self.connection.parameters = parameters
        self.connection.connect(target, now=self.clock())
        self.transmit()

    def _accept(self, data: bytes, address: Address) -> None:
        """The victim dials us: whatever it had before is over."""
        self._forget()
        self.target = address
        settings = AioquicBackend(self.identity, PROFILES["loopback"])._server_settings
        self.connection = HostileConnection(
            configuration=settings,
            profile=PROFILES["loopback"],
            admission=self._anybody,
            original_destination_connection_id=data[6 : 6 + data[5]],
            reset_token=lambda connection_id: bytes(16),
        )

    def _forget(self) -> None:
        self.connection, self.established, self.gone, self.reads = None, False, False, True
        self._readers, self._numbers, self._injected = {}, [0, 0, 0, 0], {}
        self.received.clear()

    def _anybody(self, certificate: x509.Certificate) -> Agent:
        return self.roster.agents[0]

    def close(self) -> None:
        self.port.close()

    # --- datagrams --------------------------------------------------------------------------------------------------

    def on_readable(self) -> None:
        while (received := self.port.receive()) is not None:
            if self.reads:
                self._receive(*received)
        self.transmit()

    def _receive(self, data: bytes, address: Address) -> None:
        if address == self.listens_to and len(data) >= 1200 and data[0] & 0xF0 == 0xC0 and not self._knows(data):
            self._accept(data, address)
        if self.connection is None:
            return
        try:
            self.connection.receive_datagram(data, address, self.clock())
            while (event := self.connection.next_event()) is not None:
                self._on_event(event)
        except Exception as error:  # our own connection suffers from what we do to it
            self.failed = repr(error)

    def _knows(self, data: bytes) -> bool:
        """Whether an Initial belongs to the connection that there is."""
        if self.connection is None or self.gone:
            return False
        known = [each.cid for each in self.connection._host_cids]
        return data[6 : 6 + data[5]] in [*known, self.connection.original_destination_connection_id]

    def _on_event(self, event: Any) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.established = True
        elif isinstance(event, events.ConnectionTerminated):
            self.gone = True
        elif isinstance(event, events.StreamDataReceived):
            try:
                for payload in self._readers.setdefault(event.stream_id, FrameReader()).receive(event.data):
                    self.received += [envelope.message for envelope in CODEC.decode_batch(payload)[1]]
            except PeerViolation as violation:
                self.failed = str(violation)

    def transmit(self) -> None:
        if self.connection is None:
            return
        try:
            for data, address in self.connection.datagrams_to_send(self.clock()):
                self.send(data, address)
        except Exception as error:
            self.failed = repr(error)

    def send(self, data: bytes, address: Address | None = None) -> None:
        """One datagram of any bytes."""
        self.sent = [*self.sent[-KEPT_MAX:], data]
        try:
            self.port.send(data, address or self.target)
        except OSError as error:
            self.failed = repr(error)

    def tick(self) -> None:
        """Timers and what waits, every few milliseconds."""
        if self.connection is None:
            return
        try:
            timer, now = self.connection.get_timer(), self.clock()
            if timer is not None and timer <= now:
                self.connection.handle_timer(now)
        except Exception as error:
            self.failed = repr(error)
        self.gone = self.gone or self.connection.closing is not None
        self.transmit()

    # --- speaking ---------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Wait for something, though not for long; whether it came."""
        for _ in range(round(patience_s / STEP_S)):
            if condition() or self.gone:
                break
            await asyncio.sleep(STEP_S)
        return condition()

    async def until_dialled(self) -> bool:
        """A listener's connection, the one that stands or the next one."""
        for _ in range(round(DIALLED_S_MAX / STEP_S)):
            if self.established and not self.gone:
                break
            await asyncio.sleep(STEP_S)
        return self.established and not self.gone

    def open_streams(self) -> None:
        for channel in range(4):
            self.write(4 * channel, bytes([channel]))

    async def greet(self, change: Callable[[Message], Message] = lambda hello: hello) -> bool:
        """Wait for the handshake, say HELLO, wait for the answer."""
        if not await self.until(lambda: self.established):
            return False
        assert self.connection is not None
        exporter = self.connection.exporter
        assert exporter is not None, "the handshake is done"
        if not self.connection.is_client:
            self.say(change(self.greeter.acknowledgement(exporter)))
            return True
        self.open_streams()
        self.say(change(self.greeter.hello(exporter)))
        return await self.until(lambda: any(isinstance(each, HelloAck) for each in self.received))

    def payload(
        self, *messages: Message, channel: int = 0, number: int | None = None, sender: int | None = None
    ) -> bytes:
        """A batch as the protocol wants it, unless the caller says otherwise."""
        self._numbers[channel] += 4
        header = BatchHeader(
            epoch=self.epoch,
            sender=self.identity.agent.index if sender is None else sender,
            sequence=self._numbers[channel] + channel if number is None else number,
            sent_at_ns=0,
        )
        return CODEC.encode_batch(header, [Envelope(0, message) for message in messages])

    def say(self, *messages: Message, channel: int = 0, number: int | None = None, sender: int | None = None) -> None:
        data = frame(self.payload(*messages, channel=channel, number=number, sender=sender))
        self.write(4 * channel, data)

    def write(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        """In order and repeated when lost."""
        if self.connection is None:
            return
        try:
            self.connection.send_stream_data(stream_id, data, fin)
        except Exception as error:  # the stream is reset, or was never opened by the victim
            self.failed = repr(error)
        self.transmit()

    def offset(self, stream_id: int) -> int:
        """Where the next byte of a stream belongs, for frames by hand."""
        stream = self.connection._streams.get(stream_id) if self.connection is not None else None
        written = stream.sender._buffer_stop if stream is not None else 0
        return max(written, self._injected.get(stream_id, 0))

    def advance(self, stream_id: int, size: int) -> int:
        """The offset, and room for that many bytes behind it."""
        offset = self.offset(stream_id)
        self._injected[stream_id] = offset + size
        return offset

    @property
    def can_inject(self) -> bool:
        """Whether there are keys: from the handshake on, until the connection is forgotten."""
        connection = self.connection
        return connection is not None and self.established and connection._cryptos[tls.Epoch.ONE_RTT].send.is_valid()

    def inject(self, *frames: bytes) -> None:
        """A packet of these frames, properly protected, outside of all books of loss recovery."""
        if not self.can_inject:
            return
        self.send(self.packet(b"".join(frames)))

    def packet(self, payload: bytes, *, number: int | None = None, first: int = 0x41) -> bytes:
        assert self.connection is not None
        connection, crypto = self.connection, self.connection._cryptos[tls.Epoch.ONE_RTT]
        if number is None:
            number = connection._packet_number
            connection._packet_number += 1
        head = bytes([first | crypto.key_phase << 2]) + connection._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
        data: bytes = crypto.encrypt_packet(head, payload + bytes(max(0, 4 - len(payload))), number)
        return data
