"""Searching a stream: the k nearest subsequences so far, after each new sample, without looking back at the others.

A new sample completes one window. It is bounded, then compared, and kept only if it can be among the k nearest now or
later. After any number of samples the answer is that of ``api.search`` over all of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from dtw.bands import band_bounds
from dtw.errors import InvalidSeries
from dtw.moments import moments
from dtw.normalize import MAGNITUDE_MAX, checked_array, normalized
from dtw.query import Neighbours, Pruning, checked_cutoff, checked_exclusion, checked_k

_entry = njit(nogil=True, cache=True, fastmath=False, error_model="numpy")
_part = njit(nogil=True, fastmath=False, error_model="numpy")

REFUSED_BY_ENDS, REFUSED_BY_ENVELOPE, ABANDONED, WITHIN = 0, 1, 2, 3
"""How far ``compare_newest`` went with a window."""

BOUND_SLACK = 1e-9
"""Bounds are sums in another order than the distance, so they may come out larger by rounding; far below this share."""

Array = NDArray[Any]


@_part
def _recurrence(
    query: Array, candidate: Array, lower: Array, upper: Array, rest: Array, cutoff: float, above: Array, current: Array
) -> float:
    """The reference's; infinite once a row's minimum and the bound of the rows after it exceed the cutoff."""
    above[:] = np.inf
    current[:] = np.inf
    above[0] = 0.0
    for i in range(query.shape[0]):
        first, last = lower[i], upper[i]
        current[first] = np.inf
        diagonal, left, smallest = above[first], np.inf, np.inf  # in registers, as in ``reference.py``
        samples, tops, cells = candidate[first:last], above[first + 1 : last + 1], current[first + 1 : last + 1]
        for index in range(samples.shape[0]):
            difference = query[i] - samples[index]
            left = min(min(diagonal, tops[index]), left) + difference * difference
            diagonal = tops[index]
            cells[index] = left
            smallest = min(smallest, left)
        if (smallest + rest[i + 1]) * (1.0 - BOUND_SLACK) > cutoff:
            return np.inf
        above, current = current, above
    return float(above[candidate.shape[0]])


@_entry
def compare_newest(
    query: Array,
    highest: Array,
    lowest: Array,
    order: Array,
    ring: Array,
    newest: int,
    lower: Array,
    upper: Array,
    cutoff: float,
    candidate: Array,
    rest: Array,
    rows: Array,
    out: Array,
) -> int:
    """The distance of the window that ends at slot ``newest`` of ``ring`` into ``out[0]``, if it is below the cutoff.

    The UCR suite's steps for a single window: its ends (LB_Kim), its samples against the query's envelope ``highest``
    and ``lowest`` in the ``order`` in which they promise most (LB_Keogh, reordered), the recurrence with what the
    window's own envelope leaves for the rest. ``ring`` holds each sample twice, a window's length apart, so that every
    window is contiguous. ``candidate`` ``(n,)``, ``rest`` ``(n + 1,)`` and ``rows`` ``(2, n + 1)`` are scratch.
    Returns how far it went.
    """
    length = query.shape[0]
    values = ring[newest + 1 : newest + 1 + length]
    mean, deviation = moments(values)
    origin = values[0]
    out[0] = np.inf
    for t in range(length):
        candidate[t] = ((values[t] - origin) - mean) / deviation if deviation > 0.0 else 0.0
    limit = cutoff * (1.0 + BOUND_SLACK)
    front = query[0] - candidate[0]
    back = query[length - 1] - candidate[length - 1] if length > 1 else 0.0
    if front * front + back * back > limit:
        return REFUSED_BY_ENDS
    bound = 0.0
    for position in range(length):
        t = order[position]
        excess = max(max(candidate[t] - highest[t], lowest[t] - candidate[t]), 0.0)
        bound += excess * excess
        if bound > limit:
            return REFUSED_BY_ENVELOPE
    rest[length] = 0.0
    for i in range(length - 1, -1, -1):
        top, bottom = candidate[lower[i]], candidate[lower[i]]
        for j in range(lower[i] + 1, upper[i]):
            top = max(top, candidate[j])
            bottom = min(bottom, candidate[j])
        excess = max(max(query[i] - top, bottom - query[i]), 0.0)
        rest[i] = rest[i + 1] + excess * excess
    if rest[0] > limit:
        return REFUSED_BY_ENVELOPE
    out[0] = _recurrence(query, candidate, lower, upper, rest, cutoff, rows[0], rows[1])
    return WITHIN if out[0] <= cutoff else ABANDONED


class StreamSearch:
    """The k subsequences of a stream nearest to ``query`` ``(n,)``, both z-normalised; parameters as ``api.search``.

    Memory is about ``12 * n`` numbers and at most ``(k - 1) * (2 * exclusion - 1)`` kept matches beside those that tie
    with the last of the k, however long the stream. Not for several threads at once.

    Raises ``InvalidSeries``, ``InvalidArgument``.
    """

    def __init__(
        self,
        query: ArrayLike,
        k: int = 1,
        window: int | None = None,
        exclusion: int | None = None,
        cutoff: float = math.inf,
    ) -> None:
        self._query = normalized(query)
        length = self._query.shape[0]
        self._k = checked_k(k)
        self._exclusion = checked_exclusion(length // 2 if exclusion is None else exclusion)
        self._gap = 2 * max(self._exclusion, 1) - 1
        self._bounds = band_bounds(length, length, window)
        self._cutoff = checked_cutoff(cutoff)
        lower, upper = self._bounds
        self._highest = np.array([self._query[a:b].max() for a, b in zip(lower, upper, strict=True)])
        self._lowest = np.array([self._query[a:b].min() for a, b in zip(lower, upper, strict=True)])
        # A z-normalised sample is 0 on average, so where the envelope is far from 0 it refuses most.
        away = np.maximum(np.maximum(self._lowest, -self._highest), 0.0)
        self._order = np.argsort(-np.maximum(away, np.abs(self._query) / 2), kind="stable").astype(np.int64)
        self._ring = np.zeros(2 * length)
        self._scratch = np.empty(length), np.empty(length + 1), np.empty((2, length + 1)), np.empty(1)
        self._samples = 0
        self._kept: list[tuple[int, float]] = []
        self._counts = [0, 0, 0, 0]

    def push(self, sample: float) -> bool:
        """Take one sample; whether the window that it completes may be among the k nearest.

        Raises ``InvalidSeries`` with the sample's index for one that cannot be compared, and forgets it.
        """
        value = float(sample)
        if not abs(value) <= MAGNITUDE_MAX:
            raise InvalidSeries(f"{value} is not finite or too large to be squared", self._samples)
        length = self._query.shape[0]
        slot = self._samples % length
        self._ring[slot] = value
        self._ring[slot + length] = value
        self._samples += 1
        start = self._samples - length
        if start < 0:
            return False
        candidate, rest, rows, out = self._scratch
        outcome = compare_newest(
            self._query,
            self._highest,
            self._lowest,
            self._order,
            self._ring,
            slot,
            *self._bounds,
            self._cutoff,
            candidate,
            rest,
            rows,
            out,
        )
        self._counts[outcome] += 1
        if outcome != WITHIN:
            return False
        self._kept.append((start, float(out[0])))
        self._tighten()
        return True

    def extend(self, samples: ArrayLike) -> None:
        """Take many samples ``(n,)``, all or, if one cannot be compared, none."""
        for sample in checked_array(samples, 1, np.float64):
            self.push(float(sample))

    def _tighten(self) -> None:
        """Lower the cutoff to what the k nearest cannot exceed, and forget what lies beyond.

        The same argument as in ``choice.tightened``: k matches that lie ``2 * exclusion - 1`` apart cannot all be ruled
        out by fewer than k others. Later windows lose a tie, so they have to be nearer than that.
        """
        if len(self._kept) < self._k:
            return
        for ceiling in sorted({distance for _, distance in self._kept}):
            count, last = 0, -self._gap
            for start, distance in self._kept:
                if distance <= ceiling and start - last >= self._gap:
                    count, last = count + 1, start
            if count >= self._k:
                self._kept = [match for match in self._kept if match[1] <= ceiling]
                self._cutoff = min(self._cutoff, ceiling)
                return

    def matches(self) -> Neighbours:
        """The k nearest of the stream so far, nearest first; a tie goes to the earlier one."""
        chosen: list[tuple[int, float]] = []
        for start, distance in sorted(self._kept, key=lambda match: (match[1], match[0])):
            if len(chosen) < self._k and all(abs(start - other) >= self._exclusion for other, _ in chosen):
                chosen.append((start, distance))
        ends, envelopes, abandoned, within = self._counts
        windows = ends + envelopes + abandoned + within
        compared = abandoned + within
        pruning = Pruning(windows, windows - ends, compared, compared, within)
        return Neighbours(
            np.array([start for start, _ in chosen], np.int64),
            np.array([distance for _, distance in chosen], np.float64),
            pruning,
        )
