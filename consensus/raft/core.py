"""Raft as a pure machine (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 2), with
pre-vote and check-quorum (Ongaro's thesis, sections 9.6 and 6.2).

The vote and commit quorum is a parameter, because the lane's quorum may be larger than a majority (q=3 of 4).

Why safety survives asynchronous storage. Entries leave in ``send_now`` while the leader's own write is still under way:
the leader counts itself only when the write is done, so a commit always stands on a quorum of disks. Everything that
is a promise waits in ``send_after_sync``: acknowledgements, votes, and also a candidate's requests for votes. A request
promises two things, the vote for itself and the log that it names. Were it sent before the write and the agent crashed,
the next life could stand again in the same term with a shorter log and collect the votes that the longer one won.
Only a heartbeat is answered at once, with what is on the disk by then: a slow disk delays commits and unseats nobody.
"""

from __future__ import annotations

from typing import Any

from consensus.machine import HardState, Ready
from consensus.raft.admission import refusal_reason
from consensus.raft.change import Changes
from consensus.raft.config import NOBODY, Role
from consensus.raft.outcome import Outcome, Standing
from consensus.raft.proposals import Proposals
from consensus.raft.transfer import TRANSFER
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, Message, RequestVote, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse, ReadIndex, ReadIndexResponse, TimeoutNow


