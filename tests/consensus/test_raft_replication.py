"""Log replication and commitment: figure 2 and sections 5.3 and 5.4 of the Raft paper, and durability of promises."""

from __future__ import annotations

import random

import pytest

from consensus.machine import HardState, LogAppend
from consensus.raft.config import RaftConfig, Role
from consensus.raft.core import Raft
from consensus.raft.log import ENTRY_OVERHEAD_BYTES
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, RequestVoteResponse
from tests.oracles.raft_driver import CONFIG, VOTERS, Driver, entry, log_of


def append(term: int, previous: tuple[int, int], commit: int, *terms: int, leader: int = 1) -> AppendEntries:
    """``previous`` is (index, term); the entries follow it with ``terms``."""
    index, previous_term = previous
    entries = tuple(entry(each, index + offset) for offset, each in enumerate(terms, start=1))
    return AppendEntries(term, leader, index, previous_term, commit, entries)


def terms_of(driver: Driver) -> list[int]:
    return [item.term for item in driver.raft.entries_from(1)]


# The follower


def test_appends_and_acknowledges_after_the_disk() -> None:
    """Figure 2, AppendEntries receiver. Seeded bug 19: an acknowledgement before the sync."""
    driver = Driver()
    driver.step(append(1, (0, 0), 0, 1, 1))
    ready = driver.take()
    assert ready.records == [HardState(1, -1), LogAppend((entry(1, 1), entry(1, 2)))]
    assert ready.send_now == []
    assert [item.message for item in ready.send_after_sync] == [AppendEntriesResponse(1, 0, True, 2)]


def test_an_acknowledgement_never_overtakes_an_earlier_write() -> None:
    """A heartbeat confirms entries whose write is still under way: its answer has nothing to record, and yet waits,
    for the term of its leader is on no disk either."""
    driver = Driver()
    driver.step(append(1, (0, 0), 0, 1))
    writing = driver.take()
    driver.step(append(1, (1, 1), 0))
    assert driver.take().empty
    driver.raft.persisted(writing)
    assert [item.message for item in driver.take().send_after_sync] == [AppendEntriesResponse(1, 0, True, 1)]


def test_a_slow_disk_holds_up_no_answer_to_a_heartbeat() -> None:
    """It names what is durable by now, so that the leader hears from us for as long as the write may take."""
    driver = Driver(log_of(1), term=1)
    driver.step(append(1, (1, 1), 0, 1))
    writing = driver.take()
    assert [item.message for item in writing.send_after_sync] == [AppendEntriesResponse(1, 0, True, 2)]
    driver.step(append(1, (2, 1), 0))
    assert [item.message for item in driver.take().send_now] == [AppendEntriesResponse(1, 0, True, 1)]
    driver.raft.persisted(writing)
    driver.step(append(1, (2, 1), 0))
    assert [item.message for item in driver.take().send_now] == [AppendEntriesResponse(1, 0, True, 2)]


def test_refuses_an_append_without_its_predecessor() -> None:
    """Figure 2, AppendEntries receiver, rule 2: consistency check, with a hint how far to go back."""
    driver = Driver(log_of(1, 1, 2))
    assert driver.exchange(append(3, (7, 3), 0, 3)) == [AppendEntriesResponse(3, 0, False, 3, 2)]
    assert driver.exchange(append(3, (3, 3), 0, 3)) == [AppendEntriesResponse(3, 0, False, 2, 1)]
    assert terms_of(driver) == [1, 1, 2]


def test_conflicting_entries_are_replaced() -> None:
    """Figure 2, AppendEntries receiver, rule 3; figure 7."""
    driver = Driver(log_of(1, 1, 2, 2))
    assert driver.exchange(append(3, (2, 1), 0, 3)) == [AppendEntriesResponse(3, 0, True, 3)]
    assert terms_of(driver) == [1, 1, 3]


def test_matching_entries_are_never_truncated() -> None:
    """Section 5.3. Seeded bug 5: a delayed, shorter append must not shorten the log."""
    driver = Driver()
    driver.exchange(append(1, (0, 0), 0, 1, 1, 1))
    assert driver.exchange(append(1, (0, 0), 0, 1)) == [AppendEntriesResponse(1, 0, True, 1)]
    assert driver.exchange(append(1, (1, 1), 0)) == [AppendEntriesResponse(1, 0, True, 1)]
    assert terms_of(driver) == [1, 1, 1]


