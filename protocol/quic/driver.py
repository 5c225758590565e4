"""One UDP port per agent that carries all of its connections.

The loop wakes us once for many datagrams; they are fed to their connections, events go to the owners as callbacks,
and every connection that was touched is flushed once, at the end of the loop's tick, after its owner has written
all that it wants to send. Time is ``time.monotonic()`` unless a test brings its own; uvloop's ticks in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from aioquic.quic.packet import QuicProtocolVersion

from profiling.span import span
from profiling.stages import Operation
from protocol.identity import Identity
from protocol.quic import resets
from protocol.quic.backend import AIOQUIC, Address, Admission, Backend, Connection, backend_for
from protocol.quic.link import Closed, Link, LinkOwner
from protocol.quic.packets import destination_of, version_offer
from protocol.quic.polling import BusyPoll
from protocol.quic.port import DatagramPort, UdpPort
from protocol.quic.settings import (
    CONNECTION_ID_BYTES,
    DATAGRAM_BYTES_MIN,
    KEEP_ALIVE_S,
    SOCKET_BUFFER_BYTES,
    Profile,
    check_address,
)
from protocol.signing import digest

DATAGRAMS_PER_WAKE_UP: Final = 64
GREETINGS_MAX: Final = 64
"""Connections that have not finished their greeting. The oldest makes room, unless it has shown a certificate."""
HOUSEKEEPING_S: Final = 0.5
TIMER_STEP_S: Final = 0.001
"""The loop's timers are no finer; asking for less makes uvloop spin."""
TIMER_SOON_S: Final = 0.002
"""No timer is so urgent: the loop's own are a millisecond coarse, and an acknowledgement may wait for five."""


