"""What every part of the lane's machine works on, and the changes of role and term that all of them may cause."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from consensus.machine import HardState, Outgoing, ReadResult, Record, Snapshot
from consensus.raft.config import NOBODY, RaftConfig, Role
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.leadership import Leadership
from consensus.raft.log import Log
from consensus.raft.membership import Membership, QuorumSize, fixed_size
from consensus.raft.proposals import KeyOf, Proposals
from consensus.raft.rounds import LEADERSHIP_LOST, Forwarded
from consensus.raft.snapshot import Receiving
from consensus.raft.writes import OpenWrites
from protocol.errors import LocalMisuse
from protocol.messages import Entry, Message
from protocol.raft_messages import ReadIndexResponse


class RaftState:
    """The bottom layer of ``core.Raft``; see there for the arguments."""

    def __init__(
        self,
        own: int,
        voters: tuple[int, ...],
        quorum_size: int | QuorumSize,
        rng: random.Random,
        config: RaftConfig,
        hard_state: HardState,
        entries: Sequence[Entry],
        applied_index: int = 0,
        key_of: KeyOf | None = None,
        snapshot: Snapshot | None = None,
        log_base: tuple[int, int] = (0, 0),
        roster: tuple[int, ...] | None = None,
    ) -> None:
        self.roster = voters if roster is None else roster
        if own not in self.roster or not voters or len(set(voters)) != len(voters):
            raise LocalMisuse(f"agent {own} must be one of {self.roster}, and the voters {voters} named once each")
        self.membership = _membership_before(voters, quorum_size, snapshot)
        self.own = own
        self.config = config
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.leader: int | None = None
        self.ignored: Counter[str] = Counter()
        self.proposals_refused: Counter[str] = Counter()
        self.quorum_losses = 0
        self.transfers_abandoned = 0
        self.snapshot = snapshot
        self.log = Log(entries, *log_base)
        self.log.watch(self.membership)
        applied_index = max(applied_index, snapshot.index if snapshot is not None else 0)
        if self.log.last_term > self.term or not log_base[0] <= applied_index <= self.log.last_index:
            raise LocalMisuse(
                f"stored state does not fit together: term {self.term}, log up to {self.log.last_index} of term "
                f"{self.log.last_term}, applied {applied_index}"
            )
        self.commit_index = applied_index
        self.proposals: Proposals | None = None
        if key_of is not None:
            self.proposals = Proposals(key_of, forgotten_upto=log_base[0])
            self.log.watch(self.proposals)
            self.proposals.committed(self.log.entries_from(1, applied_index))
        self._rng = rng
        self._others = tuple(replica for replica in self.roster if replica != own)
        self._voted_for = hard_state.voted_for
        self._writes = OpenWrites(self.log, hard_state)
        self._durable_term = hard_state.term
        self._delivered_index = applied_index
        self._records: list[Record] = []
        self._receiving = Receiving()
        self._snapshot_to_restore: Snapshot | None = None
        self._votes: dict[int, bool] = {}
        self._transfer_election = False
        self._leadership: Leadership | None = None
        self._send_now: list[Outgoing] = []
        self._send_after_sync: list[Outgoing] = []
        self._now_ns = 0
        self._leader_contact_ns: int | None = None
        self._started_ns: int | None = None
        self._election_deadline_ns = 0
        self._repeat_deadline_ns = 0
        self._may_have_promised = config.lease_reads and hard_state.term > 0
        self._reads_new: list[int] = []
        self._reads_done: list[ReadResult] = []
        self._reads_forwarded: dict[int, Forwarded] = {}
        self._read_number: int | None = None

    def _become_follower(self, term: int, leader: int | None) -> None:
        assert term >= self.term
        if term > self.term:
            self.term = term
            self._voted_for = NOBODY
        if self._leadership is not None:
            self._arm_election()
            self._leave_leadership(self._leadership)
        self.role, self.leader = Role.FOLLOWER, leader
        self._votes = {}

    def _leave_leadership(self, leadership: Leadership) -> None:
        """Nobody will confirm its reads any more."""
        self._leadership = None
        for question in leadership.reads.take_all():
            if question.replica == self.own:
                self._refuse_reads([question.request], LEADERSHIP_LOST)
            else:
                refusal = ReadIndexResponse(leadership.term, self.own, question.request, False, 0)
                self._send_now.append(Outgoing(question.replica, refusal))

    def _refuse_reads(self, requests: Iterable[int], reason: str) -> None:
        self._reads_done.extend(ReadResult(request, None, reason) for request in requests)

    def _commit_to(self, index: int) -> None:
        """Everything up to ``index`` is committed; a commit index never falls."""
        entries = self.log.entries_from(self.commit_index + 1, index)
        self.commit_index = max(self.commit_index, index)
        if self._leadership is not None:
            self._leadership.committed(entries, self._now_ns)
        if self.proposals is not None:
            self.proposals.committed(entries)

    def _leader_is_alive(self) -> bool:
        """While this holds we help nobody to unseat the leader (thesis 4.2.3). A leader without followers unseats
        itself by check-quorum.

        The promise is to the leader that was heard, whatever term was heard of since; leases rest on it. A new life
        keeps the promise that an earlier one may have given.
        """
        if self.role is Role.LEADER:
            return True
        since_ns = self._leader_contact_ns
        if since_ns is None and self._may_have_promised:
            since_ns = self._started_ns
        return since_ns is not None and self._now_ns - since_ns < self.config.election_timeout_min_ns

    def _observe(self, now_ns: int) -> None:
        self._now_ns = max(self._now_ns, now_ns)
        if self._started_ns is None:
            self._started_ns = self._now_ns
            self._arm_election()

    def _arm_election(self) -> None:
        low, high = self.config.election_timeout_min_ns, self.config.election_timeout_max_ns
        self._election_deadline_ns = self._now_ns + self._rng.randint(low, high)

    def _reply(self, destination: int, message: Message) -> None:
        """Answers are promises: they leave after everything that this Ready records is durable."""
        self._send_after_sync.append(Outgoing(destination, message))

    def _ignore(self, reason: str) -> None:
        self.ignored[reason] += 1


def _membership_before(voters: tuple[int, ...], quorum_size: int | QuorumSize, snapshot: Snapshot | None) -> Membership:
    """What held before the first entry of the log."""
    size_of = fixed_size(quorum_size, len(voters)) if isinstance(quorum_size, int) else quorum_size
    if snapshot is None:
        membership = Membership(Configuration(tuple(sorted(voters))), 0, size_of)
    else:
        membership = Membership(decode_configuration(snapshot.membership), snapshot.index, size_of)
    if (error := membership.size_error(membership.current.voters)) is not None:
        raise LocalMisuse(error)
    return membership
