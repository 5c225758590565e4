"""What each Python peer is asked to do, with its own settings. Runs in the peers' environment and imports no room.

A function here makes a ``Task``: everything that is not the peer's own work, such as stacking arrays, happens while the
task is made; the calls in ``ways`` are what is timed; ``finish`` turns their answer into our convention (squared, no
root), untimed. Where a library has several settings that give the same answer (jobs, pruning) all of them are ways, and
the host keeps the fastest on this machine: nobody has to guess in a peer's favour.

``band`` comes in the peer's own terms, see ``dtw/conventions.py``. Only aeon computes in float32; the others need
float64, and what they would convert is converted before the clock starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Way = Callable[[], Any]

CORES: Final = len(os.sched_getaffinity(0))
JOBS: Final = sorted({1, CORES})


class Task(NamedTuple):
    """``ways``: calls that give the same answer, by their setting. ``finish``: that answer as ours, squared."""

    ways: dict[str, Way]
    finish: Callable[[Any], Array]


def squares(rooted: Any) -> Array:
    """Distances with a root as squared ones, flat when there is but one query."""
    return np.square(np.asarray(rooted, np.float64))


def in_parts(call: Callable[[Array], Any], rows: Array) -> list[Any]:
    """``call`` on as many parts of ``rows`` as there are cores, in threads: for calls that release the GIL."""
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(call, np.array_split(rows, CORES)))


def by_jobs(call: Callable[..., Any]) -> dict[str, Way]:
    """A way for one job and one for all cores."""
    return {f"n_jobs={jobs}": partial(call, n_jobs=jobs) for jobs in JOBS}


def lowest(distances: Array, k: int) -> Array:
    """The k lowest, ``(2, k)``: indices and values, a tie to the smaller index."""
    k = min(k, distances.shape[0])
    near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    near = near[np.argsort(distances[near], kind="stable")][:k]
    return np.stack([near.astype(np.float64), distances[near].astype(np.float64)])


def squared_values(found: Array) -> Array:
    """``(2, k)`` indices and rooted values with the values squared."""
    return np.stack([found[0], np.square(found[1])])


def split(values: Array, lengths: Array) -> list[Array]:
    """Many series that were sent one after the other."""
    return [np.ascontiguousarray(part) for part in np.split(values, np.cumsum(lengths)[:-1])]


def each_case(call: Callable[[Array, Array, Any], float], a: list[Array], b: list[Array], bands: Sequence[Any]) -> Way:
    """One way: the pairs one after the other."""
    return lambda: np.array([call(x, y, band) for x, y, band in zip(a, b, bands, strict=True)])


def optional(bands: Array, kind: type) -> list[Any]:
    """The bands of many cases; NaN is none."""
    return [None if np.isnan(band) else kind(band) for band in bands]


def aeon_batch(query: Array, rows: Array, band: float | None) -> Task:
    """The rows come first: aeon shares its first collection among the threads."""
    from aeon.distances import dtw_pairwise_distance

    many, one = rows[:, None, :], query[None, None, :]
    return Task(by_jobs(partial(dtw_pairwise_distance, many, one, window=band)), lambda found: found[:, 0])


def aeon_pair(a: Array, b: Array, band: float | None) -> Task:
    """The compiled function itself: no collection to convert, so it starts at once."""
    from aeon.distances import dtw_distance

    return Task({"dtw_distance": lambda: dtw_distance(a, b, window=band)}, lambda found: np.array([found]))


def aeon_pairwise(rows: Array, band: float | None) -> Task:
    """Half of the matrix is computed, the other mirrored."""
    from aeon.distances import dtw_pairwise_distance

    many = rows[:, None, :]
    return Task(by_jobs(partial(dtw_pairwise_distance, many, window=band)), np.asarray)


def aeon_knn(query: Array, rows: Array, k: int, band: float | None) -> Task:
    """aeon has no bound for rows: all distances, then the lowest."""
    batch = aeon_batch(query, rows, band)
    return Task(_lowest_of(batch.ways, k), np.asarray)


def _lowest_of(ways: dict[str, Way], k: int) -> dict[str, Way]:
    """Ways to all distances as ways to the k lowest of them."""
    return {name: partial(lambda way: lowest(np.asarray(way()).reshape(-1), k), way) for name, way in ways.items()}


def aeon_cases(a: Array, a_lengths: Array, b: Array, b_lengths: Array, bands: Array) -> Task:
    """Values ``(samples,)`` or ``(samples, channels)``; aeon wants the channels first."""
    from aeon.distances import dtw_distance

    left, right = ([np.ascontiguousarray(x.T) for x in split(*pair)] for pair in ((a, a_lengths), (b, b_lengths)))
    way = each_case(lambda x, y, band: dtw_distance(x, y, window=band), left, right, optional(bands, float))
    return Task({"one by one": way}, np.asarray)


def aeon_path(a: Array, b: Array, band: float | None) -> Task:
    """The path's pairs ``(p, 2)``."""
    from aeon.distances import dtw_alignment_path

    return Task({"dtw_alignment_path": lambda: dtw_alignment_path(a, b, window=band)}, lambda found: np.array(found[0]))


