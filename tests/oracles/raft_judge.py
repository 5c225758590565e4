"""Judges a simulated lane from outside: what the Raft paper's figure 3 promises, and what clients rely on."""

from __future__ import annotations

from consensus.machine import ReadResult
from consensus.raft.config import Role
from consensus.raft.proposals import Outcome, Standing
from protocol.messages import Entry
from tests.oracles.raft_host import Host, key_of, link


class Judge:
    """Safety, seen from outside: one canonical history, and what the Raft paper's figure 3 promises."""

    def __init__(self, hosts: list[Host], quorum_size: int) -> None:
        self.hosts = hosts
        self.quorum_size = quorum_size
        self.canonical: list[Entry] = []
        self.chains = [bytes(32)]
        """The application's state after so many entries."""
        self.leader_of_term: dict[int, int] = {}
        self.reads: dict[int, int] = {}
        self.reads_answered = 0

    def committed(self, host: Host, entries: list[Entry]) -> None:
        """State machine safety, and that a commit stands on a quorum of disks."""
        for entry in entries:
            if entry.index <= len(self.canonical):
                assert self.canonical[entry.index - 1] == entry, f"two histories at {entry.index}"
                continue
            assert entry.index == len(self.canonical) + 1, f"{entry.index} before {len(self.canonical) + 1}"
            copies = sum(other.disk.holds(entry) for other in self.hosts)
            assert copies >= self.quorum_size, f"entry {entry.index} committed on {copies} disks"
            self.canonical.append(entry)
            self.chains.append(link(self.chains[-1], entry))
        assert host.application.index == entries[-1].index, f"{host.own} skipped entries"

    def read_begins(self, request: int) -> None:
        """Whatever anybody may know to be committed now, the read must see."""
        self.reads[request] = len(self.canonical)

    def read_ends(self, result: ReadResult) -> None:
        """Linearizable reads: the index covers everything that was committed when the read began."""
        known = self.reads.pop(result.request)
        if result.index is not None:
            self.reads_answered += 1
            assert result.index >= known, f"a stale read: at {result.index}, after {known} were committed"

    def key_settled(self, key: bytes, answers: list[Outcome | None]) -> None:
        """Idempotency: a key commits at most once, and nothing that a live replica says of it is false."""
        places = [entry.index for entry in self.canonical if key_of(entry) == key]
        assert len(places) <= 1, f"{key!r} was committed at {places}"
        for answer in answers:
            assert answer is None or answer.standing is not Standing.PENDING, f"{key!r} is still pending"
            if answer is not None and answer.standing is Standing.COMMITTED:
                assert places == [answer.index], f"{key!r} is said to be committed at {answer.index}"
            if answer is not None and answer.standing is Standing.REFUSED:
                assert not places, f"{key!r} is said to be refused, and stands at {places}"

    def looked_at(self, host: Host) -> None:
        """Election safety and leader completeness, after every step of ``host``."""
        raft = host.raft
        raft.check_invariants()
        assert host.application.chain == self.chains[host.application.index], f"{host.own} has another state"
        if raft.role is not Role.LEADER or raft.term in self.leader_of_term:
            assert raft.role is not Role.LEADER or self.leader_of_term[raft.term] == host.own, "two leaders in one term"
            return
        self.leader_of_term[raft.term] = host.own
        base = raft.log.base_index
        held = raft.entries_from(1)[: max(len(self.canonical) - base, 0)]
        assert held == self.canonical[base:], f"leader {host.own} of term {raft.term} lacks committed entries"

    def logs_match(self) -> None:
        """Log matching: the same index and term means the same entries up to there."""
        logs = [
            {entry.index: entry for entry in host.raft.entries_from(1)}
            for host in self.hosts
            if host.machine is not None
        ]
        for position, one in enumerate(logs):
            for other in logs[position + 1 :]:
                shared = one.keys() & other.keys()
                last = max((index for index in shared if one[index].term == other[index].term), default=0)
                same = all(one[index] == other[index] for index in shared if index <= last)
                assert same, "logs with a common entry differ before it"
