"""Distances on a CUDA device, behind the shapes, types and errors of ``api.py``. Optional: nothing here is imported of
numba's CUDA target before a function is called, and nothing else needs it; ``docs/gpu.md`` says how to install it.

float64 distances are those of ``reference.py`` to the last bit. float32 ones may round otherwise, as those of the lanes
do. A search for the nearest only proposes on the device; float64 distances computed here decide.
"""

from __future__ import annotations

import math
from functools import cached_property
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import reference
from dtw.bands import Bounds, band_bounds
from dtw.errors import InvalidArgument
from dtw.normalize import checked_array
from dtw.precision import Slack, rounded_up
from dtw.query import Neighbours, Pruning, checked_cutoff, checked_k
from dtw.rows import QUERY_MAX

MISSING: Final = "numba's CUDA target is not installed: pip install 'trading-swarm[gpu]'"
NO_DEVICE: Final = "numba finds no CUDA device, driver or compiler: see `python -m numba -s` and docs/gpu.md"
PAIRS_AT_ONCE: Final = 1 << 20
"""Pairs per launch of ``pairwise``, about."""


def why_not() -> str | None:
    """What is missing and how to mend it, in one line; None when the functions of this file can be called."""
    try:
        from dtw import gpu_kernels
    except ImportError:
        return MISSING
    if not gpu_kernels.is_installed():
        return MISSING
    return None if gpu_kernels.is_available() else NO_DEVICE


def available() -> bool:
    """Whether there is a device, or numba's simulator of one."""
    return why_not() is None


def one_to_many(
    query: ArrayLike, library: ArrayLike, window: int | None = None, cutoff: float = math.inf
) -> NDArray[Any]:
    """Squared distances ``(count,)`` from ``query`` ``(n,)`` to each row of ``library`` ``(count, m)``.

    float32 when both are, float64 otherwise. Distances above ``cutoff`` are ``inf``. The library goes to the device
    with every call; ``GpuRows`` keeps it there.

    Raises ``InvalidSeries``; ``InvalidArgument`` also when there is no device, and for channels.
    """
    kernels, cutoff = _kernels(), checked_cutoff(cutoff)
    if np.ndim(query) == 2:
        raise InvalidArgument("series with channels are not compared on the GPU: take another method")
    pattern, rows = _of_one_dtype(checked_array(query, 1), checked_array(library, 2))
    bounds = band_bounds(pattern.shape[0], rows.shape[1], window)
    found = kernels.compared(kernels.to_device(pattern[None]), kernels.to_device(rows), bounds)
    return _cut(found[0], cutoff)


