"""Linearizable reads: thesis, section 6.4. ReadIndex on leader and follower, and reads under a lease."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.machine import ReadResult
from consensus.raft.config import RaftConfig
from consensus.raft.rounds import ROUNDS_UNDER_WAY_MAX, Rounds
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from protocol.raft_messages import ReadIndex, ReadIndexResponse
from tests.oracles.raft_driver import CONFIG, Driver, log_of

LEASE = dataclasses.replace(CONFIG, lease_reads=True)
MILLISECOND_NS = 1_000_000


def leader(config: RaftConfig = CONFIG) -> Driver:
    """Has committed its first entry, and every follower echoed round 0 only."""
    driver = Driver(config=config)
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    return driver


def echo(driver: Driver, number: int, *followers: int) -> None:
    for follower in followers:
        last = driver.raft.last_index
        driver.step(AppendEntriesResponse(driver.raft.term, follower, True, last, 0, number))


def results(driver: Driver) -> list[ReadResult]:
    """Drains; the results are also what a shell would see."""
    seen: list[ReadResult] = []
    while not (ready := driver.take()).empty:
        seen += ready.reads
        driver.raft.persisted(ready)
    return seen


def test_a_read_waits_for_a_round_that_began_after_it() -> None:
    """Thesis 6.4, step 3. An echo of an older round proves nothing about now."""
    driver = leader()
    driver.wait(CONFIG.heartbeat_ns)
    driver.drain()
    driver.raft.read(7, driver.now_ns)
    [first, *_] = driver.take().send_now
    assert isinstance(first.message, AppendEntries) and first.message.round == 2
    echo(driver, 1, 1, 2, 3)
    assert results(driver) == []
    echo(driver, 2, 1)
    assert results(driver) == []
    echo(driver, 2, 2)
    assert results(driver) == [ReadResult(7, 1)]


def test_no_read_before_the_first_entry_of_the_term_commits() -> None:
    """Thesis 6.4, step 1. Seeded bug 12: ReadIndex before the no-op commits."""
    driver = Driver(log_of(1, 1))
    driver.become_leader()
    driver.raft.read(7, driver.now_ns)
    driver.drain()
    assert driver.raft.status()["reads_open"] == 1
    driver.acknowledge(3, 1, 2)
    driver.drain()
    echo(driver, 1, 1, 2)
    assert results(driver) == [ReadResult(7, 3)]


def test_a_refusal_echoes_the_round_too() -> None:
    """A follower that lacks entries still follows."""
    driver = Driver()
    driver.follow(1, 1)
    assert driver.exchange(AppendEntries(1, 1, 5, 1, 0, (), 9)) == [AppendEntriesResponse(1, 0, False, 0, 0, 9)]
    assert driver.exchange(AppendEntries(1, 1, 0, 0, 0, (), 10)) == [AppendEntriesResponse(1, 0, True, 0, 0, 10)]


def test_reads_share_rounds_and_rounds_are_bounded() -> None:
    driver = leader()
    for number in range(100):
        driver.raft.read(number, driver.now_ns)
        driver.take()
    assert driver.raft.status()["reads_open"] == 100
    driver.raft.check_invariants()
    echo(driver, ROUNDS_UNDER_WAY_MAX, 1, 2)
    assert [result.request for result in results(driver)] == list(range(ROUNDS_UNDER_WAY_MAX))
    echo(driver, ROUNDS_UNDER_WAY_MAX + 1, 1, 2)
    assert [result.request for result in results(driver)] == list(range(ROUNDS_UNDER_WAY_MAX, 100))


def test_a_follower_asks_the_leader_once_for_all_its_readers() -> None:
    driver = Driver()
    driver.follow(1, 1)
    driver.raft.read(7, driver.now_ns)
    driver.raft.read(8, driver.now_ns)
    [question] = driver.drain()
    assert isinstance(question, ReadIndex) and (question.term, question.replica) == (1, 0)
    driver.step(ReadIndexResponse(1, 2, question.request, True, 5))
    assert results(driver) == []
    assert driver.raft.ignored["answer to no read"] == 1
    driver.step(ReadIndexResponse(1, 1, question.request, True, 5))
    assert results(driver) == [ReadResult(7, 5), ReadResult(8, 5)]
    driver.step(ReadIndexResponse(1, 1, question.request, True, 9))
    assert results(driver) == []


def test_an_answer_to_an_earlier_life_is_no_answer() -> None:
    """Its index is from before the read began."""
    first, second = Driver(seed=1), Driver(seed=2)
    for driver in (first, second):
        driver.follow(1, 1)
        driver.raft.read(7, driver.now_ns)
    [one], [other] = first.drain(), second.drain()
    assert isinstance(one, ReadIndex) and isinstance(other, ReadIndex) and one.request != other.request


def test_a_leader_answers_followers() -> None:
    driver = leader()
    driver.exchange(ReadIndex(1, 3, 77))
    echo(driver, 1, 1, 2)
    assert driver.drain() == [ReadIndexResponse(1, 0, 77, True, 1)]


def test_who_does_not_lead_says_so() -> None:
    driver = Driver()
    assert driver.exchange(ReadIndex(0, 3, 77)) == [ReadIndexResponse(0, 0, 77, False, 0)]
    driver = leader()
    assert driver.exchange(ReadIndex(4, 3, 77)) == [ReadIndexResponse(4, 0, 77, False, 0)]
    driver.raft.read(7, driver.now_ns)
    assert results(driver) == [ReadResult(7, None, "no leader")]


def test_lost_leadership_refuses_what_it_cannot_confirm() -> None:
    driver = leader()
    driver.exchange(ReadIndex(1, 3, 77))
    driver.raft.read(7, driver.now_ns)
    driver.take()
    driver.step(AppendEntriesResponse(5, 1, False, 0))
    ready = driver.take()
    assert ready.reads == [ReadResult(7, None, "leadership lost")]
    assert [item.message for item in ready.send_now] == [ReadIndexResponse(1, 0, 77, False, 0)]


def test_a_read_without_an_answer_ends() -> None:
    driver = Driver()
    driver.follow(1, 1)
    driver.raft.read(7, driver.now_ns)
    driver.drain()
    for _ in range(2):
        driver.wait(CONFIG.election_timeout_max_ns // 3)
        driver.follow(1, 1)
    driver.time_out()
    assert driver.now_ns == 1_000_000_000 + CONFIG.election_timeout_max_ns
    assert results(driver) == [ReadResult(7, None, "no answer in time")]


def test_open_reads_are_bounded() -> None:
    config = dataclasses.replace(CONFIG, reads_open_max=2)
    driver = leader(config)
    for number in range(3):
        driver.raft.read(number, driver.now_ns)
    assert results(driver) == [ReadResult(2, None, "too many reads")]
    assert driver.exchange(ReadIndex(1, 3, 77)) == [ReadIndexResponse(1, 0, 77, False, 0)]


def test_a_round_not_begun_is_no_echo() -> None:
    driver = leader()
    echo(driver, 5, 1, 2, 3)
    assert driver.raft.ignored["round not begun"] == 3


# Leases


def test_a_lease_runs_from_when_the_round_was_sent() -> None:
    """Seeded bug 47: measured from when the answers came, a lease would outlive the followers' promises."""
    driver = leader(LEASE)
    driver.wait(LEASE.heartbeat_ns)
    sent_ns = driver.now_ns
    driver.drain()
    driver.raft.tick(sent_ns + 40 * MILLISECOND_NS)
    echo(driver, 1, 1, 2)
    driver.raft.read(7, sent_ns + LEASE.lease_ns - 1)
    assert driver.take().reads == [ReadResult(7, 1)]
    driver.raft.read(8, sent_ns + LEASE.lease_ns)
    assert driver.take().reads == []


