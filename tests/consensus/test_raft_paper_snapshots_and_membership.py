"""Sections 6 and 7 of the Raft paper, sentence by sentence: changes of the members, and snapshots. Many are held by
tests of the machine's parts, named here; what they leave over is tested below."""

from __future__ import annotations

import random
from typing import Final

import pytest

from consensus.machine import Compact, HardState, SnapshotRecord
from consensus.raft.config import RaftConfig, Role
from consensus.raft.configuration import Configuration
from consensus.raft.core import Raft
from consensus.raft.snapshot import make_snapshot
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse
from tests.oracles.paper_rules import check_rules
from tests.oracles.raft_driver import VOTERS, Driver, entry, vote_request
from tests.sim.plan import majority

OWN: Final = "test_raft_paper_snapshots_and_membership.py"
ELECTION: Final = "test_raft_election.py"
MEMBERSHIP: Final = "test_raft_membership.py"
SNAPSHOTS: Final = "test_raft_snapshots.py"
SCENARIO: Final = "test_raft_scenarios.py::test_scenario"

RULES: dict[str, str] = {
    "6, a configuration is in force at once": f"{MEMBERSHIP}::test_a_configuration_holds_once_it_is_in_the_log",
    "6, and ends when it is overwritten": f"{MEMBERSHIP}::test_a_configuration_ends_with_its_entry",
    "6, entries go to the members of both": f"{OWN}::test_both_groups_get_the_log",
    "6, a member of either may lead": f"{OWN}::test_a_member_of_either_group_may_lead",
    "6, commits need both quorums": f"{MEMBERSHIP}::test_both_quorums_while_joint",
    "6, elections need both quorums": f"{OWN}::test_an_election_needs_both_quorums",
    "6, quorums share a voter": f"{MEMBERSHIP}::test_quorums_of_neighbouring_configurations_share_a_voter",
    "6, the new one follows": f"{MEMBERSHIP}::test_the_joint_configuration_ends_by_itself_once_committed",
    "6, also under another leader": f"{MEMBERSHIP}::test_a_new_leader_ends_the_change_that_it_finds",
    "6, then the old members are of no account": f"{OWN}::test_who_left_is_not_asked_any_more",
    "6, new servers learn before they vote": f"{MEMBERSHIP}::test_learners_count_for_nothing",
    "6, then they vote": f"{SCENARIO}[raft_membership]",
    "6, who is asked votes, whatever it knows": f"{SCENARIO}[raft_learner_must_vote]",
    "6, a leader left out goes": f"{MEMBERSHIP}::test_a_leader_that_is_left_out_leads_until_that_is_committed",
    "6, removed servers do not disturb followers": f"{ELECTION}::test_nobody_unseats_a_leader_that_is_heard",
    "6, nor does one that was not told": f"{SCENARIO}[raft_joint_leader_removed]",
    "6, nor the leader": f"{OWN}::test_a_removed_server_does_not_unseat_the_leader",
    "6, an election after silence goes on": f"{OWN}::test_who_hears_no_leader_helps",
    "7, each server compacts by itself": f"{OWN}::test_a_follower_compacts_without_its_leader",
    "7, only what is committed": f"{SNAPSHOTS}::test_only_what_was_applied_is_compacted",
    "7, last included index and term": f"{OWN}::test_the_first_append_after_a_snapshot_is_checked_against_it",
    "7, the configuration as of the last index": f"{MEMBERSHIP}::test_compaction_remembers_what_held_at_the_snapshot",
    "7, a snapshot carries it": f"{MEMBERSHIP}::test_a_snapshot_carries_the_membership",
    "7, the log before it goes": f"{SNAPSHOTS}::test_compaction_keeps_the_snapshot_before_it_drops_the_log",
    "7, and any earlier snapshot": f"{OWN}::test_a_later_snapshot_takes_the_place_of_the_earlier",
    "7, a log that ends before its snapshot ends at it": f"{OWN}::test_a_server_votes_by_the_end_of_its_snapshot",
    "7, who lags is sent it": f"{SNAPSHOTS}::test_a_follower_behind_the_log_is_sent_the_snapshot_in_pieces",
    "7, what it does not continue is dropped": f"{SNAPSHOTS}::test_a_whole_snapshot_replaces_the_log",
    "7, entries after it are kept": f"{SNAPSHOTS}::test_entries_after_a_snapshot_that_matches_are_kept",
    "7, pieces are put together by offset": f"{OWN}::test_pieces_count_by_their_offset",
    "7, a piece is a sign of the leader": f"{OWN}::test_a_piece_postpones_the_own_election",
    "7, nothing else of a leader's past counts": f"{SNAPSHOTS}::test_a_leader_of_the_past_is_told",
}

