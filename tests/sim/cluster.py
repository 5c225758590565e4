"""A simulated lane: real Raft machines, a virtual clock, a hostile network, disks that forget, and judges outside."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from consensus.machine import ReadResult
from consensus.raft.config import Role
from consensus.raft.core import Raft
from protocol.codes import EntryKind
from protocol.messages import Entry, Message
from tests.oracles.linearizability import Operation
from tests.sim.clients import Client
from tests.sim.host import Host
from tests.sim.judge import Judge
from tests.sim.plan import MILLISECOND_NS, Plan
from tests.sim.service import Service
from tests.sim.watch import Watch
from tests.sim.world import Clock, Network, Timeline

Act = Callable[[Raft, int], None]
"""One input of a machine, with what its clock shows."""


class Cluster(Timeline):
    """The replicas of one plan, and the clients that use them. ``faults.Faults`` is what goes wrong."""

    def __init__(self, plan: Plan, machine_type: type[Raft] = Raft, trace: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.rng = random.Random(f"cluster/{plan.seed}")
        self.everybody = range(plan.voters + plan.spares)
        self.trace: list[str] | None = [] if trace else None
        first, roster = tuple(range(plan.voters)), tuple(self.everybody)
        self.hosts = [
            Host(own, first, plan.quorum_size, plan.config, machine_type, str(plan.seed), roster, Service)
            for own in roster
        ]
        self.clocks = [Clock(self.rng, plan.drift_ppm) for _ in roster]
        if plan.clocks_apart:
            for clock in self.clocks:
                clock.rate_ppm = plan.drift_ppm
        self.network = Network(random.Random(f"network/{plan.seed}"), self, self._arrive)
        self.judge = Judge(self.hosts, first, plan.quorum_size, Service)
        self.watch = Watch(self.hosts, first)
        self.history: list[Operation] = []
        self.readers: dict[int, Callable[[Host, ReadResult], None]] = {}
        self.read_count = 0
        self.lost: set[int] = set()
        """Whose disk does not read back. They stay away: under the same name they would break their promises."""
        self.write_ms: dict[int, int] = {}
        """Disks that are slow now."""
        self.dies_at_write: dict[int, int] = {}
        self.calm = False
        """Nothing goes wrong any more."""
        self._disk_rng = random.Random(f"disk/{plan.seed}")
        self._disk_free_ns = [0] * len(roster)
        self._wake_ns = [0] * len(roster)
        self._asleep: dict[int, list[tuple[int, Act]]] = {}
        self._waited = 0
        for host in self.hosts:
            host.compact_every = self.rng.choice((0, 3, 8, 8))
            host.trailing = self.rng.choice((0, 0, 5))
            host.send, host.on_write = self._send, self._start_write
            host.on_commit, host.on_read = self._committed, self._read_answered
            self.give(host)
        self.clients = [Client(self, number) for number in range(plan.clients)]
        self._probe_rng = random.Random(f"probe/{plan.seed}")
        self._probe()

    # Inputs of the replicas

    def give(self, host: Host, act: Act | None = None) -> None:
        """An input for a replica. One that is stopped gets it when it goes on, one that is down never."""
        if host.machine is None:
            return
        if host.own in self._asleep:
            if act is not None:
                self._asleep[host.own].append((self.local_ns(host.own), act))
            return
        self._turn(host, act, self.local_ns(host.own))

    def _turn(self, host: Host, act: Act | None, clock_ns: int) -> None:
        """Let it act, perform what follows, let the judges look at it, and see to it that it is woken in time."""
        raft, own = host.raft, host.own
        if act is not None:
            act(raft, clock_ns)
        host.drain()
        self.judge.looked_at(host)
        self.watch.looked_at(host)
        deadline_ns = raft.next_deadline_ns()
        assert deadline_ns is not None
        wake_ns = self.clocks[own].true_ns(deadline_ns)
        if not self.now_ns < self._wake_ns[own] <= wake_ns:
            self._wake_ns[own] = wake_ns = max(wake_ns, self.now_ns + 1)
            self.at(wake_ns, lambda: self.give(host, Raft.tick))

    def local_ns(self, own: int) -> int:
        """What the clock of this replica shows now."""
        return self.clocks[own].local_ns(self.now_ns)

    def _arrive(self, sender: int, receiver: int, message: Message) -> None:
        host = self.hosts[receiver]
        if host.machine is not None:
            if self.trace is not None:
                self.note(f"{sender} to {receiver}: {message}")
            self.give(host, lambda raft, clock_ns: raft.step(sender, message, clock_ns))

    def fall_asleep(self, own: int) -> None:
        """As SIGSTOP: nothing is handled; what arrives waits."""
        self._asleep.setdefault(own, [])

    def sleeps(self, own: int) -> bool:
        return own in self._asleep

    def awake(self, own: int) -> None:
        """As SIGCONT: everything that waited comes at once. The first input was being handled when the process was
        stopped, so that it still sees the clock of then."""
        waiting = self._asleep.pop(own, [])
        self._waited += len(waiting)
        host = self.hosts[own]
        life = host.life
        for place, (clock_ns, act) in enumerate(waiting):
            if host.machine is not None and host.life == life:
                self._turn(host, act, clock_ns if place == 0 else self.local_ns(own))
        self.give(host)

    def crash(self, own: int) -> None:
        """The process and everything that it had not stored are gone, and perhaps the end of what it was storing."""
        self.note(f"crash {own}")
        self._asleep.pop(own, None)
        self.hosts[own].crash(self._disk_rng)

    def restart(self, own: int) -> None:
        """Come back from the disk, if it reads back."""
        if own in self.lost or self.hosts[own].machine is not None:
            return
        self.note(f"restart {own}")
        self.hosts[own].restart()
        self._disk_free_ns[own] = self.now_ns
        self._wake_ns[own] = 0
        self.give(self.hosts[own])

    # Disks

    def _start_write(self, host: Host) -> None:
        """Disks work in order and take from half a millisecond to twenty, or far longer while they are slow."""
        slow_ms = self.write_ms.get(host.own, 0)
        took_ns = int((self._disk_rng.choice((0.5, 2, 20)) + slow_ms) * MILLISECOND_NS)
        done_ns = max(self._disk_free_ns[host.own], self.now_ns) + took_ns
        self._disk_free_ns[host.own] = done_ns
        life = host.life
        self.at(done_ns, lambda: self._finish_write(host, life))
        if host.own in self.dies_at_write:
            self.dies_at_write[host.own] -= 1
            if self.dies_at_write[host.own] <= 0:
                del self.dies_at_write[host.own]
                self.after(self._disk_rng.randint(1, took_ns), lambda: self._die_in_write(host, life))

    def _finish_write(self, host: Host, life: int) -> None:
        if host.life == life and host.machine is not None:
            host.store_write()
            self.give(host, lambda raft, clock_ns: host.report_write())

    def _die_in_write(self, host: Host, life: int) -> None:
        if host.life == life and host.machine is not None and not self.calm:
            self.crash(host.own)

    # Outputs of the replicas

    def _send(self, sender: int, receiver: int, message: Message) -> None:
        self.watch.sent(sender, receiver, message)
        self.network.send(sender, receiver, message)

    def _committed(self, host: Host, entries: list[Entry]) -> None:
        if self.trace is not None:
            self.note(f"{host.own} commits {[entry.index for entry in entries]}")
        self.judge.committed(host, entries)
        self.watch.committed(entries)
        for client in self.clients:
            client.replica_applied(host)

    def _read_answered(self, host: Host, result: ReadResult) -> None:
        self.judge.read_ends(result)
        answered = self.readers.pop(result.request, None)
        if answered is not None:
            answered(host, result)

    # Those who ask

    def read(self, own: int, answered: Callable[[Host, ReadResult], None] | None = None) -> None:
        """Ask for a linearizable read on any replica, the leader or not; ``answered`` hears of this one alone."""
        host = self.hosts[own]
        if host.machine is None:
            return
        self.read_count += 1
        number = self.read_count
        self.judge.read_begins(number)
        if answered is not None:
            self.readers[number] = answered
        self.give(host, lambda raft, clock_ns: raft.read(number, clock_ns))

    def _probe(self) -> None:
        """Whoever takes himself for the leader must not answer with what is past: most of all when there are two."""
        leaders = self.believed_leaders()
        if len(leaders) > 1 or self._probe_rng.random() < 0.25:
            for own in leaders:
                self.read(own)
        if self._probe_rng.random() < 0.15:
            self.read(self._probe_rng.choice(self.everybody))
        self.after(self._probe_rng.randint(2, 10) * MILLISECOND_NS, self._probe)

    def believed_leaders(self) -> list[int]:
        """Those that take themselves for the leader; one of the past is among them until it learns."""
        return [host.own for host in self.hosts if host.machine is not None and host.machine.role is Role.LEADER]

    def propose_new(self, own: int) -> int | None:
        """A payload that nobody has seen; its index, or None when it is refused."""
        index = self.hosts[own].raft.propose(EntryKind.FRAME, b"goal at %d" % self.now_ns)
        self.give(self.hosts[own])
        return index

    def happened(self) -> Counter[str]:
        """What faults came to: a fault that meets nobody is none."""
        messages = {f"messages {what}": count for what, count in self.network.happened.items()}
        return Counter(messages) + Counter(
            {
                "inputs held up": self._waited,
                "writes lost": sum(host.writes_lost for host in self.hosts),
                "writes torn": sum(host.disk.torn for host in self.hosts),
                "reads corrupted": len(self.lost),
                "lives": sum(host.life for host in self.hosts),
                "changes of members": self.judge.changes,
                "joint configurations": self.judge.joint,
                "learners": self.judge.learners,
            }
        )

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now_ns / MILLISECOND_NS:10.3f} ms  {text}")
