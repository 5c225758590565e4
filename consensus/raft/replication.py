"""Replication and commitment: figure 2 and sections 5.3 and 5.4.2 of the Raft paper."""

from __future__ import annotations

from consensus.machine import Outgoing
from consensus.raft.election import Elections
from consensus.raft.leadership import Leadership
from consensus.raft.progress import Progress
from protocol.messages import AppendEntries, AppendEntriesResponse


class Replication(Elections):
    """What followers take from a leader, and what a leader makes of their answers."""

    def _on_append_entries(self, message: AppendEntries) -> None:
        if message.term < self.term:
            # The answer tells a leader of the past that it is one.
            self._reply(message.leader, AppendEntriesResponse(self.term, self.own, False, 0, 0, message.round))
            return self._ignore("append of an older term")
        if not self._follow(message.term, message.leader):
            return None
        previous = message.previous_log_index
        if previous < self.log.base_index:
            # A snapshot stands for it: it is committed, so the leader has it, and everything up to our commit index.
            confirmation = AppendEntriesResponse(self.term, self.own, True, self.commit_index, 0, message.round)
            return self._reply(message.leader, confirmation)
        if self.log.term_at(previous) != message.previous_log_term:
            return self._refuse_entries(message)
        return self._accept_entries(message)

    def _follow(self, term: int, leader: int) -> bool:
        """The sender leads ``term``, which is no older than ours. False when it cannot be, and is ignored."""
        if term == self.term and self.leader not in (None, leader):
            self._ignore("second leader in one term")
            return False
        self._become_follower(term, leader)
        self._leader_contact_ns = self._now_ns
        self._arm_election()
        return True

    def _refuse_entries(self, message: AppendEntries) -> None:
        """The entry before the new ones differs, or is missing: say what is worth trying."""
        previous = message.previous_log_index
        if previous <= self.commit_index:
            return self._ignore("append contradicts what is committed")
        hint = self.log.match_hint(previous - 1, message.previous_log_term)
        hint_term = self.log.term_at(hint)
        assert hint_term is not None
        refusal = AppendEntriesResponse(self.term, self.own, False, hint, hint_term, message.round)
        return self._reply(message.leader, refusal)

    def _accept_entries(self, message: AppendEntries) -> None:
        """The entry before the new ones matches: take what is new, and follow the leader's commit index that far."""
        if (position := self.log.first_conflict(message.entries)) is not None:
            if message.entries[position].index <= self.commit_index:
                return self._ignore("append contradicts what is committed")
            self.log.append(message.entries[position:])
        last_new = message.previous_log_index + len(message.entries)
        self._commit_to(min(message.leader_commit, last_new))
        if not message.entries and self._durable_term == self.term:
            return self._answer_heartbeat(message.leader, last_new, message.round)
        return self._reply(message.leader, AppendEntriesResponse(self.term, self.own, True, last_new, 0, message.round))

    def _answer_heartbeat(self, leader: int, last_new: int, number: int) -> None:
        """At once, with what is on the disk by now: a leader must not take a slow disk for a lost follower, and unseat
        itself. Both the term and the entries are durable already, so that nothing is promised ahead of its write; the
        answer to the append that brought the rest follows when that is written."""
        match = min(last_new, self.log.durable_index)
        answer = AppendEntriesResponse(self.term, self.own, True, match, 0, number)
        self._send_now.append(Outgoing(leader, answer))

    def _on_append_response(self, message: AppendEntriesResponse) -> None:
        progress = self._answering(message.term, message.follower, message.round)
        if progress is None:
            return None
        assert self._leadership is not None
        if message.match_index > self.log.last_index:
            return self._ignore("match beyond the log")
        if not message.success:
            worth_trying = self.log.match_hint(message.match_index, message.hint_term)
            return None if progress.refused(message.match_index, worth_trying) else self._ignore("old refusal")
        return self._advance_commit(self._leadership) if progress.accepted(message.match_index) else None

    def _answering(self, term: int, follower: int, number: int) -> Progress | None:
        """The progress of a follower that answers this leadership in round ``number``; None when it does not."""
        if term > self.term:
            self._become_follower(term, None)
            return None
        leadership = self._leadership
        if term < self.term or leadership is None:
            self._ignore("answer to an older leadership")
            return None
        if number > leadership.rounds.begun:
            self._ignore("round not begun")
            return None
        progress = leadership.followers.get(follower)
        if progress is None:
            self._ignore("answer of no member")
            return None
        progress.contact_ns = self._now_ns
        progress.round = max(progress.round, number)
        return progress

    def _advance_commit(self, leadership: Leadership) -> None:
        """Commit what a quorum holds on disk, but count only entries of the own term (section 5.4.2, figure 8)."""
        index = leadership.quorum_match()
        if index > self.commit_index and self.log.term_at(index) == self.term:
            self._commit_to(index)

    def _tick_leader(self, leadership: Leadership) -> None:
        if leadership.quorum_silent_ns(self._now_ns) < self.config.election_timeout_max_ns:
            return leadership.begin_heartbeat(self._now_ns)
        self.quorum_losses += 1
        return self._become_follower(self.term, None)
