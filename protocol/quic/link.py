"""One connection as its owner sees it: write, close, and four callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.x509 import Certificate

from protocol.quic.backend import Address, Connection
from protocol.quic.settings import HANDSHAKE_TIMEOUT_S
from protocol.quic.short_way import ShortWay
from protocol.roster import Agent

if TYPE_CHECKING:
    from protocol.quic.driver import Driver

ENDINGS_WITHOUT_BLAME: Final = frozenset({
    "shutdown", "request_done", "replaced", "idle_timeout", "peer_restarted", "unreachable", "path_narrow",
})  # fmt: skip
REASONS: Final = ENDINGS_WITHOUT_BLAME | {
    "handshake_timeout", "crowded_out", "stream_closed", "stream_in_crumbs", "stream_unknown", "library_failure",
    "certificate_missing", "certificate_untrusted", "certificate_expired", "certificate_not_owned",
    "certificate_purpose", "certificate_mismatch", "certificate_pinned", "certificate_revoked", "agent_unknown",
    "cluster", "roster", "identity", "role_pair", "signature", "superseded", "banned", "offences", "too_many_probes",
    "wrong_direction", "credit_exceeded", "credit_malformed",
    "before_greeting", "greeting_malformed", "frame_version", "frame_flags", "frame_empty", "frame_too_large",
}  # fmt: skip
"""Why connections end, on the wire and in statistics."""

LAST_WORDS_S: Final = 0.1
"""How long a congestion window may hold back what was written before a connection is closed."""
CRYPTO_ERROR: Final = 0x100
"""QUIC error codes from here on carry a TLS alert in their last byte (RFC 9001, 4.8)."""
ALERT_REASONS: Final[dict[int, str]] = {
    40: "handshake_failure",
    42: "certificate_untrusted",  # bad_certificate
    44: "certificate_revoked",
    45: "certificate_expired",
    48: "certificate_untrusted",  # unknown_ca
    120: "alpn",  # no_application_protocol
}
"""TLS alerts by number (RFC 8446, 6)."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended. ``reason`` is a stable, countable label; ``by_peer`` says who ended it."""

    reason: str
    detail: str = ""
    by_peer: bool = False


class LinkOwner(Protocol):
    """What the owner of a connection is told. ``on_closed`` comes at most once, and never after ``Link.close``."""

    def on_established(self, link: Link) -> None:
        """TLS is done on both sides of this end. On the dialler the listener may still refuse."""

    def on_data(self, link: Link, stream_id: int, data: bytes) -> None:
        """The next bytes of a stream, in order."""

    def on_datagram(self, link: Link, data: bytes) -> None:
        """The data of one DATAGRAM frame: unreliable, in no order, and possibly before ``on_established``'s peer has
        greeted."""

    def on_closed(self, link: Link, closed: Closed) -> None:
        """The connection is gone; it must not be used any more."""


