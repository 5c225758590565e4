"""Nearest neighbours among given rows of one length, compared as they are.

The search is that of ``library.py``: lower bounds, here from a summary that is stored column by column, and the
recurrence for what they cannot refuse. What is returned is computed in float64 in IEEE order.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import cascade, moving, reference
from dtw.bands import Bounds, band_bounds
from dtw.bounds import EDGE, LANE_GROUP
from dtw.library import SEGMENTS
from dtw.normalize import checked_array
from dtw.parallel import checked_threads, in_threads, slices
from dtw.precision import Slack, rounded_up
from dtw.query import Neighbours, Pruning, checked_cutoff, checked_k, shared_by

QUERY_MAX: Final = 1e15
"""A query that reaches this many times as far as the rows do is compared with all of them in float64."""

_NO_MOMENTS = np.zeros(0)
_NO_SPANS = np.zeros((0, 4, 0), np.float32), *(np.zeros(0, np.float32) for _ in range(3))


EXPONENT_PLAIN: Final = 4
"""Rows whose largest sample lies within 2 to the power of plus or minus this are searched as they are."""


class _Part(NamedTuple):
    """A summary of contiguous rows: the arguments ``edges`` to ``highs`` of ``cascade.row_bounds``."""

    edges: NDArray[np.float32]
    means: NDArray[np.float32]
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]


class RowLibrary:
    """``rows`` ``(count, length)``, float32 or float64, prepared for ``nearest``.

    The search runs in the type of the rows, the answers are float64. Memory is a copy of the rows and a summary of
    about 200 bytes per row for each band. Threads may search it at the same time; the kernels release the GIL. ``keep``
    False is for a single search: it rests on the caller's own rows.

    Raises ``InvalidSeries`` with the index of a bad row.
    """

    def __init__(self, rows: ArrayLike, keep: bool = True) -> None:
        checked = checked_array(rows, 2)
        # Times a power of two, which changes no digit: squares neither overflow nor vanish, not even in float32.
        exponent = math.frexp(max(-float(checked.min()), float(checked.max())))[1]
        if abs(exponent) <= EXPONENT_PLAIN:
            self._unit, self._rows = 1.0, checked.copy() if keep else checked
        else:
            self._unit = 2.0 ** -max(exponent, -1000)
            self._rows = (checked.astype(np.float64) * self._unit).astype(checked.dtype)
        self._largest = math.ldexp(1.0, exponent) * self._unit
        self.count, self.length = self._rows.shape
        self._norm = float(np.sqrt(np.einsum("ij,ij->i", self._rows, self._rows, dtype=np.float64).max()))
        self._segment = max(1, (self.length - 2 * EDGE) // SEGMENTS)
        self._parts: dict[tuple[int, int, int], _Part] = {}

    def nearest(
        self, query: ArrayLike, k: int, window: int | None = None, cutoff: float = math.inf, threads: int = 1
    ) -> Neighbours:
        """The k rows nearest to ``query`` ``(m,)``: ``starts`` are their indices, a tie goes to the smaller one.

        Rows farther than ``cutoff`` never appear. A query of another length than the rows' is compared with all of
        them. Raises ``InvalidSeries``, ``InvalidArgument``.
        """
        k, threads = checked_k(k), checked_threads(threads)
        cutoff = checked_cutoff(cutoff)
        exact = checked_array(query, 1, np.float64)
        bounds = band_bounds(exact.shape[0], self.length, window)
        parts = slices(self.count, threads, LANE_GROUP)
        found: list[tuple[NDArray[np.int64], Pruning]] = [(np.empty(0, np.int64), Pruning(0, 0, 0, 0, 0))] * len(parts)
        shared = np.full(1, np.inf)

        def search(slot: int, part: slice) -> None:
            if exact.shape[0] != self.length or float(np.abs(exact).max()) * self._unit > QUERY_MAX:
                starts, pruning = self._compare_all(exact, part, min(k, part.stop - part.start), bounds)
            else:
                starts, pruning = self._search(exact * self._unit, part, k, window, cutoff, bounds, shared)
            found[slot] = starts + part.start, pruning

        in_threads([partial(search, slot, part) for slot, part in enumerate(parts)], threads)
        proposed = np.concatenate([starts for starts, _ in found])
        pruning = Pruning(*(sum(values) for values in zip(*(counts for _, counts in found), strict=True)))
        distances = np.empty(proposed.shape[0])
        reference.distance_pairs(exact, self._original(self._rows[proposed]), *bounds, distances)
        order = np.lexsort((proposed, distances))[:k]
        order = order[distances[order] <= cutoff]
        return Neighbours(proposed[order], distances[order], pruning)

    def _original(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        return rows.astype(np.float64) / self._unit

    def _search(
        self,
        exact: NDArray[np.float64],
        part: slice,
        k: int,
        window: int | None,
        cutoff: float,
        bounds: Bounds,
        shared: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], Pruning]:
        """Indices within the part of all its rows that can be among the k nearest to the scaled query."""
        rows, dtype = self._rows[part], self._rows.dtype
        slack = Slack.of(self.length, bounds, dtype, max(self._norm, float(np.linalg.norm(exact))))
        single = exact.astype(np.float32)
        floors = np.zeros(-(-rows.shape[0] // LANE_GROUP) * LANE_GROUP, np.float32)
        if self.length >= 2 * EDGE:
            reach = self.length - 1 if window is None else min(int(window), self.length - 1)
            cascade.row_bounds(single, self._segment, reach, *self._summary(part, reach), floors)
        epsilon = float(np.finfo(np.float32).eps)
        # Rounding moves a term of a bound by at most four units of the larger sample, and there are ``length`` terms.
        absolute = 4.0 * epsilon * math.sqrt(self.length) * (self._largest + float(np.abs(exact).max()))
        relative = 1.0 + (2 * self.length + 8) * epsilon
        starts, values = np.empty(rows.shape[0] + 1, np.int64), np.empty(rows.shape[0] + 1, dtype)
        counts = np.zeros(3, np.int64)
        found = cascade.nearest_windows(
            exact.astype(dtype),
            single,
            0,
            (rows.reshape(-1), _NO_MOMENTS, _NO_MOMENTS),
            self.length,
            _NO_SPANS,
            floors[: rows.shape[0]],
            bounds,
            min(k, rows.shape[0]),
            1,
            rounded_up(slack.ceiling(cutoff * self._unit * self._unit), dtype),
            np.array([slack.grow(), slack.shift(), relative, absolute]),
            shared_by(shared, k, rows.shape[0]),
            starts,
            values,
            counts,
        )
        return starts[:found].copy(), Pruning(rows.shape[0], int(counts[0]), int(counts[1]), int(counts[2]), found)

    def _compare_all(
        self, exact: NDArray[np.float64], part: slice, k: int, bounds: Bounds
    ) -> tuple[NDArray[np.int64], Pruning]:
        """The k nearest rows of the part to a query that no bound fits, exactly."""
        count = part.stop - part.start
        distances = np.empty(count)
        reference.distance_pairs(exact, self._original(self._rows[part]), *bounds, distances)
        near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1]).astype(np.int64, copy=False)
        return near, Pruning(count, count, count, count, near.shape[0])

    def _summary(self, part: slice, reach: int) -> _Part:
        key = (part.start, part.stop, reach)
        if key not in self._parts:
            rows = self._rows[part]
            padded = -(-rows.shape[0] // LANE_GROUP) * LANE_GROUP
            edges = np.zeros((2 * EDGE, padded), np.float32)
            means, lows, highs = (
                np.zeros(((self.length - 2 * EDGE) // self._segment, padded), np.float32) for _ in range(3)
            )
            moving.summarise_rows(rows, self._segment, edges, means)
            moving.summarise_envelopes(rows, reach, self._segment, lows, highs)
            self._parts[key] = _Part(edges, means, lows, highs)
        return self._parts[key]


def library_of(library: ArrayLike | RowLibrary) -> RowLibrary:
    """A prepared library as it is, rows prepared now."""
    return library if isinstance(library, RowLibrary) else RowLibrary(library, keep=False)
