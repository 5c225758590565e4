"""The public functions: they validate and put arrays into canonical form, then call the kernels.

Distances are squared costs without a root; ``conventions.py`` converts them to and from those of other libraries.
``window`` is a Sakoe-Chiba band in samples, None is none (``bands.py``). A series is ``(n,)`` or, where that is said,
``(n, channels)``. Only ``search`` and ``nearest_windows`` z-normalise; the others take the values as they are.

Every call releases the GIL while it computes, and starts threads only when ``threads`` says so.

Data that cannot be compared raise ``InvalidSeries`` with the index, bad parameters ``InvalidArgument``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import crossover, gpu, kernels, moving, multivariate, reference, wavefront
from dtw.bands import Bounds, band_bounds, band_cells
from dtw.errors import InvalidArgument
from dtw.fastdtw import fastdtw
from dtw.lanes import LANES
from dtw.library import WindowLibrary
from dtw.normalize import checked_array, checked_channels
from dtw.pairwise import pairwise
from dtw.parallel import checked_threads, in_threads, slices
from dtw.path import Path, alignment_path
from dtw.precision import rounded_up
from dtw.query import Method, Neighbours, Pruning, checked_cutoff
from dtw.rows import RowLibrary, library_of

path = alignment_path

__all__ = [
    "Envelope",
    "LowerBounds",
    "Neighbours",
    "Path",
    "Pruning",
    "RowLibrary",
    "WindowLibrary",
    "distance",
    "envelope",
    "fastdtw",
    "lower_bounds",
    "nearest",
    "nearest_windows",
    "one_to_many",
    "pairwise",
    "path",
    "search",
]


def distance(a: ArrayLike, b: ArrayLike, window: int | None = None) -> float:
    """Squared distance of ``a`` ``(n,)`` or ``(n, channels)`` and ``b`` ``(m,)`` or ``(m, channels)``, in float64.

    In IEEE order on every way that is taken: row by row for a short pair, along anti-diagonals for a long one.
    """
    if np.ndim(a) == 2 or np.ndim(b) == 2:
        left, right = checked_channels(a), checked_channels(b)
        _same_channels(left, right)
        bounds = band_bounds(left.shape[0], right.shape[0], window)
        return float(multivariate.distance_channels(left, right, *bounds, math.inf))
    first, second = checked_array(a, 1, np.float64), checked_array(b, 1, np.float64)
    bounds = band_bounds(first.shape[0], second.shape[0], window)
    diagonals = first.shape[0] + second.shape[0] - 1
    if band_cells(bounds) >= crossover.cells_per_diagonal() * diagonals:
        return float(wavefront.distance_wavefront(first, second, *bounds))
    return float(reference.distance_pair(first, second, *bounds))


def one_to_many(
    query: ArrayLike,
    library: ArrayLike,
    window: int | None = None,
    cutoff: float = math.inf,
    method: Method | Literal["gpu"] = "lanes",
    threads: int = 1,
) -> NDArray[Any]:
    """Squared distances ``(count,)`` from ``query`` to each row of ``library``.

    ``query`` ``(n,)`` and ``library`` ``(count, m)``, or ``(n, channels)`` and ``(count, m, channels)``. Computes and
    returns float32 when both are, float64 otherwise and for channels. Distances above ``cutoff`` are ``inf``.
    ``method`` "lanes" compares ``LANES`` rows at once and abandons hopeless ones; "scalar" is the plain loop;
    "gpu" is ``gpu.one_to_many``, which needs a CUDA device and no threads.
    """
    cutoff, threads = checked_cutoff(cutoff), checked_threads(threads)
    if method == "gpu":
        return gpu.one_to_many(query, library, window, cutoff)
    if method not in ("lanes", "scalar"):
        raise InvalidArgument(f"the methods are lanes, scalar and gpu, not {method!r}")
    if np.ndim(query) == 2:
        return _channels_to_many(query, library, window, cutoff, threads)
    pattern, rows = checked_array(query, 1), checked_array(library, 2)
    dtype = np.result_type(pattern, rows)
    pattern, rows = checked_array(pattern, 1, dtype), checked_array(rows, 2, dtype)
    bounds = band_bounds(pattern.shape[0], rows.shape[1], window)
    out = np.empty(rows.shape[0], dtype)
    limit = rounded_up(cutoff, dtype)

    def compare(part: slice) -> None:
        if method == "lanes":
            kernels.distance_rows(pattern, rows[part], *bounds, limit, out[part])
        else:
            reference.distance_pairs(pattern, rows[part], *bounds, out[part])

    enough = crossover.threads_worth(threads, rows.shape[0] * band_cells(bounds))
    in_threads([partial(compare, part) for part in slices(rows.shape[0], enough, LANES)], enough)
    out[out > cutoff] = np.inf
    return out


def _channels_to_many(
    query: ArrayLike, library: ArrayLike, window: int | None, cutoff: float, threads: int
) -> NDArray[np.float64]:
    pattern, rows = checked_array(query, 2, np.float64), checked_array(library, 3, np.float64)
    _same_channels(pattern, rows[0])
    bounds = band_bounds(pattern.shape[0], rows.shape[1], window)
    out = np.empty(rows.shape[0])

    def compare(part: slice) -> None:
        multivariate.distances_channels(pattern, rows[part], *bounds, cutoff, out[part])

    in_threads([partial(compare, part) for part in slices(rows.shape[0], threads, 1)], threads)
    return out


def _same_channels(left: NDArray[Any], right: NDArray[Any]) -> None:
    if left.shape[1] != right.shape[1]:
        raise InvalidArgument(f"one series has {left.shape[1]} channels, the other {right.shape[1]}")


def nearest(
    query: ArrayLike,
    library: ArrayLike | RowLibrary,
    k: int,
    window: int | None = None,
    cutoff: float = math.inf,
    threads: int = 1,
) -> Neighbours:
    """The k rows of ``library`` ``(count, m)`` nearest to ``query`` ``(n,)``; see ``RowLibrary.nearest``.

    Rows are prepared for one query; pass a ``RowLibrary`` for many.
    """
    return library_of(library).nearest(query, k, window, cutoff, threads)


def search(
    query: ArrayLike,
    series: ArrayLike | WindowLibrary,
    k: int = 1,
    window: int | None = None,
    exclusion: int | None = None,
    cutoff: float = math.inf,
    threads: int = 1,
) -> Neighbours:
    """The k subsequences of ``series`` ``(n,)`` nearest to ``query`` ``(length,)``, both z-normalised, nearest first.

    A match rules out the starts nearer than ``exclusion`` to its own; None is half the query's length, 0 and 1 allow
    every overlap. ``pruning`` of the result says what each step of the search was left with. The series is prepared for
    one query; pass a ``WindowLibrary`` for many.
    """
    length = checked_array(query, 1).shape[0]
    threads = checked_threads(threads)
    library = series if isinstance(series, WindowLibrary) else WindowLibrary(series, length, keep=False)
    apart = length // 2 if exclusion is None else exclusion
    return library.nearest(query, k, window, library.count - 1, cutoff, exclusion=apart, threads=threads)


def nearest_windows(
    query: ArrayLike,
    series: ArrayLike,
    k: int,
    band: int | None = None,
    last_start: int | None = None,
    cutoff: float = math.inf,
    exclusion: int = 0,
    dtype: Any = np.float32,
    method: Method = "lanes",
) -> Neighbours:
    """The k windows of ``series`` ``(n,)`` nearest to ``query``, both raw; see ``WindowLibrary.nearest``."""
    library = WindowLibrary(series, checked_array(query, 1).shape[0], dtype, keep=False)
    limit = library.count - 1 if last_start is None else last_start
    return library.nearest(query, k, band, limit, cutoff, method, exclusion)


class Envelope(NamedTuple):
    """The smallest and the largest sample within the band of each sample, ``(n,)`` each, float64."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def envelope(series: ArrayLike, window: int | None = None) -> Envelope:
    """Keogh's envelope of ``series`` ``(n,)``: what a sample of another series of that length can meet."""
    values = checked_array(series, 1, np.float64)
    band_bounds(values.shape[0], values.shape[0], window)
    reach = values.shape[0] - 1 if window is None else min(int(window), values.shape[0] - 1)
    lower, upper = np.empty_like(values), np.empty_like(values)
    moving.moving_extremes(values, reach, lower, upper)
    return Envelope(lower, upper)