class Link:
    """A connection with its owner. Made by the driver."""

    def __init__(self, driver: Driver, connection: Connection, owner: LinkOwner, address: Address, now: float) -> None:
        self._driver = driver
        self._owner = owner
        self._termination: Any = None
        self.connection = connection
        self.short_way: ShortWay | None = None
        """The connection's, once it is established."""
        self.address = address
        self.opened_at = now
        self.pinged_at = now
        self.deadline = now
        self.greeting_timeout_s = HANDSHAKE_TIMEOUT_S
        self.greeted = False
        """Set by the owner once the peer has proved who it is; until then the connection lives on borrowed time."""
        self._sent_datagram = False
        self.closed = False
        self._closed_at = 0.0
        self._farewell: tuple[int, str] | None = None

    @property
    def exporter(self) -> bytes:
        assert self.connection.exporter is not None, "asked for after on_established"
        return self.connection.exporter

    @property
    def certified(self) -> Agent | None:
        """Whom the peer's certificate names; ``None`` until the greeting where the transport asks clients for none."""
        return self.connection.certified

    def show(self, certificate: Certificate, agent: Agent) -> Agent:
        """A certificate that names ``agent`` came with the greeting; the connection lasts no longer than it is good."""
        self.connection.certified, self.connection.peer_certificate = agent, certificate
        return agent

    @property
    def connection_terminated(self) -> bool:
        return self._termination is not None

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes written to a stream that the peer has not acknowledged."""
        way = self.short_way
        return (
            way.unsent_bytes(stream_id) if way is not None and way.holds() else self.connection.unsent_bytes(stream_id)
        )

    def has_stream(self, stream_id: int) -> bool:
        """Whether the stream is open here: a listener cannot write where the dialler has not."""
        return self.connection.has_stream(stream_id)

    def write(self, stream_id: int, data: bytes) -> None:
        """Append to a stream; it leaves at the end of the loop's tick. Never blocks: watch ``unsent_bytes``."""
        if self.closed:
            return
        if self.short_way is not None and self.short_way.write(stream_id, data):
            self._driver.touch(self)
            return
        try:
            self.connection.send_stream_data(stream_id, data)
        except Exception:
            if self.connection.can_write(stream_id):
                raise
            return  # the peer takes no more of it; the event that says so is next, and ends the connection
        self._driver.touch(self)

    def send_datagram(self, data: bytes) -> bool:
        """Send once, without any promise. False when the peer takes no DATAGRAM frames, or none of that size."""
        if self.closed or len(data) > self.connection.datagram_payload_bytes_max:
            return False
        self.connection.send_datagram(data)
        self._sent_datagram = True
        self._driver.touch(self)
        return True

    def send_path_probe(self, beginning: bytes) -> None:
        """Ask the path whether it carries the profile's datagrams."""
        if not self.closed:
            self.connection.send_path_probe(beginning)
            self._driver.touch(self)

    def settle_path(self, *, carries: bool) -> None:
        """Keep to what the path carries, if need be by a new connection."""
        if not self.closed and not self.connection.settle_path(carries=carries):
            self._driver.end(self, Closed("path_narrow", "the next connection begins with smaller datagrams"))

    def keep_alive(self) -> None:
        """Ask for a sign of life, unless a datagram has asked for one since the last time."""
        if not self._sent_datagram:
            self.connection.send_ping(0)
            self._driver.touch(self)
        self._sent_datagram = False

    def close(self, code: int, reason: str) -> None:
        """Send what was written, then close: now, or as soon as it has left. The owner is not called back."""
        if self.closed:
            return
        self._driver.transmit(self)
        self.closed = True
        self._farewell = code, reason
        self._driver.touch(self)

    # --- for the driver ---------------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, address: Address, now: float) -> None:
        """What has come for this connection."""
        if self.short_way is None or not self.short_way.receive_usual(data, address, now):
            self.connection.receive_datagram(data, address, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """All that it has to say now."""
        usual = None if self.short_way is None else self.short_way.usual_datagrams(now)
        return self.connection.datagrams_to_send(now) if usual is None else usual

    def must_send(self, now: float) -> bool:
        """Whether what has arrived may call for a datagram now."""
        way = self.short_way
        return way.must_send(now) if way is not None and way.holds() else self.connection.must_send(now)

    def release(self) -> None:
        """The driver has forgotten it."""
        self.short_way = None
        self.connection.release()

    def finish(self, now: float, *, wait: bool = True) -> bool:
        """Close it if its owner has, unless the last words are still held back and have been for a short time only.
        True when it was closed just now and has that to say."""
        if self._farewell is None:
            return False
        self._closed_at = self._closed_at or now
        if wait and self.connection.has_unsent and now - self._closed_at < LAST_WORDS_S:
            return False
        code, reason = self._farewell
        self._farewell = None
        self.connection.close(error_code=code, reason_phrase=reason)
        return True

    def due(self) -> float:
        """When to look at it again; infinite when nothing but a datagram can change anything."""
        if self.short_way is not None and self.short_way.holds():
            at = self.short_way.timer_at()
        else:
            timer = self.connection.get_timer()
            at = float("inf") if timer is None else timer
        return at if self._farewell is None else min(at, self._closed_at + LAST_WORDS_S)

    def deliver(self, routes: dict[bytes, Link]) -> None:
        """Tell the owner what happened, in order, and keep the routing table up to date on the way."""
        connection = self.connection
        events = connection.events
        stream_data = events.StreamDataReceived
        while (event := self._next_event()) is not None:
            if isinstance(event, stream_data):
                self._deliver_data(event)
            elif isinstance(event, events.ConnectionIdIssued):
                routes[event.connection_id] = self
            elif isinstance(event, events.ConnectionIdRetired):
                routes.pop(event.connection_id, None)
            elif isinstance(event, events.ConnectionTerminated):
                self._termination = event
            elif not self.closed:
                self._deliver_to_owner(event)

    def _next_event(self) -> Any:
        if self.short_way is None:
            return self.connection.next_event()
        waiting = self.short_way.events
        return waiting.popleft() if waiting else None

    def _deliver_data(self, event: Any) -> None:
        if self.closed:
            return
        self._owner.on_data(self, event.stream_id, event.data)
        if event.end_stream:
            self._driver.end(self, Closed("stream_closed", "the peer ended a long-lived stream"))

    def _deliver_to_owner(self, event: Any) -> None:
        events = self.connection.events
        if isinstance(event, events.DatagramFrameReceived):
            self._owner.on_datagram(self, event.data)
        elif isinstance(event, events.HandshakeCompleted):
            self.short_way = self.connection.short_way
            self._owner.on_established(self)
        elif isinstance(event, (events.StreamReset, events.StopSendingReceived)):
            self._driver.end(self, Closed("stream_closed", "the peer reset a long-lived stream"))

    def ended(self) -> Closed | None:
        """Why the connection is over, as soon as that is known."""
        if self._termination is None and self.short_way is not None and self.short_way.holds():
            return None
        event = self._termination or self.connection.closing
        if event is None or self.closed:
            return None
        if self.connection.refusal is not None:
            return Closed(self.connection.refusal, event.reason_phrase)
        return Closed(_label(event), event.reason_phrase, by_peer=self.connection.closed_by_peer)

    def abandon(self, closed: Closed) -> None:
        """End it from our side, whatever state it is in, and tell the owner."""
        self.closed = True
        self.connection.close(error_code=0, reason_phrase=closed.reason)
        self._owner.on_closed(self, closed)


def _label(event: Any) -> str:
    """A label out of a closed vocabulary: what the peer writes as its reason may be anything."""
    head: str = event.reason_phrase.partition(":")[0]
    if head in REASONS:
        return head
    if head == "Idle timeout":
        return "idle_timeout"
    if CRYPTO_ERROR <= event.error_code < CRYPTO_ERROR + 256:
        return ALERT_REASONS.get(event.error_code - CRYPTO_ERROR, "tls_alert")
    return "quic_error"
