"""Which followers need not have new entries at once: those that the quorum can do without ("thrifty" in Moraru,
Andersen and Kaminsky, "There Is More Consensus in Egalitarian Parliaments", 2013).

A commit waits for a quorum, and on a loaded machine also for everybody else who is busy with the same entry. So a
leader sends entries at once to just enough followers, and the others get theirs a little later, many at a time. Nothing
of this touches safety: a leader may send whenever it likes. The price is a delay when one of the few fails, and it is
paid once: entries that are not committed when the others' time has come end the thrift until they are chosen anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from consensus.raft.config import RaftConfig
from consensus.raft.membership import Membership
from consensus.raft.progress import Progress, ProgressState

NOBODY_WAITS: Final[frozenset[int]] = frozenset()


class Thrift:
    """Of one leadership. Nobody waits until the first ``choose``.

    Invariant: a quorum can do without those who wait, and ``deadline_ns`` is None while nobody does.
    """

    # When much is written, batches are large: a few messages less are worth less than the faster of two followers, and
    # than entries that are encoded once for all.

    def __init__(self, own: int, config: RaftConfig) -> None:
        self.waiting = NOBODY_WAITS
        """Followers that get new entries later."""
        self.deadline_ns: int | None = None
        """When they get what they lack. None while they lack nothing."""
        self._own = own
        self._config = config
        self._late: Counter[int] = Counter()
        """How often a follower had not confirmed in time what it got at once. Who is slow, or a liar who wants to be
        waited for, gets another turn only when the others are no better."""
        self._last_index = 0
        """Where the log ended when the deadline was set."""
        self._last_index_chosen = 0
        """And where when they were chosen."""

    def end(self) -> None:
        """Nobody waits, until they are chosen anew."""
        self.waiting, self.deadline_ns = NOBODY_WAITS, None

    def choose(self, membership: Membership, followers: Mapping[int, Progress], last_index: int, now_ns: int) -> None:
        """Of those that keep up, who was late the least goes first, then who has most of the log, then who went first
        so far. While the membership changes, or too few keep up, or much is written, nobody waits."""
        waited, written = self.waiting, last_index - self._last_index_chosen
        self.end()
        self._last_index_chosen = last_index
        voters, config = membership.current.voters, self._config
        much = written > config.entries_per_append_max
        if not config.thrift_delay_ns or much or membership.current.joint or self._own not in voters:
            return

        def rank(voter: int) -> tuple[bool, int, int, bool]:
            return voter not in config.prompt, self._late[voter], -followers[voter].match, voter in waited

        heard_ns = now_ns - 2 * config.heartbeat_ns
        others = [voter for voter in voters if voter != self._own]
        able = sorted([voter for voter in others if _keeps_up(followers[voter], heard_ns)], key=rank)
        needed = membership.quorum_size(len(voters)) - 1
        if len(able) >= needed:
            self.waiting = frozenset(others) - frozenset(able[:needed]) - config.prompt

    def held(
        self, followers: Mapping[int, Progress], last_index: int, commit_index: int, now_ns: int
    ) -> frozenset[int]:
        """Who does not get entries now."""
        ready = [each for each in map(followers.__getitem__, self.waiting) if each.has_room]
        lacking = max([last_index + 1 - progress.next for progress in ready], default=0)
        if lacking == 0:
            self.deadline_ns = None
            return self.waiting
        if self.deadline_ns is None:
            self.deadline_ns, self._last_index = now_ns + self._config.thrift_delay_ns, last_index
        due, much = now_ns >= self.deadline_ns, lacking >= self._config.entries_per_append_max
        if not due and not much:
            return self.waiting
        self.deadline_ns = None
        if due and commit_index < self._last_index:
            self._note_late(followers)
        if much or commit_index < self._last_index:
            self.end()
        return NOBODY_WAITS

    def _note_late(self, followers: Mapping[int, Progress]) -> None:
        self._late.update(
            follower
            for follower, progress in followers.items()
            if follower not in self.waiting and progress.match < self._last_index
        )

    def check_invariants(self, membership: Membership) -> None:
        voters = frozenset(membership.current.voters)
        assert self.waiting <= voters - {self._own} - self._config.prompt
        assert not self.waiting or membership.reached(voters - self.waiting)
        assert self.waiting or self.deadline_ns is None


def _keeps_up(progress: Progress, heard_ns: int) -> bool:
    return progress.state is ProgressState.REPLICATE and progress.contact_ns >= heard_ns
