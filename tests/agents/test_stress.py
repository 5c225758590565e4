from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from agents.data import catalog
from agents.data.dataset import Dataset
from agents.stress import HISTORY_MIN, WINDOW, StressMatcher, expanding_deviations
from tests.oracles.agent_examples import shuffled_after, synthetic, with_log_closes

DISTANCE = 4.0
"""Matches about 2 % of all days since 2000 in the US table."""


def drawn(falls: tuple[int, ...], bars: int = 1_400) -> Dataset:
    """A calm market with crashes of ten days that begin at ``falls``; the first ends on a day of the episode list."""
    rng = np.random.default_rng(3)
    returns = rng.normal(0.0004, 0.008, bars)
    for fall in falls:
        volatility = float(np.std(returns[:fall]))
        returns[fall : fall + 10] = volatility * (-5 + rng.normal(0, 0.5, 10))
    base = synthetic(bars=bars, symbols=2)
    log_closes = np.log(100) + np.cumsum(returns)[:, None] + rng.normal(0, 0.0005, (bars, 2))
    dates = [day - timedelta(days=2_000) for day in base.dates]  # before every known episode
    dates[falls[0] + 9] = date(2001, 9, 21)  # only where it stands counts for the matcher, not its order
    return with_log_closes(base, log_closes, synthetic=False, dates=tuple(dates), name="drawn")


FALLS = (700, 1_100)
MARKET = drawn(FALLS)


def test_a_second_crash_matches_the_first_and_calm_days_do_not() -> None:
    matcher = StressMatcher(MARKET, DISTANCE)
    assert any(matcher.matches(FALLS[1] + day) for day in range(6, 12))
    assert not any(matcher.matches(index) for index in range(900, FALLS[1] - 1))
    assert matcher.nearest(FALLS[1] + 9) < matcher.nearest(FALLS[1] - 5)


def test_an_episode_does_not_match_itself_or_anything_before_its_window_has_passed() -> None:
    matcher = StressMatcher(MARKET, 1e9)
    end = FALLS[0] + 9
    assert not any(matcher.matches(index) for index in range(end + WINDOW))
    assert matcher.matches(end + WINDOW)


def test_nothing_after_the_bar_is_read() -> None:
    rng = np.random.default_rng(1)
    for market_index in (FALLS[1] + 9, *rng.integers(FALLS[0] + 40, 1_399, 6).tolist()):
        other = StressMatcher(shuffled_after(MARKET, market_index, seed=market_index), DISTANCE)
        assert other.nearest(market_index) == StressMatcher(MARKET, DISTANCE).nearest(market_index)


def test_answers_do_not_depend_on_the_order_of_questions() -> None:
    forward, backward = StressMatcher(MARKET, DISTANCE), StressMatcher(MARKET, DISTANCE)
    indices = range(1_090, 1_130)
    assert [forward.matches(index) for index in indices] == [backward.matches(index) for index in indices[::-1]][::-1]


@pytest.mark.parametrize("market_index", [0, HISTORY_MIN - 1, 1_400, 2**32 - 1])
def test_a_bar_without_history_or_beyond_the_data_has_no_distance(market_index: int) -> None:
    assert StressMatcher(MARKET, 1e9).nearest(market_index) == float("inf")


def test_generated_data_has_no_history_to_match() -> None:
    data = synthetic(bars=1_000)
    assert StressMatcher(data, 1e9).nearest(900) == float("inf")


def us_table_or_drawn() -> tuple[Dataset, int, int]:
    """The fetched US table where this user has it, else the drawn market; with the days around a crash."""
    path = catalog.data_directory() / "us-large-caps.csv"
    if not path.exists():
        return MARKET, FALLS[1] + 2, FALLS[1] + 12
    data = catalog.load("us-large-caps", path.parent, seed=0)
    return data, data.dates.index(date(2020, 2, 24)), data.dates.index(date(2020, 3, 12))


def test_the_pandemic_crash_is_recognised_and_few_other_days_are() -> None:
    data, first, last = us_table_or_drawn()
    matcher = StressMatcher(data, DISTANCE)
    assert sum(matcher.matches(index) for index in range(first, last)) >= 2
    every_tenth = range(len(data.dates) - 500, len(data.dates), 10)
    assert np.mean([matcher.matches(index) for index in every_tenth]) <= 0.1


def test_the_deviation_at_each_point_is_that_of_all_before_it() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.01, 300)
    expected = [np.std(values[: i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(expanding_deviations(values), expected, rtol=1e-9, atol=1e-15)
    assert expanding_deviations(values[:0]).tolist() == []
    assert expanding_deviations(np.full(5, 0.1)).tolist() == [0.0] * 5