def test_a_lease_ends_before_any_promise_does() -> None:
    """By a leader's clock that is slow and a follower's that is fast, each by the bound."""
    slow, fast = 1_000_000 - LEASE.clock_drift_ppm, 1_000_000 + LEASE.clock_drift_ppm
    assert LEASE.lease_ns * fast <= LEASE.election_timeout_min_ns * slow
    assert (LEASE.lease_ns + 1) * fast > LEASE.election_timeout_min_ns * slow


def test_a_quorum_must_have_echoed() -> None:
    driver = leader(LEASE)
    driver.wait(LEASE.heartbeat_ns)
    driver.drain()
    echo(driver, 1, 1)
    driver.raft.read(7, driver.now_ns)
    assert driver.take().reads == []


def test_without_the_switch_there_is_no_lease() -> None:
    driver = leader()
    driver.wait(CONFIG.heartbeat_ns)
    driver.drain()
    echo(driver, 1, 1, 2, 3)
    driver.raft.read(7, driver.now_ns)
    assert driver.take().reads == []


def test_a_new_life_keeps_the_promise_of_the_last() -> None:
    """A lease may rest on it. A replica that never took part has promised nothing."""
    for term, helps_at_once in ((1, False), (0, True)):
        driver = Driver(term=term, config=LEASE)
        request = RequestVote(term + 1, 2, 0, 0, True)
        [answer] = driver.exchange(request)
        assert answer.granted is helps_at_once  # type: ignore[attr-defined]
        driver.now_ns += LEASE.election_timeout_min_ns
        [answer] = driver.exchange(request)
        assert answer.granted is True  # type: ignore[attr-defined]


