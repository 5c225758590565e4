"""Membership change by joint consensus (section 6 of the paper, chapter 4 of the thesis). What decides that a member
comes or goes stands outside: the lane only carries it out.

One change at a time: a joint configuration is appended, and once it is committed, by both groups of voters, the one
that follows it. A leader that is not among the new voters leads until that one is committed, and then steps down.
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.raft.configuration import Configuration, change
from consensus.raft.install import Snapshots
from consensus.raft.leadership import Leadership
from consensus.raft.transfer import TRANSFER
from protocol.codes import EntryKind


class Changes(Snapshots):
    """How voters and learners come and go."""

    def propose_membership(
        self, voters: Iterable[int], learners: Iterable[int] = (), auto_leave: bool = True
    ) -> str | None:
        """Start the change to exactly these voters and learners. Why that is refused, as a stable label, or None.

        A new voter should have been a learner for as long as it takes to have the log: until it has, it only weakens
        the quorum that it belongs to.
        """
        if (refusal := self._change_refusal()) is not None:
            return refusal
        target = change(self.membership.current, voters, learners, auto_leave)
        if (refusal := self._target_refusal(target)) is not None:
            return refusal
        self._append_configuration(target)
        return None

    def leave_joint(self) -> str | None:
        """End a joint configuration that does not end by itself. Why that is refused, or None."""
        if self._leadership is None:
            return "not the leader"
        if not self.membership.current.joint:
            return "no joint configuration"
        if self.membership.index > self.commit_index:
            return "membership change under way"
        self._append_configuration(self.membership.current.left())
        return None

    def _change_refusal(self) -> str | None:
        """A second change before the first is committed could skip a configuration: quorums would not overlap."""
        if self._leadership is None:
            return "not the leader"
        if self._leadership.transferee is not None:
            return TRANSFER
        if not self._knows_what_is_committed():
            return "no entry of this term is committed"
        if self.membership.current.joint or self.membership.index > self.commit_index:
            return "membership change under way"
        return None

    def _target_refusal(self, target: Configuration) -> str | None:
        if target == self.membership.current:
            return "nothing changes"
        if not set(target.members) <= set(self.roster):
            return "not in the roster"
        if set(target.voters) & set(target.learners):
            return "voter and learner at once"
        if not target.voters or self.membership.size_error(target.voters) is not None:
            return "no quorum size for so many voters"
        return None

    def _append_configuration(self, configuration: Configuration) -> None:
        """It holds from here on, for this very entry too."""
        assert self._leadership is not None
        self._leadership.append(EntryKind.MEMBERSHIP, configuration.encode())
        self._leadership.meet_members(self._now_ns)

    def _commit_to(self, index: int) -> None:
        super()._commit_to(index)
        if self._leadership is not None and self.membership.index <= self.commit_index:
            self._configuration_committed(self._leadership)

    def _configuration_committed(self, leadership: Leadership) -> None:
        """Paper, section 6: after the joint configuration the new one; after that a leader that it lacks goes."""
        current = self.membership.current
        if current.joint:
            if current.auto_leave:
                self._append_configuration(current.left())
        elif self.own not in current.voters:
            self._become_follower(self.term, None)
