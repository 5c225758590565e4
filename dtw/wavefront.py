"""The distance of one long pair, along anti-diagonals: cells with the same ``i + j`` do not depend on each other, so
they are computed side by side. In IEEE order without fast-math flags: the result is the reference's to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _diagonal(rows: Array, columns: Array, corner: Array, top: Array, left: Array, current: Array) -> None:
    """One anti-diagonal: ``rows`` and ``columns`` are the samples that meet, the others the neighbours before them."""
    for index in range(current.shape[0]):
        difference = rows[index] - columns[index]
        nearest = min(min(corner[index], top[index]), left[index])
        current[index] = nearest + difference * difference


@_entry
def distance_wavefront(query: Array, candidate: Array, lower: Array, upper: Array) -> Any:
    """Distance of ``(n,)`` and ``(m,)``, of one dtype, within bounds of the rows as ``bands.band_bounds`` makes them.

    On the anti-diagonal ``s`` row ``i`` meets column ``s - i``; ``candidate`` reversed makes that an ascending walk.
    The rows of an anti-diagonal are those with ``lower[i] <= s - i < upper[i]``; since bounds never decrease, both ends
    move by at most one from one anti-diagonal to the next, so one infinite cell at either end is border enough. Cell
    ``i`` of a buffer lies in slot ``i + 1``.
    """
    rows, columns = query.shape[0], candidate.shape[0]
    infinity = query.dtype.type(np.inf)
    backwards = candidate[::-1].copy()
    before_last = np.full(rows + 2, infinity, query.dtype)
    last = np.full(rows + 2, infinity, query.dtype)
    current = np.full(rows + 2, infinity, query.dtype)
    first, end = 0, 0
    before_last[0] = 0
    for s in range(rows + columns - 1):
        while end < rows and end + lower[end] <= s:
            end += 1
        while first + upper[first] <= s:
            first += 1
        at = columns - 1 - s + first
        size = end - first
        _diagonal(
            query[first:end],
            backwards[at : at + size],
            before_last[first:end],
            last[first:end],
            last[first + 1 : end + 1],
            current[first + 1 : end + 1],
        )
        current[first] = infinity
        current[end + 1] = infinity
        before_last, last, current = last, current, before_last
        if s == 0:
            before_last[0] = infinity
    return last[rows]
