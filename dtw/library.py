"""Nearest neighbours of a window among the past windows of a series, exactly.

Distances are squared, banded and taken between z-normalised windows; no root. A search runs in the library's dtype and
only proposes; every returned distance is computed anew in float64 by the reference kernel from the series itself, and
the choice rests on those. The result is therefore the float64 brute force to the last bit, for float32 libraries and on
every processor (``precision.py`` says why).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import bounds as lower_bounds
from dtw import kernels, reference
from dtw.bands import Bounds, band_bounds
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.normalize import checked_array, checked_series, normalized
from dtw.precision import Slack, rounded_up
from dtw.verify import VerifyResult, compare_claim

Method = Literal["lanes", "scalar"]


class Neighbours(NamedTuple):
    """Nearest first. ``starts`` int64 ``(k',)`` and ``distances`` float64 ``(k',)``, squared; ``k'`` may be below k."""

    starts: NDArray[np.int64]
    distances: NDArray[np.float64]


class WindowLibrary:
    """All sliding windows of one series, z-normalised, with the segment means that most searches stop at.

    ``series`` is float64 ``(n,)`` and copied; ``dtype`` is that of the search, float32 or float64. Memory is about
    ``n * window`` items. Immutable, so threads may search it at the same time; the kernels release the GIL.

    Raises ``InvalidSeries`` for data that cannot be matched and ``InvalidArgument`` for a bad window or dtype.
    """

    def __init__(self, series: ArrayLike, window: int, dtype: Any = np.float32) -> None:
        self.dtype = checked_dtype(dtype)
        self.series = checked_series(series, window).copy()
        self.window = window
        self.count = self.series.shape[0] - window + 1
        self._rows = self._normalized_rows()
        self._segments = np.empty((window // lower_bounds.SEGMENT, self.count), self.dtype)
        lower_bounds.segment_means(self._rows, self._segments)
        self._bands: dict[int | None, tuple[Bounds, Slack]] = {}

    def nearest(
        self,
        query: ArrayLike,
        k: int,
        window_band: int | None,
        last_start: int,
        cutoff: float = math.inf,
        method: Method = "lanes",
        exclusion: int = 0,
    ) -> Neighbours:
        """The k windows nearest to ``query`` among those with ``start <= last_start``.

        ``query`` holds ``window`` raw samples; it is z-normalised here. Order and choice are by (distance, start): ties
        go to the smaller start. ``exclusion`` > 0 chooses greedily, nearest first, and passes over windows whose start
        lies less than ``exclusion`` samples from one already chosen. Windows farther than ``cutoff`` never appear.
        ``method`` "scalar" compares one pair at a time without abandoning: the baseline, same result.

        Raises ``InvalidSeries`` for a bad query, ``InvalidArgument`` for a bad parameter.
        """
        self._check(k, cutoff, method, exclusion)
        k, exclusion = int(k), int(exclusion)
        pattern = self._pattern(query)
        count = int(min(last_start + 1, self.count))
        if count <= 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float64))
        bounds, slack = self._banded(window_band)
        # A choice rules out at most 2 * exclusion - 1 starts, its own among them, so the k chosen are among these many.
        keep = int(min(count, (k - 1) * (2 * max(exclusion, 1) - 1) + 1))
        search = self._search_lanes if method == "lanes" else self._search_scalar
        proposed, floors = search(pattern, count, keep, cutoff, bounds, slack)
        chosen = np.empty(min(k, count), np.int64)
        distances = np.empty(chosen.shape[0], np.float64)
        found = reference.choose_nearest(
            pattern, self.series, proposed, floors, *bounds, int(exclusion), float(cutoff), chosen, distances
        )
        return Neighbours(chosen[:found], distances[:found])

    def verify_nearest(
        self,
        query: ArrayLike,
        claimed_starts: ArrayLike,
        claimed_distances: ArrayLike,
        band: int | None,
        last_start: int,
        exclusion: int,
        tolerance: float = 1e-6,
        k: int | None = None,
    ) -> VerifyResult:
        """Repeat the whole search and say whether a claim is its result, and if not, why.

        ``k`` is what the claimant had to look for; None takes the length of the claim, which cannot catch a claim that
        is merely too short. Starts must agree exactly, distances within ``tolerance`` relative to ``max(1, distance)``.
        A malformed claim is a negative result, never an exception: it comes from someone else. Raises only for our own
        side: ``InvalidSeries`` for the query, ``InvalidArgument`` for the parameters.
        """
        try:
            starts, distances = np.asarray(claimed_starts), np.asarray(claimed_distances)
        except (TypeError, ValueError, OverflowError) as error:
            return VerifyResult(False, f"malformed: {error}")
        wanted = len(starts) if k is None and starts.ndim == 1 else (k or 0)
        expected = self.nearest(query, max(1, wanted), band, last_start, exclusion=exclusion)
        if wanted == 0:
            expected = Neighbours(expected.starts[:0], expected.distances[:0])
        return compare_claim(
            starts,
            distances,
            expected,
            lambda known: self.distances_at(query, known, band),
            last_start,
            exclusion,
            tolerance,
        )

    def distances_at(self, query: ArrayLike, starts: ArrayLike, window_band: int | None) -> NDArray[np.float64]:
        """Exact float64 distances ``(len(starts),)`` from ``query`` to the windows at ``starts``."""
        pattern = self._pattern(query)
        at = np.ascontiguousarray(starts, np.int64)
        if at.ndim != 1 or (at.size and (at.min() < 0 or at.max() >= self.count)):
            raise InvalidArgument(f"window starts lie between 0 and {self.count - 1}")
        windows = np.empty((at.shape[0], self.window), np.float64)
        reference.normalize_windows(self.series, at, windows)
        out = np.empty(at.shape[0], np.float64)
        reference.distance_pairs(pattern, windows, *self._banded(window_band)[0], out)
        return out

    def _normalized_rows(self) -> NDArray[Any]:
        """All windows row-major ``(count, window)``, rounded to the search dtype."""
        rows = np.empty((self.count, self.window), self.dtype)
        reference.normalize_windows(self.series, np.arange(self.count, dtype=np.int64), rows)
        return rows

    def _check(self, k: int, cutoff: float, method: str, exclusion: int) -> None:
        if k < 1:
            raise InvalidArgument(f"k is at least 1, not {k}")
        if math.isnan(cutoff) or cutoff < 0:
            raise InvalidArgument(f"a cutoff is a squared distance, at least 0, not {cutoff}")
        if method not in get_args(Method):
            raise InvalidArgument(f"the methods are {', '.join(get_args(Method))}, not {method!r}")
        if exclusion < 0:
            raise InvalidArgument(f"an exclusion is a number of samples, at least 0, not {exclusion}")

    def _pattern(self, query: ArrayLike) -> NDArray[np.float64]:
        values = checked_array(query, 1, np.float64)
        if values.shape[0] != self.window:
            raise InvalidSeries(f"the query holds {values.shape[0]} samples, the library's windows {self.window}")
        return normalized(values)

    def _banded(self, band: int | None) -> tuple[Bounds, Slack]:
        if band not in self._bands:
            bounds = band_bounds(self.window, self.window, band)
            self._bands[band] = bounds, Slack.of(self.window, bounds, self.dtype)
        return self._bands[band]

    def _search_lanes(
        self, pattern: NDArray[np.float64], count: int, keep: int, cutoff: float, bounds: Bounds, slack: Slack
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Starts and lower bounds, ascending by the bound, of all windows that can be among the ``keep`` nearest."""
        computed = np.empty(count, self.dtype)
        kind = self.dtype.type
        query = pattern.astype(self.dtype)
        floors = np.empty(count, self.dtype)
        lower_bounds.segment_bounds(query, self._segments, *bounds, floors)
        final = kernels.nearest_lanes(
            query,
            self._rows,
            floors,
            *bounds,
            keep,
            rounded_up(slack.ceiling(cutoff), self.dtype),
            rounded_up(slack.grow(), self.dtype),
            rounded_up(slack.shift(), self.dtype),
            computed,
        )
        return _proposals(computed, kind(final), slack)

    def _search_scalar(
        self, pattern: NDArray[np.float64], count: int, keep: int, cutoff: float, bounds: Bounds, slack: Slack
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The same by the plain loop over every window."""
        computed = np.empty(count, self.dtype)
        reference.distance_pairs(pattern.astype(self.dtype), self._rows[:count], *bounds, computed)
        last_kept = float(np.partition(computed, keep - 1)[keep - 1])
        return _proposals(computed, slack.ceiling(min(cutoff, last_kept)), slack)


def _proposals(computed: NDArray[Any], final: Any, slack: Slack) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    near = np.flatnonzero(computed <= final)
    near = near[np.isfinite(computed[near])]
    floors = slack.floors(computed[near])
    order = np.argsort(floors, kind="stable")
    return near[order].astype(np.int64, copy=False), floors[order]


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The search dtype, float32 or float64, or ``InvalidArgument``."""
    chosen: np.dtype[Any] = np.dtype(dtype)
    if chosen not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InvalidArgument(f"searches run in float32 or float64, not {chosen}")
    return chosen


class LibraryBank:
    """One ``WindowLibrary`` per column of ``series_matrix``, float64 ``(n, m)``: rows are time, columns are series."""

    def __init__(self, series_matrix: ArrayLike, window: int, dtype: Any = np.float32) -> None:
        matrix = checked_array(series_matrix, 2, np.float64)
        self.window = window
        self.length, self.columns = matrix.shape
        self.libraries = [WindowLibrary(matrix[:, column], window, dtype) for column in range(self.columns)]

    def last_start(self, end_index: int, horizon: int) -> int:
        """The last candidate start that a query ending at ``end_index`` (its last sample) may see; negative when none.

        The candidate's window and its horizon end before the query's window begins:
        ``start + window + horizon <= end_index - window + 1``. So a neighbour's outcome shares no sample with the
        query.
        """
        if not self.window - 1 <= end_index < self.length:
            raise InvalidArgument(f"a query ends between {self.window - 1} and {self.length - 1}, not at {end_index}")
        if horizon < 0:
            raise InvalidArgument(f"a horizon is a number of samples, at least 0, not {horizon}")
        return end_index - 2 * self.window - horizon + 1

    def query(self, column: int, end_index: int) -> NDArray[np.float64]:
        """The raw window of ``column`` whose last sample is at ``end_index``."""
        return self.libraries[column].series[end_index - self.window + 1 : end_index + 1]

    def nearest_all(
        self,
        end_index: int,
        k: int,
        band: int | None,
        horizon: int,
        exclusion: int,
        columns: Sequence[int] | None = None,
        method: Method = "lanes",
    ) -> list[Neighbours]:
        """The k nearest past windows of each column's own window that ends at ``end_index``, in the order of
        ``columns``."""
        last_start = self.last_start(end_index, horizon)
        wanted = range(self.columns) if columns is None else columns
        if any(not 0 <= column < self.columns for column in wanted):
            raise InvalidArgument(f"columns lie between 0 and {self.columns - 1}, not {list(wanted)}")
        return [
            self.libraries[column].nearest(
                self.query(column, end_index), k, band, last_start, method=method, exclusion=exclusion
            )
            for column in wanted
        ]
