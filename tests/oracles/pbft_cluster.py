"""A whole spine in virtual time, driven by one seed, and the oracle that watches it from outside.

The network loses, doubles, delays, reorders and partitions; the disk is slow and writes in order; a crash keeps a
random prefix of what was being written. Replicas are real ``Pbft`` machines; keys, clock, network and disk are played.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from consensus.machine import BROADCAST, Outgoing, Ready, Record, SignedPhase, SlotCommit
from consensus.pbft.certificate import verify_certificate
from consensus.pbft.config import PbftConfig
from consensus.pbft.core import Pbft
from consensus.pbft.safety import COMMIT, PRE_PREPARE, PREPARE, SafetyRules
from protocol.codes import CommandKind
from protocol.messages import Commit, CommittedSlot, Message, Prepare, PrePrepare, SignedCommand
from protocol.signing import batch_digest, command_digest, phase_bytes

CLUSTER = b"spine-under-test"
MS = 1_000_000
CONFIG = PbftConfig(
    window=8,
    commands_per_slot_max=4,
    resend_ns=40 * MS,
    resend_backoff_max=4,
    probe_ns=200 * MS,
    suspect_ns=400 * MS,
    reply_slots_max=4,
    history_slots_max=512,
)
PHASE_OF = {PrePrepare: PRE_PREPARE, Prepare: PREPARE, Commit: COMMIT}


def signature_of(replica: int, payload: bytes) -> bytes:
    """A keyed hash in place of Ed25519: unforgeable for anybody who plays by the wrappers here, and cheap."""
    return hashlib.sha256(b"key of %d" % replica + payload).digest()


def signer(replica: int) -> Callable[[bytes], bytes]:
    return lambda payload: signature_of(replica, payload)


def verify(replica: int, payload: bytes, signature: bytes) -> bool:
    return signature == signature_of(replica, payload)


def make_command(number: int, size_bytes: int = 0) -> SignedCommand:
    unsigned = SignedCommand(CommandKind.FRAME, 7, b"command %d" % number + bytes(size_bytes), b"")
    signature = signature_of(unsigned.author, command_digest(CLUSTER, unsigned))
    return SignedCommand(unsigned.kind, unsigned.author, unsigned.body, signature)


def validate(command: SignedCommand) -> str | None:
    good = command.signature == signature_of(command.author, command_digest(CLUSTER, command))
    return None if good else "command_signature"


def make_pre_prepare(sequence: int, *commands: SignedCommand, primary: int = 0, view: int = 0) -> PrePrepare:
    digest = batch_digest(CLUSTER, commands)
    payload = phase_bytes(CLUSTER, PRE_PREPARE, view, sequence, digest, primary)
    return PrePrepare(view, sequence, digest, primary, commands, signature_of(primary, payload))


def make_prepare(sequence: int, digest: bytes, replica: int, view: int = 0) -> Prepare:
    payload = phase_bytes(CLUSTER, PREPARE, view, sequence, digest, replica)
    return Prepare(view, sequence, digest, replica, signature_of(replica, payload))


def make_commit(sequence: int, digest: bytes, replica: int, view: int = 0) -> Commit:
    payload = phase_bytes(CLUSTER, COMMIT, view, sequence, digest, replica)
    return Commit(view, sequence, digest, replica, signature_of(replica, payload))


def make_slot(
    sequence: int, *commands: SignedCommand, signers: Iterable[int] = (0, 1, 2), view: int = 0
) -> CommittedSlot:
    digest = batch_digest(CLUSTER, commands)
    commits = tuple(make_commit(sequence, digest, replica, view) for replica in signers)
    return CommittedSlot(view, sequence, digest, commands, commits)


class Liar:
    """What a Byzantine replica does to the messages of an honest one. It holds only its own key."""

    def __init__(self, own: int) -> None:
        self.own = own
        self.sign = signer(own)

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        """Messages to send in place of ``sent``, with their destinations. The base class is honest."""
        for peer in peers if sent.destination == BROADCAST else (sent.destination,):
            yield from self.to(peer, sent.message)

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        del self
        yield peer, message


class Oracle:
    """Judges honest replicas only, from what leaves them. Every failure names the seed."""

    def __init__(self, seed: int, voters: tuple[int, ...], quorum_size: int) -> None:
        self.seed = seed
        self.voters = voters
        self.quorum_size = quorum_size
        self.history: dict[int, bytes] = {}
        self.order: dict[bytes, int] = {}
        self.promised: dict[tuple[int, str, int, int], bytes] = {}

    def fail(self, text: str) -> None:
        raise AssertionError(f"{text} (rerun with seed {self.seed})")

    def leaves(self, replica: Replica, message: Message) -> None:
        """One digest for each promise over all lives, and no signature before its record is durable."""
        phase = PHASE_OF.get(type(message))
        if phase is None:
            return
        assert isinstance(message, PrePrepare | Prepare | Commit)
        key = (replica.own, phase, message.view, message.sequence)
        if self.promised.setdefault(key, message.digest) != message.digest:
            self.fail(f"replica {replica.own} signed two digests for {key[1:]}")
        if message.signature not in replica.durable_signatures:
            self.fail(f"replica {replica.own} sent {phase} {message.sequence} before it was durable")

    def executes(self, replica: Replica, slot: CommittedSlot) -> None:
        if slot.sequence != replica.applied + 1:
            self.fail(f"replica {replica.own} executed {slot.sequence} after {replica.applied}")
        if self.history.setdefault(slot.sequence, slot.digest) != slot.digest:
            self.fail(f"replica {replica.own} disagrees at {slot.sequence}")
        if reason := verify_certificate(slot, CLUSTER, self.voters, self.quorum_size, verify):
            self.fail(f"replica {replica.own} executed {slot.sequence} with a bad certificate: {reason}")
        for commit in slot.commits:
            if commit.replica == replica.own and commit.signature not in replica.durable_signatures:
                self.fail(f"replica {replica.own} counted its COMMIT {slot.sequence} before it was durable")
        for command in slot.commands:
            if validate(command) is not None:
                self.fail(f"an invalid command was ordered at {slot.sequence}")
            if self.order.setdefault(command_digest(CLUSTER, command), slot.sequence) != slot.sequence:
                self.fail(f"a command was ordered twice, again at {slot.sequence}")


@dataclass(slots=True)
class Replica:
    """One process: the machine of its present life, and the disk that outlives it."""

    address: int
    own: int
    machine: Pbft
    liar: Liar | None
    disk: list[Record] = field(default_factory=list)
    durable_signatures: set[bytes] = field(default_factory=set)
    writing: list[Ready] = field(default_factory=list)
    disk_free_ns: int = 0
    life: int = 1
    alive: bool = True
    applied: int = 0
    tick_at_ns: int | None = None

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            self.disk.append(record)
            if isinstance(record, SignedPhase):
                self.durable_signatures.add(record.signature)


@dataclass(slots=True)
class Weather:
    """How bad the network is."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ns_max: int = 4 * MS