def test_commits_no_further_than_the_last_new_entry() -> None:
    """Figure 2, AppendEntries receiver, rule 5. Seeded bug 7: the follower's tail may differ from the leader's."""
    driver = Driver(log_of(1, 1, 1))
    driver.exchange(append(2, (1, 1), 9))
    assert driver.raft.commit_index == 1
    driver.exchange(append(2, (1, 1), 9, 2))
    assert (driver.raft.commit_index, terms_of(driver)) == (2, [1, 2])
    driver.exchange(append(2, (0, 0), 1))
    assert driver.raft.commit_index == 2


def test_acknowledges_only_what_the_message_proves() -> None:
    driver = Driver(log_of(1, 1, 1))
    assert driver.exchange(append(2, (1, 1), 0)) == [AppendEntriesResponse(2, 0, True, 1)]


def test_a_leader_of_the_past_is_told() -> None:
    """Figure 2, AppendEntries receiver, rule 1; section 5.1."""
    driver = Driver(term=5)
    assert driver.exchange(append(4, (0, 0), 0, 4)) == [AppendEntriesResponse(5, 0, False, 0)]
    assert (driver.raft.leader, driver.raft.last_index) == (None, 0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (append(2, (0, 0), 0, 2, 2, 2), "append contradicts what is committed"),
        (append(2, (1, 2), 0, 2), "append contradicts what is committed"),
        (append(2, (0, 2), 0, 2), "append contradicts what is committed"),
        (append(2, (2, 1), 0, 2, leader=3), "second leader in one term"),
        (append(2, (2, 1), 0, 3), "malformed entries"),
        (append(2, (2, 2), 0, 1), "malformed entries"),
        (append(2, (2, 3), 0), "malformed entries"),
        (AppendEntries(2, 1, 2, 1, 0, (entry(2, 4),)), "malformed entries"),
    ],
)
def test_what_no_honest_leader_sends_is_ignored_and_counted(message: AppendEntries, reason: str) -> None:
    """A lying leader may stop the lane, never the process, and never what is committed."""
    driver = Driver(log_of(1, 1))
    driver.exchange(append(2, (2, 1), 2))
    assert driver.exchange(message) == []
    assert driver.raft.ignored == {reason: 1}
    assert (terms_of(driver), driver.raft.commit_index) == ([1, 1], 2)


def test_committed_entries_come_once_in_order_and_again_after_a_restart() -> None:
    driver = Driver()
    driver.exchange(append(1, (0, 0), 1, 1, 1, 1))
    driver.exchange(append(1, (0, 0), 3, 1, 1, 1))
    driver.exchange(append(1, (3, 1), 3))
    assert [item.index for item in driver.committed] == [1, 2, 3]
    raft = Raft(0, VOTERS, 3, random.Random(1), CONFIG, HardState(1, -1), log_of(1, 1, 1), applied_index=2)
    raft.step(1, append(1, (3, 1), 3), 10)
    assert [item.index for item in raft.take_ready().committed_entries] == [3]


# The leader


def test_a_proposal_to_another_replica_is_refused_at_once() -> None:
    """Seeded bug 18: a proposal dropped silently."""
    driver = Driver()
    assert driver.raft.propose(EntryKind.FRAME, b"x") is None
    driver.follow(1, 1)
    assert driver.raft.propose(EntryKind.FRAME, b"x") is None
    with pytest.raises(LocalMisuse, match="entry kind 256"):
        driver.raft.propose(256, b"")


def test_entries_leave_before_the_own_write_is_done() -> None:
    """Optimistic replication: the network and the leader's disk work at the same time."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    assert driver.raft.propose(EntryKind.FRAME, b"x") == 2
    ready = driver.take()
    message = AppendEntries(1, 0, 1, 1, 1, (entry(1, 2, b"x"),))
    assert [(item.destination, item.message) for item in ready.send_now] == [(to, message) for to in (1, 2, 3)]
    assert ready.send_after_sync == []


def test_a_leader_counts_itself_only_when_its_write_is_done() -> None:
    """A commit stands on a quorum of disks: two followers and the leader's own, still busy, disk are not three."""
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    driver.raft.propose(EntryKind.FRAME, b"x")
    writing = driver.take()
    driver.acknowledge(2, 1, 2)
    assert driver.raft.commit_index == 1
    driver.raft.persisted(writing)
    assert driver.raft.commit_index == 2
    assert [item.index for item in driver.take().committed_entries] == [2]


