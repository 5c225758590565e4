"""The reference kernels: one pair at a time in IEEE order, z-normalisation and the choice of the nearest.

No fast-math flag at all, so that float64 results are the same bits on every processor: agents compare them with each
other. The recurrence has no reduction that reordering could speed up, so this costs nothing. The rules of the file
stand in ``kernels.py``. Canonical arrays only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.moments import moments

FASTMATH_NONE: Final = False

_entry = njit(nogil=True, cache=True, fastmath=FASTMATH_NONE, error_model="numpy")
_part = njit(nogil=True, fastmath=FASTMATH_NONE, error_model="numpy")

Array = NDArray[Any]


@_part
def _pair(query: Array, candidate: Array, lower: Array, upper: Array, above: Array, current: Array) -> Any:
    """Two-row banded distance. ``above`` and ``current`` are scratch of length ``len(candidate) + 1``.

    Column 0 stands before the first sample. Cells of ``above`` right of its own band are still infinite from the start,
    since upper bounds never decrease; the one cell left of the band is written infinite, since lower bounds never
    decrease.
    """
    infinity = query.dtype.type(np.inf)
    above[:] = infinity
    current[:] = infinity
    above[0] = 0
    for i in range(query.shape[0]):
        value, first, last = query[i], lower[i], upper[i]
        current[first] = infinity
        # The cell to the left and the one above it stay in registers: read back, each would wait for its own store.
        diagonal, left = above[first], infinity
        samples, tops, cells = candidate[first:last], above[first + 1 : last + 1], current[first + 1 : last + 1]
        for index in range(samples.shape[0]):
            difference = value - samples[index]
            top = tops[index]
            left = min(min(diagonal, top), left) + difference * difference
            cells[index] = left
            diagonal = top
        above, current = current, above
    return above[candidate.shape[0]]


@_entry
def distance_pair(query: Array, candidate: Array, lower: Array, upper: Array) -> Any:
    """Distance of two series ``(n,)`` and ``(m,)`` of one dtype, with bounds of shape ``(n,)`` int64."""
    above = np.empty(candidate.shape[0] + 1, query.dtype)
    return _pair(query, candidate, lower, upper, above, np.empty_like(above))


@_entry
def distance_pairs(query: Array, candidates: Array, lower: Array, upper: Array, out: Array) -> None:
    """The plain loop, the baseline of every speed-up: ``candidates`` is ``(count, m)`` row-major, ``out``
    ``(count,)``."""
    above = np.empty(candidates.shape[1] + 1, query.dtype)
    current = np.empty_like(above)
    for index in range(candidates.shape[0]):
        out[index] = _pair(query, candidates[index], lower, upper, above, current)


@_part
def _normalize(values: Array, out: Array) -> None:
    """z-normalise ``values`` float64 into ``out``; a constant window becomes zeros."""
    mean, deviation = moments(values)
    origin = values[0]
    for t in range(values.shape[0]):
        out[t] = ((values[t] - origin) - mean) / deviation if deviation > 0.0 else 0.0


@_entry
def normalize_windows(series: Array, starts: Array, out: Array) -> None:
    """z-normalised windows of ``series`` float64 ``(n,)`` at ``starts`` int64 into ``out`` ``(len(starts),
    window)``."""
    scratch = np.empty(out.shape[1], np.float64)
    for index in range(starts.shape[0]):
        start = starts[index]
        _normalize(series[start : start + out.shape[1]], scratch)
        for t in range(out.shape[1]):
            out[index, t] = scratch[t]


# Selection: exact distances decide, the search only proposes.


@_part
def _is_excluded(start: int, chosen: Array, chosen_count: int, exclusion: int) -> bool:
    for index in range(chosen_count):
        if abs(start - chosen[index]) < exclusion:
            return True
    return False


@_part
def _pool_best(distances: Array, starts: Array, size: int) -> int:
    """Index of the smallest (distance, start) among the first ``size``."""
    best = 0
    for index in range(1, size):
        nearer = distances[index] < distances[best]
        if nearer or (distances[index] == distances[best] and starts[index] < starts[best]):
            best = index
    return best


@_entry
def choose_nearest(
    query: Array,
    series: Array,
    proposed: Array,
    floors: Array,
    lower: Array,
    upper: Array,
    exclusion: int,
    cutoff: float,
    chosen: Array,
    distances: Array,
) -> int:
    """Greedy best-first choice of up to ``len(chosen)`` windows by their exact float64 distance.

    ``proposed`` int64 are window starts in ascending order of ``floors`` float64, each a lower bound of that window's
    distance. A window is computed only when its floor is not above the best computed distance, so the order of choice
    is that of the exact (distance, start) pairs. Returns how many were chosen.
    """
    window = query.shape[0]
    candidate = np.empty(window, np.float64)
    above = np.empty(window + 1, np.float64)
    current = np.empty(window + 1, np.float64)
    pool_distances = np.empty(proposed.shape[0], np.float64)
    pool_starts = np.empty(proposed.shape[0], np.int64)
    pool_size = 0
    position = 0
    found = 0
    while found < chosen.shape[0]:
        best = _pool_best(pool_distances, pool_starts, pool_size)
        more = position < proposed.shape[0]
        if more and (pool_size == 0 or floors[position] <= pool_distances[best]):
            start = proposed[position]
            position += 1
            if not _is_excluded(start, chosen, found, exclusion):
                _normalize(series[start : start + window], candidate)
                pool_distances[pool_size] = _pair(query, candidate, lower, upper, above, current)
                pool_starts[pool_size] = start
                pool_size += 1
            continue
        if pool_size == 0 or pool_distances[best] > cutoff:
            break
        if not _is_excluded(pool_starts[best], chosen, found, exclusion):
            chosen[found] = pool_starts[best]
            distances[found] = pool_distances[best]
            found += 1
        pool_size -= 1
        pool_distances[best] = pool_distances[pool_size]
        pool_starts[best] = pool_starts[pool_size]
    return found
