"""Thrift: entries go at once to as many followers as a quorum needs, and to the others a little later."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.raft.config import RaftConfig
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse
from tests.oracles.raft_driver import CONFIG, Driver

MS = 1_000_000
DELAY_NS = 10 * MS
THRIFTY = RaftConfig(thrift_delay_ns=DELAY_NS)


def answer(driver: ThriftyDriver, *followers: int) -> None:
    """They confirm all of the log in the latest round."""
    number = max(message.round for _, message in driver.sent if isinstance(message, AppendEntries))
    for follower in followers:
        response = AppendEntriesResponse(driver.raft.term, follower, True, driver.raft.last_index, 0, number)
        driver.step(response)


class ThriftyDriver(Driver):
    """A leader of four with a quorum of three that keeps who was sent what."""

    def __init__(self, config: RaftConfig = THRIFTY, **settings: object) -> None:
        super().__init__(config=config, **settings)  # type: ignore[arg-type]
        self.sent: list[tuple[int, object]] = []
        self.become_leader()
        self.acknowledge(1, 1, 2, 3)
        self.drain()
        self.heartbeat()

    def told(self) -> dict[int, list[int]]:
        """By follower, the indices of the entries that leave now."""
        told: dict[int, list[int]] = {}
        while not (ready := self.take()).empty:
            for item in ready.send_now:
                self.sent.append((item.destination, item.message))
                if isinstance(item.message, AppendEntries) and item.message.entries:
                    told.setdefault(item.destination, []).extend(entry.index for entry in item.message.entries)
            self.raft.persisted(ready)
            self.raft.check_invariants()
        return told

    def heartbeat(self, *silent: int) -> dict[int, list[int]]:
        """The next one, which all but the ``silent`` ones answer with all they got."""
        self.wait(self.raft.config.heartbeat_ns)
        told = self.told()
        answer(self, *({1, 2, 3} - set(silent)))
        self.told()
        return told

    def write(self) -> dict[int, list[int]]:
        assert self.raft.propose(EntryKind.FRAME, b"x") is not None
        return self.told()

    def waiting(self) -> set[int]:
        return {follower for follower, picture in self.raft.status()["followers"].items() if picture["waits"]}


def test_without_a_delay_everybody_gets_entries_at_once() -> None:
    assert ThriftyDriver(CONFIG).write() == {1: [2], 2: [2], 3: [2]}


def test_nobody_waits_before_the_first_heartbeat() -> None:
    driver = Driver(config=THRIFTY)
    driver.become_leader()
    driver.acknowledge(1, 1, 2, 3)
    driver.raft.propose(EntryKind.FRAME, b"x")
    assert len([message for message in driver.drain() if isinstance(message, AppendEntries) and message.entries]) == 3


def test_a_quorum_with_the_leader_gets_entries_at_once_and_commits_them() -> None:
    driver = ThriftyDriver()
    assert driver.write() == {1: [2], 2: [2]}
    driver.acknowledge(2, 1, 2)
    assert driver.raft.commit_index == 2


def test_the_others_get_theirs_together_when_their_time_has_come() -> None:
    driver = ThriftyDriver()
    driver.write()
    assert driver.raft.next_deadline_ns() == driver.now_ns + DELAY_NS
    driver.wait(6 * MS)
    assert driver.write() == {1: [3], 2: [3]}
    driver.acknowledge(3, 1, 2)
    driver.wait(4 * MS)
    assert driver.told() == {3: [2, 3]}
    assert driver.waiting() == {3}, "all was committed, so the thrift goes on"
    assert driver.write() == {1: [4], 2: [4]}


def test_a_heartbeat_brings_what_is_missing() -> None:
    driver = ThriftyDriver(dataclasses.replace(THRIFTY, thrift_delay_ns=10 * CONFIG.heartbeat_ns))
    driver.write()
    assert driver.heartbeat() == {3: [2]}


def test_what_is_not_committed_in_time_goes_to_everybody_and_ends_the_thrift() -> None:
    driver = ThriftyDriver()
    driver.write()
    driver.acknowledge(2, 1)
    driver.wait(DELAY_NS)
    assert driver.told() == {3: [2]}
    driver.acknowledge(2, 3)
    assert driver.raft.commit_index == 2
    assert driver.waiting() == set()
    assert driver.write() == {1: [3], 2: [3], 3: [3]}


def test_who_was_late_waits_from_the_next_heartbeat_on() -> None:
    driver = ThriftyDriver()
    driver.write()
    driver.acknowledge(2, 1)
    driver.wait(DELAY_NS)
    driver.told()
    driver.heartbeat()
    assert driver.waiting() == {2}, "although it has all of the log by now"


def test_a_liar_that_answers_late_is_waited_for_once() -> None:
    """It answers every heartbeat with all of the log, and entries never."""
    driver, stalls = ThriftyDriver(), 0
    for _ in range(20):
        driver.write()
        driver.acknowledge(driver.raft.last_index, *({1, 3} - driver.waiting()))
        if driver.raft.commit_index < driver.raft.last_index:
            stalls += 1
            driver.wait(DELAY_NS)
            driver.told()
            driver.acknowledge(driver.raft.last_index, 1, 3)
        assert driver.raft.commit_index == driver.raft.last_index
        driver.heartbeat()
    assert stalls == 1


def test_who_is_silent_waits() -> None:
    driver = ThriftyDriver()
    for _ in range(3):
        driver.heartbeat(1)
    assert driver.waiting() == {1}


def test_a_follower_that_is_gone_does_not_end_the_thrift() -> None:
    config = dataclasses.replace(THRIFTY, entries_per_append_max=4, inflight_appends_max=2)
    driver = ThriftyDriver(config, voters=(0, 1, 2, 3, 4))
    for _ in range(8):
        driver.heartbeat(4)
        for _ in range(3):
            driver.write()
    assert driver.waiting() == {3, 4}


def test_when_too_few_keep_up_nobody_waits() -> None:
    driver = ThriftyDriver()
    for _ in range(3):
        driver.heartbeat(1, 2)
    assert driver.waiting() == set()


def test_who_is_prompt_never_waits() -> None:
    driver = ThriftyDriver(dataclasses.replace(THRIFTY, prompt=frozenset({3})))
    assert driver.waiting() == {2}
    driver = ThriftyDriver(dataclasses.replace(THRIFTY, prompt=frozenset({1, 2, 3})))
    assert driver.waiting() == set()


def test_a_message_full_of_entries_goes_without_waiting() -> None:
    driver = ThriftyDriver(dataclasses.replace(THRIFTY, entries_per_append_max=4))
    for _ in range(3):
        assert 3 not in driver.write()
    assert driver.write()[3] == [2, 3, 4, 5]
    assert driver.waiting() == set()


def test_a_busy_leader_is_not_thrifty() -> None:
    driver = ThriftyDriver(dataclasses.replace(THRIFTY, entries_per_append_max=4))
    for _ in range(5):
        driver.write()
    driver.heartbeat()
    assert driver.waiting() == set()
    driver.heartbeat()
    assert driver.waiting() == {3}, "nothing was written since"


def test_a_new_leader_to_be_gets_everything_at_once() -> None:
    driver = ThriftyDriver()
    driver.write()
    assert driver.raft.transfer_leadership(3, driver.now_ns) is None
    assert driver.told() == {3: [2]}


def test_nobody_waits_while_the_membership_changes() -> None:
    driver = ThriftyDriver(roster=(0, 1, 2, 3, 4), quorum_size=lambda voters: voters // 2 + 1)
    assert driver.waiting() == {3}
    assert driver.raft.propose_membership((0, 1, 2, 3, 4)) is None
    assert set(driver.told()) == {1, 2, 3}
    driver.heartbeat()
    assert driver.waiting() == set()


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="thrift_delay_ns is -1"):
        RaftConfig(thrift_delay_ns=-1)
