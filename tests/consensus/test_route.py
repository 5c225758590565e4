from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.route import (
    RouteFacts,
    collar_price,
    critical_positions,
    criticality,
    effective_price,
    effective_prices,
    intent_notional,
    intent_notionals,
    outside_collar,
)
from protocol.codes import Side
from protocol.messages import Intent, Intents
from tests.oracles.signed_frames import PRICE, make_intent


def make_facts(**changes: object) -> RouteFacts:
    known: dict[str, object] = {
        "symbol_limit": 10**12,
        "used_by_symbol": lambda symbol: 0,
        "stress": lambda symbol: False,
        "critical_notional": 10**12,
    }
    return RouteFacts(**{**known, **changes})  # type: ignore[arg-type]


def is_critical(intent: Intent, **changes: object) -> bool:
    known: dict[str, object] = {
        "critical_notional": 10**12, "symbol_used": 0, "symbol_limit": 10**12, "stress": False
    }  # fmt: skip
    return criticality(intent, **{**known, **changes})  # type: ignore[arg-type]


def test_routine_by_default() -> None:
    assert not is_critical(make_intent())


@pytest.mark.parametrize(("spare", "critical"), [(1, False), (0, False), (-1, True)])
def test_notional_over_the_threshold(spare: int, critical: bool) -> None:
    assert is_critical(make_intent(), critical_notional=10 * PRICE + spare) is critical


@pytest.mark.parametrize(("spare", "critical"), [(1, False), (0, False), (-1, True)])
def test_cumulative_use_of_the_symbol(spare: int, critical: bool) -> None:
    assert is_critical(make_intent(), symbol_used=7, symbol_limit=10 * PRICE + 7 + spare) is critical


def test_stress_is_critical() -> None:
    assert is_critical(make_intent(), stress=True)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize(("off_bps", "critical"), [(199, False), (200, False), (201, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_soft_collar(side: Side, off_bps: int, critical: bool, sign: int) -> None:
    limit_price = PRICE + sign * PRICE * off_bps // 10_000
    assert is_critical(make_intent(side=side, limit_price=limit_price)) is critical


def test_judge_uses_its_own_reference_price() -> None:
    intent = make_intent(limit_price=PRICE * 103 // 100, reference_price=PRICE * 103 // 100)
    assert not is_critical(intent)
    assert is_critical(intent, reference_price=PRICE)


@given(st.integers(1, 10**7), st.integers(1, 5_000), st.sampled_from(Side))
def test_collar_price_is_inside_the_collar_and_the_next_one_is_not(reference: int, bps: int, side: Side) -> None:
    price = collar_price(side, reference, bps)
    assert not outside_collar(price, reference, bps)
    assert outside_collar(price + side.sign, reference, bps)


def test_market_order_counts_at_the_collar() -> None:
    market = make_intent(limit_price=0, quantity=10)
    assert effective_price(market, 200) == PRICE * 102 // 100
    assert intent_notional(market, 200) == 10 * PRICE * 102 // 100
    assert not is_critical(market), "at the collar is not outside it"


def test_low_limit_does_not_make_a_sale_small() -> None:
    sale = make_intent(side=Side.SELL, limit_price=1)
    assert intent_notional(sale, 200) == 10 * PRICE
    assert intent_notional(msgspec.structs.replace(sale, limit_price=2 * PRICE), 200) == 20 * PRICE
    assert effective_price(make_intent(side=Side.SELL, limit_price=0), 200) == PRICE * 98 // 100
    assert intent_notional(make_intent(side=Side.SELL, limit_price=0), 200) == 10 * PRICE


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_splitting_does_not_dodge_the_spine(parts: list[int]) -> None:
    limit = 50 * PRICE
    intents = tuple(make_intent(number, quantity=quantity) for number, quantity in enumerate(parts))
    critical = critical_positions(Intents.of(*intents), make_facts(symbol_limit=limit))
    routine = sum(quantity for position, quantity in enumerate(parts) if position not in critical)
    assert routine * PRICE <= limit
    assert bool(critical) == (sum(parts) * PRICE > limit)


def test_symbols_add_up_apart_and_earlier_use_counts() -> None:
    intents = (make_intent(1), make_intent(2, symbol=1), make_intent(3), make_intent(4, symbol=1))
    used = {0: 5 * PRICE, 1: 0}
    facts = make_facts(symbol_limit=20 * PRICE, used_by_symbol=used.__getitem__)
    assert critical_positions(Intents.of(*intents), facts) == (2,)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), max_size=10))
def test_routine_rest_is_routine_as_a_whole(wishes: list[tuple[int, int]]) -> None:
    intents = tuple(make_intent(n, symbol=symbol, quantity=quantity) for n, (symbol, quantity) in enumerate(wishes))
    facts = make_facts(symbol_limit=50 * PRICE, critical_notional=30 * PRICE, stress=lambda symbol: symbol == 2)
    critical = critical_positions(Intents.of(*intents), facts)
    rest = tuple(intent for position, intent in enumerate(intents) if position not in critical)
    assert critical_positions(Intents.of(*rest), facts) == ()


MAGNITUDES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**41), 2**41), st.integers(-400, 400))


@given(st.lists(st.tuples(st.integers(0, 4), MAGNITUDES, MAGNITUDES, MAGNITUDES), max_size=6), st.integers(0, 12_000))
def test_columns_and_rows_come_to_the_same_prices(wishes: list[tuple[int, int, int, int]], collar_bps: int) -> None:
    """Whatever numbers a peer chooses: nothing wraps around at 64 bits."""
    made = [Intent(number, 0, wish[0], 0, *wish[1:]) for number, wish in enumerate(wishes)]
    rows = Intents.of(*made)
    assert effective_prices(rows, collar_bps) == [effective_price(each, collar_bps) for each in made]
    assert intent_notionals(rows, collar_bps) == [intent_notional(each, collar_bps) for each in made]


@given(
    st.lists(st.tuples(st.integers(0, 2), MAGNITUDES, MAGNITUDES, MAGNITUDES), max_size=6),
    st.one_of(st.none(), st.integers(1, 2**60)),
)
def test_a_frame_is_routed_as_its_intents_are_one_by_one(
    wishes: list[tuple[int, int, int, int]], own_price: int | None
) -> None:
    made = [Intent(number, wish[0], Side.BUY, 0, *wish[1:]) for number, wish in enumerate(wishes)]
    facts = make_facts(reference_price=lambda symbol: own_price)
    taken: dict[int, int] = {}
    critical = []
    for position, intent in enumerate(made):
        if criticality(
            intent,
            critical_notional=facts.critical_notional,
            symbol_used=facts.used_by_symbol(intent.symbol) + taken.get(intent.symbol, 0),
            symbol_limit=facts.symbol_limit,
            stress=facts.stress(intent.symbol),
            collar_bps=facts.collar_bps,
            reference_price=own_price,
        ):
            critical.append(position)
        else:
            taken[intent.symbol] = taken.get(intent.symbol, 0) + intent_notional(intent, facts.collar_bps)
    assert critical_positions(Intents.of(*made), facts) == tuple(critical)
