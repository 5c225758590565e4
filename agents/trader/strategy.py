"""From analogues to wishes: risk picture, sizing, signal. Pure, so that every number can be replayed.

The strategy is deliberately plain: it exists to give the swarm real decisions to agree on. It claims no edge; the
literature and our own check of analogue forecasts say not to (see ``docs/limits.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.config import StrategySection
from agents.data.dataset import Dataset
from agents.trader.patterns import Analogues
from protocol.codes import Side
from protocol.messages import PRICE_SCALE

VALUE_AT_RISK_QUANTILE = 0.01
VOLATILITY_TARGET = 0.015
"""Daily; a calmer symbol gets more notional, a wilder one less."""
SCALE_MIN, SCALE_MAX = 0.5, 2.5


@dataclass(frozen=True, slots=True)
class RiskPicture:
    """What the trader knows of its risk before it decides. Money in quote currency."""

    volatility: NDArray[np.float64]
    """Daily, per symbol: standard deviation of log returns over the volatility window."""
    value_at_risk: float
    """One day, 99 %, historical simulation of today's positions over the value-at-risk window."""
    gross_notional: float


@dataclass(frozen=True, slots=True)
class Wish:
    """An order the trader would like to send, before it becomes an intent. Price in 1/10,000."""

    symbol: int
    side: Side
    quantity: int
    reference_price: int
    limit_price: int
    forecast: float


def volatility(data: Dataset, market_index: int, window: int) -> NDArray[np.float64]:
    """Standard deviation of the last ``window`` daily log returns, per symbol, float64 [symbols]."""
    closes = data.log_closes[max(0, market_index - window) : market_index + 1]
    returns: NDArray[np.float64] = np.std(np.diff(closes, axis=0), axis=0)
    return np.maximum(returns, 1e-6)


def exposure(data: Dataset, market_index: int, positions: Mapping[int, int]) -> NDArray[np.float64]:
    """Signed notional per symbol in quote currency, float64 [symbols]."""
    held = np.zeros(len(data.symbols))
    for symbol, quantity in positions.items():
        held[symbol] = quantity * data.closes[market_index, symbol] / PRICE_SCALE
    return held


def value_at_risk(data: Dataset, market_index: int, held: NDArray[np.float64], window: int) -> float:
    """One-day 99 % loss of ``held`` under the last ``window`` days' returns; never negative."""
    closes = data.log_closes[max(0, market_index - window) : market_index + 1]
    outcomes = np.expm1(np.diff(closes, axis=0)) @ held
    return max(0.0, -float(np.quantile(outcomes, VALUE_AT_RISK_QUANTILE)))


def target_notionals(
    analogues: Sequence[Analogues], picture: RiskPicture, section: StrategySection
) -> dict[int, float]:
    """Signed wish per symbol: conviction times volatility scale, within the gross limit."""
    wishes: dict[int, float] = {}
    for found in analogues:
        edge_bps = abs(found.forecast) * 1e4
        if found.agreement < section.agreement or edge_bps < section.edge_min_bps:
            continue
        calm = float(np.clip(VOLATILITY_TARGET / picture.volatility[found.symbol], SCALE_MIN, SCALE_MAX))
        conviction = float(np.clip(edge_bps / (3 * section.edge_min_bps), SCALE_MIN, SCALE_MAX))
        size = min(section.order_notional * calm * conviction, section.order_notional_max)
        wishes[found.symbol] = size if found.forecast > 0 else -size
    gross = sum(abs(size) for size in wishes.values())
    if gross > section.gross_notional_max:
        wishes = {symbol: size * section.gross_notional_max / gross for symbol, size in wishes.items()}
    if picture.value_at_risk > section.value_at_risk_max:
        wishes = {symbol: size / 2 for symbol, size in wishes.items()}
    return wishes


def decide(
    analogues: Sequence[Analogues],
    targets: Mapping[int, float],
    section: StrategySection,
    position: Callable[[int], int],
    close: Callable[[int], int],
    collar_bps: int,
) -> list[Wish]:
    """Trade the difference between wish and position, in whole shares, at a limit just through the market.

    ``position(symbol)`` counts working orders as done, so that nothing is wished for twice.
    """
    wishes: list[Wish] = []
    for found in analogues:
        price = close(found.symbol)
        wanted = round(targets.get(found.symbol, 0.0) * PRICE_SCALE / price)
        difference = wanted - position(found.symbol)
        largest = int(section.order_notional_max * PRICE_SCALE // price)
        quantity = min(abs(difference), largest)
        if quantity * price < section.trade_notional_min * PRICE_SCALE or quantity == 0:
            continue
        side = Side.BUY if difference > 0 else Side.SELL
        limit = price + side.sign * (price * collar_bps // 10_000)
        wishes.append(Wish(found.symbol, side, quantity, price, limit, found.forecast))
    return wishes
