"""Subsequence search by the Python peers: the k z-normalised windows nearest to a z-normalised query.

Same frame as ``libraries.py``. The answer is ``(2, k)``: starts and squared distances, chosen greedily, nearest first,
none nearer than ``exclusion`` samples to a chosen one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from profiling.bench.peers.libraries import CORES, Array, Task, Way, dtaidistance_batch, squared_values, squares

Best = Callable[[Array], tuple[float, int]]


def wildboar_search(query: Array, series: Array, k: int, band: float, exclusion: int) -> Task:
    """The only peer with the UCR suite's cascade (LB_Kim, LB_Keogh both ways, the cumulative bound).

    With ``scale=True`` it z-normalises windows, by running sums, so that it is exact but for their rounding. It prunes
    for the nearest window only (``subsequence_match`` without a threshold compares all of them), so the next match
    comes from a search of what lies left and right of the last. Another way has no bounds and abandons early, but finds
    any number of matches in one pass.
    """
    from wildboar.distance import pairwise_subsequence_distance

    length = query.shape[0]
    call = partial(
        pairwise_subsequence_distance, [query], metric="dtw", metric_params={"r": band}, scale=True, return_index=True
    )

    def whole(part: Array) -> tuple[float, int]:
        distance, start = call(part)
        return float(distance), int(start)

    def shared(part: Array) -> tuple[float, int]:
        pieces, offsets = overlapping(part, length)
        distances, starts = call(pieces, n_jobs=CORES)
        piece = int(np.argmin(distances))
        return float(distances[piece]), int(starts[piece] + offsets[piece])

    ways: dict[str, Way] = {
        "cascade": partial(greedy, whole, series, length, k, exclusion),
        "early abandoning": partial(_abandoning, query, series, k, band, exclusion),
    }
    if CORES > 1:
        ways["cascade on all cores"] = partial(greedy, shared, series, length, k, exclusion)
    return Task(ways, squared_values)


def _abandoning(query: Array, series: Array, k: int, band: float, exclusion: int) -> Array:
    """A match rules out itself and ``2 * exclusion - 2`` others, so this many nearest windows hold all k."""
    from wildboar.distance import argmin_subsequence_distance

    length = query.shape[0]
    enough = min((k - 1) * (2 * max(1, exclusion) - 1) + 1, series.shape[0] - length + 1)
    # Its metric for whole series counts the band one sample wider, see dtw/conventions.py.
    parameters = {"r": min(1.0, band + 1.0 / length)}
    starts, distances = argmin_subsequence_distance(
        query[None], series[None], k=enough, metric="dtw", metric_params=parameters, scale=True, return_distance=True
    )
    return chosen(starts[0], distances[0], k, exclusion)


def chosen(starts: Array, distances: Array, k: int, exclusion: int) -> Array:
    """Greedily the k nearest that lie apart, ``(2, k)``; a tie goes to the smaller start."""
    found: list[int] = []
    for index in np.lexsort((starts, distances)):
        if all(abs(starts[index] - starts[other]) >= exclusion for other in found):
            found.append(index)
            if len(found) == k:
                break
    return np.stack([starts[found].astype(np.float64), distances[found]])


def overlapping(series: Array, length: int) -> tuple[Array, list[int]]:
    """Equally long pieces, one per core, that hold every window between them; and where they start."""
    windows = series.shape[0] - length + 1
    size = -(-windows // CORES) + length - 1
    offsets = [min(index * (size - length + 1), series.shape[0] - size) for index in range(CORES)]
    return np.stack([series[offset : offset + size] for offset in offsets]), offsets


def greedy(best: Best, series: Array, length: int, k: int, exclusion: int) -> Array:
    """The k nearest windows by a function that knows only the nearest: after each, search to its left and right."""
    apart = max(1, exclusion)
    found: list[tuple[int, float]] = []
    parts: list[tuple[float, int, int, int]] = []

    def search(low: int, high: int) -> None:
        if high - low >= length:
            distance, start = best(series[low:high])
            heapq.heappush(parts, (distance, start + low, low, high))

    search(0, series.shape[0])
    while parts and len(found) < k:
        distance, start, low, high = heapq.heappop(parts)
        found.append((start, distance))
        if len(found) < k:
            search(low, start - apart + length)
            search(start + apart, high)
    return np.array(found, np.float64).T


def dtaidistance_search(query: Array, series: Array, k: int, band: int | None, exclusion: int) -> Task:
    """Its search takes the windows as they are, so they are z-normalised before the clock starts.

    The search with LB_Keogh knows no exclusion: it is a way where none is asked for, or one match. Else all distances.
    """
    from dtaidistance.subsequence.dtw import subsequence_search

    pattern = _normalized(query[None])[0]
    windows = _normalized(np.lib.stride_tricks.sliding_window_view(series, query.shape[0]))

    def bounded() -> Array:
        search = subsequence_search(pattern, windows, dists_options={"window": band, "use_c": True})
        return np.array([(match.idx, match.distance) for match in search.kbest_matches_fast(k=k)]).T

    batch = dtaidistance_batch(pattern, windows, band)
    starts = np.arange(windows.shape[0])
    ways: dict[str, Way] = {
        name: partial(lambda way: chosen(starts, np.asarray(way()), k, exclusion), way)
        for name, way in batch.ways.items()
    }
    if k == 1 or exclusion <= 1:
        ways["LB_Keogh"] = bounded
    return Task(ways, squared_values)


def _normalized(windows: Array) -> Array:
    deviations = windows.std(axis=1, keepdims=True)
    return np.asarray((windows - windows.mean(axis=1, keepdims=True)) / np.where(deviations == 0, 1.0, deviations))


def stumpy_mass(query: Array, series: Array) -> Task:
    """Squared z-normalised Euclidean distances of all windows: no DTW, a filter that others put before it."""
    import stumpy

    query, series = query.astype(np.float64), series.astype(np.float64)
    return Task({"mass": lambda: stumpy.mass(query, series)}, _squares_of_any)


def _squares_of_any(found: Any) -> Array:
    """stumpy gives objects when a window is constant."""
    return squares(np.asarray(found, np.float64))
