"""The market as the trader sees it: one bar of closes after the other. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from agents.data.dataset import Dataset
from protocol.errors import LocalMisuse


@dataclass(frozen=True, slots=True)
class Bar:
    """Closes of all symbols on one day, int64 [symbols] in 1/10,000."""

    market_index: int
    day: date
    closes: NDArray[np.int64]


class ReplayFeed:
    """Replays a data set from ``start`` on; ``bar(cycle)`` for cycles counted from 1, None when the data has ended."""

    def __init__(self, data: Dataset, start: int) -> None:
        self._data = data
        self._start = start

    def bar(self, cycle: int) -> Bar | None:
        market_index = self._start + cycle - 1
        if market_index >= self._data.bars - 1:
            return None  # the last bar is kept for the venue to close the day of the one before
        return Bar(market_index, self._data.dates[market_index], self._data.closes[market_index])


def validate(bar: Bar, before: Bar | None) -> None:
    """The feed's contract: later than the bar before it, every price positive. A broken one is our own bug."""
    if before is not None and bar.market_index <= before.market_index:
        raise LocalMisuse(f"feed went from bar {before.market_index} to {bar.market_index}")
    if bool((bar.closes <= 0).any()):
        raise LocalMisuse(f"feed delivered a price that is not positive in bar {bar.market_index}")
