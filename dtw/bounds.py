"""Lower bounds of the distances to many windows, cheap enough to be taken of all of them. Canonical arrays only; the
rules for compiled functions stand in ``kernels.py``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

FASTMATH: Final = {"nsz", "arcp", "contract", "afn", "reassoc"}

SEGMENT: Final = 4
"""Samples per segment: 16 numbers stand for a window of 64. Segments of 2 or 1 refuse more and gain nothing."""

_entry = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

Array = NDArray[Any]


@_entry
def segment_means(rows: Array, segments: Array) -> None:
    """Means of the segments of ``rows`` ``(count, length)`` into ``segments`` ``(length // SEGMENT, count)``; samples
    behind the last whole segment are left out."""
    for index in range(rows.shape[0]):
        for part in range(segments.shape[0]):
            total = 0.0
            for t in range(part * SEGMENT, (part + 1) * SEGMENT):
                total += rows[index, t]
            segments[part, index] = total / SEGMENT


@_entry
def segment_bounds(query: Array, segments: Array, lower: Array, upper: Array, bounds: Array) -> None:
    """Lower bounds ``(count,)`` of the distances from ``query`` ``(n,)`` to windows given by their segment means.

    LB_Keogh (Keogh, Ratanamahatana, "Exact indexing of dynamic time warping", 2005, section 4.2) on segment means
    against the mean of the envelope (Zhu, Shasha, 2003, section 4.1): a sample outside the envelope costs at least the
    square of its excess, and since that cost is convex, the mean of a segment costs no more than its samples do
    (Jensen). ``segments`` is ``(n // SEGMENT, at least count)``.
    """
    kind = query.dtype.type
    length = query.shape[0]
    highest = np.full(length, -np.inf, query.dtype)
    lowest = np.full(length, np.inf, query.dtype)
    for i in range(length):
        value = query[i]
        for j in range(lower[i], upper[i]):
            highest[j] = max(highest[j], value)
            lowest[j] = min(lowest[j], value)
    zero, weight = kind(0), kind(SEGMENT)
    bounds[:] = zero
    for part in range(segments.shape[0]):
        ceiling, floor = zero, zero
        for t in range(part * SEGMENT, (part + 1) * SEGMENT):
            ceiling += highest[t] / weight
            floor += lowest[t] / weight
        means = segments[part]
        for index in range(bounds.shape[0]):
            value = means[index]
            excess = max(max(value - ceiling, floor - value), zero)
            bounds[index] += weight * (excess * excess)
