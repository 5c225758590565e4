"""Figures 2, 3 and 13 of the Raft paper: one test for each rule. Most rules are held by tests of the machine's parts,
named here; what they leave over is tested below."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.machine import BROADCAST, HardState, LogAppend
from consensus.raft.admission import RaftMessage
from consensus.raft.config import RaftConfig, Role
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse
from tests.oracles.paper_rules import check_rules, defined_in, exists
from tests.oracles.raft_driver import CONFIG, Driver, entry, log_of, vote_request

OWN: Final = "test_raft_paper_figure2.py"
ELECTION: Final = "test_raft_election.py"
REPLICATION: Final = "test_raft_replication.py"
SNAPSHOTS: Final = "test_raft_snapshots.py"
SIMULATION: Final = "../sim/test_sim.py::test_safe_under_faults_and_live_after_them"

RULES: dict[str, str] = {
    "figure 2, state: the term is on the disk before an answer": f"{OWN}::test_a_new_term_is_recorded_with_the_answer",
    "figure 2, state: the vote is, too": f"{ELECTION}::test_an_answer_to_a_vote_request_waits_for_the_disk",
    "figure 2, state: the vote survives a restart": f"{ELECTION}::test_remembers_its_vote_across_a_restart",
    "figure 2, state: the log is, too": f"{REPLICATION}::test_appends_and_acknowledges_after_the_disk",
    "figure 2, state: a candidate's own promises are, too": f"{ELECTION}::test_a_vote_request_waits_for_the_disk",
    "figure 2, state: commitIndex begins at 0 and rises": f"{OWN}::test_the_commit_index_begins_at_zero_and_only_rises",
    "figure 2, state: applied": f"{REPLICATION}::test_committed_entries_come_once_in_order_and_again_after_a_restart",
    "figure 2, state: nextIndex begins after the log": f"{OWN}::test_a_new_leader_tries_the_end_of_its_log_first",
    "figure 2, state: matchIndex begins at 0": f"{OWN}::test_a_new_leadership_knows_no_match",
    "figure 2, AppendEntries, arguments": f"{OWN}::test_an_append_says_who_leads_and_what_comes_before",
    "figure 2, AppendEntries, results": f"{REPLICATION}::test_acknowledges_only_what_the_message_proves",
    "figure 2, AppendEntries, receiver 1": f"{REPLICATION}::test_a_leader_of_the_past_is_told",
    "figure 2, AppendEntries, receiver 2": f"{REPLICATION}::test_refuses_an_append_without_its_predecessor",
    "figure 2, AppendEntries, receiver 3": f"{REPLICATION}::test_conflicting_entries_are_replaced",
    "figure 2, AppendEntries, receiver 4": f"{OWN}::test_only_entries_that_are_new_are_appended",
    "figure 2, AppendEntries, receiver 5": f"{REPLICATION}::test_commits_no_further_than_the_last_new_entry",
    "figure 2, RequestVote, arguments": f"{OWN}::test_a_request_names_term_candidate_and_end_of_log",
    "figure 2, RequestVote, receiver 1": f"{ELECTION}::test_a_request_of_an_older_term_is_told_the_term",
    "figure 2, RequestVote, receiver 2": f"{ELECTION}::test_votes_once_per_term_and_repeats_its_answer",
    "figure 2, RequestVote, receiver 2: the log": f"{ELECTION}::test_only_a_candidate_with_an_up_to_date_log_is_helped",
    "figure 2, all servers 1": f"{OWN}::test_what_is_committed_is_handed_over_to_be_applied",
    "figure 2, all servers 2": f"{ELECTION}::test_a_later_term_makes_a_follower",
    "figure 2, followers 1": f"{OWN}::test_a_follower_answers_each_request_once",
    "figure 2, followers 2": f"{OWN}::test_a_follower_that_hears_nobody_stands",
    "figure 2, followers 2: who postpones it": f"{ELECTION}::test_a_leader_or_a_vote_postpones_the_own_election",
    "figure 2, candidates 1: the term": f"{OWN}::test_a_candidate_raises_its_term_by_one",
    "figure 2, candidates 1: its own vote": f"{OWN}::test_a_candidate_votes_for_itself",
    "figure 2, candidates 1: the timer": f"{OWN}::test_a_candidate_draws_its_timeout_anew",
    "figure 2, candidates 1: everybody is asked": f"{OWN}::test_a_candidate_asks_all_others",
    "figure 2, candidates 2": f"{OWN}::test_a_quorum_of_votes_makes_a_leader",
    "figure 2, candidates 3": f"{ELECTION}::test_a_candidate_follows_the_leader_of_its_term",
    "figure 2, candidates 4": f"{ELECTION}::test_requests_are_repeated_while_nobody_wins",
    "figure 2, leaders 1: at once": f"{OWN}::test_a_new_leader_tells_everybody_at_once",
    "figure 2, leaders 1: while idle": f"{OWN}::test_an_idle_leader_repeats_its_heartbeat",
    "figure 2, leaders 2": f"{OWN}::test_a_command_is_answered_after_it_is_applied",
    "figure 2, leaders 3: entries from nextIndex on": f"{OWN}::test_a_follower_is_sent_what_it_has_not_got",
    "figure 2, leaders 3: success": f"{OWN}::test_success_moves_match_and_next",
    "figure 2, leaders 3: failure": f"{REPLICATION}::test_backs_off_to_the_hint_and_ignores_old_refusals",
    "figure 2, leaders 4": f"{OWN}::test_the_commit_index_is_what_a_quorum_holds_of_this_term",
    "figure 3, election safety": SIMULATION,
    "figure 3, leader append-only": f"{OWN}::test_a_leader_never_changes_its_own_entries",
    "figure 3, log matching": SIMULATION,
    "figure 3, leader completeness": SIMULATION,
    "figure 3, state machine safety": SIMULATION,
    "figure 13, receiver 1": f"{SNAPSHOTS}::test_a_leader_of_the_past_is_told",
    "figure 13, receiver 2": f"{SNAPSHOTS}::test_a_damaged_snapshot_is_asked_for_again",
    "figure 13, receiver 3": f"{SNAPSHOTS}::test_pieces_arrive_whatever_is_lost",
    "figure 13, receiver 4": f"{SNAPSHOTS}::test_a_follower_behind_the_log_is_sent_the_snapshot_in_pieces",
    "figure 13, receiver 5": f"{SNAPSHOTS}::test_a_snapshot_older_than_the_log_takes_nothing_back",
    "figure 13, receiver 6": f"{SNAPSHOTS}::test_entries_after_a_snapshot_that_matches_are_kept",
    "figure 13, receiver 7": f"{SNAPSHOTS}::test_a_whole_snapshot_replaces_the_log",
    "figure 13, receiver 8": f"{SNAPSHOTS}::test_a_whole_snapshot_replaces_the_log",
}
LISTED: Final = {
    "figure 2, AppendEntries, receiver": 5,
    "figure 2, RequestVote, receiver": 2,
    "figure 2, all servers": 2,
    "figure 2, followers": 2,
    "figure 2, candidates": 4,
    "figure 2, leaders": 4,
    "figure 13, receiver": 8,
}
"""How many rules the figures list."""


def test_every_rule_has_its_test() -> None:
    check_rules(RULES, OWN, LISTED)
    assert not exists(f"{OWN}::test_no_such_test") and not exists("no_such_file.py::test_a")
    assert not exists("test_raft_scenarios.py::test_scenario[no_such_scenario]")
    assert defined_in(OWN)
    with pytest.raises(AssertionError, match="figure 2, leaders 5"):
        check_rules(RULES, OWN, {"figure 2, leaders": 5})
    with pytest.raises(AssertionError, match="stand for no rule"):
        check_rules({}, OWN)


# State


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(6, 1, 0, 0, 0, ()),
        AppendEntries(6, 1, 3, 6, 0, ()),
        vote_request(6, 1, 9, 5),
        vote_request(6, 1, 0, 0),
        InstallSnapshot(6, 1, 5, 3, b"", bytes(32), 25, 0, b"", 0),
    ],
)
def test_a_new_term_is_recorded_with_the_answer(message: RaftMessage) -> None:
    """Figure 2, state: whatever is answered in a term, the term is durable first."""
    driver = Driver(log_of(5), config=RaftConfig(snapshots=True))
    driver.step(message)
    ready = driver.take()
    assert isinstance(ready.records[0], HardState) and ready.records[0].term == 6
    assert ready.send_now == []


def test_the_commit_index_begins_at_zero_and_only_rises() -> None:
    """Figure 2, state: volatile. A new life knows of no commit, however long its log, until a leader tells."""
    driver = Driver(log_of(1, 1, 1))
    assert driver.raft.commit_index == 0
    for told, known in ((2, 2), (1, 2), (0, 2), (3, 3)):
        driver.exchange(AppendEntries(1, 1, 3, 1, told, ()))
        assert driver.raft.commit_index == known


def test_a_new_leader_tries_the_end_of_its_log_first() -> None:
    """Figure 2, state: nextIndex begins after the last entry. It is the end before the no-op that every leader adds."""
    driver = Driver(log_of(1, 1, 2))
    driver.become_candidate()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(3, voter, True, False))
    appends = [item.message for item in driver.take().send_now]
    assert appends == [AppendEntries(3, 0, 3, 2, 0, (entry(3, 4, kind=EntryKind.NOOP),))] * 3


def test_a_new_leadership_knows_no_match() -> None:
    """Figure 2, state: matchIndex is made anew after each election, and begins at 0."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.follow(1, 2)
    driver.become_leader()
    assert [progress["match"] for progress in driver.raft.status()["followers"].values()] == [0, 0, 0]


