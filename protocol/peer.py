"""A connection to another agent from its first byte to its last: greeting, batches out, batches in.

The dialler opens four streams with one byte each and sends HELLO; the listener answers HELLO-ACK. Before that nothing
else is sent, and whatever else arrives ends the connection. Afterwards every stream carries frames of one batch each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from profiling.clock import now_ns
from profiling.span import record, span
from profiling.stages import Operation
from protocol.batch import Batcher, Channel, WouldBlock, frame
from protocol.credit import CreditIn, CreditOut, Paused
from protocol.envelope import BatchHeader, Envelope, envelope
from protocol.errors import PeerViolation
from protocol.framing import HEADER
from protocol.greeting import PROBE_EPOCH
from protocol.intake import CHANNEL_OF, STREAM_OF, Intake
from protocol.messages import Credit, Hello, HelloAck, Message, Refused
from protocol.peer_host import PeerHost
from protocol.pki import CLIENT
from protocol.pulse import Pulse, begin_pulse
from protocol.quic.link import ENDINGS_WITHOUT_BLAME, REASONS, Closed, Link
from protocol.roster import Agent, MessageTypes, Role, allowed_messages
from protocol.sequence import SequenceIn, SequenceOut
from protocol.traffic import Traffic

UNSENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Per stream, what may lie unacknowledged in the transport before ``send`` says no."""
REFUSED_CODE: Final = 1
OWN_TYPES: Final[frozenset[type[Message]]] = frozenset({Refused, Credit})
"""What connections say to each other, whatever the roles."""


