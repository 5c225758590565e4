"""The warping path itself: with all predecessors in memory when they fit, in linear memory when they do not.

Among equally cheap predecessors the diagonal one comes first, then the upper, then the left one. Exact, in IEEE order.
All series are ``(n, channels)``; a cell costs the sum of the squared differences of its channels, in their order.

For long pairs: Hirschberg, "A linear space algorithm for computing maximal common subsequences", 1975, carried over to
warping paths: the best path crosses from the upper to the lower half where the cost from the start plus the cost to the
end is least. It takes twice the work.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from dtw.bands import Bounds, band_bounds, band_cells
from dtw.errors import InvalidArgument
from dtw.normalize import checked_channels

CELLS_MAX: Final = 1 << 24
"""Predecessors kept at once, a byte each. A larger matrix is halved, which costs time."""

DIAGONAL, UP, LEFT = 0, 1, 2

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


class Path(NamedTuple):
    """``distance``: squared, no root. ``pairs`` int64 ``(p, 2)``: the rows and columns that meet, from (0, 0) on."""

    distance: float
    pairs: NDArray[np.int64]


@_part
def _cost(a: Array, b: Array, i: int, j: int) -> Any:
    total = 0.0
    for channel in range(a.shape[1]):
        difference = a[i, channel] - b[j, channel]
        total += difference * difference
    return total


@_entry
def fill_predecessors(a: Array, b: Array, lower: Array, upper: Array, starts: Array, predecessors: Array) -> float:
    """The distance; the predecessor of each cell within the bounds into ``predecessors`` uint8 ``(cells,)``, row after
    row, those of row i from ``starts[i]`` on."""
    above = np.full(b.shape[0] + 1, np.inf)
    current = np.full(b.shape[0] + 1, np.inf)
    above[0] = 0.0
    for i in range(a.shape[0]):
        first, last = lower[i], upper[i]
        current[first] = np.inf
        diagonal, left = above[first], np.inf  # in registers, as in ``reference.py``
        columns, tops, cells = b[first:last], above[first + 1 : last + 1], current[first + 1 : last + 1]
        ways = predecessors[starts[i] : starts[i] + last - first]
        for index in range(columns.shape[0]):
            top = tops[index]
            best, way = diagonal, DIAGONAL
            if top < best:
                best, way = top, UP
            if left < best:
                best, way = left, LEFT
            left = best + _cost(a, columns, i, index)
            cells[index] = left
            ways[index] = way
            diagonal = top
        above, current = current, above
    return float(above[b.shape[0]])


@_entry
def walk_back(lower: Array, starts: Array, predecessors: Array, columns: int, pairs: Array) -> int:
    """Follow the predecessors from the last cell into ``pairs`` int64 ``(rows + columns - 1, 2)``, filled from its end;
    returns where the path begins."""
    i, j = lower.shape[0] - 1, columns - 1
    slot = pairs.shape[0]
    while True:
        slot -= 1
        pairs[slot, 0] = i
        pairs[slot, 1] = j
        if i == 0 and j == 0:
            return int(slot)
        way = predecessors[starts[i] + j - lower[i]]
        if way != LEFT:
            i -= 1
        if way != UP:
            j -= 1


@_entry
def last_row(a: Array, b: Array, lower: Array, upper: Array, out: Array) -> None:
    """The recurrence's last row into ``out`` ``(m,)``, infinite outside its bounds."""
    above = np.full(b.shape[0] + 1, np.inf)
    current = np.full(b.shape[0] + 1, np.inf)
    above[0] = 0.0
    for i in range(a.shape[0]):
        first, last = lower[i], upper[i]
        current[first] = np.inf
        diagonal, left = above[first], np.inf
        columns, tops, cells = b[first:last], above[first + 1 : last + 1], current[first + 1 : last + 1]
        for index in range(columns.shape[0]):
            left = min(min(diagonal, tops[index]), left) + _cost(a, columns, i, index)
            diagonal = tops[index]
            cells[index] = left
        above, current = current, above
    out[:] = np.inf
    for j in range(lower[a.shape[0] - 1], upper[a.shape[0] - 1]):
        out[j] = above[j + 1]