def test_a_promise_outlives_the_leaders_term() -> None:
    """News of a later term must not set a follower free: the leader that it heard may hold a lease on it."""
    driver = Driver(config=LEASE)
    driver.follow(1, 1)
    driver.step(AppendEntriesResponse(4, 2, False, 0))
    assert (driver.raft.term, driver.raft.leader) == (4, None)
    driver.exchange(RequestVote(5, 2, 0, 0, False))
    assert driver.raft.ignored["leader is alive"] == 1


def test_a_promise_outlives_the_leaders_term_also_in_the_term_of_the_news() -> None:
    """Found by the simulator, seed 480934: the refusal of a pre-vote brought a follower into a candidate's term, and
    the vote in that very term was given while the old leader held its lease."""
    driver = Driver(config=LEASE)
    driver.follow(1, 1)
    driver.step(AppendEntriesResponse(4, 2, False, 0))
    request = RequestVote(4, 2, 0, 0, False)
    assert driver.exchange(request) == [RequestVoteResponse(4, 0, False, False)]
    driver.now_ns += LEASE.election_timeout_min_ns
    assert driver.exchange(request) == [RequestVoteResponse(4, 0, True, False)]
    assert driver.exchange(request) == [RequestVoteResponse(4, 0, True, False)]


def test_rounds_remember_only_what_may_still_count() -> None:
    rounds = Rounds(5)
    assert rounds.lease_start_ns() is None
    for now_ns in (10, 20, 30):
        rounds.begin(now_ns)
    rounds.confirm(2)
    assert (rounds.lease_start_ns(), rounds.under_way) == (20, 1)
    rounds.confirm(1)
    assert rounds.lease_start_ns() == 20


def test_clocks_that_drift_by_everything_carry_no_lease() -> None:
    with pytest.raises(ValueError, match="clock_drift_ppm"):
        RaftConfig(clock_drift_ppm=1_000_000)


def test_one_voter_alone_answers_at_once() -> None:
    driver = Driver(voters=(0,), quorum_size=1)
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    driver.raft.propose(EntryKind.FRAME, b"x")
    driver.drain()
    driver.raft.read(7, driver.now_ns)
    assert results(driver) == [ReadResult(7, 2)]
