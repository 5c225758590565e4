"""A leader's rounds: each asks every follower whether it still follows, and tells what a quorum's echo proves.

A round that a quorum echoes proves that nobody else had been elected when it was sent. That is what a linearizable read
needs (thesis, section 6.4), and with the followers' promise to help nobody for a while it is a lease.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

ROUNDS_UNDER_WAY_MAX: Final = 8
"""Rounds that reads may start ahead of the answers; later reads share the next one."""


NO_LEADER: Final = "no leader"
TOO_MANY: Final = "too many reads"
NO_ANSWER: Final = "no answer in time"
LEADERSHIP_LOST: Final = "leadership lost"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Reads of this replica that travel in one request to the leader."""

    leader: int
    requests: tuple[int, ...]
    deadline_ns: int


class Rounds:
    """Numbers the rounds of one leadership and remembers when each was sent.

    Invariant: confirmed <= begun, and ``_sent_ns`` holds the confirmed round and every later one.
    """

    def __init__(self, now_ns: int) -> None:
        self.begun = 0
        self.confirmed = 0
        self._sent_ns = {0: now_ns}

    @property
    def under_way(self) -> int:
        return self.begun - self.confirmed

    def begin(self, now_ns: int) -> None:
        """A message to every follower is about to leave, and carries this number."""
        self.begun += 1
        self._sent_ns[self.begun] = now_ns

    def confirm(self, number: int) -> None:
        """A quorum has echoed this round, or a later one."""
        for settled in range(self.confirmed, number):
            del self._sent_ns[settled]
        self.confirmed = max(self.confirmed, number)

    def lease_start_ns(self) -> int | None:
        """When the last confirmed round was SENT. Followers count from when they got it, which is later. None before
        the first: a leader's election proves no contact that a follower would remember as its leader's."""
        return self._sent_ns[self.confirmed] if self.confirmed else None


class Question(NamedTuple):
    """A read, from this replica or another."""

    replica: int
    request: int


class ReadQueue:
    """Reads of one leadership: waiting for a round of their own, then for its confirmation."""

    def __init__(self) -> None:
        self.waiting: list[Question] = []
        self._under_way: deque[tuple[int, int, Question]] = deque()

    def __len__(self) -> int:
        return len(self.waiting) + len(self._under_way)

    def join(self, number: int, commit_index: int) -> None:
        """Round ``number`` begins now: it answers everybody who waits, with what is committed now."""
        self._under_way.extend((number, commit_index, question) for question in self.waiting)
        self.waiting = []

    def take_confirmed(self, number: int) -> list[tuple[Question, int]]:
        """Reads whose round is confirmed, with the index that each may be answered at."""
        answers = []
        while self._under_way and self._under_way[0][0] <= number:
            _, index, question = self._under_way.popleft()
            answers.append((question, index))
        return answers

    def take_all(self) -> list[Question]:
        """Leadership is lost: nobody will confirm any of these."""
        left = [question for _, _, question in self._under_way] + self.waiting
        self.waiting, self._under_way = [], deque()
        return left

    def check_invariants(self, rounds: Rounds) -> None:
        assert all(rounds.confirmed <= number <= rounds.begun for number, _, _ in self._under_way)
