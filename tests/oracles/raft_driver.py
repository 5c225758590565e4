"""One Raft machine under a test's hands: step, tick, and what came out."""

from __future__ import annotations

import random
from collections.abc import Sequence

from consensus.machine import HardState, Ready
from consensus.raft.admission import RaftMessage, claimed_sender
from consensus.raft.config import NOBODY, RaftConfig, Role
from consensus.raft.core import Raft
from consensus.raft.proposals import KeyOf
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, Message, RequestVote, RequestVoteResponse

CONFIG = RaftConfig()
VOTERS = (0, 1, 2, 3)


def entry(term: int, index: int, payload: bytes = b"", kind: int = EntryKind.FRAME) -> Entry:
    return Entry(term, index, kind, payload)


def log_of(*terms: int) -> list[Entry]:
    """A log with these terms, in order, as the paper draws them."""
    return [entry(term, index, b"%d/%d" % (term, index)) for index, term in enumerate(terms, start=1)]


class Driver:
    """Replica 0 of four with a quorum of three. Writes are done at once unless ``take`` is used alone."""

    def __init__(
        self,
        log: Sequence[Entry] = (),
        term: int | None = None,
        voted_for: int = NOBODY,
        config: RaftConfig = CONFIG,
        voters: tuple[int, ...] = VOTERS,
        quorum_size: int = 3,
        applied_index: int = 0,
        key_of: KeyOf | None = None,
        seed: int = 1,
    ) -> None:
        hard_state = HardState(term if term is not None else max((item.term for item in log), default=0), voted_for)
        rng = random.Random(seed)
        self.raft = Raft(0, voters, quorum_size, rng, config, hard_state, log, applied_index, key_of)
        self.now_ns = 1_000_000_000
        self.committed: list[Entry] = []
        self.raft.tick(self.now_ns)

    def role(self) -> Role:
        return self.raft.role

    def step(self, message: RaftMessage, sender: int | None = None) -> None:
        self.raft.step(claimed_sender(message) if sender is None else sender, message, self.now_ns)
        self.raft.check_invariants()

    def wait(self, span_ns: int) -> None:
        self.now_ns += span_ns
        self.raft.tick(self.now_ns)
        self.raft.check_invariants()

    def time_out(self) -> None:
        """Wait exactly until the machine asks to be called."""
        deadline_ns = self.raft.next_deadline_ns()
        assert deadline_ns is not None
        self.wait(deadline_ns - self.now_ns)

    def take(self) -> Ready:
        ready = self.raft.take_ready()
        self.committed += ready.committed_entries
        return ready

    def drain(self) -> list[Message]:
        """Perform every Ready, disk writes included; what was sent, in order."""
        sent: list[Message] = []
        while not (ready := self.take()).empty:
            sent += [item.message for item in (*ready.send_now, *ready.send_after_sync)]
            self.raft.persisted(ready)
            self.raft.check_invariants()
        return sent

    def exchange(self, message: RaftMessage) -> list[Message]:
        self.step(message)
        return self.drain()

    def become_candidate(self) -> None:
        self.wait(CONFIG.election_timeout_max_ns)
        self.drain()
        for voter in (1, 2):
            self.step(RequestVoteResponse(self.raft.term + 1, voter, True, True))
        self.drain()
        assert self.raft.role is Role.CANDIDATE

    def become_leader(self) -> None:
        self.become_candidate()
        for voter in (1, 2):
            self.step(RequestVoteResponse(self.raft.term, voter, True, False))
        assert self.raft.role is Role.LEADER
        self.drain()

    def follow(self, leader: int, term: int) -> None:
        """Hear a heartbeat that fits the own log."""
        self.exchange(AppendEntries(term, leader, self.raft.log.last_index, self.raft.log.last_term, 0, ()))
        assert self.raft.leader == leader

    def acknowledge(self, match_index: int, *followers: int) -> None:
        for follower in followers:
            self.step(AppendEntriesResponse(self.raft.term, follower, True, match_index))


def vote_request(term: int, candidate: int, last_index: int, last_term: int, pre_vote: bool = False) -> RequestVote:
    return RequestVote(term, candidate, last_index, last_term, pre_vote)
