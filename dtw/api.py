"""The public functions: they validate and put arrays into canonical form, then call the kernels.

All distances are squared and have no root. Only ``nearest`` z-normalises; the others take the values as they are. Every
call releases the GIL while it computes and starts no thread, so callers run it in a worker thread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import kernels, reference
from dtw.bands import Bounds, band_bounds
from dtw.errors import InvalidArgument
from dtw.library import Method, Neighbours, WindowLibrary
from dtw.normalize import checked_array
from dtw.precision import rounded_up


def distance(a: ArrayLike, b: ArrayLike, band: int | None = None) -> float:
    """Squared DTW distance of two series ``(n,)`` and ``(m,)``, in float64 and IEEE order.

    ``band`` in samples, see ``dtw.bands``; None means none. Raises ``InvalidSeries`` and ``InvalidArgument``.
    """
    left, right = checked_array(a, 1, np.float64), checked_array(b, 1, np.float64)
    bounds = band_bounds(left.shape[0], right.shape[0], band)
    return float(reference.distance_pair(left, right, *bounds))


def one_to_many(
    query: ArrayLike,
    candidates: ArrayLike,
    band: int | None = None,
    cutoff: float = math.inf,
    method: Method = "lanes",
) -> NDArray[Any]:
    """Squared DTW distances ``(count,)`` from ``query`` ``(n,)`` to each row of ``candidates`` ``(count, m)``.

    Computes and returns float32 when both are float32, float64 otherwise. Distances above ``cutoff`` are ``inf``.
    ``method`` "lanes" compares ``LANES`` candidates at once and abandons hopeless ones; "scalar" is the plain loop.
    """
    pattern, rows = checked_array(query, 1), checked_array(candidates, 2)
    dtype = np.result_type(pattern, rows)
    pattern, rows = checked_array(pattern, 1, dtype), checked_array(rows, 2, dtype)
    if math.isnan(cutoff) or cutoff < 0:
        raise InvalidArgument(f"a cutoff is a squared distance, at least 0, not {cutoff}")
    bounds = band_bounds(pattern.shape[0], rows.shape[1], band)
    if method == "lanes":
        out = _one_to_many_lanes(pattern, rows, bounds, cutoff)
    elif method == "scalar":
        out = np.empty(rows.shape[0], dtype)
        reference.distance_pairs(pattern, rows, *bounds, out)
    else:
        raise InvalidArgument(f"the methods are lanes and scalar, not {method!r}")
    out[out > cutoff] = np.inf
    return out


def _one_to_many_lanes(pattern: NDArray[Any], rows: NDArray[Any], bounds: Bounds, cutoff: float) -> NDArray[Any]:
    out = np.empty(rows.shape[0], rows.dtype)
    kernels.distance_rows(pattern, rows, *bounds, rounded_up(cutoff, rows.dtype), out)
    return out


def nearest(
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
    """The k windows of ``series`` ``(n,)`` nearest to ``query`` ``(window,)``, both raw; see ``WindowLibrary.nearest``.

    ``last_start`` None searches the whole series. Builds a library for one query; keep a ``WindowLibrary`` for many.
    """
    library = WindowLibrary(series, checked_array(query, 1).shape[0], dtype)
    limit = library.count - 1 if last_start is None else last_start
    return library.nearest(query, k, band, limit, cutoff, method, exclusion)
