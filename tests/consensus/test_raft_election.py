"""Elections: figure 2 and sections 5.1, 5.2, 5.4.1 of the Raft paper, pre-vote and check-quorum of the thesis."""

from __future__ import annotations

import random

import pytest

from consensus.machine import BROADCAST, HardState
from consensus.raft.admission import TERM_MAX
from consensus.raft.config import RaftConfig, Role
from consensus.raft.core import Raft
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse, StatusRequest
from tests.oracles.raft_driver import CONFIG, VOTERS, Driver, entry, log_of, vote_request


def test_starts_as_a_silent_follower() -> None:
    """Section 5.2: servers start as followers."""
    driver = Driver()
    assert (driver.raft.role, driver.raft.leader, driver.drain()) == (Role.FOLLOWER, None, [])


def test_asks_to_be_ticked_before_it_knows_the_time() -> None:
    raft = Raft(0, VOTERS, 3, random.Random(1), CONFIG, HardState(0, -1), ())
    assert raft.next_deadline_ns() == 0
    raft.tick(5)
    deadline_ns = raft.next_deadline_ns()
    assert deadline_ns is not None
    assert CONFIG.election_timeout_min_ns <= deadline_ns - 5 <= CONFIG.election_timeout_max_ns


def test_timeouts_are_drawn_anew_and_differ() -> None:
    """Section 5.2: randomised timeouts make split votes rare."""
    deadlines = set()
    for seed in range(20):
        raft = Raft(0, VOTERS, 3, random.Random(seed), CONFIG, HardState(0, -1), ())
        raft.tick(1)
        deadlines.add(raft.next_deadline_ns())
    assert len(deadlines) > 15


def test_pre_vote_changes_neither_term_nor_vote() -> None:
    """Thesis 9.6: a candidate first asks whether it could win. Seeded bug 9: pre-vote bumps the term."""
    driver = Driver(log_of(1, 2))
    driver.wait(CONFIG.election_timeout_max_ns)
    ready = driver.take()
    assert [item.message for item in ready.send_now] == [RequestVote(3, 0, 2, 2, True)]
    assert ready.send_now[0].destination == BROADCAST
    assert (driver.raft.term, driver.raft.role, ready.records) == (2, Role.PRE_CANDIDATE, [])


def test_a_vote_request_waits_for_the_disk() -> None:
    """Figure 2: the term and the vote for itself are persistent, and the request promises both."""
    driver = Driver()
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, True))
    ready = driver.take()
    assert ready.records == [HardState(1, 0)]
    assert ready.send_now == []
    assert [item.message for item in ready.send_after_sync] == [RequestVote(1, 0, 0, 0, False)]


def test_own_vote_counts_only_once_it_is_durable() -> None:
    """Seeded bugs 1 and 2: a vote, or a term, that is not persisted."""
    driver = Driver()
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, True))
    ready = driver.take()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, False))
    assert driver.role() is Role.CANDIDATE
    driver.raft.persisted(ready)
    assert driver.role() is Role.LEADER


def test_a_quorum_larger_than_a_majority_elects() -> None:
    """Five voters with a quorum of four: three votes, a majority, are not enough."""
    driver = Driver(voters=(0, 1, 2, 3, 4), quorum_size=4)
    driver.wait(CONFIG.election_timeout_max_ns)
    for voter in (1, 2, 3):
        driver.step(RequestVoteResponse(1, voter, True, True))
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, False))
    assert driver.role() is Role.CANDIDATE
    driver.step(RequestVoteResponse(1, 3, True, False))
    assert driver.role() is Role.LEADER


def test_a_vote_is_counted_once_per_sender() -> None:
    """Section 5.2: one vote per server. Seeded bug 3: a vote reply counted twice."""
    driver = Driver()
    driver.become_candidate()
    for _ in range(3):
        driver.step(RequestVoteResponse(1, 1, True, False))
    assert driver.role() is Role.CANDIDATE
    assert driver.raft.ignored["vote counted already"] == 2


@pytest.mark.parametrize("pre_vote", [True, False])
def test_votes_of_another_term_or_round_do_not_count(pre_vote: bool) -> None:
    driver = Driver(term=4)
    driver.become_candidate()
    assert driver.raft.term == 5
    late = RequestVoteResponse(5 if pre_vote else 4, 3, True, pre_vote)
    for voter in (1, 2, 3):
        driver.step(RequestVoteResponse(late.term, voter, True, late.pre_vote))
    assert driver.role() is Role.CANDIDATE
    assert driver.raft.ignored["late vote"] == 3


def test_refusals_do_not_elect_and_a_later_grant_counts() -> None:
    driver = Driver()
    driver.wait(CONFIG.election_timeout_max_ns)
    for voter in (1, 2, 3):
        driver.step(RequestVoteResponse(0, voter, False, True))
    assert driver.role() is Role.PRE_CANDIDATE
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, True))
    assert driver.role() is Role.CANDIDATE