class Driver:
    """Owns the port, the routing table and one timer. All methods belong to the event loop's thread.

    ``accept`` gives incoming connections an owner; without it none is accepted. ``before_flush`` runs at the end of a
    tick, before datagrams are built; it returns the cycle that the flush is charged to, 0 for none. ``backends`` makes
    other connections than the swarm's.
    """

    def __init__(
        self,
        identity: Identity,
        profile: Profile,
        *,
        admission: Admission,
        accept: Callable[[], LinkOwner] | None,
        before_flush: Callable[[], int],
        logger: Any,
        transport: str = AIOQUIC,
        backends: Callable[[Identity], Backend] | None = None,
        port: DatagramPort | None = None,
        clock: Callable[[], float] = time.monotonic,
        busy_poll_s: float = 0.0,
    ) -> None:
        self._identity = identity
        self._profile = profile
        self._admission = admission
        self._accept = accept
        self._before_flush = before_flush
        self._logger = logger
        self._port = port if port is not None else UdpPort()
        self._clock = clock
        self._polling = BusyPoll(busy_poll_s, clock)
        self._backends = backends or (lambda identity: backend_for(transport, identity, profile))
        self._backend = self._backends(identity)
        self._reset_key = digest(b"swarm/stateless-reset/1", identity.signing_key.private_bytes_raw())
        self._links: dict[Link, None] = {}
        self._routes: dict[bytes, Link] = {}
        self._touched: dict[Link, bool] = {}
        """Links to look at when the tick ends; true when they have something to send for certain."""
        self._unasked: dict[Link, None] = {}
        """Links that were touched while the timer was about to fire."""
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._housekeeping: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False
        self.counters: Counter[str] = Counter()

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self, host: str, port: int) -> None:
        """Bind and begin to read. ``host`` is a resolved IPv4 address. Raises ``UsageError``."""
        assert self._loop is None, "a driver is opened once"
        self._port.open(self._identity.agent.id, host, port, self._on_readable)
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._housekeeping = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)
        granted = self.buffer_bytes
        if min(granted) < SOCKET_BUFFER_BYTES:
            self._logger.info("udp_buffers_small", asked=SOCKET_BUFFER_BYTES, receive=granted[0], send=granted[1])

    @property
    def local_address(self) -> Address:
        return self._port.local_address

    @property
    def statistics(self) -> dict[str, int]:
        """Counters of the driver and of what carries its datagrams."""
        return {**self.counters, **self._port.counters}

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        """Room for datagrams that wait, for receiving and for sending."""
        return self._port.buffer_bytes

    def connect(self, address: Address, owner: LinkOwner, admission: Admission) -> Link:
        """Begin a connection to a resolved IPv4 address; the owner hears how it goes. Raises ``UsageError``."""
        check_address(self._profile, self._identity.agent.id, address[0])
        connection = self._backend.dial(admission)
        now = self._clock()
        link = self._register(connection, owner, address, now)
        connection.connect(address, now=now)
        self.touch(link)
        return link

    def reload(self, identity: Identity) -> None:
        """Connections that begin from now on use this identity's certificate, key and authorities; those whose peer's
        certificate it knows to be revoked end now, greeted or not."""
        self._backend = self._backends(identity)
        for link in list(self._links):
            certificate = link.connection.peer_certificate
            if certificate is not None and identity.revocations.revokes(certificate):
                self.end(link, Closed("certificate_revoked", f"serial {certificate.serial_number:x}"))

    def close(self) -> None:
        """Tell all peers and stop, without waiting for anybody."""
        now = self._clock()
        for link in list(self._links):
            link.close(0, "shutdown")
            link.finish(now, wait=False)
            self._transmit(link, now)
        for known in (self._links, self._routes, self._touched, self._unasked):
            known.clear()
        for handle in (self._timer, self._housekeeping):
            if handle is not None:
                handle.cancel()
        self._open = False
        self._port.close()

    # --- end of the tick --------------------------------------------------------------------------------------------

    def touch(self, link: Link) -> None:
        """The connection has something to send: flush it when this tick ends."""
        self._touched[link] = True
        self.schedule_flush()

    def schedule_flush(self) -> None:
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def transmit(self, link: Link) -> None:
        """Send what a connection has ready now, for words that must leave before the connection closes."""
        self._transmit(link, self._clock())

    def _flush(self) -> None:
        try:
            trace = self._before_flush()  # while the flag stands, so that what it writes joins this flush
        finally:
            self._flush_scheduled = False
        if not self._open:
            return
        now = self._clock()
        touched, self._touched = self._touched, {}
        with span(Operation.BATCH_FLUSH, trace):
            for link, must_send in touched.items():
                if must_send or link.must_send(now):
                    self._transmit(link, now)
                if link.finish(now):
                    self._transmit(link, now)
        self._look_again(touched, now)

    def _transmit(self, link: Link, now: float) -> None:
        try:
            datagrams = link.datagrams_to_send(now)
        except Exception as error:
            self._on_library_failure(link, error)
            return
        for data, address in datagrams:
            self._send(data, address)
        self._polling.traffic(now)

    def _send(self, data: bytes, address: Address) -> None:
        assert self._open, "nothing is flushed after close"
        try:
            self._port.send(data, address)
        except (BlockingIOError, InterruptedError):
            self.counters["datagrams_dropped"] += 1  # as good as lost on the way: QUIC sends it again
            return
        except OSError as error:
            self.counters["send_errors"] += 1
            self._logger.warning("udp_send_failed", address=address, bytes=len(data), error=error.strerror)
            return
        self.counters["datagrams_out"] += 1
        self.counters["bytes_out"] += len(data)

    # --- timers -----------------------------------------------------------------------------------------------------

    def _look_again(self, touched: Iterable[Link], now: float) -> None:
        """Set the timer by what the touched connections want. Asking one costs as much as a tenth of a packet, so that
        nobody is asked while the timer fires soon anyway and asks all of them."""
        if self._timer is not None and now < self._timer_at <= now + TIMER_SOON_S:
            self._unasked.update(dict.fromkeys(touched))
            return
        for link in touched:
            link.deadline = link.due() if link in self._links else float("inf")
        self._arm_timer(now)

    def _arm_timer(self, now: float) -> None:
        earliest = min((link.deadline for link in self._links), default=float("inf"))
        if earliest == float("inf") or self._loop is None:
            return
        if self._timer is not None and self._timer_at <= earliest:
            return  # it will fire early, look around and be set again: cheaper than moving it on every packet
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = max(earliest, now + TIMER_STEP_S)
        self._timer = self._loop.call_later(self._timer_at - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        unasked, self._unasked = self._unasked, {}
        for link in unasked:
            link.deadline = link.due() if link in self._links else float("inf")
        for link in list(self._links):
            if link.deadline <= now:
                self._guarded(link, partial(link.connection.handle_timer, now))
                self._deliver(link)
                self._touched[link] = True
        self._flush() if self._touched else self._arm_timer(now)  # it may have fired early: nobody has anything to say

    def _keep_house(self) -> None:
        assert self._loop is not None, "set when the driver was opened"
        self._housekeeping = self._loop.call_later(HOUSEKEEPING_S, self._keep_house)
        now, today = self._clock(), datetime.now(UTC)
        for link in list(self._links):
            if link.closed:
                continue
            shown = link.connection.peer_certificate
            if shown is not None and shown.not_valid_after_utc < today:
                self.end(link, Closed("certificate_expired", f"at {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"))
                continue
            if not link.greeted and now - link.opened_at > link.greeting_timeout_s:
                reason = "unreachable" if link.connection.is_client else "handshake_timeout"
                self.end(link, Closed(reason, "no greeting in time"))
            elif now - link.pinged_at >= KEEP_ALIVE_S:
                link.pinged_at = now
                self._guarded(link, link.keep_alive)
                self._guarded(link, link.connection.renew_keys_if_due)

    # --- what arrives -----------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        now, receive = self._clock(), self._port.receive
        fed: dict[Link, None] = {}
        for _ in range(DATAGRAMS_PER_WAKE_UP):
            received = receive()
            if received is None:
                break
            data, address = received
            self.counters["datagrams_in"] += 1
            self.counters["bytes_in"] += len(data)
            link = self._route(data, address, now)
            if link is not None:
                fed[link] = None
                self._feed(link, data, address, now)
        for link in fed:
            self._deliver(link)
        self._polling.traffic(now)
        self.schedule_flush()  # last: what a drain sends because of what was delivered joins this flush

    def _feed(self, link: Link, data: bytes, address: Address, now: float) -> None:
        self._touched.setdefault(link, False)
        try:
            link.receive_datagram(data, address, now)
        except Exception as error:
            self._on_library_failure(link, error)
        if not link.greeted and not link.connection.begun:
            self._forget(link)

    def _guarded(self, link: Link, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._on_library_failure(link, error)

    def _on_library_failure(self, link: Link, error: Exception) -> None:
        """A defect of the library that a peer has found costs that peer its connection, and nobody else theirs."""
        self._logger.error("quic_library_failed", address=link.address, error=repr(error))
        self.end(link, Closed("library_failure", repr(error)))
        self._forget(link)

    def _route(self, data: bytes, address: Address, now: float) -> Link | None:
        destination = destination_of(data)
        link = self._routes.get(destination)
        if link is not None:
            return link
        if not data or not data[0] & 0x80:
            self._on_unknown(data, destination, address)
            return None
        if self._accept is None or len(data) < DATAGRAM_BYTES_MIN or len(destination) < CONNECTION_ID_BYTES:
            self.counters["stray_datagrams"] += 1
            return None
        if int.from_bytes(data[1:5], "big") != QuicProtocolVersion.VERSION_1:
            self._offer_version(data, destination, address)
            return None
        if data[0] & 0x30:
            self.counters["stray_datagrams"] += 1
            return None
        if sum(not known.greeted for known in self._links) >= GREETINGS_MAX and not self._crowd_out():
            self.counters["greetings_refused"] += 1
            return None
        return self._accept_link(destination, address, now)

    def _accept_link(self, destination: bytes, address: Address, now: float) -> Link:
        assert self._accept is not None, "checked by the caller"
        connection = self._backend.accept(destination, self._admission, partial(resets.reset_token, self._reset_key))
        link = self._register(connection, self._accept(), address, now)
        self._routes[destination] = link
        return link

    def _register(self, connection: Connection, owner: LinkOwner, address: Address, now: float) -> Link:
        link = Link(self, connection, owner, address, now)
        self._links[link] = None
        self._routes[connection.host_cid] = link
        return link

    def _crowd_out(self) -> bool:
        """End the oldest connection that nobody knows; whether there was one. A flood would keep everybody out else."""
        for link in self._links:
            if not link.greeted and not link.connection.is_client and link.certified is None:
                self.end(link, Closed("crowded_out", "for a newer connection"))
                self._forget(link)
                return True
        return False

    def _deliver(self, link: Link) -> None:
        link.deliver(self._routes)
        ended = link.ended()
        if ended is not None:
            self.end(link, ended)
        if link.connection_terminated:
            self._forget(link)

    def end(self, link: Link, closed: Closed) -> None:
        """The connection is over for its owner. The library keeps it a little longer, to absorb what still arrives."""
        if link.closed:
            return
        self.counters[f"closed_{closed.reason}"] += 1
        link.abandon(closed)
        self.touch(link)

    def _forget(self, link: Link) -> None:
        self._links.pop(link, None)
        self._touched.pop(link, None)
        self._unasked.pop(link, None)
        link.release()
        for connection_id in [key for key, owner in self._routes.items() if owner is link]:
            del self._routes[connection_id]

    # --- datagrams without a connection -----------------------------------------------------------------------------

    def _on_unknown(self, data: bytes, destination: bytes, address: Address) -> None:
        """Either a peer tells us that it has restarted, or we have restarted and tell the peer (RFC 9000, 10.3)."""
        self.counters["stray_datagrams"] += 1
        for link in self._links:
            if link.address == address and resets.is_reset(data, link.connection.reset_token_of_peer):
                self.end(link, Closed("peer_restarted", "stateless reset"))
                return
        reset = resets.reset_for(data, destination, self._reset_key, os.urandom(resets.RESET_BYTES_MAX))
        if reset is not None and self._accept is not None:
            self.counters["resets_sent"] += 1
            self._send(reset, address)

    def _offer_version(self, data: bytes, destination: bytes, address: Address) -> None:
        self.counters["stray_datagrams"] += 1
        offer = version_offer(data, destination)
        if offer is not None:
            self._send(offer, address)