def dtaidistance_batch(query: Array, rows: Array, band: int | None) -> Task:
    """One column of a matrix. The query comes last: OpenMP shares the rows of a block, so a block of one row would use
    one core. ``compact`` keeps it from building the whole square matrix."""
    stacked, count = np.vstack([rows, query], dtype=np.float64), rows.shape[0]
    return Task(_dtaidistance_matrix(stacked, ((0, count), (count, count + 1)), band), squares)


def _dtaidistance_matrix(stacked: Array, block: Any, band: int | None) -> dict[str, Way]:
    """In C, on one core and on all. Its pruning by the Euclidean distance is its default and stays on."""
    from dtaidistance import dtw

    call = partial(dtw.distance_matrix_fast, stacked, block=block, compact=True, window=band)
    return {"one core": partial(call, parallel=False), "OpenMP": partial(call, parallel=True)}


def dtaidistance_pair(a: Array, b: Array, band: int | None) -> Task:
    """In C. Pruning by the Euclidean distance pays for some pairs only."""
    from dtaidistance import dtw

    a, b = a.astype(np.float64), b.astype(np.float64)
    ways = {
        "pruned": lambda: dtw.distance_fast(a, b, window=band, use_pruning=True),
        "plain": lambda: dtw.distance_fast(a, b, window=band, use_pruning=False),
    }
    return Task(ways, lambda found: squares([found]))


def dtaidistance_pairwise(rows: Array, band: int | None) -> Task:
    """The upper triangle, as it stores it."""
    count, rows = rows.shape[0], rows.astype(np.float64)

    def whole(found: Any) -> Array:
        out = np.zeros((count, count))
        out[np.triu_indices(count, k=1)] = squares(found)
        return out + out.T

    return Task(_dtaidistance_matrix(rows, None, band), whole)


def dtaidistance_knn(query: Array, rows: Array, k: int, band: int | None) -> Task:
    """Its search with LB_Keogh walks the rows in Python; all distances on all cores can be faster."""
    from dtaidistance.subsequence.dtw import subsequence_search

    query, rows = query.astype(np.float64), rows.astype(np.float64)
    batch = dtaidistance_batch(query, rows, band)

    def bounded() -> Array:
        search = subsequence_search(query, rows, dists_options={"window": band, "use_c": True})
        found = [(match.idx, match.distance) for match in search.kbest_matches_fast(k=k)]
        return np.array(found).T

    return Task({**_lowest_of(batch.ways, k), "LB_Keogh": bounded}, squared_values)


def dtaidistance_cases(a: Array, a_lengths: Array, b: Array, b_lengths: Array, bands: Array) -> Task:
    """In C, without the pruning."""
    from dtaidistance import dtw

    def call(x: Array, y: Array, band: int | None) -> float:
        return float(dtw.distance_fast(x, y, window=band, use_pruning=False))

    way = each_case(call, split(a, a_lengths), split(b, b_lengths), optional(bands, int))
    return Task({"one by one": way}, squares)


def dtaidistance_path(a: Array, b: Array, band: int | None) -> Task:
    """The path's pairs ``(p, 2)``."""
    from dtaidistance import dtw

    return Task({"warping_path_fast": lambda: dtw.warping_path_fast(a, b, window=band)}, np.array)


def _tslearn_band(radius: int | None) -> dict[str, Any]:
    return {} if radius is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": radius}


def _tslearn_matrix(left: Array, right: Array | None, band: int | None) -> dict[str, Way]:
    """joblib hands out pair by pair, which costs more than a short pair does; its compiled pair releases the GIL, so
    threads with a part each are a third way."""
    from tslearn.metrics import cdist_dtw

    call = partial(cdist_dtw, **_tslearn_band(band))
    ways = by_jobs(partial(call, left, right))
    if right is not None:
        ways["threads"] = lambda: np.concatenate(in_parts(lambda part: call(part, right), left))
    return ways


def tslearn_batch(query: Array, rows: Array, band: int | None) -> Task:
    """``cdist_dtw`` of the rows and one query."""
    return Task(_tslearn_matrix(rows, query[None], band), lambda found: squares(found)[:, 0])


