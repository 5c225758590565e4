"""Distances of all pairs of two collections, or of one with itself."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import kernels
from dtw.bands import band_bounds
from dtw.normalize import checked_array
from dtw.parallel import checked_threads, in_threads


def pairwise(
    X: ArrayLike,  # noqa: N803  the literature's name for a collection
    Y: ArrayLike | None = None,  # noqa: N803
    window: int | None = None,
    threads: int = 1,
) -> NDArray[np.float64] | NDArray[np.float32]:
    """Squared distances ``(len(X), len(Y))`` of the rows of ``X`` ``(n, length)`` and ``Y`` ``(m, length')``.

    ``Y`` None compares ``X`` with itself: each pair once, the diagonal 0. float32 when both are, float64 otherwise.
    Raises ``InvalidSeries``, ``InvalidArgument``.
    """
    threads = checked_threads(threads)
    left = checked_array(X, 2)
    right = left if Y is None else checked_array(Y, 2)
    dtype = np.result_type(left, right)
    left, right = checked_array(left, 2, dtype), checked_array(right, 2, dtype)
    bounds = band_bounds(left.shape[1], right.shape[1], window)
    out = np.zeros((left.shape[0], right.shape[0]), dtype)

    def row(index: int) -> None:
        first = index + 1 if Y is None else 0
        if first < right.shape[0]:
            kernels.distance_rows(left[index], right[first:], *bounds, dtype.type(np.inf), out[index, first:])

    in_threads([partial(row, index) for index in range(left.shape[0])], threads)
    if Y is None:
        out += out.T
    return out
