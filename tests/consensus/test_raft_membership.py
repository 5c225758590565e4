"""Membership: section 6 of the Raft paper and chapter 4 of the thesis."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.quorum import Quorum
from consensus.raft.config import Role
from consensus.raft.configuration import Configuration, change, decode_configuration
from consensus.raft.core import Raft
from consensus.raft.log import Log
from consensus.raft.membership import Membership
from consensus.raft.snapshot import make_snapshot
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse, PeerViolation
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, TimeoutNow
from tests.oracles.raft_driver import CONFIG, Driver, entry
from tests.sim.plan import byzantine_quorum, majority

ROSTER = (0, 1, 2, 3, 4, 5)


def leader(voters: tuple[int, ...] = (0, 1, 2)) -> Driver:
    """With a majority as quorum; its first entry is committed."""
    driver = Driver(voters=voters, quorum_size=majority, roster=ROSTER)
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    return driver


def follower_of(configuration: Configuration, commit: int = 0) -> Driver:
    driver = Driver(voters=(0, 1, 2), quorum_size=majority, roster=ROSTER)
    driver.exchange(AppendEntries(1, 1, 0, 0, commit, (changing(1, configuration),)))
    return driver


def changing(index: int, configuration: Configuration, term: int = 1) -> Entry:
    return Entry(term, index, EntryKind.MEMBERSHIP, configuration.encode())


def committed(driver: Driver, index: int, *followers: int) -> bool:
    driver.acknowledge(index, *followers)
    driver.drain()
    return driver.raft.commit_index >= index


# The leader


def test_a_configuration_holds_once_it_is_in_the_log() -> None:
    """Section 6: the latest one that a server has holds for it, committed or not."""
    driver = leader()
    assert driver.raft.propose_membership((0, 3, 4)) is None
    assert driver.raft.membership.current == Configuration((0, 3, 4), (0, 1, 2))
    assert set(driver.raft.status()["followers"]) == {1, 2, 3, 4}
    assert not committed(driver, 2, 1, 2)
    assert committed(driver, 2, 3)


def test_both_quorums_while_joint() -> None:
    """Section 6, agreement needs separate majorities. Seeded bug 13."""
    driver = leader()
    driver.raft.propose_membership((0, 3, 4), auto_leave=False)
    driver.drain()
    assert not committed(driver, 2, 3, 4)
    assert committed(driver, 2, 1)


def test_the_quorum_size_follows_the_number_of_voters() -> None:
    """Four voters that bear one liar need three, seven that bear two need five."""
    driver = Driver(quorum_size=byzantine_quorum, roster=tuple(range(7)))
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    driver.drain()
    driver.raft.propose_membership(range(7), auto_leave=False)
    driver.drain()
    assert not committed(driver, 2, 1, 2, 3)
    assert committed(driver, 2, 4)
    assert driver.raft.status()["quorum_size"] == 5


def test_learners_count_for_nothing() -> None:
    """Thesis 4.2.1. Seeded bug 14. Their answers do not keep a leader in office either."""
    driver = leader()
    assert driver.raft.propose_membership((0, 1, 2), (3, 4, 5)) is None
    driver.drain()
    assert not committed(driver, 2, 3, 4, 5)
    for _ in range(30):
        driver.wait(CONFIG.heartbeat_ns)
        driver.acknowledge(2, *(learner for learner in (3, 4, 5) if driver.role() is Role.LEADER))
        driver.drain()
    assert driver.role() is not Role.LEADER
    assert driver.raft.quorum_losses == 1


def test_a_voter_that_becomes_a_learner_votes_until_the_change_ends() -> None:
    driver = leader()
    driver.raft.propose_membership((0, 1), (2,), auto_leave=False)
    current = driver.raft.membership.current
    assert (current.outgoing, current.learners, current.votes(2)) == ((0, 1, 2), (2,), True)
    driver.drain()
    committed(driver, 2, 1, 2)
    assert driver.raft.leave_joint() is None
    assert not driver.raft.membership.current.votes(2)
    assert set(driver.raft.status()["followers"]) == {1, 2}


def test_the_joint_configuration_ends_by_itself_once_committed() -> None:
    driver = leader()
    driver.raft.propose_membership((0, 1, 3))
    driver.drain()
    assert driver.raft.membership.current.joint
    committed(driver, 2, 1, 3)
    assert driver.raft.membership.current == Configuration((0, 1, 3))
    assert (driver.raft.membership.index, driver.raft.last_index) == (3, 3)
    committed(driver, 3, 1, 3)
    assert driver.raft.last_index == 3


def test_a_leader_that_is_left_out_leads_until_that_is_committed() -> None:
    """Section 6, second issue: it manages a cluster that does not include itself, and does not count itself."""
    driver = leader()
    driver.raft.propose_membership((1, 2, 3))
    driver.drain()
    committed(driver, 2, 1, 2, 3)
    assert driver.role() is Role.LEADER
    assert not committed(driver, 3, 1)
    assert committed(driver, 3, 2)
    assert (driver.role(), driver.raft.leader) == (Role.FOLLOWER, None)
    driver.now_ns += 10 * CONFIG.election_timeout_max_ns
    driver.wait(0)
    assert driver.role() is Role.FOLLOWER


def test_a_new_leader_ends_the_change_that_it_finds() -> None:
    driver = follower_of(Configuration((0, 1, 3), (0, 1, 2)))
    driver.wait(CONFIG.election_timeout_max_ns * 2)
    driver.drain()
    for pre_vote in (True, False):
        for voter in (1, 3):
            driver.step(RequestVoteResponse(2, voter, True, pre_vote))
        driver.drain()
    assert driver.role() is Role.LEADER
    assert committed(driver, 2, 1, 3)
    assert driver.raft.membership.current == Configuration((0, 1, 3))


def test_one_change_at_a_time() -> None:
    driver = leader()
    driver.raft.propose_membership((0, 1, 2), (3,))
    assert driver.raft.propose_membership((0, 1, 2), (4,)) == "membership change under way"
    driver.drain()
    committed(driver, 2, 1)
    assert driver.raft.propose_membership((0, 1, 3), auto_leave=False) is None
    assert driver.raft.leave_joint() == "membership change under way"
    driver.drain()
    committed(driver, 3, 1, 3)
    assert driver.raft.propose_membership((0, 1, 2)) == "membership change under way"
    assert driver.raft.leave_joint() is None
    assert driver.raft.leave_joint() == "no joint configuration"


def test_no_change_before_an_entry_of_the_term_is_committed() -> None:
    driver = Driver(voters=(0, 1, 2), quorum_size=majority, roster=ROSTER)
    driver.become_leader()
    assert driver.raft.propose_membership((0, 1, 2), (3,)) == "no entry of this term is committed"
    driver.acknowledge(1, 1)
    driver.raft.transfer_leadership(1, driver.now_ns)
    assert driver.raft.propose_membership((0, 1, 2), (3,)) == "leadership transfer"


def test_voters_that_never_change_need_no_function() -> None:
    driver = Driver(roster=ROSTER)
    driver.become_leader()
    driver.acknowledge(1, 1, 2)
    assert driver.raft.propose_membership((0, 1, 2, 3, 4)) == "no quorum size for so many voters"
    assert driver.raft.propose_membership((0, 1, 2, 3), (4,)) is None


def test_a_profiles_quorum_for_another_number_of_voters() -> None:
    assert [Quorum(4, 1).size_for(n) for n in (3, 4, 5, 6, 7)] == [0, 3, 4, 4, 5]
    assert [Quorum(3, 1, "raft").size_for(n) for n in (2, 3, 4, 5)] == [0, 2, 3, 3]


def test_only_voters_take_over() -> None:
    driver = leader()
    driver.raft.propose_membership((0, 1, 2), (3,))
    assert driver.raft.transfer_leadership(3, driver.now_ns) == "no other voter"
    follower = follower_of(Configuration((1, 2, 3)), commit=1)
    follower.exchange(TimeoutNow(1, 1))
    assert follower.raft.ignored == {"no voter": 1}


def test_an_answer_of_somebody_else_counts_for_nothing() -> None:
    driver = leader()
    driver.step(AppendEntriesResponse(1, 5, True, 1))
    assert driver.raft.ignored["answer of no member"] == 1


def test_configurations_have_their_own_way_in() -> None:
    with pytest.raises(LocalMisuse, match="propose_membership"):
        leader().raft.propose(EntryKind.MEMBERSHIP, b"")


# Followers


def test_a_configuration_ends_with_its_entry() -> None:
    """It may be overwritten like any other; the one before it holds again."""
    driver = follower_of(Configuration((0, 1, 2), (), (3,)))
    assert driver.raft.membership.current.learners == (3,)
    driver.exchange(AppendEntries(2, 2, 0, 0, 0, (entry(2, 1),)))
    assert driver.raft.membership.current == Configuration((0, 1, 2))


def test_a_restart_changes_nothing_and_nothing_happens_twice() -> None:
    """Seeded bug 17. What holds is a function of the log, whatever was applied before the crash."""
    log = [entry(1, 1), changing(2, Configuration((0, 1, 3), (0, 1, 2))), changing(3, Configuration((0, 1, 3)))]
    for applied in range(4):
        driver = Driver(log, voters=(0, 1, 2), quorum_size=majority, roster=ROSTER, applied_index=applied)
        assert (driver.raft.membership.current, driver.raft.membership.index) == (Configuration((0, 1, 3)), 3)
        driver.exchange(AppendEntries(1, 1, 3, 1, 3, ()))
        assert (driver.raft.membership.current, driver.raft.last_index) == (Configuration((0, 1, 3)), 3)


def test_a_learner_and_one_who_is_out_do_not_stand() -> None:
    for configuration in (Configuration((1, 2, 3), (), (0,)), Configuration((1, 2, 3))):
        driver = follower_of(configuration, commit=1)
        driver.wait(10 * CONFIG.election_timeout_max_ns)
        assert (driver.role(), driver.drain()) == (Role.FOLLOWER, [])
        deadline_ns = driver.raft.next_deadline_ns()
        assert deadline_ns is not None and deadline_ns > driver.now_ns


def test_one_who_is_left_out_stands_until_that_is_committed() -> None:
    """Thesis 4.2.2: its log may be the only one that can win. It does not count its own vote."""
    driver = follower_of(Configuration((1, 2, 3)))
    driver.wait(10 * CONFIG.election_timeout_max_ns)
    assert driver.role() is Role.PRE_CANDIDATE
    driver.step(RequestVoteResponse(2, 1, True, True))
    assert driver.role() is Role.PRE_CANDIDATE
    driver.step(RequestVoteResponse(2, 2, True, True))
    assert driver.role() is Role.CANDIDATE


@pytest.mark.parametrize("payload", [b"", b"\xc0", Configuration(()).encode(), Configuration((2, 1)).encode()])
def test_an_entry_that_holds_no_configuration_changes_nothing(payload: bytes) -> None:
    driver = Driver(voters=(0, 1, 2), quorum_size=majority)
    driver.exchange(AppendEntries(1, 1, 0, 0, 1, (Entry(1, 1, EntryKind.MEMBERSHIP, payload),)))
    assert (driver.raft.membership.current, driver.raft.membership.malformed) == (Configuration((0, 1, 2)), 1)
    with pytest.raises(PeerViolation):
        decode_configuration(payload)


def test_a_snapshot_carries_the_membership() -> None:
    config = dataclasses.replace(CONFIG, snapshots=True)
    driver = Driver(voters=(0, 1, 2), quorum_size=majority, roster=ROSTER, config=config)
    target = Configuration((1, 3), (), (0,))
    snapshot = make_snapshot(5, 1, target.encode(), b"state")
    driver.exchange(InstallSnapshot(1, 1, 5, 1, snapshot.membership, snapshot.digest, 5, 0, b"state", 0))
    assert driver.raft.membership.current == target
    again = Raft(0, (0, 1, 2), majority, driver.raft._rng, config, driver.raft._writes._handed_hard_state, (),
                 snapshot=snapshot, log_base=(5, 1), roster=ROSTER)  # fmt: skip
    assert again.membership.current == target
    bad = InstallSnapshot(1, 1, 9, 1, b"", snapshot.digest, 5, 0, b"state", 0)
    driver.exchange(bad)
    assert driver.raft.ignored["membership_malformed"] == 1


def test_compaction_remembers_what_held_at_the_snapshot() -> None:
    driver = leader()
    driver.raft.propose_membership((0, 1, 2), (3,))
    driver.drain()
    committed(driver, 2, 1)
    driver.raft.propose_membership((0, 1, 2), (4,))
    driver.drain()
    driver.raft.compact(2, b"")
    assert driver.raft.snapshot is not None
    assert decode_configuration(driver.raft.snapshot.membership) == Configuration((0, 1, 2), (), (3,))
    driver.raft.check_invariants()


# The parts

GROUPS = st.sets(st.integers(0, 5), min_size=1, max_size=5).map(lambda group: tuple(sorted(group)))


@given(GROUPS, st.one_of(st.just(()), GROUPS), st.dictionaries(st.integers(0, 7), st.integers(0, 9)), st.booleans())
def test_quorums_against_all_subsets(
    voters: tuple[int, ...], outgoing: tuple[int, ...], values: dict[int, int], byzantine: bool
) -> None:
    """The agreed value is the largest for which some quorum of each group has that much, by trying them all."""
    size = byzantine_quorum if byzantine else majority
    membership = Membership(Configuration(voters, outgoing, (6, 7)), 0, size)

    def agree(value: int) -> bool:
        return all(
            any(
                all(values.get(one, 0) >= value for one in some)
                for some in itertools.combinations(group, size(len(group)))
            )
            for group in (voters, outgoing)
            if group
        )

    assert membership.agreed(values) == max(value for value in range(10) if agree(value))
    assert membership.reached({one for one, value in values.items() if value >= 5}) == agree(5)


@given(GROUPS, GROUPS, st.booleans())
def test_quorums_of_neighbouring_configurations_share_a_voter(
    old: tuple[int, ...], new: tuple[int, ...], byzantine: bool
) -> None:
    """Why a change is safe: a quorum before and one while joint meet, as do one while joint and one after."""
    size = byzantine_quorum if byzantine else majority
    before = Configuration(old)
    during = change(before, new, (), True)
    after = during.left() if during.joint else during
    everybody = sorted({*old, *new})
    subsets = [set(some) for count in range(len(everybody) + 1) for some in itertools.combinations(everybody, count)]

    def quorums(configuration: Configuration) -> list[set[int]]:
        membership = Membership(configuration, 0, size)
        return [some for some in subsets if membership.reached(some)]

    for one, other in ((before, during), (during, after)):
        assert all(first & second for first in quorums(one) for second in quorums(other))


@given(st.lists(st.tuples(st.sampled_from(("plain", "change", "cut", "compact")), st.integers(0, 9)), max_size=30))
def test_the_history_follows_the_log(steps: list[tuple[str, int]]) -> None:
    first = Configuration((0, 1, 2))
    log, membership, base = Log(), Membership(first, 0, majority), first
    log.watch(membership)
    term, compacted = 1, 0
    for verb, number in steps:
        last = log.last_index
        if verb == "plain":
            log.append((entry(term, last + 1),))
        elif verb == "change":
            log.append((changing(last + 1, Configuration((0, 1, 2), (), (number,) if number > 2 else ()), term),))
        elif verb == "cut" and last > compacted:
            term += 1
            log.append((entry(term, max(compacted, last - number % 4) + 1),))
        elif verb == "compact" and last:
            compacted = max(compacted, last - number)
            base = membership.at(compacted)
            membership.compacted(compacted)
        held = [each for each in log.entries_from(compacted + 1) if each.kind == EntryKind.MEMBERSHIP]
        assert membership.current == (decode_configuration(held[-1].payload) if held else base)
        for index in range(compacted, log.last_index + 1):
            before = [each for each in held if each.index <= index]
            assert membership.at(index) == (decode_configuration(before[-1].payload) if before else base)
