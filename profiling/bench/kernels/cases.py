"""The cases of ``swarm bench dtw``: what is compared, on which data, with whom."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtw import api
from dtw.normalize import normalized, normalized_windows
from dtw.stream import StreamSearch
from profiling.bench.kernels.case import Against, Case
from profiling.bench.peers.client import Peers

LIBRARIES: Final = ("aeon", "dtaidistance", "tslearn", "wildboar")
BATCH_ROWS: Final = {64: 32_768, 128: 16_384, 256: 8_192, 1024: 256}
FEW_CELLS: Final = 4_000_000
"""What the slow peers are given of a batch: all figures are per pair."""
SLOW: Final = ("tslearn", "javascript")
BATCH_CLAIMS: Final = {
    np.float32: {
        "fastest": ("dtw.batch_f32_vs_fastest_peer", 40.0),
        "javascript": ("dtw.batch_f32_vs_javascript", 100.0),
    },
    np.float64: {"fastest": ("dtw.batch_f64_vs_fastest_peer", 20.0)},
}
TOLERANCE: Final = {np.float32: 1e-3, np.float64: 1e-9}

Array = NDArray[Any]


def walks(seed: int, *shape: int) -> Array:
    """Random walks along the last axis, float64."""
    return np.cumsum(np.random.default_rng(seed).standard_normal(shape), axis=-1)


def claimed(peers: Peers, threads: int, shrink: int) -> Iterator[Case]:
    """The cases that goals were set for, batches of ``shrink`` times fewer rows."""
    yield batch(peers, 128, None, np.float32, threads, shrink)
    yield batch(peers, 128, None, np.float64, threads, shrink)
    yield pair(peers, 1_024)
    yield nearest(peers, threads)
    yield search(peers, threads)


def others(peers: Peers, threads: int) -> Iterator[Case]:
    """All the rest."""
    for length in BATCH_ROWS:
        for band in (None, length // 10):
            for dtype in (np.float32, np.float64):
                if (length, band) != (128, None):
                    yield batch(peers, length, band, dtype, threads)
    yield batch(peers, 128, None, np.float32, 1)
    yield pair(peers, 16_384)
    yield pairwise(peers, threads)
    yield nearest_unprepared(peers, threads)
    yield search_several(peers, threads)
    yield prefilter(peers, threads)
    yield stream(peers)
    yield path(peers)


def remembered(peers: Peers, threads: int) -> Iterator[Case]:
    """Those whose memory is compared."""
    yield batch(peers, 128, None, np.float64, threads)
    yield pair(peers, 16_384)
    yield pairwise(peers, threads)
    yield nearest(peers, threads)
    yield nearest_unprepared(peers, threads)
    yield search(peers, threads)


def batch(peers: Peers, length: int, band: int | None, dtype: type[Any], threads: int, shrink: int = 1) -> Case:
    """One query against many rows, per pair."""
    rows = walks(length, BATCH_ROWS[length] // shrink, length).astype(dtype)
    query = walks(1, length).astype(dtype)
    expected = api.one_to_many(query, rows, band, threads=threads).astype(np.float64)
    few = max(8, FEW_CELLS // length**2)
    query_name, rows_name, few_name = (f"{part}-{length}-{dtype.__name__}" for part in ("query", "rows", "few"))
    for name, array in ((query_name, query), (rows_name, rows), (few_name, rows[:few])):
        peers.put(name, array)
    against = tuple(
        Against(
            peer,
            "batch",
            {"query": query_name, "rows": few_name if peer in SLOW else rows_name, "band": band},
            few if peer in SLOW else len(rows),
            expected[:few] if peer in SLOW else expected,
        )
        for peer in (*LIBRARIES, "javascript")
    )
    return Case(
        f"1 x N, length {length}, {_banded(band)}, {dtype.__name__}, {_threads(threads)}",
        "us per pair",
        1e6,
        len(rows),
        lambda: api.one_to_many(query, rows, band, threads=threads),
        against,
        TOLERANCE[dtype],
        api.cells(length, length, band) * len(rows),
        dtype,
        threads,
        BATCH_CLAIMS[dtype] if (length, band) == (128, None) and threads > 1 else {},
    )


def pair(peers: Peers, length: int) -> Case:
    """One pair. Whole matrices of 16,384 by 16,384 do not fit where the other peers want them."""
    a, b = walks(2, 2, length)
    peers.put(f"a-{length}", a)
    peers.put(f"b-{length}", b)
    expected = np.array([api.distance(a, b)])
    known = (*LIBRARIES, "javascript") if length <= 1_024 else ("aeon", "dtaidistance", "wildboar")
    parameters = {"a": f"a-{length}", "b": f"b-{length}", "band": None}
    return Case(
        f"one pair, length {length:,}, no band, float64",
        "ms",
        1e3,
        1,
        lambda: api.distance(a, b),
        tuple(Against(peer, "pair", parameters, 1, expected) for peer in known),
        cells=length * length,
        claims={"fastest": ("dtw.pair_1024_vs_fastest_peer", 10.0)} if length == 1_024 else {},
    )


def pairwise(peers: Peers, threads: int) -> Case:
    """The matrix of 200 rows with themselves."""
    rows = walks(3, 200, 128)
    peers.put("rows-pairwise", rows)
    expected = api.pairwise(rows, window=12, threads=threads)
    return Case(
        f"200 x 200, length 128, band 12, float64, {_threads(threads)}",
        "ms",
        1e3,
        1,
        lambda: api.pairwise(rows, window=12, threads=threads),
        tuple(Against(p, "pairwise", {"rows": "rows-pairwise", "band": 12}, 1, expected) for p in LIBRARIES),
        cells=api.cells(128, 128, 12) * 199 * 100,
        threads=threads,
    )


def _library(peers: Peers) -> tuple[Array, Array, tuple[Against, ...]]:
    """50,000 z-normalised windows of a random walk, and one more as the query."""
    windows = normalized_windows(walks(4, 50_127), 128)
    query = normalized(walks(5, 128))
    peers.put("windows", windows)
    peers.put("query-windows", query)
    found = api.nearest(query, windows, 8, 12)
    expected = np.stack([found.starts.astype(np.float64), found.distances])
    parameters = {"query": "query-windows", "rows": "windows", "k": 8, "band": 12}
    against = tuple(
        Against(peer, "knn", parameters, 1, expected, behind=peer in ("aeon", "tslearn")) for peer in LIBRARIES
    )
    return query, windows, against


def nearest(peers: Peers, threads: int) -> Case:
    """k nearest of a library that is prepared once, as libraries are."""
    query, windows, against = _library(peers)
    library = api.RowLibrary(windows)
    return Case(
        f"8 nearest of 50,000 windows, length 128, band 12, {_threads(threads)}",
        "ms",
        1e3,
        1,
        lambda: library.nearest(query, 8, 12, threads=threads),
        against,
        claims={"fastest": ("dtw.knn_vs_fastest_exact_peer", 10.0)},
    )


def nearest_unprepared(peers: Peers, threads: int) -> Case:
    """The same for one query only: the preparing counts."""
    query, windows, against = _library(peers)
    return Case(
        f"8 nearest of 50,000 windows, preparing them first, {_threads(threads)}",
        "ms",
        1e3,
        1,
        lambda: api.nearest(query, windows, 8, 12, threads=threads),
        against,
    )


def _series(peers: Peers, exclusion: int, k: int) -> tuple[Array, Array, tuple[Against, ...]]:
    """A random walk of 1,000,000 points, and a noisy copy of a part of it as the query.

    dtaidistance has all windows side by side, so it is given 50,000 points; figures are per window.
    """
    series = walks(6, 1_000_000)
    query = series[300_000:300_128] + 0.3 * np.random.default_rng(7).standard_normal(128)
    peers.put("query-series", query)
    against = []
    for peer, known in (("wildboar", series), ("dtaidistance", series[280_000:330_000])):
        peers.put(f"series-{peer}", known)
        found = api.search(query, known, k, 12, exclusion)
        parameters = {"query": "query-series", "series": f"series-{peer}", "k": k, "band": 12, "exclusion": exclusion}
        expected = np.stack([found.starts.astype(np.float64), found.distances])
        behind = peer == "dtaidistance"
        against.append(Against(peer, "search", parameters, len(known) - 127, expected, behind=behind))
    return query, series, tuple(against)


def search(peers: Peers, threads: int) -> Case:
    """The nearest subsequence; the whole call, preparing the series too."""
    query, series, against = _series(peers, 64, 1)
    return Case(
        f"nearest subsequence in 1,000,000 points, length 128, band 12, {_threads(threads)}",
        "ns per window",
        1e9,
        len(series) - 127,
        lambda: api.search(query, series, 1, 12, 64, threads=threads),
        against,
        1e-6,  # wildboar normalises windows by running sums
        claims={"fastest": ("dtw.search_vs_fastest_exact_peer", 10.0)},
    )


def search_several(peers: Peers, threads: int) -> Case:
    """The 8 nearest that lie 64 apart, in a series that is prepared."""
    query, series, against = _series(peers, 64, 8)
    library = api.WindowLibrary(series, 128, threads=threads)
    return Case(
        f"8 nearest subsequences 64 apart, prepared series, {_threads(threads)}",
        "ns per window",
        1e9,
        len(series) - 127,
        lambda: api.search(query, library, 8, 12, 64, threads=threads),
        against,
        1e-6,
    )


def prefilter(peers: Peers, threads: int) -> Case:
    """What others put before DTW: all z-normalised Euclidean distances of the same series."""
    query, series, _ = _series(peers, 64, 1)
    peers.put("series-mass", series)
    parameters = {"query": "query-series", "series": "series-mass"}
    return Case(
        f"nearest subsequence by DTW against all distances without warping, {_threads(threads)}",
        "ns per window",
        1e9,
        len(series) - 127,
        lambda: api.search(query, series, 1, 12, 64, threads=threads),
        (Against("stumpy", "mass", parameters, len(series) - 127, None, "Euclidean"),),
    )


def stream(peers: Peers) -> Case:
    """A new sample of a stream. No peer has one, so they compare the window that it completes."""
    series = walks(8, 20_000)
    query = series[9_000:9_128] + 0.3 * np.random.default_rng(9).standard_normal(128)
    peers.put("a-stream", normalized(query))
    peers.put("b-stream", normalized(series[:128]))
    parameters = {"a": "a-stream", "b": "b-stream", "band": 12}
    expected = np.array([api.distance(normalized(query), normalized(series[:128]), 12)])

    def follow() -> None:
        StreamSearch(query, 1, 12).extend(series)

    return Case(
        "a new sample of a stream, length 128, band 12",
        "us per sample",
        1e6,
        len(series),
        follow,
        tuple(Against(peer, "pair", parameters, 1, expected, "one comparison") for peer in LIBRARIES),
    )


def path(peers: Peers) -> Case:
    """Distance and path of one pair."""
    a, b = walks(2, 2, 1_024)
    peers.put("a-1024", a)
    peers.put("b-1024", b)
    parameters = {"a": "a-1024", "b": "b-1024", "band": None}
    expected = api.path(a, b).pairs.astype(np.float64)
    return Case(
        "path of one pair, length 1,024, no band",
        "ms",
        1e3,
        1,
        partial(api.path, a, b),
        tuple(Against(peer, "path", parameters, 1, expected) for peer in ("aeon", "dtaidistance")),
    )


def _banded(band: int | None) -> str:
    return "no band" if band is None else f"band {band}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
