from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.config import PatternSection
from agents.executor.slicing import SPLIT_QUANTITY_MIN, CurveMatcher, Leg
from agents.risk.risk import judge_claims
from agents.trader.patterns import FORECAST_SCALE, Analogues, PatternSearch
from dtw.library import WindowLibrary
from protocol.codes import DenyCode
from protocol.messages import Claim, Intent, Intents
from protocol.rows import NO_WINDOWS, Windows
from tests.oracles.agent_examples import shuffled_after, synthetic, with_log_closes
from tests.oracles.signed_frames import make_frame, make_intent

SECTION = PatternSection(window=16, band=2, neighbours=4, horizon=3, exclusion=3)
DATA = synthetic(bars=500)
SEARCH = PatternSearch(DATA, SECTION, "lanes")
AT = 300
SYMBOLS = (0, 1, 2)


def analogues(search: PatternSearch, market_index: int = AT) -> list[Analogues]:
    found = search.neighbours(market_index, SYMBOLS)
    return search.forecasts(SYMBOLS, market_index, found)


def same(left: Analogues, right: Analogues) -> bool:
    return (
        np.array_equal(left.starts, right.starts)
        and np.array_equal(left.distances, right.distances)
        and (left.forecast, left.agreement) == (right.forecast, right.agreement)
    )


@cache
def claim() -> Claim:
    """Made when the first test asks, for that compiles the kernels."""
    return analogues(SEARCH)[0].claim(SECTION.window)


@settings(max_examples=15, deadline=None)
@given(market_index=st.integers(60, 498), seed=st.integers(0, 2**32 - 1))
def test_the_search_sees_nothing_after_its_bar(market_index: int, seed: int) -> None:
    other = PatternSearch(shuffled_after(DATA, market_index, seed), SECTION, "lanes")
    for left, right in zip(analogues(SEARCH, market_index), analogues(other, market_index), strict=True):
        assert same(left, right)


@pytest.mark.parametrize("market_index", [60, 200, 499])
def test_analogues_end_with_their_future_before_the_present_begins(market_index: int) -> None:
    for found in analogues(SEARCH, market_index):
        assert len(found.starts)
        ends = found.starts + SECTION.window - 1 + SECTION.horizon
        assert (ends < market_index - SECTION.window + 1).all()
        assert (np.diff(np.sort(found.starts)) >= SECTION.exclusion).all()
        assert (np.diff(found.distances) >= 0).all()


def test_the_plain_loop_comes_to_the_same_analogues() -> None:
    plain = PatternSearch(DATA, SECTION, "scalar")
    for left, right in zip(analogues(SEARCH), analogues(plain), strict=True):
        assert same(left, right)


def test_the_forecast_is_the_weighted_mean_of_what_followed() -> None:
    found = analogues(SEARCH)[1]
    ends = found.starts + SECTION.window - 1
    forward = DATA.log_closes[ends + SECTION.horizon, 1] - DATA.log_closes[ends, 1]
    assert found.forecast == pytest.approx(np.average(forward, weights=1 / (1 + found.distances)))
    assert found.agreement == np.mean(np.sign(forward) == np.sign(found.forecast))


def test_without_history_there_is_no_forecast() -> None:
    found = SEARCH.neighbours(SECTION.window, [0, 2])
    for nothing in SEARCH.forecasts([0, 2], SECTION.window, found):
        assert (len(nothing.starts), nothing.forecast, nothing.agreement) == (0, 0.0, 0.0)


def test_symbols_without_analogues_leave_the_others_as_they_are() -> None:
    (nothing,), (found,) = SEARCH.neighbours(SECTION.window, [1]), SEARCH.neighbours(AT, [2])
    (alone,) = SEARCH.forecasts([2], AT, [found])
    empty, among, last = SEARCH.forecasts([1, 2, 0], AT, [nothing, found, nothing])
    assert same(among, alone)
    assert (empty.forecast, last.agreement) == (0.0, 0.0)


def test_an_honest_claim_stands_at_every_bar_and_symbol() -> None:
    for market_index in (SECTION.window - 1, 80, 499):
        for found in analogues(SEARCH, market_index):
            assert SEARCH.refute([found.claim(SECTION.window)], market_index) == [None]


def test_a_verifier_on_its_own_copy_of_the_past_agrees() -> None:
    verifier = PatternSearch(shuffled_after(DATA, AT, seed=9), SECTION, "scalar")
    assert verifier.refute([claim()], AT) == [None]


def nearest_other(honest: Claim) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """True distances of four other past windows: a lie only about which are nearest."""
    library = WindowLibrary(DATA.log_closes[:, 0], SECTION.window)
    starts = tuple(start + 1 for start in honest.starts)
    query = DATA.log_closes[AT - SECTION.window + 1 : AT + 1, 0]
    return starts, tuple(library.distances_at(query, starts, SECTION.band).tolist())


def test_hiding_a_nearer_window_is_caught() -> None:
    starts, distances = nearest_other(claim())
    assert SEARCH.refute([msgspec.structs.replace(claim(), starts=starts, distances=distances)], AT) != [None]


