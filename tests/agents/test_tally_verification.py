from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.clock import expired
from agents.stress import StressMatcher
from agents.tally import DecisionTally
from agents.verification import (
    RoutePolicy,
    common_denials,
    debits_of,
    deny_all,
    merge_denials,
    route_facts,
)
from consensus.budget import BudgetBook
from consensus.route import RouteFacts
from protocol.codes import DenyCode, Path, Side
from protocol.messages import PRICE_SCALE, Denial
from tests.oracles.agent_examples import synthetic
from tests.oracles.signed_frames import CLUSTER, EXPIRES_NS, PRICE, TRADER, make_frame, make_grant, make_intent

LANE, SPINE = Path.LANE, Path.SPINE
OK = DenyCode.APPROVED


# --- tally -----------------------------------------------------------------------------------------------------------


def test_every_intent_counts_once_by_its_last_outcome() -> None:
    tally = DecisionTally()
    for sequence in range(1, 5):
        tally.propose(TRADER, sequence, LANE)
    tally.settle(TRADER, 1, LANE, OK)
    tally.settle(TRADER, 2, LANE, DenyCode.ROUTE_CRITICAL)
    tally.settle(TRADER, 2, SPINE, OK)  # escalated
    tally.settle(TRADER, 3, LANE, DenyCode.PRICE_COLLAR)
    assert tally.counts() == {
        "proposed": 4,
        "committed": 2,
        "routine": 1,
        "critical": 1,
        "denied": 1,
        "pending": 1,
        "by_code": {"PRICE_COLLAR": 1},
    }
    assert tally.code(TRADER, 1) == OK
    assert tally.code(TRADER, 4) is None
    assert tally.code(TRADER, 99) is None
    assert tally.rows() == [(TRADER, 3, LANE, DenyCode.PRICE_COLLAR)]


def test_what_ran_out_of_time_stays_refused_unless_an_order_had_left() -> None:
    tally = DecisionTally()
    for sequence in (1, 2):
        tally.propose(TRADER, sequence, SPINE)
        tally.settle(TRADER, sequence, SPINE, DenyCode.SPINE_UNAVAILABLE)
        tally.settle(TRADER, sequence, SPINE, OK)
    assert tally.code(TRADER, 1) == DenyCode.SPINE_UNAVAILABLE
    tally.released(TRADER, 2)
    assert tally.code(TRADER, 2) == OK
    assert tally.counts()["by_code"] == {"SPINE_UNAVAILABLE": 1}


def test_an_approval_stands_whatever_is_said_later() -> None:
    tally = DecisionTally()
    tally.settle(TRADER, 1, SPINE, OK)
    tally.settle(TRADER, 1, LANE, DenyCode.FRAME_EXPIRED)
    tally.propose(TRADER, 1, LANE)
    assert tally.code(TRADER, 1) == OK
    assert tally.counts()["critical"] == 1


def test_traders_are_counted_apart() -> None:
    tally = DecisionTally()
    tally.settle(1, 5, LANE, OK)
    tally.settle(2, 5, LANE, DenyCode.SUBMIT_RATE)
    assert tally.counts()["proposed"] == 2


def test_a_liars_code_without_a_name_is_counted_too() -> None:
    tally = DecisionTally()
    tally.settle(TRADER, 1, LANE, 65_535)
    assert tally.counts()["by_code"] == {"CODE_65535": 1}


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([LANE, SPINE]), st.sampled_from([0, 3, 29, 52]))))
def test_counts_add_up(settlements: list[tuple[int, Path, int]]) -> None:
    tally = DecisionTally()
    for sequence, path, code in settlements:
        tally.settle(TRADER, sequence, path, code)
    counts = tally.counts()
    assert counts["proposed"] == counts["committed"] + counts["denied"] + counts["pending"]  # type: ignore[operator]
    assert counts["committed"] == counts["routine"] + counts["critical"]  # type: ignore[operator]
    approved = {sequence for sequence, _, code in settlements if code == OK}
    assert counts["committed"] == len(approved)


# --- verification ----------------------------------------------------------------------------------------------------

POLICY = RoutePolicy(critical_notional=1_500 * PRICE_SCALE, collar_bps=200, routed=True)
FACTS = RouteFacts(
    symbol_limit=3_000 * PRICE_SCALE,
    used_by_symbol=lambda symbol: 0,
    stress=lambda symbol: False,
    critical_notional=POLICY.critical_notional,
    reference_price=lambda symbol: PRICE,
    collar_bps=POLICY.collar_bps,
)
NOW_NS = EXPIRES_NS - 1


