"""News of the commit index: at once, or with the next entries, but for a while at most."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.machine import ReadResult
from consensus.raft.config import RaftConfig
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse
from protocol.raft_messages import ReadIndex, ReadIndexResponse
from tests.oracles.raft_driver import CONFIG, Driver

MS = 1_000_000
PATIENT = RaftConfig(commit_delay_ns=10 * MS)


def leader(config: RaftConfig) -> Driver:
    """It leads, and followers 1 and 2 have just acknowledged its first entry, which is committed now."""
    driver = Driver(config=config)
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    assert driver.raft.commit_index == 1
    return driver


def news(driver: Driver) -> list[tuple[int, int]]:
    """(commit index, entries) of the appends that leave now."""
    sent = driver.drain()
    return [(message.leader_commit, len(message.entries)) for message in sent if isinstance(message, AppendEntries)]


def test_by_default_it_leaves_at_once() -> None:
    assert news(leader(CONFIG)) == [(1, 0)] * 2


def test_it_rides_on_the_next_entries() -> None:
    driver = leader(PATIENT)
    assert news(driver) == []
    driver.raft.propose(EntryKind.FRAME, b"next")
    assert news(driver) == [(1, 1)] * 2
    driver.wait(10 * MS)
    assert news(driver) == [], "everybody has heard it"


def test_without_entries_it_leaves_when_its_time_has_come() -> None:
    driver = leader(PATIENT)
    assert driver.raft.next_deadline_ns() == driver.now_ns + 10 * MS
    driver.wait(9 * MS)
    assert news(driver) == []
    driver.wait(1 * MS)
    assert news(driver) == [(1, 0)] * 2
    assert news(driver) == []
    deadline_ns = driver.raft.next_deadline_ns()
    assert deadline_ns is not None and deadline_ns > driver.now_ns


def test_a_round_for_a_reader_carries_it() -> None:
    driver = leader(PATIENT)
    news(driver)
    driver.step(ReadIndex(driver.raft.term, 1, 7))
    assert {commit for commit, _ in news(driver)} == {1}


def test_a_reader_under_a_lease_hears_it_at_once() -> None:
    """There is no round then, and the reader waits for what it was told."""
    driver = leader(dataclasses.replace(PATIENT, lease_reads=True))
    driver.wait(CONFIG.heartbeat_ns)
    number = max(message.round for message in driver.drain() if isinstance(message, AppendEntries))
    for follower in (1, 2):
        driver.step(AppendEntriesResponse(driver.raft.term, follower, True, 1, 0, number))
    driver.raft.propose(EntryKind.FRAME, b"second")
    driver.drain()
    driver.acknowledge(2, 1, 2)
    driver.step(ReadIndex(driver.raft.term, 1, 8))
    sent = driver.drain()
    assert [answer.index for answer in sent if isinstance(answer, ReadIndexResponse)] == [2]
    assert [message.leader_commit for message in sent if isinstance(message, AppendEntries)] == [2]


def test_own_reads_need_no_news() -> None:
    driver = Driver(voters=(0,), quorum_size=1, config=PATIENT)
    driver.time_out()
    driver.drain()
    driver.raft.read(3, driver.now_ns)
    assert driver.take().reads == [ReadResult(3, 1)]


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="commit_delay_ns is -1"):
        RaftConfig(commit_delay_ns=-1)
