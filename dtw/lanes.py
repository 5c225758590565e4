"""The lane kernel's parts: one query against LANES candidates at once, inlined into the kernels of ``kernels.py`` and
``cascade.py``. Canonical arrays only.

The lane kernel may round as the processor likes, so it only proposes; ``reference.py`` decides.

The recurrence (Sakoe, Chiba 1978, section II; squared cost, no root):
``D(i, j) = (q[i] - c[j])**2 + min(D(i-1, j-1), D(i-1, j), D(i, j-1))`` with cells outside the band infinite.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

FASTMATH: Final = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Without nnan and ninf: the borders of the recurrence are infinite, and under those flags the compiler may delete the
comparisons that guard them."""

LANES: Final = 64
"""Candidates per block. Measured against 32 and 128: enough to hide the latency of the recurrence, few enough that the
row buffer and the block of a float32 window of 64 samples fit into a level-one cache together."""

ABANDON_ROWS: Final = 8
"""Rows between two looks at the row minimum. A look costs a pass over one row."""

_LOOKS_MASK: Final = ABANDON_ROWS - 2
assert ABANDON_ROWS >= 2 and ABANDON_ROWS & (ABANDON_ROWS - 1) == 0

part = njit(forceinline=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
"""Compiles a part. By force, because as calls the parts cost a third of the speed."""

exact_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")
"""The same in IEEE order: for what must not be regrouped, above all differences that take a large offset away."""

Array = NDArray[Any]


@part
def _fill(row: Array, first: int, last: int, value: Any) -> None:
    """Set the slots ``first <= j < last`` of all lanes."""
    for slot in range(first, last):
        cells = row[slot * LANES : (slot + 1) * LANES]
        for lane in range(LANES):
            cells[lane] = value


@part
def _step(difference: Any, diagonal: Any, top: Any, left: Any) -> Any:
    return min(min(diagonal, top), left) + difference * difference


@part
def _two_rows_left_edge(q0: Any, block: Array, row: Array, diagonal: Array, left: Array, j: int) -> None:
    """One column that only the upper of the two rows covers."""
    tops = row[(j + 1) * LANES : (j + 2) * LANES]
    samples = block[j * LANES : (j + 1) * LANES]
    for lane in range(LANES):
        top = tops[lane]
        left[lane] = _step(q0 - samples[lane], diagonal[lane], top, left[lane])
        diagonal[lane] = top


@part
def _two_rows_one_column(q0: Any, q1: Any, block: Array, row: Array, diagonal: Array, left: Array, j: int) -> None:
    cells = row[j * LANES : (j + 2) * LANES]
    samples = block[j * LANES : (j + 1) * LANES]
    for lane in range(LANES):
        sample = samples[lane]
        top = cells[LANES + lane]
        upper_left = left[lane]
        upper = _step(q0 - sample, diagonal[lane], top, upper_left)
        cells[LANES + lane] = _step(q1 - sample, upper_left, upper, cells[lane])
        diagonal[lane] = top
        left[lane] = upper


@part
def _two_rows_four_columns(q0: Any, q1: Any, block: Array, row: Array, diagonal: Array, left: Array, j: int) -> None:
    """Eight cells per lane between one load and one store of the edges: the middle stays in registers."""
    cells = row[j * LANES : (j + 5) * LANES]
    samples = block[j * LANES : (j + 4) * LANES]
    for lane in range(LANES):
        upper_left, lower_left = left[lane], cells[lane]
        top = cells[LANES + lane]
        upper = _step(q0 - samples[lane], diagonal[lane], top, upper_left)
        lower_left = _step(q1 - samples[lane], upper_left, upper, lower_left)
        cells[LANES + lane] = lower_left

        next_top = cells[2 * LANES + lane]
        next_upper = _step(q0 - samples[LANES + lane], top, next_top, upper)
        lower_left = _step(q1 - samples[LANES + lane], upper, next_upper, lower_left)
        cells[2 * LANES + lane] = lower_left

        top = cells[3 * LANES + lane]
        upper = _step(q0 - samples[2 * LANES + lane], next_top, top, next_upper)
        lower_left = _step(q1 - samples[2 * LANES + lane], next_upper, upper, lower_left)
        cells[3 * LANES + lane] = lower_left

        next_top = cells[4 * LANES + lane]
        next_upper = _step(q0 - samples[3 * LANES + lane], top, next_top, upper)
        cells[4 * LANES + lane] = _step(q1 - samples[3 * LANES + lane], upper, next_upper, lower_left)
        diagonal[lane] = next_top
        left[lane] = next_upper


@part
def _two_rows_right_edge(q1: Any, block: Array, row: Array, left: Array, j: int) -> None:
    """One column that only the lower of the two rows covers; ``left`` is the upper row's last cell, then infinite."""
    infinity = row.dtype.type(np.inf)
    cells = row[j * LANES : (j + 2) * LANES]
    samples = block[j * LANES : (j + 1) * LANES]
    for lane in range(LANES):
        difference = q1 - samples[lane]
        cells[LANES + lane] = min(left[lane], cells[lane]) + difference * difference
        left[lane] = infinity


@part
def _first_row(query: Array, block: Array, row: Array, upper_bound: int) -> int:
    """Prepare the row buffer so that an even number of rows is left; returns the first of them.

    Slot 0 of ``row`` stands before the first sample. The first row has no predecessor but its left, so it is a running
    sum.
    """
    infinity = row.dtype.type(np.inf)
    _fill(row, 1, block.shape[0] // LANES + 1, infinity)
    _fill(row, 0, 1, row.dtype.type(0))
    if query.shape[0] % 2 == 0:
        return 0
    for j in range(upper_bound):
        for lane in range(LANES):
            difference = query[0] - block[j * LANES + lane]
            row[(j + 1) * LANES + lane] = row[j * LANES + lane] + difference * difference
    _fill(row, 0, 1, infinity)
    return 1


@part
def _two_rows(
    q0: Any,
    q1: Any,
    block: Array,
    row: Array,
    diagonal: Array,
    left: Array,
    start: Any,
    middle: Any,
    end: Any,
    stop: Any,
) -> None:
    """Advance ``row`` from row i-1 to row i+1 in place.

    Row i covers ``start <= j < end``, row i+1 ``middle <= j < stop``. Bounds never decrease and neighbouring rows
    touch, hence ``start <= middle <= end <= stop``: the walk is an edge, a common middle and an edge. Walking right,
    ``row`` left of j already holds row i+1 and from j+1 on still row i-1; ``diagonal`` keeps the one overwritten cell
    of row i-1 and ``left`` the one of row i. Slots left of ``middle`` are never read again, slots right of ``stop`` are
    still infinite.
    """
    infinity = row.dtype.type(np.inf)
    before = row[start * LANES : (start + 1) * LANES]
    for lane in range(LANES):
        diagonal[lane] = before[lane]
        left[lane] = infinity
    for j in range(start, middle):
        _two_rows_left_edge(q0, block, row, diagonal, left, j)
    _fill(row, middle, middle + 1, infinity)
    j = middle
    while j + 4 <= end:
        _two_rows_four_columns(q0, q1, block, row, diagonal, left, j)
        j += 4
    while j < end:
        _two_rows_one_column(q0, q1, block, row, diagonal, left, j)
        j += 1
    while j < stop:
        _two_rows_right_edge(q1, block, row, left, j)
        j += 1


@part
def _any_lane_within(row: Array, scratch: Array, first: int, last: int, cutoff: Any) -> bool:
    """Whether any lane's minimum over the slots ``first <= j < last`` is at most the cutoff."""
    _fill(scratch, 0, 1, row.dtype.type(np.inf))
    j = first
    while j + 4 <= last:
        cells = row[j * LANES : (j + 4) * LANES]
        for lane in range(LANES):
            near = min(cells[lane], cells[LANES + lane])
            far = min(cells[2 * LANES + lane], cells[3 * LANES + lane])
            scratch[lane] = min(scratch[lane], min(near, far))
        j += 4
    while j < last:
        cells = row[j * LANES : (j + 1) * LANES]
        for lane in range(LANES):
            scratch[lane] = min(scratch[lane], cells[lane])
        j += 1
    for lane in range(LANES):
        if scratch[lane] <= cutoff:
            return True
    return False


@part
def compare_block(
    query: Array, block: Array, lower: Array, upper: Array, cutoff: Any, row: Array, diagonal: Array, left: Array
) -> bool:
    """Distances of one block into the last slot of ``row``; False when the block was abandoned.

    Costs are never negative, so a row minimum is a lower bound of every later row: once all lanes exceed the cutoff, no
    lane can come back under it.
    """
    infinity = row.dtype.type(np.inf)
    rows = query.shape[0]
    i = _first_row(query, block, row, upper[0])
    while i < rows:
        _two_rows(query[i], query[i + 1], block, row, diagonal, left, lower[i], lower[i + 1], upper[i], upper[i + 1])
        look = cutoff < infinity and i & _LOOKS_MASK == _LOOKS_MASK
        if look and not _any_lane_within(row, left, lower[i + 1], upper[i + 1] + 1, cutoff):
            return False
        i += 2
    return True
