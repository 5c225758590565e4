"""Leadership transfer: thesis, section 3.10."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.raft.config import Role
from consensus.raft.transfer import TRANSFER
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from protocol.raft_messages import TimeoutNow
from tests.oracles.raft_driver import CONFIG, Driver, log_of

LEASE = dataclasses.replace(CONFIG, lease_reads=True)


def leader(lease: bool = False) -> Driver:
    driver = Driver(config=LEASE if lease else CONFIG)
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    return driver


def requests(driver: Driver) -> list[int]:
    """To whom a request to stand now leaves."""
    return [item.destination for item in driver.take().send_now if isinstance(item.message, TimeoutNow)]


def test_the_target_is_asked_once_it_holds_the_whole_log() -> None:
    """Thesis 3.10, step 2. Asked earlier it would lose the election, or win it and lose entries' time."""
    driver = leader()
    assert driver.raft.transfer_leadership(3, driver.now_ns) is None
    assert requests(driver) == []
    driver.acknowledge(1, 3)
    assert requests(driver) == [3]


def test_proposals_are_refused_meanwhile() -> None:
    """Thesis 3.10, step 1."""
    driver = leader()
    driver.raft.transfer_leadership(1, driver.now_ns)
    assert driver.raft.propose(EntryKind.FRAME, b"x") is None
    assert driver.raft.status()["proposals_refused"] == {"leadership transfer": 1}


def test_the_request_is_repeated_and_given_up_after_an_election_timeout() -> None:
    driver = leader()
    started_ns = driver.now_ns
    driver.raft.transfer_leadership(1, driver.now_ns)
    assert requests(driver) == [1]
    while driver.raft.status()["transferee"] is not None:
        driver.acknowledge(1, 1, 2, 3)
        driver.wait(CONFIG.heartbeat_ns)
        still = driver.raft.status()["transferee"] is not None
        assert requests(driver) == ([1] if still else [])
    assert 0 <= driver.now_ns - started_ns - CONFIG.election_timeout_max_ns <= CONFIG.heartbeat_ns
    assert driver.raft.status()["transfers_abandoned"] == 1
    assert driver.raft.propose(EntryKind.FRAME, b"x") == 2


