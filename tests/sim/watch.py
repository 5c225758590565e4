"""Oracles that follow every replica through all of its lives: what it said, what it did, and what a leader believes."""

from __future__ import annotations

from collections.abc import Collection

from consensus.raft.config import Role
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.outcome import Outcome, Standing
from protocol.codes import EntryKind
from protocol.messages import AppendEntriesResponse, Entry, Message, RequestVote, RequestVoteResponse
from tests.sim.host import Host


class Watch:
    """Looks at a replica after each of its turns, and at everything that it sends."""

    def __init__(self, hosts: list[Host], voters: Collection[int]) -> None:
        self._hosts = hosts
        self.candidacies: set[tuple[int, int]] = set()
        """(term, candidate), one for each election."""
        self.changes = 0
        self._first = Configuration(tuple(sorted(voters)))
        self._terms = {0}
        self._promised: set[tuple[int, int, bytes]] = set()
        self._votes: dict[tuple[int, int], int] = {}
        self._spoke_in: dict[int, int] = {}
        self._led_from: dict[tuple[int, int], int] = {}
        self._believed: dict[tuple[int, int, int], int] = {}

    def looked_at(self, host: Host) -> None:
        raft = host.raft
        if raft.role in (Role.CANDIDATE, Role.LEADER) and (raft.term, host.own) not in self.candidacies:
            self.candidacies.add((raft.term, host.own))
            self._terms.add(raft.term)
        assert raft.term in self._terms, f"{host.own} is in term {raft.term}, for which nobody ever stood"
        if self.changes:
            self._configuration_is_the_logs(host)
        if raft.role is Role.LEADER:
            self._commits_its_own_term_only(host)
            self._believes_what_is_true(host)

    def sent(self, own: int, receiver: int, message: Message) -> None:
        """Votes and acknowledgements are promises over all lives: one vote in a term, and no term of the past."""
        match message:
            case RequestVote(term, pre_vote=False):
                self._voted(own, term, own)
            case RequestVoteResponse(term, granted=True, pre_vote=False):
                self._voted(own, term, receiver)
            case RequestVoteResponse(term, pre_vote=False) | AppendEntriesResponse(term):
                self._speaks(own, term)

    def _voted(self, own: int, term: int, candidate: int) -> None:
        before = self._votes.setdefault((own, term), candidate)
        assert before == candidate, f"{own} voted for {before} and for {candidate} in term {term}"
        self._speaks(own, term)

    def _speaks(self, own: int, term: int) -> None:
        before = self._spoke_in.get(own, 0)
        assert term >= before, f"{own} speaks in term {term}, and spoke in {before} already"
        self._spoke_in[own] = term
        written = self._hosts[own].disk.hard_state.term
        assert written >= term, f"{own} speaks in term {term} while its disk is in {written}"

    def _commits_its_own_term_only(self, host: Host) -> None:
        """Section 5.4.2: nothing is committed by counting but entries of the leader's term."""
        raft = host.raft
        elected_at = self._led_from.setdefault((host.own, raft.term), raft.commit_index)
        if raft.commit_index > elected_at:
            term = raft.log.term_at(raft.commit_index)
            assert term == raft.term, f"{host.own} leads {raft.term} and committed up to an entry of term {term}"

    def _believes_what_is_true(self, host: Host) -> None:
        """What counts as replicated is on the follower's disk, while nobody can have overwritten it."""
        raft, believed = host.raft, self._believed
        assert raft._leadership is not None
        news = [
            (key, progress.match)
            for follower, progress in raft._leadership.followers.items()
            if progress.match > raft.log.base_index
            and believed.get(key := (host.own, raft.term, follower)) != progress.match
        ]
        if not news or any(other.disk.hard_state.term > raft.term for other in self._hosts):
            return
        for key, match in news:
            believed[key] = match
            (entry,) = raft.log.entries_from(match, match)
            held = self._hosts[key[2]].disk.holds(entry)
            assert held, f"{host.own} believes that {key[2]} holds entry {match}"

    def committed(self, entries: list[Entry]) -> None:
        self.changes += sum(entry.kind == EntryKind.MEMBERSHIP for entry in entries)

    def _configuration_is_the_logs(self, host: Host) -> None:
        """The latest one in the log holds, or else that of the snapshot, or else the first."""
        raft = host.raft
        changes = [entry for entry in raft.entries_from(1) if entry.kind == EntryKind.MEMBERSHIP]
        if changes:
            wanted = decode_configuration(changes[-1].payload)
        elif raft.snapshot is not None:
            wanted = decode_configuration(raft.snapshot.membership)
        else:
            wanted = self._first
        held = raft.membership.current
        assert held == wanted, f"{host.own} acts by {held}, and its log says {wanted}"

    def told(self, host: Host, key: bytes, outcome: Outcome | None) -> None:
        """What a replica said of a proposal. Once it took one it must go on knowing of it until it dies."""
        where = (host.own, host.life, key)
        if outcome is None:
            assert where not in self._promised, f"{host.own} took a proposal and knows nothing of it"
        elif outcome.standing in (Standing.PENDING, Standing.COMMITTED):
            self._promised.add(where)
