"""What a leader believes about one follower: how far it matches, what is on its way, and when it last answered."""

from __future__ import annotations

from enum import Enum

from consensus.machine import Snapshot
from consensus.raft.inflight import Inflight
from consensus.raft.log import Log, size_bytes
from consensus.raft.snapshot import Sending
from protocol.messages import AppendEntries


class ProgressState(Enum):
    PROBE = "probe"
    """The match is unknown: one message, and one with each heartbeat, until an answer tells."""
    REPLICATE = "replicate"
    """The follower keeps up: messages follow each other without waiting, up to the in-flight limit."""
    SNAPSHOT = "snapshot"
    """It needs entries that the log no longer has: a snapshot is on its way, piece by piece."""


class Progress:
    """One follower's progress under one leadership.

    Invariant: 0 <= ``match`` < ``next``, and ``match`` only rises until the follower connects anew. Unanswered
    messages with entries stay within ``inflight``.
    """

    def __init__(self, next_index: int, now_ns: int, inflight: Inflight) -> None:
        self.state = ProgressState.PROBE
        self.match = 0
        self.confirmed = 0
        """The highest match ever: what the follower has promised to keep, over all of its lives."""
        self.next = next_index
        self.contact_ns = now_ns
        """When the follower last answered in this term."""
        self.round = 0
        """The latest round of the leader that it has echoed."""
        self.promises_broken = 0
        """How often the follower lacked what it had confirmed: another disk under its name, or a liar.

        It is counted and shown, and its later answers still count: what it confirms from now on is on the disk that
        it has now. What had counted before cannot be taken back, so refusing it would cost progress and mend nothing.
        With q = ceil((n+f+1)/2) one such replica is within f; in profile ``raft`` an operator must act on it.
        """
        self.commit_sent = 0
        self.commit_wanted = False
        """It was told to read at a commit index, so it must hear of that at once."""
        self.inflight = inflight
        self.sending: Sending | None = None
        self._probe_sent = False

    @property
    def has_room(self) -> bool:
        """Whether it keeps up so well that more entries may be sent ahead of its answers."""
        return self.state is ProgressState.REPLICATE and not self.inflight.full

    def wants_append(self, log: Log, commit_index: int, commit_due: bool, waits: bool) -> bool:
        """Whether something new may leave now: entries within the limits, unless it ``waits`` for them, or news of
        commits that is due."""
        if self.sending is not None:
            return self.sending.due
        if self.state is ProgressState.PROBE:
            return not self._probe_sent
        if self.next <= log.last_index and not waits and not self.inflight.full:
            return True
        return (commit_due or self.commit_wanted) and self.lacks_commit(commit_index)

    def lacks_commit(self, commit_index: int) -> bool:
        """Whether it was not told of a commit that it could act on."""
        return self.commit_sent < commit_index and self.commit_sent < self.next - 1

    def sent(self, message: AppendEntries) -> None:
        """Note that ``message`` left. When replicating, ``next`` runs ahead of the answers."""
        last = message.previous_log_index + len(message.entries)
        self.commit_sent = min(message.leader_commit, last)
        self.commit_wanted = False
        if self.state is ProgressState.PROBE:
            self._probe_sent = True
        elif message.entries:
            self.next = last + 1
            self.inflight.add(last, size_bytes(message.entries))

    def accepted(self, match_index: int) -> bool:
        """The follower matches up to ``match_index``. True when that is news."""
        news = match_index > self.match
        self.match = max(self.match, match_index)
        self.confirmed = max(self.confirmed, self.match)
        self.inflight.free(self.match)
        if self.sending is not None and self.match < self.sending.snapshot.index:
            return news
        if self.state is not ProgressState.REPLICATE:
            self.state, self.sending = ProgressState.REPLICATE, None
            self.next = self.match + 1
        self.next = max(self.next, self.match + 1)
        return news

    def refused(self, hint: int, worth_trying: int) -> bool:
        """The follower lacks the entry before ``next`` and names ``hint``; the own log can match it no later than at
        ``worth_trying``. False when the refusal is an old one: a true refusal hints below what was tried, and never
        below what the follower has already confirmed."""
        if self.sending is not None or not self.match <= hint < self.next - 1:
            return False
        self.promises_broken += hint < self.confirmed  # an honest hint never lies below what was acknowledged
        self.state = ProgressState.PROBE
        self.next = max(self.match, worth_trying) + 1
        self.inflight.clear()
        self._probe_sent = False
        return True

    def send_snapshot(self, snapshot: Snapshot) -> None:
        """The follower needs what only a snapshot can bring."""
        self.state, self.sending = ProgressState.SNAPSHOT, Sending(snapshot)
        self.inflight.clear()

    def connected_anew(self, last_index: int) -> None:
        """What was under way is lost, and the follower may be another process with another disk: ask it again. A match
        only ever advances the commit index, so forgetting one delays a commit and undoes none."""
        self.state, self.sending = ProgressState.PROBE, None
        self.match = 0
        self.next = last_index + 1
        self.inflight.clear()
        self._probe_sent = False

    def check_invariants(self, last_index: int) -> None:
        assert self.match <= self.confirmed <= last_index
        assert self.sending is not None or 0 <= self.match < self.next <= last_index + 1
        assert (self.state is ProgressState.SNAPSHOT) == (self.sending is not None)
        self.inflight.check_invariants(self.match, self.next)
        assert self.state is ProgressState.REPLICATE or not self.inflight
