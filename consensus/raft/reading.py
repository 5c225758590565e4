"""Linearizable reads without a log entry (thesis, section 6.4): ReadIndex on any replica, and reads under a lease.

The leader notes its commit index, proves by a round that it still led after the read had come, and answers with that
index; who asked may read its own state once it has applied so far. Before the leader's first entry is committed it does
not know what is committed, so reads wait. Followers ask the leader on behalf of their readers.

A lease saves the round: a leader may trust that nobody else was elected while a quorum's promise to help nobody lasts,
``election_timeout_min_ns`` from when the confirmed round was SENT, less what clocks may drift apart. It is off by
default, since it makes safety depend on clocks; a replica that restarts then keeps the promise that it may have given.
A leader that asked another to take over (``transfer``) has no lease for the rest of its term: the request may arrive
at any time.
"""

from __future__ import annotations

from consensus.machine import Outgoing, ReadResult
from consensus.raft.leadership import Leadership
from consensus.raft.replication import Replication
from consensus.raft.rounds import NO_ANSWER, NO_LEADER, TOO_MANY, Forwarded, Question
from protocol.raft_messages import ReadIndex, ReadIndexResponse


class Reading(Replication):
    """Reads are gathered until ``take_ready``, so that they share a request, and a round."""

    def read(self, request: int, now_ns: int) -> None:
        """Ask from when on the own state answers a read that begins now. ``Ready.reads`` has the answer, once, under
        the same number; a refusal is an answer too."""
        self._observe(now_ns)
        if len(self._reads_new) + self._reads_open() >= self.config.reads_open_max:
            return self._refuse_reads([request], TOO_MANY)
        return self._reads_new.append(request)

    # The leader -------------------------------------------------------------------------------------------------------

    def _on_read_index(self, message: ReadIndex) -> None:
        if message.term > self.term:
            self._become_follower(message.term, None)
        leadership = self._leadership
        if leadership is None or len(leadership.reads) >= self.config.reads_open_max:
            answer = ReadIndexResponse(self.term, self.own, message.request, False, 0)
            return self._send_now.append(Outgoing(message.replica, answer))
        return self._take_question(leadership, Question(message.replica, message.request))

    def _take_question(self, leadership: Leadership, question: Question) -> None:
        if self._knows_what_is_committed() and self._holds_lease(leadership):
            return self._answer(question, self.commit_index)
        return leadership.reads.waiting.append(question)

    def _knows_what_is_committed(self) -> bool:
        """Thesis 6.4, step 1: not before an entry of the leader's own term is committed."""
        return self.log.term_at(self.commit_index) == self.term

    def _holds_lease(self, leadership: Leadership) -> bool:
        if not self.config.lease_reads or leadership.lease_given_up:
            return False
        leadership.confirm_rounds()
        start_ns = leadership.rounds.lease_start_ns()
        return start_ns is not None and self._now_ns < start_ns + self.config.lease_ns

    def _begin_read_round(self, leadership: Leadership) -> None:
        """Everybody who waits joins one round, begun after they came."""
        if not leadership.reads.waiting or not self._knows_what_is_committed():
            return
        leadership.confirm_rounds()
        if leadership.may_begin_round():
            leadership.begin_round(self._now_ns)
            leadership.reads.join(leadership.rounds.begun, self.commit_index)

    def _answer_confirmed(self, leadership: Leadership) -> None:
        if len(leadership.reads):
            leadership.confirm_rounds()
            for question, index in leadership.reads.take_confirmed(leadership.rounds.confirmed):
                self._answer(question, index)

    def _answer(self, question: Question, index: int) -> None:
        if question.replica == self.own:
            return self._reads_done.append(ReadResult(question.request, index))
        if self._leadership is not None and (reader := self._leadership.followers.get(question.replica)) is not None:
            reader.commit_wanted = True
        answer = ReadIndexResponse(self.term, self.own, question.request, True, index)
        return self._send_now.append(Outgoing(question.replica, answer))

    # The reader -------------------------------------------------------------------------------------------------------

    def _start_reads(self) -> None:
        """Reads that came since the last Ready: to the own leadership, or to the leader."""
        if not self._reads_new:
            return None
        requests, self._reads_new = self._reads_new, []
        if self._leadership is not None:
            for request in requests:
                self._take_question(self._leadership, Question(self.own, request))
            return None
        if self.leader is None:
            return self._refuse_reads(requests, NO_LEADER)
        number = self._next_read_number()
        deadline_ns = self._now_ns + self.config.election_timeout_max_ns
        self._reads_forwarded[number] = Forwarded(self.leader, tuple(requests), deadline_ns)
        return self._send_now.append(Outgoing(self.leader, ReadIndex(self.term, self.own, number)))

    def _next_read_number(self) -> int:
        """Starts anywhere: a late answer to an earlier life must not pass for an answer to this one."""
        self._read_number = (self._rng.getrandbits(62) if self._read_number is None else self._read_number) + 1
        return self._read_number

    def _on_read_index_response(self, message: ReadIndexResponse) -> None:
        forwarded = self._reads_forwarded.get(message.request)
        if forwarded is None or forwarded.leader != message.leader:
            return self._ignore("answer to no read")
        del self._reads_forwarded[message.request]
        if not message.granted:
            return self._refuse_reads(forwarded.requests, NO_LEADER)
        return self._reads_done.extend(ReadResult(request, message.index) for request in forwarded.requests)

    def _expire_reads(self) -> None:
        for number, forwarded in list(self._reads_forwarded.items()):
            if self._now_ns >= forwarded.deadline_ns:
                del self._reads_forwarded[number]
                self._refuse_reads(forwarded.requests, NO_ANSWER)

    def _read_deadline_ns(self) -> int | None:
        return next((forwarded.deadline_ns for forwarded in self._reads_forwarded.values()), None)

    def _reads_open(self) -> int:
        own = sum([len(forwarded.requests) for forwarded in self._reads_forwarded.values()])
        return own + (0 if self._leadership is None else len(self._leadership.reads))