LIES: dict[str, Callable[[Claim], dict[str, Any]]] = {
    "unknown symbol": lambda honest: {"symbol": len(SYMBOLS)},
    "another symbol": lambda honest: {"symbol": 1},
    "another bar": lambda honest: {"query_end": AT - 1},
    "another window": lambda honest: {"window": SECTION.window + 1},
    "starts in another order": lambda honest: {"starts": honest.starts[::-1]},
    "a start too few": lambda honest: {"starts": honest.starts[:-1], "distances": honest.distances[:-1]},
    "a start too many": lambda honest: {"starts": (*honest.starts, 0), "distances": (*honest.distances, 99.0)},
    "no starts": lambda honest: {"starts": (), "distances": ()},
    "a start of the future": lambda honest: {"starts": (AT + 1, *honest.starts[1:])},
    "a huge start": lambda honest: {"starts": (2**32 - 1, *honest.starts[1:])},
    "a distance off by a thousandth": lambda honest: {
        "distances": (honest.distances[0] * 1.001, *honest.distances[1:])
    },
    "a distance that is no number": lambda honest: {"distances": (float("nan"), *honest.distances[1:])},
    "a distance too few": lambda honest: {"distances": honest.distances[:-1]},
    "one distance for all": lambda honest: {"distances": honest.distances[:1]},
    "no distances": lambda honest: {"distances": ()},
    "a rosier forecast": lambda honest: {"forecast_bps": honest.forecast_bps + 2},
    "the opposite forecast": lambda honest: {"forecast_bps": -honest.forecast_bps},
    "a huge forecast": lambda honest: {"forecast_bps": 2**63 - 1},
}


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_refuted_with_a_reason(lie: str) -> None:
    (reason,) = SEARCH.refute([msgspec.structs.replace(claim(), **LIES[lie](claim()))], AT)
    assert reason
    assert "\n" not in reason


def test_claims_are_judged_together_and_each_gets_its_own_reason() -> None:
    lies = [msgspec.structs.replace(claim(), **lie(claim())) for lie in LIES.values()]
    together = [claim(), *lies, claim()]
    assert SEARCH.refute(together, AT) == [SEARCH.refute([each], AT)[0] for each in together]
    assert SEARCH.refute([], AT) == []


@pytest.mark.parametrize("market_index", [0, SECTION.window - 2, 500, 2**32 - 1])
def test_a_bar_that_the_verifier_does_not_have_is_refuted(market_index: int) -> None:
    assert SEARCH.refute([msgspec.structs.replace(claim(), query_end=market_index)], market_index) == ["no such bar"]


def test_a_claim_counts_hundredths_of_a_basis_point() -> None:
    assert claim().forecast_bps == round(analogues(SEARCH)[0].forecast * FORECAST_SCALE)


# --- the evidence ----------------------------------------------------------------------------------------------------


def evidence(search: PatternSearch = SEARCH, symbols: tuple[int, ...] = SYMBOLS) -> Windows:
    return Windows.of(search.windows(AT, symbols))


def test_the_evidence_is_what_the_search_starts_from() -> None:
    windows = SEARCH.windows(AT, SYMBOLS)
    assert (windows.shape, windows.dtype) == ((3, SECTION.window), np.float32)
    for symbol in SYMBOLS:
        assert np.array_equal(windows[symbol], DATA.log_closes[AT - SECTION.window + 1 : AT + 1, symbol].astype("f4"))


def test_whoever_has_the_same_data_agrees_bit_for_bit() -> None:
    verifier = PatternSearch(shuffled_after(DATA, AT, seed=9), SECTION, "scalar")
    claims = [found.claim(SECTION.window) for found in analogues(SEARCH)]
    assert verifier.same_windows(claims, evidence(), SECTION.window, AT) == [True] * 3
    assert verifier.same_windows(claims, NO_WINDOWS, 0, AT) == [True] * 3
    assert verifier.same_windows([], NO_WINDOWS, 0, AT) == []


def test_one_sample_that_differs_by_one_bit_is_other_data() -> None:
    claims = [found.claim(SECTION.window) for found in analogues(SEARCH)]
    changed = evidence().array.copy()
    changed.view(np.uint32)[2 * SECTION.window - 1] ^= 1
    assert SEARCH.same_windows(claims, Windows.of(changed), SECTION.window, AT) == [True, False, True]


@pytest.mark.parametrize("length", [0, SECTION.window - 1, SECTION.window + 1])
def test_evidence_of_another_shape_is_other_data(length: int) -> None:
    assert SEARCH.same_windows([claim()], evidence(symbols=(0,)), length, AT) == [False]
    assert SEARCH.same_windows([claim()], evidence(), SECTION.window, AT) == [False]


def test_what_cannot_be_searched_is_left_to_the_search_to_refute() -> None:
    unknown = msgspec.structs.replace(claim(), symbol=2**32 - 1)
    both = Windows.of(SEARCH.windows(AT, (0, 1)))
    assert SEARCH.same_windows([claim(), unknown], both, SECTION.window, AT) == [True, True]
    assert SEARCH.same_windows([unknown], both, SECTION.window, AT) == [True]


