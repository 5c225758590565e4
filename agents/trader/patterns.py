"""Analogues: the past windows of a symbol that look most like its present one, and what followed them. Pure.

Trader and risk agents run the same search on their own copies of the data. Only windows that end, with their whole
future, before the present one begins are looked at; a search at bar t reads nothing after t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agents.config import PatternSection
from agents.data.dataset import Dataset
from dtw.bank import LibraryBank
from dtw.query import Neighbours
from protocol.messages import Claim
from protocol.rows import Windows

FORECAST_SCALE: Final = 1_000_000
"""``Claim.forecast_bps`` counts hundredths of a basis point."""

DISTANCE_TOLERANCE: Final = 1e-6
"""Relative; two machines may differ in the last bits of a sum."""


@dataclass(frozen=True, slots=True)
class Analogues:
    """The k nearest past windows of one symbol, nearest first. Log returns."""

    symbol: int
    query_end: int
    starts: NDArray[np.int64]
    distances: NDArray[np.float64]
    forecast: float
    """Mean forward return of the analogues over the horizon, weighted by 1 / (1 + distance)."""
    agreement: float
    """Share of analogues whose forward return has the forecast's sign."""

    def claim(self, window: int) -> Claim:
        """What the trader signs; ``PatternSearch.refute`` judges it."""
        return Claim(
            symbol=self.symbol,
            query_end=self.query_end,
            window=window,
            starts=tuple(self.starts.tolist()),
            distances=tuple(self.distances.tolist()),
            forecast_bps=round(self.forecast * FORECAST_SCALE),
        )


class PatternSearch:
    """Searches one data set. Immutable after construction; ``neighbours`` and ``refute`` may run in a worker thread.

    ``threads`` share the symbols of a search.
    """

    def __init__(
        self, data: Dataset, section: PatternSection, method: Literal["lanes", "scalar"], threads: int = 1
    ) -> None:
        self._threads = threads
        self._data = data
        self._section = section
        self._method: Literal["lanes", "scalar"] = method
        self._bank = LibraryBank(data.log_closes, section.window, np.float32)
        self._bank.prepare(section.band)

    def neighbours(self, market_index: int, symbols: Sequence[int]) -> list[Neighbours]:
        """The k nearest of each symbol at a bar."""
        section = self._section
        return self._bank.nearest_all(
            market_index,
            k=section.neighbours,
            band=section.band,
            horizon=section.horizon,
            exclusion=section.exclusion,
            columns=symbols,
            method=self._method,
            threads=self._threads,
        )

    def windows(self, market_index: int, symbols: Sequence[int]) -> NDArray[np.float32]:
        """The query windows of a search: log closes in single precision, shape (symbols, window).

        Rounded, they are the same on machines whose logarithms differ in the last bit of a double.
        """
        first = market_index - self._section.window + 1
        return self._data.log_closes[first : market_index + 1, list(symbols)].T.astype(np.float32)

    def same_windows(
        self, claims: Sequence[Claim], evidence: Windows, window_length: int, market_index: int
    ) -> list[bool]:
        """Is each claim's row of the evidence, bit for bit, the window that this search would start from?

        True where there is nothing to compare: no evidence came, or ``refute`` has its own word about the claim.
        """
        searchable = [self._unsearchable(claim, market_index) is None for claim in claims]
        if not len(evidence) or not any(searchable):
            return [True] * len(claims)
        if window_length != self._section.window or len(evidence) != window_length * len(claims):
            return [not each for each in searchable]
        symbols = [claim.symbol if each else 0 for claim, each in zip(claims, searchable, strict=True)]
        ours = self.windows(market_index, symbols).view(np.uint32)
        equal = (ours == evidence.array.view(np.uint32).reshape(ours.shape)).all(axis=1).tolist()
        return [same or not each for same, each in zip(equal, searchable, strict=True)]

    def forecasts(self, symbols: Sequence[int], market_index: int, found: Sequence[Neighbours]) -> list[Analogues]:
        """What followed the analogues of each symbol. Sums run in the order of the neighbours, on every processor."""
        count, horizon = len(found), self._section.horizon
        sizes = [len(each.starts) for each in found]
        group = np.repeat(np.arange(count), sizes)
        column = np.asarray(symbols, np.int64)[group]
        ends = np.concatenate([each.starts for each in found]) + (self._section.window - 1)
        closes = self._data.log_closes
        forward = closes[ends + horizon, column] - closes[ends, column]
        weights = 1.0 / (1.0 + np.concatenate([each.distances for each in found]))
        total = np.bincount(group, weights, count)
        forecast = np.bincount(group, weights * forward, count) / np.where(total > 0, total, 1.0)
        agreeing = np.bincount(group, np.sign(forward) == np.sign(forecast[group]), count)
        agreement = agreeing / np.maximum(sizes, 1)
        return [
            Analogues(symbol, market_index, each.starts, each.distances, *figures)
            for symbol, each, *figures in zip(symbols, found, forecast.tolist(), agreement.tolist(), strict=True)
        ]

    def refute(self, claims: Sequence[Claim], market_index: int) -> list[str | None]:
        """Repeat the whole search for the claims' symbols; why each claim is not its result, or None.

        Recomputing the claimed distances alone would let a trader hide a nearer window that points the other way.
        """
        reasons = [self._unsearchable(claim, market_index) for claim in claims]
        symbols = list(dict.fromkeys(c.symbol for c, reason in zip(claims, reasons, strict=True) if reason is None))
        if not symbols:
            return reasons
        neighbours = self.neighbours(market_index, symbols)
        found = dict(zip(symbols, self.forecasts(symbols, market_index, neighbours), strict=True))
        return [
            reason or _difference(claim, found[claim.symbol]) for claim, reason in zip(claims, reasons, strict=True)
        ]

    def _unsearchable(self, claim: Claim, market_index: int) -> str | None:
        section = self._section
        if not 0 <= claim.symbol < len(self._data.symbols):
            return "unknown symbol"
        if claim.query_end != market_index or claim.window != section.window:
            return "another window than the present one"
        if not section.window - 1 <= market_index < self._data.bars:
            return "no such bar"
        return None


def _difference(claim: Claim, found: Analogues) -> str | None:
    if claim.starts != tuple(found.starts.tolist()):
        return "other windows are nearest"
    if len(claim.distances) != len(found.distances):
        return "distances differ"
    if not np.allclose(claim.distances, found.distances, rtol=DISTANCE_TOLERANCE, atol=DISTANCE_TOLERANCE):
        return "distances differ"
    if abs(claim.forecast_bps - found.forecast * FORECAST_SCALE) > 1.0:
        return "forecast differs"
    return None