class Peer:
    """One connection. ``agent`` is whom we dialled, or who greeted us; ``is_probe`` a visitor asking for the status."""

    def __init__(self, host: PeerHost, dialled: Agent | None) -> None:
        self._host = host
        self._dialled = dialled
        self._agent = dialled
        self._link: Link | None = None
        self._batcher = Batcher(host.limits)
        self._intake = Intake(dialled=dialled is not None)
        self._traffic = host.traffic_of(dialled) if dialled is not None else Traffic()
        self._allowed: MessageTypes = frozenset()
        self._sender = host.greeter.identity.agent.index
        self._sequence_out = SequenceOut()
        self._sequence_in = SequenceIn()
        self._credit_out = CreditOut()
        self._credit_in = CreditIn()
        self._paused = Paused()
        self.epoch = PROBE_EPOCH
        self.pulse: Pulse | None = None
        self.greeted = False
        self.welcomed = asyncio.Event()
        self.gone = asyncio.Event()
        self._is_gone = False
        """The same without a call."""

    @property
    def agent(self) -> Agent:
        assert self._agent is not None, "nobody until the greeting is checked"
        return self._agent

    @property
    def name(self) -> str:
        return self._agent.id if self._agent is not None else "unknown"

    @property
    def dialled(self) -> bool:
        return self._dialled is not None

    @property
    def is_probe(self) -> bool:
        return self.epoch == PROBE_EPOCH or self.agent.role is Role.OPERATOR

    @property
    def round_trip_ms(self) -> float:
        return self._link.connection.round_trip_s * 1e3 if self._link is not None else 0.0

    @property
    def unsent(self) -> bool:
        """Whether the transport holds back something that was written."""
        return self._link is not None and not self._link.closed and self._link.connection.has_unsent

    def begin_pulse(self, interval_s: float, clock: Callable[[], float], logger: Any) -> None:
        """Heartbeats from now on, if the peer takes them and the interval is not 0."""
        assert self._link is not None, "it has greeted"
        self.pulse = begin_pulse(self._link, self._traffic, interval_s, clock, logger.bind(peer=self.name))

    # --- sending ----------------------------------------------------------------------------------------------------

    def send(self, message: Message, *, channel: Channel = Channel.CONTROL, trace: int = 0) -> bool:
        """Queue a message for this tick's batch. False, and counted, when the connection or its queue will not take it;
        never blocks."""
        if self._link is None or not self.greeted or self._link.closed:
            self._traffic.unsent["not_connected"] += 1
            return False
        # What waits here has not changed the transport's buffer since the first message of the tick was looked at.
        first = not self._batcher.depth(channel)
        if first and self._link.unsent_bytes(4 * channel) > UNSENT_BYTES_MAX:
            self._traffic.unsent["window_full"] += 1
            return False
        try:
            self._batcher.push(envelope((trace, message)), channel, now_ns())
        except WouldBlock:
            self._traffic.unsent["queue_full"] += 1
            return False
        self._host.want_flush(self)
        return True

    def flush(self, at_ns: int) -> int:
        """Write the batches that are due; return the first cycle that they carry, 0 for none."""
        charged = 0
        if self._link is None or self._link.closed:
            return charged
        for channel in self._batcher.channels_waiting():
            while self._credit_out.may_send(channel) and (envelopes := self._batcher.take(channel, at_ns)):
                self._write(channel, envelopes)
                charged = charged or envelopes[0].trace
        return charged

    def flush_due_ns(self) -> int | None:
        """When the next batch is due, in nanoseconds of ``profiling.clock``; ``None`` when nothing waits that the peer
        has room for."""
        waiting = self._batcher.channels_waiting()
        return self._batcher.get_timer([channel for channel in waiting if self._credit_out.may_send(channel)])

    def pause(self, channel: Channel) -> None:
        """Deliver nothing of a channel until ``resume``: the peer will soon have to wait. Not for CONTROL."""
        self._paused.pause(channel)

    def resume(self, channel: Channel) -> None:
        """Deliver what was held, then go on. Must not be called from within a delivery."""
        for each, payload in self._paused.resume(channel):
            if each in self._paused:
                self._paused.hold(each, payload)
            elif not self.gone.is_set():
                self._on_batch(payload, each)

    @property
    def held_bytes(self) -> int:
        """Gauge: what paused channels hold."""
        return self._paused.held_bytes

    def refuse(self, reason: str, detail: str = "") -> None:
        """Tell the peer why, as well as that can be done, and close."""
        if self._link is None or self._link.closed:
            return
        self._traffic.refused[reason] += 1
        if self._link.has_stream(STREAM_OF[Channel.CONTROL]):
            self._write(Channel.CONTROL, [Envelope(0, Refused(reason))])
        self._link.close(REFUSED_CODE, f"{reason}: {detail}" if detail else reason)
        self._finish(Closed(reason, detail))

    async def greeted_or_gone(self) -> None:
        """Until it is known whether the connection came to stand."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self.welcomed, self.gone)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    def close(self, reason: str) -> None:
        """Close without blame, once what was taken is written."""
        if self._link is not None and not self._link.closed:
            self.flush(now_ns())
            self._link.close(0, reason)
        self._finish(Closed(reason))

    def _write(self, channel: Channel, envelopes: list[Envelope]) -> None:
        assert self._link is not None, "a connection exists before anything is written"
        header = BatchHeader(
            epoch=self._host.greeter.epoch,
            sender=self._sender,
            sequence=self._sequence_out.next(channel),
            sent_at_ns=time.time_ns(),
            acknowledged_sequence=self._sequence_in.highest,
        )
        with span(Operation.BATCH_ENCODE, envelopes[0].trace):
            data = frame(self._host.codec.encode_batch(header, envelopes))
        self._link.write(4 * channel, data)
        self._credit_out.sent(channel, len(data))
        self._traffic.batches_out += 1
        self._traffic.messages_out += len(envelopes)
        self._traffic.bytes_out += len(data)

    # --- LinkOwner --------------------------------------------------------------------------------------------------

    def on_established(self, link: Link) -> None:
        self._link = link
        if self._dialled is None:
            return
        for channel, stream_id in STREAM_OF.items():
            link.write(stream_id, bytes([channel]))
        self._write(Channel.CONTROL, [Envelope(0, self._host.greeter.hello(link.exporter))])

    def on_data(self, link: Link, stream_id: int, data: bytes) -> None:
        try:
            payloads = self._intake.read(stream_id, data)
        except PeerViolation as violation:
            self._broken(violation)
            return
        for payload in payloads:
            if link.closed:
                return
            if self.greeted:
                self._on_frame(payload, CHANNEL_OF[stream_id])
            else:
                self._on_greeting(link, payload)
        for early_stream_id, early_data in self._intake.take_early():
            self.on_data(link, early_stream_id, early_data)

    def on_datagram(self, link: Link, data: bytes) -> None:
        """Taken from who has greeted; a listener's may overtake its greeting, a dialler's cannot."""
        if link.closed:
            return
        if self.greeted and self.pulse is not None:
            try:
                self.pulse.on_datagram(data)
            except PeerViolation as violation:
                self._offended(violation)
        elif self.greeted or self.dialled:
            self._traffic.datagrams["unasked"] += 1
        else:
            self._broken(PeerViolation("before_greeting", f"a datagram of {len(data)} bytes"))

    def on_closed(self, link: Link, closed: Closed) -> None:
        if closed.reason not in ENDINGS_WITHOUT_BLAME:
            if closed.by_peer:
                self._traffic.last_refusal = closed.reason
            else:
                self._traffic.refused[closed.reason] += 1
        self._finish(closed)

    def _finish(self, closed: Closed) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._is_gone = True
            self._link = self.pulse = (
                None  # each holds the other, and megabytes: nobody should have to wait for the collector
            )
            self._host.on_gone(self, closed)

    # --- receiving --------------------------------------------------------------------------------------------------

    def _on_greeting(self, link: Link, payload: bytes) -> None:
        try:
            greeting = self._decode_greeting(payload)
            if isinstance(greeting, Refused):
                self._on_refused(greeting)
            elif self._dialled is not None and isinstance(greeting, HelloAck):
                self._host.greeter.check_acknowledgement(greeting, self._dialled, link.exporter)
                self._welcome(link, self._dialled, greeting.epoch)
            elif self._dialled is None and isinstance(greeting, Hello):
                self._on_hello(link, greeting)
            else:
                raise PeerViolation("before_greeting", type(greeting).__name__)
        except PeerViolation as violation:
            self.refuse(violation.reason, violation.detail)

    def _decode_greeting(self, payload: bytes) -> Message:
        try:
            header, envelopes = self._host.codec.decode_batch(payload)
            self._sequence_in.take(Channel.CONTROL, header.sequence)
        except PeerViolation as violation:
            raise PeerViolation("greeting_malformed", str(violation)) from None
        if len(envelopes) != 1:
            raise PeerViolation("before_greeting", f"{len(envelopes)} messages")
        return envelopes[0].message

    def _on_hello(self, link: Link, hello: Hello) -> None:
        greeter = self._host.greeter
        agent = link.certified
        if agent is None:  # this transport asked for no certificate
            shown = greeter.shown(hello, link.exporter)
            agent = link.show(shown, greeter.admit(shown, CLIENT))
        self._know(agent)
        greeter.check_hello(hello, agent, link.exporter)
        self.epoch = hello.epoch
        reason = self._host.reason_to_refuse(self)
        if reason is not None:
            raise PeerViolation(reason)
        self._write(Channel.CONTROL, [Envelope(0, self._host.greeter.acknowledgement(link.exporter))])
        self._welcome(link, agent, hello.epoch)

    def _know(self, agent: Agent) -> None:
        """What happens from now on is put down to this agent."""
        self._agent = agent
        self._traffic = self._host.traffic_of(agent)

    def _welcome(self, link: Link, agent: Agent, epoch: int) -> None:
        self._know(agent)
        self.epoch = epoch
        self._intake.greeted()
        self.greeted = link.greeted = True
        self.welcomed.set()
        self._allowed = allowed_messages(agent.role, epoch == PROBE_EPOCH)
        self._host.on_greeted(self)

    def _on_frame(self, payload: bytes, channel: Channel) -> None:
        try:
            self._credit_in.received(channel, len(payload) + HEADER.size)
        except PeerViolation as violation:
            self._broken(violation)
            return
        if channel in self._paused:
            self._paused.hold(channel, payload)
        else:
            self._on_batch(payload, channel)

    def _on_batch(self, payload: bytes, channel: Channel) -> None:
        """One batch to its end; what it took of the peer's credit is given back."""
        self._handle_batch(payload, channel)
        credit = self._credit_in.handled(channel, len(payload) + HEADER.size)
        if credit is not None and not self.gone.is_set() and not self.send(credit):
            self._credit_in.unsaid(credit)

    def _handle_batch(self, payload: bytes, channel: Channel) -> None:
        began_ns = now_ns()
        try:
            header, envelopes = self._host.codec.decode_batch(payload)
            record(Operation.BATCH_DECODE, began_ns, now_ns(), envelopes[0].trace if envelopes else 0)
            self._check_batch(header, envelopes, channel)
        except PeerViolation as violation:
            self._offended(violation)
            return
        self._traffic.batches_in += 1
        self._traffic.messages_in += len(envelopes)
        self._traffic.bytes_in += len(payload)
        deliver, own = self._host.on_message, OWN_TYPES
        for trace, message in envelopes:
            if self._is_gone:
                return  # what was handled a moment ago made us close
            if type(message) not in own:
                deliver(self, trace, message)
            elif isinstance(message, Credit):
                self._on_credit(message)
            elif isinstance(message, Refused):
                self._on_refused(message)

    def _check_batch(self, header: BatchHeader, envelopes: list[Envelope], channel: Channel) -> None:
        if header.sender != self.agent.index or header.epoch != self.epoch:
            raise PeerViolation("sender_mismatch", f"batch of agent {header.sender}, epoch {header.epoch}")
        self._sequence_in.take(channel, header.sequence)
        checked: type[Message] | None = None
        for _, message in envelopes:
            kind = type(message)
            if kind is not checked and kind not in self._allowed and kind not in OWN_TYPES:
                raise PeerViolation("role_not_allowed", f"{kind.__name__} from a {self.agent.role}")
            checked = kind

    def _on_refused(self, message: Refused) -> None:
        """The peer ends the connection and says why; its close follows, but may be lost."""
        reason = message.reason if message.reason in REASONS else "other"
        self._traffic.last_refusal = reason
        if self._link is not None and not self._link.closed:
            self._link.close(0, "shutdown")
        self._finish(Closed(reason, by_peer=True))

    def _on_credit(self, credit: Credit) -> None:
        try:
            if self._credit_out.granted(credit):
                self._host.want_flush(self)
        except PeerViolation as violation:
            self._broken(violation)

    def _offended(self, violation: PeerViolation) -> None:
        self._traffic.refused[violation.reason] += 1
        if self._host.on_offence(self, violation):
            self.refuse("offences", violation.reason)

    def _broken(self, violation: PeerViolation) -> None:
        """A stream that cannot be cut into frames any more: nothing after this point means anything."""
        if self.greeted:
            self._host.on_offence(self, violation)
        self.refuse(violation.reason, violation.detail)
