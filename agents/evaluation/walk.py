"""A walk through history: at every bar the forecast that the trader would have made there, and what came of it. Pure.

The forecasts are those of ``agents.trader.patterns.PatternSearch``, the code that trades; nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.config import PatternSection
from agents.data.dataset import Dataset
from agents.evaluation.bootstrap import Floats
from agents.trader.patterns import PatternSearch
from dtw.parallel import in_threads
from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE

DATES_MIN: Final = 30
"""Fewer dates say nothing, not even how little they say."""

BATCH: Final = 32
"""Bars between two reports of progress, and between two chances to interrupt the threads."""

Progress = Callable[[int], None]
"""Called with the number of bars done since the last call."""

Forecaster = Callable[[Dataset, int], Floats]
"""One forecast per symbol at a bar, log returns over the horizon."""


def first_bar(section: PatternSection) -> int:
    """The first bar whose past always holds as many analogues as are asked for.

    Each chosen start rules out at most ``2 * exclusion - 1`` starts, its own among them.
    """
    gap = 2 * max(section.exclusion, 1) - 1
    return 2 * section.window + section.horizon - 1 + (section.neighbours - 1) * gap


def query_bars(data: Dataset, section: PatternSection, step: int, last: int | None) -> NDArray[np.int64]:
    """Every ``step``-th bar that has enough history and an outcome, among the ``last`` such bars if that is given."""
    first, end = first_bar(section), data.bars - section.horizon
    begin = first if last is None else max(first, end - last)
    found = np.arange(begin, end, step, dtype=np.int64)
    if len(found) < DATES_MIN:
        raise UsageError(
            f"{data.name}: {len(found)} forecasts a symbol, from bar {begin} of {data.bars} on, are too few; "
            f"make it {DATES_MIN}: give more bars, lower --step, --window, --neighbours or --exclusion, or raise --last"
        )
    return found


def only(data: Dataset, symbols: Sequence[str]) -> Dataset:
    """The data set with these symbols alone, each once, or all of them if none is named."""
    unknown = [symbol for symbol in symbols if symbol not in data.symbols]
    if unknown:
        raise UsageError(f"--symbol {unknown[0]}: not in {data.name}; choose of {', '.join(data.symbols)}")
    wanted = tuple(dict.fromkeys(symbols)) or data.symbols
    columns = [data.symbols.index(symbol) for symbol in wanted]
    return replace(
        data,
        symbols=wanted,
        closes=data.closes[:, columns],
        log_closes=np.ascontiguousarray(data.log_closes[:, columns]),
    )


def forecasts_at(search: PatternSearch, market_index: int, symbols: Sequence[int]) -> Floats:
    """What the trader forecasts at one bar for each of ``symbols``, ``(symbols,)``."""
    found = search.neighbours(market_index, symbols)
    return np.array([each.forecast for each in search.forecasts(symbols, market_index, found)])


def forecasts(
    data: Dataset, section: PatternSection, bars: Sequence[int] | NDArray[np.int64], threads: int, progress: Progress
) -> Floats:
    """Forecasts at ``bars``, ``(bars, symbols)``. ``threads`` share the bars; the result does not depend on them."""
    search = PatternSearch(data, section, "lanes")
    symbols = range(len(data.symbols))
    found = np.empty((len(bars), len(symbols)))

    def fill(row: int) -> None:
        found[row] = forecasts_at(search, int(bars[row]), symbols)

    for begin in range(0, len(bars), BATCH):
        rows = range(begin, min(begin + BATCH, len(bars)))
        in_threads([partial(fill, row) for row in rows], threads)
        progress(len(rows))
    return found


def realised(data: Dataset, horizon: int, bars: NDArray[np.int64]) -> Floats:
    """Log return over the horizon from the close of each bar on, ``(bars, symbols)``."""
    found: Floats = data.log_closes[bars + horizon] - data.log_closes[bars]
    return found


def with_another_future(data: Dataset, market_index: int, rng: np.random.Generator) -> Dataset:
    """The same data with every price after a bar replaced: out of order, and moved by noise of 30 %."""
    log_closes = data.log_closes.copy()
    future = log_closes[market_index + 1 :]
    log_closes[market_index + 1 :] = rng.permutation(future) + rng.normal(0, 0.3, future.shape)
    closes = np.rint(np.exp(log_closes) * PRICE_SCALE).astype(np.int64)
    return replace(data, closes=closes, log_closes=log_closes)


def bars_that_see_the_future(
    forecaster: Forecaster, data: Dataset, bars: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Those of ``bars`` where a forecast changes in any bit when all later prices do."""
    return [
        bar
        for bar in bars
        if forecaster(data, bar).tobytes() != forecaster(with_another_future(data, bar, rng), bar).tobytes()
    ]
