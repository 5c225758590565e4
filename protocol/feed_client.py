"""A visit to an agent's feed: ask, and keep the session, so that the next question travels with the first packet.

Needs no key, only the authority's certificate. A session stands for a certificate that was checked when it began; that
certificate is kept beside it and checked again, against dates, roster and revocations, before the session is resumed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from aioquic.tls import CipherSuite, SessionTicket
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.errors import PeerViolation, Unavailable
from protocol.feed import FEED_PROFILE, FEED_STREAM, decoded, encoded
from protocol.fields import BODY_BYTES_MAX
from protocol.framing import FrameReader
from protocol.messages import StatusReply, StatusRequest
from protocol.pki import UNREADABLE
from protocol.quic.feed_connection import FeedConnection, visit
from protocol.roster import Agent

TICKET_WAIT_S: Final = 0.3
"""The next session's ticket comes a round trip after the answer."""
Check = Callable[[x509.Certificate], Agent]
"""Says whom a certificate names, or refuses with ``PeerViolation``."""


class Session(msgspec.Struct, frozen=True):
    """A ticket and the certificate that it rests on, as they are kept in a file of its owner's. It is a secret."""

    certificate: bytes
    age_add: int
    cipher_suite: int
    not_valid_after: datetime
    not_valid_before: datetime
    resumption_secret: bytes
    ticket: bytes
    max_early_data_size: int | None
    other_extensions: list[tuple[int, bytes]]

    def resumable(self, check: Check, now: datetime) -> SessionTicket | None:
        """The library's ticket, unless what it rests on is not good any more."""
        try:
            certificate = x509.load_der_x509_certificate(self.certificate)
            cipher_suite = CipherSuite(self.cipher_suite)
            check(certificate)
        except (*UNREADABLE, PeerViolation):
            return None
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return None
        return SessionTicket(
            age_add=self.age_add,
            cipher_suite=cipher_suite,
            not_valid_after=self.not_valid_after,
            not_valid_before=self.not_valid_before,
            resumption_secret=self.resumption_secret,
            server_name=None,  # type: ignore[arg-type]  # visitors name none: they compare the SPIFFE URI
            ticket=self.ticket,
            max_early_data_size=self.max_early_data_size,
            other_extensions=self.other_extensions,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """``early`` is what became of the question in the first packet: ``accepted``, ``rejected`` (and sent again), or
    ``none`` without a session. ``seconds`` from the first packet to the answer."""

    body: bytes
    early: str
    seconds: float
    session: Session | None
    """For the next visit; each is good for one."""


async def ask_feed(
    target: Agent,
    address: tuple[str, int],
    authorities: bytes,
    check: Check,
    session: Session | None = None,
    *,
    timeout_s: float = 2.0,
) -> Answer:
    """Ask the feed at a resolved address. Raises ``Unavailable``, with the reason."""
    loop = asyncio.get_running_loop()
    visitor = _Visitor(target, authorities, check, session)
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: visitor, remote_addr=address)
    except OSError as error:
        raise Unavailable(f"{target.id} at {address[0]}:{address[1]} cannot be reached ({error.strerror})") from None
    try:
        body = await asyncio.wait_for(visitor.body, timeout_s)
        await visitor.await_ticket()
        return Answer(body, visitor.early, visitor.seconds, visitor.session())
    except TimeoutError:
        place = f"{target.id} at {address[0]}:{address[1]}"
        raise Unavailable(f"the feed of {place} did not answer within {timeout_s:g} s") from None
    finally:
        visitor.end()
        transport.close()


class _Visitor(asyncio.DatagramProtocol):
    """Drives one connection from its first packet to its answer."""

    def __init__(self, target: Agent, authorities: bytes, check: Check, session: Session | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._kept: bytes | None = None if session is None else session.certificate
        ticket = None if session is None else session.resumable(check, datetime.now(UTC))
        self._offered = ticket is not None
        self._tickets: list[SessionTicket] = []
        self._got_ticket = asyncio.Event()
        self._connection: FeedConnection = visit(authorities, FEED_PROFILE, check, ticket, self._on_ticket)
        self._question = StatusRequest(random.getrandbits(63), 0)
        self._reader = FrameReader(BODY_BYTES_MAX + 1024)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self._began = 0.0
        self.body: asyncio.Future[bytes] = self._loop.create_future()
        self.early = "none"
        self.seconds = 0.0

    # --- DatagramProtocol ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._began = self._loop.time()
        self._connection.connect(transport.get_extra_info("peername"), now=self._began)
        self._connection.send_stream_data(FEED_STREAM, encoded(self._question))
        self._pump()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            self._connection.receive_datagram(data, addr, self._loop.time())
        except Exception as error:
            self._fail(f"the QUIC library failed ({error!r})")
            return
        self._pump()

    def error_received(self, exc: Exception) -> None:
        self._fail(f"nobody listens there ({exc})")

    # --- the connection ---

    def _pump(self) -> None:
        while (event := self._connection.next_event()) is not None:
            self._on_event(event)
        for data, _ in self._connection.datagrams_to_send(self._loop.time()):
            self._transport.sendto(data)
        if self._timer is not None:
            self._timer.cancel()
        at = self._connection.get_timer()
        self._timer = None if at is None else self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._connection.handle_timer(self._loop.time())
        self._pump()

    def _on_event(self, event: Any) -> None:
        if isinstance(event, HandshakeCompleted) and self._offered:
            self.early = "accepted" if event.early_data_accepted else "rejected"
        elif isinstance(event, StreamDataReceived) and event.stream_id == FEED_STREAM:
            self._on_data(event.data)
        elif isinstance(event, ConnectionTerminated):
            self._fail(event.reason_phrase or "it ended the connection")

    def _on_data(self, data: bytes) -> None:
        try:
            for payload in self._reader.receive(data):
                reply = decoded(payload)
                if isinstance(reply, StatusReply) and reply.nonce == self._question.nonce and not self.body.done():
                    self.seconds = self._loop.time() - self._began
                    self.body.set_result(reply.body)
        except PeerViolation as violation:
            self._fail(str(violation))

    def _fail(self, why: str) -> None:
        if not self.body.done():
            self.body.set_exception(Unavailable(f"the feed of {self._target.id} did not answer: {why}"))

    def _on_ticket(self, ticket: SessionTicket) -> None:
        self._tickets.append(ticket)
        self._got_ticket.set()

    async def await_ticket(self) -> None:
        """The answer is there; the next session may be on its way."""
        try:
            await asyncio.wait_for(self._got_ticket.wait(), TICKET_WAIT_S)
        except TimeoutError:
            return

    def session(self) -> Session | None:
        """What the next visit may begin with."""
        shown = self._connection.shown
        certificate = self._kept if shown is None else shown.public_bytes(Encoding.DER)
        if not self._tickets or certificate is None:
            return None
        new = self._tickets[-1]
        return Session(
            certificate=certificate,
            age_add=new.age_add,
            cipher_suite=int(new.cipher_suite),
            not_valid_after=new.not_valid_after,
            not_valid_before=new.not_valid_before,
            resumption_secret=new.resumption_secret,
            ticket=new.ticket,
            max_early_data_size=new.max_early_data_size,
            other_extensions=list(new.other_extensions),
        )

    def end(self) -> None:
        """Say good-bye; nobody is waited for."""
        if self._timer is not None:
            self._timer.cancel()
        self.body.cancel()
        self._connection.close(reason_phrase="request_done")
        for data, _ in self._connection.datagrams_to_send(self._loop.time()):
            self._transport.sendto(data)
