"""What can go wrong, as verbs. Each is one ``plan.Fault`` carried out, and the way back is among them."""

from __future__ import annotations

import random
from collections.abc import Callable

from consensus.machine import LogAppend
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.core import Raft
from protocol.codes import EntryKind
from tests.sim.cluster import Cluster
from tests.sim.plan import MILLISECOND_NS, Fault
from tests.sim.spoiled import read_spoiled
from tests.sim.world import Weather


class Faults:
    """The hand that breaks a cluster, and mends it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._spoil_rng = random.Random(f"spoil/{cluster.plan.seed}")
        self.done: dict[str, int] = {}
        """How often each verb was carried out."""

    def carry_out(self, fault: Fault) -> None:
        self._cluster.note(f"fault: {fault}")
        self.done[fault.verb] = self.done.get(fault.verb, 0) + 1
        getattr(self, fault.verb)(*fault.arguments)

    def crash(self, target: int) -> None:
        own = self._aim(target)
        if self._cluster.hosts[own].machine is not None:
            self._cluster.crash(own)

    def crash_at_write(self, target: int, count: int) -> None:
        """Die in the middle of the next write but so many."""
        self._cluster.dies_at_write[self._aim(target)] = count

    def restart(self, target: int) -> None:
        self._cluster.restart(self._aim(target))

    def storm(self, times: int, down_ms: int) -> None:
        """The power fails for all at once, again and again."""
        for own in self._cluster.everybody:
            self.crash(own)
        self._cluster.after(down_ms * MILLISECOND_NS, lambda: self._after_storm(times - 1, down_ms))

    def end(self) -> None:
        """Mend everything; what was still to come does not."""
        self._cluster.calm = True
        self.heal()

    def _after_storm(self, times_left: int, down_ms: int) -> None:
        self.restart_all()
        if times_left:
            self._cluster.after(2 * down_ms * MILLISECOND_NS, lambda: self._later(self.storm, times_left, down_ms))

    def pause(self, target: int, span_ms: int) -> None:
        """Stop a process for a while."""
        own = self._aim(target)
        self._cluster.fall_asleep(own)
        self._cluster.after(span_ms * MILLISECOND_NS, lambda: self._cluster.awake(own))

    def slow_disk(self, target: int, write_ms: int) -> None:
        self._cluster.write_ms[self._aim(target)] = write_ms

    def spoil_disk(self, target: int) -> None:
        """A bit of what was stored is read back as another one. The store must notice, and then the replica must not
        start again. Never so many that a quorum could be gone, of any configuration that is in force or may be yet."""
        own = self._aim(target)
        gone = self._cluster.lost | {own}
        size = self._cluster.plan.quorum_size
        if all(len(set(half) - gone) >= size(len(half)) for each in self._configurations() for half in each.halves):
            self.crash(own)
            host = self._cluster.hosts[own]
            read_back = read_spoiled(host.disk, self._spoil_rng)
            if read_back is None:
                self._cluster.lost = gone
            else:
                host.disk = read_back

    def partition(self, *side: int) -> None:
        self._cluster.network.partition({self._aim(target) for target in side}, self._cluster.everybody)

    def cut(self, sender: int, receiver: int) -> None:
        """One way."""
        self._cluster.network.weather.cut.add((self._aim(sender), receiver))

    def strand(self, target: int) -> None:
        """Cut one replica off from all others."""
        self.partition(target)

    def weather(self, loss: int, duplication: int, damage: int, late: int, delay_ms_max: int) -> None:
        """In hundredths."""
        cut = self._cluster.network.weather.cut
        self._cluster.network.weather = Weather(
            loss / 100, duplication / 100, damage / 100, delay_ms_max * MILLISECOND_NS, late / 100, cut
        )

    def heal(self) -> None:
        """Everything but what was lost for good."""
        self._cluster.network.weather = Weather()
        self._cluster.write_ms.clear()
        self._cluster.dies_at_write.clear()
        for own in self._cluster.everybody:
            self._cluster.awake(own)
        self.restart_all()

    def restart_all(self) -> None:
        for own in self._cluster.everybody:
            self._cluster.restart(own)

    def transfer(self, target: int, to: int) -> None:
        """Ask a replica to hand over, if it leads."""
        host = self._cluster.hosts[self._aim(target)]
        self._cluster.give(host, lambda raft, clock_ns: _done(raft.transfer_leadership(to, clock_ns)))

    def transfer_and_strand(self, target: int, to: int, after_ms: int) -> None:
        """And cut it off in the middle of that."""
        own = self._aim(target)
        self.transfer(own, to)
        self._cluster.after(after_ms * MILLISECOND_NS, lambda: self._later(self.strand, own))

    def _later(self, verb: Callable[..., None], *arguments: int) -> None:
        if not self._cluster.calm:
            verb(*arguments)

    def change(self, target: int, voter_count: int, *preference: int) -> None:
        """Ask a replica for other voters and learners. Nobody whose disk is lost by the time it takes that up is among
        them, so that the others take their places as new members."""

        def ask(raft: Raft, _: int) -> None:
            present = [own for own in preference if own not in self._cluster.lost]
            raft.propose_membership(present[:voter_count], present[voter_count:][::2])

        self._cluster.give(self._cluster.hosts[self._aim(target)], ask)

    def clock_rate(self, target: int, percent_of_drift: int) -> None:
        """A clock runs otherwise from now on, within what is allowed for."""
        own = self._aim(target)
        rate_ppm = self._cluster.plan.drift_ppm * percent_of_drift // 100
        self._cluster.clocks[own].set_rate(rate_ppm, self._cluster.now_ns)

    def clock_step(self, target: int, span_ms: int) -> None:
        """A clock jumps forward. Never where reads rest on leases, which allow for no jump."""
        own = self._aim(target)
        self._cluster.clocks[own].step(span_ms * MILLISECOND_NS)
        self._cluster.give(self._cluster.hosts[own])

    def reconnect(self, own: int, peer: int) -> None:
        host = self._cluster.hosts[own]
        self._cluster.give(host, lambda raft, clock_ns: raft.peer_connected(peer, clock_ns))

    def _aim(self, target: int) -> int:
        """Whom a fault means, see ``Fault.arguments``."""
        if target >= 0:
            return target
        leaders = self._cluster.believed_leaders()
        return leaders[(-target - 1) % len(leaders)] if leaders else -target - 1

    def _configurations(self) -> list[Configuration]:
        """In force anywhere, or on a disk from which it may come into force."""
        first = Configuration(tuple(range(self._cluster.plan.voters)))
        found = [first] if self._cluster.watch.changes == 0 else []
        found += [host.machine.membership.current for host in self._cluster.hosts if host.machine is not None]
        for host in self._cluster.hosts:
            waiting = [record for ready in host.open_writes for record in ready.records]
            appended = [record.entries for record in waiting if isinstance(record, LogAppend)]
            for entry in [*host.disk.entries, *(entry for entries in appended for entry in entries)]:
                if entry.kind == EntryKind.MEMBERSHIP:
                    found.append(decode_configuration(entry.payload))
            if host.machine is not None:
                found += [
                    decode_configuration(entry.payload)
                    for entry in host.machine.entries_from(1)
                    if entry.kind == EntryKind.MEMBERSHIP
                ]
        return found


def _done(_: str | None) -> None:
    """Why a request was refused is of no interest here."""
