"""Series of several channels: a cell costs the sum of the squared differences of its channels ("dependent" warping,
Shokoohi-Yekta et al., "Generalizing DTW to the multi-dimensional case requires an adaptive approach", 2017).

Exact, in IEEE order: with one channel the result is the reference's to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _pair(a: Array, b: Array, lower: Array, upper: Array, cutoff: float, above: Array, current: Array) -> float:
    """As ``reference._pair`` for ``(n, channels)``; infinite as soon as a whole row exceeds the cutoff."""
    above[:] = np.inf
    current[:] = np.inf
    above[0] = 0.0
    for i in range(a.shape[0]):
        first, last = lower[i], upper[i]
        current[first] = np.inf
        diagonal, left, smallest = above[first], np.inf, np.inf  # in registers, as in ``reference.py``
        columns, tops, cells = b[first:last], above[first + 1 : last + 1], current[first + 1 : last + 1]
        for index in range(columns.shape[0]):
            cost = 0.0
            for channel in range(a.shape[1]):
                difference = a[i, channel] - columns[index, channel]
                cost += difference * difference
            left = min(min(diagonal, tops[index]), left) + cost
            diagonal = tops[index]
            cells[index] = left
            smallest = min(smallest, left)
        if smallest > cutoff:
            return np.inf
        above, current = current, above
    result = above[b.shape[0]]
    return float(result) if result <= cutoff else np.inf


@_entry
def distance_channels(a: Array, b: Array, lower: Array, upper: Array, cutoff: float) -> float:
    """Distance of ``(n, channels)`` and ``(m, channels)`` float64, infinite above the cutoff."""
    above = np.empty(b.shape[0] + 1)
    return _pair(a, b, lower, upper, cutoff, above, np.empty_like(above))


@_entry
def distances_channels(query: Array, rows: Array, lower: Array, upper: Array, cutoff: float, out: Array) -> None:
    """The same to each of ``rows`` ``(count, m, channels)``, into ``out`` ``(count,)``."""
    above = np.empty(rows.shape[1] + 1)
    current = np.empty_like(above)
    for index in range(rows.shape[0]):
        out[index] = _pair(query, rows[index], lower, upper, cutoff, above, current)
