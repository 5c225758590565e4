"""Machines with one rule broken each, for ``mutants``."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from consensus.machine import HardState, Outgoing, Ready, Snapshot
from consensus.raft.config import NOBODY, Role
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.core import Raft
from consensus.raft.leadership import Leadership
from consensus.raft.outcome import Outcome, Standing
from consensus.raft.rounds import Question
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, Message, RequestVote, RequestVoteResponse

# --- elections --------------------------------------------------------------------------------------------------------


class ForgetsItsVote(Raft):
    """1: the disk has the term and no vote."""

    def take_ready(self) -> Ready:
        ready = super().take_ready()
        ready.records = [
            HardState(record.term, NOBODY) if isinstance(record, HardState) else record for record in ready.records
        ]
        return ready


class ForgetsItsTerm(Raft):
    """2: the disk has no later term than that of the log."""

    def take_ready(self) -> Ready:
        ready = super().take_ready()
        if ready.records:
            others = [record for record in ready.records if not isinstance(record, HardState)]
            ready.records = [*others, HardState(self.log.last_term, NOBODY)]
        return ready


class CountsVotesTwice(Raft):
    """3: every grant counts, whoever sent it before."""

    _grants = 0

    def _on_vote_response(self, message: RequestVoteResponse) -> None:
        if self._votes.get(message.voter):
            self._votes[message.voter] = False
        super()._on_vote_response(message)

    def _count_vote(self, voter: int, granted: bool) -> None:
        self._grants = (self._grants if self._votes else 0) + granted
        super()._count_vote(voter, granted)

    def _elected(self) -> bool:
        return bool(self._votes) and self._grants >= self.membership.quorum_size(len(self.membership.current.voters))


class TakesAnyCandidate(Raft):
    """8: no election restriction (section 5.4.1)."""

    def _on_pre_vote(self, message: RequestVote) -> None:
        super()._on_pre_vote(self._flattered(message))

    def _on_request_vote(self, message: RequestVote) -> None:
        super()._on_request_vote(self._flattered(message))

    def _flattered(self, message: RequestVote) -> RequestVote:
        return RequestVote(message.term, message.candidate, 2**40, message.term, message.pre_vote, message.transfer)


class PreVoteBumpsTerm(Raft):
    """9: a question about an election is taken for one."""

    def _on_pre_vote(self, message: RequestVote) -> None:
        if message.term > self.term and not self._leader_is_alive():
            self._become_follower(message.term, None)
        super()._on_pre_vote(message)


class NeverStepsDown(Raft):
    """10: no check-quorum."""

    def _tick_leader(self, leadership: Leadership) -> None:
        for progress in leadership.followers.values():
            progress.contact_ns = self._now_ns
        super()._tick_leader(leadership)


class ElectsWithTooFew(Raft):
    """104."""

    def _elected(self) -> bool:
        wanted = len(self.membership.current.voters) // 2
        return sum(self._votes.values()) >= wanted


class VotesInTheTermOfTheNews(Raft):
    """109: the promise to the leader that was heard holds against later terms only. A million seeds found it."""

    def _on_request_vote(self, message: RequestVote) -> None:
        if message.term == self.term:
            message = msgspec.structs.replace(message, transfer=True)
        super()._on_request_vote(message)


# --- replication ------------------------------------------------------------------------------------------------------


class TakesOldAnswers(Raft):
    """4: an answer to an earlier leadership counts for this one."""

    def _on_append_response(self, message: AppendEntriesResponse) -> None:
        if message.term < self.term:
            message = msgspec.structs.replace(message, term=self.term, round=0)
        super()._on_append_response(message)


class TruncatesMatchingEntries(Raft):
    """5: a delayed or repeated message shortens the log."""

    def _accept_entries(self, message: AppendEntries) -> None:
        if message.entries and message.entries[0].index > self.commit_index:
            self.log.append(message.entries)
        super()._accept_entries(message)


class CommitsOlderTerms(Raft):
    """6: figure 8."""

    def _advance_commit(self, leadership: Leadership) -> None:
        self._commit_to(leadership.quorum_match())


class CommitsWhatMayDiffer(Raft):
    """7: no min() with the last new entry."""

    def _accept_entries(self, message: AppendEntries) -> None:
        super()._accept_entries(message)
        self._commit_to(min(message.leader_commit, self.log.last_index))


class SkipsTheConsistencyCheck(Raft):
    """103: figure 2, AppendEntries receiver, rule 2, left out."""

    def _on_append_entries(self, message: AppendEntries) -> None:
        own_term = self.log.term_at(message.previous_log_index)
        if own_term is not None and own_term <= message.term:
            message = msgspec.structs.replace(message, previous_log_term=own_term)
        super()._on_append_entries(message)


class AcknowledgesBeforeTheDisk(Raft):
    """19."""

    def _reply(self, destination: int, message: Message) -> None:
        self._send_now.append(Outgoing(destination, message))


# --- reads and leases -------------------------------------------------------------------------------------------------


class ConfirmsUnwrittenToHeartbeats(Raft):
    """105: the answer to a heartbeat names entries whose write is under way."""

    def _answer_heartbeat(self, leader: int, last_new: int, number: int) -> None:
        self._send_now.append(Outgoing(leader, AppendEntriesResponse(self.term, self.own, True, last_new, 0, number)))


class AnswersInAnUnwrittenTerm(Raft):
    """106: the answer to a heartbeat is given in a term that the next life may not remember."""

    def _become_follower(self, term: int, leader: int | None) -> None:
        super()._become_follower(term, leader)
        self._durable_term = self.term


class KeepsItsLeaseThroughATransfer(Raft):
    """11."""

    def _send_timeout_now(self, leadership: Leadership) -> None:
        super()._send_timeout_now(leadership)
        leadership.lease_given_up = False


class ReadsBeforeItKnows(Raft):
    """12: ReadIndex before the no-op commits."""

    def _knows_what_is_committed(self) -> bool:
        return True


class TrustsItsLeaseTooLong(Raft):
    """47: the lease counted from now instead of from when the round was sent."""

    def _holds_lease(self, leadership: Leadership) -> bool:
        return self.config.lease_reads and leadership.rounds.confirmed > 0


class ReadsWithoutAsking(Raft):
    """101: a leader that believes it still leads."""

    def _take_question(self, leadership: Leadership, question: Question) -> None:
        self._answer(question, self.commit_index)


# --- snapshots, members, proposals ------------------------------------------------------------------------------------


class TakesAnOldSnapshot(Raft):
    """15."""

    def _has_already(self, index: int) -> bool:
        return False


class KeepsTheLogBeforeASnapshot(Raft):
    """102: entries that contradict the snapshot stay where they are."""

    def _install(self, snapshot: Snapshot, configuration: Configuration) -> None:
        term = self.log.term_at(snapshot.index)
        kept = dataclasses.replace(snapshot, term=snapshot.term if term is None else term)
        super()._install(kept, configuration)


class ChangesTwice(Raft):
    """17: from the log at a restart, and once more when its commit is learned."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._from_disk = self.log.last_index

    def _commit_to(self, index: int) -> None:
        for entry in self.log.entries_from(self.commit_index + 1, index):
            if entry.kind == EntryKind.MEMBERSHIP and entry.index <= self._from_disk:
                self.membership.restart(entry.index, decode_configuration(entry.payload))
        super()._commit_to(index)


class DropsSilently(Raft):
    """18: nothing is appended while there is no room, and the client is told to wait."""

    def propose_once(self, key: bytes, kind: int, payload: bytes) -> Outcome:
        outcome = super().propose_once(key, kind, payload)
        dropped = outcome.standing is Standing.REFUSED and self.role is Role.LEADER
        return Outcome(Standing.PENDING) if dropped else outcome


class ForgetsWhomItTold(Raft):
    """110: who was told PENDING is no reason to keep track of an entry. A million seeds found it."""

    def outcome(self, key: bytes) -> Outcome | None:
        return self._book().outcome(key, self.role is Role.LEADER)
