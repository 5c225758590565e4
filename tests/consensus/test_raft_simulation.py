"""The lane in a hostile world: every seed is a run with crashes, partitions, loss, duplication and reordering, judged
from outside. RAFT_SEEDS sets which seeds: a number is how many, a list like 17,39 or 17, is which."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import msgspec
import pytest

from consensus.machine import Outgoing, Snapshot
from consensus.raft.config import NOBODY, Role
from consensus.raft.core import Raft
from consensus.raft.leadership import Leadership
from consensus.raft.membership import Configuration
from consensus.raft.rounds import Question
from protocol.messages import AppendEntries, Message, RequestVote
from tests.oracles.raft_cluster import simulate

SEEDS = os.environ.get("RAFT_SEEDS", "110")
CHOSEN = [int(seed) for seed in SEEDS.split(",") if seed] if "," in SEEDS else list(range(int(SEEDS)))
GROUPS = [CHOSEN[start::6] for start in range(6)]


@pytest.mark.parametrize("seeds", [group for group in GROUPS if group], ids=lambda seeds: f"from-{seeds[0]}")
def test_safe_under_faults_and_live_after_them(seeds: list[int]) -> None:
    decided = leaders = 0
    for seed in seeds:
        cluster = simulate(seed)
        decided += len(cluster.judge.canonical)
        leaders += len(cluster.judge.leader_of_term)
    assert decided > 10 * len(seeds), "the runs decide too little to prove anything"
    assert leaders > 2 * len(seeds), "the runs change their leader too seldom to prove anything"


def test_one_seed_is_one_history() -> None:
    """A failure can only be found again if nothing but the seed decides."""
    first, second = simulate(7, rounds=15, trace=True), simulate(7, rounds=15, trace=True)
    assert first.trace == second.trace
    assert first.trace != simulate(8, rounds=15, trace=True).trace


class AcknowledgesBeforeTheDisk(Raft):
    """Seeded bug 19."""

    def _reply(self, destination: int, message: Message) -> None:
        self._send_now.append(Outgoing(destination, message))


class ForgetsItsVote(Raft):
    """Seeded bug 1, and votes for everybody who asks."""

    def _on_request_vote(self, message: RequestVote) -> None:
        self._voted_for = NOBODY if self.role is Role.FOLLOWER else self._voted_for
        super()._on_request_vote(message)


class TakesAnyCandidate(Raft):
    """Seeded bug 8."""

    def _on_pre_vote(self, message: RequestVote) -> None:
        super()._on_pre_vote(self._flattered(message))

    def _on_request_vote(self, message: RequestVote) -> None:
        super()._on_request_vote(self._flattered(message))

    def _flattered(self, message: RequestVote) -> RequestVote:
        return RequestVote(message.term, message.candidate, 2**40, message.term, message.pre_vote)


class TruncatesMatchingEntries(Raft):
    """Seeded bug 5."""

    def _accept_entries(self, message: AppendEntries) -> None:
        if message.entries and message.entries[0].index > self.commit_index:
            self.log.append(message.entries)
        super()._accept_entries(message)


class SkipsTheConsistencyCheck(Raft):
    """Figure 2, AppendEntries receiver, rule 2, left out."""

    def _on_append_entries(self, message: AppendEntries) -> None:
        own_term = self.log.term_at(message.previous_log_index)
        if own_term is not None and own_term <= message.term:
            message = AppendEntries(
                message.term, message.leader, message.previous_log_index, own_term, message.leader_commit,
                message.entries,
            )  # fmt: skip
        super()._on_append_entries(message)


class ElectsWithTooFew(Raft):
    """A quorum that is one too small."""

    def _elected(self) -> bool:
        wanted = len(self.membership.current.voters) // 2
        return sum(self._votes.values()) >= wanted


class ReadsBeforeItKnows(Raft):
    """Seeded bug 12: ReadIndex before the no-op commits."""

    def _knows_what_is_committed(self) -> bool:
        return True


class ReadsWithoutAsking(Raft):
    """A leader that believes it still leads."""

    def _take_question(self, leadership: Leadership, question: Question) -> None:
        self._answer(question, self.commit_index)


class TrustsItsLeaseTooLong(Raft):
    """Seeded bug 47: the lease counted from now instead of from when the round was sent."""

    def _holds_lease(self, leadership: Leadership) -> bool:
        return self.config.lease_reads and leadership.rounds.confirmed > 0


class KeepsItsLeaseThroughATransfer(Raft):
    """Seeded bug 11."""

    def _send_timeout_now(self, leadership: Leadership) -> None:
        super()._send_timeout_now(leadership)
        leadership.lease_given_up = False


class TakesAnOldSnapshot(Raft):
    """Seeded bug 15."""

    def _has_already(self, index: int) -> bool:
        return False


class KeepsTheLogBeforeASnapshot(Raft):
    """Entries that contradict the snapshot stay where they are."""

    def _install(self, snapshot: Snapshot, configuration: Configuration) -> None:
        term = self.log.term_at(snapshot.index)
        kept = dataclasses.replace(snapshot, term=snapshot.term if term is None else term)
        super()._install(kept, configuration)


def test_the_judge_catches_a_snapshot_without_a_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded bug 26. The simulated network damages pieces of snapshots."""
    monkeypatch.setattr("consensus.raft.snapshot.is_intact", lambda snapshot: True)
    with pytest.raises((AssertionError, msgspec.MsgspecError)):
        for seed in range(300):
            simulate(seed)


@pytest.mark.parametrize(
    "halves",
    [
        pytest.param(lambda configuration: (configuration.voters,), id="13-one-quorum-while-joint"),
        pytest.param(lambda configuration: ((*configuration.voters, *configuration.learners),), id="14-learners-count"),
    ],
)
def test_the_judge_catches_wrong_quorums(
    halves: Callable[[Configuration], tuple[tuple[int, ...], ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded bugs 13 and 14."""
    monkeypatch.setattr(Configuration, "halves", property(halves))
    with pytest.raises(AssertionError):
        for seed in range(2, 400, 4):
            simulate(seed)


@pytest.mark.parametrize(
    "mutant",
    [
        ReadsBeforeItKnows,
        ReadsWithoutAsking,
        TrustsItsLeaseTooLong,
        KeepsItsLeaseThroughATransfer,
        TakesAnOldSnapshot,
        KeepsTheLogBeforeASnapshot,
        AcknowledgesBeforeTheDisk,
        ForgetsItsVote,
        TakesAnyCandidate,
        TruncatesMatchingEntries,
        SkipsTheConsistencyCheck,
        ElectsWithTooFew,
    ],
)
def test_the_judge_catches_seeded_bugs(mutant: type[Raft]) -> None:
    """A simulator that finds nothing in a broken machine proves nothing about a sound one."""
    for seed in range(300):
        try:
            simulate(seed, machine_type=mutant)
        except AssertionError as error:
            assert f"rerun: python -m tests.oracles.raft_cluster {seed}" in "".join(error.__notes__)
            return
    pytest.fail(f"300 seeds did not notice {mutant.__name__}")
