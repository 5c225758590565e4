"""Four whole replicas in virtual time, driven by one seed, and the oracle that watches them from outside.

The network loses, doubles, delays, reorders and partitions; a crash keeps a random prefix of what was on its way to the
disk; a restart goes through ``StoredState``, as in an agent. Bodies are the wire's own bytes; signatures are keyed
hashes. The storms over it, and how to replay one: ``tests.oracles.replica_storm``.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from consensus.assembly import ReplicaSettings, build_replica
from consensus.effects import Bodies, Debit, Effects, FrameRecord, FrameSettled, ReplicaKeys
from consensus.machine import BROADCAST, HardState, LogAppend, Outgoing, Record, SignedPhase, SlotCommit, VoteCast
from consensus.pbft.config import PbftConfig
from consensus.quorum import Quorum
from consensus.raft.config import RaftConfig, Role
from consensus.replica import Replica
from consensus.storage import StoredState
from protocol.codec import codec_for
from protocol.codes import CommandKind, DenyCode, Path
from protocol.messages import (
    CommittedSlot,
    Denial,
    Entry,
    Frame,
    Intent,
    Intents,
    Message,
    Outcome,
    SignedCommand,
    SliceGrant,
    Submit,
)
from protocol.signing import command_digest
from tests.oracles.signed_frames import CLUSTER, make_intent

MS: Final = 1_000_000
TICK_NS: Final = 10 * MS
VOTERS: Final = (0, 1, 2, 3)
TRADER, GATE, SLICE = 0, 3, 1
QUORUM: Final = Quorum(4, 1)
NOTIONAL: Final = 100
LIMIT: Final = 60 * NOTIONAL
CODEC: Final = codec_for("capnp")
RAFT: Final = RaftConfig(
    heartbeat_ns=20 * MS, election_timeout_min_ns=100 * MS, election_timeout_max_ns=200 * MS, entries_per_append_max=8,
    commit_delay_ns=10 * MS, thrift_delay_ns=10 * MS, prompt=frozenset({2}),
)  # fmt: skip
PBFT: Final = PbftConfig(window=8, resend_ns=60 * MS, resend_backoff_max=4, probe_ns=200 * MS, history_slots_max=512)


def signer(agent: int) -> Callable[[bytes], bytes]:
    """A keyed hash as long as an Ed25519 signature."""
    return lambda data: hashlib.sha512(b"key %d " % agent + data).digest()


def verify(agent: int, data: bytes, signature: bytes) -> bool:
    return signature == signer(agent)(data)


def honest_bodies() -> Bodies:
    return Bodies(
        CODEC.encode_body,
        lambda data: CODEC.decode_body(Outcome, data),
        lambda data: CODEC.decode_body(Frame, data),
        lambda data: CODEC.decode_body(SliceGrant, data),
    )


def sign_command(kind: int, author: int, body: Message) -> SignedCommand:
    unsigned = SignedCommand(kind, author, CODEC.encode_body(body), b"")
    return SignedCommand(kind, author, unsigned.body, signer(author)(command_digest(CLUSTER, unsigned)))


def sign_frame(sequence: int, *intents: Intent, path: Path = Path.LANE, version: int = 1) -> SignedCommand:
    """A frame of the trader's; unless they are given, it holds one intent numbered like itself."""
    chosen = Intents.of(*(intents or (make_intent(sequence),)))
    frame = Frame(CLUSTER, TRADER, path, 1, SLICE, version, sequence, sequence, 40, 0, 10**18, chosen, ())
    return sign_command(CommandKind.FRAME, TRADER, frame)


def sign_grant(version: int = 1, limit: int = LIMIT) -> SignedCommand:
    grant = SliceGrant(CLUSTER, SLICE, version, 1, TRADER, GATE, limit, limit)
    return sign_command(CommandKind.SLICE_GRANT, TRADER, grant)


def digest_of(command: SignedCommand) -> bytes:
    return command_digest(CLUSTER, command)


def valid_command(command: SignedCommand) -> str | None:
    return None if verify(command.author, digest_of(command), command.signature) else "signature_invalid"