def test_requests_are_repeated_while_nobody_wins() -> None:
    """Lost requests must not cost a whole election timeout, and an election without a winner ends in the next one."""
    driver = Driver()
    driver.become_candidate()
    driver.wait(CONFIG.heartbeat_ns)
    assert driver.drain() == [RequestVote(1, 0, 0, 0, False)]
    driver.wait(CONFIG.election_timeout_max_ns)
    assert driver.role() is Role.PRE_CANDIDATE
    assert driver.drain() == [RequestVote(2, 0, 0, 0, True)]
    driver.wait(CONFIG.heartbeat_ns)
    assert driver.drain() == [RequestVote(2, 0, 0, 0, True)]


def test_votes_once_per_term_and_repeats_its_answer() -> None:
    """Figure 2, RequestVote receiver, rule 2: first come, first served."""
    driver = Driver()
    assert driver.exchange(vote_request(1, 1, 0, 0)) == [RequestVoteResponse(1, 0, True, False)]
    assert driver.exchange(vote_request(1, 2, 0, 0)) == [RequestVoteResponse(1, 0, False, False)]
    assert driver.exchange(vote_request(1, 1, 0, 0)) == [RequestVoteResponse(1, 0, True, False)]


def test_remembers_its_vote_across_a_restart() -> None:
    """Seeded bug 1: without the stored vote, one term could have two leaders."""
    driver = Driver(term=7, voted_for=2)
    assert driver.exchange(vote_request(7, 1, 9, 9)) == [RequestVoteResponse(7, 0, False, False)]
    assert driver.exchange(vote_request(7, 2, 0, 0)) == [RequestVoteResponse(7, 0, True, False)]


@pytest.mark.parametrize(
    ("message", "postponed"),
    [
        (AppendEntries(1, 1, 0, 0, 0, ()), True),
        (AppendEntries(1, 1, 9, 1, 0, ()), True),
        (vote_request(2, 1, 0, 0), True),
        (vote_request(2, 1, 0, 0, pre_vote=True), False),
        (AppendEntries(0, 1, 0, 0, 0, ()), False),
    ],
)
def test_a_leader_or_a_vote_postpones_the_own_election(message: AppendEntries | RequestVote, postponed: bool) -> None:
    """Section 5.2: a server stays follower as long as it hears a leader or grants a vote; nothing else counts."""
    driver = Driver(term=1)
    before_ns = driver.raft.next_deadline_ns()
    driver.now_ns += 300_000_000
    driver.step(message)
    assert (driver.raft.next_deadline_ns() != before_ns) is postponed


def test_an_answer_to_a_vote_request_waits_for_the_disk() -> None:
    driver = Driver()
    driver.step(vote_request(1, 1, 0, 0))
    ready = driver.take()
    assert ready.records == [HardState(1, 1)]
    assert (len(ready.send_now), len(ready.send_after_sync)) == (0, 1)


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(2, 3, True), (3, 3, True), (1, 4, True), (1, 3, False), (9, 2, False), (0, 0, False)],
)
@pytest.mark.parametrize("pre_vote", [True, False])
def test_only_a_candidate_with_an_up_to_date_log_is_helped(
    last_index: int, last_term: int, granted: bool, pre_vote: bool
) -> None:
    """Section 5.4.1: later last term wins, then the longer log. Seeded bug 8: election without the log check."""
    driver = Driver(log_of(1, 3))
    [answer] = driver.exchange(vote_request(5, 1, last_index, last_term, pre_vote))
    assert isinstance(answer, RequestVoteResponse)
    assert answer.granted is granted


def test_a_request_of_an_older_term_is_told_the_term() -> None:
    """Figure 2, RequestVote receiver, rule 1; section 5.1."""
    driver = Driver(term=5)
    assert driver.exchange(vote_request(4, 1, 9, 4)) == [RequestVoteResponse(5, 0, False, False)]
    assert driver.exchange(vote_request(5, 1, 9, 4, True)) == [RequestVoteResponse(5, 0, False, True)]


@pytest.mark.parametrize("pre_vote", [True, False])
def test_nobody_unseats_a_leader_that_is_heard(pre_vote: bool) -> None:
    """Thesis 4.2.3: a rejoining server cannot disturb; after a minimum timeout of silence it is heard."""
    driver = Driver()
    driver.follow(1, 1)
    driver.wait(CONFIG.election_timeout_min_ns - 1)
    driver.step(vote_request(9, 2, 5, 5, pre_vote))
    assert (driver.raft.term, driver.raft.leader) == (1, 1)
    assert all(not answer.granted for answer in driver.drain() if isinstance(answer, RequestVoteResponse))
    driver.now_ns += 1
    [answer] = driver.exchange(vote_request(9, 2, 5, 5, pre_vote))
    assert isinstance(answer, RequestVoteResponse)
    assert answer.granted