def test_a_transfer_ends_in_time_however_many_reads_begin_rounds() -> None:
    """Rounds for reads replaced the heartbeats, and with them the clock by which a lost request is repeated and a
    transfer given up: under a steady load of reads the leader refused proposals for good (thesis 3.10)."""
    driver = leader()
    started_ns = driver.now_ns
    driver.raft.transfer_leadership(1, driver.now_ns)
    assert requests(driver) == [1]
    while driver.raft.status()["transferee"] is not None:
        assert driver.now_ns - started_ns <= CONFIG.election_timeout_max_ns + CONFIG.heartbeat_ns
        driver.raft.read(1, driver.now_ns)
        for item in driver.take().send_now:
            if isinstance(item.message, AppendEntries):
                driver.step(AppendEntriesResponse(1, item.destination, True, 1, 0, item.message.round))
        driver.wait(CONFIG.heartbeat_ns // 5)
    assert driver.raft.propose(EntryKind.FRAME, b"x") == 2


def test_only_a_leader_hands_over_and_only_to_another_voter() -> None:
    assert Driver().raft.transfer_leadership(1, 5) == "not the leader"
    driver = leader()
    assert driver.raft.transfer_leadership(0, driver.now_ns) == "no other voter"
    assert driver.raft.transfer_leadership(9, driver.now_ns) == "no other voter"
    assert driver.raft.transfer_leadership(1, driver.now_ns) is None
    assert driver.raft.transfer_leadership(2, driver.now_ns) == "leadership transfer"


def test_the_target_stands_at_once_and_says_who_wants_it() -> None:
    """Thesis 3.10, step 3: a new term, without waiting and without a pre-vote."""
    driver = Driver(log_of(1))
    driver.follow(1, 1)
    assert driver.exchange(TimeoutNow(1, 1)) == [RequestVote(2, 0, 1, 1, False, True)]
    assert driver.role() is Role.CANDIDATE
    driver.wait(CONFIG.heartbeat_ns)
    assert driver.drain() == [RequestVote(2, 0, 1, 1, False, True)]


def test_an_election_after_a_failed_one_is_nobodys_wish_any_more() -> None:
    driver = Driver(log_of(1))
    driver.follow(1, 1)
    driver.exchange(TimeoutNow(1, 1))
    driver.wait(CONFIG.election_timeout_max_ns)
    assert driver.drain() == [RequestVote(3, 0, 1, 1, True, False)]
    for voter in (1, 2):
        driver.step(RequestVoteResponse(3, voter, True, True))
    assert driver.drain() == [RequestVote(3, 0, 1, 1, False, False)]


@pytest.mark.parametrize("message", [TimeoutNow(0, 1), TimeoutNow(2, 1), TimeoutNow(1, 2)])
def test_a_late_request_moves_nobody(message: TimeoutNow) -> None:
    driver = Driver(log_of(1))
    driver.follow(1, 1)
    assert driver.exchange(message) == []
    assert driver.raft.ignored == {"late request to take over": 1}


def test_voters_help_although_they_hear_their_leader() -> None:
    """Thesis 4.2.3: the protection of a working leader must not stop what that leader wants."""
    driver = Driver(log_of(1))
    driver.follow(1, 1)
    assert driver.exchange(RequestVote(2, 2, 1, 1, False)) == []
    assert driver.exchange(RequestVote(2, 2, 1, 1, False, True)) == [RequestVoteResponse(2, 0, True, False)]


def test_the_leader_itself_votes_for_its_successor() -> None:
    driver = leader()
    driver.raft.transfer_leadership(1, driver.now_ns)
    driver.drain()
    assert driver.exchange(RequestVote(2, 1, 1, 1, False, True)) == [RequestVoteResponse(2, 0, True, False)]
    assert driver.role() is Role.FOLLOWER


def test_a_leader_that_asked_has_no_lease_for_the_rest_of_its_term() -> None:
    """Seeded bug 11: the request may arrive at any time, also after the transfer was given up."""
    driver = leader(lease=True)

    def heartbeat() -> None:
        driver.wait(LEASE.heartbeat_ns)
        driver.drain()
        for follower in (1, 2, 3):
            number = driver.raft.status()["followers"][follower]["round"] + 1
            driver.step(AppendEntriesResponse(1, follower, True, 1, 0, number))

    heartbeat()
    driver.raft.read(1, driver.now_ns)
    assert [result.request for result in driver.take().reads] == [1]
    driver.raft.transfer_leadership(1, driver.now_ns)
    assert requests(driver) == [1]
    while driver.raft.status()["transferee"] is not None:
        heartbeat()
    driver.drain()
    driver.raft.read(2, driver.now_ns)
    assert driver.take().reads == []


def test_who_stops_hands_over_to_the_voter_that_is_the_furthest() -> None:
    driver = Driver(log_of(1, 1))
    driver.become_leader()
    driver.acknowledge(2, 1)
    driver.acknowledge(3, 2)
    assert driver.raft.hand_over(driver.now_ns) == 2
    sent = driver.drain()
    assert [type(message) for message in sent if isinstance(message, TimeoutNow)] == [TimeoutNow]
    assert driver.raft.proposal_refusal(0) == TRANSFER
    assert driver.raft.hand_over(driver.now_ns) is None, "it is under way"


def test_nobody_to_hand_over_to() -> None:
    driver = Driver()
    assert driver.raft.hand_over(driver.now_ns) is None, "a follower has nothing to hand over"
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.now_ns += CONFIG.election_timeout_min_ns + 1
    assert driver.raft.hand_over(driver.now_ns) is None, "all are silent"
    assert driver.raft.proposal_refusal(0) is None