def alignment_path(a: ArrayLike, b: ArrayLike, window: int | None = None, cells_max: int = CELLS_MAX) -> Path:
    """The cheapest warping path of ``a`` ``(n,)`` or ``(n, channels)`` and ``b`` ``(m,)`` or ``(m, channels)``.

    Memory is at most about ``cells_max`` bytes and what ``n + m`` numbers take. The distance is that of
    ``api.distance`` when the predecessors fit; in linear memory it is the sum of the path's own cells, the same but for
    rounding. Raises ``InvalidSeries`` and ``InvalidArgument``.
    """
    rows, columns = checked_channels(a), checked_channels(b)
    if rows.shape[1] != columns.shape[1]:
        raise InvalidArgument(f"one series has {rows.shape[1]} channels, the other {columns.shape[1]}")
    return path_within(rows, columns, band_bounds(rows.shape[0], columns.shape[0], window), cells_max)


def path_within(a: Array, b: Array, bounds: Bounds, cells_max: int = CELLS_MAX) -> Path:
    """As ``alignment_path``, for checked float64 ``(n, channels)`` and any bounds that never decrease and touch."""
    if band_cells(bounds) <= cells_max or a.shape[0] == 1:
        return _direct(a, b, bounds)
    pieces: list[NDArray[np.int64]] = []
    _divide(a, b, bounds, 0, 0, cells_max, pieces)
    pairs = np.concatenate(pieces)
    return Path(float(np.sum((a[pairs[:, 0]] - b[pairs[:, 1]]) ** 2)), pairs)


def _direct(a: Array, b: Array, bounds: Bounds) -> Path:
    lower, upper = bounds
    widths = upper - lower
    starts = np.cumsum(widths) - widths
    predecessors = np.empty(int(widths.sum()), np.uint8)
    distance = fill_predecessors(a, b, lower, upper, starts, predecessors)
    pairs = np.empty((a.shape[0] + b.shape[0] - 1, 2), np.int64)
    begin = walk_back(lower, starts, predecessors, b.shape[0], pairs)
    return Path(distance, pairs[begin:].copy())


def _divide(
    a: Array, b: Array, bounds: Bounds, row: int, column: int, cells_max: int, pieces: list[NDArray[np.int64]]
) -> None:
    """Append the path of ``a`` and ``b``, whose first samples are ``row`` and ``column`` of the whole."""
    lower, upper = bounds
    rows, columns = a.shape[0], b.shape[0]
    if rows == 1 or int((upper - lower).sum()) <= cells_max:
        pieces.append(_direct(a, b, bounds).pairs + np.array([row, column]))
        return
    half = rows // 2
    reach = int(upper[half - 1])
    into = np.empty(reach)
    last_row(a[:half], b[:reach], lower[:half], upper[:half], into)
    origin = int(lower[half])
    out_of = np.empty(columns - origin)
    last_row(
        np.ascontiguousarray(a[half:][::-1]),
        np.ascontiguousarray(b[origin:][::-1]),
        np.ascontiguousarray(columns - upper[half:][::-1]),
        np.ascontiguousarray(columns - lower[half:][::-1]),
        out_of,
    )
    left, right = _crossing(into, out_of[::-1], origin)
    _divide(a[:half], b[: left + 1], _clipped(lower[:half], upper[:half], 0, left), row, column, cells_max, pieces)
    below = _clipped(lower[half:], upper[half:], right, columns - 1)
    _divide(a[half:], b[right:], below, row + half, column + right, cells_max, pieces)


def _crossing(into: NDArray[np.float64], out_of: NDArray[np.float64], origin: int) -> tuple[int, int]:
    """The columns on either side of the best crossing into the lower half, a diagonal step before a step down.

    ``into[j]``: cost up to column j of the upper half's last row; ``out_of[j - origin]``: cost from column j of the
    lower half's first row on.
    """
    costs_down = np.full(into.shape[0], np.inf)
    costs_diagonal = np.full(into.shape[0], np.inf)
    costs_down[origin:] = into[origin:] + out_of[: into.shape[0] - origin]
    first = max(0, origin - 1)
    steps = min(into.shape[0] - first, out_of.shape[0] - (first + 1 - origin))
    costs_diagonal[first : first + steps] = (
        into[first : first + steps] + out_of[first + 1 - origin : first + 1 - origin + steps]
    )
    down, diagonal = int(np.argmin(costs_down)), int(np.argmin(costs_diagonal))
    if costs_diagonal[diagonal] <= costs_down[down]:
        return diagonal, diagonal + 1
    return down, down


def _clipped(lower: NDArray[np.int64], upper: NDArray[np.int64], first: int, last: int) -> Bounds:
    """Bounds of the rows within the columns ``first <= j <= last``, counted from ``first``."""
    return (
        np.ascontiguousarray(np.maximum(lower, first) - first),
        np.ascontiguousarray(np.minimum(upper, last + 1) - first),
    )
