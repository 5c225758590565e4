"""What a search prepares of a series or of rows once, for its lower bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from dtw.bounds import CONDITION_MAX, EDGE, LANE_GROUP, SPAN
from dtw.choice import count_within
from dtw.moments import moments

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")

_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _pairs(
    low: Array, later_low: Array, high: Array, later_high: Array, size: int, lower: Array, higher: Array
) -> None:
    """The smaller of two and the larger of two, side by side: computed indices would keep this from being vectors."""
    for index in range(size):
        lower[index] = min(low[index], later_low[index])
        higher[index] = max(high[index], later_high[index])


@_part
def _extremes(values: Array, reach: int, other: Array, low: Array, high: Array) -> Any:
    """``moving_extremes`` of the ``values`` that have ``reach`` neighbours on both sides, the first of them in slot 0.

    ``other`` ``(2, n)``, ``low`` and ``high`` ``(n,)`` are scratch; the results are two of their rows.
    """
    low[:] = values
    high[:] = values
    size, span, width = values.shape[0], 1, 2 * reach + 1
    lower, higher = other[0], other[1]
    while 2 * span <= width:
        size -= span
        _pairs(low, low[span:], high, high[span:], size, lower, higher)
        low, lower = lower, low
        high, higher = higher, high
        span *= 2
    rest = width - span
    _pairs(low, low[rest:], high, high[rest:], values.shape[0] - 2 * reach, lower, higher)
    return lower, higher


@_part
def _clamped(series: Array, reach: int, padded: Array) -> None:
    """``series`` with its first and its last sample repeated ``reach`` times around it: extremes stay what they are."""
    count = series.shape[0]
    padded[:reach] = series[0]
    padded[reach : reach + count] = series
    padded[reach + count :] = series[count - 1]


@_entry
def moving_extremes(series: Array, reach: int, lowest: Array, highest: Array) -> None:
    """The smallest and the largest of ``series[i - reach : i + reach + 1]``, cut off at the ends, for each i.

    Spans of doubling length (van Herk's idea without its blocks): log2(reach) passes, each over the whole series.
    """
    count = series.shape[0]
    reach = min(reach, count - 1)
    padded, other = np.empty(count + 2 * reach), np.empty((2, count + 2 * reach))
    _clamped(series, reach, padded)
    lows, highs = _extremes(padded, reach, other, np.empty_like(padded), np.empty_like(padded))
    lowest[:] = lows[:count]
    highest[:] = highs[:count]


@register_jitable
def span_shape(count: int, window: int) -> tuple[int, int, int]:
    """The shape of the spans of ``count`` windows; rows are padded to whole groups of lanes."""
    width = -(-(SPAN + window) // LANE_GROUP) * LANE_GROUP
    return -(-count // SPAN), 4, width


@_part
def _segment_means(values: Array, segment: int, out: Array) -> None:
    """Means of ``values[i : i + segment]`` into ``out``, zeros where there are fewer samples."""
    known = max(0, min(out.shape[0], values.shape[0] - segment + 1))
    scale = 1.0 / segment
    for index in range(known):
        out[index] = values[index] * scale
    for t in range(1, segment):
        samples = values[t : t + known]
        for index in range(known):
            out[index] += samples[index] * scale
    for index in range(known, out.shape[0]):
        out[index] = 0


@_part
def _running(values: Array, sums: Array, squares: Array, runs: Array) -> None:
    """Sums and sums of squares up to each value, and how many equal values end there."""
    total, total_squares, run, previous = 0.0, 0.0, 0, values[0]
    for index in range(values.shape[0]):
        value = values[index]
        total += value
        total_squares += value * value
        run = run + 1 if value == previous else 1
        previous = value
        sums[index] = total
        squares[index] = total_squares
        runs[index] = run


@_part
def _largest(values: Array) -> float:
    """The largest magnitude. Eight maxima side by side, because one alone would wait for itself."""
    largest = np.zeros(8)
    for begin in range(0, values.shape[0] - 7, 8):
        group = values[begin : begin + 8]
        for lane in range(8):
            largest[lane] = max(largest[lane], abs(group[lane]))
    for index in range(values.shape[0] // 8 * 8, values.shape[0]):
        largest[0] = max(largest[0], abs(values[index]))
    return float(largest.max())


@_part
def _scales(
    sums: Array, squares: Array, runs: Array, window: int, largest: float, shift: Array, scale: Array, usable: Array
) -> None:
    later_sums, later_squares, last_runs = sums[window:], squares[window:], runs[window - 1 :]
    for index in range(shift.shape[0]):
        mean = (later_sums[index] - sums[index]) / window
        variance = (later_squares[index] - squares[index]) / window - mean * mean
        inverse = 1.0 / np.sqrt(variance)
        trusted = largest * inverse <= CONDITION_MAX  # false for what is not a number
        constant = last_runs[index] >= window
        shift[index] = mean
        scale[index] = inverse if trusted and not constant else 0.0
        usable[index] = 1 if trusted or constant else 0


@_entry
def fill_moments(series: Array, window: int, means: Array, inverses: Array) -> None:
    """The moments of all windows, which a search would otherwise find for those that it compares."""
    for index in range(means.shape[0]):
        mean, deviation = moments(series[index : index + window])
        means[index] = mean
        inverses[index] = 1.0 / deviation if deviation > 0.0 else 0.0


@_part
def _around(series: Array, begin: int, known: int, reach: int, padded: Array) -> Array:
    """The ``known`` samples from ``begin`` on and ``reach`` more on both sides, relative to the first of them, into
    ``padded``; where the series ends, its last sample stands for those behind it."""
    base = series[begin]
    around = padded[: known + 2 * reach]
    inside = min(series.shape[0], begin + known + reach) - max(0, begin - reach)
    before = max(0, reach - begin)
    samples, target = series[max(0, begin - reach) :], around[before : before + inside]
    for index in range(inside):
        target[index] = samples[index] - base
    around[:before] = target[0]
    around[before + inside :] = target[inside - 1]
    return around


@_entry
def fill_samples(
    series: Array,
    window: int,
    reach: int,
    first: int,
    last: int,
    bounds: Array,
    limit: Any,
    spans: Array,
    shifts: Array,
    scales: Array,
    usable: Array,
) -> None:
    """What ``cascade.window_bounds`` and ``edge_bounds`` take of the windows in the spans ``first <= s < last``, but
    for the segments. Spans of which all ``bounds`` ``(count,)`` are above ``limit`` are left out.

    Every SPAN windows share four rows of ``spans``, shaped as ``span_shape`` says, in float32 relative to the span's
    first sample; the first row are the samples. ``shifts`` and ``scales`` ``(count,)`` are a window's mean and one
    over its deviation, 0 if its samples are all the same; ``usable`` is 0 where a window's neighbourhood reaches
    farther than CONDITION_MAX of its deviations.

    The moments come from running sums over a span, n samples with n - SPAN in a window. Where they are used, no square
    is above CONDITION_MAX ** 2 variances, so the variance is off by less than ``n * CONDITION_MAX ** 2`` float64 units
    times ``n / (n - SPAN)``: float32's own rounding, of which ``precision.bound_slack`` allows 2 n, is larger.
    """
    count = shifts.shape[0]
    padded = np.empty(SPAN + window - 1 + 2 * reach)
    sums, squares = np.zeros(SPAN + window), np.zeros(SPAN + window)
    runs = np.ones(SPAN + window, np.int64)
    for span in range(first, last):
        begin = span * SPAN
        size = min(SPAN, count - begin)
        if count_within(bounds[begin : begin + size], limit) == 0:
            continue
        known = size + window - 1
        around = _around(series, begin, known, reach, padded)
        values = around[reach : reach + known]
        row = spans[span, 0]
        row[:known] = values
        row[known:] = 0
        _running(values, sums[1:], squares[1:], runs)
        part = slice(begin, begin + size)
        _scales(sums, squares, runs, window, _largest(around), shifts[part], scales[part], usable[part])


@_entry
def fill_segments(
    series: Array, window: int, segment: int, reach: int, first: int, last: int, bounds: Array, limit: Any, spans: Array
) -> None:
    """The other rows of the same spans: means over ``segment`` of the samples, of the smallest and of the largest
    sample within ``reach``."""
    count = bounds.shape[0]
    longest = SPAN + window - 1 + 2 * reach
    padded, other = np.empty(longest), np.empty((2, longest), np.float32)
    low, high = np.empty(longest, np.float32), np.empty(longest, np.float32)
    means = np.empty(spans.shape[2])
    for span in range(first, last):
        begin = span * SPAN
        size = min(SPAN, count - begin)
        if count_within(bounds[begin : begin + size], limit) == 0:
            continue
        known = size + window - 1
        around = _around(series, begin, known, reach, padded)
        lows, highs = _extremes(around, reach, other, low[: around.shape[0]], high[: around.shape[0]])
        rows = spans[span]
        _segment_means(around[reach : reach + known], segment, means)
        rows[1] = means
        _segment_means(lows[:known], segment, means)
        rows[2] = means
        _segment_means(highs[:known], segment, means)
        rows[3] = means


@_entry
def summarise_rows(rows: Array, segment: int, edges: Array, means: Array) -> None:
    """The first and the last EDGE samples of ``rows`` ``(count, length)`` and the means of segments between them,
    column by column into float32 ``edges`` ``(2 * EDGE, >= count)`` and ``means`` ``(parts, >= count)``.

    By way of small tiles: a row's figures lie far apart, each in a page of its own.
    """
    count, length = rows.shape
    ends, inner = np.empty((2 * EDGE, LANE_GROUP), np.float32), np.empty((means.shape[0], LANE_GROUP), np.float32)
    for begin in range(0, count, LANE_GROUP):
        size = min(LANE_GROUP, count - begin)
        for lane in range(size):
            row = rows[begin + lane]
            for t in range(EDGE):
                ends[t, lane] = row[t]
                ends[EDGE + t, lane] = row[length - EDGE + t]
            _segments(row, segment, inner[:, lane])
        edges[:, begin : begin + size] = ends[:, :size]
        means[:, begin : begin + size] = inner[:, :size]


@_part
def _segments(row: Array, segment: int, out: Array) -> None:
    """Means of the segments behind the first EDGE samples."""
    for part in range(out.shape[0]):
        samples = row[EDGE + part * segment : EDGE + (part + 1) * segment]
        total = 0.0
        for t in range(segment):
            total += samples[t]
        out[part] = total / segment


@_entry
def summarise_envelopes(rows: Array, reach: int, segment: int, lows: Array, highs: Array) -> None:
    """The same of the smallest and the largest sample within ``reach`` of each sample of a row."""
    count, length = rows.shape
    reach = min(reach, length - 1)
    padded, other = np.empty(length + 2 * reach), np.empty((2, length + 2 * reach))
    low, high = np.empty_like(padded), np.empty_like(padded)
    below, above = np.empty((lows.shape[0], LANE_GROUP), np.float32), np.empty((lows.shape[0], LANE_GROUP), np.float32)
    for begin in range(0, count, LANE_GROUP):
        size = min(LANE_GROUP, count - begin)
        for lane in range(size):
            _clamped(rows[begin + lane], reach, padded)
            lowest, highest = _extremes(padded, reach, other, low, high)
            _segments(lowest, segment, below[:, lane])
            _segments(highest, segment, above[:, lane])
        lows[:, begin : begin + size] = below[:, :size]
        highs[:, begin : begin + size] = above[:, :size]
