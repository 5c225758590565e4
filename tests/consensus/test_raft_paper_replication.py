"""Sections 5.3, 5.4.2, 5.4.3 and 8 of the Raft paper, sentence by sentence: replication, commitment, clients. Many are
held by tests of the machine's parts, named here; what they leave over is tested below."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest

from consensus.machine import LogAppend
from consensus.raft.config import RaftConfig
from consensus.raft.outcome import Outcome, Standing
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, RequestVoteResponse
from tests.oracles.paper_rules import check_rules
from tests.oracles.raft_driver import CONFIG, Driver, entry, log_of
from tests.sim.host import key_of

OWN: Final = "test_raft_paper_replication.py"
FIGURE_2: Final = "test_raft_paper_figure2.py"
ELECTIONS: Final = "test_raft_paper_elections.py"
ELECTION: Final = "test_raft_election.py"
REPLICATION: Final = "test_raft_replication.py"
LOG: Final = "test_raft_log.py"
PROPOSALS: Final = "test_raft_proposals.py"
READS: Final = "test_raft_reads.py"
SCENARIO: Final = "test_raft_scenarios.py::test_scenario"
SIMULATION: Final = "../sim/test_sim.py::test_safe_under_faults_and_live_after_them"

RULES: dict[str, str] = {
    "5.3, a command is appended and sent to all": f"{REPLICATION}::test_entries_leave_before_the_own_write_is_done",
    "5.3, an entry has a term and an index": f"{OWN}::test_an_entry_is_named_by_term_and_index",
    "5.3, a silent follower is asked for ever": f"{ELECTIONS}::test_a_silent_follower_is_asked_for_ever",
    "5.3, a quorum of disks commits": f"{OWN}::test_a_slow_minority_delays_nothing",
    "5.3, a quorum of four is three": f"{REPLICATION}::test_an_acknowledgement_counts_once_per_follower",
    "5.3, the leader's own disk": f"{REPLICATION}::test_a_leader_counts_itself_only_when_its_write_is_done",
    "5.3, a commit takes everything before along": f"{OWN}::test_a_commit_takes_along_what_comes_before",
    "5.3, followers are told": f"{REPLICATION}::test_the_commit_index_is_told_without_waiting_for_a_heartbeat",
    "5.3, also from a heartbeat": f"{OWN}::test_a_heartbeat_tells_the_commit_index",
    "5.3, applied in order": f"{REPLICATION}::test_committed_entries_come_once_in_order_and_again_after_a_restart",
    "5.3, one entry for each index in a term": f"{FIGURE_2}::test_a_leader_never_changes_its_own_entries",
    "5.3, the consistency check": f"{REPLICATION}::test_refuses_an_append_without_its_predecessor",
    "5.3, success means that the logs match so far": f"{REPLICATION}::test_acknowledges_only_what_the_message_proves",
    "5.3, log matching": SIMULATION,
    "5.3, a leader's log replaces what conflicts": f"{OWN}::test_each_log_of_figure_7_becomes_the_leaders",
    "5.3, an entry that comes back is written anew": f"{SCENARIO}[raft_append_aba]",
    "5.3, a window for each follower": f"{SCENARIO}[raft_replicate_pause]",
    "5.3, messages may overtake each other": f"{SCENARIO}[raft_probe_and_replicate]",
    "5.3, matching entries stay": f"{REPLICATION}::test_matching_entries_are_never_truncated",
    "5.3, the leader goes back": f"{REPLICATION}::test_backs_off_to_the_hint_and_ignores_old_refusals",
    "5.3, a whole term in one step": f"{LOG}::test_hints_find_the_last_common_entry",
    "5.3, for the leader too": f"{REPLICATION}::test_the_leader_skips_whole_terms_too",
    "5.3, a new leader does nothing special": f"{OWN}::test_an_append_that_fits_ends_the_repair",
    "5.3, a leader never overwrites its own log": f"{FIGURE_2}::test_a_leader_never_changes_its_own_entries",
    "5.4.2, figure 8": f"{SCENARIO}[raft_old_term]",
    "5.4.2, no counting of old terms": f"{REPLICATION}::test_entries_of_older_terms_are_not_committed_by_counting",
    "5.4.2, an entry of the own term commits it": f"{OWN}::test_a_commit_takes_along_what_comes_before",
    "5.4.2, entries keep their terms": f"{OWN}::test_entries_keep_their_terms_under_a_new_leader",
    "5.4.3, leader completeness": f"{ELECTIONS}::test_whoever_wins_holds_what_is_committed",
    "5.4.3, one entry for an index everywhere": SIMULATION,
    "5.4.3, what is committed stays": f"{REPLICATION}::test_what_no_honest_leader_sends_is_ignored_and_counted",
    "8, clients are told who leads": f"{FIGURE_2}::test_an_append_says_who_leads_and_what_comes_before",
    "8, who does not lead refuses": f"{REPLICATION}::test_a_proposal_to_another_replica_is_refused_at_once",
    "8, a command commits once": f"{PROPOSALS}::test_a_key_is_appended_once_however_often_it_is_proposed",
    "8, also under another leader": f"{PROPOSALS}::test_a_leader_finds_the_key_that_an_earlier_leader_left",
    "8, also after the first was applied": f"{OWN}::test_a_command_that_comes_again_later_is_answered_and_not_executed",
    "8, a new leader commits a no-op": f"{ELECTION}::test_a_new_leader_adds_an_entry_of_its_term",
    "8, no read before that": f"{READS}::test_no_read_before_the_first_entry_of_the_term_commits",
    "8, a read appends nothing": f"{OWN}::test_a_read_appends_nothing",
    "8, a read waits for a quorum's heartbeat": f"{READS}::test_a_read_waits_for_a_round_that_began_after_it",
    "8, or rests on a lease": f"{READS}::test_a_lease_ends_before_any_promise_does",
}


def test_every_rule_has_its_test() -> None:
    check_rules(RULES, OWN)


def leader(config: RaftConfig = CONFIG) -> Driver:
    """Its no-op is committed, and followers 1 to 3 have it."""
    driver = Driver(config=config, key_of=key_of)
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    return driver


# Replication


def test_an_entry_is_named_by_term_and_index() -> None:
    """Section 5.3: the term in which the leader received it, and where it stands."""
    driver = Driver(log_of(1, 3))
    driver.become_leader()
    assert driver.raft.propose(EntryKind.FRAME, b"x") == 4
    assert driver.raft.entries_from(4) == [entry(4, 4, b"x")]


def test_a_slow_minority_delays_nothing() -> None:
    """Section 5.3: one round to a quorum commits. Follower 3 never answers."""
    driver = leader()
    for number in range(2, 6):
        assert driver.raft.propose(EntryKind.FRAME, b"%d" % number) == number
        driver.drain()
        driver.acknowledge(number, 1, 2)
        assert driver.raft.commit_index == number


def test_a_commit_takes_along_what_comes_before() -> None:
    """Sections 5.3 and 5.4.2: also entries of earlier leaders, in order, with the first entry of the own term."""
    driver = Driver(log_of(1, 2, 2))
    driver.become_leader()
    driver.acknowledge(4, 1)
    assert driver.raft.commit_index == 0
    driver.acknowledge(4, 2)
    driver.drain()
    assert [(item.index, item.term) for item in driver.committed] == [(1, 1), (2, 2), (3, 2), (4, 3)]


def test_a_heartbeat_tells_the_commit_index() -> None:
    """Section 5.3: a follower whose messages were lost learns of a commit from an append without entries."""
    driver = leader()
    driver.raft.propose(EntryKind.FRAME, b"x")
    driver.drain()
    driver.acknowledge(2, 1, 2, 3)
    driver.drain()
    driver.wait(CONFIG.heartbeat_ns)
    heartbeat, *_ = driver.drain()
    assert isinstance(heartbeat, AppendEntries) and (heartbeat.entries, heartbeat.leader_commit) == ((), 2)
    follower = Driver([entry(1, 1, kind=EntryKind.NOOP), entry(1, 2, b"x")])
    follower.exchange(msgspec.structs.replace(heartbeat, leader=1))
    assert [item.index for item in follower.committed] == [1, 2]


FIGURE_7: Final = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("terms", FIGURE_7.values(), ids=FIGURE_7)
@pytest.mark.parametrize("entries_max", [1, 256])
def test_each_log_of_figure_7_becomes_the_leaders(terms: tuple[int, ...], entries_max: int) -> None:
    """Section 5.3, figure 7: missing entries, uncommitted ones, or both, over several terms. The logs meet within one
    refusal for each term that the follower has too many."""
    driver = Driver(log_of(1, 1, 1, 4, 4, 5, 5, 6, 6, 6), term=7, config=RaftConfig(entries_per_append_max=entries_max))
    follower, refusals = Driver(log_of(*terms)), 0
    driver.become_leader()
    driver.wait(CONFIG.heartbeat_ns)
    for _ in range(20):
        for message in [item.message for item in driver.take().send_now if item.destination == 1]:
            assert isinstance(message, AppendEntries)
            [answer] = follower.exchange(msgspec.structs.replace(message, leader=1))
            assert isinstance(answer, AppendEntriesResponse)
            refusals += not answer.success
            driver.step(msgspec.structs.replace(answer, follower=1))
    assert follower.raft.entries_from(1) == driver.raft.entries_from(1)
    assert refusals <= 3


def test_an_append_that_fits_ends_the_repair() -> None:
    """Section 5.3: a leader that begins sends what it would send anyway; logs meet by the consistency check alone."""
    driver = Driver(log_of(1, 1))
    driver.become_candidate()
    for voter in (1, 2):
        driver.step(RequestVoteResponse(2, voter, True, False))
    first = driver.take().send_now[0].message
    assert isinstance(first, AppendEntries)
    follower = Driver(log_of(1, 1, 1))
    follower.step(msgspec.structs.replace(first, leader=1))
    ready = follower.take()
    assert ready.records[-1] == LogAppend((entry(2, 3, kind=EntryKind.NOOP),))
    assert [item.message for item in ready.send_after_sync] == [AppendEntriesResponse(2, 0, True, 3)]


def test_entries_keep_their_terms_under_a_new_leader() -> None:
    """Section 5.4.2: so that they can be told apart in every log and by every voter."""
    driver = Driver(log_of(1, 1, 3))
    driver.become_leader()
    driver.step(AppendEntriesResponse(4, 1, False, 0, 0))
    [sent] = [item.message for item in driver.take().send_now if item.destination == 1]
    assert isinstance(sent, AppendEntries)
    assert [each.term for each in sent.entries] == [1, 1, 3, 4]


# Clients


def test_a_command_that_comes_again_later_is_answered_and_not_executed() -> None:
    """Section 8, serial numbers: they are keys here. The client of a crashed leader tries again with the next one."""
    entries = [entry(1, 1, kind=EntryKind.NOOP), entry(1, 2, b"buy")]
    driver = Driver(key_of=key_of)
    driver.exchange(AppendEntries(1, 1, 0, 0, 2, tuple(entries)))
    driver.become_leader()
    assert driver.raft.propose_once(b"buy", EntryKind.FRAME, b"buy") == Outcome(Standing.COMMITTED, 2)
    assert driver.raft.last_index == 3
    assert driver.committed == entries


def test_a_read_appends_nothing() -> None:
    """Section 8: read-only operations stay out of the log, and write nothing to a disk."""
    driver = leader()
    driver.raft.read(7, driver.now_ns)
    ready = driver.take()
    assert (ready.records, driver.raft.last_index) == ([], 1)
    for follower in (1, 2):
        driver.step(AppendEntriesResponse(1, follower, True, 1, 0, 1))
    ready = driver.take()
    assert [(result.request, result.index) for result in ready.reads] == [(7, 1)]
    assert ready.records == []
