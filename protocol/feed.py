"""A read-only listener for anybody who can reach it: one question, one answer, nothing that moves the swarm.

Off unless a port is configured. It serves one picture, made by its owner, which must hold only what may be public. A
visitor who has been here before sends the question with its first packet (0-RTT); what is answered to an address that
is not validated stays within three times what came from it, which the QUIC library sees to.

Bounds: a visit lasts a few seconds at most and there are no more at a time than the driver lets in; a question has at
most ``QUESTION_BYTES_MAX``; the picture is made anew at most every ``REFRESH_S``, however many ask.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from cryptography.x509 import Certificate

from protocol.codec import codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import LocalMisuse, PeerViolation
from protocol.feed_tickets import Nonces, Tickets
from protocol.framing import FrameReader, frame
from protocol.identity import Identity
from protocol.messages import Message, StatusReply, StatusRequest
from protocol.quic.driver import Driver
from protocol.quic.feed_connection import FeedBackend, FeedConnection
from protocol.quic.link import Closed, Link
from protocol.quic.port import DatagramPort
from protocol.quic.settings import PROFILES
from protocol.roster import Agent

FEED_PROFILE: Final = PROFILES["lan"]
"""Datagrams that pass everywhere."""
QUESTION_BYTES_MAX: Final = 512
REFRESH_S: Final = 0.05
FEED_STREAM: Final = 0
CODEC: Final = codec_for("capnp")
"""Whatever the agents use among themselves: visitors do not know."""


class Feed:
    """One agent's feed. ``picture`` gives the answer's bytes."""

    def __init__(
        self,
        identity: Identity,
        picture: Callable[[], bytes],
        *,
        logger: Any,
        port: DatagramPort | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._picture = picture
        self._clock = clock
        self._made: tuple[float, bytes] | None = None
        self._tickets = Tickets()
        self._nonces = Nonces()
        self._index = identity.agent.index
        self.counters: Counter[str] = Counter()
        self._driver = Driver(
            identity,
            FEED_PROFILE,
            admission=_nobody,
            accept=lambda: _Visit(self),
            before_flush=lambda: 0,
            logger=logger,
            backends=lambda identity: FeedBackend(identity, FEED_PROFILE, self._tickets, clock),
            port=port,
            clock=clock,
        )

    def open(self, host: str, port: int) -> None:
        """Listen. ``host`` is a resolved IPv4 address. Raises ``UsageError``."""
        self._driver.open(host, port)

    def close(self) -> None:
        """Stop, without waiting for anybody."""
        self._driver.close()

    def reload(self, identity: Identity) -> None:
        """Show another certificate from now on. Sessions that rest on the old one are forgotten."""
        self._tickets.forget()
        self._driver.reload(identity)

    def statistics(self) -> dict[str, int]:
        """Questions, and tickets, by what became of them."""
        return {**self.counters, **self._tickets.counters, "tickets_kept": len(self._tickets)}

    def answer(self, question: Message, *, early: bool) -> bytes:
        """The answer's frame. Raises ``PeerViolation``."""
        if not isinstance(question, StatusRequest) or question.detail:
            raise PeerViolation("role_not_allowed", f"a visitor sent {type(question).__name__}")
        if early and not self._nonces.fresh(question.nonce):
            raise PeerViolation("nonce_repeated", str(question.nonce))
        self.counters["answers_early" if early else "answers"] += 1
        return encoded(StatusReply(question.nonce, self._present()), self._index)

    def _present(self) -> bytes:
        now = self._clock()
        if self._made is None or now - self._made[0] >= REFRESH_S:
            self._made = now, self._picture()
        return self._made[1]


class _Visit:
    """Owner of one connection. It is never marked as greeted, so that the driver bounds number and duration."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._reader = FrameReader(QUESTION_BYTES_MAX)
        self._answered = False

    def on_established(self, link: Link) -> None:
        return

    def on_data(self, link: Link, stream_id: int, data: bytes) -> None:
        try:
            self._read(link, stream_id, data)
        except PeerViolation as violation:
            self._feed.counters[f"refused_{violation.reason}"] += 1
            link.close(1, str(violation))

    def on_datagram(self, link: Link, data: bytes) -> None:
        return  # none is offered to be taken: the library has ended the connection

    def on_closed(self, link: Link, closed: Closed) -> None:
        return

    def _read(self, link: Link, stream_id: int, data: bytes) -> None:
        if stream_id != FEED_STREAM:
            raise PeerViolation("stream_unknown", str(stream_id))
        for payload in self._reader.receive(data):
            if self._answered:
                raise PeerViolation("role_not_allowed", "a second question")
            self._answered = True
            connection = link.connection
            assert isinstance(connection, FeedConnection), "the feed's backend makes no other"
            link.write(FEED_STREAM, self._feed.answer(decoded(payload), early=connection.is_early))


def encoded(message: Message, sender: int = 0) -> bytes:
    """One message as a frame of its own."""
    header = BatchHeader(epoch=0, sender=sender, sequence=0, sent_at_ns=0)
    return frame(CODEC.encode_batch(header, [Envelope(0, message)]))


def decoded(payload: bytes) -> Message:
    """The one message of a frame. Raises ``PeerViolation``."""
    _, envelopes = CODEC.decode_batch(payload)
    if len(envelopes) != 1:
        raise PeerViolation("role_not_allowed", f"{len(envelopes)} messages")
    return envelopes[0].message


def _nobody(certificate: Certificate) -> Agent:
    raise LocalMisuse("a feed asks for no certificate")
