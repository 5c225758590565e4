"""The decision log: chains that replicas compare."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consensus.decisions import DecisionLog
from protocol.messages import Outcome
from tests.oracles.pbft_cluster import make_command, make_slot
from tests.oracles.signed_frames import make_vote

outcomes = st.builds(
    Outcome,
    st.integers(1, 5),
    st.sampled_from([b"d" * 32, b"e" * 32]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    st.just(()),
)


def chain(history: list[Outcome]) -> DecisionLog:
    log = DecisionLog()
    for outcome in history:
        log.append_lane(outcome)
    return log


@given(st.lists(outcomes, max_size=4), st.lists(outcomes, max_size=4))
def test_equal_heads_mean_equal_histories(one: list[Outcome], other: list[Outcome]) -> None:
    first, second = chain(one), chain(other)
    assert ((first.lane_length, first.lane_head) == (second.lane_length, second.lane_head)) == (one == other)


def test_votes_are_evidence_and_no_part_of_the_history() -> None:
    by_some = Outcome(8, b"d" * 32, (0,), (make_vote(0), make_vote(1), make_vote(2)))
    by_others = Outcome(8, b"d" * 32, (0,), (make_vote(1), make_vote(2), make_vote(3)))
    assert chain([by_some]) == chain([by_others])


def test_paths_have_chains_of_their_own() -> None:
    log = chain([Outcome(1, b"d" * 32, (0,), ())])
    lane = (log.lane_length, log.lane_head)
    log.append_spine(make_slot(1, make_command(1)))
    log.append_spine(make_slot(2, make_command(2)))
    assert (log.lane_length, log.lane_head) == lane and log.spine_length == 2
    summary = log.summary()
    assert summary["spine_head"] == log.spine_head.hex() and summary["lane_length"] == 1


def test_slots_in_another_order_make_another_chain() -> None:
    one, other = DecisionLog(), DecisionLog()
    first, second = make_slot(1, make_command(1)), make_slot(1, make_command(2))
    one.append_spine(first)
    other.append_spine(second)
    assert one.spine_head != other.spine_head
