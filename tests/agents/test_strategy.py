from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.config import StrategySection
from agents.trader.feed import Bar, ReplayFeed, validate
from agents.trader.patterns import Analogues
from agents.trader.strategy import (
    RiskPicture,
    decide,
    exposure,
    target_notionals,
    value_at_risk,
    volatility,
)
from protocol.codes import Side
from protocol.errors import LocalMisuse
from protocol.messages import PRICE_SCALE
from tests.oracles.agent_examples import shuffled_after, synthetic

SECTION = StrategySection()
COLLAR_BPS = 200
FORECASTS = st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(0, 1), st.floats(1e-6, 0.2)), min_size=1, max_size=40)


def analogues(symbol: int, forecast: float, agreement: float = 1.0) -> Analogues:
    return Analogues(symbol, 300, np.arange(8), np.ones(8), forecast, agreement)


def picture(volatilities: Sequence[float], at_risk: float = 0.0) -> RiskPicture:
    return RiskPicture(np.array(volatilities), at_risk, 0.0)


@given(FORECASTS, st.floats(0, 1e6))
def test_targets_stay_within_every_limit(forecasts: list[tuple[float, float, float]], at_risk: float) -> None:
    found = [analogues(symbol, forecast, agreement) for symbol, (forecast, agreement, _) in enumerate(forecasts)]
    targets = target_notionals(found, picture([row[2] for row in forecasts], at_risk), SECTION)
    assert sum(abs(size) for size in targets.values()) <= SECTION.gross_notional_max * (1 + 1e-9)
    for symbol, size in targets.items():
        forecast, agreement, _ = forecasts[symbol]
        assert abs(size) <= SECTION.order_notional_max
        assert size * forecast > 0, "a wish has its forecast's sign"
        assert agreement >= SECTION.agreement
        assert abs(forecast) * 1e4 >= SECTION.edge_min_bps


def test_a_calmer_symbol_and_a_stronger_forecast_get_more() -> None:
    def size(forecast: float, daily: float) -> float:
        return target_notionals([analogues(0, forecast)], picture([daily]), SECTION)[0]

    assert size(0.012, 0.015) == pytest.approx(SECTION.order_notional)
    assert size(0.012, 0.010) > size(0.012, 0.015) > size(0.012, 0.030)
    assert size(0.020, 0.015) > size(0.012, 0.015) > size(0.005, 0.015)
    assert size(-0.012, 0.015) == -size(0.012, 0.015)
    assert size(0.012, 10.0) == pytest.approx(SECTION.order_notional / 2), "however wild, half at least"


def test_too_much_value_at_risk_halves_all_wishes() -> None:
    found = [analogues(0, 0.012), analogues(1, -0.02)]
    calm = target_notionals(found, picture([0.015, 0.02], SECTION.value_at_risk_max), SECTION)
    wild = target_notionals(found, picture([0.015, 0.02], SECTION.value_at_risk_max + 1), SECTION)
    assert wild == {symbol: size / 2 for symbol, size in calm.items()}


@given(
    target=st.floats(-30_000, 30_000),
    position=st.integers(-3_000, 3_000),
    price=st.integers(1, 5_000 * PRICE_SCALE),
)
def test_an_order_moves_the_position_towards_the_target_and_never_past_it(
    target: float, position: int, price: int
) -> None:
    wishes = decide([analogues(0, 0.01)], {0: target}, SECTION, lambda _: position, lambda _: price, COLLAR_BPS)
    wanted = round(target * PRICE_SCALE / price)
    notional_left = abs(wanted - position) * price
    if not wishes:
        largest = SECTION.order_notional_max * PRICE_SCALE
        assert notional_left < SECTION.trade_notional_min * PRICE_SCALE or price > largest
        return
    (wish,) = wishes
    after = position + wish.side.sign * wish.quantity
    assert wish.quantity > 0
    assert abs(wanted - after) == abs(wanted - position) - wish.quantity
    assert SECTION.trade_notional_min * PRICE_SCALE <= wish.quantity * price
    assert wish.quantity * price <= SECTION.order_notional_max * PRICE_SCALE
    assert wish.reference_price == price
    assert (wish.limit_price - price) * wish.side.sign >= 0
    assert abs(wish.limit_price - price) * 10_000 <= price * COLLAR_BPS


def test_a_symbol_without_a_wish_is_closed() -> None:
    price = 100 * PRICE_SCALE
    wishes = decide(
        [analogues(0, 0.01), analogues(1, 0.01)], {}, SECTION, {0: 50, 1: -50}.__getitem__, lambda _: price, COLLAR_BPS
    )
    assert [(wish.symbol, wish.side, wish.quantity) for wish in wishes] == [(0, Side.SELL, 50), (1, Side.BUY, 50)]


def test_no_trade_below_the_minimum() -> None:
    price = 100 * PRICE_SCALE
    smallest = int(SECTION.trade_notional_min / 100)

    def orders(position: int) -> int:
        return len(decide([analogues(0, 0.01)], {}, SECTION, lambda _: position, lambda _: price, COLLAR_BPS))

    assert orders(smallest - 1) == 0
    assert orders(smallest) == 1


def test_exposure_and_value_at_risk() -> None:
    data = synthetic()
    held = exposure(data, 400, {0: 10, 2: -5})
    assert held[0] == pytest.approx(10 * data.closes[400, 0] / PRICE_SCALE)
    assert held[1] == 0
    assert held[2] < 0
    assert value_at_risk(data, 400, np.zeros(3), 250) == 0
    assert value_at_risk(data, 400, held, 250) > 0
    assert value_at_risk(data, 400, 2 * held, 250) == pytest.approx(2 * value_at_risk(data, 400, held, 250))
    assert (volatility(data, 400, 20) > 0).all()


def test_risk_numbers_read_nothing_after_the_bar() -> None:
    data = synthetic()
    other = shuffled_after(data, 400, seed=1)
    held = exposure(data, 400, {0: 10})
    assert np.array_equal(volatility(data, 400, 20), volatility(other, 400, 20))
    assert value_at_risk(data, 400, held, 250) == value_at_risk(other, 400, held, 250)


def test_the_feed_replays_every_bar_once_and_keeps_the_last() -> None:
    data = synthetic()
    feed = ReplayFeed(data, 590)
    bars = []
    while (bar := feed.bar(len(bars) + 1)) is not None:
        validate(bar, bars[-1] if bars else None)
        bars.append(bar)
    assert [bar.market_index for bar in bars] == list(range(590, 599))
    assert bars[0].day == data.dates[590]
    assert feed.bar(1_000_000) is None


def test_a_broken_feed_is_our_own_bug() -> None:
    bar = Bar(5, date(2020, 1, 2), np.array([1, 2]))
    with pytest.raises(LocalMisuse, match="from bar 5 to 5"):
        validate(bar, bar)
    with pytest.raises(LocalMisuse, match="not positive"):
        validate(Bar(6, date(2020, 1, 3), np.array([1, 0])), bar)