class LowerBounds(NamedTuple):
    """Lower bounds of the squared distances ``(count,)``, float64; see ``lower_bounds``."""

    kim: NDArray[np.float64]
    keogh: NDArray[np.float64]
    keogh_reversed: NDArray[np.float64]

    def best(self) -> NDArray[np.float64]:
        """The largest of them."""
        return np.maximum(self.kim, np.maximum(self.keogh, self.keogh_reversed))


def lower_bounds(query: ArrayLike, library: ArrayLike, window: int | None = None) -> LowerBounds:
    """What the distances from ``query`` ``(n,)`` to the rows of ``library`` ``(count, n)`` are at least.

    ``kim``: the first and the last samples meet (Kim, Park, Chu, 2001, as in the UCR suite). ``keogh``: each sample of
    a row against the query's envelope (Keogh, Ratanamahatana, 2005). ``keogh_reversed``: the other way round.
    """
    pattern, rows = checked_array(query, 1, np.float64), checked_array(library, 2, np.float64)
    if rows.shape[1] != pattern.shape[0]:
        raise InvalidArgument(f"bounds need equal lengths, not {pattern.shape[0]} and {rows.shape[1]}")
    kim = (rows[:, 0] - pattern[0]) ** 2
    if pattern.shape[0] > 1:
        kim += (rows[:, -1] - pattern[-1]) ** 2
    around = envelope(pattern, window)
    keogh = np.sum(_excess(rows, around.lower, around.upper) ** 2, axis=1)
    backwards = np.empty(rows.shape[0])
    for index in range(rows.shape[0]):
        around = envelope(rows[index], window)
        backwards[index] = np.sum(_excess(pattern, around.lower, around.upper) ** 2)
    return LowerBounds(kim, keogh, backwards)


def _excess(values: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(0.0, np.maximum(values - upper, lower - values)))


def cells(rows: int, columns: int, window: int | None = None) -> int:
    """How many cells one comparison of these lengths computes: its work."""
    bounds: Bounds = band_bounds(rows, columns, window)
    return band_cells(bounds)
