"""Nearest neighbours of a window among the past windows of a series, exactly.

Distances are squared, banded and taken between z-normalised windows; no root. A search runs in the library's dtype and
only proposes; every returned distance is computed anew in float64 by the reference kernel from the series itself, and
the choice rests on those. The result is therefore the float64 brute force to the last bit, for float32 libraries and on
every processor (``precision.py`` says why).
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Any, Final, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import cascade, moving, reference
from dtw.bands import Bounds, band_bounds, band_cells
from dtw.bounds import EDGE, SPAN
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.normalize import checked_array, checked_series, normalized
from dtw.once import search_once
from dtw.parallel import checked_threads, in_threads, slices
from dtw.precision import Slack, bound_slack, rounded_up
from dtw.query import (
    Method,
    Neighbours,
    Pruning,
    checked_cutoff,
    checked_dtype,
    checked_exclusion,
    checked_k,
    gap_of,
    shared_by,
)
from dtw.stack import Stack
from dtw.verify import VerifyResult, compare_claim

SEGMENTS: Final = 14
"""Segments per window in the first lower bound, about: 4 samples each in a window of 64."""

REFINING_WIDTH: Final = 24
"""Cells per row from which on bounds of single samples can pay; see ``choice.REFINING_CELLS``."""


class _Spans(NamedTuple):
    """What ``cascade.window_bounds`` takes of the windows, in its order. No spans for windows that are too short."""

    spans: NDArray[np.float32]
    shifts: NDArray[np.float32]
    scales: NDArray[np.float32]
    usable: NDArray[np.float32]

    def of(self, part: slice) -> _Spans:
        """Those of the windows of a part, whose start is a multiple of SPAN."""
        return _Spans(self.spans[part.start // SPAN :], self.shifts[part], self.scales[part], self.usable[part])


def _empty_spans(count: int, window: int) -> _Spans:
    """Room for the spans of ``count`` windows."""
    arrays = (np.empty(count, np.float32) for _ in range(3))
    return _Spans(np.empty(moving.span_shape(count, window), np.float32), *arrays)


class _Band(NamedTuple):
    """What a band asks for: its bounds per row, the errors, and the spans of segments and of single samples."""

    bounds: Bounds
    slack: Slack
    reach: int
    limits: NDArray[np.float64]
    coarse: _Spans
    fine: _Spans


class WindowLibrary:
    """All sliding windows of one series, z-normalised when they are needed.

    ``series`` is float64 ``(n,)`` and copied; ``dtype`` is that of the search, float32 or float64. Memory is about 24
    bytes per sample and 32 more for each band that was asked for, whatever the window. Threads may search it at the
    same time; the kernels release the GIL. ``threads`` share the preparing. ``keep`` False is for a single search, see
    ``once.py``; it rests on the caller's own series.

    Raises ``InvalidSeries`` for data that cannot be matched and ``InvalidArgument`` for a bad window or dtype.
    """

    def __init__(
        self, series: ArrayLike, window: int, dtype: Any = np.float32, threads: int = 1, keep: bool = True
    ) -> None:
        self.dtype = checked_dtype(dtype)
        self.threads = checked_threads(threads)
        self._keep = keep
        checked = checked_series(series, window)
        self.series = checked.copy() if keep else checked
        self.window = window
        self.count = self.series.shape[0] - window + 1
        self._means, self._inverses = np.zeros(self.count), np.zeros(self.count)
        self._segment = max(1, (window - 2 * EDGE) // SEGMENTS)
        self._bands: dict[int | None, _Band] = {}

    def nearest(
        self,
        query: ArrayLike,
        k: int,
        window_band: int | None,
        last_start: int,
        cutoff: float = math.inf,
        method: Method = "lanes",
        exclusion: int = 0,
        threads: int = 1,
    ) -> Neighbours:
        """The k windows nearest to ``query`` among those with ``start <= last_start``.

        ``query`` holds ``window`` raw samples; it is z-normalised here. Order and choice are by (distance, start): ties
        go to the smaller start. ``exclusion`` > 0 chooses greedily, nearest first, and passes over windows whose start
        lies less than ``exclusion`` samples from one already chosen. Windows farther than ``cutoff`` never appear.
        ``method`` "scalar" compares one pair at a time without abandoning: the baseline, same result. ``threads`` share
        the windows between them.

        Raises ``InvalidSeries`` for a bad query, ``InvalidArgument`` for a bad parameter.
        """
        k, cutoff, threads = checked_k(k), checked_cutoff(cutoff), checked_threads(threads)
        exclusion = checked_exclusion(exclusion)
        if method not in get_args(Method):
            raise InvalidArgument(f"the methods are {', '.join(get_args(Method))}, not {method!r}")
        raw = self._checked_query(query)
        count = int(min(last_start + 1, self.count))
        if count <= 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float64))
        band, gap = self._banded(window_band), gap_of(exclusion)
        parts = slices(count, threads, SPAN)
        if method == "lanes" and len(parts) == 1 and self._keep:
            stack = self.stacked(window_band)
            return stack.nearest(raw[None], np.zeros(1, np.int64), k, count, cutoff, exclusion, self.dtype)[0]
        pattern = normalized(raw)
        if method == "lanes":
            proposed, floors, pruning = self._search_parts(pattern, parts, k, gap, cutoff, band)
        else:
            proposed, floors, pruning = self._search_scalar(pattern, count, min(k, count), gap, cutoff, band)
        chosen = np.empty(min(k, count), np.int64)
        distances = np.empty(chosen.shape[0], np.float64)
        found = reference.choose_nearest(
            pattern, self.series, proposed, floors, *band.bounds, exclusion, float(cutoff), chosen, distances
        )
        return Neighbours(chosen[:found], distances[:found], pruning)

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
            (expected.starts, expected.distances),
            lambda known: self.distances_at(query, known, band),
            last_start,
            exclusion,
            tolerance,
        )

    def prepare(self, band: int | None) -> None:
        """Prepare for many searches within a band: what the first of them would do, and what each does a part of."""
        self._banded(band)
        moving.fill_moments(self.series, self.window, self._means, self._inverses)

    def stacked(self, band: int | None) -> Stack:
        """What a search within a band takes, as a stack of this series alone."""
        prepared = self._banded(band)
        coarse, fine = (tuple(array[None] for array in spans) for spans in (prepared.coarse, prepared.fine))
        return Stack(
            self.series[None],
            self._means[None],
            self._inverses[None],
            self._segment,
            prepared.reach,
            coarse,
            fine,
            prepared.bounds,
            prepared.slack,
            prepared.limits,
        )

    def rest_on(self, stack: Stack, row: int, band: int | None) -> None:
        """Go on with a row of a stack that this library was joined into, and drop the own copy."""
        self.series, self._means, self._inverses = stack.series[row], stack.means[row], stack.inverses[row]
        coarse, fine = (_Spans(*(array[row] for array in spans)) for spans in (stack.coarse, stack.fine))
        self._bands[band] = self._bands[band]._replace(coarse=coarse, fine=fine)

    def distances_at(self, query: ArrayLike, starts: ArrayLike, window_band: int | None) -> NDArray[np.float64]:
        """Exact float64 distances ``(len(starts),)`` from ``query`` to the windows at ``starts``."""
        pattern = normalized(self._checked_query(query))
        at = np.ascontiguousarray(starts, np.int64)
        if at.ndim != 1 or (at.size and (at.min() < 0 or at.max() >= self.count)):
            raise InvalidArgument(f"window starts lie between 0 and {self.count - 1}")
        windows = np.empty((at.shape[0], self.window), np.float64)
        reference.normalize_windows(self.series, at, windows)
        out = np.empty(at.shape[0], np.float64)
        reference.distance_pairs(pattern, windows, *self._banded(window_band).bounds, out)
        return out

    @cached_property
    def _rows(self) -> NDArray[Any]:
        """All windows row-major ``(count, window)``, rounded to the search dtype: what the plain loop walks over."""
        rows = np.empty((self.count, self.window), self.dtype)
        reference.normalize_windows(self.series, np.arange(self.count, dtype=np.int64), rows)
        return rows

    def _checked_query(self, query: ArrayLike) -> NDArray[np.float64]:
        values: NDArray[np.float64] = checked_array(query, 1, np.float64)
        if values.shape[0] != self.window:
            raise InvalidSeries(f"the query holds {values.shape[0]} samples, the library's windows {self.window}")
        return values

    def _banded(self, band: int | None) -> _Band:
        if band not in self._bands:
            self._bands[band] = self._prepare(band)
        return self._bands[band]

    def _prepare(self, band: int | None) -> _Band:
        bounds = band_bounds(self.window, self.window, band)
        slack = Slack.of(self.window, bounds, self.dtype)
        relative, absolute = bound_slack(self.window)
        reach = self.window - 1 if band is None else min(int(band), self.window - 1)
        divisor = 1.0 + 2.0 * slack.relative
        limits = np.array([slack.grow(), slack.shift(), 1.0 + relative, absolute, divisor, slack.absolute])
        wide = self._keep and band_cells(bounds) >= REFINING_WIDTH * self.window
        fine = self._spans(1, reach) if wide else _empty_spans(0, self.window)
        coarse = self._spans(self._segment, reach) if self._keep else _empty_spans(0, self.window)
        return _Band(bounds, slack, reach, limits, coarse, fine)

    def _spans(self, segment: int, reach: int) -> _Spans:
        if self.window < 2 * EDGE:
            return _empty_spans(0, self.window)
        filled = _empty_spans(self.count, self.window)

        everything = np.zeros(self.count, np.float32), np.float32(np.inf)

        def fill(part: slice) -> None:
            spans = part.start, part.stop
            moving.fill_samples(self.series, self.window, reach, *spans, *everything, *filled)
            moving.fill_segments(self.series, self.window, segment, reach, *spans, *everything, filled.spans)

        in_threads([partial(fill, part) for part in slices(len(filled.spans), self.threads, 1)], self.threads)
        return filled

    def _search_parts(
        self, pattern: NDArray[np.float64], parts: list[slice], k: int, gap: int, cutoff: float, band: _Band
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], Pruning]:
        """Starts and lower bounds, ascending by the bound, of all windows that can be among the k nearest.

        Each thread searches a part of the windows: what is among the k nearest of all is among the k nearest of its
        part. The threads share their cutoff.
        """
        found: dict[int, tuple[NDArray[np.int64], NDArray[np.float64], Pruning]] = {}

        shared = np.full(1, np.inf)

        def search(part: slice) -> None:
            found[part.start] = self._search_lanes(pattern, part, k, gap, cutoff, band, shared)

        in_threads([partial(search, part) for part in parts], len(parts))
        ordered = [found[part.start] for part in parts]
        counts = Pruning(*(sum(values) for values in zip(*(pruning for _, _, pruning in ordered), strict=True)))
        starts = np.concatenate([starts for starts, _, _ in ordered])
        return *_by_floor(starts, np.concatenate([floors for _, floors, _ in ordered])), counts

    def _search_lanes(
        self,
        pattern: NDArray[np.float64],
        part: slice,
        k: int,
        gap: int,
        cutoff: float,
        band: _Band,
        shared: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], Pruning]:
        """The same of one part, whose start is a multiple of SPAN, ascending by start."""
        count = part.stop - part.start
        starts, values = np.empty(count + 1, np.int64), np.empty(count + 1, self.dtype)
        counts = np.zeros(3, np.int64)
        ceiling = rounded_up(band.slack.ceiling(cutoff), self.dtype)
        out = ceiling, band.limits, shared_by(shared, k, count), starts, values, counts
        if self._keep:
            found = self._propose(pattern, part, band, min(k, count), gap, *out)
        else:
            samples = self.series[part.start : part.stop + self.window - 1]
            found = search_once(pattern, samples, self._segment, band.reach, band.bounds, min(k, count), gap, *out)
        pruning = Pruning(count, int(counts[0]), int(counts[1]), int(counts[2]), found)
        return starts[:found] + part.start, band.slack.floors(values[:found]), pruning

    def _propose(
        self, pattern: NDArray[np.float64], part: slice, band: _Band, k: int, gap: int, ceiling: Any, *out: Any
    ) -> int:
        """Fill ``out``, see ``cascade.nearest_windows``, from what was prepared; returns how many are proposed."""
        query, single, count = pattern.astype(self.dtype), pattern.astype(np.float32), part.stop - part.start
        floors = np.zeros(count, np.float32)
        if len(band.coarse.spans):
            coarse, infinite = band.coarse.of(part), np.float32(np.inf)
            cascade.window_bounds(single, self._segment, band.reach, *coarse, 0, count, infinite, floors)
        return int(
            cascade.nearest_windows(
                query,
                single,
                band.reach,
                (self.series[part.start :], self._means[part], self._inverses[part]),
                1,
                tuple(band.fine.of(part)),
                floors,
                band.bounds,
                k,
                gap,
                ceiling,
                *out,
            )
        )

    def _search_scalar(
        self, pattern: NDArray[np.float64], count: int, k: int, gap: int, cutoff: float, band: _Band
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], Pruning]:
        """The same by the plain loop over every window."""
        computed = np.empty(count, self.dtype)
        reference.distance_pairs(pattern.astype(self.dtype), self._rows[:count], *band.bounds, computed)
        keep = min(count, (k - 1) * gap + 1)
        last_kept = float(np.partition(computed, keep - 1)[keep - 1])
        near = np.flatnonzero(computed <= band.slack.ceiling(min(cutoff, last_kept)))
        near = near[np.isfinite(computed[near])]
        return *_by_floor(near, band.slack.floors(computed[near])), Pruning(count, count, count, count, len(near))


def _by_floor(starts: NDArray[Any], floors: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    order = np.argsort(floors, kind="stable")
    return starts[order].astype(np.int64, copy=False), floors[order]
