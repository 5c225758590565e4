"""What etcd's raft adds to the messages of the paper: reads, leadership transfer, snapshots in pieces."""

from __future__ import annotations

from protocol.structs import U16, U64, Message


class TimeoutNow(Message, frozen=True):
    """The leader asks a follower that holds its whole log to stand for election at once."""

    term: U64
    leader: U16


class ReadIndex(Message, frozen=True):
    """Ask the leader up to where a replica must have applied, to answer a read that begins now."""

    term: U64
    replica: U16
    request: U64
    """Unique among the requests that this replica ever makes."""


class ReadIndexResponse(Message, frozen=True):
    """The leader's answer, once a quorum confirmed that it led after the request had come."""

    term: U64
    leader: U16
    request: U64
    granted: bool
    index: U64
    """Log index; 0 when refused."""


class InstallSnapshot(Message, frozen=True):
    """A piece of the leader's snapshot, for a follower that needs entries which are no longer in the leader's log."""

    term: U64
    leader: U16
    index: U64
    """The snapshot stands for the log up to here, ``index_term`` being the term of its last entry."""
    index_term: U64
    membership: bytes
    """Who votes and who learns, as of ``index``."""
    digest: bytes
    """Of everything that the snapshot is: two with the same digest are the same."""
    size: U64
    """Of the whole data, in bytes."""
    offset: U64
    chunk: bytes
    round: U64


class InstallSnapshotResponse(Message, frozen=True):
    """From which byte on the follower wants to hear more. Once all is installed it answers as to an append."""

    term: U64
    follower: U16
    index: U64
    offset: U64
    round: U64