def test_other_data_is_told_apart_from_a_false_claim() -> None:
    """A risk agent whose last bar was corrected afterwards says so, and searches only for the claims it shares."""
    claims = [found.claim(SECTION.window) for found in analogues(SEARCH)]
    lie = msgspec.structs.replace(claims[2], forecast_bps=claims[2].forecast_bps + 9)
    frame = make_frame(market_index=AT, claims=(*claims[:2], lie), windows=evidence(), window_length=SECTION.window)
    log_closes = DATA.log_closes.copy()
    log_closes[AT, 1] += 0.01
    searched: list[list[int]] = []

    class Counting(PatternSearch):
        def refute(self, claims: Sequence[Claim], market_index: int) -> list[str | None]:
            searched.append([claim.symbol for claim in claims])
            return super().refute(claims, market_index)

    codes = [code for code, _ in judge_claims(Counting(with_log_closes(DATA, log_closes), SECTION, "lanes"), frame)]
    assert codes == [DenyCode.APPROVED, DenyCode.CLAIM_DATA_DIFFERS, DenyCode.CLAIM_NOT_REPRODUCED]
    assert searched == [[0, 2]]
    honest = judge_claims(SEARCH, msgspec.structs.replace(frame, claims=tuple(claims)))
    assert honest == [(DenyCode.APPROVED, "")] * 3


# --- the executor's slicing ------------------------------------------------------------------------------------------


def legs_of(matcher: CurveMatcher, intent: Intent, limit_price: int, market_index: int) -> tuple[Leg, ...]:
    """The legs of a frame of one intent."""
    return matcher.legs(Intents.of(intent), [limit_price], market_index)[intent.sequence]


def storm_after_calm() -> CurveMatcher:
    """Activity repeats itself, and each repetition was followed by a storm: the present is about to turn wild."""
    rng = np.random.default_rng(4)
    curve = np.abs(rng.normal(0.01, 0.004, 32)) + 0.001
    steps = np.concatenate([np.concatenate([curve, np.full(8, 0.08)])] * 8 + [curve])
    signs = np.where(np.arange(len(steps)) % 2, 1.0, -1.0)
    log_closes = np.log(100) + np.concatenate([[0.0], np.cumsum(steps * signs)])
    return CurveMatcher(with_log_closes(DATA, np.repeat(log_closes[:, None], 3, axis=1)))


STORM_AT = 8 * 40 + 32


def test_half_of_the_order_waits_when_the_past_says_storm() -> None:
    intent = make_intent(quantity=101, reference_price=1_000_000, limit_price=1_020_000)
    legs = legs_of(storm_after_calm(), intent, 1_020_000, STORM_AT)
    assert legs == (Leg(51, 1_020_000), Leg(50, 1_000_000))


def test_the_intents_of_a_frame_are_judged_together_and_each_by_its_own_symbol() -> None:
    intents = [
        make_intent(sequence=9 + number, quantity=quantity, symbol=symbol, reference_price=1_000_000)
        for number, (quantity, symbol) in enumerate([(100, 1), (100, 0), (5, 1), (40, 1)])
    ]
    limits = [1_010_000, 1_020_000, 1_030_000, 1_040_000]
    matcher = storm_after_calm()
    expected = {
        intent.sequence: legs_of(matcher, intent, limit, STORM_AT)
        for intent, limit in zip(intents, limits, strict=True)
    }
    assert matcher.legs(Intents.of(*intents), limits, STORM_AT) == expected
    assert [len(legs) for legs in expected.values()] == [2, 2, 1, 2]


def test_small_orders_are_left_whole() -> None:
    intent = make_intent(quantity=SPLIT_QUANTITY_MIN - 1)
    assert legs_of(storm_after_calm(), intent, 1_020_000, STORM_AT) == (Leg(intent.quantity, 1_020_000),)


@settings(max_examples=25, deadline=None)
@given(quantity=st.integers(1, 10**9), market_index=st.integers(0, 499), symbol=st.integers(0, 2))
def test_legs_add_up_to_the_intent(quantity: int, market_index: int, symbol: int) -> None:
    legs = legs_of(MATCHER, make_intent(quantity=quantity, symbol=symbol), 1_000_000, market_index)
    assert sum(leg.quantity for leg in legs) == quantity
    assert all(leg.quantity > 0 for leg in legs)
    assert 1 <= len(legs) <= 2


def test_slicing_sees_nothing_after_its_bar() -> None:
    splits = 0
    for market_index in range(160, 480, 40):
        other = CurveMatcher(shuffled_after(DATA, market_index, seed=market_index))
        for symbol in SYMBOLS:
            intent = make_intent(quantity=100, symbol=symbol)
            legs = legs_of(MATCHER, intent, 1_000_000, market_index)
            assert legs == legs_of(other, intent, 1_000_000, market_index)
            splits += len(legs) == 2
    assert splits < 24, "a split is the exception"


MATCHER = CurveMatcher(DATA)
