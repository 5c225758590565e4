"""Ask a live agent for its status, without being one of the swarm's connections.

Used by operators and by health checks; an agent's own identity may ask that agent. A probe greets with epoch 0, so it
never takes the place of a connection, and may send nothing but the question.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from profiling.clock import now_ns
from protocol.batch import BatchLimits
from protocol.codec import Codec, codec_for
from protocol.errors import PeerViolation, Unavailable
from protocol.greeting import PROBE_EPOCH, Greeter
from protocol.identity import Identity, Verifier
from protocol.messages import Message, StatusReply, StatusRequest
from protocol.peer import Peer
from protocol.pki import CLIENT, SERVER
from protocol.quic.driver import Driver
from protocol.quic.link import Closed
from protocol.quic.settings import profile_named, resolve
from protocol.roster import Agent, Roster
from protocol.traffic import Traffic

PROBE_PROFILE = "lan"
"""Datagrams that pass everywhere, loopback included; each side chooses its own size."""


class _Probe:
    """Host of the one connection that a request needs."""

    def __init__(self, identity: Identity, roster: Roster, codec: Codec, request: StatusRequest, logger: Any) -> None:
        self.codec = codec
        self.limits = BatchLimits()
        self.greeter = Greeter(identity, roster, Verifier(roster), PROBE_EPOCH)
        self.reply: asyncio.Future[StatusReply] = asyncio.get_running_loop().create_future()
        self._request = request
        self._traffic = Traffic()
        self._waiting: Peer | None = None
        self.driver = Driver(
            identity,
            profile_named(PROBE_PROFILE),
            admission=lambda certificate: self.greeter.admit(certificate, CLIENT),
            accept=None,
            before_flush=self._write_waiting,
            logger=logger,
        )

    def traffic_of(self, agent: Agent) -> Traffic:
        return self._traffic

    def reason_to_refuse(self, peer: Peer) -> str | None:
        return None

    def on_greeted(self, peer: Peer) -> None:
        peer.send(self._request)

    def on_message(self, peer: Peer, trace: int, message: Message) -> None:
        if isinstance(message, StatusReply) and message.nonce == self._request.nonce and not self.reply.done():
            self.reply.set_result(message)

    def on_offence(self, peer: Peer, violation: PeerViolation) -> bool:
        return True

    def on_gone(self, peer: Peer, closed: Closed) -> None:
        if not self.reply.done():
            self.reply.set_exception(Unavailable(f"{peer.name} ended the connection: {closed.reason}"))

    def want_flush(self, peer: Peer) -> None:
        self._waiting = peer
        self.driver.schedule_flush()

    def _write_waiting(self) -> int:
        peer, self._waiting = self._waiting, None
        return peer.flush(now_ns()) if peer is not None else 0


async def client_request(
    identity: Identity,
    roster: Roster,
    target: Agent,
    request: StatusRequest,
    timeout_s: float,
    *,
    codec: Codec | None = None,
    logger: Any = None,
) -> StatusReply:
    """Connect, ask, close. ``codec`` is the cluster's, Cap'n Proto unless said otherwise.

    Raises ``Unavailable`` when there is no answer within ``timeout_s`` or the target refuses, with its reason, and
    ``UsageError`` when its host does not resolve.
    """
    bound = logger or structlog.get_logger().bind(agent=identity.agent.id)
    probe = _Probe(identity, roster, codec or codec_for("capnp"), request, bound)
    address = await resolve(target.id, target.host, target.port)
    probe.driver.open("127.0.0.1" if address[0].startswith("127.") else "0.0.0.0", 0)
    peer = Peer(probe, target)
    try:
        link = probe.driver.connect(address, peer, lambda shown: probe.greeter.admit(shown, SERVER, target))
        link.greeting_timeout_s = timeout_s
        return await asyncio.wait_for(probe.reply, timeout_s)
    except TimeoutError:
        raise Unavailable(f"{target.id} at {target.host}:{target.port} did not answer within {timeout_s:g} s") from None
    finally:
        probe.reply.cancel()
        peer.close("request_done")
        probe.driver.close()
