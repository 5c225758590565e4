"""The recurrence on a CUDA device. Importing this imports numba's CUDA target, so only ``gpu.py`` does, and only when
it is asked to. Canonical arrays only.

A pair is compared by a group of 1 to 32 neighbouring threads. Thread ``l`` of a group owns ROWS rows of the cost
matrix, a strip, and keeps the strip's newest column in registers. At step ``t`` it computes column ``t - l``; for that
it needs one cell of the thread above, the last of that strip in the same column, computed a step earlier and posted in
shared memory. More rows than a group owns take several passes, between which the last row lies in ``border``.

All threads of a block make the same number of steps, whatever their pair, so that they meet at every barrier. Nothing
here is beyond numba's simulator: the tests run this very code without a device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numba
import numpy as np
from numba import cuda
from numpy.typing import NDArray

from dtw.bands import Bounds

ROWS: Final = 8
"""Rows per thread: enough to pay for the barrier of a step, few enough for registers, in float64 too."""

THREADS: Final = 32
"""Threads per block: one warp, for which a barrier costs little."""

BLOCKS_MIN: Final = 128
"""On a device: numba warns of a smaller grid, and a block without a pair ends at once."""

BLOCKS_MAX: Final = 1 << 20
BORDER_BYTES_MAX: Final = 1 << 28
"""With more pairs than such a grid holds, its threads go round again."""

SIMULATED: Final = ".simulator." in cuda.jit.__module__

Array = NDArray[Any]


def _on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels may call."""
    return function if SIMULATED else cuda.jit(function, device=True)


def _square_of(dtype: np.dtype[Any]) -> Callable[[Any], Any]:
    """In float64 a product that no compiler joins with the sum that takes it: IEEE order, as in ``reference.py``."""

    def square(value: Any) -> Any:
        return value * value

    def square_rounded(value: Any) -> Any:
        return libdevice.dmul_rn(value, value)

    if SIMULATED or dtype == np.float32:
        return _on_device(square)
    from numba.cuda import libdevice

    return _on_device(square_rounded)


def _column_of(dtype: np.dtype[Any], banded: bool) -> Callable[..., Any]:
    square, infinity = _square_of(dtype), dtype.type(np.inf)

    def column(samples: Any, sample: Any, strip: Any, corner: Any, top: Any, lowest: int, highest: int) -> Any:
        """One column of a strip, in place; returns its last cell.

        ``corner`` and ``top`` are the cells above it, of the column before and of this one. Of the strip's rows those
        from ``lowest`` to ``highest`` lie in the band.
        """
        for k in range(ROWS):
            before = strip[k]
            value = min(min(corner, before), top) + square(samples[k] - sample)
            if banded and (k < lowest or k > highest):
                value = infinity
            strip[k] = value
            corner = before
            top = value
        return top

    return _on_device(column)


def _walk_of(dtype: np.dtype[Any], banded: bool) -> Callable[..., Any]:
    column, zero, infinity = _column_of(dtype, banded), dtype.type(0), dtype.type(np.inf)

    def walk(
        samples: Any,
        row: Any,
        strip: Any,
        posted: Any,
        border: Any,
        slot: int,
        rows: int,
        first: int,
        shift: int,
        below: int,
        above: int,
    ) -> None:
        """One pass over the rows from ``first`` on: leaves each strip's last column in ``strip``.

        The rows cover the columns ``start <= j < stop``, this thread's strip ``begin <= j < end``. The row before
        ``first``, in ``border``, ends before ``edge``.
        """
        columns, thread, group = row.shape[0], cuda.threadIdx.x, 1 << shift
        lane = thread & (group - 1)
        own = first + lane * ROWS
        start, stop = max(0, first - below), min(columns, min(rows, first + group * ROWS) + above)
        begin, end = max(0, own - below), min(columns, own + ROWS + above)
        if own >= rows:
            end = begin
        edge = min(columns, first + above) if first > 0 else 0
        goes_on = lane == group - 1 and own + ROWS < rows
        corner = infinity
        if lane == 0 and first == 0:
            corner = zero
        elif lane == 0 and start > 0:
            corner = border[start - 1, slot]
        for t in range(start, stop + group - 1):
            j = t - lane
            top, last = infinity, infinity
            if lane > 0 and t > start:
                top = posted[(t - 1) & 1, thread - 1]
            elif lane == 0 and j < edge:
                top = border[j, slot]
            if begin <= j < end:
                last = column(samples, row[j], strip, corner, top, j - own - above, j - own + below)
                if goes_on:
                    border[j, slot] = last
            posted[t & 1, thread] = last
            corner = top
            cuda.syncthreads()

    return _on_device(walk)