class Cluster:
    """``voters`` identities, one replica each; ``twins`` have a second one with the same key, which nobody judges."""

    def __init__(
        self,
        seed: int,
        n: int = 4,
        quorum_size: int = 3,
        liars: Iterable[Liar] = (),
        twins: Iterable[int] = (),
        config: PbftConfig = CONFIG,
        weather: Weather | None = None,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.voters = tuple(range(n))
        self.quorum_size = quorum_size
        self.config = config
        self.weather = weather or Weather()
        self.oracle = Oracle(seed, self.voters, quorum_size)
        self.now_ns = 1_000 * MS
        self.delivered: list[tuple[int, int, Message]] = []
        """(from, to, message) of everything that arrived, in order; identities, not addresses."""
        self._groups: list[set[int]] | None = None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        by_own = {liar.own: liar for liar in liars}
        doubled = tuple(twins)
        self.replicas: list[Replica] = []
        for own in (*self.voters, *doubled):
            liar = by_own.get(own) or (Liar(own) if own in doubled else None)
            replica = Replica(len(self.replicas), own, self._machine(own, [], 0), liar)
            self.replicas.append(replica)
            self._arm(replica)

    @property
    def honest(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.liar is None]

    # --- the script's hands ------------------------------------------------------------------------------------------

    def submit(self, command: SignedCommand, *addresses: int) -> None:
        for replica in (self.replicas[address] for address in addresses or range(len(self.replicas))):
            if replica.alive:
                replica.machine.submit(command)
                self._pump(replica)

    def inject(self, sender: int, receiver: int, message: Message) -> None:
        """Hand over a message at once, as the authenticated voter ``sender``."""
        for replica in self.replicas:
            if replica.own == receiver and replica.alive:
                replica.machine.step(sender, message, self.now_ns)
                self._pump(replica)

    def partition(self, *groups: Iterable[int]) -> None:
        """Only addresses in one group hear each other. Without groups everybody hears everybody."""
        self._groups = [set(group) for group in groups] or None

    def crash(self, address: int) -> None:
        replica = self.replicas[address]
        if not replica.alive:
            return
        unwritten = [record for ready in replica.writing for record in ready.records]
        replica.write(unwritten[: self.random.randint(0, len(unwritten))])
        replica.writing.clear()
        replica.alive = False
        replica.life += 1

    def restart(self, address: int) -> None:
        replica = self.replicas[address]
        if replica.alive:
            return
        durable = sum(isinstance(record, SlotCommit) for record in replica.disk)
        replica.applied = self.random.randint(0, durable)
        replica.machine = self._machine(replica.own, replica.disk, replica.applied)
        replica.alive = True
        replica.disk_free_ns = self.now_ns
        replica.tick_at_ns = None
        self._pump(replica)

    def run(self, duration_ns: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as ``until`` holds."""
        end_ns = self.now_ns + duration_ns
        while self._events and self._events[0][0] <= end_ns:
            self.now_ns, _, event = heapq.heappop(self._events)
            event()
            if until is not None and until():
                return True
        self.now_ns = end_ns
        return until is not None and until()

    def executed_everywhere(self, commands: Iterable[SignedCommand]) -> bool:
        """Every honest replica is alive, has executed all ``commands``, and they are level."""
        if not all(command_digest(CLUSTER, command) in self.oracle.order for command in commands):
            return False
        return all(replica.alive and replica.applied == len(self.oracle.history) for replica in self.honest)

    # --- the world ---------------------------------------------------------------------------------------------------

    def _machine(self, own: int, disk: list[Record], executed_upto: int) -> Pbft:
        phases = [record for record in disk if isinstance(record, SignedPhase)]
        slots = [record.slot for record in disk if isinstance(record, SlotCommit)]
        safety = SafetyRules(own, CLUSTER, signer(own), phases)
        place = (own, self.voters, self.quorum_size, CLUSTER)
        return Pbft(*place, safety, verify, self.config, validate, slots, phases, executed_upto)

    def _at(self, at_ns: int, event: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (at_ns, self._event_count, event))

    def _arm(self, replica: Replica) -> None:
        at_ns = max(self.now_ns, replica.machine.next_deadline_ns())
        if replica.tick_at_ns is None or at_ns < replica.tick_at_ns:
            replica.tick_at_ns = at_ns
            life = replica.life
            self._at(at_ns, lambda: self._tick(replica, life, at_ns))

    def _tick(self, replica: Replica, life: int, at_ns: int) -> None:
        if replica.alive and replica.life == life and replica.tick_at_ns == at_ns:
            replica.tick_at_ns = None
            replica.machine.tick(self.now_ns)
            self._pump(replica)

    def _pump(self, replica: Replica) -> None:
        """The shell's loop: send, write, and hand out what is decided."""
        while not (ready := replica.machine.take_ready()).empty:
            for slot in ready.committed_slots:
                if replica.liar is None:
                    self.oracle.executes(replica, slot)
                replica.applied = slot.sequence
            self._send(replica, ready.send_now)
            if ready.records or ready.send_after_sync:
                self._write(replica, ready)
        replica.machine.check_invariants()
        self._arm(replica)

    def _write(self, replica: Replica, ready: Ready) -> None:
        replica.writing.append(ready)
        replica.disk_free_ns = max(self.now_ns, replica.disk_free_ns) + self.random.randint(0, 2 * MS)
        life = replica.life
        self._at(replica.disk_free_ns, lambda: self._written(replica, life, ready))

    def _written(self, replica: Replica, life: int, ready: Ready) -> None:
        if not replica.alive or replica.life != life:
            return
        assert replica.writing.pop(0) is ready
        replica.write(ready.records)
        self._send(replica, ready.send_after_sync)
        replica.machine.persisted(ready)
        self._pump(replica)

    def _send(self, replica: Replica, messages: Iterable[Outgoing]) -> None:
        for outgoing in messages:
            if replica.liar is None:
                self.oracle.leaves(replica, outgoing.message)
            for destination, message in self._lies(replica, outgoing):
                for receiver in self.replicas:
                    if receiver.own == destination:
                        self._carry(replica, receiver, message)

    def _lies(self, replica: Replica, outgoing: Outgoing) -> Iterator[tuple[int, Message]]:
        peers = tuple(own for own in self.voters if own != replica.own)
        yield from (replica.liar or Liar(replica.own)).outgoing(peers, outgoing)

    def _carry(self, sender: Replica, receiver: Replica, message: Message) -> None:
        weather = self.weather
        copies = 0 if self.random.random() < weather.loss else 1 + (self.random.random() < weather.duplication)
        for _ in range(copies):
            arrival_ns = self.now_ns + self.random.randint(1, weather.delay_ns_max)
            self._at(arrival_ns, lambda: self._arrive(sender, receiver, message))

    def _arrive(self, sender: Replica, receiver: Replica, message: Message) -> None:
        if not receiver.alive or not self._connected(sender.address, receiver.address):
            return
        self.delivered.append((sender.own, receiver.own, message))
        receiver.machine.step(sender.own, message, self.now_ns)
        self._pump(receiver)

    def _connected(self, one: int, other: int) -> bool:
        return self._groups is None or any(one in group and other in group for group in self._groups)


def storm(cluster: Cluster, command_count: int, rounds: int) -> list[SignedCommand]:
    """Random submissions, partitions, crashes and restarts; then everything heals and the author submits again.

    Liars and their twins never crash. At most one honest replica is down at a time, so that a quorum can exist.
    """
    chance = cluster.random
    commands = [make_command(number) for number in range(command_count)]
    addresses = [replica.address for replica in cluster.replicas]
    crashable = [replica.address for replica in cluster.honest]
    for round_number in range(rounds):
        for command in commands[round_number::rounds]:
            cluster.submit(command, *chance.sample(addresses, chance.randint(1, len(addresses))))
            if chance.random() < 0.2:
                cluster.submit(chance.choice(commands), chance.choice(addresses))
        if chance.random() < 0.3:
            cut = chance.randint(1, len(addresses) - 1)
            mixed = chance.sample(addresses, len(addresses))
            cluster.partition(mixed[:cut], mixed[cut:])
        if chance.random() < 0.4:
            cluster.crash(chance.choice(crashable))
        cluster.run(chance.randint(1, 120) * MS)
        if chance.random() < 0.5:
            cluster.partition()
        for address in crashable:
            if chance.random() < 0.7:
                cluster.restart(address)
    heal(cluster)
    for command in commands:
        cluster.submit(command, chance.choice(addresses))
    return commands


def heal(cluster: Cluster) -> None:
    cluster.partition()
    cluster.weather = Weather()
    for replica in cluster.replicas:
        cluster.restart(replica.address)
