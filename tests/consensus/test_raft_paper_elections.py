"""Sections 5.1, 5.2, 5.4.1, 5.5 and 5.6 of the Raft paper, sentence by sentence: terms, elections, who may win, crashes
and time. Many are held by tests of the machine's parts, named here; what they leave over is tested below."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.machine import HardState, LogAppend
from consensus.raft.admission import RaftMessage
from consensus.raft.config import RaftConfig, Role
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse
from tests.oracles.paper_rules import check_rules
from tests.oracles.raft_driver import CONFIG, Driver, entry, log_of, vote_request

OWN: Final = "test_raft_paper_elections.py"
FIGURE_2: Final = "test_raft_paper_figure2.py"
ELECTION: Final = "test_raft_election.py"
REPLICATION: Final = "test_raft_replication.py"
SCENARIO: Final = "test_raft_scenarios.py::test_scenario"
SIMULATION: Final = "../sim/test_sim.py::test_safe_under_faults_and_live_after_them"

RULES: dict[str, str] = {
    "5.1, a quorum that is alive is enough": f"{SCENARIO}[raft_leader_crash]",
    "5.1, followers are passive": f"{OWN}::test_a_follower_says_nothing_unasked",
    "5.1, only the leader takes commands": f"{REPLICATION}::test_a_proposal_to_another_replica_is_refused_at_once",
    "5.1, terms are consecutive": f"{OWN}::test_terms_follow_each_other",
    "5.1, at most one leader in a term": SIMULATION,
    "5.1, a term may end without a leader": f"{OWN}::test_a_split_vote_ends_the_term_without_a_leader",
    "5.1, terms never fall": f"{OWN}::test_a_term_never_falls",
    "5.1, every message carries the term": f"{OWN}::test_every_message_carries_the_term",
    "5.1, a smaller term is brought up to the larger": f"{ELECTION}::test_a_later_term_makes_a_follower",
    "5.1, candidates and leaders of the past step down": f"{ELECTION}::test_a_later_term_makes_a_follower",
    "5.1, a request of an older term is refused": f"{OWN}::test_a_request_of_an_older_term_changes_nothing",
    "5.1, requests are repeated": f"{ELECTION}::test_requests_are_repeated_while_nobody_wins",
    "5.1, requests leave in parallel": f"{REPLICATION}::test_entries_leave_before_the_own_write_is_done",
    "5.2, servers begin as followers": f"{ELECTION}::test_starts_as_a_silent_follower",
    "5.2, a valid request keeps a follower": f"{ELECTION}::test_a_leader_or_a_vote_postpones_the_own_election",
    "5.2, leaders send heartbeats": f"{FIGURE_2}::test_an_idle_leader_repeats_its_heartbeat",
    "5.2, silence begins an election": f"{FIGURE_2}::test_a_follower_that_hears_nobody_stands",
    "5.2, pre-vote: nothing changes before it could win": f"{ELECTION}::test_pre_vote_changes_neither_term_nor_vote",
    "5.2, a candidate stays one until one of three things": f"{OWN}::test_refused_votes_leave_a_candidate",
    "5.2, a quorum of one term's votes wins": f"{ELECTION}::test_votes_of_another_term_or_round_do_not_count",
    "5.2, the own vote comes from the disk": f"{OWN}::test_an_earlier_write_does_not_bring_the_own_vote",
    "5.2, no answer overtakes a write": f"{REPLICATION}::test_an_acknowledgement_never_overtakes_an_earlier_write",
    "5.2, one vote for each voter": f"{ELECTION}::test_a_vote_is_counted_once_per_sender",
    "5.2, one vote in each term": f"{ELECTION}::test_votes_once_per_term_and_repeats_its_answer",
    "5.2, a winner says so at once": f"{FIGURE_2}::test_a_new_leader_tells_everybody_at_once",
    "5.2, a candidate yields to a leader of its term": f"{ELECTION}::test_a_candidate_follows_the_leader_of_its_term",
    "5.2, and not to one of the past": f"{OWN}::test_a_candidate_does_not_yield_to_a_leader_of_the_past",
    "5.2, a split vote leads to another election": f"{OWN}::test_a_split_vote_ends_the_term_without_a_leader",
    "5.2, timeouts are random": f"{ELECTION}::test_timeouts_are_drawn_anew_and_differ",
    "5.2, each election has another timeout": f"{FIGURE_2}::test_a_candidate_draws_its_timeout_anew",
    "5.4.1, a voter with a better log refuses": f"{ELECTION}::test_only_a_candidate_with_an_up_to_date_log_is_helped",
    "5.4.1, logs are compared by their last entries": f"{OWN}::test_logs_are_compared_by_term_and_then_by_length",
    "5.4.1, who wins holds what is committed": f"{OWN}::test_whoever_wins_holds_what_is_committed",
    "5.5, a leader goes on asking who does not answer": f"{OWN}::test_a_silent_follower_is_asked_for_ever",
    "5.5, a follower that restarts takes part again": f"{SCENARIO}[raft_leader_crash]",
    "5.5, a repeated append is harmless": f"{OWN}::test_an_append_may_come_twice",
    "5.5, a repeated vote request is harmless": f"{OWN}::test_a_vote_request_may_come_twice",
    "5.5, a candidate that crashes keeps its promise": f"{OWN}::test_a_candidate_that_crashes_votes_for_nobody_else",
    "5.6, safety does not rest on time": SIMULATION,
    "5.6, heartbeats are faster than elections": f"{ELECTION}::test_limits_must_let_something_through",
    "5.6, a leader that is heard stays": f"{ELECTION}::test_a_leader_stays_while_a_quorum_answers",
    "5.6, check-quorum: one that is not heard goes": f"{ELECTION}::test_a_leader_steps_down_without_a_quorum",
}


def test_every_rule_has_its_test() -> None:
    check_rules(RULES, OWN)


# Terms


def test_a_follower_says_nothing_unasked() -> None:
    """Section 5.1: as long as it hears its leader it sends nothing of its own, only answers."""
    driver = Driver()
    driver.follow(1, 1)
    for _ in range(30):
        driver.wait(CONFIG.heartbeat_ns)
        assert driver.drain() == []
        assert len(driver.exchange(AppendEntries(1, 1, 0, 0, 0, ()))) == 1


def test_terms_follow_each_other() -> None:
    """Section 5.1: each election begins the next term, and pre-votes begin none."""
    driver, terms = Driver(term=3), []
    for _ in range(3):
        driver.become_candidate()
        terms.append(driver.raft.term)
        while driver.role() is not Role.PRE_CANDIDATE:
            driver.time_out()
        driver.drain()
        assert driver.raft.term == terms[-1]
    assert terms == [4, 5, 6]


def test_a_split_vote_ends_the_term_without_a_leader() -> None:
    """Sections 5.1 and 5.2: two of four votes each. The timeout ends the term, and the next one has a leader."""
    driver = Driver()
    driver.become_candidate()
    driver.step(RequestVoteResponse(1, 1, True, False))
    for rival in (2, 3):
        driver.step(RequestVoteResponse(1, rival, False, False))
    assert driver.role() is Role.CANDIDATE
    while driver.role() is Role.CANDIDATE:
        driver.time_out()
    driver.become_leader()
    assert driver.raft.term == 2


@given(st.lists(st.tuples(st.sampled_from(("append", "request", "pre-vote", "vote", "wait")), st.integers(0, 9))))
def test_a_term_never_falls(steps: list[tuple[str, int]]) -> None:
    """Section 5.1: neither on the disk nor in memory, whatever comes."""
    driver = Driver(term=4)
    seen = [4]
    for verb, term in steps:
        if verb == "append":
            driver.step(AppendEntries(term, 1 + term % 3, 0, 0, 0, ()))
        elif verb == "vote":
            driver.step(RequestVoteResponse(term, 1, False, False))
        elif verb == "wait":
            driver.wait(term * CONFIG.heartbeat_ns * 4)
        else:
            driver.step(vote_request(term, 1 + term % 3, 0, 0, verb == "pre-vote"))
        records = driver.take().records
        seen += [record.term for record in records if isinstance(record, HardState)]
        assert driver.raft.term == seen[-1]
    assert seen == sorted(seen)


def test_every_message_carries_the_term() -> None:
    """Section 5.1: so that whoever is behind learns of it. Beyond the paper: a pre-vote names the term it would be."""
    driver = Driver(log_of(5))
    driver.wait(CONFIG.election_timeout_max_ns)
    [asked] = driver.drain()
    assert isinstance(asked, RequestVote) and (asked.pre_vote, asked.term, driver.raft.term) == (True, 6, 5)
    driver.become_leader()
    driver.wait(CONFIG.heartbeat_ns)
    driver.step(vote_request(5, 1, 0, 0))
    driver.step(AppendEntries(5, 1, 0, 0, 0, ()))
    sent = driver.drain()
    assert len(sent) == 5
    assert all(message.term == 6 for message in sent if isinstance(message, RaftMessage))


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AppendEntries(4, 2, 1, 1, 1, (entry(4, 2),)), AppendEntriesResponse(5, 0, False, 0)),
        (RequestVote(4, 2, 9, 4, False), RequestVoteResponse(5, 0, False, False)),
        (RequestVote(5, 2, 9, 4, True), RequestVoteResponse(5, 0, False, True)),
        (InstallSnapshot(4, 2, 9, 4, b"", bytes(32), 1, 0, b"x", 0), InstallSnapshotResponse(5, 0, 9, 0, 0)),
    ],
)
def test_a_request_of_an_older_term_changes_nothing(message: RaftMessage, answer: RaftMessage) -> None:
    """Section 5.1: it is refused, and the refusal tells the term."""
    driver = Driver(log_of(1), term=5, config=RaftConfig(snapshots=True))
    before, deadline_ns = driver.raft.status(), driver.raft.next_deadline_ns()
    driver.now_ns += 1000
    assert driver.exchange(message) == [answer]
    assert driver.raft.status() | {"ignored": {}} == before
    assert driver.raft.next_deadline_ns() == deadline_ns


# Elections


def test_refused_votes_leave_a_candidate() -> None:
    """Section 5.2: only a quorum, another leader or time ends it."""
    driver = Driver()
    driver.become_candidate()
    for voter in (1, 2, 3):
        driver.step(RequestVoteResponse(1, voter, False, False))
    assert (driver.role(), driver.raft.term) == (Role.CANDIDATE, 1)


def test_an_earlier_write_does_not_bring_the_own_vote() -> None:
    """Section 5.2, beyond the paper: writes overlap. A candidate has its own vote once the write that holds it is
    done; the end of one from an earlier term says nothing."""
    driver = Driver()
    driver.step(vote_request(1, 1, 0, 0))
    earlier = driver.take()
    driver.wait(CONFIG.election_timeout_max_ns)
    for voter in (1, 2):
        driver.step(RequestVoteResponse(2, voter, True, True))
    own = driver.take()
    assert own.records == [HardState(2, 0)]
    driver.raft.persisted(earlier)
    assert driver.raft.status()["votes"] == []
    driver.raft.persisted(own)
    assert driver.raft.status()["votes"] == [0]


def test_a_candidate_does_not_yield_to_a_leader_of_the_past() -> None:
    """Section 5.2: what a smaller term sends is refused, and the election goes on."""
    driver = Driver(term=4)
    driver.become_candidate()
    assert driver.exchange(AppendEntries(4, 2, 0, 0, 0, ())) == [AppendEntriesResponse(5, 0, False, 0)]
    assert (driver.role(), driver.raft.leader) == (Role.CANDIDATE, None)


LOGS = st.lists(st.integers(1, 3), max_size=4).map(sorted)


@given(LOGS, LOGS)
def test_logs_are_compared_by_term_and_then_by_length(own: list[int], other: list[int]) -> None:
    """Section 5.4.1: the later last term wins, and of equal ones the longer log. Equal logs help each other."""
    driver = Driver(log_of(*own))
    last_term = other[-1] if other else 0
    [answer] = driver.exchange(vote_request(9, 1, len(other), last_term))
    assert isinstance(answer, RequestVoteResponse)
    own_term = own[-1] if own else 0
    assert answer.granted == (last_term > own_term or (last_term == own_term and len(other) >= len(own)))


@given(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.integers(0, 6))
def test_whoever_wins_holds_what_is_committed(later: list[int], behind: int) -> None:
    """Section 5.4.1: entry 2/2 is on three of four disks, with more entries after it; the fourth has an older log, of
    any length. A quorum of three has a holder in it, which refuses who has not got the entry."""
    logs = [[1, 2, *[2] * count] for count in later] + [[1] * behind]
    winners = [log for place, log in enumerate(logs) if votes_for(log, logs[:place] + logs[place + 1 :]) >= 3]
    assert winners and all(log[:2] == [1, 2] for log in winners)


def votes_for(candidate: list[int], others: list[list[int]]) -> int:
    """Its own included; a log is the terms of its entries."""
    votes = 1
    for log in others:
        [answer] = Driver(log_of(*log)).exchange(vote_request(3, 1, len(candidate), candidate[-1] if candidate else 0))
        assert isinstance(answer, RequestVoteResponse)
        votes += answer.granted
    return votes


# Crashes


def test_a_silent_follower_is_asked_for_ever() -> None:
    """Section 5.5, and 5.3 for a commit that did not need it: as long as it is silent each heartbeat asks it again."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    assert driver.raft.commit_index == 1
    for number in range(1, 50):
        driver.wait(CONFIG.heartbeat_ns)
        sent = driver.take().send_now
        [asked] = [item.message for item in sent if item.destination == 3]
        assert isinstance(asked, AppendEntries)
        assert (asked.previous_log_index, len(asked.entries), asked.round) == (0, 1, number)
        driver.acknowledge(1, 1, 2)


