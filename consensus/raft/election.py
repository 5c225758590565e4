"""Elections: sections 5.1, 5.2 and 5.4.1 of the Raft paper, pre-vote and check-quorum of the thesis (9.6, 4.2.3)."""

from __future__ import annotations

from consensus.machine import BROADCAST, Outgoing
from consensus.raft.config import NOBODY, Role
from consensus.raft.leadership import Leadership
from consensus.raft.state import RaftState
from protocol.codes import EntryKind
from protocol.messages import RequestVote, RequestVoteResponse


class Elections(RaftState):
    """Who leads. Votes count only from a disk, and each voter's once."""

    def _start_pre_vote(self) -> None:
        """Ask whether an election could be won, before disturbing anybody with a new term."""
        if not self.membership.may_stand(self.own, self.commit_index):
            return self._arm_election()  # a learner, or nobody: it waits for a leader
        self.role = Role.PRE_CANDIDATE
        self.leader = None
        self._votes = {}
        self._arm_election()
        self._ask_for_votes()
        return self._count_vote(self.own, True)

    def _start_election(self, transfer: bool = False) -> None:
        """The own vote counts only once it is durable: see ``persisted``. ``transfer``: the leader wants it."""
        self._transfer_election = transfer
        self.role = Role.CANDIDATE
        self.leader = None
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
        transfer = self._transfer_election and not pre_vote
        request = RequestVote(term, self.own, self.log.last_index, self.log.last_term, pre_vote, transfer)
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
            if self._leader_is_alive() and not message.transfer:
                return self._ignore("leader is alive")
            self._become_follower(message.term, None)
        granted = (
            message.term == self.term
            and self._voted_for in (NOBODY, message.candidate)
            and self.log.up_to_date(message.last_log_index, message.last_log_term)
            # Also in a term that something else than this request brought here: the promise is to the leader we heard.
            and (message.transfer or self._voted_for == message.candidate or not self._leader_is_alive())
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
        if not self._elected():
            return
        if self.role is Role.PRE_CANDIDATE:
            self._start_election()
        else:
            self._become_leader()

    def _elected(self) -> bool:
        return self.membership.reached({voter for voter, granted in self._votes.items() if granted})

    def _become_leader(self) -> None:
        self.role = Role.LEADER
        self.leader = self.own
        self._votes = {}
        self._leadership = Leadership(self.own, self.term, self.membership, self.log, self.config, self._now_ns)
        # Entries of older terms are committed only under one of our own term (section 5.4.2), so we make one.
        self._leadership.append(EntryKind.NOOP, b"")
