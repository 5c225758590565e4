"""Does the present look like a known stress episode? If so, decisions are critical and take the spine.

The market is the equal-weighted mean of the log closes. Shape *and* size matter here, so windows are not z-normalised:
they are cumulative log returns in units of the market's own long-run volatility up to the window's start, compared by
DTW. Everything used lies before or at the bar in question, so every voter with the same data comes to the same answer.
"""

from __future__ import annotations

from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.data.dataset import Dataset
from dtw.api import one_to_many

WINDOW: Final = 21
BAND: Final = 3
HISTORY_MIN: Final = 500
"""Bars needed before a volatility is worth dividing by."""

EPISODE_ENDS: Final = (
    date(1998, 8, 31),  # Russian default and LTCM
    date(2001, 9, 21),  # after the attacks of 11 September
    date(2002, 7, 23),  # end of the dot-com bear market's worst month
    date(2008, 10, 10),  # the week after TARP
    date(2011, 8, 8),  # US downgrade
    date(2020, 3, 16),  # pandemic
)
"""The last day of each episode's window of 21 trading days. Public history, not fitted to anything."""


class StressMatcher:
    """``matches(market_index)``: is some earlier episode within ``distance`` per bar of the last 21 bars?"""

    def __init__(self, data: Dataset, distance: float) -> None:
        self._market = np.mean(data.log_closes, axis=1)
        self._volatility = expanding_deviations(np.diff(self._market))
        self._distance = distance
        self._answers: dict[int, bool] = {}
        self._episodes: list[tuple[int, NDArray[np.float64]]] = []
        if data.synthetic:
            return
        positions = {day: position for position, day in enumerate(data.dates)}
        for day in EPISODE_ENDS:
            end = positions.get(day)
            if end is not None and end >= HISTORY_MIN:
                self._episodes.append((end, self._window(end)))

    def matches(self, market_index: int) -> bool:
        """Whether the window that ends at this bar matches an episode that had ended before it began."""
        answer = self._answers.get(market_index)
        if answer is None:
            answer = self._answers[market_index] = self.nearest(market_index) <= self._distance
        return answer

    def nearest(self, market_index: int) -> float:
        """DTW distance per bar to the nearest usable episode; infinity if there is none, or no such bar."""
        if not HISTORY_MIN <= market_index < len(self._market):
            return float("inf")
        usable = [window for end, window in self._episodes if end <= market_index - WINDOW]
        if not usable:
            return float("inf")
        distances = one_to_many(self._window(market_index), np.stack(usable), window=BAND)
        return float(np.min(distances)) / WINDOW

    def _window(self, end: int) -> NDArray[np.float64]:
        """Cumulative log returns of the window that ends at ``end``, in daily volatilities; float64 [WINDOW]."""
        start = end - WINDOW + 1
        returns: NDArray[np.float64] = self._market[start : end + 1] - self._market[start]
        window: NDArray[np.float64] = returns / self._volatility[start - 1]
        return window


def expanding_deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The population standard deviation of ``values[: i + 1]`` for each i: what was known at that point."""
    shifted = values - values[:1]  # a common offset would eat the digits of the squares
    count = np.arange(1, len(values) + 1)
    mean = np.cumsum(shifted) / count
    variance = np.cumsum(shifted * shifted) / count - mean * mean
    deviations: NDArray[np.float64] = np.sqrt(np.maximum(variance, 0.0))
    return deviations
