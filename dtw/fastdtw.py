"""FastDTW: an approximate distance and path in time and memory that grow with the length, not with its square.

Salvador, Chan, "Toward accurate dynamic time warping in linear time and space", 2007: halve the resolution until the
series are short, align those exactly, and refine within ``radius`` cells around the projected path. Later work doubts
that it is ever the right tool (Wu, Keogh, "FastDTW is approximate and generally slower than the algorithm it
approximates", 2020); ``docs/fastdtw.md`` says what we measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw.bands import Bounds, band_bounds, band_cells
from dtw.errors import InvalidArgument
from dtw.normalize import checked_channels
from dtw.path import Path, path_within

Array = NDArray[Any]


def fastdtw(a: ArrayLike, b: ArrayLike, radius: int = 1) -> Path:
    """A warping path of ``a`` ``(n,)`` or ``(n, channels)`` and ``b``, at least as long as the cheapest one.

    ``distance`` is the squared cost along it. The larger the radius, the nearer it comes to the exact one.
    Raises ``InvalidSeries``, ``InvalidArgument`` for a negative radius or different channels.
    """
    rows, columns = checked_channels(a), checked_channels(b)
    if rows.shape[1] != columns.shape[1]:
        raise InvalidArgument(f"one series has {rows.shape[1]} channels, the other {columns.shape[1]}")
    if radius < 0:
        raise InvalidArgument(f"a radius is a number of cells, at least 0, not {radius}")
    path, _ = _refined(rows, columns, int(radius))
    return path


def fastdtw_cells(a: ArrayLike, b: ArrayLike, radius: int = 1) -> int:
    """How many cells ``fastdtw`` computes at all resolutions together: its work."""
    return _refined(checked_channels(a), checked_channels(b), int(radius))[1]


def _refined(a: Array, b: Array, radius: int) -> tuple[Path, int]:
    if min(a.shape[0], b.shape[0]) < radius + 3:
        bounds = band_bounds(a.shape[0], b.shape[0], None)
        return path_within(a, b, bounds), band_cells(bounds)
    coarse, cells = _refined(_halved(a), _halved(b), radius)
    bounds = projected(coarse.pairs, a.shape[0], b.shape[0], radius)
    return path_within(a, b, bounds), cells + band_cells(bounds)


def _halved(series: Array) -> Array:
    """Means of neighbouring pairs; an odd last sample is left out, as in the paper's own implementation."""
    even = series[: series.shape[0] // 2 * 2]
    return np.ascontiguousarray((even[0::2] + even[1::2]) / 2)


def projected(pairs: NDArray[np.int64], rows: int, columns: int, radius: int) -> Bounds:
    """Bounds of the cells within ``radius`` coarse cells of a path at half the resolution, and of their fine cells.

    Rows behind the last coarse one, when the length is odd, take its bounds; the last row ends at the last column.
    """
    coarse_rows = int(pairs[-1, 0]) + 1
    first = np.full(coarse_rows, columns, np.int64)
    last = np.zeros(coarse_rows, np.int64)
    np.minimum.at(first, pairs[:, 0], pairs[:, 1])
    np.maximum.at(last, pairs[:, 0], pairs[:, 1])
    around = np.arange(coarse_rows)
    low = first[np.maximum(0, around - radius)] - radius
    high = last[np.minimum(coarse_rows - 1, around + radius)] + radius
    row = np.minimum(np.arange(rows) // 2, coarse_rows - 1)
    lower = np.clip(2 * low[row], 0, columns - 1)
    upper = np.clip(2 * high[row] + 2, 1, columns)
    lower[0] = 0
    # The odd last column is reached from the last rows, however small the radius.
    upper[row == coarse_rows - 1] = columns
    return np.ascontiguousarray(lower), np.ascontiguousarray(upper)
