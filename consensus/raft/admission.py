"""What a message must satisfy before the machine looks at it. A peer may break any of these, so nothing is raised."""

from __future__ import annotations

from collections.abc import Container
from typing import Final, get_args

from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, Message, RequestVote, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse, ReadIndex, ReadIndexResponse, TimeoutNow

TERM_MAX: Final = 2**62
"""No honest swarm gets there. Beyond it a liar could drive the term out of what the wire and the storage can hold."""


RaftMessage = (
    RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | ReadIndex
    | ReadIndexResponse
    | TimeoutNow
    | InstallSnapshot
    | InstallSnapshotResponse
)
RAFT_MESSAGES: Final[tuple[type[RaftMessage], ...]] = get_args(RaftMessage)


def claimed_sender(message: RaftMessage) -> int:
    """Whom the message says it is from."""
    match message:
        case RequestVote(candidate=claimed) | RequestVoteResponse(voter=claimed):
            return claimed
        case AppendEntries(leader=claimed) | AppendEntriesResponse(follower=claimed):
            return claimed
        case TimeoutNow(leader=claimed) | InstallSnapshot(leader=claimed) | InstallSnapshotResponse(follower=claimed):
            return claimed
        case ReadIndex(replica=claimed) | ReadIndexResponse(leader=claimed):
            return claimed


def refusal_reason(sender: int, message: Message, others: Container[int]) -> str | None:
    """Why the message is not admitted, as a stable label, or None. ``sender`` is what the transport proved."""
    if not isinstance(message, RAFT_MESSAGES):
        return "no raft message"
    if sender not in others:
        return "sender is no other voter"
    if claimed_sender(message) != sender:
        return "sender is not who it claims"
    if message.term > TERM_MAX:
        return "term out of range"
    if isinstance(message, AppendEntries) and not _well_formed(message):
        return "malformed entries"
    if isinstance(message, InstallSnapshot) and not _fits_together(message):
        return "malformed snapshot"
    return None


def _well_formed(message: AppendEntries) -> bool:
    """Indices follow each other, terms never fall, and none is later than the leader's own."""
    previous = Entry(message.previous_log_term, message.previous_log_index, 0, b"")
    for entry in message.entries:
        if entry.index != previous.index + 1 or entry.term < previous.term:
            return False
        previous = entry
    return previous.term <= message.term


def _fits_together(message: InstallSnapshot) -> bool:
    """A piece lies within its snapshot, and the snapshot within the leader's past."""
    within = message.offset + len(message.chunk) <= message.size
    return within and message.index > 0 and message.index_term <= message.term