# AppendEntries


def test_an_append_says_who_leads_and_what_comes_before() -> None:
    """Figure 2, AppendEntries, arguments. A follower can name its leader to a client from then on."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    driver.raft.propose(EntryKind.FRAME, b"x")
    append = driver.take().send_now[0].message
    assert append == AppendEntries(1, 0, 1, 1, 1, (entry(1, 2, b"x"),))
    follower = Driver()
    follower.step(msgspec.structs.replace(append, leader=2))
    assert follower.raft.status()["leader"] == 2


def test_only_entries_that_are_new_are_appended() -> None:
    """Figure 2, AppendEntries, receiver 4: what is there already is not written again."""
    driver = Driver()
    driver.exchange(AppendEntries(1, 1, 0, 0, 0, (entry(1, 1), entry(1, 2))))
    driver.step(AppendEntries(1, 1, 0, 0, 0, (entry(1, 1), entry(1, 2), entry(1, 3))))
    assert driver.take().records == [LogAppend((entry(1, 3),))]
    assert driver.raft.last_index == 3


# RequestVote


def test_a_request_names_term_candidate_and_end_of_log() -> None:
    """Figure 2, RequestVote, arguments."""
    driver = Driver(log_of(1, 1, 4))
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(5, voter, True, True))
    assert driver.drain() == [RequestVote(5, 0, 3, 4, False)]


# Rules for servers


def test_what_is_committed_is_handed_over_to_be_applied() -> None:
    """Figure 2, all servers 1. Nothing else is."""
    driver = Driver(log_of(1, 1, 1))
    driver.step(AppendEntries(1, 1, 3, 1, 2, ()))
    assert [item.index for item in driver.take().committed_entries] == [1, 2]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AppendEntries(1, 1, 0, 0, 0, ()), AppendEntriesResponse),
        (AppendEntries(1, 1, 7, 1, 0, ()), AppendEntriesResponse),
        (AppendEntries(0, 1, 0, 0, 0, ()), AppendEntriesResponse),
        (vote_request(1, 1, 0, 0), RequestVoteResponse),
        (vote_request(0, 1, 0, 0), RequestVoteResponse),
        (vote_request(1, 1, 0, 0, pre_vote=True), RequestVoteResponse),
        (InstallSnapshot(0, 1, 5, 0, b"", bytes(32), 25, 0, b"", 0), InstallSnapshotResponse),
    ],
)
def test_a_follower_answers_each_request_once(message: RaftMessage, answer: type[RaftMessage]) -> None:
    """Figure 2, followers 1: granted or refused. Beyond the paper: a vote against a leader that lives has no answer."""
    driver = Driver(term=1, config=RaftConfig(snapshots=True))
    driver.step(message)
    ready = driver.take()
    sent = ready.send_now + ready.send_after_sync
    assert [(item.destination, type(item.message)) for item in sent] == [(1, answer)]


def test_a_follower_that_hears_nobody_stands() -> None:
    """Figure 2, followers 2. Beyond the paper: it asks first whether it could win, and changes nothing by that."""
    driver = Driver()
    deadline_ns = driver.raft.next_deadline_ns()
    assert deadline_ns is not None
    driver.wait(deadline_ns - driver.now_ns - 1)
    assert driver.role() is Role.FOLLOWER
    driver.wait(1)
    assert (driver.role(), driver.raft.term) == (Role.PRE_CANDIDATE, 0)


def standing(driver: Driver) -> Driver:
    """A quorum would vote for it, and its own promises are not on the disk yet."""
    driver.wait(CONFIG.election_timeout_max_ns)
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(driver.raft.term + 1, voter, True, True))
    return driver


def test_a_candidate_raises_its_term_by_one() -> None:
    """Figure 2, candidates 1."""
    driver = standing(Driver(term=6, voted_for=3))
    assert (driver.role(), driver.raft.term) == (Role.CANDIDATE, 7)


def test_a_candidate_votes_for_itself() -> None:
    """Figure 2, candidates 1. Beyond the paper: the vote counts from the disk, like everybody else's."""
    driver = standing(Driver())
    assert driver.raft.status()["voted_for"] == 0
    assert driver.raft.status()["votes"] == []
    driver.drain()
    assert driver.raft.status()["votes"] == [0]
    assert driver.exchange(vote_request(1, 2, 9, 0)) == [RequestVoteResponse(1, 0, False, False)]


