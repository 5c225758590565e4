"""Intervals from a circular block bootstrap over dates. Pure: the generator is handed in.

Forecasts of neighbouring dates share samples and outcomes, and symbols move together on a date. So whole runs of dates
are drawn, each with all its symbols: what hangs together in the data hangs together in every resample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From sums over dates ``(..., k)`` to a figure ``(...)``."""

RESAMPLES: Final = 2_000
CONFIDENCE: Final = 0.95
NORMAL_QUANTILE: Final = 1.959964
"""Of 0.975: what leaves 2.5 % on either side."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and standard error, all in the figure's unit."""

    value: float
    low: float
    high: float
    error: float

    @property
    def side(self) -> int:
        """1 if the whole interval lies above 0, -1 if below, 0 if it contains 0."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def reach(self) -> float:
        """Half the interval's width: true values closer to 0 than about this cannot be told from 0."""
        return (self.high - self.low) / 2


class BlockBootstrap:
    """Draws once and applies the same draws to every figure, so that differences between figures are paired.

    ``dates`` rows are drawn in runs of ``block`` rows that wrap around at the end; every resample has ``dates`` rows.
    """

    def __init__(self, dates: int, block: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        self.dates = dates
        self.block = min(block, dates)
        runs = -(-dates // self.block)
        starts = rng.integers(dates, size=(resamples, runs))
        self._starts, self._last_starts = np.ascontiguousarray(starts[:, :-1]), starts[:, -1]
        self._sizes = self.block, dates - (runs - 1) * self.block
        """Of all runs but the last, and of the last, which only fills up."""

    @property
    def blocks(self) -> float:
        """How many blocks the dates amount to."""
        return self.dates / self.block

    def sums(self, columns: Floats) -> Floats:
        """Column sums of each resample, ``(resamples, k)``, for ``columns`` of shape ``(dates, k)``."""
        return np.column_stack([self._column_sums(column) for column in columns.T])

    def _column_sums(self, column: Floats) -> Floats:
        running = np.cumsum(np.concatenate([[0.0], column, column[: self.block]]))
        run_sums, last_sums = (running[size : size + self.dates] - running[: self.dates] for size in self._sizes)
        found: Floats = np.take(run_sums, self._starts).sum(axis=1) + last_sums[self._last_starts]
        return found

    def estimate(self, columns: Floats, statistic: Statistic) -> Estimate | None:
        """``statistic`` of the column sums with a percentile interval; None where it is not defined.

        The interval is stretched about the value as Student's t is wider than the normal: few blocks show too little
        of their own spread.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(columns.sum(axis=0)))
            drawn = statistic(self.sums(columns))
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value) or len(drawn) == 0:
            return None
        tail = (1 - CONFIDENCE) / 2
        spread = (np.quantile(drawn, [tail, 1 - tail]) - value) * stretch(self.blocks)
        return Estimate(value, value + float(spread[0]), value + float(spread[1]), float(np.std(drawn)))


def stretch(blocks: float) -> float:
    """How much wider an interval from so many blocks has to be than a normal one; 1 for infinitely many.

    Student's quantile by its expansion in 1 / degrees of freedom, and the bias of a variance of few values.
    """
    freedom = max(1.0, blocks - 1)
    z = NORMAL_QUANTILE
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return student / z * float(np.sqrt((freedom + 1) / freedom))


def ratio(sums: Floats) -> Floats:
    """First column over the second."""
    found: Floats = sums[..., 0] / sums[..., 1]
    return found