def pairwise(
    X: ArrayLike,  # noqa: N803  the literature's name for a collection
    Y: ArrayLike | None = None,  # noqa: N803
    window: int | None = None,
) -> NDArray[Any]:
    """Squared distances ``(len(X), len(Y))`` of the rows of ``X`` ``(n, length)`` and ``Y`` ``(m, length')``.

    ``Y`` None compares ``X`` with itself: the diagonal is 0 and the lower triangle a copy of the upper one. float32
    when both are, float64 otherwise. Raises ``InvalidSeries``; ``InvalidArgument`` also when there is no device.
    """
    kernels, left = _kernels(), checked_array(X, 2)
    left, right = _of_one_dtype(left, left if Y is None else checked_array(Y, 2))
    bounds = band_bounds(left.shape[1], right.shape[1], window)
    out = np.zeros((left.shape[0], right.shape[0]), left.dtype)
    on_device = kernels.to_device(right)
    step = max(1, PAIRS_AT_ONCE // right.shape[0])
    for start in range(0, left.shape[0], step):
        first = start if Y is None else 0
        part = kernels.to_device(left[start : start + step])
        out[start : start + step, first:] = kernels.compared(part, on_device[first:], bounds)
    if Y is None:
        out = np.triu(out, 1)
        out += out.T
    return out


class GpuRows:
    """``rows`` ``(count, length)``, float32 or float64, on the device for many queries.

    The rows are sent once for each type that distances are asked for in, and once more, in float32, for ``nearest``.
    They are copied here too, since the float64 distances that decide are computed here.

    Raises ``InvalidSeries`` with the index of a bad row, ``InvalidArgument`` when there is no device.
    """

    def __init__(self, rows: ArrayLike) -> None:
        self._kernels = _kernels()
        self._rows = checked_array(rows, 2).copy()
        self.count, self.length = self._rows.shape
        # Times a power of two, which changes no digit: squares neither overflow nor vanish in float32.
        exponent = math.frexp(float(np.abs(self._rows).max()))[1]
        self._unit = 2.0 ** -max(exponent, -1000)
        self._on_device: dict[str, Any] = {}

    def distances(self, query: ArrayLike, window: int | None = None, cutoff: float = math.inf) -> NDArray[Any]:
        """As ``one_to_many`` from ``query`` ``(n,)``: float32 when it and the rows are, float64 otherwise."""
        cutoff, pattern = checked_cutoff(cutoff), checked_array(query, 1)
        dtype = np.result_type(pattern, self._rows)
        bounds = band_bounds(pattern.shape[0], self.length, window)
        if dtype.name not in self._on_device:
            self._on_device[dtype.name] = self._kernels.to_device(self._rows.astype(dtype))
        return _cut(self._compared(pattern.astype(dtype), dtype.name, bounds), cutoff)

    def nearest(self, query: ArrayLike, k: int, window: int | None = None, cutoff: float = math.inf) -> Neighbours:
        """The k rows nearest to ``query`` ``(n,)``: ``starts`` are their indices, a tie goes to the smaller one.

        Rows farther than ``cutoff`` never appear. The device compares all of them in float32; those that can be among
        the nearest are compared anew in float64. Raises ``InvalidSeries``, ``InvalidArgument``.
        """
        k, cutoff, exact = checked_k(k), checked_cutoff(cutoff), checked_array(query, 1, np.float64)
        bounds = band_bounds(exact.shape[0], self.length, window)
        proposed = self._proposed(exact, min(k, self.count), cutoff, bounds)
        distances = np.empty(proposed.shape[0])
        reference.distance_pairs(exact, self._rows[proposed].astype(np.float64), *bounds, distances)
        order = np.lexsort((proposed, distances))[:k]
        order = order[distances[order] <= cutoff]
        pruning = Pruning(self.count, self.count, self.count, self.count, proposed.shape[0])
        return Neighbours(proposed[order], distances[order], pruning)

    def _proposed(self, exact: NDArray[np.float64], k: int, cutoff: float, bounds: Bounds) -> NDArray[np.int64]:
        """Indices of all rows that can be among the k nearest, ascending; of all rows when float32 cannot tell."""
        if float(np.abs(exact).max()) * self._unit > QUERY_MAX:
            return np.arange(self.count, dtype=np.int64)
        scaled = exact * self._unit
        norm = max(self._largest_norm, float(np.linalg.norm(scaled)))
        slack = Slack.of(max(exact.shape[0], self.length), bounds, np.float32, norm)
        computed = self._compared(scaled.astype(np.float32), "scaled", bounds)
        last = float(np.partition(computed, k - 1)[k - 1])
        ceiling = slack.ceiling(min(cutoff * self._unit * self._unit, last))
        return np.flatnonzero(computed <= rounded_up(ceiling, np.float32)).astype(np.int64, copy=False)

    def _compared(self, pattern: NDArray[Any], rows: str, bounds: Bounds) -> NDArray[Any]:
        query = self._kernels.to_device(pattern[None])
        found: NDArray[Any] = self._kernels.compared(query, self._on_device[rows], bounds)[0]
        return found

    @cached_property
    def _largest_norm(self) -> float:
        """Of the scaled rows, which it sends to the device."""
        scaled = self._rows.astype(np.float64) * self._unit
        self._on_device["scaled"] = self._kernels.to_device(scaled.astype(np.float32))
        return float(np.sqrt(np.einsum("ij,ij->i", scaled, scaled).max()))


def _kernels() -> ModuleType:
    if (reason := why_not()) is not None:
        raise InvalidArgument(reason)
    from dtw import gpu_kernels

    return gpu_kernels


def _of_one_dtype(first: NDArray[Any], second: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    dtype: np.dtype[Any] = np.result_type(first, second)
    return checked_array(first, first.ndim, dtype), checked_array(second, second.ndim, dtype)


def _cut(distances: NDArray[Any], cutoff: float) -> NDArray[Any]:
    """Distances that belong to the caller, with those above the cutoff made infinite."""
    distances[distances > cutoff] = np.inf
    return distances
