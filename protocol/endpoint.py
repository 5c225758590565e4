"""The network as agents see it: start, send, broadcast, who is connected, close.

One connection per pair of agents, dialled by the one that comes first in the roster and kept alive. Everything runs on
one event loop; nothing here blocks, and a message that cannot be taken is refused to the caller at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import structlog

from profiling.clock import now_ns
from protocol.background import background
from protocol.batch import BatchLimits, Channel
from protocol.blame import Blame
from protocol.codec import Codec
from protocol.errors import LocalMisuse, PeerViolation, UsageError
from protocol.greeting import Greeter, process_epoch
from protocol.identity import Identity, Verifier
from protocol.messages import Message
from protocol.offences import Offences
from protocol.peer import Peer
from protocol.pki import CLIENT, SERVER
from protocol.probe import client_request
from protocol.pulse import Pacemaker, Pulse
from protocol.quic.backend import AIOQUIC
from protocol.quic.driver import Driver
from protocol.quic.link import ENDINGS_WITHOUT_BLAME, Closed
from protocol.quic.port import DatagramPort
from protocol.quic.settings import Profile, check_address, is_address, profile_named, resolve
from protocol.roster import Agent, Role, Roster, may_talk
from protocol.suspicion import Change
from protocol.traffic import Traffic, statistics_of

__all__ = ["Channel", "Endpoint", "OnMessage", "OnPeerChange", "OnSuspicion", "Peer", "client_request"]

RENEW_RETRY_S: Final = 2.0
"""How often a connection with newer certificates is tried, while the other side has old ones."""
RETIRE_S: Final = 0.5
"""How long a replaced connection is still read."""
DRAIN_S: Final = 0.3
DRAIN_STEP_S: Final = 0.005
PROBES_MAX: Final = 16
"""Visitors that may ask for the status at the same time. The oldest makes room: whoever stays has had its answer."""
DIAL_TIMEOUT_S: Final = 2.0
BACK_OFF_S_MIN: Final = 0.05
BACK_OFF_S_MAX: Final = 2.0

OnMessage = Callable[[Peer, int, Message], None]
"""Peer, cycle that the message belongs to (0 for none), message. Answer a probe with ``peer.send``."""
OnSuspicion = Callable[[Agent, bool], None]
"""Agent that is connected and strangely silent, or no longer silent. Its connection stands, until the idle timeout or
its next word; a connection that ends takes the suspicion with it, without another call."""
OnPeerChange = Callable[[Agent, bool], None]
"""Agent, and whether it is connected now. A replaced connection is announced as lost and then as there."""


class Endpoint:
    """One agent's connections to all roster members that it may talk to.

    ``rng`` jitters reconnection. ``bind_host`` overrides the roster's host for binding, as in containers. ``profile``
    is a name of ``quic.settings.PROFILES`` or a ``Profile``, ``transport`` one of ``quic.backend.TRANSPORTS``.
    ``port`` and ``clock`` (seconds) put it on another network and into another time than this host's. ``busy_poll_s``
    keeps the event loop awake after traffic (``quic.polling``).
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        codec: Codec,
        *,
        on_message: OnMessage,
        on_peer_change: OnPeerChange,
        on_suspicion: OnSuspicion = lambda agent, suspected: None,
        limits: BatchLimits | None = None,
        batch_max: int | None = None,
        profile: str | Profile = "loopback",
        transport: str = AIOQUIC,
        bind_host: str | None = None,
        rng: random.Random | None = None,
        epoch: int | None = None,
        logger: Any = None,
        port: DatagramPort | None = None,
        clock: Callable[[], float] = time.monotonic,
        busy_poll_s: float = 0.0,
    ) -> None:
        self.codec = codec
        self.limits = _limits(limits, batch_max)
        self.greeter = Greeter(identity, roster, Verifier(roster), process_epoch() if epoch is None else epoch)
        self._agent = identity.agent
        self._roster = roster
        self.on_message = on_message
        self._on_peer_change = on_peer_change
        self._on_suspicion = on_suspicion
        self._profile = profile_named(profile) if isinstance(profile, str) else profile
        self._transport = transport
        self._clock = clock
        self._bind_host = bind_host
        self._rng = rng or random.Random()
        self._logger = logger or structlog.get_logger().bind(agent=identity.agent.id)
        self._peers: dict[int, Peer] = {}
        self._probes: dict[Peer, None] = {}
        self._traffic = {agent.index: Traffic() for agent in roster.agents}
        self._waiting: dict[Peer, None] = {}
        self._linger: asyncio.TimerHandle | None = None
        self._offences = Offences()
        self._blame = Blame(self._logger, clock)
        self._dialling: list[asyncio.Task[None]] = []
        self._retiring: dict[int, Peer] = {}
        self._renewing: list[asyncio.Task[None]] = []
        self._closed = False
        self.refused: Counter[str] = Counter()
        """What was refused of anybody, strangers included, by reason."""
        self._driver = Driver(
            identity,
            self._profile,
            admission=lambda certificate: self.greeter.admit(certificate, CLIENT),
            accept=lambda: Peer(self, None),
            before_flush=self._write_waiting,
            logger=self._logger,
            transport=transport,
            port=port,
            clock=clock,
            busy_poll_s=busy_poll_s,
        )
        self._pacemaker = Pacemaker(self._profile.heartbeat_s, clock, self._pulses, self._on_change)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and begin to dial. Raises ``UsageError`` when the address cannot be used."""
        host = self._bind_host or self._agent.host
        address = await resolve(self._agent.id, host, self._agent.port)
        if self._bind_host is None:
            check_address(self._profile, self._agent.id, address[0])
        dialled = [agent for agent in self._roster.agents[self._agent.index + 1 :] if self._expects(agent)]
        for agent in dialled:
            if is_address(agent.host):
                check_address(self._profile, agent.id, agent.host)
        self._driver.open(*address)
        self._dialling = [background(self._keep_connected(agent)) for agent in dialled]
        self._pacemaker.start()

    async def close(self) -> None:
        """Send what was taken, tell all peers and stop; whoever does not read is waited for ``DRAIN_S`` at most."""
        self._closed = True
        self._pacemaker.stop()
        tasks = [*self._dialling, *self._renewing]
        for task in tasks:
            task.cancel()
        if self._linger is not None:
            self._linger.cancel()
        self._write_waiting()
        await self._drain()
        self._driver.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in [*self._peers.values(), *self._retiring.values(), *self._probes]:
            peer.close("shutdown")

    async def _drain(self) -> None:
        """A congestion window may hold the last batches back for a round trip or two."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_S
        while loop.time() < deadline and any(peer.unsent for peer in self._peers.values()):
            self._driver.schedule_flush()
            await asyncio.sleep(DRAIN_STEP_S)

    # --- sending ----------------------------------------------------------------------------------------------------

    @property
    def connected(self) -> frozenset[int]:
        """Roster positions of the agents that are connected and have greeted."""
        return frozenset(self._peers)

    @property
    def suspects(self) -> list[str]:
        """Agents that are connected and strangely silent."""
        return sorted(agent.id for agent, pulse in self._pulses() if pulse.liveness.suspected)

    @property
    def epoch(self) -> int:
        """This process's epoch, as peers see it."""
        return self.greeter.epoch

    def send(self, index: int, message: Message, *, channel: Channel = Channel.CONTROL, trace: int = 0) -> bool:
        """Queue a message for the agent at a roster position. False, and counted, when it is not connected or its queue
        is full; never blocks. A message that was taken is lost if the connection ends before it is acknowledged."""
        peer = self._peers.get(index)
        if peer is not None:
            return peer.send(message, channel=channel, trace=trace)
        if index == self._agent.index or index not in self._traffic:
            raise LocalMisuse(f"{self._agent.id} cannot send to roster position {index}")
        self._traffic[index].unsent["not_connected"] += 1
        return False

    def broadcast(self, message: Message, *, channel: Channel = Channel.CONTROL, trace: int = 0) -> int:
        """Send to every other voter; how many took it."""
        others = (voter.index for voter in self._roster.voters if voter.index != self._agent.index)
        return sum(self.send(index, message, channel=channel, trace=trace) for index in others)

    def statistics(self) -> dict[str, Any]:
        """Counters and gauges, for JSON: ``peers`` by agent id, ``refused`` by reason, ``socket``."""
        receive, send = self._driver.buffer_bytes
        return {
            "transport": self._transport,
            "profile": self._profile.name,
            "max_datagram_bytes": self._profile.max_datagram_bytes,
            "epoch": self.epoch,
            "peers": {
                agent.id: statistics_of(self._traffic[agent.index], self._peers.get(agent.index))
                for agent in self._roster.agents
                if self._expects(agent)
            },
            "probes": len(self._probes),
            "refused": dict(self.refused),
            "revocations": self.greeter.identity.revocations.as_dict(),
            "socket": {"receive_buffer_bytes": receive, "send_buffer_bytes": send, **self._driver.statistics},
        }

    def last_refusal(self, index: int) -> str | None:
        """Why the agent at a roster position refused us last, or ``None``."""
        return self._traffic[index].last_refusal

    # --- dialling ---------------------------------------------------------------------------------------------------

    def _expects(self, agent: Agent) -> bool:
        if agent.index == self._agent.index or agent.role is Role.OPERATOR:
            return False
        return may_talk(agent.role, self._agent.role)

    async def _keep_connected(self, agent: Agent) -> None:
        back_off_s = BACK_OFF_S_MIN
        while True:
            peer = await self._dial(agent)
            while peer is not None:
                await peer.gone.wait()
                successor = self._peers.get(agent.index)
                if successor is None or successor is peer:
                    break
                peer = successor  # it was replaced by a connection with newer certificates
            back_off_s = BACK_OFF_S_MIN if peer is not None and peer.greeted else min(2 * back_off_s, BACK_OFF_S_MAX)
            banned_s = self._offences.banned_for(agent.index, self._clock())
            await asyncio.sleep(max(banned_s, back_off_s * (0.5 + self._rng.random())))

    def reload(self, identity: Identity) -> None:
        """Use new certificates: at once for connections that begin, and those that we dialled are dialled anew. Each
        old one stands until its successor has greeted. The signing key is the roster's, as before. With the same
        certificates only the revocation list may be new: connections of those whom it names end, the others stand."""
        if identity.agent != self._agent:
            raise LocalMisuse(f"the identity of {identity.agent.id} for {self._agent.id}")
        before = self.greeter.identity
        self.greeter = replace(self.greeter, identity=identity)
        self._driver.reload(identity)
        if (identity.certificate, identity.authorities) == (before.certificate, before.authorities):
            return
        for peer in [peer for peer in self._peers.values() if peer.dialled]:
            self._renewing = [task for task in self._renewing if not task.done()]
            self._renewing.append(background(self._renew(peer)))

    async def _renew(self, old: Peer) -> None:
        """Dial until a new connection stands. The other side may not have its new certificates yet."""
        while self._peers.get(old.agent.index) is old and not self._closed:
            peer = await self._dial(old.agent)
            if peer is not None:
                await peer.greeted_or_gone()
            if self._peers.get(old.agent.index) is old:
                await asyncio.sleep(RENEW_RETRY_S * (0.5 + self._rng.random()))

    async def _dial(self, agent: Agent) -> Peer | None:
        self._traffic[agent.index].dials += 1
        try:
            address = await resolve(agent.id, agent.host, agent.port)
            peer = Peer(self, agent)
            link = self._driver.connect(
                address, peer, lambda certificate: self.greeter.admit(certificate, SERVER, agent)
            )
        except UsageError as error:  # a name that does not resolve now may do so later, when its container is up
            self._traffic[agent.index].refused["address"] += 1
            self._logger.warning("dial_failed", peer=agent.id, error=str(error))
            return None
        link.greeting_timeout_s = DIAL_TIMEOUT_S
        return peer

    # --- PeerHost ---------------------------------------------------------------------------------------------------

    def traffic_of(self, agent: Agent) -> Traffic:
        return self._traffic[agent.index]

    def reason_to_refuse(self, peer: Peer) -> str | None:
        """Why a peer that has proved who it is may not come in all the same."""
        index = peer.agent.index
        if self._offences.banned_for(index, self._clock()) > 0:
            return "banned"
        if peer.is_probe:
            return None
        if index >= self._agent.index:
            return "wrong_direction"
        present = self._peers.get(index)
        return "superseded" if present is not None and present.epoch > peer.epoch else None

    def on_greeted(self, peer: Peer) -> None:
        """Let it in. An older process of the same agent has to go; so has an older connection of the same process."""
        if peer.is_probe:
            if len(self._probes) >= PROBES_MAX:
                next(iter(self._probes)).refuse("too_many_probes")
            self._probes[peer] = None
            return
        index = peer.agent.index
        for older in (self._peers.get(index), self._retiring.get(index)):
            if older is not None and older.epoch < peer.epoch:
                older.refuse("superseded", f"a newer process is {peer.agent.id}")
        if (present := self._peers.get(index)) is not None:
            self._retire(present)
        self._peers[index] = peer
        self._traffic[index].connects += 1
        peer.begin_pulse(self._profile.heartbeat_s, self._clock, self._logger)
        self._logger.info("peer_connected", peer=peer.agent.id, epoch=peer.epoch)
        self._on_peer_change(peer.agent, True)

    def _retire(self, old: Peer) -> None:
        """Another connection of the same process takes its place. What is on its way on the old one still arrives; it
        closes a little later, and there is one such connection to an agent at most."""
        index = old.agent.index
        self._logger.info("peer_replaced", peer=old.agent.id)
        del self._peers[index]
        self._on_peer_change(old.agent, False)
        before = self._retiring.pop(index, None)
        if before is not None:
            before.close("replaced")
        self._retiring[index] = old
        old.flush(now_ns())
        asyncio.get_running_loop().call_later(RETIRE_S, old.close, "replaced")

    def on_offence(self, peer: Peer, violation: PeerViolation) -> bool:
        """Count it; after too many in a short time the peer is kept out for a while."""
        self._blame.warning("peer_offence", peer=peer.agent.id, reason=violation.reason, detail=violation.detail)
        return self._offences.add(peer.agent.index, self._clock())

    def on_gone(self, peer: Peer, closed: Closed) -> None:
        """A connection, greeted or not, has ended."""
        self._probes.pop(peer, None)
        self._waiting.pop(peer, None)
        if peer.greeted and self._retiring.get(peer.agent.index) is peer:
            del self._retiring[peer.agent.index]
        if closed.reason not in ENDINGS_WITHOUT_BLAME:
            if not closed.by_peer:
                self.refused[closed.reason] += 1
            event = "refused_by_peer" if closed.by_peer else "peer_refused"
            self._blame.warning(event, peer=peer.name, reason=closed.reason, detail=closed.detail)
        if not peer.greeted or self._peers.get(peer.agent.index) is not peer:
            return
        del self._peers[peer.agent.index]
        self._logger.info("peer_lost", peer=peer.agent.id, reason=closed.reason)
        if not self._closed:
            self._on_peer_change(peer.agent, False)

    def _pulses(self) -> list[tuple[Agent, Pulse]]:
        return [(peer.agent, peer.pulse) for peer in self._peers.values() if peer.pulse is not None]

    def _on_change(self, agent: Agent, change: Change, phi: float) -> None:
        suspected = change is Change.SUSPECTED
        log = self._logger.warning if suspected else self._logger.info
        log("peer_suspected" if suspected else "peer_recovered", peer=agent.id, phi=round(phi, 2))
        self._on_suspicion(agent, suspected)

    def want_flush(self, peer: Peer) -> None:
        self._waiting[peer] = None
        self._driver.schedule_flush()

    def _write_waiting(self) -> int:
        """End of the loop's tick: encode what waits. Returns a cycle among it, which the flush is charged to."""
        waiting, self._waiting = self._waiting, {}
        at_ns, charged, due_ns = now_ns(), 0, 0
        for peer in waiting:
            charged = peer.flush(at_ns) or charged
            peer_due_ns = peer.flush_due_ns()
            if peer_due_ns is not None and not peer.gone.is_set():
                self._waiting[peer] = None
                due_ns = min(due_ns or peer_due_ns, peer_due_ns)
        if due_ns and not self._closed:
            self._flush_later((due_ns - at_ns) / 1e9)
        return charged

    def _flush_later(self, delay_s: float) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self._linger = asyncio.get_running_loop().call_later(max(delay_s, 0.0), self._driver.schedule_flush)


def _limits(limits: BatchLimits | None, batch_max: int | None) -> BatchLimits:
    limits = limits or BatchLimits()
    return limits if batch_max is None else replace(limits, batch_max=batch_max)
