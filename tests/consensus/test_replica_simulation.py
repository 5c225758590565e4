"""Four whole replicas under loss, delay, partition and crash, judged from outside; each run follows from its seed.
REPLICA_SEEDS sets how many storms are run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from consensus import voting
from consensus.frames import FrameTable
from tests.oracles.replica_storm import simulate

SEEDS = range(int(os.environ.get("REPLICA_SEEDS", "6")))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_history_one_verdict_and_everything_decided_after_healing(seed: int) -> None:
    simulate(seed, equivocate=0.3 if seed % 3 == 0 else 0.0)


def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = (simulate(seed, count=6, rounds=3) for seed in (7, 7, 8))
    assert (first.message_count, first.now_ns) == (second.message_count, second.now_ns)
    assert (first.message_count, first.now_ns) != (other.message_count, other.now_ns)


def forgets_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes are redone after a restart, not repeated."""
    monkeypatch.setattr(FrameTable, "verdict", lambda self, digest: None)


def votes_before_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: Any, destination: int, vote: Any) -> None:
        self._context.effects.send_now.append(voting.Outgoing(destination, vote))

    monkeypatch.setattr(voting.Voting, "_send", send)


def answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was away never learns the votes on the spine."""
    monkeypatch.setattr(voting.Voting, "answer", lambda self, peer, record: None)


def counts_approvals_short(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = voting.settle
    monkeypatch.setattr(voting, "settle", lambda votes, count, quorum, denial: honest(votes, count, quorum - 1, denial))


@pytest.mark.sources
@pytest.mark.parametrize("mutate", [forgets_verdicts, votes_before_the_disk, answers_nobody, counts_approvals_short])
def test_the_oracle_catches_seeded_bugs(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that finds nothing in a broken replica proves nothing about a sound one."""
    mutate(monkeypatch)
    for seed in range(25):
        try:
            simulate(seed)
        except AssertionError as error:
            assert f"rerun: python -m tests.oracles.replica_storm {seed}" in "".join(error.__notes__)
            return
    pytest.fail(f"25 seeds did not notice {mutate.__name__}")