class Raft(Changes):
    """The machine itself: its inputs and outputs, on top of what it does with them (``state``, ``election``,
    ``replication``, ``reading``, ``transfer``, ``install``, ``change``: each layer stands on the one before).

    One replica of the lane. ``own`` and ``voters`` are roster positions. ``roster`` are all that may ever be members,
    ``own`` among them, and the voters if it is not given; ``voters`` are those of a log without any membership change.
    ``quorum_size`` gives the quorum for so many voters; a number is enough where the voters never change.

    ``hard_state`` and ``entries`` are what the storage holds; entries up to ``applied_index`` are known to be committed
    and are not delivered again. After a compaction ``snapshot`` stands for what came before, and the log begins after
    ``log_base``, (index, term). ``key_of`` finds the idempotency key in an entry, for ``propose_once``. Raises
    ``LocalMisuse`` when these do not fit together.

    Invariants: delivered <= commit_index <= last_index; a leader, and nobody else, has a ``Leadership`` of its term;
    terms in the log never exceed ``term``.
    """

    # Inputs ---------------------------------------------------------------------------------------------------------

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """Take in one message. ``sender`` is the roster position that the transport proved."""
        self._observe(now_ns)
        reason = refusal_reason(sender, message, self._others)
        if reason is not None:
            return self._ignore(reason)
        match message:
            case AppendEntries():
                self._on_append_entries(message)
            case AppendEntriesResponse():
                self._on_append_response(message)
            case RequestVote():
                self._on_pre_vote(message) if message.pre_vote else self._on_request_vote(message)
            case RequestVoteResponse():
                self._on_vote_response(message)
            case ReadIndex():
                self._on_read_index(message)
            case ReadIndexResponse():
                self._on_read_index_response(message)
            case TimeoutNow():
                self._on_timeout_now(message)
            case InstallSnapshot():
                self._on_install_snapshot(message) if self.config.snapshots else self._ignore("snapshots are off")
            case InstallSnapshotResponse():
                self._on_install_response(message)
        return None

    def tick(self, now_ns: int) -> None:
        """Let time pass: heartbeats, elections, and everything that has to be sent again in case it was lost."""
        self._observe(now_ns)
        self._expire_reads()
        if self._leadership is not None:
            if self._now_ns >= self._leadership.heartbeat_deadline_ns:
                self._tick_leader(self._leadership)
        elif self._now_ns >= self._election_deadline_ns:
            self._start_pre_vote()
        elif self.role is not Role.FOLLOWER and self._now_ns >= self._repeat_deadline_ns:
            self._ask_for_votes()

    def propose(self, kind: int, payload: bytes) -> int | None:
        """Append an entry and return its index, or None at once when it is refused; ``proposal_refusal`` says why.

        An index is no commitment: the entry is decided when it comes back in ``Ready.committed_entries`` with the term
        in which it was proposed. Proposals made before one ``take_ready`` travel together.
        """
        reason = self._refusal(kind, payload)
        if reason is not None:
            self.proposals_refused[reason] += 1
            return None
        assert self._leadership is not None
        return self._leadership.append(kind, payload)

    def _refusal(self, kind: int, payload: bytes) -> str | None:
        if not 0 <= kind <= 255:
            raise LocalMisuse(f"entry kind {kind} does not fit the wire: use an EntryKind")
        if kind == EntryKind.MEMBERSHIP:
            raise LocalMisuse("a configuration is proposed by propose_membership")
        return self.proposal_refusal(len(payload))

    def propose_once(self, key: bytes, kind: int, payload: bytes) -> Outcome:
        """Propose under an idempotency key: repeated as often as one likes, on whichever replica, it commits once.

        Needs ``key_of``, and the payload to carry ``key``. The outcome may be PENDING; ``outcome`` tells it later.
        """
        book = self._book()
        if not book.stands_in_log(key):
            reason = self._refusal(kind, payload)
            if reason is not None:
                return self._not_proposed(key, reason)
            assert self._leadership is not None
            index = self._leadership.append(kind, payload)
            if book.open_index(key) != index:
                raise LocalMisuse(f"the payload does not carry the key {key!r}: key_of must find it in the entry")
            book.asked(key)
            return Outcome(Standing.PENDING, index)
        outcome = self.outcome(key)
        assert outcome is not None
        return outcome

    def _not_proposed(self, key: bytes, reason: str) -> Outcome:
        """Refused now; but what an earlier attempt left behind may yet be committed."""
        known = self.outcome(key)
        if known is not None and known.standing is Standing.UNKNOWN:
            return known
        self.proposals_refused[reason] += 1
        return Outcome(Standing.REFUSED, reason=reason)

    def outcome(self, key: bytes) -> Outcome | None:
        """What became of a proposal; None when this replica knows nothing of its key. Who was told PENDING will be told
        what became of it, as if he had proposed it."""
        book = self._book()
        outcome = book.outcome(key, self.role is Role.LEADER)
        if outcome is not None and outcome.standing is Standing.PENDING:
            book.asked(key)
        return outcome

    def _book(self) -> Proposals:
        if self.proposals is None:
            raise LocalMisuse("this replica was made without key_of, so it knows no keys")
        return self.proposals

    def proposal_refusal(self, payload_bytes: int) -> str | None:
        """Why a proposal of this size would be refused now, as a stable label, or None."""
        if self._leadership is None:
            return "not the leader"
        if self._leadership.transferee is not None:
            return TRANSFER
        if not self._leadership.has_room(payload_bytes):
            return "too many uncommitted bytes"
        return None

    def peer_connected(self, peer: int, now_ns: int) -> None:
        """A new connection to a voter stands: what was under way may be lost, and it may be another process."""
        self._observe(now_ns)
        if self._leadership is not None:
            self._leadership.peer_connected(peer)

    def persisted(self, ready: Ready) -> None:
        """The records of ``ready`` are durable. Readys with records come back in the order in which they were taken."""
        if not ready.records:
            return
        hard_state = self._writes.end(ready)
        self._durable_term = hard_state.term
        if self.role is Role.CANDIDATE and hard_state == HardState(self.term, self.own):
            self._count_vote(self.own, True)
        elif self._leadership is not None:
            self._advance_commit(self._leadership)

    # Outputs --------------------------------------------------------------------------------------------------------

    def take_ready(self) -> Ready:
        """Everything to be done since the last call, in one Ready. Appends are built here, so that they batch."""
        self._start_reads()
        ready = Ready()
        if (leadership := self._leadership) is not None:
            self._begin_read_round(leadership)
            ready.send_now.extend(leadership.appends(self.commit_index, self.snapshot, self._now_ns))
            self._answer_confirmed(leadership)
            self._send_timeout_now(leadership)
        ready.send_now, self._send_now = ready.send_now + self._send_now, []
        ready.reads, self._reads_done = self._reads_done, []
        ready.snapshot, self._snapshot_to_restore = self._snapshot_to_restore, None
        self._writes.begin(ready, HardState(self.term, self._voted_for), self._records)
        self._records = []
        if ready.records or not self._writes:
            # Otherwise these wait: they may promise what an earlier Ready, still being written, records.
            ready.send_after_sync, self._send_after_sync = self._send_after_sync, []
        self._deliver(ready)
        return ready

    def _deliver(self, ready: Ready) -> None:
        """Committed entries, as many as one Ready may hold; the next one has the rest."""
        undelivered = self.commit_index - self._delivered_index
        if undelivered:
            limit_bytes = self.config.committed_bytes_per_ready_max
            ready.committed_entries = list(self.log.bounded(self._delivered_index + 1, undelivered, limit_bytes))
            self._delivered_index = ready.committed_entries[-1].index

    def next_deadline_ns(self) -> int | None:
        """When ``tick`` wants to be called: 0, that is at once, until the first input has told the time."""
        if self._leadership is not None:
            deadline_ns = self._leadership.next_deadline_ns()
        elif self.role is Role.FOLLOWER:
            deadline_ns = self._election_deadline_ns
        else:
            deadline_ns = min(self._repeat_deadline_ns, self._election_deadline_ns)
        reads_ns = self._read_deadline_ns()
        return deadline_ns if reads_ns is None else min(deadline_ns, reads_ns)

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
        membership = self.membership.current
        return {
            "role": self.role.value,
            "term": self.term,
            "leader": self.leader,
            "voted_for": None if self._voted_for == NOBODY else self._voted_for,
            "voters": list(membership.voters),
            "outgoing": list(membership.outgoing),
            "learners": list(membership.learners),
            "quorum_size": self.membership.quorum_size(len(membership.voters)),
            "commit_index": self.commit_index,
            "last_index": self.log.last_index,
            "last_term": self.log.last_term,
            "base_index": self.log.base_index,
            "snapshot_index": 0 if self.snapshot is None else self.snapshot.index,
            "snapshots_damaged": self._receiving.damaged,
            "durable_index": self.log.durable_index,
            "votes": sorted(voter for voter, granted in self._votes.items() if granted),
            "followers": {} if self._leadership is None else self._leadership.status(self._now_ns),
            "uncommitted_bytes": 0 if self._leadership is None else self._leadership.uncommitted_bytes,
            "proposals_refused": dict(self.proposals_refused),
            "transferee": None if self._leadership is None else self._leadership.transferee,
            "transfers_abandoned": self.transfers_abandoned,
            "reads_open": len(self._reads_new) + self._reads_open(),
            "quorum_losses": self.quorum_losses,
            "ignored": dict(self.ignored),
        }

    def check_invariants(self) -> None:
        """Assert what must hold between any two calls."""
        self.log.check_invariants()
        self.membership.check_invariants(self.commit_index, self.log.last_index)
        if self.proposals is not None:
            self.proposals.check_invariants()
        assert self.log.base_index <= (0 if self.snapshot is None else self.snapshot.index) <= self._delivered_index
        assert self._delivered_index <= self.commit_index <= self.log.last_index
        assert self.log.last_term <= self.term
        assert (self.role is Role.LEADER) == (self._leadership is not None) == (self.leader == self.own)
        if self._leadership is not None:
            assert self._voted_for == self.own and self._leadership.term == self.term
            self._leadership.check_invariants(self.commit_index)
        if self.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            assert self.leader is None
            assert not self._elected()
        else:
            assert not self._votes