def test_a_candidate_draws_its_timeout_anew() -> None:
    """Figure 2, candidates 1, and section 5.2: the election has a whole timeout, and each election another."""
    spans = set()
    driver = Driver()
    for _ in range(10):
        driver.wait(CONFIG.election_timeout_max_ns)
        driver.drain()
        driver.now_ns += CONFIG.election_timeout_min_ns // 2
        for voter in (1, 2):
            driver.step(RequestVoteResponse(driver.raft.term + 1, voter, True, True))
        start_ns = driver.now_ns
        while driver.role() is Role.CANDIDATE:
            driver.time_out()
        spans.add(driver.now_ns - start_ns)
    assert len(spans) > 5
    assert all(CONFIG.election_timeout_min_ns <= span <= CONFIG.election_timeout_max_ns for span in spans)


def test_a_candidate_asks_all_others() -> None:
    """Figure 2, candidates 1: at once and in parallel."""
    ready = standing(Driver()).take()
    assert [(item.destination, type(item.message)) for item in ready.send_after_sync] == [(BROADCAST, RequestVote)]


@pytest.mark.parametrize(("voters", "quorum_size"), [(3, 2), (4, 3), (5, 3), (5, 4)])
def test_a_quorum_of_votes_makes_a_leader(voters: int, quorum_size: int) -> None:
    """Figure 2, candidates 2. Beyond the paper: a quorum may be more than a majority of the voters."""
    driver = Driver(voters=tuple(range(voters)), quorum_size=quorum_size)
    driver.wait(CONFIG.election_timeout_max_ns)
    for pre_vote in (True, False):
        for voter in range(1, quorum_size):
            assert driver.role() is (Role.PRE_CANDIDATE if pre_vote else Role.CANDIDATE)
            driver.drain()
            driver.step(RequestVoteResponse(1, voter, True, pre_vote))
    assert driver.role() is Role.LEADER