class Disk:
    """What survives a crash, in the shape in which the storage gives it back."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, -1)
        self.entries: list[Entry] = []
        self.phases: dict[tuple[int, int, str], SignedPhase] = {}
        self.slots: dict[int, CommittedSlot] = {}
        self.votes: dict[bytes, VoteCast] = {}

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            match record:
                case HardState():
                    self.hard_state = record
                case LogAppend(entries):
                    assert 1 <= entries[0].index <= len(self.entries) + 1, "gap in the stored log"
                    self.entries[entries[0].index - 1 :] = entries
                case SignedPhase():
                    key = (record.view, record.sequence, record.phase)
                    assert self.phases.setdefault(key, record).digest == record.digest, "a promise was overwritten"
                case SlotCommit(slot):
                    self.slots[slot.sequence] = slot
                case VoteCast():
                    kept = self.votes.setdefault(record.digest, record)
                    assert kept == record, "a verdict was overwritten"

    def load(self) -> StoredState:
        phases = [self.phases[key] for key in sorted(self.phases)]
        slots = [self.slots[sequence] for sequence in sorted(self.slots)]
        return StoredState(self.hard_state, list(self.entries), phases, slots, list(self.votes.values()), {})


class Liar:
    """What a Byzantine voter does in place of an honest one. It holds only its own key."""

    def __init__(self, own: int) -> None:
        self.own = own

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        """Messages to send in place of ``sent``, with their destinations. The base class is honest."""
        for peer in peers if sent.destination == BROADCAST else (sent.destination,):
            yield peer, sent.message

    def bodies(self) -> Bodies:
        return honest_bodies()


@dataclass(slots=True)
class Weather:
    loss: float = 0.0
    duplication: float = 0.0
    delay_ns_max: int = 4 * MS


@dataclass
class Host:
    own: int
    replica: Replica
    liar: Liar | None = None
    disk: Disk = field(default_factory=Disk)
    writing: deque[Effects] = field(default_factory=deque)
    disk_free_ns: int = 0
    life: int = 0
    alive: bool = True
    settled: dict[bytes, FrameSettled] = field(default_factory=dict)
    """The last of this life, by frame."""
    coordinated: set[bytes] = field(default_factory=set)
    granted: set[int] = field(default_factory=set)


class Witness:
    """Sees what honest replicas do; ``replica_storm.Oracle`` judges it."""

    def takes(self, host: Host, effects: Effects) -> None:
        """A drain of the machine, before any of it is performed."""

    def settles(self, host: Host, settled: FrameSettled) -> None: ...
    def leaves(self, host: Host, message: Message) -> None: ...
    def restarts(self, host: Host) -> None: ...


class ReplicaCluster:
    """Virtual time, one seed. ``run`` goes on for a span of it; fault verbs may be called in between."""

    def __init__(
        self,
        seed: int,
        liars: Iterable[Liar] = (),
        denial_chance: float = 0.1,
        verdict_ns_max: int = 40 * MS,
        witness: Witness | None = None,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.weather = Weather()
        self.denial_chance = denial_chance
        self.verdict_ns_max = verdict_ns_max
        self.now_ns = 1_000 * MS
        self.witness = witness or Witness()
        self.message_count = 0
        self._groups: list[set[int]] | None = None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        by_own = {liar.own: liar for liar in liars}
        self.hosts: list[Host] = []
        for own in VOTERS:
            disk = Disk()
            host = Host(own, self._build(own, 0, disk, by_own.get(own)), by_own.get(own), disk)
            self.hosts.append(host)
        for host in self.hosts:
            self._start(host)

    @property
    def honest(self) -> list[Host]:
        return [host for host in self.hosts if host.liar is None]

    @property
    def leader(self) -> Host | None:
        leaders = [host for host in self.hosts if host.alive and host.replica.raft.role is Role.LEADER]
        return max(leaders, key=lambda host: host.replica.raft.term, default=None)

    # --- the script's hands ------------------------------------------------------------------------------------------

    def submit(self, command: SignedCommand, path: Path = Path.LANE, propose: bool = True) -> None:
        """The trader hands it to every voter, itself first; the others' copies pass through the network."""
        trader = self.hosts[TRADER]
        if not trader.alive:
            return
        message = Submit(path, propose, command)
        self._step(trader, TRADER, message)
        for receiver in self.hosts[1:]:
            self._carry(trader, receiver, message)

    def inject(self, sender: int, receiver: int, message: Message) -> None:
        """Hand over a message at once, as the authenticated voter ``sender``."""
        self._step(self.hosts[receiver], sender, message)

    def partition(self, *groups: Iterable[int]) -> None:
        self._groups = [set(group) for group in groups] or None

    def crash(self, own: int) -> None:
        """Lose the machine, and of what is being written all but a random first part, of which nothing has left."""
        host = self.hosts[own]
        if not host.alive:
            return
        for effects in list(host.writing)[: self.random.randint(0, len(host.writing))]:
            host.disk.write(effects.records)
        host.writing.clear()
        host.alive = False
        host.life += 1

    def restart(self, own: int) -> None:
        host = self.hosts[own]
        if host.alive:
            return
        host.replica = self._build(own, host.life, host.disk, host.liar)
        host.settled, host.coordinated, host.granted = {}, set(), set()
        host.alive = True
        host.disk_free_ns = self.now_ns
        self.witness.restarts(host)
        self._start(host)

    def heal(self) -> None:
        self.partition()
        self.weather = Weather()
        for own in VOTERS:
            self.restart(own)

    def run(self, span_ns: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; true as soon as ``until`` holds, which is looked at every few milliseconds."""
        end_ns = self.now_ns + span_ns
        while self.now_ns < end_ns:
            if until is not None and until():
                return True
            stop_ns = min(end_ns, self.now_ns + 5 * MS) if until is not None else end_ns
            while self._events and self._events[0][0] <= stop_ns:
                self.now_ns, _, action = heapq.heappop(self._events)
                action()
            self.now_ns = stop_ns
        return until is not None and until()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _build(self, own: int, life: int, disk: Disk, liar: Liar | None) -> Replica:
        settings = ReplicaSettings(
            own,
            VOTERS,
            QUORUM,
            CLUSTER,
            random.Random(f"{self.seed}/{own}/{life}"),
            RAFT,
            PBFT,
            ReplicaKeys(signer(own), verify),
            liar.bodies() if liar is not None else honest_bodies(),
            valid_command,
        )
        return build_replica(settings, disk.load()).replica

    def _start(self, host: Host) -> None:
        host.replica.restored(self.now_ns)
        self._pump(host)
        self._tick(host, host.life)

    def _tick(self, host: Host, life: int) -> None:
        if host.alive and host.life == life:
            host.replica.tick(self.now_ns)
            self._pump(host)
            self._at(self.now_ns + TICK_NS, lambda: self._tick(host, life))

    def _step(self, host: Host, sender: int, message: Message) -> None:
        if not host.alive:
            return
        if isinstance(message, Submit) or sender != host.own:
            host.replica.step(sender, message, self.now_ns)
        self._pump(host)

    def _pump(self, host: Host) -> None:
        """The shell's loop."""
        while not (effects := host.replica.take_ready()).empty:
            if host.liar is None:
                self.witness.takes(host, effects)
            self._send(host, effects.send_now)
            for record in effects.verify:
                self._verify(host, record)
            for settled in effects.settled:
                if host.liar is None:
                    self.witness.settles(host, settled)
                host.settled[settled.record.digest] = settled
            host.coordinated.update(record.digest for record in effects.coordinated)
            host.granted.update(grant.version for grant in effects.grants)
            if effects.records or host.writing:
                host.writing.append(effects)
                self._write(host, effects)
            else:
                self._send(host, effects.send_after_sync)
                host.replica.persisted(effects)
        host.replica.check_invariants()

    def _write(self, host: Host, effects: Effects) -> None:
        delay_ns = self.random.choice((MS // 2, 2 * MS, 12 * MS)) if effects.records else 0
        host.disk_free_ns = max(self.now_ns, host.disk_free_ns) + delay_ns
        life = host.life
        self._at(host.disk_free_ns, lambda: self._written(host, life, effects))

    def _written(self, host: Host, life: int, effects: Effects) -> None:
        if not host.alive or host.life != life:
            return
        assert host.writing.popleft() is effects
        host.disk.write(effects.records)
        self._send(host, effects.send_after_sync)
        host.replica.persisted(effects)
        self._pump(host)

    def _verify(self, host: Host, record: FrameRecord) -> None:
        """The role's verdict comes late, and would not be the same if it were asked again."""
        life, frame = host.life, record.frame
        denials = tuple(
            Denial(position, self.random.choice((DenyCode.PRICE_COLLAR, DenyCode.CLAIM_NOT_REPRODUCED)))
            for position in range(len(frame.intents))
            if self.random.random() < self.denial_chance
        )
        lane = range(len(frame.intents) if frame.path == Path.LANE else 0)
        debits = [
            Debit(frame.slice_id, frame.slice_version, frame.trader, intent.sequence, intent.symbol, NOTIONAL)
            for intent in (frame.intents[position] for position in lane)
        ]

        def answer() -> None:
            if host.alive and host.life == life:
                host.replica.verdict(record.digest, denials, debits, self.now_ns)
                self._pump(host)

        self._at(self.now_ns + self.random.randint(0, self.verdict_ns_max), answer)

    def _send(self, host: Host, messages: Iterable[Outgoing]) -> None:
        peers = tuple(own for own in VOTERS if own != host.own)
        for outgoing in messages:
            if host.liar is None:
                self.witness.leaves(host, outgoing.message)
            for destination, message in (host.liar or Liar(host.own)).outgoing(peers, outgoing):
                self._carry(host, self.hosts[destination], message)

    def _carry(self, sender: Host, receiver: Host, message: Message) -> None:
        weather = self.weather
        copies = 0 if self.random.random() < weather.loss else 1 + (self.random.random() < weather.duplication)
        for _ in range(copies):
            arrival_ns = self.now_ns + self.random.randint(1, weather.delay_ns_max)
            self._at(arrival_ns, lambda: self._arrive(sender, receiver, message))

    def _arrive(self, sender: Host, receiver: Host, message: Message) -> None:
        if self._groups is None or any({sender.own, receiver.own} <= group for group in self._groups):
            self.message_count += receiver.alive
            self._step(receiver, sender.own, message)

    def _at(self, at_ns: int, event: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (at_ns, self._event_count, event))
