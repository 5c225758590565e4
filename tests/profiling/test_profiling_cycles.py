"""The cut of a cycle into stages, against boundaries worked out by hand (in milliseconds)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.cycles import CycleSamples, Rules, cut_cycles
from profiling.stages import MARKS, Operation
from tests.oracles.profiling_traces import AGENTS, EPOCH_NS, MS, HandTrace


def cut(hand: HandTrace, **changes: Any) -> CycleSamples:
    given: dict[str, Any] = {"trader_ids": ["trader-1", "trader-2"], "executor_ids": ["executor-1"], "quorum": 3}
    return cut_cycles(hand.trace(), Rules(**given | changes))


def stages_ms(samples: CycleSamples, row: int = 0) -> list[float]:
    return [float(ns) / MS for ns in samples.stage_ns[row][samples.passed[row]]]


def test_a_whole_cycle() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    samples = cut(hand)
    # market data to 2, patterns to 5, risk to 6, FRAME_SIGN to 8, third of 10 11 12 19, certified 20, released 23, 30.
    assert stages_ms(samples) == [2, 3, 1, 2, 4, 8, 3, 7]
    assert samples.duration_ns.tolist() == [30 * MS]
    assert samples.incomplete == {}
    assert samples.start_ns.tolist() == [EPOCH_NS]


@pytest.mark.parametrize(("quorum", "coordination_ms", "consensus_ms"), [(1, 2, 10), (2, 3, 9), (3, 4, 8), (4, 11, 1)])
def test_coordination_ends_with_the_quorum_not_with_the_last(
    quorum: int, coordination_ms: float, consensus_ms: float
) -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    assert stages_ms(cut(hand, quorum=quorum))[4:6] == [coordination_ms, consensus_ms]


def test_an_agent_that_verifies_twice_counts_once_at_its_first() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.add("risk-1", Operation.FRAME_VERIFIED, 8, 9, frame=77)
    hand.add("risk-2", Operation.FRAME_VERIFIED, 9, 18, frame=77)
    assert stages_ms(cut(hand))[4] == 4  # 9, 11, 12: still risk-2 at 12


def test_two_frames_end_with_the_slower_one() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out(frame=77)
    for agent, end_ms in (("risk-1", 9), ("risk-2", 14), ("risk-4", 15)):
        hand.add(agent, Operation.FRAME_VERIFIED, 8, end_ms, frame=78)
    hand.add("executor-1", Operation.CERTIFIED, 8, 18, frame=78)
    hand.add("executor-1", Operation.RELEASED, 18, 26, frame=78)
    hand.add("trader-1", Operation.CONFIRMED, 26, 28)
    # frame 78 is verified at 15 (77: 12), certified at 18 (77: 20), released at 26 (77: 23); last confirmation at 30.
    assert stages_ms(cut(hand))[4:] == [7, 5, 6, 4]


def test_boundaries_are_clipped_never_negative() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.add("trader-1", Operation.MARK_POSITIONS, 2, 5.5)  # market data ends after pattern matching
    hand.rows = [row for row in hand.rows if row[4] != Operation.CERTIFIED]
    hand.add("executor-1", Operation.CERTIFIED, 8, 11)  # frame 0: an own frame, never verified
    hand.rows[-1] = (*hand.rows[-1][:3], 77, *hand.rows[-1][4:])
    # market data to 5.5, patterns 5 clipped to 5.5, risk to 6, signal to 8, verified 12, certified 11 clipped to 12.
    assert stages_ms(cut(hand)) == [5.5, 0, 0.5, 2, 4, 0, 11, 7]


def test_a_confirmation_before_the_release_adds_nothing() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.rows = [row for row in hand.rows if row[4] != Operation.CONFIRMED]
    hand.add("trader-1", Operation.CONFIRMED, 20, 22)
    assert stages_ms(cut(hand))[6:] == [3, 0]


def test_a_cycle_without_orders_has_four_stages() -> None:
    hand = HandTrace()
    hand.decide()
    samples = cut(hand)
    assert samples.passed.tolist() == [[True] * 4 + [False] * 4]
    assert stages_ms(samples) == [2, 3, 1, 1]
    assert samples.duration_ns.tolist() == [7 * MS]


def test_a_stage_without_records_takes_no_time() -> None:
    hand = HandTrace()
    hand.add("trader-1", Operation.FEED_NEXT, 0, 2)
    hand.add("trader-1", Operation.SIGNAL_DECIDE, 3, 4)
    assert stages_ms(cut(hand)) == [2, 0, 0, 2]


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (Operation.FEED_NEXT, "start_lost"),
        (Operation.FRAME_VERIFIED, "coordination"),
        (Operation.CERTIFIED, "consensus"),
        (Operation.RELEASED, "order_execution"),
        (Operation.CONFIRMED, "order_confirmation"),
    ],
)
def test_an_incomplete_cycle_is_counted_apart(missing: Operation, reason: str) -> None:
    hand = HandTrace()
    for cycle, at_ms in ((1, 0), (2, 100)):
        hand.decide(cycle, at_ms)
        hand.carry_out(cycle, at_ms)
    hand.rows = [row for row in hand.rows if (row[2], row[4]) != (1, missing)]
    samples = cut(hand)
    assert samples.trace.tolist() == [2]
    assert samples.incomplete == {reason: 1}


def test_a_trader_killed_before_its_signal_leaves_an_incomplete_cycle() -> None:
    hand = HandTrace()
    hand.add("trader-1", Operation.FEED_NEXT, 0, 2)
    hand.add("trader-1", Operation.DTW_SEARCH, 2, 5)
    assert cut(hand).incomplete == {"strategy_signal": 1}


def test_a_frame_signed_and_never_seen_again_is_incomplete() -> None:
    hand = HandTrace()
    hand.decide()
    hand.add("trader-1", Operation.FRAME_SIGN, 7, 8)
    assert cut(hand).incomplete == {"coordination": 1}


def test_a_second_frame_that_only_its_signature_names_is_missed() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.add("trader-1", Operation.FRAME_SIGN, 7, 8, frame=78)
    assert cut(hand).incomplete == {"coordination": 1}


def test_every_order_needs_its_confirmation_where_their_number_is_known() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    assert cut(hand, orders_by_cycle={1: 2}).incomplete == {"order_confirmation": 1}
    hand.add("trader-1", Operation.CONFIRMED, 23, 35)
    assert stages_ms(cut(hand, orders_by_cycle={1: 2}))[7] == 12


def test_marks_of_the_wrong_role_do_not_count() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.add("risk-1", Operation.CERTIFIED, 8, 90, frame=77)
    hand.add("risk-1", Operation.RELEASED, 8, 91, frame=77)
    hand.add("executor-1", Operation.CONFIRMED, 8, 92)
    assert cut(hand).duration_ns.tolist() == [30 * MS]


def test_a_denied_frame_ends_with_consensus() -> None:
    hand = HandTrace()
    hand.decide()
    hand.add("trader-1", Operation.FRAME_SIGN, 7, 8, frame=77)
    hand.add("risk-1", Operation.FRAME_VERIFIED, 8, 11, frame=77)
    hand.add("risk-2", Operation.FRAME_VERIFIED, 8, 12, frame=77)
    assert cut(hand).incomplete == {"coordination": 1}
    samples = cut(hand, denied_frames={77})
    assert stages_ms(samples) == [2, 3, 1, 2, 4, 0]
    hand.add("executor-1", Operation.CERTIFIED, 8, 15, frame=77)
    assert stages_ms(cut(hand, denied_frames={77})) == [2, 3, 1, 2, 4, 3]


def test_a_denied_frame_beside_an_approved_one_needs_no_release() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out(frame=77)
    hand.add("risk-1", Operation.FRAME_VERIFIED, 8, 13, frame=78)
    assert stages_ms(cut(hand, denied_frames={78}))[4:] == [5, 7, 3, 7]


def test_a_cycle_begun_again_after_a_restart_is_cut_from_its_last_start() -> None:
    hand = HandTrace()
    hand.decide(at_ms=0, life=0)
    for agent in ("risk-1", "risk-2", "risk-3"):
        hand.add(agent, Operation.FRAME_VERIFIED, 8, 9, frame=77)
    hand.decide(at_ms=100, life=1)
    hand.carry_out(at_ms=100)
    hand.rows = [(*row[:7], 1) if row[4] == Operation.FRAME_SIGN else row for row in hand.rows]
    samples = cut(hand)
    assert stages_ms(samples) == [2, 3, 1, 2, 4, 8, 3, 7]
    assert samples.start_ns.tolist() == [EPOCH_NS + 100 * MS]
    assert samples.incomplete == {"restarted": 1}


def test_marks_of_an_earlier_attempt_do_not_complete_the_later_one() -> None:
    hand = HandTrace()
    hand.decide(at_ms=0, life=0)
    hand.carry_out(at_ms=0)
    hand.decide(at_ms=100, life=1)
    hand.carry_out(at_ms=100)
    hand.rows = [row for row in hand.rows if row[4] != Operation.CERTIFIED or row[0] < EPOCH_NS + 100 * MS]
    assert cut(hand).incomplete == {"consensus": 1, "restarted": 1}


def test_a_restart_between_signature_and_confirmation_does_not_spoil_the_cycle() -> None:
    hand = HandTrace()
    hand.decide()
    hand.carry_out()
    hand.rows = [(*row[:7], 1) if row[4] == Operation.CONFIRMED else row for row in hand.rows]
    assert stages_ms(cut(hand)) == [2, 3, 1, 2, 4, 8, 3, 7]


def test_two_traders_must_not_share_a_cycle_number() -> None:
    hand = HandTrace()
    hand.decide()
    hand.decide(agent="trader-2")
    assert cut(hand).incomplete == {"ambiguous": 1}


def test_records_outside_a_cycle_are_nobodys() -> None:
    hand = HandTrace()
    hand.decide(cycle=0)
    samples = cut(hand)
    assert len(samples.trace) == 0 and samples.incomplete == {}


def test_a_quorum_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="quorum"):
        Rules(["trader-1"], ["executor-1"], 0)


record_strategy = st.tuples(
    st.sampled_from(AGENTS), st.sampled_from(Operation), st.integers(0, 40), st.integers(0, 40), st.integers(1, 3)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(record_strategy, max_size=40), st.integers(1, 4))
def test_stages_always_partition_the_cycle(rows: list[tuple[str, Operation, int, int, int]], quorum: int) -> None:
    """Whatever the records say, a complete cycle's stages are never negative and add up to its whole time."""
    hand = HandTrace()
    for cycle in (1, 2):
        hand.decide(cycle, 50)
        hand.carry_out(cycle, 50)
    for agent, operation, start_ms, length_ms, cycle in rows:
        hand.add(agent, operation, start_ms, start_ms + length_ms, cycle=cycle, frame=77)
    samples = cut(hand, quorum=quorum)
    assert (samples.stage_ns >= 0).all()
    assert not samples.stage_ns[~samples.passed].any()
    cycles = {row[2] for row in hand.rows}
    restarted = samples.incomplete.get("restarted", 0)
    assert len(samples.trace) + sum(samples.incomplete.values()) - restarted == len(cycles)
    for number, start_ns, duration_ns in zip(samples.trace, samples.start_ns, samples.duration_ns, strict=True):
        mine = [row for row in hand.rows if row[2] == number]
        assert start_ns == min(row[0] for row in mine if row[4] == Operation.FEED_NEXT and row[6] in (5, 6))
        assert start_ns + duration_ns in {row[1] for row in mine} | {start_ns}
        confirmed = [row[1] for row in mine if row[4] == MARKS[-1] and row[6] in (5, 6)]
        assert start_ns + duration_ns >= max(confirmed)
    assert np.all(np.diff(samples.start_ns) >= 0)
