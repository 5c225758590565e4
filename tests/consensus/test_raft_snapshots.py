"""Compaction and snapshots: section 7 of the Raft paper."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.machine import Compact, LogAppend, Snapshot, SnapshotRecord
from consensus.raft.config import RaftConfig
from consensus.raft.configuration import Configuration
from consensus.raft.core import Raft
from consensus.raft.snapshot import Receiving, Sending, is_intact, make_snapshot
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import AppendEntries, AppendEntriesResponse, Message
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse
from tests.oracles.raft_driver import VOTERS, Driver, entry, log_of

CONFIG = RaftConfig(snapshots=True, snapshot_chunk_bytes_max=10)
MEMBERSHIP = Configuration(VOTERS).encode()
DATA = bytes(range(25))


def pieces(snapshot: Snapshot, term: int = 3, size: int = 10) -> list[InstallSnapshot]:
    data = snapshot.data
    return [
        InstallSnapshot(
            term, 1, snapshot.index, snapshot.term, snapshot.membership, snapshot.digest, len(data), offset,
            data[offset : offset + size], 0,
        )
        for offset in range(0, max(len(data), 1), size)
    ]  # fmt: skip


def leader(entries: int = 4) -> Driver:
    """Entry 1 is the no-op; all of them are committed and delivered."""
    driver = Driver(config=CONFIG)
    driver.become_leader()
    for number in range(entries - 1):
        driver.raft.propose(EntryKind.FRAME, b"%d" % number)
    driver.acknowledge(entries, 1, 2)
    driver.drain()
    return driver


def sent_to(driver: Driver, follower: int) -> list[Message]:
    return [item.message for item in driver.take().send_now if item.destination == follower]


# Compaction


def test_compaction_keeps_the_snapshot_before_it_drops_the_log() -> None:
    """Section 7: the records leave in this order, so that a crash between them loses nothing."""
    driver = leader()
    driver.raft.compact(3, DATA, trailing=1)
    assert driver.take().records == [
        SnapshotRecord(make_snapshot(3, 1, MEMBERSHIP, DATA), restarts_log=False),
        Compact(2, 1),
    ]
    assert [item.index for item in driver.raft.entries_from(1)] == [3, 4]
    assert (driver.raft.last_index, driver.raft.log.term_at(2), driver.raft.log.term_at(1)) == (4, 1, None)
    driver.raft.check_invariants()


def test_only_what_was_applied_is_compacted() -> None:
    driver = leader()
    driver.raft.propose(EntryKind.FRAME, b"not committed")
    with pytest.raises(LocalMisuse, match="between 0 and 4"):
        driver.raft.compact(5, DATA)
    driver.raft.compact(3, DATA)
    with pytest.raises(LocalMisuse, match="between 3 and 4"):
        driver.raft.compact(2, DATA)
    driver.drain()
    driver.raft.compact(3, b"the same index again")
    assert driver.take().empty


def test_a_replica_begins_at_its_snapshot() -> None:
    """Everything up to it is applied; the log goes on after its base."""
    snapshot = make_snapshot(3, 2, MEMBERSHIP, DATA)
    kept = [entry(2, 3), entry(2, 4)]
    raft = Raft(0, VOTERS, 3, random.Random(1), CONFIG, Driver(term=2).raft._writes._handed_hard_state, kept,
                snapshot=snapshot, log_base=(2, 1))  # fmt: skip
    raft.check_invariants()
    assert (raft.commit_index, raft.last_index, raft.log.term_at(2)) == (3, 4, 1)
    raft.step(1, AppendEntries(2, 1, 4, 2, 4, ()), 5)
    assert [item.index for item in raft.take_ready().committed_entries] == [4]


# The leader


def test_a_follower_behind_the_log_is_sent_the_snapshot_in_pieces() -> None:
    driver = leader()
    driver.raft.compact(4, DATA)
    driver.drain()
    snapshot = driver.raft.snapshot
    assert snapshot is not None
    assert driver.raft.status()["followers"][3]["state"] == "probe"
    driver.wait(CONFIG.heartbeat_ns)
    first, second, third = pieces(snapshot, 1)
    [piece] = sent_to(driver, 3)
    assert isinstance(piece, InstallSnapshot) and (piece.offset, piece.chunk) == (0, first.chunk)
    assert driver.raft.status()["followers"][3]["state"] == "snapshot"
    assert sent_to(driver, 3) == []
    driver.step(InstallSnapshotResponse(1, 3, 4, 10, 0))
    [piece] = sent_to(driver, 3)
    assert isinstance(piece, InstallSnapshot) and (piece.offset, piece.chunk) == (10, second.chunk)
    driver.step(InstallSnapshotResponse(1, 3, 4, 10, 0))
    assert sent_to(driver, 3) == []
    driver.wait(CONFIG.heartbeat_ns)
    [piece] = sent_to(driver, 3)
    assert isinstance(piece, InstallSnapshot) and (piece.offset, piece.chunk) == (10, second.chunk)
    driver.step(InstallSnapshotResponse(1, 3, 4, 20, 0))
    [piece] = sent_to(driver, 3)
    assert isinstance(piece, InstallSnapshot) and piece.chunk == third.chunk
    driver.raft.propose(EntryKind.FRAME, b"meanwhile")
    driver.step(AppendEntriesResponse(1, 3, True, 4))
    [append] = sent_to(driver, 3)
    assert isinstance(append, AppendEntries) and [item.index for item in append.entries] == [5]
    assert driver.raft.status()["followers"][3]["state"] == "replicate"


def test_a_snapshot_that_arrived_counts_like_any_match() -> None:
    driver = leader()
    driver.raft.compact(4, DATA)
    driver.raft.propose(EntryKind.FRAME, b"x")
    driver.drain()
    driver.wait(CONFIG.heartbeat_ns)
    driver.drain()
    assert driver.raft.status()["followers"][3]["state"] == "snapshot"
    driver.acknowledge(5, 1)
    assert driver.raft.commit_index == 4
    driver.step(AppendEntriesResponse(1, 3, True, 4))
    driver.step(AppendEntriesResponse(1, 3, True, 5))
    assert driver.raft.commit_index == 5


def test_a_new_connection_ends_the_sending() -> None:
    driver = leader()
    driver.raft.compact(4, DATA)
    driver.drain()
    driver.wait(CONFIG.heartbeat_ns)
    driver.drain()
    assert driver.raft.status()["followers"][3]["state"] == "snapshot"
    driver.raft.peer_connected(3, driver.now_ns)
    assert driver.raft.status()["followers"][3]["state"] == "probe"
    driver.step(InstallSnapshotResponse(1, 3, 4, 10, 0))
    assert driver.raft.ignored["answer to no snapshot"] == 1


# The follower


def test_a_whole_snapshot_replaces_the_log() -> None:
    """Section 7, InstallSnapshot receiver, rules 2 to 8; acknowledged after it is durable."""
    driver = Driver(log_of(1, 1, 2), config=CONFIG)
    snapshot = make_snapshot(5, 3, MEMBERSHIP, DATA)
    first, second, third = pieces(snapshot)
    assert driver.exchange(first) == [InstallSnapshotResponse(3, 0, 5, 10, 0)]
    assert driver.exchange(second) == [InstallSnapshotResponse(3, 0, 5, 20, 0)]
    driver.step(third)
    ready = driver.take()
    assert ready.records == [SnapshotRecord(snapshot, restarts_log=True)]
    assert (ready.snapshot, ready.committed_entries, ready.send_now) == (snapshot, [], [])
    assert [item.message for item in ready.send_after_sync] == [AppendEntriesResponse(3, 0, True, 5)]
    assert (driver.raft.last_index, driver.raft.commit_index, driver.raft.durable_index) == (5, 5, 0)
    driver.raft.persisted(ready)
    assert driver.raft.durable_index == 5
    assert driver.exchange(AppendEntries(3, 1, 5, 3, 6, (entry(3, 6),))) == [AppendEntriesResponse(3, 0, True, 6)]
    assert [item.index for item in driver.committed] == [6]


def test_entries_after_a_snapshot_that_matches_are_kept() -> None:
    """Section 7, InstallSnapshot receiver, rule 6: the log holds its last entry, so there is nothing to replace."""
    driver = Driver(log_of(1, 1, 3, 3), config=CONFIG)
    *_, answer = [driver.exchange(piece) for piece in pieces(make_snapshot(3, 3, MEMBERSHIP, DATA))]
    assert answer == [AppendEntriesResponse(3, 0, True, 3)]
    assert [item.index for item in driver.committed] == [1, 2, 3]
    assert (driver.raft.last_index, driver.raft.snapshot) == (4, None)


def test_a_snapshot_older_than_the_log_takes_nothing_back() -> None:
    """Seeded bug 15."""
    driver = Driver(config=CONFIG)
    driver.exchange(AppendEntries(3, 1, 0, 0, 3, (entry(1, 1), entry(1, 2), entry(1, 3))))
    [first, *_] = pieces(make_snapshot(2, 1, MEMBERSHIP, DATA))
    assert driver.exchange(first) == [AppendEntriesResponse(3, 0, True, 3)]
    assert (driver.raft.last_index, driver.raft.snapshot) == (3, None)


def test_a_damaged_snapshot_is_asked_for_again() -> None:
    """Seeded bug 26."""
    driver = Driver(config=CONFIG)
    snapshot = make_snapshot(5, 3, MEMBERSHIP, DATA)
    first, second, third = pieces(snapshot)
    damaged = InstallSnapshot(3, 1, 5, 3, MEMBERSHIP, snapshot.digest, 25, 10, bytes(10), 0)
    for piece in (first, damaged):
        driver.exchange(piece)
    assert driver.exchange(third) == [InstallSnapshotResponse(3, 0, 5, 0, 0)]
    assert (driver.raft.status()["snapshots_damaged"], driver.raft.snapshot) == (1, None)
    for piece in (first, second, third):
        driver.exchange(piece)
    assert driver.raft.snapshot == snapshot


def test_appends_from_before_the_snapshot_confirm_what_is_committed() -> None:
    """An append that was under way while the snapshot came."""
    driver = Driver(config=CONFIG)
    for piece in pieces(make_snapshot(5, 3, MEMBERSHIP, DATA)):
        driver.exchange(piece)
    late = AppendEntries(3, 1, 2, 1, 5, (entry(3, 3), entry(3, 4)))
    assert driver.exchange(late) == [AppendEntriesResponse(3, 0, True, 5)]


def test_an_open_write_of_the_old_log_makes_nothing_durable() -> None:
    driver = Driver(config=CONFIG)
    driver.step(AppendEntries(3, 1, 0, 0, 0, (entry(1, 1), entry(1, 2))))
    old = driver.take()
    assert isinstance(old.records[-1], LogAppend)
    for piece in pieces(make_snapshot(5, 3, MEMBERSHIP, DATA)):
        driver.step(piece)
    new = driver.take()
    driver.raft.persisted(old)
    assert driver.raft.durable_index == 0
    driver.raft.persisted(new)
    assert driver.raft.durable_index == 5
    driver.raft.check_invariants()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (InstallSnapshot(3, 1, 5, 4, MEMBERSHIP, bytes(32), 25, 0, b"", 0), "malformed snapshot"),
        (InstallSnapshot(3, 1, 5, 3, MEMBERSHIP, bytes(32), 25, 20, bytes(6), 0), "malformed snapshot"),
        (InstallSnapshot(3, 1, 0, 0, MEMBERSHIP, bytes(32), 0, 0, b"", 0), "malformed snapshot"),
        (InstallSnapshot(3, 1, 5, 3, MEMBERSHIP, bytes(32), 2**40, 0, b"", 0), "snapshot too large"),
    ],
)
def test_what_no_honest_leader_sends_is_ignored_and_counted(message: InstallSnapshot, reason: str) -> None:
    driver = Driver(config=CONFIG)
    assert driver.exchange(message) == []
    assert driver.raft.ignored == {reason: 1}


def test_a_leader_of_the_past_is_told() -> None:
    driver = Driver(term=5, config=CONFIG)
    [first, *_] = pieces(make_snapshot(5, 3, MEMBERSHIP, DATA))
    assert driver.exchange(first) == [InstallSnapshotResponse(5, 0, 5, 0, 0)]
    assert driver.raft.leader is None


def test_without_the_switch_no_snapshot_is_taken() -> None:
    """Where the application cannot restore itself from one."""
    driver = Driver()
    [first, *_] = pieces(make_snapshot(5, 3, MEMBERSHIP, DATA))
    assert driver.exchange(first) == []
    assert driver.raft.ignored == {"snapshots are off": 1}


# The parts


@given(st.binary(max_size=60), st.integers(1, 20), st.lists(st.booleans(), max_size=80), st.booleans())
def test_pieces_arrive_whatever_is_lost(data: bytes, size: int, lost: list[bool], forgets: bool) -> None:
    """Any pieces and answers may be lost, and the receiver may lose everything once; the end is the same snapshot."""
    snapshot = make_snapshot(7, 2, MEMBERSHIP, data)
    sending, receiving = Sending(snapshot), Receiving()
    losses = iter(lost)
    received: Snapshot | None = None
    for step in range(500):
        if forgets and step == 5:
            receiving = Receiving()
        chunk = sending.chunk(size)
        piece = InstallSnapshot(3, 1, 7, 2, MEMBERSHIP, snapshot.digest, len(data), sending.offset, chunk, 0)
        if not next(losses, False) and (received := receiving.take(piece)) is not None:
            break
        if not next(losses, False):
            sending.wanted(receiving.offset(snapshot.digest))
    assert received == snapshot and is_intact(received)


def test_a_digest_covers_everything() -> None:
    snapshot = make_snapshot(7, 2, MEMBERSHIP, DATA)
    for other in (
        make_snapshot(8, 2, MEMBERSHIP, DATA),
        make_snapshot(7, 3, MEMBERSHIP, DATA),
        make_snapshot(7, 2, b"", DATA),
        make_snapshot(7, 2, MEMBERSHIP, b""),
    ):
        assert other.digest != snapshot.digest
        assert not is_intact(Snapshot(other.index, other.term, other.membership, snapshot.digest, other.data))
