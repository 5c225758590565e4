"""Log compaction and snapshots (section 7 of the paper): the application's state in place of the log's beginning."""

from __future__ import annotations

from consensus.machine import Compact, Snapshot, SnapshotRecord
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.snapshot import make_snapshot
from consensus.raft.transfer import Transfers
from protocol.errors import LocalMisuse, PeerViolation
from protocol.messages import AppendEntriesResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse


class Snapshots(Transfers):
    """A follower takes a snapshot instead of entries that its leader no longer has."""

    def compact(self, index: int, data: bytes, trailing: int = 0) -> None:
        """The application's state after the entry at ``index``, which it has applied, is ``data``. The log before it
        is dropped but for ``trailing`` entries, so that a follower that is a little late needs no snapshot."""
        oldest = 0 if self.snapshot is None else self.snapshot.index
        if not oldest <= index <= self._delivered_index:
            raise LocalMisuse(f"a snapshot at {index}: it must lie between {oldest} and {self._delivered_index}")
        term = self.log.term_at(index)
        if index == oldest or term is None:
            return
        self.snapshot = make_snapshot(index, term, self.membership.at(index).encode(), data)
        self._records.append(SnapshotRecord(self.snapshot, restarts_log=False))
        base = max(index - trailing, self.log.base_index)
        base_term = self.log.term_at(base)
        assert base_term is not None
        self.log.compact(base, base_term)
        self.membership.compacted(index)
        self._records.append(Compact(base, base_term))

    # The follower -----------------------------------------------------------------------------------------------------

    def _on_install_snapshot(self, message: InstallSnapshot) -> None:
        if message.term < self.term:
            self._reply(message.leader, InstallSnapshotResponse(self.term, self.own, message.index, 0, message.round))
            return self._ignore("snapshot of an older term")
        if not self._follow(message.term, message.leader):
            return None
        if self._has_already(message.index):
            return self._confirm(message, self.commit_index)
        if message.size > self.config.snapshot_bytes_max:
            return self._ignore("snapshot too large")
        try:
            configuration = decode_configuration(message.membership)
        except PeerViolation as violation:
            return self._ignore(violation.reason)
        snapshot = self._receiving.take(message)
        if snapshot is not None:
            self._install(snapshot, configuration)
            return self._confirm(message, snapshot.index)
        offset = self._receiving.offset(message.digest)
        answer = InstallSnapshotResponse(self.term, self.own, message.index, offset, message.round)
        return self._reply(message.leader, answer)

    def _has_already(self, index: int) -> bool:
        """Seeded bug 15: a snapshot older than the log is no news, and must not take anything back."""
        return index <= self.commit_index

    def _install(self, snapshot: Snapshot, configuration: Configuration) -> None:
        if self.log.term_at(snapshot.index) == snapshot.term:
            return self._commit_to(snapshot.index)  # paper, section 7: what follows it in the log is retained
        self.log.restart(snapshot.index, snapshot.term)
        self.membership.restart(snapshot.index, configuration)
        self.snapshot = self._snapshot_to_restore = snapshot
        self.commit_index = self._delivered_index = snapshot.index
        self._records.append(SnapshotRecord(snapshot, restarts_log=True))
        return None

    def _confirm(self, message: InstallSnapshot, match_index: int) -> None:
        """A promise like any other: it leaves after the snapshot is durable."""
        answer = AppendEntriesResponse(self.term, self.own, True, match_index, 0, message.round)
        self._reply(message.leader, answer)

    # The leader -------------------------------------------------------------------------------------------------------

    def _on_install_response(self, message: InstallSnapshotResponse) -> None:
        progress = self._answering(message.term, message.follower, message.round)
        if progress is None:
            return None
        if progress.sending is None or progress.sending.snapshot.index != message.index:
            return self._ignore("answer to no snapshot")
        return progress.sending.wanted(message.offset)
