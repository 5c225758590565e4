"""What a forecast is worth: hits, ranks and money, beside what the majority side and holding get for nothing. Pure.

Every array is ``(dates, symbols)``. A forecast counts by its sign and rank only; realised returns are log returns over
the horizon. Every rival is a forecast too, so that all of them go through the same functions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.evaluation.bootstrap import BlockBootstrap, Estimate, Floats, ratio

SYMBOLS_FOR_RANKS: Final = 3
"""Fewer symbols on a date have no order worth correlating."""

BPS: Final = 10_000.0


def hits(forecast: Floats, realised: Floats) -> Floats:
    """1 where the signs agree, 0 where they differ, 1/2 where the forecast is zero and so takes no side.

    A realised return of exactly zero cannot be hit or missed: it is 0 here and left out of the count (``counted``).
    """
    found: Floats = np.where(realised == 0, 0.0, (1 + np.sign(forecast) * np.sign(realised)) / 2)
    return found


def counted(realised: Floats) -> Floats:
    """1 where a hit is possible, 0 where nothing moved."""
    found: Floats = (realised != 0).astype(np.float64)
    return found


def hit_rate(bootstrap: BlockBootstrap, forecast: Floats, realised: Floats) -> Estimate | None:
    """Hits over forecasts that could hit."""
    return mean(bootstrap, hits(forecast, realised), counted(realised))


def hit_rate_difference(bootstrap: BlockBootstrap, ours: Floats, rival: Floats, realised: Floats) -> Estimate | None:
    """Hit rate of ``ours`` minus that of ``rival``, on the same outcomes in every resample."""
    return mean(bootstrap, hits(ours, realised) - hits(rival, realised), counted(realised))


def mean(bootstrap: BlockBootstrap, values: Floats, weights: Floats) -> Estimate | None:
    """Mean of the values whose weight is 1; those of weight 0 must be 0."""
    return bootstrap.estimate(np.column_stack([values.sum(axis=1), weights.sum(axis=1)]), ratio)


def timing(bootstrap: BlockBootstrap, forecast: Floats, outcome: Floats, weights: Floats) -> Estimate | None:
    """What the forecast's side earns of ``outcome`` beyond its own average side, taken all the time, per symbol.

    With signs for outcomes this is the test of Pesaran and Timmermann: a forecaster that is long 60 % of the time at
    random hits more than half in a rising market, and has no timing. Both sides are centred: the value is the same, and
    resamples do not take the drift for a risk of the timing.
    """
    side, counts = np.sign(forecast), np.maximum(1.0, weights.sum(axis=0))
    centred = [values - (values * weights).sum(axis=0) / counts for values in (side, outcome)]
    return mean(bootstrap, centred[0] * centred[1] * weights, weights)


def effective_count(rate: Estimate, most: float) -> float:
    """How many independent guesses of this hit rate would be as uncertain as it is, at most ``most``."""
    if rate.error == 0:
        return most
    return min(most, rate.value * (1 - rate.value) / rate.error**2)


def past_majority(log_closes: Floats, horizon: int, bars: NDArray[np.int64]) -> Floats:
    """The side that most horizon returns completed by each bar of ``bars`` took: known in advance. 0 for a tie.

    ``log_closes`` is ``(all bars, symbols)``; every bar from the first one on is a start.
    """
    sides = np.sign(log_closes[horizon:] - log_closes[:-horizon])
    balance = np.cumsum(sides, axis=0)
    found: Floats = np.sign(balance[bars - horizon])  # the return that begins at bar u is known at u + horizon
    return found


def sample_majority(realised: Floats) -> Floats:
    """The side that most of a symbol's own outcomes took: known only afterwards, the hardest constant rival."""
    side = np.sign(np.sign(realised).sum(axis=0))
    return np.broadcast_to(side, realised.shape)


def ranks(values: Floats) -> Floats:
    """Ranks from 1, ties get their mean; ``(n,)``."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return found


def rank_correlation(bootstrap: BlockBootstrap, forecast: Floats, realised: Floats) -> Estimate | None:
    """Spearman's correlation of all forecasts with their outcomes: the information coefficient.

    Resamples keep the ranks of the whole sample. Without skill that is exact to first order.
    """
    return bootstrap.estimate(_rank_moments(forecast, realised), _correlation)


def rank_correlation_difference(
    bootstrap: BlockBootstrap, ours: Floats, rival: Floats, realised: Floats
) -> Estimate | None:
    """Information coefficient of ``ours`` minus that of ``rival``, paired."""
    columns = np.hstack([_rank_moments(ours, realised), _rank_moments(rival, realised)])
    half = columns.shape[1] // 2
    return bootstrap.estimate(columns, lambda sums: _correlation(sums[..., :half]) - _correlation(sums[..., half:]))


def rank_correlation_across(bootstrap: BlockBootstrap, forecast: Floats, realised: Floats) -> Estimate | None:
    """Mean over dates of Spearman's correlation across that date's symbols: what is left without the market's move."""
    if forecast.shape[1] < SYMBOLS_FOR_RANKS:
        return None
    x, y = (np.apply_along_axis(ranks, 1, values) for values in (forecast, realised))
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    per_date = np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(x)), where=scale > 0)
    return bootstrap.estimate(np.column_stack([per_date, scale > 0]), ratio)


def _rank_moments(forecast: Floats, realised: Floats) -> Floats:
    """Per date the sums of 1, x, y, xx, yy, xy over its symbols, ``(dates, 6)``; x and y are centred ranks."""
    x, y = (ranks(values.ravel()).reshape(values.shape) / values.size - 0.5 for values in (forecast, realised))
    moments = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return np.column_stack([moment.sum(axis=1) for moment in moments])


def _correlation(sums: Floats) -> Floats:
    count, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance = xy / count - x * y / count**2
    # Rounding leaves a variance of constant ranks slightly off zero, on either side of it.
    spreads = [np.maximum(0.0, squares / count - (total / count) ** 2) for squares, total in ((xx, x), (yy, y))]
    product = spreads[0] * spreads[1]
    return np.where(product > 1e-18, covariance / np.sqrt(product), np.nan)


def net_returns(forecast: Floats, realised: Floats, cost_bps: float, joined: bool) -> Floats:
    """Return of the forecast's side over each horizon minus the cost of what was traded for it, in basis points.

    ``cost_bps`` is a round trip's, half for opening and half for closing. Where one horizon begins as the last one
    ends (``joined``), a side that stays is held on and pays nothing, so that a constant side is buy and hold.
    Simple returns on a constant notional; a forecast of zero stays out.
    """
    side = np.sign(forecast)
    before = np.zeros_like(side)
    if joined:
        before[1:] = side[:-1]
    half_trips = np.abs(side - before)
    if joined:
        half_trips[-1] += np.abs(side[-1])
    else:
        half_trips *= 2
    net: Floats = side * np.expm1(realised) * BPS - half_trips * cost_bps / 2
    return net
