"""Snapshots on their way: pieces that arrive, and pieces that leave. What the data mean, only the application knows."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from consensus.machine import Snapshot
from protocol.raft_messages import InstallSnapshot
from protocol.signing import digest


def make_snapshot(index: int, term: int, membership: bytes, data: bytes) -> Snapshot:
    """The state after the entry at ``index``, whose term is ``term``."""
    return Snapshot(index, term, membership, _digest(index, term, membership, data), data)


def is_intact(snapshot: Snapshot) -> bool:
    """Whether it is what its digest says. Seeded bug 26: a snapshot without a checksum."""
    return snapshot.digest == _digest(snapshot.index, snapshot.term, snapshot.membership, snapshot.data)


class Receiving:
    """The one snapshot that a follower is being sent. It goes on where it stopped as long as the digest is the same,
    across lost messages, connections and leaders."""

    def __init__(self) -> None:
        self.damaged = 0
        """How often a whole snapshot was not what its digest said."""
        self._digest = b""
        self._data = bytearray()

    def offset(self, snapshot_digest: bytes) -> int:
        """From which byte on this snapshot is wanted."""
        return len(self._data) if snapshot_digest == self._digest else 0

    def take(self, message: InstallSnapshot) -> Snapshot | None:
        """Take in a piece. The snapshot, once it is whole and intact."""
        if message.digest != self._digest:
            self._digest, self._data = message.digest, bytearray()
        if message.offset == len(self._data):
            self._data += message.chunk
        if len(self._data) < message.size:
            return None
        data, self._digest, self._data = bytes(self._data), b"", bytearray()
        snapshot = Snapshot(message.index, message.index_term, message.membership, message.digest, data)
        if is_intact(snapshot):
            return snapshot
        self.damaged += 1
        return None


@dataclass(slots=True)
class Sending:
    """A snapshot on its way to one follower, piece by piece: the next leaves when the last was answered, and the same
    again with each heartbeat."""

    snapshot: Snapshot
    offset: int = 0
    due: bool = True

    def wanted(self, offset: int) -> None:
        """The follower has everything up to ``offset``. It may start again, if it lost what it had."""
        self.due = self.due or (offset != self.offset and offset <= len(self.snapshot.data))
        self.offset = min(offset, len(self.snapshot.data))

    def chunk(self, bytes_max: int) -> bytes:
        """The next piece."""
        return self.snapshot.data[self.offset : self.offset + bytes_max]


def _digest(index: int, term: int, membership: bytes, data: bytes) -> bytes:
    return digest(b"swarm/snapshot/1", struct.pack("<QQ", index, term), membership, data)
