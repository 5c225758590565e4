"""Raft as a pure machine (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2), with
pre-vote and check-quorum (Ongaro's thesis, sections 9.6 and 6.2).

The vote and commit quorum is a parameter, because the lane's quorum may be larger than a majority (q=3 of 4).

Why safety survives asynchronous storage. Entries leave in ``send_now`` while the leader's own write is still under way:
the leader counts itself only when the write is done, so a commit always stands on a quorum of disks. Everything that
is a promise waits in ``send_after_sync``: acknowledgements, votes, and also a candidate's requests for votes. A request
promises two things, the vote for itself and the log that it names. Were it sent before the write and the agent crashed,
the next life could stand again in the same term with a shorter log and collect the votes that the longer one won.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from consensus.machine import BROADCAST, HardState, Outgoing, Ready
from consensus.raft.admission import refusal_reason
from consensus.raft.config import NOBODY, RaftConfig, Role
from consensus.raft.leadership import Leadership
from consensus.raft.log import Log
from consensus.raft.writes import OpenWrites
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    Message,
    RequestVote,
    RequestVoteResponse,
)


class Raft:
    """One replica of the lane. ``own`` and ``voters`` are roster positions, ``own`` among them.

    ``hard_state`` and ``entries`` are what the storage holds; entries up to ``applied_index`` are known to be committed
    and are not delivered again. Raises ``LocalMisuse`` when these do not fit together.

    Invariants: delivered <= commit_index <= last_index; a leader, and nobody else, has a ``Leadership`` of its term;
    terms in the log never exceed ``term``.
    """

    def __init__(
        self,
        own: int,
        voters: tuple[int, ...],
        quorum_size: int,
        rng: random.Random,
        config: RaftConfig,
        hard_state: HardState,
        entries: Sequence[Entry],
        applied_index: int = 0,
    ) -> None:
        if own not in voters or len(set(voters)) != len(voters):
            raise LocalMisuse(f"agent {own} must be one of the voters {voters}, each named once")
        if not len(voters) // 2 < quorum_size <= len(voters):
            raise LocalMisuse(f"quorum {quorum_size} of {len(voters)} voters: use a majority at least, and all at most")
        self.own = own
        self.voters = voters
        self.quorum_size = quorum_size
        self.config = config
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.leader: int | None = None
        self.ignored: Counter[str] = Counter()
        self.quorum_losses = 0
        self.log = Log(entries)
        if self.log.last_term > self.term or not 0 <= applied_index <= self.log.last_index:
            raise LocalMisuse(
                f"stored state does not fit together: term {self.term}, log up to {self.log.last_index} of term "
                f"{self.log.last_term}, applied {applied_index}"
            )
        self.commit_index = applied_index
        self._rng = rng
        self._others = tuple(voter for voter in voters if voter != own)
        self._voted_for = hard_state.voted_for
        self._writes = OpenWrites(self.log, hard_state)
        self._delivered_index = applied_index
        self._votes: dict[int, bool] = {}
        self._leadership: Leadership | None = None
        self._send_now: list[Outgoing] = []
        self._send_after_sync: list[Outgoing] = []
        self._now_ns = 0
        self._leader_contact_ns = 0
        self._election_deadline_ns = 0
        self._repeat_deadline_ns = 0

    # Inputs ---------------------------------------------------------------------------------------------------------

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """Take in one message. ``sender`` is the roster position that the transport proved."""
        self._observe(now_ns)
        reason = refusal_reason(sender, message, self._others)
        if reason is not None:
            return self._ignore(reason)
        if isinstance(message, AppendEntries):
            return self._on_append_entries(message)
        if isinstance(message, AppendEntriesResponse):
            return self._on_append_response(message)
        if isinstance(message, RequestVoteResponse):
            return self._on_vote_response(message)
        assert isinstance(message, RequestVote)
        return self._on_pre_vote(message) if message.pre_vote else self._on_request_vote(message)

    def tick(self, now_ns: int) -> None:
        """Let time pass: heartbeats, elections, and everything that has to be sent again in case it was lost."""
        self._observe(now_ns)
        if self._leadership is not None:
            if self._now_ns >= self._leadership.heartbeat_deadline_ns:
                self._tick_leader(self._leadership)
        elif self._now_ns >= self._election_deadline_ns:
            self._start_pre_vote()
        elif self.role is not Role.FOLLOWER and self._now_ns >= self._repeat_deadline_ns:
            self._ask_for_votes()

    def propose(self, kind: int, payload: bytes) -> int | None:
        """Append an entry and return its index, or None at once when this replica is not the leader.

        An index is no commitment: the entry is decided when it comes back in ``Ready.committed_entries`` with the term
        in which it was proposed. Proposals made before one ``take_ready`` travel together.
        """
        if not 0 <= kind <= 255:
            raise LocalMisuse(f"entry kind {kind} does not fit the wire: use an EntryKind")
        if self.role is not Role.LEADER:
            return None
        index = self.log.last_index + 1
        self.log.append((Entry(self.term, index, kind, payload),))
        return index

    def peer_connected(self, peer: int, now_ns: int) -> None:
        """A new connection to a voter stands, and nothing that was said on the old one can arrive any more."""
        self._observe(now_ns)
        if self._leadership is not None:
            self._leadership.peer_connected(peer)

    def persisted(self, ready: Ready) -> None:
        """The records of ``ready`` are durable. Readys with records come back in the order in which they were taken."""
        if not ready.records:
            return
        hard_state = self._writes.end(ready)
        if self.role is Role.CANDIDATE and hard_state == HardState(self.term, self.own):
            self._count_vote(self.own, True)
        elif self._leadership is not None:
            self._advance_commit(self._leadership)

    # Outputs --------------------------------------------------------------------------------------------------------

    def take_ready(self) -> Ready:
        """Everything to be done since the last call, in one Ready. Appends are built here, so that they batch."""
        ready = Ready(send_now=self._send_now)
        self._send_now = []
        if self._leadership is not None:
            ready.send_now.extend(self._leadership.appends(self.commit_index))
        self._writes.begin(ready, HardState(self.term, self._voted_for))
        if ready.records or not self._writes:
            # Otherwise these wait: they may promise what an earlier Ready, still being written, records.
            ready.send_after_sync, self._send_after_sync = self._send_after_sync, []
        if self._delivered_index < self.commit_index:
            ready.committed_entries = self.log.entries_from(self._delivered_index + 1, self.commit_index)
            self._delivered_index = self.commit_index
        return ready

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` wants to be called: 0, that is at once, until the first input has told the time."""
        if self._leadership is not None:
            return self._leadership.heartbeat_deadline_ns
        if self.role is Role.FOLLOWER:
            return self._election_deadline_ns
        return min(self._repeat_deadline_ns, self._election_deadline_ns)

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def durable_index(self) -> int:
        """Up to here the log is on this agent's disk."""
        return self.log.durable_index

    def entries_from(self, index: int) -> list[Entry]:
        """The log from ``index`` on, committed or not; ``index`` counts from 1."""
        return self.log.entries_from(index)

    def status(self) -> dict[str, Any]:
        """The whole state in plain types, for ``swarm status`` and for tests."""
        return {
            "role": self.role.value,
            "term": self.term,
            "leader": self.leader,
            "voted_for": None if self._voted_for == NOBODY else self._voted_for,
            "voters": list(self.voters),
            "quorum_size": self.quorum_size,
            "commit_index": self.commit_index,
            "last_index": self.log.last_index,
            "last_term": self.log.last_term,
            "durable_index": self.log.durable_index,
            "votes": sorted(voter for voter, granted in self._votes.items() if granted),
            "followers": {} if self._leadership is None else self._leadership.status(self._now_ns),
            "quorum_losses": self.quorum_losses,
            "ignored": dict(self.ignored),
        }

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls."""
        self.log.check_invariants()
        assert 0 <= self._delivered_index <= self.commit_index <= self.log.last_index
        assert self.log.last_term <= self.term
        assert (self.role is Role.LEADER) == (self._leadership is not None) == (self.leader == self.own)
        if self._leadership is not None:
            assert self._voted_for == self.own and self._leadership.term == self.term
            self._leadership.check_invariants()
        if self.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            assert self.leader is None
            assert sum(self._votes.values()) < self.quorum_size
        else:
            assert not self._votes

    # Elections (sections 5.1, 5.2 and 5.4.1; thesis 9.6) --------------------------------------------------------------

    def _start_pre_vote(self) -> None:
        """Ask whether an election could be won, before disturbing anybody with a new term."""
        self.role = Role.PRE_CANDIDATE
        self.leader = None
        self._votes = {}
        self._arm_election()
        self._ask_for_votes()
        self._count_vote(self.own, True)

    def _start_election(self) -> None:
        """The own vote counts only once it is durable: see ``persisted``."""
        self.role = Role.CANDIDATE
        self.term += 1
        self._voted_for = self.own
        self._votes = {}
        self._arm_election()
        self._ask_for_votes()

    def _ask_for_votes(self) -> None:
        self._repeat_deadline_ns = self._now_ns + self.config.heartbeat_ns
        if not self._others:
            return
        pre_vote = self.role is Role.PRE_CANDIDATE
        term = self.term + 1 if pre_vote else self.term
        request = RequestVote(term, self.own, self.log.last_index, self.log.last_term, pre_vote)
        (self._send_now if pre_vote else self._send_after_sync).append(Outgoing(BROADCAST, request))

    def _on_pre_vote(self, message: RequestVote) -> None:
        """Changes nothing here, and promises nothing. A grant echoes the term asked for, a refusal tells our own."""
        granted = (
            message.term > self.term
            and not self._leader_is_alive()
            and self.log.up_to_date(message.last_log_index, message.last_log_term)
        )
        term = message.term if granted else self.term
        self._reply(message.candidate, RequestVoteResponse(term, self.own, granted, True))

    def _on_request_vote(self, message: RequestVote) -> None:
        if message.term > self.term:
            if self._leader_is_alive():
                return self._ignore("leader is alive")
            self._become_follower(message.term, None)
        granted = (
            message.term == self.term
            and self._voted_for in (NOBODY, message.candidate)
            and self.log.up_to_date(message.last_log_index, message.last_log_term)
        )
        if granted:
            self._voted_for = message.candidate
            self._arm_election()
        return self._reply(message.candidate, RequestVoteResponse(self.term, self.own, granted, False))

    def _on_vote_response(self, message: RequestVoteResponse) -> None:
        pre_granted = message.pre_vote and message.granted
        asked_term = self.term + 1 if pre_granted else self.term
        if message.term > self.term and not pre_granted:
            return self._become_follower(message.term, None)
        asked_as = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
        if message.term != asked_term or self.role is not asked_as:
            return self._ignore("late vote")
        if self._votes.get(message.voter):
            return self._ignore("vote counted already")
        return self._count_vote(message.voter, message.granted)

    def _count_vote(self, voter: int, granted: bool) -> None:
        """One vote per voter. A later grant replaces a refusal, since requests are repeated and a lease may end."""
        self._votes[voter] = granted
        if sum(self._votes.values()) < self.quorum_size:
            return
        if self.role is Role.PRE_CANDIDATE:
            self._start_election()
        else:
            self._become_leader()

    def _become_leader(self) -> None:
        self.role = Role.LEADER
        self.leader = self.own
        self._votes = {}
        self._leadership = Leadership(
            self.own, self.term, self._others, self.quorum_size, self.log, self.config, self._now_ns
        )
        # Entries of older terms are committed only under one of our own term (section 5.4.2), so we make one.
        self.log.append((Entry(self.term, self.log.last_index + 1, EntryKind.NOOP, b""),))

    def _become_follower(self, term: int, leader: int | None) -> None:
        assert term >= self.term
        if term > self.term:
            self.term = term
            self._voted_for = NOBODY
        if self.role is Role.LEADER:
            self._arm_election()
        self.role, self.leader = Role.FOLLOWER, leader
        self._votes = {}
        self._leadership = None

    def _leader_is_alive(self) -> bool:
        """While this holds we help nobody to unseat the leader (thesis 4.2.3). A leader without followers unseats
        itself by check-quorum."""
        if self.role is Role.LEADER:
            return True
        silent_ns = self._now_ns - self._leader_contact_ns
        return self.leader is not None and silent_ns < self.config.election_timeout_min_ns

    # Replication (sections 5.3 and 5.4.2) -----------------------------------------------------------------------------

    def _on_append_entries(self, message: AppendEntries) -> None:
        if message.term < self.term:
            # The answer tells a leader of the past that it is one.
            self._reply(message.leader, AppendEntriesResponse(self.term, self.own, False, 0))
            return self._ignore("append of an older term")
        if message.term == self.term and self.leader not in (None, message.leader):
            return self._ignore("second leader in one term")
        self._become_follower(message.term, message.leader)
        self._leader_contact_ns = self._now_ns
        self._arm_election()
        previous = message.previous_log_index
        if self.log.term_at(previous) != message.previous_log_term:
            if previous <= self.commit_index:
                return self._ignore("append contradicts what is committed")
            hint = self.log.match_hint(previous, message.previous_log_term)
            return self._reply(message.leader, AppendEntriesResponse(self.term, self.own, False, hint))
        return self._accept_entries(message)

    def _accept_entries(self, message: AppendEntries) -> None:
        """The entry before the new ones matches: take what is new, and follow the leader's commit index that far."""
        if (position := self.log.first_conflict(message.entries)) is not None:
            if message.entries[position].index <= self.commit_index:
                return self._ignore("append contradicts what is committed")
            self.log.append(message.entries[position:])
        last_new = message.previous_log_index + len(message.entries)
        self.commit_index = max(self.commit_index, min(message.leader_commit, last_new))
        return self._reply(message.leader, AppendEntriesResponse(self.term, self.own, True, last_new))

    def _on_append_response(self, message: AppendEntriesResponse) -> None:
        if message.term > self.term:
            return self._become_follower(message.term, None)
        leadership = self._leadership
        if message.term < self.term or leadership is None:
            return self._ignore("answer to an older leadership")
        if message.match_index > self.log.last_index:
            return self._ignore("match beyond the log")
        progress = leadership.followers[message.follower]
        progress.contact_ns = self._now_ns
        if not message.success:
            return None if progress.refused(message.match_index) else self._ignore("old refusal")
        return self._advance_commit(leadership) if progress.accepted(message.match_index) else None

    def _advance_commit(self, leadership: Leadership) -> None:
        """Commit what a quorum holds on disk, but count only entries of the own term (section 5.4.2, figure 8)."""
        index = leadership.quorum_match()
        if index > self.commit_index and self.log.term_at(index) == self.term:
            self.commit_index = index

    def _tick_leader(self, leadership: Leadership) -> None:
        if leadership.quorum_silent_ns(self._now_ns) < self.config.election_timeout_max_ns:
            return leadership.begin_heartbeat(self._now_ns)
        self.quorum_losses += 1
        return self._become_follower(self.term, None)

    # Small parts ------------------------------------------------------------------------------------------------------

    def _observe(self, now_ns: int) -> None:
        self._now_ns = max(self._now_ns, now_ns)
        if self._election_deadline_ns == 0:
            self._arm_election()

    def _arm_election(self) -> None:
        low, high = self.config.election_timeout_min_ns, self.config.election_timeout_max_ns
        self._election_deadline_ns = self._now_ns + self._rng.randint(low, high)

    def _reply(self, destination: int, message: Message) -> None:
        """Answers are promises: they leave after everything that this Ready records is durable."""
        self._send_after_sync.append(Outgoing(destination, message))

    def _ignore(self, reason: str) -> None:
        self.ignored[reason] += 1