ROSTER: Final = (0, 1, 2, 3, 4, 5)
SNAPSHOT: Final = RaftConfig(snapshots=True, snapshot_chunk_bytes_max=10)
DATA: Final = bytes(range(25))


def test_every_rule_has_its_test() -> None:
    check_rules(RULES, OWN)


# Membership


def leader() -> Driver:
    """Replica 0 of 0, 1, 2, with a majority as quorum and its first entry committed."""
    driver = Driver(voters=(0, 1, 2), quorum_size=majority, roster=ROSTER)
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    return driver


def holding(configuration: Configuration, commit: int = 0) -> Driver:
    """Replica 0 with that configuration as the first entry of its log."""
    driver = Driver(voters=(0, 1, 2), quorum_size=majority, roster=ROSTER)
    driver.exchange(AppendEntries(1, 1, 0, 0, commit, (Entry(1, 1, EntryKind.MEMBERSHIP, configuration.encode()),)))
    return driver


def test_both_groups_get_the_log() -> None:
    """Section 6: while joint, entries are replicated to the members of either configuration."""
    driver = leader()
    driver.raft.propose_membership((0, 3, 4))
    assert {item.destination for item in driver.take().send_now} == {1, 2, 3, 4}


@pytest.mark.parametrize("configuration", [Configuration((1, 3, 4), (0, 1, 2)), Configuration((0, 3, 4), (1, 2, 5))])
def test_a_member_of_either_group_may_lead(configuration: Configuration) -> None:
    """Section 6: replica 0 is only among the old voters, or only among the new."""
    driver = holding(configuration, commit=1)
    driver.wait(driver.raft.config.election_timeout_max_ns * 2)
    for pre_vote in (True, False):
        driver.drain()
        for voter in (1, 2, 3, 4):
            driver.step(RequestVoteResponse(2, voter, True, pre_vote))
    assert driver.role() is Role.LEADER


@pytest.mark.parametrize("group", [(1, 2), (3, 4)])
def test_an_election_needs_both_quorums(group: tuple[int, ...]) -> None:
    """Section 6: all of the old voters do not elect, nor do all of the new."""
    driver = holding(Configuration((0, 3, 4), (0, 1, 2)))
    driver.wait(driver.raft.config.election_timeout_max_ns * 2)
    driver.drain()
    for voter in group:
        driver.step(RequestVoteResponse(2, voter, True, True))
    assert driver.role() is Role.PRE_CANDIDATE
    for voter in (1, 3):
        driver.step(RequestVoteResponse(2, voter, True, True))
    driver.drain()
    for voter in group:
        driver.step(RequestVoteResponse(2, voter, True, False))
    assert driver.role() is Role.CANDIDATE
    driver.step(RequestVoteResponse(2, 3 if 1 in group else 1, True, False))
    assert driver.role() is Role.LEADER


def test_who_left_is_not_asked_any_more() -> None:
    """Section 6: with the new configuration in force, the others can be shut down."""
    driver = leader()
    driver.raft.propose_membership((0, 3, 4))
    driver.drain()
    driver.acknowledge(2, 1, 3)
    assert driver.raft.membership.current == Configuration((0, 3, 4))
    driver.wait(driver.raft.config.heartbeat_ns)
    ready = driver.take()
    assert {item.destination for item in ready.send_now} == {3, 4}
    driver.raft.persisted(ready)
    driver.acknowledge(3, 3)
    assert driver.raft.commit_index == 3


def test_a_removed_server_does_not_unseat_the_leader() -> None:
    """Section 6: a leader that leads has been heard within any timeout; a later term alone does not move it."""
    driver = leader()
    for pre_vote in (True, False):
        driver.exchange(vote_request(9, 5, 9, 9, pre_vote))
        assert (driver.role(), driver.raft.term) == (Role.LEADER, 1)