def test_a_leader_steps_down_without_a_quorum() -> None:
    """Thesis 6.2, check-quorum. Seeded bug 10: a leader that does not step down."""
    driver = Driver()
    driver.become_leader()
    for _ in range(40):
        driver.wait(CONFIG.heartbeat_ns)
        driver.drain()
        driver.acknowledge(1, 3)
    assert driver.raft.quorum_losses == 1
    assert driver.role() is not Role.LEADER
    assert driver.raft.propose(EntryKind.FRAME, b"late") is None


def test_a_leader_stays_while_a_quorum_answers() -> None:
    driver = Driver()
    driver.become_leader()
    for _ in range(60):
        driver.wait(CONFIG.heartbeat_ns)
        driver.drain()
        driver.acknowledge(1, 2, 3)
    assert (driver.raft.role, driver.raft.term) == (Role.LEADER, 1)


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(8, 2, 0, 0, 0, ()),
        AppendEntriesResponse(8, 2, False, 0),
        RequestVoteResponse(8, 2, False, False),
        RequestVoteResponse(8, 2, False, True),
    ],
)
@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_a_later_term_makes_a_follower(
    message: AppendEntries | AppendEntriesResponse | RequestVoteResponse, role: Role
) -> None:
    """Figure 2, rules for all servers; section 5.1."""
    driver = Driver()
    if role is Role.CANDIDATE:
        driver.become_candidate()
    elif role is Role.LEADER:
        driver.become_leader()
    driver.step(message)
    assert (driver.raft.role, driver.raft.term) == (Role.FOLLOWER, 8)
    assert driver.take().records[0] == HardState(8, -1)


def test_a_candidate_follows_the_leader_of_its_term() -> None:
    """Section 5.2: another server establishes itself as leader."""
    driver = Driver()
    driver.become_candidate()
    driver.follow(2, 1)
    assert driver.role() is Role.FOLLOWER


def test_a_new_leader_adds_an_entry_of_its_term() -> None:
    """Section 5.4.2 and 8: older entries are committed only under one of the new term."""
    driver = Driver(log_of(1))
    driver.become_leader()
    assert driver.raft.entries_from(2) == [entry(2, 2, kind=EntryKind.NOOP)]


def test_messages_under_a_false_name_are_ignored_and_counted() -> None:
    driver = Driver()
    driver.become_candidate()
    driver.step(RequestVoteResponse(1, 2, True, False), sender=1)
    driver.step(RequestVoteResponse(1, 9, True, False))
    driver.step(RequestVoteResponse(1, 0, True, False))
    driver.step(RequestVoteResponse(TERM_MAX + 1, 1, False, False))
    driver.raft.step(1, StatusRequest(1, 0), driver.now_ns)
    assert driver.role() is Role.CANDIDATE
    assert driver.raft.status()["votes"] == [0]
    assert driver.raft.ignored == {
        "sender is not who it claims": 1,
        "sender is no other voter": 2,
        "term out of range": 1,
        "no raft message": 1,
    }


def test_one_voter_alone_elects_itself_and_commits() -> None:
    driver = Driver(voters=(0,), quorum_size=1)
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    assert driver.raft.propose(EntryKind.FRAME, b"alone") == 2
    assert driver.drain() == []
    assert [item.payload for item in driver.committed] == [b"", b"alone"]


@pytest.mark.parametrize(
    ("voters", "quorum_size", "mend"),
    [((1, 2, 3), 2, "must be one of"), ((0, 0, 1), 2, "named once"), (VOTERS, 2, "use a majority"), (VOTERS, 5, "all")],
)
def test_a_wrong_set_of_voters_is_our_own_mistake(voters: tuple[int, ...], quorum_size: int, mend: str) -> None:
    with pytest.raises(LocalMisuse, match=mend):
        Driver(voters=voters, quorum_size=quorum_size)


def test_stored_state_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LocalMisuse, match="does not fit"):
        Driver(log_of(3), term=2)
    with pytest.raises(LocalMisuse, match="applied 2"):
        Raft(0, VOTERS, 3, random.Random(1), CONFIG, HardState(1, -1), log_of(1), applied_index=2)


@pytest.mark.parametrize(
    "name",
    [
        "entries_per_append_max",
        "bytes_per_append_max",
        "inflight_appends_max",
        "inflight_bytes_max",
        "uncommitted_bytes_max",
        "committed_bytes_per_ready_max",
    ],
)
def test_limits_must_let_something_through(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0: use at least 1"):
        RaftConfig(**{name: 0})
    with pytest.raises(ValueError, match="larger than the one before"):
        RaftConfig(heartbeat_ns=500_000_000)