def test_followers_alone_can_commit() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    driver.raft.propose(EntryKind.FRAME, b"x")
    driver.take()
    driver.acknowledge(2, 1, 2, 3)
    assert (driver.raft.commit_index, driver.raft.durable_index) == (2, 1)


def test_a_quorum_larger_than_a_majority_commits() -> None:
    """Five voters with a quorum of four: the commit index is the fourth largest match."""
    driver = Driver(voters=(0, 1, 2, 3, 4), quorum_size=4)
    driver.wait(CONFIG.election_timeout_max_ns)
    for pre_vote in (True, False):
        for voter in (1, 2, 3):
            driver.step(RequestVoteResponse(1, voter, True, pre_vote))
        driver.drain()
    assert driver.raft.role is Role.LEADER
    driver.acknowledge(1, 1, 2)
    assert driver.raft.commit_index == 0
    driver.acknowledge(1, 3)
    assert driver.raft.commit_index == 1


def test_an_acknowledgement_counts_once_per_follower() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 1, 1)
    assert driver.raft.commit_index == 0


def test_entries_of_older_terms_are_not_committed_by_counting() -> None:
    """Section 5.4.2 and figure 8. Seeded bug 6."""
    driver = Driver(log_of(1, 2))
    driver.become_leader()
    driver.acknowledge(2, 1, 2, 3)
    assert driver.raft.commit_index == 0
    driver.acknowledge(3, 1, 2)
    assert driver.raft.commit_index == 3


def test_acknowledgements_of_another_term_do_not_count() -> None:
    """Seeded bug 4: an answer to an older leadership of the same replica."""
    driver = Driver(log_of(1, 2))
    driver.become_leader()
    for follower in (1, 2, 3):
        driver.step(AppendEntriesResponse(driver.raft.term - 1, follower, True, 3))
    assert driver.raft.commit_index == 0
    assert driver.raft.ignored["answer to an older leadership"] == 3


def test_a_match_beyond_the_log_is_ignored() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(99, 1, 2, 3)
    assert driver.raft.commit_index == 0
    assert driver.raft.ignored["match beyond the log"] == 3


def test_the_commit_index_is_told_without_waiting_for_a_heartbeat() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    told = [message for message in driver.drain() if isinstance(message, AppendEntries)]
    assert [(message.leader_commit, message.entries) for message in told] == [(1, ())] * 2


def test_proposals_between_two_drains_travel_together() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.drain()
    for number in range(5):
        driver.raft.propose(EntryKind.FRAME, b"%d" % number)
    sent = driver.take().send_now
    assert [len(item.message.entries) for item in sent if isinstance(item.message, AppendEntries)] == [5, 5, 5]


def one_follower(config: RaftConfig) -> Driver:
    """A leader that replicates to follower 1 only: the others stay in probe and say nothing more."""
    driver = Driver(config=config)
    driver.become_leader()
    driver.acknowledge(1, 1)
    driver.drain()
    return driver


def sent_to(driver: Driver, follower: int) -> list[AppendEntries]:
    sent = driver.take().send_now
    return [item.message for item in sent if item.destination == follower and isinstance(item.message, AppendEntries)]


def test_messages_are_bounded_by_count_and_bytes() -> None:
    size = 100 + ENTRY_OVERHEAD_BYTES
    driver = one_follower(RaftConfig(entries_per_append_max=3, bytes_per_append_max=2 * size))
    for payload in (bytes(100), bytes(100), bytes(100), bytes(900), b"", b"", b"", b""):
        driver.raft.propose(EntryKind.FRAME, payload)
    assert [[len(item.payload) for item in message.entries] for message in sent_to(driver, 1)] == [
        [100, 100], [100], [900], [0, 0, 0], [0],
    ]  # fmt: skip


