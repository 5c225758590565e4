"""How to work an order: the executor matches the recent activity curve against its history and chooses the legs. Pure.

The data set has no volumes, so activity is the absolute daily return, its usual stand-in. If the days after the most
similar curves were much wilder than the present, half of the order waits at the reference price instead of crossing
the spread: the leg costs less if it trades and expires with the day if it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from agents.data.dataset import Dataset
from dtw.bank import LibraryBank
from protocol.messages import Intent

WINDOW: Final = 32
BAND: Final = 3
NEIGHBOURS: Final = 5
HORIZON: Final = 3
WILDER: Final = 1.5
"""Ratio of the analogues' later activity to the present from which an order is split."""
SPLIT_QUANTITY_MIN: Final = 20


@dataclass(frozen=True, slots=True)
class Leg:
    quantity: int
    price: int


class CurveMatcher:
    """``legs(intent, limit_price, market_index)``; libraries are built once for all symbols."""

    def __init__(self, data: Dataset) -> None:
        self._activity = np.abs(np.diff(data.log_closes, axis=0))
        self._bank = LibraryBank(self._activity, WINDOW, np.float32)

    def legs(self, intent: Intent, limit_price: int, market_index: int) -> tuple[Leg, ...]:
        """One leg at the limit, or two: half at the limit, half at the reference price."""
        whole = (Leg(intent.quantity, limit_price),)
        if intent.quantity < SPLIT_QUANTITY_MIN or not self._turning_wild(intent.symbol, market_index):
            return whole
        first = intent.quantity - intent.quantity // 2
        return (Leg(first, limit_price), Leg(intent.quantity // 2, intent.reference_price))

    def _turning_wild(self, symbol: int, market_index: int) -> bool:
        end = market_index - 1
        if end < 4 * WINDOW:
            return False
        (found,) = self._bank.nearest_all(
            end, k=NEIGHBOURS, band=BAND, horizon=HORIZON, exclusion=WINDOW, columns=[symbol]
        )
        if not len(found.starts):
            return False
        later = [
            float(np.mean(self._activity[start + WINDOW : start + WINDOW + HORIZON, symbol])) for start in found.starts
        ]
        present = float(np.mean(self._activity[end - WINDOW + 1 : end + 1, symbol]))
        return float(np.median(later)) > WILDER * present