@cache
def compare_all(dtype: np.dtype[Any], banded: bool) -> Any:
    """The kernel for a dtype, with or without a band: ``kernel[blocks, THREADS](queries, rows, below, above, shift,
    border, out)``.

    Distances ``out`` ``(a, b)`` from each of ``queries`` ``(a, n)`` to each of ``rows`` ``(b, m)``. Row ``i`` of a cost
    matrix covers the columns ``i - below <= j <= i + above``. ``1 << shift`` threads compare a pair. ``border`` is
    ``(m, blocks * THREADS >> shift)``, or anything when ``n <= ROWS << shift``.
    """
    walk, real, infinity = _walk_of(dtype, banded), numba.from_dtype(dtype), dtype.type(np.inf)

    def kernel(queries: Any, rows: Any, below: int, above: int, shift: int, border: Any, out: Any) -> None:
        """All pairs, round by round and pass by pass; ``samples`` and ``strip`` end up in registers."""
        posted = cuda.shared.array((2, THREADS), real)
        samples = cuda.local.array(ROWS, real)
        strip = cuda.local.array(ROWS, real)
        count, length, thread = rows.shape[0], queries.shape[1], cuda.threadIdx.x
        lane = thread & ((1 << shift) - 1)
        slot = (cuda.blockIdx.x * THREADS + thread) >> shift
        pairs = queries.shape[0] * count
        for done in range(0, pairs, (cuda.gridDim.x * THREADS) >> shift):
            # A thread without a pair repeats the last one, for the barriers' sake.
            pair = min(done + slot, pairs - 1)
            left = pair // count
            right = pair - left * count
            for first in range(0, length, ROWS << shift):
                own = first + lane * ROWS
                for k in range(ROWS):
                    samples[k] = queries[left, min(own + k, length - 1)]
                    strip[k] = infinity
                walk(samples, rows[right], strip, posted, border, slot, length, first, shift, below, above)
                found = infinity
                for k in range(ROWS):
                    if own + k == length - 1:
                        found = strip[k]
                if own < length <= own + ROWS and done + slot < pairs:
                    out[left, right] = found

    return cuda.jit(kernel)


def is_installed() -> bool:
    """Whether numba's CUDA target is the one of numba-cuda, or simulated. The one that numba itself may still bring is
    no longer maintained and does not compile these kernels."""
    return SIMULATED or getattr(cuda, "implementation", "Built-in") != "Built-in"


def is_available() -> bool:
    """Whether numba finds a device with its driver and compiler, or simulates one."""
    return bool(cuda.is_available())


def to_device(array: Array) -> Any:
    """A copy on the device."""
    return cuda.to_device(array)


def group_shift(rows: int, width: int) -> int:
    """The binary logarithm of how many threads compare a pair of ``rows`` samples within ``width`` cells per row.

    A thread starts ``ROWS + 1`` steps after the one above and is done with a column after ``width + ROWS`` steps, so
    more threads than that quotient would only wait for each other, and more than there are strips have nothing to do.
    """
    strips, at_once = -(-rows // ROWS), -(-(width + ROWS) // (ROWS + 1))
    return min(max(1, min(strips, at_once)) - 1, THREADS - 1).bit_length()


def compared(queries: Any, rows: Any, bounds: Bounds, shift: int | None = None) -> Array:
    """Distances ``(a, b)`` of ``queries`` ``(a, n)`` and ``rows`` ``(b, m)``, both on the device and of one dtype.

    ``bounds`` are those of a Sakoe-Chiba band as ``bands.band_bounds`` makes them; ``shift`` None is ``group_shift``.
    """
    lower, upper = bounds
    length, (count, columns), dtype = lower.shape[0], rows.shape, np.dtype(rows.dtype)
    row = np.arange(length)
    below, above = int((row - lower).max()), int((upper - 1 - row).max())
    if shift is None:
        shift = group_shift(length, below + above + 1)
    groups = THREADS >> shift
    blocks = min(BLOCKS_MAX, -(-queries.shape[0] * count // groups))
    has_border = length > ROWS << shift
    if has_border:
        blocks = min(blocks, BORDER_BYTES_MAX // (columns * groups * dtype.itemsize))
    blocks = max(blocks, 1 if SIMULATED else BLOCKS_MIN)
    border = cuda.device_array((columns, blocks * groups) if has_border else (1, 1), dtype)
    out = cuda.device_array((queries.shape[0], count), dtype)
    kernel = compare_all(dtype, below < length - 1 or above < columns - 1)
    kernel[blocks, THREADS](queries, rows, below, above, shift, border, out)
    found: Array = out.copy_to_host()
    return found
