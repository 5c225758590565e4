"""The catalogue of the lane's seeded bugs. Each is the real machine with one rule broken; ``seed`` is known to show it.

A simulator that finds nothing in a broken machine proves nothing about a sound one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final
from unittest.mock import patch

import consensus.raft.snapshot as snapshots
from consensus import storage_log
from consensus.raft.config import RaftConfig
from consensus.raft.configuration import Configuration
from consensus.raft.core import Raft
from consensus.raft.inflight import Inflight
from consensus.raft.leadership import Leadership
from tests.sim import broken
from tests.sim.plan import plan_of
from tests.sim.run import Verdict, run_plan
from tests.sim.seeded_bug import SeededBug

SEARCHED_MAX: Final = 400
"""So many seeds are tried when the known one no longer shows the bug."""

Patch = tuple[object, str, Any]


@dataclass(frozen=True)
class Mutant:
    """A bug that can be switched on."""

    number: int
    name: str
    title: str
    caught_by: str
    """Which oracle notices it, in the words of its complaint."""
    seed: int
    machine: type[Raft] = Raft
    patches: tuple[Patch, ...] = field(default=())
    where: str = "Raft"
    test: str = ""
    """"module:function", where no run of the simulator is likely to come into the situation."""

    @contextmanager
    def switched_on(self) -> Iterator[type[Raft]]:
        """The machine to run while the bug is on."""
        with ExitStack() as stack:
            for target, name, value in self.patches:
                stack.enter_context(patch.object(target, name, value))
            yield self.machine

    def run(self, seed: int) -> Verdict:
        with self.switched_on() as machine:
            return run_plan(plan_of(seed), machine)

    def caught(self) -> Verdict | None:
        """The first run that shows it: the known seed, or else any."""
        for seed in (self.seed, *range(SEARCHED_MAX)):
            verdict = self.run(seed)
            if verdict.failure:
                return verdict
        return None

    def as_seeded_bug(self) -> SeededBug:
        return SeededBug(self.number, self.title, self.where, self.caught_by, self._found)

    def _found(self) -> str | None:
        if self.test:
            return self._found_by_test()
        verdict = self.caught()
        return None if verdict is None else f"seed {verdict.seed}: {verdict.failure}"

    def _found_by_test(self) -> str | None:
        module, _, function = self.test.partition(":")
        check = getattr(import_module(module), function)
        try:
            with patch("tests.oracles.raft_driver.Raft", self.machine):
                check()
        except AssertionError:
            return function
        return None


def named(text: str) -> Mutant:
    """By number or by name. Raises ``KeyError``."""
    return next(mutant for mutant in MUTANTS if text in (str(mutant.number), mutant.name))


_clear: Final = Inflight.clear


def _leak(window: Inflight) -> None:
    window.count_max -= len(window)
    _clear(window)


def _only_new_voters(configuration: Configuration) -> tuple[tuple[int, ...], ...]:
    return (configuration.voters,)


def _learners_too(configuration: Configuration) -> tuple[tuple[int, ...], ...]:
    voters = tuple(sorted({*configuration.voters, *configuration.learners}))
    return (voters, configuration.outgoing) if configuration.joint else (voters,)


def _counts_unwritten(leadership: Leadership) -> int:
    matches = {follower: progress.match for follower, progress in leadership.followers.items()}
    return leadership._membership.agreed({leadership.own: leadership._log.last_index} | matches)


_TESTS: Final = "tests.consensus.test_raft_replication"

MUTANTS: Final = (
    Mutant(1, "vote-not-persisted", "a vote is not persisted", "one vote in a term", 111, broken.ForgetsItsVote),
    Mutant(
        2,
        "term-not-persisted",
        "a term is not persisted",
        "one vote in a term, no start from such a disk",
        17,
        broken.ForgetsItsTerm,
    ),
    Mutant(3, "vote-counted-twice", "a vote reply is counted twice", "leader completeness", 8, broken.CountsVotesTwice),
    Mutant(
        4,
        "ack-of-any-term",
        "an acknowledgement is taken in any term",
        "a named test",
        0,
        broken.TakesOldAnswers,
        test=f"{_TESTS}:test_acknowledgements_of_another_term_do_not_count",
    ),
    Mutant(
        5,
        "truncates-matching",
        "matching entries are truncated",
        "acknowledged is on disk",
        0,
        broken.TruncatesMatchingEntries,
    ),
    Mutant(
        6,
        "commits-older-term",
        "an entry of an older term is committed by counting",
        "commits of the own term",
        5,
        broken.CommitsOlderTerms,
    ),
    Mutant(
        7,
        "commit-beyond-match",
        "the leader's commit index is not bounded by what matches",
        "a named test",
        0,
        broken.CommitsWhatMayDiffer,
        test=f"{_TESTS}:test_commits_no_further_than_the_last_new_entry",
    ),
    Mutant(
        8,
        "any-candidate",
        "votes without looking at the candidate's log",
        "leader completeness",
        5,
        broken.TakesAnyCandidate,
    ),
    Mutant(
        9,
        "pre-vote-bumps-term",
        "a pre-vote raises the term",
        "terms begin with a candidate",
        0,
        broken.PreVoteBumpsTerm,
    ),
    Mutant(
        10,
        "never-steps-down",
        "a leader without a quorum does not step down",
        "liveness: the isolated leader",
        3,
        broken.NeverStepsDown,
    ),
    Mutant(
        11,
        "lease-through-transfer",
        "the lease survives a transfer",
        "stale reads",
        148,
        broken.KeepsItsLeaseThroughATransfer,
    ),
    Mutant(
        12,
        "reads-before-noop",
        "a read is answered before the leader's first commit",
        "stale reads",
        5,
        broken.ReadsBeforeItKnows,
    ),
    Mutant(
        13,
        "one-majority-while-joint",
        "a joint configuration needs one majority only",
        "quorum of disks",
        263,
        patches=((Configuration, "halves", property(_only_new_voters)),),
    ),
    Mutant(
        14,
        "learners-count",
        "learners count in the quorum",
        "quorum of disks",
        14,
        patches=((Configuration, "halves", property(_learners_too)),),
    ),
    Mutant(
        15,
        "old-snapshot",
        "a snapshot older than the log is installed",
        "the disk: no older snapshot",
        543,
        broken.TakesAnOldSnapshot,
    ),
    Mutant(
        16,
        "window-leaks",
        "what was lost is never freed from the in-flight window",
        "liveness: progress",
        0,
        patches=((Inflight, "clear", _leak),),
    ),
    Mutant(
        17,
        "change-twice",
        "a configuration takes effect again after a restart",
        "the log's configuration",
        16,
        broken.ChangesTwice,
    ),
    Mutant(
        18,
        "silent-drop",
        "a proposal is dropped, and said to be under way",
        "promises to clients",
        2,
        broken.DropsSilently,
    ),
    Mutant(
        19,
        "ack-before-fsync",
        "acknowledges before the write is durable",
        "acknowledged is on disk",
        0,
        broken.AcknowledgesBeforeTheDisk,
        where="durability",
    ),
    Mutant(
        23,
        "commit-beyond-journal",
        "a leader counts what it has not written",
        "quorum of disks",
        0,
        patches=((Leadership, "quorum_match", _counts_unwritten),),
        where="durability",
    ),
    Mutant(
        26,
        "snapshot-unchecked",
        "a snapshot is not checked against its digest",
        "the restored state",
        514,
        patches=((snapshots, "is_intact", lambda snapshot: True),),
        where="durability",
    ),
    Mutant(
        47,
        "lease-from-receipt",
        "a lease counts from now, not from when its round was sent",
        "stale reads",
        3,
        broken.TrustsItsLeaseTooLong,
    ),
    Mutant(
        101,
        "reads-without-asking",
        "a leader that believes it still leads",
        "stale reads",
        3,
        broken.ReadsWithoutAsking,
    ),
    Mutant(
        102,
        "log-before-snapshot",
        "entries that contradict a snapshot stay",
        "one history",
        25,
        broken.KeepsTheLogBeforeASnapshot,
    ),
    Mutant(
        103,
        "no-consistency-check",
        "the entry before the new ones is not compared",
        "one history",
        44,
        broken.SkipsTheConsistencyCheck,
    ),
    Mutant(
        104, "quorum-too-small", "a quorum that is one too small elects", "election safety", 5, broken.ElectsWithTooFew
    ),
    Mutant(
        105,
        "unwritten-to-heartbeats",
        "a heartbeat is answered with what is not written yet",
        "acknowledged is on disk",
        0,
        broken.ConfirmsUnwrittenToHeartbeats,
        where="durability",
    ),
    Mutant(
        106,
        "heartbeat-in-unwritten-term",
        "a heartbeat is answered in a term that is not written yet",
        "a named test",
        0,
        broken.AnswersInAnUnwrittenTerm,
        where="durability",
        test=f"{_TESTS}:test_an_acknowledgement_never_overtakes_an_earlier_write",
    ),
    Mutant(
        107,
        "lease-without-drift",
        "a lease allows for no difference between clocks",
        "stale reads",
        36,
        patches=((RaftConfig, "lease_ns", property(lambda config: config.election_timeout_min_ns)),),
    ),
    Mutant(
        108,
        "reads-unchecked",
        "what the disk returns is not checked",
        "one history, log matching, acknowledged is on disk",
        20,
        patches=((storage_log, "expect", lambda intact, what: None),),
        where="durability",
    ),
    Mutant(
        109,
        "vote-in-the-term-of-the-news",
        "the leader that was heard is given up once a later term was heard of",
        "stale reads",
        480934,
        broken.VotesInTheTermOfTheNews,
    ),
    Mutant(
        110,
        "told-and-forgotten",
        "who is told that it is pending is not told what became of it",
        "promises to clients",
        303941,
        broken.ForgetsWhomItTold,
    ),
)
"""Numbers are the catalogue's; from 101 on they are ours."""