def test_a_new_leader_tells_everybody_at_once() -> None:
    """Figure 2, leaders 1. The first message is no empty one: it brings the no-op."""
    driver = standing(Driver())
    driver.drain()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(1, voter, True, False))
    assert [item.destination for item in driver.take().send_now] == [1, 2, 3]


def test_an_idle_leader_repeats_its_heartbeat() -> None:
    """Figure 2, leaders 1: to everybody, well within an election timeout, and empty when there is nothing to send."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    for number in range(1, 4):
        driver.wait(CONFIG.heartbeat_ns - 1)
        assert driver.drain() == []
        driver.wait(1)
        assert driver.drain() == [AppendEntries(1, 0, 1, 1, 1, (), number)] * 3
        driver.acknowledge(1, 1, 2, 3)


def test_a_command_is_answered_after_it_is_applied() -> None:
    """Figure 2, leaders 2: it stands in the leader's log at once, and is committed for the client only later."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    index = driver.raft.propose(EntryKind.FRAME, b"x")
    assert driver.raft.entries_from(2) == [entry(1, 2, b"x")] and index == 2
    driver.drain()
    assert entry(1, 2, b"x") not in driver.committed
    driver.acknowledge(2, 1, 2)
    driver.drain()
    assert driver.committed[-1] == entry(1, 2, b"x")