def granted() -> BudgetBook:
    book = BudgetBook(CLUSTER)
    assert book.grant(make_grant()) is None
    return book


def denials(frame_changes: dict[str, object] | None = None, *intents: object, **policy: object) -> tuple[Denial, ...]:
    frame = make_frame(*intents, **(frame_changes or {}))  # type: ignore[arg-type]
    return common_denials(frame, replace(POLICY, **policy), granted(), lambda: FACTS, NOW_NS)  # type: ignore[arg-type]


def test_a_routine_frame_within_its_slice_is_not_denied() -> None:
    assert denials() == ()


def test_an_expired_frame_is_denied_whole_on_both_paths() -> None:
    two = (make_intent(1), make_intent(2))
    for path in Path:
        found = denials({"path": path, "expires_at_ns": NOW_NS}, *two)
        assert found == (Denial(0, DenyCode.FRAME_EXPIRED), Denial(1, DenyCode.FRAME_EXPIRED))
    assert expired(5, 5)
    assert not expired(6, 5)


def test_a_lane_frame_needs_its_slice_and_a_spine_frame_does_not() -> None:
    assert denials({"slice_id": 6}) == (Denial(0, DenyCode.SLICE_UNKNOWN),)
    assert denials({"slice_version": 2}) == (Denial(0, DenyCode.SLICE_UNKNOWN),)
    assert denials({"slice_id": 6, "path": SPINE}) == ()


def test_a_critical_intent_is_refused_on_the_lane_alone() -> None:
    small, large = make_intent(1, quantity=10), make_intent(2, quantity=16)
    assert denials(None, small, large) == (Denial(1, DenyCode.ROUTE_CRITICAL),)
    assert denials({"path": SPINE}, small, large) == ()
    assert denials(None, small, large, routed=False) == (), "a profile with one path routes nothing"


def test_splitting_a_large_order_does_not_dodge_the_spine() -> None:
    parts = [make_intent(sequence, quantity=14) for sequence in (1, 2, 3)]
    assert denials(None, *parts) == (Denial(2, DenyCode.ROUTE_CRITICAL),)


def test_the_lane_consumes_budget_and_the_spine_brings_its_own() -> None:
    frame = make_frame(make_intent(1, quantity=3), make_intent(2, quantity=4, side=Side.SELL))
    debits = debits_of(frame, POLICY)
    assert [(debit.intent, debit.notional) for debit in debits] == [(1, 3 * PRICE), (2, 4 * PRICE)]
    assert {(debit.slice_id, debit.version, debit.trader) for debit in debits} == {(5, 1, TRADER)}
    assert debits_of(make_frame(path=SPINE), POLICY) == ()


def test_every_voter_routes_by_its_own_data() -> None:
    data = synthetic(bars=300, symbols=2)
    stress = StressMatcher(data, 4.0)
    facts = route_facts(POLICY, granted(), 5, data, stress, 250)
    assert facts.symbol_limit == 3_000 * PRICE_SCALE
    assert facts.reference_price(1) == data.closes[250, 1]
    assert facts.reference_price(2) is None
    assert facts.stress(0) is False
    unknown = route_facts(POLICY, granted(), 6, data, stress, 250)
    assert unknown.symbol_limit == 0, "without a grant everything is critical"


@pytest.mark.parametrize("market_index", [-1, 300, 2**32 - 1])
def test_a_bar_that_does_not_exist_hurts_nobody(market_index: int) -> None:
    data = synthetic(bars=300, symbols=2)
    facts = route_facts(POLICY, granted(), 5, data, StressMatcher(data, 4.0), market_index)
    assert facts.reference_price(0) is None
    assert facts.stress(0) is False


def test_denials_merge_by_intent_and_the_first_code_stands() -> None:
    early = (Denial(2, DenyCode.ROUTE_CRITICAL), Denial(0, DenyCode.PRICE_COLLAR))
    late = (Denial(0, DenyCode.CLAIM_MISSING), Denial(1, DenyCode.CLAIM_MISSING))
    assert merge_denials(early, late) == (
        Denial(0, DenyCode.PRICE_COLLAR),
        Denial(1, DenyCode.CLAIM_MISSING),
        Denial(2, DenyCode.ROUTE_CRITICAL),
    )
    assert merge_denials() == ()
    frame = make_frame(make_intent(1), make_intent(2))
    assert merge_denials(deny_all(frame, DenyCode.SLICE_UNKNOWN), late)[0].code == DenyCode.SLICE_UNKNOWN
