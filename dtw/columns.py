"""The whole search of several series in one call: normalise, bound, compare, choose.

The steps are those that ``library.py`` makes one by one for parts of a series. In one call, because a thread that comes
back from a kernel queues for the interpreter, and an agent's event loop does not hand it over at once: an agent's
search should queue once, not sixty times. Canonical arrays only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.cascade import nearest_windows, window_bounds
from dtw.reference import choose_nearest, normalize_windows

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _bound(query: Array, segment: int, reach: int, coarse: Any, column: int, count: int, bounds: Array) -> None:
    """Lower bounds of the first ``count`` windows of a column; zeros where the windows are too short for any."""
    bounds[:] = 0
    if coarse[0].shape[1] > 0:
        spans, shifts, scales, usable = coarse[0][column], coarse[1][column], coarse[2][column], coarse[3][column]
        window_bounds(query, segment, reach, spans, shifts, scales, usable, 0, count, np.float32(np.inf), bounds)


@_part
def _choose(
    pattern: Array,
    series: Array,
    starts: Array,
    values: Array,
    band: Any,
    exclusion: int,
    cutoff: float,
    slack: Array,
    chosen: Array,
    distances: Array,
) -> int:
    """Choose among the proposals, ascending by their floors, which are those of ``precision.Slack.floors``."""
    proposed, floors = np.empty(starts.shape[0], np.int64), np.empty(starts.shape[0])
    order = np.argsort(values, kind="mergesort")
    for position in range(order.shape[0]):
        at = order[position]
        root = max(0.0, (np.sqrt(np.float64(values[at])) - slack[5]) / slack[4])
        proposed[position] = starts[at]
        floors[position] = root * root
    lower, upper = band
    return int(choose_nearest(pattern, series, proposed, floors, lower, upper, exclusion, cutoff, chosen, distances))


@_entry
def search_columns(
    queries: Array,
    columns: Array,
    windows: Any,
    segment: int,
    reach: int,
    coarse: Any,
    fine: Any,
    band: Any,
    count: int,
    gap: int,
    exclusion: int,
    cutoff: float,
    ceiling: Any,
    slack: Array,
    chosen: Array,
    distances: Array,
    counts: Array,
) -> None:
    """The nearest of the first ``count`` windows of a column to each of ``queries`` float64 ``(m, window)``, raw.

    ``columns`` int64 ``(m,)``: whose windows. Tuples ``windows`` (series, means, inverses), ``coarse``, ``fine`` and
    ``band`` (lower, upper) hold what ``cascade`` takes, all but the last with a row per column. ``ceiling``, in the
    type of the search: nothing within the cutoff comes out above it. ``slack`` float64 ``(6,)``: that of ``cascade``,
    the divisor and the absolute error of floors. ``chosen`` int64, ``distances`` float64 ``(m, k)`` and ``counts``
    int64 ``(m, 5)`` are filled: the windows that three steps were left with, those proposed, and those chosen.
    """
    query, single = np.full(queries.shape[1], ceiling), np.empty(queries.shape[1], np.float32)
    first, pattern = np.zeros(1, np.int64), np.empty((1, queries.shape[1]))
    bounds = np.empty(count, np.float32)
    starts, values = np.empty(count + 1, np.int64), np.empty(count + 1, query.dtype)
    for slot in range(columns.shape[0]):
        column = columns[slot]
        series = windows[0][column]
        normalize_windows(queries[slot], first, pattern)
        query[:] = pattern[0]
        single[:] = pattern[0]
        _bound(single, segment, reach, coarse, column, count, bounds)
        found = nearest_windows(
            query,
            single,
            reach,
            (series, windows[1][column], windows[2][column]),
            1,
            (fine[0][column], fine[1][column], fine[2][column], fine[3][column]),
            bounds,
            band,
            min(chosen.shape[1], count),
            gap,
            ceiling,
            slack,
            np.full(1, np.inf),
            starts,
            values,
            counts[slot],
        )
        proposed, keys, into = starts[:found], values[:found], distances[slot]
        counts[slot, 3] = found
        counts[slot, 4] = _choose(
            pattern[0], series, proposed, keys, band, exclusion, cutoff, slack, chosen[slot], into
        )
