"""The statistics behind a verdict, against what they must be and what they must not confuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from agents.evaluation import skill
from agents.evaluation.bootstrap import BlockBootstrap, Estimate, ratio, stretch

Floats = NDArray[np.float64]

RETURNS = arrays(np.float64, st.tuples(st.integers(5, 40), st.integers(1, 4)), elements=st.integers(-50, 50)).map(
    lambda values: values / 1_000
)
"""Log returns with ties and zeros among them."""


def bootstrap(dates: int, block: int = 5, seed: int = 1, resamples: int = 200) -> BlockBootstrap:
    return BlockBootstrap(dates, block, np.random.default_rng(seed), resamples)


def value(found: Estimate | None) -> float:
    assert found is not None
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12
    return found.value


def walk(seed: int, dates: int = 400, symbols: int = 3, drift: float = 0.0) -> Floats:
    return np.random.default_rng(seed).normal(drift, 0.02, (dates, symbols))


# --- hits ------------------------------------------------------------------------------------------------------------


@given(RETURNS)
def test_a_perfect_forecast_hits_always_and_its_inverse_never(realised: Floats) -> None:
    draws = bootstrap(len(realised))
    if not realised.any():
        assert skill.hit_rate(draws, realised, realised) is None
        return
    assert value(skill.hit_rate(draws, realised, realised)) == 1
    assert value(skill.hit_rate(draws, -realised, realised)) == 0
    assert value(skill.hit_rate(draws, np.zeros_like(realised), realised)) == 0.5


@given(RETURNS, st.integers(0, 2**32 - 1))
def test_a_forecast_and_its_inverse_share_the_hits(realised: Floats, seed: int) -> None:
    forecast = np.random.default_rng(seed).integers(-1, 2, realised.shape).astype(np.float64)
    together = skill.hits(forecast, realised) + skill.hits(-forecast, realised)
    assert np.array_equal(together, skill.counted(realised))


def test_outcomes_of_zero_change_no_hit_rate() -> None:
    realised, forecast = walk(1), walk(2)
    more = np.vstack([realised, np.zeros((50, 3))])
    rate = value(skill.hit_rate(bootstrap(400), forecast, realised))
    assert value(skill.hit_rate(bootstrap(450), np.vstack([forecast, np.ones((50, 3))]), more)) == rate


# --- majorities ------------------------------------------------------------------------------------------------------


def test_the_past_majority_counts_only_what_is_over() -> None:
    log_closes, horizon = np.cumsum(walk(3, 120), axis=0), 7
    bars = np.arange(20, 110, 3)
    found = skill.past_majority(log_closes, horizon, bars)
    for row, bar in enumerate(bars):
        starts = range(bar - horizon + 1)
        known = [np.sign(log_closes[start + horizon] - log_closes[start]) for start in starts]
        assert np.array_equal(found[row], np.sign(np.sum(known, axis=0)))


@given(RETURNS)
def test_no_constant_side_hits_more_than_the_majority_in_sample(realised: Floats) -> None:
    draws, majority = bootstrap(len(realised)), skill.sample_majority(realised)
    for side in (-1.0, 1.0):
        found = skill.hit_rate_difference(draws, np.full_like(realised, side), majority, realised)
        assert found is None or found.value <= 1e-12


# --- ranks -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_ranks_are_those_of_the_definition(values: list[int]) -> None:
    expected = [
        sum(other < each for other in values) + (sum(other == each for other in values) + 1) / 2 for each in values
    ]
    assert skill.ranks(np.array(values, float)).tolist() == expected


MONOTONE: dict[str, Callable[[Floats], Floats]] = {
    "scaled": lambda values: 3 * values + 1,
    "cubed": lambda values: values**3,
    "exponential": np.exp,
}


@pytest.mark.parametrize("change", MONOTONE)
@given(realised=RETURNS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_rank_correlation_sees_order_only(change: str, realised: Floats, seed: int) -> None:
    rng, draws = np.random.default_rng(seed), bootstrap(len(realised))
    forecast = rng.normal(0, 1, realised.shape) + 30 * realised
    plain = skill.rank_correlation(draws, forecast, realised)
    changed = skill.rank_correlation(draws, MONOTONE[change](forecast), realised)
    assert changed == plain
    if plain is not None:
        assert -1 - 1e-12 <= plain.value <= 1 + 1e-12
        assert value(skill.rank_correlation(draws, -forecast, realised)) == pytest.approx(-plain.value)
        assert value(skill.rank_correlation(draws, realised, forecast)) == pytest.approx(plain.value)
        order = rng.permutation(len(realised))
        assert value(skill.rank_correlation(draws, forecast[order], realised[order])) == pytest.approx(plain.value)


def test_rank_correlation_by_hand_and_at_its_ends() -> None:
    realised = walk(4)
    draws = bootstrap(len(realised))
    assert value(skill.rank_correlation(draws, realised, realised)) == pytest.approx(1)
    assert value(skill.rank_correlation(draws, -realised, realised)) == pytest.approx(-1)
    assert skill.rank_correlation(draws, np.ones_like(realised), realised) is None, "a constant has no order"
    forecast = walk(5) + realised
    expected = np.corrcoef(skill.ranks(forecast.ravel()), skill.ranks(realised.ravel()))[0, 1]
    assert value(skill.rank_correlation(draws, forecast, realised)) == pytest.approx(expected)
    nothing = skill.rank_correlation_difference(draws, forecast, forecast, realised)
    assert nothing is not None
    assert (nothing.low, nothing.high) == (0, 0)


def test_across_symbols_a_common_move_counts_for_nothing() -> None:
    own, market = walk(6, symbols=5), walk(7, symbols=1)
    draws = bootstrap(len(own))
    timing_only = market + np.zeros_like(own)
    assert skill.rank_correlation_across(draws, timing_only, own + market) is None, "all symbols alike: no order"
    assert value(skill.rank_correlation_across(draws, own, own + 10 * market)) == pytest.approx(1)
    assert skill.rank_correlation_across(draws, own[:, :2], own[:, :2]) is None


# --- money -----------------------------------------------------------------------------------------------------------


def test_a_side_that_stays_is_held_and_every_change_is_paid_for() -> None:
    forecast = np.array([[0.1], [0.3], [-0.2], [0.0], [0.1]])
    realised = np.log1p(np.array([[0.01], [0.02], [0.03], [0.04], [-0.05]]))
    costs_held = [5, 0, 10, 5, 5 + 5]
    assert skill.net_returns(forecast, realised, 10, True).ravel() == pytest.approx(
        np.array([100, 200, -300, 0, -500]) - costs_held
    )
    costs_reopened = [10, 10, 10, 0, 10]
    assert skill.net_returns(forecast, realised, 10, False).ravel() == pytest.approx(
        np.array([100, 200, -300, 0, -500]) - costs_reopened
    )


@given(RETURNS, st.floats(0, 100))
def test_holding_pays_for_one_round_trip_in_all(realised: Floats, cost_bps: float) -> None:
    long = np.ones_like(realised)
    paid = skill.net_returns(long, realised, 0, True) - skill.net_returns(long, realised, cost_bps, True)
    assert paid.sum(axis=0) == pytest.approx(np.full(realised.shape[1], cost_bps))


def test_a_lucky_share_of_longs_is_no_timing() -> None:
    inside = 0
    for seed in range(100):
        realised, rng = walk(seed, drift=0.01), np.random.default_rng(seed + 1_000)
        biased = rng.choice([-1.0, 1.0], realised.shape, p=[0.3, 0.7])
        draws, weights = bootstrap(400, seed=seed), np.ones_like(realised)
        earned = skill.mean(draws, skill.net_returns(biased, realised, 5, True), weights)
        timed = skill.timing(draws, biased, realised, weights)
        assert earned is not None
        assert timed is not None
        assert earned.side == 1, "the drift pays"
        inside += timed.side == 0
    assert 90 <= inside <= 99, "the guessing does not"


def test_timing_at_its_ends() -> None:
    realised = walk(8, drift=0.01)
    draws, weights = bootstrap(400), np.ones_like(realised)
    assert value(skill.timing(draws, np.ones_like(realised), realised, weights)) == pytest.approx(0)
    perfect = skill.timing(draws, realised, np.sign(realised) / 2, weights)
    assert perfect is not None
    share = (realised > 0).mean(axis=0)
    assert perfect.value == pytest.approx(np.mean(2 * share * (1 - share))), "1 minus Pesaran and Timmermann's chance"


# --- intervals -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 80))
def test_every_resample_has_as_many_dates_as_there_are(dates: int, block: int) -> None:
    draws = bootstrap(dates, block, resamples=20)
    counts = draws.sums(np.eye(dates))
    assert np.allclose(counts.sum(axis=1), dates)
    assert np.allclose(counts, np.rint(counts), atol=1e-9)
    assert counts.min() > -1e-9


def test_what_is_drawn_are_runs_of_neighbouring_dates() -> None:
    counts = np.rint(bootstrap(60, 12, resamples=50).sums(np.eye(60)))
    changes = (counts != np.roll(counts, 1, axis=1)).sum(axis=1)
    assert (changes <= 2 * 5).all(), "five runs have ten ends"


def test_the_seed_decides_and_the_draws_are_shared() -> None:
    columns = np.column_stack([walk(1, symbols=1), np.ones(400)])
    assert bootstrap(400, seed=3).estimate(columns, ratio) == bootstrap(400, seed=3).estimate(columns, ratio)
    assert bootstrap(400, seed=3).estimate(columns, ratio) != bootstrap(400, seed=4).estimate(columns, ratio)
    forecast, realised = walk(2), walk(3)
    difference = skill.hit_rate_difference(bootstrap(400), forecast, forecast, realised)
    assert difference is not None
    assert (difference.value, difference.low, difference.high, difference.error) == (0, 0, 0, 0)


def overlapping(seed: int, dates: int = 300, horizon: int = 5) -> Floats:
    """Sums of five neighbouring draws, as overlapping horizons are. Their mean is 0."""
    steps = np.random.default_rng(seed).normal(0, 1, dates + horizon - 1)
    return np.convolve(steps, np.ones(horizon), "valid")[:, None]


def coverage(block: int, simulations: int = 200) -> float:
    """Share of simulations whose interval holds the true mean, 0."""
    inside = 0
    for seed in range(simulations):
        values = overlapping(seed)
        found = skill.mean(bootstrap(len(values), block, seed, 400), values, np.ones_like(values))
        assert found is not None
        inside += found.side == 0
    return inside / simulations


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    assert 0.91 <= coverage(block=20) <= 0.99
    assert coverage(block=1) < 0.75, "blocks shorter than the horizon claim too much"


def test_rank_correlations_of_nothing_hold_zero_about_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(200):
        forecast, realised = overlapping(seed), overlapping(seed + 1_000)
        found = skill.rank_correlation(bootstrap(len(forecast), 20, seed, 400), forecast, realised)
        assert found is not None
        inside += found.side == 0
    assert 0.91 <= inside / 200 <= 0.99


def test_symbols_that_move_together_are_not_more_evidence() -> None:
    forecast, realised = walk(1, symbols=1), walk(2, symbols=1)
    one = skill.hit_rate(bootstrap(400), forecast, realised)
    ten = skill.hit_rate(bootstrap(400), np.repeat(forecast, 10, axis=1), np.repeat(realised, 10, axis=1))
    assert one is not None
    assert ten is not None
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))
    assert skill.effective_count(ten, 4_000) == pytest.approx(skill.effective_count(one, 4_000))
    assert skill.effective_count(ten, 4_000) < 800
    apart = skill.hit_rate(bootstrap(400), walk(3, symbols=10), walk(4, symbols=10))
    assert apart is not None
    assert skill.effective_count(apart, 4_000) > 2_500
    assert skill.effective_count(apart, 10) == 10, "never more than there are"


def test_few_blocks_widen_the_interval_as_students_t_does() -> None:
    for freedom, quantile in ((9, 2.262), (19, 2.093), (99, 1.984)):
        expected = quantile / 1.96 * np.sqrt((freedom + 1) / freedom)
        assert stretch(freedom + 1) == pytest.approx(expected, rel=2e-3)
    assert stretch(2) > stretch(10) > stretch(1_000) > 1
