"""The study's ladder, one rung at a time: from a plain Python loop to lanes, threads and pruning, all on the same rows.

Every rung but the last computes the same distances; they are compared with each other before anything is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw import api, reference
from dtw.bands import band_bounds
from profiling.bench.kernels.cases import walks
from profiling.bench.result import Result, paired_ratio
from protocol.errors import RunFailure

LENGTH: Final = 128
ROWS: Final = 8_192
RUNG_S: Final = 0.15
"""About how long a rung is timed in a block."""

_entry = njit(nogil=True, cache=True, error_model="numpy")

Array = NDArray[Any]
Distances = Callable[[Array, Array], Array]


class Rung(NamedTuple):
    """``rows``: how many of the rows it is given, for what is slow."""

    name: str
    rows: int
    distances: Distances


def plain_python(query: Array, rows: Array) -> Array:
    """Lists, one pair after the other, the whole matrix."""
    pattern = query.tolist()
    return np.array([_python_pair(pattern, row) for row in rows.tolist()])


def _python_pair(a: list[float], b: list[float]) -> float:
    infinity = float("inf")
    costs = [[infinity] * (len(b) + 1) for _ in range(len(a) + 1)]
    costs[0][0] = 0.0
    for i, x in enumerate(a, start=1):
        for j, y in enumerate(b, start=1):
            nearest = min(costs[i - 1][j - 1], costs[i - 1][j], costs[i][j - 1])
            costs[i][j] = (x - y) * (x - y) + nearest
    return costs[-1][-1]


def plain_numpy(query: Array, rows: Array) -> Array:
    """One pair after the other, an anti-diagonal at a time, which is as far as numpy alone goes."""
    return np.array([_numpy_pair(query, row) for row in rows])


def _numpy_pair(a: Array, b: Array) -> float:
    n, m = len(a), len(b)
    backwards = b[::-1]
    before_last, last = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    before_last[0] = 0.0
    for s in range(n + m - 1):
        first, end = max(0, s - m + 1), min(n, s + 1)
        difference = a[first:end] - backwards[m - 1 - s + first : m - 1 - s + end]
        current = np.full(n + 1, np.inf)
        nearest = np.minimum(np.minimum(before_last[first:end], last[first:end]), last[first + 1 : end + 1])
        current[first + 1 : end + 1] = nearest + difference * difference
        before_last, last = last, current
    return float(last[n])


@_entry
def _matrix_pairs(query: Array, rows: Array, out: Array) -> None:
    """The plain Python loop, compiled: a matrix of its own for every pair."""
    n, m = query.shape[0], rows.shape[1]
    for index in range(rows.shape[0]):
        costs = np.full((n + 1, m + 1), np.inf)
        costs[0, 0] = 0.0
        for i in range(n):
            for j in range(m):
                difference = query[i] - rows[index, j]
                nearest = min(min(costs[i, j], costs[i, j + 1]), costs[i + 1, j])
                costs[i + 1, j + 1] = nearest + difference * difference
        out[index] = costs[n, m]


def compiled_matrix(query: Array, rows: Array) -> Array:
    """See ``_matrix_pairs``."""
    out = np.empty(len(rows))
    _matrix_pairs(query, rows, out)
    return out


def flat(query: Array, rows: Array) -> Array:
    """Two rows of the matrix instead of all: what is read was written a moment ago."""
    out = np.empty(len(rows))
    reference.distance_pairs(query, rows, *band_bounds(LENGTH, LENGTH, None), out)
    return out


def measure(result: Result, blocks: int, threads: int, progress: Callable[[str], None]) -> None:
    """Each rung against the one below it, then the top against the bottom."""
    rows, query = walks(10, ROWS, LENGTH), walks(11, LENGTH)
    single, pattern = rows.astype(np.float32), query.astype(np.float32)
    library = api.RowLibrary(single)
    rungs = [
        Rung("plain Python loop", 2, plain_python),
        Rung("numpy, by anti-diagonals", 32, plain_numpy),
        Rung("numba, a matrix per pair", 512, compiled_matrix),
        Rung("flat layout: two rows", 512, flat),
        Rung("lanes: 64 pairs at once", ROWS, lambda q, r: api.one_to_many(q, r)),
        Rung("float32", ROWS, lambda q, r: api.one_to_many(pattern, single)),
        Rung(f"threads: {threads}", ROWS, lambda q, r: api.one_to_many(pattern, single, threads=threads)),
        Rung("pruning: the 8 nearest only", ROWS, lambda q, r: library.nearest(pattern, 8, threads=threads).distances),
    ]
    _compare(rungs[:-1], query, rows)
    seconds: dict[str, list[float]] = {rung.name: [] for rung in rungs}
    for block in range(blocks):
        progress(f"ladder {block + 1}/{blocks}")
        for rung in rungs:
            seconds[rung.name].append(_seconds_per_pair(rung, query, rows))
    for lower, rung in pairwise(rungs):
        _row(result, f"ladder: {rung.name}", rung, lower, seconds)
    _row(result, "ladder: all of it", rungs[-1], rungs[0], seconds)


def _row(result: Result, case: str, upper: Rung, lower: Rung, seconds: dict[str, list[float]]) -> None:
    ours, theirs = seconds[upper.name], seconds[lower.name]
    ratio = paired_ratio(theirs, ours)
    result.row(case, float(np.mean(ours)) * 1e6, "us per pair", lower.name, float(np.mean(theirs)) * 1e6, ratio)


def _compare(rungs: list[Rung], query: Array, rows: Array) -> None:
    expected = flat(query, rows[:512])
    for rung in rungs:
        found = rung.distances(query, rows[: rung.rows])[:512]
        if not np.allclose(found, expected[: len(found)], rtol=1e-4):
            raise RunFailure(f"ladder: {rung.name} gives other distances than the loop below it")


def _seconds_per_pair(rung: Rung, query: Array, rows: Array) -> float:
    part = rows[: rung.rows]
    best, began = float("inf"), time.perf_counter()
    while True:
        start = time.perf_counter()
        rung.distances(query, part)
        end = time.perf_counter()
        best = min(best, (end - start) / rung.rows)
        if end - began > RUNG_S:
            return best
