"""The distance of one long pair, along anti-diagonals: cells with the same ``i + j`` do not depend on each other, so
they are computed side by side. In IEEE order without fast-math flags: the result is the reference's to the last bit.

Four anti-diagonals are computed in one pass over their rows, a row's cells one after the other: what the second needs
of the first is in a register by then, and only every second anti-diagonal is ever stored.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")

VECTOR_MIN: Final = 8
"""Fewer rows than this are not worth the loop's beginning."""

Array = NDArray[Any]


@_part
def _cell(difference: Any, corner: Any, top: Any, left: Any) -> Any:
    return min(min(corner, top), left) + difference * difference


@_part
def _rows(
    rows: Array,
    first: Array,
    second: Array,
    third: Array,
    fourth: Array,
    before: Array,
    last: Array,
    corner: Any,
    top: Any,
    one: Any,
    two: Any,
    three: Any,
) -> Any:
    """The cells of four anti-diagonals in rows that all of them cover.

    ``rows`` meet ``first`` to ``fourth``, a sample for each anti-diagonal. ``before`` and ``last`` hold the two
    anti-diagonals before and get the last two of the four. The others are the values of the row above the first one,
    on those two and on the first three of the four; those of the last row are returned. They are what makes the loop a
    recurrence that still vectorises: a row needs what the row above had, not what came of it.
    """
    for index in range(rows.shape[0]):
        sample, next_corner, next_top = rows[index], before[index], last[index]
        a = _cell(sample - first[index], corner, top, next_top)
        b = _cell(sample - second[index], top, one, a)
        c = _cell(sample - third[index], one, two, b)
        d = _cell(sample - fourth[index], two, three, c)
        before[index] = c
        last[index] = d
        corner, top, one, two, three = next_corner, next_top, a, b, c
    return corner, top, one, two, three


@_part
def _row(
    query: Array,
    candidate: Array,
    i: int,
    s: int,
    starts: Array,
    ends: Array,
    before: Array,
    last: Array,
    corner: Any,
    top: Any,
    one: Any,
    two: Any,
    three: Any,
) -> Any:
    """The same of one row, of which some anti-diagonals may lie outside the band: those cells are infinite."""
    infinity = query.dtype.type(np.inf)
    a, b, c, d = infinity, infinity, infinity, infinity
    sample, next_corner, next_top = query[i], before[i + 1], last[i + 1]
    if starts[0] <= i < ends[0]:
        a = _cell(sample - candidate[s - i], corner, top, next_top)
    if starts[1] <= i < ends[1]:
        b = _cell(sample - candidate[s + 1 - i], top, one, a)
    if starts[2] <= i < ends[2]:
        c = _cell(sample - candidate[s + 2 - i], one, two, b)
    if starts[3] <= i < ends[3]:
        d = _cell(sample - candidate[s + 3 - i], two, three, c)
    before[i + 1] = c
    last[i + 1] = d
    return next_corner, next_top, a, b, c, d


@_part
def _covered(s: int, lower: Array, upper: Array, columns: int, start: int, end: int, starts: Array, ends: Array) -> Any:
    """The rows ``starts[t] <= i < ends[t]`` of the anti-diagonals ``s + t``; none of those behind the last one.

    They are the rows with ``lower[i] <= s + t - i < upper[i]``. Both ends never decrease, since the bounds do not.
    """
    rows = lower.shape[0]
    for t in range(4):
        if s + t < rows + columns - 1:
            while end < rows and end + lower[end] <= s + t:
                end += 1
            while start + upper[start] <= s + t:
                start += 1
            starts[t] = start
            ends[t] = end
        else:
            starts[t] = rows
            ends[t] = 0
    return start, end


@_entry
def distance_wavefront(query: Array, candidate: Array, lower: Array, upper: Array) -> Any:
    """Distance of ``(n,)`` and ``(m,)``, of one dtype, within bounds of the rows as ``bands.band_bounds`` makes them.

    On the anti-diagonal ``s`` row ``i`` meets column ``s - i``; ``candidate`` reversed makes that an ascending walk.
    Cell ``i`` of a buffer lies in slot ``i + 1``. Slots of rows that the band has left are infinite, those that it has
    not reached still are.
    """
    rows, columns = query.shape[0], candidate.shape[0]
    infinity = query.dtype.type(np.inf)
    backwards = candidate[::-1].copy()
    before, last = np.full(rows + 1, infinity, query.dtype), np.full(rows + 1, infinity, query.dtype)
    before[0] = 0
    starts, ends = np.empty(4, np.int64), np.empty(4, np.int64)
    start, end = 0, 0
    cells = (infinity, infinity, infinity, infinity)
    for s in range(0, rows + columns - 1, 4):
        start, end = _covered(s, lower, upper, columns, start, end, starts, ends)
        i, size = starts[0], ends[0] - starts[3]
        corner, top, one, two, three = before[i], last[i], infinity, infinity, infinity
        before[i] = infinity
        last[i] = infinity
        while i < end:
            if i == starts[3] and size >= VECTOR_MIN:
                at = columns - 1 - s + i
                corner, top, one, two, three = _rows(
                    query[i : i + size],
                    backwards[at : at + size],
                    backwards[at - 1 : at - 1 + size],
                    backwards[at - 2 : at - 2 + size],
                    backwards[at - 3 : at - 3 + size],
                    before[i + 1 : i + 1 + size],
                    last[i + 1 : i + 1 + size],
                    corner,
                    top,
                    one,
                    two,
                    three,
                )
                i += size
            else:
                corner, top, one, two, three, four = _row(
                    query, candidate, i, s, starts, ends, before, last, corner, top, one, two, three
                )
                cells = (one, two, three, four)
                i += 1
    return cells[(rows + columns - 2) % 4]
