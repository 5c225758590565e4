"""A victim among honest peers and hostile ones, and what must hold whatever the hostile ones do.

The victim, risk-2, is a real endpoint. trader-1 dials it and it dials executor-1: both honest, and talking to it all
the time; trader-2, honest too, comes and goes. risk-1 is a member that dials it with hostile intent, risk-3 one that it
dials; strangers have no keys at all.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import messages as m
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import PROBES_MAX, Endpoint
from protocol.fields import BATCH_BYTES_MAX
from protocol.identity import Identity
from protocol.peer import UNSENT_BYTES_MAX, Peer
from protocol.pki import Authority, Subject
from protocol.quic.backend import Address
from protocol.quic.driver import GREETINGS_MAX
from protocol.quic.link import ALERT_REASONS, REASONS
from protocol.quic.port import DatagramPort
from protocol.quic.settings import FLOW_WINDOW_BYTES
from protocol.roster import Agent, Role
from tests.fuzz.judge import REASONS as DECODER_REASONS
from tests.fuzz.judge import Wrong, check_ranges
from tests.hostile.wire import Wire
from tests.oracles.clusters import CLUSTER, Cluster, make_cluster
from tests.oracles.strangers import until

ROLES: Final = {
    "trader-1": Role.TRADER,
    "trader-2": Role.TRADER,
    "risk-1": Role.RISK,
    "risk-2": Role.RISK,
    "risk-3": Role.RISK,
    "executor-1": Role.EXECUTOR,
    "operator-1": Role.OPERATOR,
}
VICTIM: Final = "risk-2"
HONEST: Final = ("trader-1", "executor-1")
NEWCOMER: Final = "trader-2"
NEWCOMER_S_MAX: Final = 4.0
"""Two dials, should the first have been in vain."""
ONCE: Final = 2**40
"""View of messages that are sent once: the victim's application must not hear one twice."""

LABELS: Final = (
    REASONS
    | set(ALERT_REASONS.values())
    | DECODER_REASONS
    | {
        "tls_alert",
        "quic_error",
        "sender_mismatch",
        "role_not_allowed",
        "replayed",
        "wrong_channel",
        "address",
        "other",
    }
)
LIBRARY_FAULTS: Final = ("packet builder capacity exhausted",)
"""Defects that are the library's own: they cost whoever provokes them the connection, and nobody else anything. qh3
gives up on a handshake whose client does not prove its address and lets its answers be repeated."""
LINKS_MAX: Final = 2 * GREETINGS_MAX + PROBES_MAX + 8
"""Those that have not greeted, as many that are closing, probes, and the others."""
ROUTES_PER_LINK_MAX: Final = 12
BUFFERED_BYTES_MAX: Final = 2 * FLOW_WINDOW_BYTES + UNSENT_BYTES_MAX + 4 * BATCH_BYTES_MAX
"""What one peer can make us hold: a window full of holes, what it does not acknowledge, an unfinished frame on each
stream."""
GROWTH_BYTES_MAX: Final = 256 * 1024 * 1024
SILENCE_S_MAX: Final = 10.0
"""How long an honest message may take while the hostile ones do their worst; the machine may have other work."""
TALK_S: Final = 0.05
STANDSTILL_CPU_S_MAX: Final = 2.0
"""Processor time, not wall time, that anything may take before the loop turns again."""


class SpoofablePort:
    """A port on which datagrams may arrive from addresses that they were not sent from, as on any network."""

    def __init__(self, inner: DatagramPort) -> None:
        self._inner = inner
        self._forged: deque[tuple[bytes, Address]] = deque()
        self._on_readable: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open(self, owner: str, host: str, port: int, on_readable: Callable[[], None]) -> None:
        self._on_readable = on_readable
        self._inner.open(owner, host, port, on_readable)

    def receive(self) -> tuple[bytes, Address] | None:
        return self._forged.popleft() if self._forged else self._inner.receive()

    def forge(self, data: bytes, address: Address) -> None:
        self._forged.append((data, address))
        asyncio.get_running_loop().call_soon(self._on_readable)


class Talk:
    """What one honest agent says to another, numbered by channel, and what the other one has heard of it."""

    def __init__(self) -> None:
        self.sent = Counter[int]()
        self.heard = Counter[int]()
        self.quiet_since = 0.0

    @property
    def waiting(self) -> int:
        return self.sent.total() - self.heard.total()