def test_a_follower_is_sent_what_it_has_not_got() -> None:
    """Figure 2, leaders 3: from nextIndex to the end of the log, for each follower from its own."""
    driver = Driver(log_of(1, 1, 1))
    driver.become_leader()
    driver.step(AppendEntriesResponse(2, 1, False, 1, 1))
    driver.step(AppendEntriesResponse(2, 2, False, 2, 1))
    sent = {item.destination: item.message for item in driver.take().send_now}
    assert {to: [each.index for each in message.entries] for to, message in sent.items()} == {1: [2, 3, 4], 2: [3, 4]}


def test_success_moves_match_and_next() -> None:
    """Figure 2, leaders 3. Beyond the paper: next runs ahead of the answers, and an old answer takes nothing back."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1)
    driver.raft.propose(EntryKind.FRAME, b"x")
    driver.drain()
    progress = driver.raft.status()["followers"][1]
    assert (progress["match"], progress["next"]) == (1, 3)
    for match in (2, 1):
        driver.acknowledge(match, 1)
        progress = driver.raft.status()["followers"][1]
        assert (progress["match"], progress["next"]) == (2, 3)


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4), st.booleans())
def test_the_commit_index_is_what_a_quorum_holds_of_this_term(matches: list[int], own_disk: bool) -> None:
    """Figure 2, leaders 4, against a search. Beyond the paper: the quorum may be larger than a majority, four of five
    here, and the leader's own copy counts only once it is durable. Entries 1 to 3 are of older terms."""
    driver = Driver(log_of(1, 1, 2), voters=(0, 1, 2, 3, 4), quorum_size=4)
    driver.wait(CONFIG.election_timeout_max_ns)
    for pre_vote in (True, False):
        for voter in (1, 2, 3):
            driver.step(RequestVoteResponse(3, voter, True, pre_vote))
        if pre_vote:
            driver.drain()
    for text in (b"5", b"6"):
        driver.raft.propose(EntryKind.FRAME, text)
    if own_disk:
        driver.drain()
    for follower, match in enumerate(matches, start=1):
        driver.acknowledge(match, follower)
    disks = [*matches, 6 if own_disk else 3]
    held = [index for index in (4, 5, 6) if sum(disk >= index for disk in disks) >= 4]
    assert driver.raft.commit_index == max(held, default=0)


@given(st.lists(st.tuples(st.sampled_from(("propose", "success", "refusal", "tick")), st.integers(0, 9)), max_size=30))
def test_a_leader_never_changes_its_own_entries(steps: list[tuple[str, int]]) -> None:
    """Figure 3, leader append-only, and section 5.3: whatever its followers say, while it leads the log only grows."""
    driver = Driver(log_of(1, 2, 2))
    driver.become_leader()
    for verb, number in steps:
        before = driver.raft.entries_from(1)
        if verb == "propose":
            driver.raft.propose(EntryKind.FRAME, b"%d" % number)
        elif verb == "tick":
            driver.wait(CONFIG.heartbeat_ns)
        else:
            driver.step(AppendEntriesResponse(driver.raft.term, 1 + number % 3, verb == "success", number, 1))
        driver.drain()
        if driver.role() is Role.LEADER:
            assert driver.raft.entries_from(1)[: len(before)] == before
