"""How to work an order: the executor matches the recent activity curve against its history and chooses the legs. Pure.

The data set has no volumes, so activity is the absolute daily return, its usual stand-in. If the days after the most
similar curves were much wilder than the present, half of the order waits at the reference price instead of crossing
the spread: the leg costs less if it trades and expires with the day if it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from agents.data.dataset import Dataset
from dtw.bank import LibraryBank
from dtw.query import Neighbours
from protocol.messages import Intents

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
    """``legs(intents, limit_prices, market_index)``; libraries are built once for all symbols."""

    def __init__(self, data: Dataset) -> None:
        self._activity = np.abs(np.diff(data.log_closes, axis=0))
        self._bank = LibraryBank(self._activity, WINDOW, np.float32)
        self._bank.prepare(BAND)

    def legs(self, intents: Intents, limit_prices: Sequence[int], market_index: int) -> dict[int, tuple[Leg, ...]]:
        """By the intent's sequence: one leg at the limit, or two, half at the limit, half at the reference price."""
        rows = intents.array
        large = rows["quantity"] >= SPLIT_QUANTITY_MIN
        wild = self._turning_wild(list(dict.fromkeys(rows["symbol"][large].tolist())), market_index)
        split = (large & np.isin(rows["symbol"], list(wild))).tolist()
        names = ("sequence", "quantity", "reference_price")
        columns = zip(*[rows[name].tolist() for name in names], limit_prices, split, strict=True)
        legs: dict[int, tuple[Leg, ...]] = {}
        for sequence, quantity, reference_price, limit_price, in_two in columns:
            half = quantity // 2
            if in_two:
                legs[sequence] = (Leg(quantity - half, limit_price), Leg(half, reference_price))
            else:
                legs[sequence] = (Leg(quantity, limit_price),)
        return legs

    def _turning_wild(self, symbols: list[int], market_index: int) -> set[int]:
        """Those of the symbols whose analogues became much wilder than the symbol is at present."""
        end = market_index - 1
        if end < 4 * WINDOW or not symbols:
            return set()
        found = self._bank.nearest_all(end, k=NEIGHBOURS, band=BAND, horizon=HORIZON, exclusion=WINDOW, columns=symbols)
        pairs = zip(symbols, found, strict=True)
        return {symbol for symbol, each in pairs if len(each.starts) and self._wilder(symbol, end, each)}

    def _wilder(self, symbol: int, end: int, found: Neighbours) -> bool:
        later = [
            float(np.mean(self._activity[start + WINDOW : start + WINDOW + HORIZON, symbol])) for start in found.starts
        ]
        present = float(np.mean(self._activity[end - WINDOW + 1 : end + 1, symbol]))
        return float(np.median(later)) > WILDER * present