def test_who_hears_no_leader_helps() -> None:
    """Section 6: the protection lasts for the least election timeout, so that it stops no election that is due."""
    driver = Driver()
    driver.follow(1, 1)
    driver.now_ns += driver.raft.config.election_timeout_min_ns
    assert driver.exchange(vote_request(2, 2, 0, 0)) == [RequestVoteResponse(2, 0, True, False)]


# Snapshots


def pieces(index: int, term: int) -> list[InstallSnapshot]:
    snapshot = make_snapshot(index, term, Configuration(VOTERS).encode(), DATA)
    return [
        InstallSnapshot(term, 1, index, term, snapshot.membership, snapshot.digest, len(DATA), offset,
                        DATA[offset : offset + 10], 0)
        for offset in (0, 10, 20)
    ]  # fmt: skip


def follower(entries: int) -> Driver:
    """Its entries are all committed."""
    driver = Driver(config=SNAPSHOT)
    driver.exchange(AppendEntries(1, 1, 0, 0, entries, tuple(entry(1, index + 1) for index in range(entries))))
    return driver


def test_a_follower_compacts_without_its_leader() -> None:
    """Section 7: nobody is asked and nobody is told."""
    driver = follower(4)
    driver.raft.compact(4, DATA)
    ready = driver.take()
    assert (ready.send_now, ready.send_after_sync) == ([], [])
    assert driver.raft.log.base_index == 4


def test_the_first_append_after_a_snapshot_is_checked_against_it() -> None:
    """Section 7: that is what its last index and term are kept for."""
    driver = follower(3)
    driver.raft.compact(3, DATA)
    driver.drain()
    assert driver.exchange(AppendEntries(2, 1, 3, 2, 3, (entry(2, 4),))) == []
    assert driver.raft.ignored == {"append contradicts what is committed": 1}
    fits = AppendEntries(2, 1, 3, 1, 3, (entry(2, 4),))
    assert driver.exchange(fits) == [AppendEntriesResponse(2, 0, True, 4)]


def test_a_later_snapshot_takes_the_place_of_the_earlier() -> None:
    """Section 7: of a replica's own, and of one that its leader sends."""
    driver = follower(4)
    for index in (2, 4):
        driver.raft.compact(index, DATA)
    ready = driver.take()
    assert ready.records[-1] == Compact(4, 1)
    assert driver.raft.snapshot is not None and driver.raft.snapshot.index == 4
    driver.raft.persisted(ready)
    for piece in pieces(9, 2):
        driver.exchange(piece)
    assert (driver.raft.snapshot.index, driver.raft.last_index, driver.raft.commit_index) == (9, 9, 9)


def test_a_server_votes_by_the_end_of_its_snapshot() -> None:
    """Section 7: with nothing after it, the last entry is the last one that the snapshot stands for."""
    snapshot = make_snapshot(5, 3, Configuration(VOTERS).encode(), DATA)
    for last_index, last_term, granted in ((5, 3, True), (9, 2, False), (4, 3, False)):
        raft = Raft(0, VOTERS, 3, random.Random(1), SNAPSHOT, HardState(3, -1), (), snapshot=snapshot, log_base=(5, 3))
        raft.step(1, vote_request(4, 1, last_index, last_term), 1)
        [answer] = [item.message for item in raft.take_ready().send_after_sync]
        assert answer == RequestVoteResponse(4, 0, granted, False)


def test_pieces_count_by_their_offset() -> None:
    """Section 7: one that comes twice is not taken twice, and one that is ahead waits for what is missing."""
    driver = Driver(config=SNAPSHOT)
    first, second, third = pieces(5, 3)
    for piece, wanted in ((first, 10), (first, 10), (third, 10), (second, 20)):
        assert driver.exchange(piece) == [InstallSnapshotResponse(3, 0, 5, wanted, 0)]
    driver.step(third)
    [record] = driver.take().records
    assert isinstance(record, SnapshotRecord) and record.snapshot.data == DATA


def test_a_piece_postpones_the_own_election() -> None:
    """Section 7: a piece of the own term is as good as a heartbeat."""
    driver = Driver(config=SNAPSHOT)
    for piece in [pieces(5, 3)[0]] * 20:
        driver.wait(SNAPSHOT.election_timeout_min_ns - 1)
        assert driver.role() is Role.FOLLOWER
        driver.exchange(piece)
        assert (driver.role(), driver.raft.leader) == (Role.FOLLOWER, 1)