def test_the_pipeline_is_bounded_and_freed_by_answers() -> None:
    driver = one_follower(RaftConfig(entries_per_append_max=1, inflight_appends_max=2))
    for _ in range(5):
        driver.raft.propose(EntryKind.FRAME, b"x")
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [1, 2]
    driver.acknowledge(2, 1)
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [3]
    driver.acknowledge(4, 1)
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [4, 5]


def test_the_pipeline_is_bounded_in_bytes_too() -> None:
    size = 100 + ENTRY_OVERHEAD_BYTES
    driver = one_follower(RaftConfig(entries_per_append_max=1, inflight_bytes_max=2 * size))
    for _ in range(5):
        driver.raft.propose(EntryKind.FRAME, bytes(100))
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [1, 2]
    assert driver.raft.status()["followers"][1]["inflight_bytes"] == 2 * size
    driver.acknowledge(2, 1)
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [3]


def test_uncommitted_bytes_are_bounded_by_refusing() -> None:
    """Seeded bug 18: a proposal dropped silently. A slow quorum must not fill the leader's memory either."""
    size = 100 + ENTRY_OVERHEAD_BYTES
    driver = Driver(config=RaftConfig(uncommitted_bytes_max=2 * size))
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    assert [driver.raft.propose(EntryKind.FRAME, bytes(100)) for _ in range(3)] == [2, 3, None]
    assert driver.raft.proposal_refusal(100) == "too many uncommitted bytes"
    assert driver.raft.status()["proposals_refused"] == {"too many uncommitted bytes": 1}
    assert driver.raft.last_index == 3
    driver.acknowledge(2, 1, 2, 3)
    assert driver.raft.propose(EntryKind.FRAME, bytes(100)) == 4
    driver.acknowledge(4, 1, 2, 3)
    assert driver.raft.propose(EntryKind.FRAME, bytes(900)) == 5


def test_what_an_older_term_left_uncommitted_is_not_counted() -> None:
    driver = Driver(log_of(1, 1), config=RaftConfig(uncommitted_bytes_max=2 * ENTRY_OVERHEAD_BYTES))
    driver.become_leader()
    assert driver.raft.status()["uncommitted_bytes"] == ENTRY_OVERHEAD_BYTES
    driver.acknowledge(3, 1, 2, 3)
    assert driver.raft.status()["uncommitted_bytes"] == 0


def test_a_ready_delivers_a_bounded_number_of_bytes() -> None:
    """A replica that catches up applies in steps, in order, each entry once; one entry always goes."""
    driver = Driver(config=RaftConfig(committed_bytes_per_ready_max=2 * ENTRY_OVERHEAD_BYTES))
    large = Entry(1, 4, EntryKind.FRAME, bytes(900))
    driver.step(AppendEntries(1, 1, 0, 0, 5, (*(entry(1, index) for index in (1, 2, 3)), large, entry(1, 5))))
    readies = []
    while not (ready := driver.take()).empty:
        readies.append([item.index for item in ready.committed_entries])
        driver.raft.persisted(ready)
    assert readies == [[1, 2], [3], [4], [5]]


def test_a_full_pipeline_recovers_after_loss() -> None:
    """Seeded bug 16: an in-flight window that is never freed. Both messages are lost; the heartbeat finds out."""
    driver = one_follower(RaftConfig(entries_per_append_max=1, inflight_appends_max=2))
    for _ in range(3):
        driver.raft.propose(EntryKind.FRAME, b"x")
    assert len(sent_to(driver, 1)) == 2
    driver.wait(CONFIG.heartbeat_ns)
    [heartbeat] = sent_to(driver, 1)
    assert (heartbeat.previous_log_index, heartbeat.entries) == (3, ())
    driver.step(AppendEntriesResponse(1, 1, False, 1))
    [probe] = sent_to(driver, 1)
    assert (probe.previous_log_index, len(probe.entries)) == (1, 1)
    driver.acknowledge(2, 1)
    assert [message.previous_log_index for message in sent_to(driver, 1)] == [2, 3]


def test_a_probe_is_sent_once_and_again_with_the_heartbeat() -> None:
    driver = Driver()
    driver.become_leader()
    driver.raft.propose(EntryKind.FRAME, b"x")
    assert sent_to(driver, 1) == []
    driver.wait(CONFIG.heartbeat_ns)
    [probe] = sent_to(driver, 1)
    assert (probe.previous_log_index, len(probe.entries)) == (0, 2)


