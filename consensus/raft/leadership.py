"""What exists only while a replica leads: its followers' progress, and the appends that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from consensus.machine import Outgoing, Snapshot
from consensus.raft.config import RaftConfig
from consensus.raft.inflight import Inflight
from consensus.raft.log import ENTRY_OVERHEAD_BYTES, Log, size_bytes
from consensus.raft.membership import Membership
from consensus.raft.progress import Progress
from consensus.raft.rounds import ROUNDS_UNDER_WAY_MAX, ReadQueue, Rounds
from consensus.raft.snapshot import Sending
from consensus.raft.thrift import Thrift
from protocol.messages import AppendEntries, Entry, Message
from protocol.raft_messages import InstallSnapshot


class Leadership:
    """One leader in one term. ``log`` is the replica's own, and is read only."""

    def __init__(self, own: int, term: int, membership: Membership, log: Log, config: RaftConfig, now_ns: int) -> None:
        self.own = own
        self.term = term
        self._membership = membership
        self.config = config
        self.heartbeat_deadline_ns = now_ns + config.heartbeat_ns
        self.rounds = Rounds(now_ns)
        self.reads = ReadQueue()
        self.lease_given_up = False
        """Another replica was asked to take over: nobody is bound to this leader any more."""
        self.transferee: int | None = None
        """Who is to take over. Until then, or until ``transfer_deadline_ns``, proposals are refused."""
        self.transfer_deadline_ns = 0
        self.timeout_now_due = False
        self._log = log
        self._thrift = Thrift(own, config)
        self.followers: dict[int, Progress] = {}
        self.meet_members(now_ns)
        self.uncommitted_bytes = 0
        """Of the entries that this leadership appended and that are not committed yet."""
        self.commit_deadline_ns: int | None = None
        """When followers hear of the latest commits, if no entries have told them before."""
        self._heartbeat_due = False
        self._entries_at: dict[int, tuple[Entry, ...]] = {}
        """By first index: entries of messages that leave now. Followers that are equally far get the same ones."""

    def meet_members(self, now_ns: int) -> None:
        """Everybody in the latest configuration is a follower, and nobody else."""
        others = [member for member in self._membership.current.members if member != self.own]
        self.followers = {other: self.followers.get(other) or self._new_progress(now_ns) for other in others}
        self._thrift.end()

    def has_room(self, payload_bytes: int) -> bool:
        """Whether a proposal fits under the bound on uncommitted bytes. One alone always does, or it never would."""
        following_bytes = self.uncommitted_bytes + payload_bytes + ENTRY_OVERHEAD_BYTES
        return self.uncommitted_bytes == 0 or following_bytes <= self.config.uncommitted_bytes_max

    def append(self, kind: int, payload: bytes) -> int:
        """Append an entry of this leadership's term; returns its index."""
        entry = Entry(self.term, self._log.last_index + 1, kind, payload)
        self._log.append((entry,))
        self.uncommitted_bytes += len(payload) + ENTRY_OVERHEAD_BYTES
        return entry.index

    def committed(self, entries: Iterable[Entry], now_ns: int) -> None:
        """These entries are committed now."""
        if self.commit_deadline_ns is None and self.config.commit_delay_ns:
            self.commit_deadline_ns = now_ns + self.config.commit_delay_ns
        self.uncommitted_bytes -= size_bytes([entry for entry in entries if entry.term == self.term])

    def next_deadline_ns(self) -> int:
        """When something is due by time."""
        deadlines = (self.heartbeat_deadline_ns, self.commit_deadline_ns, self._thrift.deadline_ns)
        return min([deadline for deadline in deadlines if deadline is not None])

    def begin_heartbeat(self, now_ns: int) -> None:
        """The round that is due by time."""
        self.begin_round(now_ns)
        self._thrift.choose(self._membership, self.followers, self._log.last_index, now_ns)
        self.heartbeat_deadline_ns = now_ns + self.config.heartbeat_ns

    def begin_round(self, now_ns: int) -> None:
        """Every follower gets a message of a new round with the next ``appends``, also in place of one that may be
        lost. It does not put off the heartbeat: a leader's other duties in time keep that pace, and reads may begin
        rounds without end."""
        self.confirm_rounds()
        self.rounds.begin(now_ns)
        self._heartbeat_due = True

    def may_begin_round(self) -> bool:
        """Whether a round outside the heartbeat's pace is within bounds."""
        return self.rounds.under_way < ROUNDS_UNDER_WAY_MAX

    def confirm_rounds(self) -> None:
        """Note the last round that a quorum, the leader included, has echoed."""
        echoes = {follower: progress.round for follower, progress in self.followers.items()}
        self.rounds.confirm(self._membership.agreed({self.own: self.rounds.begun} | echoes))

    def appends(self, commit_index: int, snapshot: Snapshot | None, now_ns: int) -> Iterator[Outgoing]:
        """All messages that may leave now. Sending ahead of the answers is bounded by the in-flight limit."""
        self._entries_at = {}
        commit_due = self._commit_due(now_ns)
        held = self._thrift.held(self.followers, self._log.last_index, commit_index, now_ns)
        for follower, progress in self.followers.items():
            due, waits = self._heartbeat_due, follower in held and follower != self.transferee
            while due or progress.wants_append(self._log, commit_index, commit_due, waits):
                yield Outgoing(follower, self._message_for(progress, commit_index, snapshot))
                due = False
        self._heartbeat_due = False

    def _commit_due(self, now_ns: int) -> bool:
        """Whether followers hear of commits even without entries. Who cannot be told now is told by a heartbeat."""
        if not self.config.commit_delay_ns:
            return True
        if self.commit_deadline_ns is None or now_ns < self.commit_deadline_ns:
            return False
        self.commit_deadline_ns = None
        return True

    def peer_connected(self, peer: int) -> None:
        """A voter has a new connection to us."""
        if peer in self.followers:
            self.followers[peer].connected_anew(self._log.last_index)

    def quorum_match(self) -> int:
        """The highest index that a quorum holds on disk. The leader counts as far as its own writes are done."""
        matches = {follower: progress.match for follower, progress in self.followers.items()}
        return self._membership.agreed({self.own: self._log.durable_index} | matches)

    def quorum_silent_ns(self, now_ns: int) -> int:
        """For how long no quorum, the leader included, has been heard."""
        contacts = {follower: progress.contact_ns for follower, progress in self.followers.items()}
        return now_ns - self._membership.agreed({self.own: now_ns} | contacts)

    def status(self, now_ns: int) -> dict[int, dict[str, Any]]:
        return {
            follower: {
                "state": progress.state.value,
                "match": progress.match,
                "next": progress.next,
                "inflight": len(progress.inflight),
                "inflight_bytes": progress.inflight.bytes,
                "round": progress.round,
                "silent_ns": now_ns - progress.contact_ns,
                "promises_broken": progress.promises_broken,
                "waits": follower in self._thrift.waiting,
            }
            for follower, progress in self.followers.items()
        }

    def check_invariants(self, commit_index: int) -> None:
        open_entries = self._log.entries_from(commit_index + 1)
        assert self.uncommitted_bytes == size_bytes([entry for entry in open_entries if entry.term == self.term])
        self.reads.check_invariants(self.rounds)
        self._thrift.check_invariants(self._membership)
        for progress in self.followers.values():
            assert progress.round <= self.rounds.begun
            progress.check_invariants(self._log.last_index)

    def _new_progress(self, now_ns: int) -> Progress:
        inflight = Inflight(self.config.inflight_appends_max, self.config.inflight_bytes_max)
        return Progress(self._log.last_index + 1, now_ns, inflight)

    def _message_for(self, progress: Progress, commit_index: int, snapshot: Snapshot | None) -> Message:
        if progress.sending is None and self._log.term_at(progress.next - 1) is None:
            assert snapshot is not None
            progress.send_snapshot(snapshot)
        if progress.sending is not None:
            return self._chunk_for(progress.sending)
        message = self._append_for(progress, commit_index)
        progress.sent(message)
        return message

    def _chunk_for(self, sending: Sending) -> InstallSnapshot:
        """The piece that the follower wants next, or wants again."""
        sending.due = False
        snapshot, chunk = sending.snapshot, sending.chunk(self.config.snapshot_chunk_bytes_max)
        return InstallSnapshot(
            self.term, self.own, snapshot.index, snapshot.term, snapshot.membership, snapshot.digest,
            len(snapshot.data), sending.offset, chunk, self.rounds.begun,
        )  # fmt: skip

    def _append_for(self, progress: Progress, commit_index: int) -> AppendEntries:
        """The next message for a follower; without entries when its in-flight limit is reached."""
        previous = progress.next - 1
        entries: tuple[Entry, ...] = ()
        if not progress.inflight.full:
            entries = self._entries_from(progress.next)
        previous_term = self._log.term_at(previous)
        assert previous_term is not None
        return AppendEntries(self.term, self.own, previous, previous_term, commit_index, entries, self.rounds.begun)

    def _entries_from(self, first: int) -> tuple[Entry, ...]:
        entries = self._entries_at.get(first)
        if entries is None:
            limits = self.config.entries_per_append_max, self.config.bytes_per_append_max
            entries = self._entries_at[first] = self._log.bounded(first, *limits)
        return entries
