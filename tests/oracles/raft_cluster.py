"""A simulated lane: real Raft machines, a virtual clock, a hostile network, disks that forget, and a judge outside.

Everything follows from one seed. ``python -m tests.oracles.raft_cluster SEED`` replays one and prints its trace.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from consensus.raft.config import RaftConfig, Role
from consensus.raft.core import Raft
from consensus.raft.proposals import Outcome
from protocol.codes import EntryKind
from protocol.messages import Entry, Message
from protocol.raft_messages import InstallSnapshot
from tests.oracles.raft_host import Host
from tests.oracles.raft_judge import Judge

MILLISECOND_NS = 1_000_000
SECOND_NS = 1000 * MILLISECOND_NS


NERVOUS: Final = RaftConfig(
    heartbeat_ns=15 * MILLISECOND_NS,
    election_timeout_min_ns=50 * MILLISECOND_NS,
    election_timeout_max_ns=100 * MILLISECOND_NS,
    entries_per_append_max=4,
    bytes_per_append_max=400,
    inflight_appends_max=2,
    clock_drift_ppm=50_000,
    snapshots=True,
    snapshot_chunk_bytes_max=900,
    inflight_bytes_max=600,
    uncommitted_bytes_max=1500,
    committed_bytes_per_ready_max=500,
)
"""Short timeouts beside slow disks and networks: many elections, and many logs that differ."""


LEASING: Final = dataclasses.replace(
    NERVOUS,
    lease_reads=True,
    election_timeout_min_ns=100 * MILLISECOND_NS,
    election_timeout_max_ns=300 * MILLISECOND_NS,
)
"""A leader that goes on for long without a quorum: only its lease keeps it from answering with what is past."""


@dataclass
class Weather:
    """How bad the network is. Delays are drawn per message, so messages overtake each other."""

    loss: float = 0.0
    duplication: float = 0.0
    damage: float = 0.0
    """Of snapshots, wherever it happens on their way: everything else is small enough to be checked whole."""
    delay_ns_max: int = 5 * MILLISECOND_NS
    cut: set[tuple[int, int]] = field(default_factory=set)


class SimulatedCluster:
    """Virtual time, one seed. ``run`` goes on for a span of it; fault verbs may be called in between."""

    def __init__(
        self, seed: int, voters: int = 4, quorum_size: int = 3, machine_type: type[Raft] = Raft, trace: bool = False
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        roster = tuple(range(voters))
        config = LEASING if seed % 2 else NERVOUS
        self.hosts = [Host(own, roster, quorum_size, config, machine_type, str(seed)) for own in roster]
        drift = config.clock_drift_ppm
        self._clocks = [(self.rng.randint(-drift, drift), self.rng.randint(0, SECOND_NS)) for _ in roster]
        """Rate, in millionths off, and offset of each replica's clock."""
        self.judge = Judge(self.hosts, quorum_size)
        self.weather = Weather()
        self.now_ns = 0
        self.keys: list[bytes] = []
        self._read_count = 0
        self.trace: list[str] | None = [] if trace else None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        self._disk_free_ns = [0] * voters
        self._wake_ns = [0] * voters
        for host in self.hosts:
            host.compact_every = self.rng.choice((0, 3, 8)) if seed % 3 else 0
            host.trailing = self.rng.choice((0, 0, 5))
            host.send, host.on_write, host.on_commit = self._transmit, self._start_write, self._committed
            host.on_read = lambda _, result: self.judge.read_ends(result)
            self._touch(host)

    # Faults, as verbs

    def crash(self, own: int) -> None:
        host = self.hosts[own]
        self._note(f"crash {own}")
        host.crash(self.rng)

    def restart(self, own: int) -> None:
        self._note(f"restart {own}")
        self.hosts[own].restart()
        self._disk_free_ns[own] = self.now_ns
        self._touch(self.hosts[own])

    def partition(self, side: set[int]) -> None:
        self._note(f"partition {sorted(side)}")
        everybody = range(len(self.hosts))
        self.weather.cut = {(a, b) for a in everybody for b in everybody if (a in side) != (b in side)}

    def cut_one_way(self, sender: int, receiver: int) -> None:
        self._note(f"cut {sender} to {receiver}")
        self.weather.cut.add((sender, receiver))

    def heal(self) -> None:
        self._note("heal")
        self.weather = Weather()
        for host in self.hosts:
            if host.machine is None:
                self.restart(host.own)

    def propose(self, own: int) -> Outcome | None:
        """Offer a payload to one replica, often one that was offered before; None when the replica is down."""
        host = self.hosts[own]
        if host.machine is None:
            return None
        if not self.keys or self.rng.random() < 0.85:
            number = len(self.keys)
            self.keys.append(b"payload %d " % number + bytes(number % 90))
        key = self.rng.choice(self.keys[-5:])
        outcome = host.machine.propose_once(key, EntryKind.FRAME, key)
        self._touch(host)
        return outcome

    def read(self, own: int) -> None:
        """Ask for a linearizable read on any replica, the leader or not."""
        host = self.hosts[own]
        if host.machine is not None:
            self._read_count += 1
            self.judge.read_begins(self._read_count)
            host.machine.read(self._read_count, self.local_ns(own))
            self._touch(host)

    def propose_new(self, own: int) -> int | None:
        """A payload that nobody has seen; its index, or None when it is refused."""
        index = self.hosts[own].raft.propose(EntryKind.FRAME, b"goal at %d" % self.now_ns)
        self._touch(self.hosts[own])
        return index

    # Time

    def run(self, span_ns: int) -> None:
        end_ns = self.now_ns + span_ns
        while self._events and self._events[0][0] <= end_ns:
            self.now_ns, _, action = heapq.heappop(self._events)
            action()
        self.now_ns = end_ns

    def run_with_faults(self, rounds: int) -> None:
        """Random faults and proposals, a few tens of milliseconds apart."""
        for _ in range(rounds):
            self._random_fault()
            for _ in range(self.rng.randint(1, 3)):
                own = self.rng.choice(self._believed_leaders() or range(len(self.hosts)))
                for _ in range(self.rng.choice((1, 1, 4))):
                    self.propose(own)
                self.read(self.rng.choice(range(len(self.hosts))))
                self._run_and_read(self.rng.randint(1, 5))
            self.judge.logs_match()

    def transfer(self, own: int) -> None:
        """Ask a leader to hand over to somebody, perhaps to cut it off in the middle of that."""
        to = self.rng.choice(range(len(self.hosts)))
        self._note(f"transfer {own} to {to}")
        self.hosts[own].raft.transfer_leadership(to, self.local_ns(own))
        self._touch(self.hosts[own])
        if self.rng.random() < 0.5:
            self.run(self.rng.randint(1, 5 * MILLISECOND_NS))
            self.strand(own)

    def strand(self, own: int) -> None:
        """Cut one replica off from all others, and let everybody go on for a while."""
        self.partition({own})
        self._run_and_read(self.rng.randint(10, 40))

    def settle(self, limit_ns: int = 10 * SECOND_NS) -> None:
        """Heal everything; then a new proposal must be committed by all replicas in time, or liveness is lost."""
        self.heal()
        deadline_ns = self.now_ns + limit_ns
        goal: int | None = None
        while self.now_ns < deadline_ns:
            self.run(50 * MILLISECOND_NS)
            leaders = self._believed_leaders()
            if goal is None and len(leaders) == 1:
                goal = self.propose_new(leaders[0])
            if goal is not None and all(host.raft.commit_index >= goal for host in self.hosts):
                for key in self.keys:
                    self.judge.key_settled(key, [host.raft.outcome(key) for host in self.hosts])
                return
        raise AssertionError(f"no progress within {limit_ns / SECOND_NS} s after healing")

    # Inside

    def _believed_leaders(self) -> list[int]:
        """Those that take themselves for the leader; one of the past is among them until it learns."""
        return [host.own for host in self.hosts if host.machine is not None and host.machine.role is Role.LEADER]

    def _run_and_read(self, steps: int) -> None:
        """Let time pass, with a read on everybody who takes himself for the leader every few milliseconds."""
        for _ in range(steps):
            self.run(self.rng.randint(1, 6) * MILLISECOND_NS)
            for leader in self._believed_leaders():
                self.read(leader)

    def _random_fault(self) -> None:
        everybody = range(len(self.hosts))
        leaders = self._believed_leaders()
        own = self.rng.choice(self.rng.choice((everybody, leaders or everybody)))
        dice = self.rng.random()
        if dice < 0.25:
            self.restart(own) if self.hosts[own].machine is None else self.crash(own)
        elif dice < 0.40:
            self.partition({own, *self.rng.sample(everybody, self.rng.randint(0, len(everybody) // 2))})
        elif dice < 0.50:
            self.cut_one_way(own, self.rng.choice(everybody))
        elif dice < 0.60:
            slow_ns = self.rng.choice((5, 60)) * MILLISECOND_NS
            self.weather = Weather(*(self.rng.uniform(0, 0.3) for _ in range(3)), slow_ns)
        elif dice < 0.75:
            self.heal()
        elif dice < 0.85 and leaders:
            self.strand(self.rng.choice(leaders))
        elif dice < 0.93 and leaders:
            self.transfer(self.rng.choice(leaders))

    def _touch(self, host: Host, act: Callable[[Raft], None] | None = None) -> None:
        """Give a replica its turn, let the judge look at it, and see to it that it is woken in time."""
        if host.machine is None:
            return
        if act is not None:
            act(host.machine)
        host.drain()
        self.judge.looked_at(host)
        deadline_ns = host.raft.next_deadline_ns()
        assert deadline_ns is not None
        wake_ns = self.true_ns(host.own, deadline_ns)
        if not self.now_ns < self._wake_ns[host.own] <= wake_ns:
            self._wake_ns[host.own] = max(wake_ns, self.now_ns + 1)
            self._at(self._wake_ns[host.own], lambda: self._touch(host, lambda raft: self._tick(host.own, raft)))

    def local_ns(self, own: int) -> int:
        """What the clock of this replica shows now."""
        rate, offset_ns = self._clocks[own]
        return offset_ns + self.now_ns * (1_000_000 + rate) // 1_000_000

    def true_ns(self, own: int, local_ns: int) -> int:
        """When that clock will show ``local_ns``, rounded up."""
        rate, offset_ns = self._clocks[own]
        return (local_ns - offset_ns) * 1_000_000 // (1_000_000 + rate) + 1

    def _tick(self, own: int, raft: Raft) -> None:
        raft.tick(self.local_ns(own))

    def _transmit(self, sender: int, receiver: int, message: Message) -> None:
        if isinstance(message, InstallSnapshot) and self.rng.random() < self.weather.damage:
            message = msgspec.structs.replace(message, chunk=bytes(reversed(message.chunk)))
        copies = 1 + (self.rng.random() < self.weather.duplication)
        for _ in range(copies):
            if self.rng.random() >= self.weather.loss:
                delay_ns = self.rng.randint(1, self.weather.delay_ns_max)
                self._at(self.now_ns + delay_ns, lambda: self._arrive(sender, receiver, message))

    def _arrive(self, sender: int, receiver: int, message: Message) -> None:
        if (sender, receiver) in self.weather.cut or self.hosts[receiver].machine is None:
            return
        self._note(f"{sender} to {receiver}: {message}")
        self._touch(self.hosts[receiver], lambda raft: raft.step(sender, message, self.local_ns(receiver)))

    def _start_write(self, host: Host) -> None:
        """Disks work in order and take from half a millisecond to twenty."""
        life = host.life
        done_ns = max(self._disk_free_ns[host.own], self.now_ns) + int(self.rng.choice((0.5, 2, 20)) * MILLISECOND_NS)
        self._disk_free_ns[host.own] = done_ns
        self._at(done_ns, lambda: self._finish_write(host, life))

    def _finish_write(self, host: Host, life: int) -> None:
        if host.life == life and host.machine is not None:
            host.complete_write()
            self._touch(host)

    def _committed(self, host: Host, entries: list[Entry]) -> None:
        self._note(f"{host.own} commits {[entry.index for entry in entries]}")
        self.judge.committed(host, entries)

    def _at(self, when_ns: int, action: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (when_ns, self._event_count, action))

    def _note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now_ns / MILLISECOND_NS:10.3f} ms  {text}")


def simulate(seed: int, rounds: int = 30, machine_type: type[Raft] = Raft, trace: bool = False) -> SimulatedCluster:
    """One seed from start to settled. Every fifth one runs seven voters instead of four."""
    voters, quorum_size = ((7, 5) if seed % 5 == 4 else (4, 3)) if seed % 7 else (3, 2)
    cluster = SimulatedCluster(seed, voters, quorum_size, machine_type, trace)
    try:
        cluster.run_with_faults(rounds)
        cluster.settle()
        cluster.judge.logs_match()
    except Exception as error:
        error.add_note(f"seed {seed}; rerun: python -m tests.oracles.raft_cluster {seed}")
        if trace:
            error.add_note("\n".join(cluster.trace or ()))
        raise
    return cluster


if __name__ == "__main__":
    sys.stdout.write("\n".join(simulate(int(sys.argv[1]), trace=True).trace or ()) + "\n")