def test_an_append_may_come_twice() -> None:
    """Section 5.5: the second time changes nothing and is answered alike, also by the next life of the follower."""
    message = AppendEntries(2, 1, 1, 1, 1, (entry(2, 2), entry(2, 3)))
    driver = Driver(log_of(1))
    driver.step(message)
    ready = driver.take()
    driver.raft.persisted(ready)
    answers = [item.message for item in ready.send_after_sync]
    driver.step(message)
    again = driver.take()
    assert (again.records, [item.message for item in again.send_after_sync]) == ([], answers)
    [written] = [record for record in ready.records if isinstance(record, LogAppend)]
    next_life = Driver([*log_of(1), *written.entries], term=2)
    next_life.step(message)
    again = next_life.take()
    assert (again.records, [item.message for item in again.send_after_sync]) == ([], answers)


def test_a_vote_request_may_come_twice() -> None:
    """Section 5.5: the voter crashed after its vote was durable and before its answer left."""
    driver = Driver()
    answers = driver.exchange(vote_request(1, 1, 0, 0))
    assert driver.exchange(vote_request(1, 1, 0, 0)) == answers
    next_life = Driver(term=1, voted_for=1)
    next_life.step(vote_request(1, 1, 0, 0))
    ready = next_life.take()
    assert (ready.records, [item.message for item in ready.send_after_sync]) == ([], answers)


def test_a_candidate_that_crashes_votes_for_nobody_else() -> None:
    """Section 5.5: its vote for itself was durable before anybody was asked."""
    driver = Driver()
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, True))
    ready = driver.take()
    [hard_state] = ready.records
    assert isinstance(hard_state, HardState) and len(ready.send_after_sync) == 1
    next_life = Driver(term=hard_state.term, voted_for=hard_state.voted_for)
    assert next_life.exchange(vote_request(1, 2, 5, 0)) == [RequestVoteResponse(1, 0, False, False)]
    later = msgspec.structs.replace(vote_request(1, 2, 5, 0), term=2)
    assert next_life.exchange(later) == [RequestVoteResponse(2, 0, True, False)]
