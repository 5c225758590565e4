"""Judges a simulated lane from outside: what the Raft paper's figure 3 promises, and what clients rely on."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from consensus.machine import ReadResult
from consensus.raft.config import Role
from consensus.raft.configuration import decode_configuration
from consensus.raft.membership import QuorumSize
from consensus.raft.outcome import Outcome, Standing
from protocol.codes import EntryKind
from protocol.messages import Entry
from tests.sim.host import Application, Host, key_of


class Judge:
    """Safety, seen from outside: one canonical history, and what the Raft paper's figure 3 promises."""

    def __init__(
        self,
        hosts: list[Host],
        voters: Collection[int],
        quorum_size: QuorumSize,
        application_type: type[Application] = Application,
    ) -> None:
        self.hosts = hosts
        self.quorum_size = quorum_size
        self.groups = [frozenset(voters)]
        """The voters by the last committed configuration, both groups while it is joint."""
        self.changes = self.joint = self.learners = 0
        """Committed configurations; those that were joint; learners in them."""
        self.canonical: list[Entry] = []
        self._commit_terms: list[int] = []
        """In which term each was committed: that of who says so first, since leaders commit before they tell."""
        self.reference = application_type()
        """What the canonical history makes of the application."""
        self.chains = [self.reference.chain]
        """Its state after so many entries."""
        self.leader_of_term: dict[int, int] = {}
        self._checked: dict[int, tuple[object, ...]] = {}
        self.reads: dict[int, int] = {}
        self.reads_answered = 0

    def committed(self, host: Host, entries: list[Entry]) -> None:
        """State machine safety, and that a commit stands on a quorum of disks."""
        for entry in entries:
            if entry.index <= len(self.canonical):
                assert self.canonical[entry.index - 1] == entry, f"two histories at {entry.index}"
                continue
            assert entry.index == len(self.canonical) + 1, f"{entry.index} before {len(self.canonical) + 1}"
            self._on_a_quorum_of_disks(host, entry)
            self.canonical.append(entry)
            self._commit_terms.append(host.raft.term)
            self.reference.apply([entry])
            self.chains.append(self.reference.chain)
        assert host.application.index == entries[-1].index, f"{host.own} skipped entries"

    def _on_a_quorum_of_disks(self, host: Host, entry: Entry) -> None:
        """By the configuration that the entry itself or one before it brought, or by a later one that stood in the
        leader's log already, as far as it is in the committing replica's."""
        if entry.kind == EntryKind.MEMBERSHIP:
            self.changes += 1
            self.groups = groups_of(entry)
            configuration = decode_configuration(entry.payload)
            self.joint += configuration.joint
            self.learners += len(configuration.learners)
        holders = {other.own for other in self.hosts if other.disk.holds(entry)}
        later = [
            groups_of(each) for each in host.raft.entries_from(entry.index + 1) if each.kind == EntryKind.MEMBERSHIP
        ]
        assert any(self._quorums(groups, holders) for groups in (self.groups, *later)), (
            f"entry {entry.index} committed on {len(holders)} disks"
        )

    def _quorums(self, groups: list[frozenset[int]], holders: set[int]) -> bool:
        return all(len(group & holders) >= self.quorum_size(len(group)) for group in groups)

    def read_begins(self, request: int) -> None:
        """Whatever anybody may know to be committed now, the read must see."""
        self.reads[request] = len(self.canonical)

    def read_ends(self, result: ReadResult) -> None:
        """Linearizable reads: the index covers everything that was committed when the read began."""
        known = self.reads.pop(result.request)
        if result.index is not None:
            self.reads_answered += 1
            assert result.index >= known, f"a stale read: at {result.index}, after {known} were committed"

    def places_of_keys(self) -> dict[bytes, list[int]]:
        """Where each key was committed: once, if all is well."""
        places: dict[bytes, list[int]] = {}
        for entry in self.canonical:
            if (key := key_of(entry)) is not None:
                places.setdefault(key, []).append(entry.index)
        return places

    def key_settled(self, key: bytes, places: list[int], answers: list[Outcome | None]) -> None:
        """Idempotency: a key commits at most once, and nothing that a live replica says of it is false."""
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
        self._check_invariants(host)
        assert host.application.chain == self.chains[host.application.index], f"{host.own} has another state"
        if raft.role is not Role.LEADER or raft.term in self.leader_of_term:
            assert raft.role is not Role.LEADER or self.leader_of_term[raft.term] == host.own, "two leaders in one term"
            return
        self.leader_of_term[raft.term] = host.own
        self._holds_what_was_committed_before(host)

    def _holds_what_was_committed_before(self, host: Host) -> None:
        """Leader completeness is about earlier terms. A candidate that was stopped may win its old term very late."""
        raft = host.raft
        earlier = [index for index, term in enumerate(self._commit_terms, start=1) if term < raft.term]
        base, last = raft.log.base_index, earlier[-1] if earlier else 0
        held = raft.entries_from(1)[: max(last - base, 0)]
        assert held == self.canonical[base:last], f"leader {host.own} of term {raft.term} lacks committed entries"

    def _check_invariants(self, host: Host) -> None:
        """What all invariants but a leader's speak of changes seldom; what it believes of others changes all the
        time."""
        raft, log = host.raft, host.raft.log
        seen = (
            host.life, raft.role, raft.term, raft.leader, log.last_index, log.last_term, log.base_index,
            raft.commit_index, log.durable_index, len(raft._votes),
        )  # fmt: skip
        if self._checked.get(host.own) != seen:
            self._checked[host.own] = seen
            raft.check_invariants()
        elif raft._leadership is not None:
            raft._leadership.check_invariants(raft.commit_index)

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


def groups_of(entry: Entry) -> list[frozenset[int]]:
    voters, outgoing, *_ = msgspec.msgpack.decode(entry.payload)
    return [frozenset(group) for group in (voters, outgoing) if group]
