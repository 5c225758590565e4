"""What a search prepares of a series once: statistics of each window, moving means and moving extremes.

In IEEE order without fast-math flags, as ``reference.py``: a window counts as constant here exactly when it does there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.bounds import CONDITION_MAX, EDGE, LANE_GROUP, SPAN
from dtw.reference import CONSTANT_EPSILON

_GROUP: Final = 32

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")

_part = njit(forceinline=True, nogil=True, fastmath=False, error_model="numpy")

Array = NDArray[Any]


@_part
def _two_passes(samples: Array, window: int, means: Array, squares: Array, magnitude: Array) -> None:
    """Mean relative to the first sample, sum of squared deviations and magnitude of _GROUP windows side by side."""
    firsts = samples[:_GROUP]
    for lane in range(_GROUP):
        means[lane] = 0.0
        squares[lane] = 0.0
        magnitude[lane] = 0.0
    for t in range(window):
        column = samples[t : t + _GROUP]
        for lane in range(_GROUP):
            means[lane] += column[lane] - firsts[lane]
            magnitude[lane] = max(magnitude[lane], abs(column[lane]))
    for lane in range(_GROUP):
        means[lane] /= window
    for t in range(window):
        column = samples[t : t + _GROUP]
        for lane in range(_GROUP):
            deviation = (column[lane] - firsts[lane]) - means[lane]
            squares[lane] += deviation * deviation


@_entry
def window_statistics(series: Array, window: int, first: int, last: int, means: Array, inverses: Array) -> None:
    """For the windows that start at ``first <= i < last``: the mean relative to the window's first sample and one over
    the population standard deviation, 0 for a constant window. All float64.

    Groups of windows side by side, each in the order of the reference's two passes, so with its very results.
    """
    mean, squares, magnitude = np.empty(_GROUP), np.empty(_GROUP), np.empty(_GROUP)
    padded = np.zeros(window - 1 + _GROUP)
    for at in range(first, last, _GROUP):
        size = min(_GROUP, last - at)
        if size == _GROUP:
            _two_passes(series[at : at + window - 1 + _GROUP], window, mean, squares, magnitude)
        else:
            padded[: window - 1 + size] = series[at : at + window - 1 + size]
            _two_passes(padded, window, mean, squares, magnitude)
        for lane in range(size):
            means[at + lane] = mean[lane]
            deviation = np.sqrt(squares[lane] / window)
            constant = deviation <= CONSTANT_EPSILON * magnitude[lane]
            inverses[at + lane] = 0.0 if constant else 1.0 / deviation


@_entry
def moving_extremes(series: Array, reach: int, lowest: Array, highest: Array) -> None:
    """The smallest and the largest of ``series[i - reach : i + reach + 1]``, cut off at the ends, for each i.

    Spans of doubling length (van Herk's idea without its blocks): log2(reach) passes, each over the whole series.
    """
    count = series.shape[0]
    reach = min(reach, count - 1)
    low, high = np.empty(count + 2 * reach), np.empty(count + 2 * reach)
    low[:] = np.inf
    high[:] = -np.inf
    low[reach : reach + count] = series
    high[reach : reach + count] = series
    width, span = 2 * reach + 1, 1
    next_low, next_high = np.empty_like(low), np.empty_like(high)
    while 2 * span <= width:
        valid = count + 2 * reach - 2 * span + 1
        for index in range(valid):
            next_low[index] = min(low[index], low[index + span])
            next_high[index] = max(high[index], high[index + span])
        low, next_low = next_low, low
        high, next_high = next_high, high
        span *= 2
    for index in range(count):
        lowest[index] = min(low[index], low[index + width - span])
        highest[index] = max(high[index], high[index + width - span])


@_entry
def moving_means(values: Array, size: int, out: Array) -> None:
    """The mean of ``values[i : i + size]`` for each i of ``out`` ``(len(values) - size + 1,)``."""
    for index in range(out.shape[0]):
        out[index] = 0.0
    for t in range(size):
        for index in range(out.shape[0]):
            out[index] += values[index + t]
    for index in range(out.shape[0]):
        out[index] /= size


def span_shape(count: int, window: int) -> tuple[int, int, int]:
    """The shape of the spans of ``count`` windows; rows are padded to whole groups of lanes."""
    width = -(-(SPAN + window) // LANE_GROUP) * LANE_GROUP
    return -(-count // SPAN), 4, width


@_entry
def fill_spans(series: Array, averages: Array, lows: Array, highs: Array, window: int, spans: Array) -> None:
    """For every SPAN windows the series, its moving means and those of its moving extremes as float32 relative to the
    span's first sample, into ``spans``, shaped as ``span_shape`` says; zeros behind the end."""
    for span in range(spans.shape[0]):
        first = span * SPAN
        base = series[first]
        for kind, values in enumerate((series, averages, lows, highs)):
            known = min(SPAN + window - 1, values.shape[0] - first)
            source, target = values[first : first + known], spans[span, kind]
            for index in range(known):
                target[index] = source[index] - base
            for index in range(known, target.shape[0]):
                target[index] = 0


@_entry
def fill_scales(
    series: Array, means: Array, inverses: Array, spans: Array, shifts: Array, scales: Array, usable: Array
) -> None:
    """The window's mean relative to its span and one over its deviation, float32 ``(count,)`` each; ``usable`` is 0
    where a window's neighbourhood reaches farther than CONDITION_MAX of its deviations, else 1."""
    for span in range(spans.shape[0]):
        first = span * SPAN
        magnitude = 0.0
        for kind in (0, 2, 3):
            for value in spans[span, kind]:
                magnitude = max(magnitude, abs(value))
        for index in range(first, min(first + SPAN, means.shape[0])):
            shifts[index] = (series[index] - series[first]) + means[index]
            scales[index] = inverses[index]
            usable[index] = 1 if magnitude * inverses[index] <= CONDITION_MAX else 0


@_entry
def summarise_rows(rows: Array, segment: int, edges: Array, means: Array) -> None:
    """The first and the last EDGE samples of ``rows`` ``(count, length)`` and the means of segments between them,
    column by column into float32 ``edges`` ``(2 * EDGE, >= count)`` and ``means`` ``(parts, >= count)``."""
    length = rows.shape[1]
    for index in range(rows.shape[0]):
        row = rows[index]
        for t in range(EDGE):
            edges[t, index] = row[t]
            edges[EDGE + t, index] = row[length - EDGE + t]
        for part in range(means.shape[0]):
            total = 0.0
            for t in range(EDGE + part * segment, EDGE + (part + 1) * segment):
                total += row[t]
            means[part, index] = total / segment


@_entry
def summarise_envelopes(rows: Array, reach: int, segment: int, lows: Array, highs: Array) -> None:
    """The same of the smallest and the largest sample within ``reach`` of each sample of a row."""
    lowest, highest = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    row = np.empty(rows.shape[1])
    for index in range(rows.shape[0]):
        row[:] = rows[index]
        moving_extremes(row, reach, lowest, highest)
        for part in range(lows.shape[0]):
            low, high = 0.0, 0.0
            for t in range(EDGE + part * segment, EDGE + (part + 1) * segment):
                low += lowest[t]
                high += highest[t]
            lows[part, index] = low / segment
            highs[part, index] = high / segment