class World:
    """Everybody on one loop. ``port`` makes ports, ``clock`` is the loop's time."""

    def __init__(
        self, cluster: Cluster, port: Callable[[], DatagramPort], clock: Callable[[], float], transport: str, seed: int
    ) -> None:
        self.cluster = cluster
        self.port = port
        self.clock = clock
        self.transport = transport
        self.rng = random.Random(seed)
        self.front: Any = SpoofablePort(port())
        self.endpoints: dict[str, Endpoint] = {}
        self.wrong: list[str] = []
        self.talks = {(a, b): Talk() for a in HONEST for b in (VICTIM,)} | {(VICTIM, b): Talk() for b in HONEST}
        self.once = Counter[int]()
        self.heard_of_hostile = 0
        self.once_sent = 0
        self.wires: list[Wire] = []
        self._foreign_authority = Authority.create(CLUSTER)
        self._epoch = 10
        self._listening: Wire | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.memory_bytes = 0
        self.standstill_s = 0.0
        """Longest time between two turns of the loop, with whatever else the machine did."""

    # --- life -------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._on_exception)
        for name in (VICTIM, *HONEST):
            self.endpoints[name] = self._endpoint(name, self.front if name == VICTIM else self.port())
            await self.endpoints[name].start()
        await until(self._all_honest_are_met, 20.0)
        self._tasks = [asyncio.ensure_future(each) for each in (self._talk(), self._turn_wires())]

    def _endpoint(self, name: str, port: DatagramPort) -> Endpoint:
        return Endpoint(
            self.cluster.identity(name),
            self.cluster.roster,
            codec_for("capnp"),
            on_message=self._listener(name),
            on_peer_change=self._watcher(name),
            rng=random.Random(name),
            transport=self.transport,
            port=port,
            clock=self.clock,
            logger=_Log(self),
        )

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await until(lambda: not any(talk.waiting for talk in self.talks.values()), SILENCE_S_MAX)
        self.drop_wires()
        if self._listening is not None:
            self._listening.close()
        await asyncio.gather(*(endpoint.close() for endpoint in self.endpoints.values()))
        asyncio.get_running_loop().set_exception_handler(None)

    def _all_honest_are_met(self) -> bool:
        index = {name: self.cluster.agent(name).index for name in self.endpoints}
        return all(index[listener] in self.endpoints[speaker].connected for speaker, listener in self.talks)

    async def newcomer(self) -> None:
        """An honest agent that starts now is let in, is heard, and leaves."""
        endpoint = self._endpoint(NEWCOMER, self.port())
        index = self.cluster.agent(VICTIM).index
        await endpoint.start()
        for _ in range(round(NEWCOMER_S_MAX / TALK_S)):
            if index in endpoint.connected:
                break
            await asyncio.sleep(TALK_S)
        if index not in endpoint.connected:
            line = endpoint.statistics()["peers"][VICTIM]
            self.wrong.append(f"{NEWCOMER} was kept out: {line['dials']} dials, {line['last_refusal']}")
        await endpoint.close()  # its last words may be lost; the next newcomer is a newer process

    # --- hostile ones -----------------------------------------------------------------------------------------------

    def next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    @property
    def victim(self) -> Endpoint:
        return self.endpoints[VICTIM]

    @property
    def victim_address(self) -> tuple[str, int]:
        agent = self.cluster.agent(VICTIM)
        return agent.host, agent.port

    def dialler(self, identity: Identity | None = None, *, epoch: int | None = None) -> Wire:
        """A wire with valid keys, or the given ones."""
        return self._opened(identity or self.cluster.identity("risk-1"), 0, epoch)

    def listener(self) -> Wire:
        """The member whom the victim dials; it listens as long as the run lasts."""
        if self._listening is None:
            identity = self.cluster.identity("risk-3")
            self._listening = self._opened(identity, identity.agent.port, None)
            self._listening.listens_to = self.victim_address
            self.wires.remove(self._listening)
        return self._listening

    def stranger_identity(self) -> Identity:
        """What everybody knows of risk-1, with keys and a certificate of the stranger's own making."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._foreign_authority.issue(Subject("risk-1", Role.RISK, "127.0.0.1"), key.public_key())
        return replace(
            self.cluster.identity("risk-1"),
            certificate=certificate,
            tls_key=key,
            signing_key=Ed25519PrivateKey.generate(),
        )

    def _opened(self, identity: Identity, number: int, epoch: int | None) -> Wire:
        wire = Wire(
            identity, self.cluster.roster, self.port(), self.clock, self.next_epoch() if epoch is None else epoch
        )
        wire.open("127.0.0.1", number)
        self.wires.append(wire)
        return wire

    def drop_wires(self) -> None:
        """All hostile ports but the listener's are closed, without a word to anybody."""
        for wire in self.wires:
            wire.close()
        self.wires.clear()

    def one_of_a_kind(self) -> m.Commit:
        """A message that the victim's application may hear once."""
        self.once_sent += 1
        return m.Commit(ONCE, self.once_sent, bytes(32), 1, bytes(64))

    async def _turn_wires(self) -> None:
        while True:
            for wire in [*self.wires, *([self._listening] if self._listening is not None else [])]:
                wire.tick()
            await asyncio.sleep(0.005)

    # --- honest ones ------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        turned_at = time.perf_counter(), time.thread_time()
        while True:
            before, turned_at = turned_at, (time.perf_counter(), time.thread_time())
            wall_s, busy_s = turned_at[0] - before[0], turned_at[1] - before[1]
            self.standstill_s = max(self.standstill_s, wall_s)
            if busy_s > STANDSTILL_CPU_S_MAX:
                self.wrong.append(f"the loop stood still for {busy_s:.1f} s of processor time")
            for (speaker, listener), talk in self.talks.items():
                if talk.waiting == 0:
                    talk.quiet_since = self.clock()
                for channel in (Channel.CONSENSUS, Channel.BULK):
                    message = m.Commit(channel, talk.sent[channel], bytes(32), 0, bytes(64))
                    index = self.cluster.agent(listener).index
                    if self.endpoints[speaker].send(index, message, channel=channel):
                        talk.sent[channel] += 1
                    else:
                        self.wrong.append(f"{speaker} cannot speak to {listener}")
            await asyncio.sleep(TALK_S)

    def _listener(self, name: str) -> Callable[[Peer, int, m.Message], None]:
        def on_message(peer: Peer, trace: int, message: m.Message) -> None:
            talk = self.talks.get((peer.agent.id, name))
            if talk is None:
                self._on_hostile_message(peer.agent, message)
            elif not isinstance(message, m.Commit) or message.sequence != talk.heard[message.view]:
                self.wrong.append(f"{name} heard {message!r:.120} of {peer.agent.id} after {dict(talk.heard)}")
            else:
                talk.heard[message.view] += 1

        return on_message

    def _on_hostile_message(self, agent: Agent, message: m.Message) -> None:
        self.heard_of_hostile += 1
        try:
            check_ranges(message)
        except Wrong as wrong:
            self.wrong.append(f"{type(message).__name__} of {agent.id}: {wrong}")
        if isinstance(message, m.Commit) and message.view == ONCE:
            self.once[message.sequence] += 1
            if self.once[message.sequence] > 1:
                self.wrong.append(f"message {message.sequence} of {agent.id} was delivered twice")

    def _watcher(self, name: str) -> Callable[[Agent, bool], None]:
        def on_peer_change(agent: Agent, connected: bool) -> None:
            if not connected and (agent.id, name) in self.talks:
                self.wrong.append(f"{name} lost {agent.id}")

        return on_peer_change

    # --- the oracle -------------------------------------------------------------------------------------------------

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        where = "".join(traceback.format_exception(error)[-4:]) if error is not None else ""
        self.wrong.append(f"{context['message']}\n{where}")

    def check(self) -> None:
        """Raises ``Wrong`` with everything that does not hold."""
        for name, endpoint in self.endpoints.items():
            self._check_labels(name, endpoint)
            self._check_bounds(name, endpoint)
        for pair, talk in self.talks.items():
            if talk.waiting and self.clock() - talk.quiet_since > SILENCE_S_MAX:
                self.wrong.append(f"{talk.waiting} messages of {pair} have been on their way for too long")
        growth = resident_bytes() - self.memory_bytes if self.memory_bytes else 0
        if growth > GROWTH_BYTES_MAX:
            self.wrong.append(f"{growth:,} bytes more than at the beginning")
        if self.wrong:
            raise Wrong("; ".join(dict.fromkeys(self.wrong)))

    def _check_labels(self, name: str, endpoint: Endpoint) -> None:
        statistics = endpoint.statistics()
        found = set(endpoint.refused) | {label for each in statistics["peers"].values() for label in each["refused"]}
        found |= {each["last_refusal"] for each in statistics["peers"].values() if each["last_refusal"]}
        if found - LABELS:
            self.wrong.append(f"{name} refused for {sorted(found - LABELS)}, no known reasons")

    def _check_bounds(self, name: str, endpoint: Endpoint) -> None:
        driver = endpoint._driver
        sizes = {"links": len(driver._links), "routes": len(driver._routes), "retiring": len(endpoint._retiring)}
        limits = {"links": LINKS_MAX, "routes": ROUTES_PER_LINK_MAX * LINKS_MAX, "retiring": len(ROLES)}
        sizes["probes"], limits["probes"] = len(endpoint._probes), PROBES_MAX
        for link in driver._links:
            held = buffered_bytes(link.connection) + _held_by_owner(link._owner)
            sizes["buffered"] = max(sizes.get("buffered", 0), held)
        limits["buffered"] = BUFFERED_BYTES_MAX
        if over := [what for what, size in sizes.items() if size > limits[what]]:
            self.wrong.append(f"{name} holds {sizes}: too much of {over}")


class _Log:
    """Takes the endpoints' log; a library that fails because of how we call it is our fault."""

    def __init__(self, world: World) -> None:
        self._world = world

    def bind(self, **fields: Any) -> _Log:
        return self

    def _ignore(self, event: str, **fields: Any) -> None:
        if event == "quic_library_failed" and not any(known in fields["error"] for known in LIBRARY_FAULTS):
            self._world.wrong.append(f"library_failure: {fields['error']}")

    debug = info = warning = error = _ignore


def buffered_bytes(connection: Any) -> int:
    """What an aioquic connection holds of its peer's streams and of ours; nothing is known of qh3's."""
    streams = [*getattr(connection, "_streams", {}).values()]
    return sum(len(stream.receiver._buffer) + len(stream.sender._buffer) for stream in streams)


def _held_by_owner(owner: Any) -> int:
    return int(owner._intake.held_bytes + owner.held_bytes)


def resident_bytes() -> int:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def hostile_cluster(directory: Path) -> Cluster:
    return make_cluster(directory, ROLES)