def tslearn_pair(a: Array, b: Array, band: int | None) -> Task:
    """``dtw`` of two series."""
    from tslearn.metrics import dtw

    return Task({"dtw": lambda: dtw(a, b, **_tslearn_band(band))}, lambda found: squares([found]))


def tslearn_pairwise(rows: Array, band: int | None) -> Task:
    """``cdist_dtw`` of the rows with themselves."""
    return Task(_tslearn_matrix(rows, None, band), squares)


def tslearn_knn(query: Array, rows: Array, k: int, band: int | None) -> Task:
    """All distances, then the lowest: what its ``KNeighborsTimeSeries`` does, without the conversion at each call."""
    ways = _tslearn_matrix(rows, query[None], band)
    return Task({name: partial(lambda way: lowest(way()[:, 0], k), way) for name, way in ways.items()}, squared_values)


def tslearn_cases(a: Array, a_lengths: Array, b: Array, b_lengths: Array, bands: Array) -> Task:
    """Values ``(samples,)`` or ``(samples, channels)``."""
    from tslearn.metrics import dtw

    def call(x: Array, y: Array, band: int | None) -> float:
        return float(dtw(x, y, **_tslearn_band(band)))

    way = each_case(call, split(a, a_lengths), split(b, b_lengths), optional(bands, int))
    return Task({"one by one": way}, squares)


def wildboar_batch(query: Array, rows: Array, band: float) -> Task:
    """The rows come first: its jobs are threads that share the first collection."""
    from wildboar.distance import pairwise_distance

    rows, query = rows.astype(np.float64), query.astype(np.float64)
    call = partial(pairwise_distance, rows, query, dim=0, metric="dtw", metric_params={"r": band})
    return Task(by_jobs(call), squares)


def wildboar_pair(a: Array, b: Array, band: float) -> Task:
    """Most of a short call is checking its arguments."""
    from wildboar.distance.dtw import dtw_distance

    return Task({"dtw_distance": lambda: dtw_distance(a, b, r=band)}, lambda found: squares([found]))


def wildboar_pairwise(rows: Array, band: float) -> Task:
    """Each pair once."""
    from wildboar.distance import pairwise_distance

    rows = rows.astype(np.float64)
    call = partial(pairwise_distance, rows, dim=0, metric="dtw", metric_params={"r": band})
    return Task(by_jobs(call), squares)


def wildboar_knn(query: Array, rows: Array, k: int, band: float) -> Task:
    """Abandons a row once it is farther than the k-th so far. Its jobs share queries, of which there is one; it
    releases the GIL, so a part of the rows per core is a second way."""
    from wildboar.distance import argmin_distance

    rows, one = rows.astype(np.float64), query.astype(np.float64)[None]
    call = partial(argmin_distance, one, k=k, metric="dtw", metric_params={"r": band}, return_distance=True)

    def merged() -> Array:
        found = in_parts(call, rows)
        offsets = np.cumsum([0, *(len(part) for part in np.array_split(rows, CORES))])
        indices = np.concatenate([part[0][0] + offset for part, offset in zip(found, offsets[:-1], strict=True)])
        distances = np.concatenate([part[1][0] for part in found])
        order = np.lexsort((indices, distances))[:k]
        return np.stack([indices[order], distances[order]])

    def single() -> Array:
        indices, distances = call(rows)
        order = np.lexsort((indices[0], distances[0]))
        return np.stack([indices[0][order], distances[0][order]])

    return Task({"one call": single, "threads": merged}, squared_values)


def wildboar_cases(a: Array, a_lengths: Array, b: Array, b_lengths: Array, bands: Array) -> Task:
    """One checked call per case."""
    from wildboar.distance.dtw import dtw_distance

    series = split(a, a_lengths), split(b, b_lengths)
    way = each_case(lambda x, y, band: dtw_distance(x, y, r=band), *series, [float(band) for band in bands])
    return Task({"one by one": way}, squares)


def fastdtw_fastdtw(a: Array, b: Array, radius: int, cost: str = "absolute") -> Task:
    """The squared cost of the path it finds. Only the absolute difference, its default, runs at its own speed: any
    other goes through Python for every cell. "squared" is for judging how near it comes."""
    import fastdtw

    dist = None if cost == "absolute" else lambda x, y: (x - y) ** 2

    def along(found: Any) -> Array:
        rows, columns = np.array(found[1]).T
        return np.array([np.square(a[rows] - b[columns]).sum()])

    setting = "compiled" if fastdtw.fastdtw.__module__.endswith("._fastdtw") else "Python"
    return Task({setting: lambda: fastdtw.fastdtw(a, b, radius, dist)}, along)
