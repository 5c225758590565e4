"""The search of a series that is searched once: nothing is kept, so nothing is prepared that this query does not need.

The ends of all windows first (LB_Kim over shells), a piece at a time, small enough for the cache. The most promising
windows then give a cutoff, and only where the ends leave something within it come segments and, in the end, the
recurrence. Canonical arrays only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.bounds import EDGE, SPAN
from dtw.cascade import compare_within, edge_bounds, scratch_of, window_bounds
from dtw.choice import count_within, indices_within, smallest_of_groups, widened
from dtw.lanes import LANES
from dtw.moving import fill_samples, fill_segments, span_shape

PIECE: Final = 32 * SPAN
"""Windows in a piece."""

FIRST: Final = 512
"""Windows that give the cutoff. The ends of a window say little, so these are more than where segments are known."""

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _empty_piece(count: int, window: int) -> Any:
    """Room for what ``cascade.window_bounds`` takes of ``count`` windows."""
    return (
        np.empty(span_shape(count, window), np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )


@_part
def _bound(query: Array, series: Array, segment: int, reach: int, limit: Any, bounds: Array) -> None:
    """Bounds by the ends, or with a limit those by segments where the bounds so far are within it.

    A piece at a time. Samples outside a piece belong to none of its windows; without them their envelopes are only
    narrower.
    """
    window = query.shape[0]
    spans, shifts, scales, usable = _empty_piece(min(PIECE, bounds.shape[0]), window)
    for first in range(0, bounds.shape[0], PIECE):
        size = min(PIECE, bounds.shape[0] - first)
        last, known, piece = -(-size // SPAN), bounds[first : first + size], series[first : first + size + window - 1]
        shift, scale, use = shifts[:size], scales[:size], usable[:size]
        fill_samples(piece, window, reach, 0, last, known, limit, spans, shift, scale, use)
        if limit == np.inf:
            edge_bounds(query, reach, spans, shift, scale, use, known)
        else:
            fill_segments(piece, window, segment, reach, 0, last, known, limit, spans)
            window_bounds(query, segment, reach, spans, shift, scale, use, 0, size, limit, known)


@_entry
def search_once(
    pattern: Array,
    series: Array,
    segment: int,
    reach: int,
    band: Any,
    k: int,
    gap: int,
    ceiling: Any,
    slack: Array,
    shared: Array,
    starts: Array,
    values: Array,
    counts: Array,
) -> int:
    """Propose the windows of ``series`` that can be among the k nearest to ``pattern`` float64 ``(n,)``, z-normalised.

    Arguments and results are those of ``cascade.nearest_windows``; the type of ``ceiling`` is that of the search.
    """
    count = series.shape[0] - pattern.shape[0] + 1
    query, single = np.full(pattern.shape[0], ceiling), np.empty(pattern.shape[0], np.float32)
    query[:], single[:] = pattern, pattern
    # Moments are not kept: of memory that is touched here and there, each page costs more than they do.
    windows = (series, np.zeros(1), np.zeros(1))
    bounds, order = np.zeros(count, np.float32), np.empty(count + LANES, np.int64)
    fixed = (band, k, gap, slack, shared, starts, values, counts, scratch_of(query))
    bounded = pattern.shape[0] >= 2 * EDGE
    if bounded:
        _bound(single, series, segment, reach, np.float32(np.inf), bounds)
    waiting = smallest_of_groups(bounds, max(FIRST, 4 * k), order)
    found, cutoff = compare_within(query, windows, 1, order, waiting, bounds, 0, ceiling, *fixed)
    limit = np.float32(widened(cutoff, slack[2], slack[3]))
    if bounded and limit < np.inf:
        _bound(single, series, segment, reach, limit, bounds)
    counts[0] = counts[1] = counts[2] + count_within(bounds, limit)
    waiting = indices_within(bounds, limit, order)
    return int(compare_within(query, windows, 1, order, waiting, bounds, found, cutoff, *fixed)[0])
