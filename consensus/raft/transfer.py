"""Leadership transfer (thesis, section 3.10): the leader brings one voter up to date and asks it to stand at once.

While that goes on proposals are refused, so that the target's log can be complete. It ends with the target's election,
which this replica learns of by its term, or after an election timeout, when the leader takes up its work again. The
request may then still be under way: the target may win at any time, so that this leader has no lease any more.
"""

from __future__ import annotations

from typing import Final

from consensus.machine import Outgoing
from consensus.raft.config import Role
from consensus.raft.leadership import Leadership
from consensus.raft.reading import Reading
from protocol.raft_messages import TimeoutNow

TRANSFER: Final = "leadership transfer"


class Transfers(Reading):
    """How a leader leaves its office in good order."""

    def transfer_leadership(self, to: int, now_ns: int) -> str | None:
        """Start handing over to voter ``to``. Why that is refused, as a stable label, or None."""
        self._observe(now_ns)
        leadership = self._leadership
        if leadership is None:
            return "not the leader"
        if to == self.own or to not in self.membership.current.voters:
            return "no other voter"
        if leadership.transferee is not None:
            return TRANSFER
        leadership.transferee = to
        leadership.transfer_deadline_ns = self._now_ns + self.config.election_timeout_max_ns
        leadership.timeout_now_due = True
        return None

    def hand_over(self, now_ns: int) -> int | None:
        """Start handing over to the voter whose log is the longest, of those that were heard lately. Who that is; None
        when this replica does not lead, or hears nobody."""
        self._observe(now_ns)
        if self._leadership is None:
            return None
        heard_ns = self._now_ns - self.config.election_timeout_min_ns
        lengths = {
            voter: progress.match
            for voter, progress in self._leadership.followers.items()
            if voter in self.membership.current.voters and progress.contact_ns >= heard_ns
        }
        to = max(lengths, key=lengths.__getitem__, default=None)
        return to if to is not None and self.transfer_leadership(to, now_ns) is None else None

    def _tick_leader(self, leadership: Leadership) -> None:
        """Ask again, in case the request was lost, or give up."""
        leadership.timeout_now_due = leadership.transferee is not None
        if leadership.transferee is not None and self._now_ns >= leadership.transfer_deadline_ns:
            leadership.transferee = None
            self.transfers_abandoned += 1
        super()._tick_leader(leadership)

    def _send_timeout_now(self, leadership: Leadership) -> None:
        """Once the target holds everything. From here on nobody is bound to this leader."""
        to = leadership.transferee
        if to is None or not leadership.timeout_now_due or to not in leadership.followers:
            return
        if leadership.followers[to].match < self.log.last_index:
            return
        leadership.timeout_now_due = False
        leadership.lease_given_up = True
        self._send_now.append(Outgoing(to, TimeoutNow(self.term, self.own)))

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        if message.term != self.term or self.leader != message.leader or self.role is not Role.FOLLOWER:
            return self._ignore("late request to take over")
        if not self.membership.may_stand(self.own, self.commit_index):
            return self._ignore("no voter")
        return self._start_election(transfer=True)