def test_backs_off_to_the_hint_and_ignores_old_refusals() -> None:
    """Section 5.3: the leader goes back until the logs meet."""
    driver = Driver(log_of(1, 1, 2, 2))
    driver.become_leader()
    driver.step(AppendEntriesResponse(3, 1, False, 2, 1))
    [probe] = sent_to(driver, 1)
    assert (probe.previous_log_index, probe.previous_log_term, len(probe.entries)) == (2, 1, 3)
    driver.step(AppendEntriesResponse(3, 1, False, 2, 1))
    assert sent_to(driver, 1) == []
    driver.acknowledge(5, 1)
    driver.step(AppendEntriesResponse(3, 1, False, 1))
    assert driver.raft.ignored["old refusal"] == 2
    assert driver.raft.status()["followers"][1]["match"] == 5


def test_the_leader_skips_whole_terms_too() -> None:
    """End of section 5.3: the follower's last entries are of a term that this log never saw."""
    driver = Driver(log_of(1, 1, 3, 3, 3))
    driver.become_leader()
    driver.step(AppendEntriesResponse(4, 1, False, 4, 2))
    [probe] = sent_to(driver, 1)
    assert (probe.previous_log_index, probe.previous_log_term, len(probe.entries)) == (2, 1, 4)


def test_readys_are_persisted_once_each_and_in_order() -> None:
    driver = Driver()
    driver.become_leader()
    driver.raft.propose(EntryKind.FRAME, b"x")
    first = driver.take()
    driver.raft.propose(EntryKind.FRAME, b"y")
    second = driver.take()
    with pytest.raises(LocalMisuse, match="in the order"):
        driver.raft.persisted(second)
    driver.raft.persisted(first)
    with pytest.raises(LocalMisuse, match="once each"):
        driver.raft.persisted(first)
    driver.raft.persisted(second)
    assert driver.raft.durable_index == 3


def test_status_is_plain_data() -> None:
    driver = Driver()
    driver.become_leader()
    driver.acknowledge(1, 2)
    status = driver.raft.status()
    assert (status["role"], status["term"], status["leader"], status["quorum_size"]) == ("leader", 1, 0, 3)
    follower = {"state": "replicate", "match": 1, "next": 2, "inflight": 0, "inflight_bytes": 0, "silent_ns": 0}
    assert status["followers"][2] == follower | {"round": 0, "promises_broken": 0, "waits": False}


# Connections


def test_a_follower_that_comes_back_with_less_is_brought_up_to_date() -> None:
    """Another process under its name, with another disk, had acknowledged what the true one lacks."""
    leader = Driver(log_of(1, 1, 1))
    leader.become_leader()
    term = leader.raft.term
    leader.acknowledge(4, 1, 2, 3)
    assert leader.raft.commit_index == 4
    leader.raft.peer_connected(3, leader.now_ns)
    assert leader.drain()[-1] == AppendEntries(term, 0, 4, term, 4, ())
    sent = leader.exchange(AppendEntriesResponse(term, 3, False, 1, 1))
    assert [item.index for item in sent[-1].entries] == [2, 3, 4]
    assert leader.raft.status()["followers"][3]["promises_broken"] == 1
    leader.acknowledge(4, 3)
    assert leader.raft.commit_index == 4
    assert leader.raft.status()["followers"][3]["match"] == 4


def test_a_new_connection_asks_again_and_takes_nothing_back() -> None:
    leader = Driver(log_of(1, 1, 1))
    leader.become_leader()
    leader.acknowledge(4, 1, 2, 3)
    leader.raft.propose(EntryKind.FRAME, b"on the old connection")
    leader.drain()
    for follower in (1, 2, 3):
        leader.raft.peer_connected(follower, leader.now_ns)
    assert leader.raft.commit_index == 4
    asked = leader.drain()
    assert {message.previous_log_index for message in asked} == {5}
    leader.acknowledge(5, 1, 2)
    assert leader.raft.commit_index == 5
    assert leader.raft.status()["followers"][1]["promises_broken"] == 0


def test_a_new_connection_means_nothing_to_a_follower() -> None:
    follower = Driver(log_of(1))
    follower.follow(1, 2)
    follower.raft.peer_connected(1, follower.now_ns)
    assert follower.drain() == []
