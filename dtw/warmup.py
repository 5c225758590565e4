"""Compiling, or loading from numba's disk cache, every kernel signature in use, before an agent joins the swarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtw import (
    api,
    cascade,
    columns,
    crossover,
    kernels,
    moving,
    multivariate,
    once,
    path,
    reference,
    stream,
    wavefront,
)
from dtw.bands import band_bounds
from dtw.library import WindowLibrary
from dtw.query import checked_dtype

Progress = Callable[[int, int, str], None]
"""Called with (kernels ready, kernels in total, name of the one just made ready)."""

Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class WarmupReport:
    """``seconds`` in total; ``kernels`` by name and dtype; ``compiled`` of them were not in the disk cache."""

    seconds: float
    kernels: tuple[str, ...]
    compiled: int


ENTRIES = (
    reference.distance_pair,
    reference.distance_pairs,
    reference.normalize_windows,
    reference.choose_nearest,
    kernels.distance_rows,
    moving.moving_extremes,
    moving.fill_moments,
    moving.fill_samples,
    moving.fill_segments,
    moving.summarise_rows,
    moving.summarise_envelopes,
    cascade.window_bounds,
    cascade.edge_bounds,
    cascade.row_bounds,
    cascade.nearest_windows,
    columns.search_columns,
    once.search_once,
    wavefront.distance_wavefront,
    multivariate.distance_channels,
    multivariate.distances_channels,
    path.fill_predecessors,
    path.walk_back,
    path.last_row,
    stream.compare_newest,
)
"""All that Python calls of compiled code."""


def warmup(
    progress: Progress | None = None, dtypes: Sequence[Any] = (np.float32, np.float64), everything: bool = False
) -> WarmupReport:
    """Make the kernels of window search ready, in ``dtypes``, or those of all public functions with ``everything``.

    Releases the GIL only while kernels run, not while they compile. With everything, the crossovers of this machine are
    measured as well. Raises ``InvalidArgument`` for a dtype other than float32 and float64.
    """
    began = time.perf_counter()
    misses_before = _cache_misses()
    tasks = _tasks([checked_dtype(dtype) for dtype in dtypes], everything)
    for ready, (name, call) in enumerate(tasks.items(), start=1):
        call()
        if progress is not None:
            progress(ready, len(tasks), name)
    seconds = time.perf_counter() - began
    return WarmupReport(seconds, tuple(tasks), _cache_misses() - misses_before)


def _cache_misses() -> int:
    return sum(sum(entry.stats.cache_misses.values()) for entry in ENTRIES)


def _tasks(dtypes: Sequence[np.dtype[Any]], everything: bool) -> Calls:
    """One tiny call per signature; float64 ones that exact distances need come first and always."""
    exact = np.dtype(np.float64)
    tasks: Calls = {}
    for dtype in dict.fromkeys([exact, *dtypes]):
        tasks |= {f"{name}[{dtype}]": call for name, call in _shared_calls(dtype).items()}
    for dtype in dict.fromkeys(dtypes):
        tasks |= {f"{name}[{dtype}]": call for name, call in _search_calls(dtype).items()}
        if everything:
            tasks[f"row search[{dtype}]"] = _row_search(dtype)
    tasks[f"distance_pair[{exact}]"] = lambda: reference.distance_pair(
        np.zeros(2), np.zeros(2), *band_bounds(2, 2, None)
    )
    if everything:
        tasks |= _other_calls()
        tasks["crossovers"] = crossover.measure
    return tasks


def _shared_calls(dtype: np.dtype[Any]) -> Calls:
    rows = np.zeros((1, 2), dtype)
    bounds = band_bounds(2, 2, None)
    return {
        "normalize_windows": lambda: reference.normalize_windows(np.zeros(2), np.zeros(1, np.int64), rows),
        "distance_pairs": lambda: reference.distance_pairs(rows[0].copy(), rows, *bounds, np.zeros(1, dtype)),
        "distance_rows": lambda: kernels.distance_rows(
            rows[0].copy(), rows, *bounds, dtype.type(np.inf), np.zeros(1, dtype)
        ),
    }


def _search_calls(dtype: np.dtype[Any]) -> Calls:
    """The first call compiles several kernels, so it is split for the sake of the progress."""
    series, query = np.arange(16.0), np.arange(8.0) ** 2
    library = WindowLibrary(series, 8, dtype)
    return {
        "window preparation": lambda: library.prepare(2),
        "window search": lambda: library.nearest(query, 1, 2, 8),
    }


def _row_search(dtype: np.dtype[Any]) -> Callable[[], object]:
    rows = np.zeros((1, 8), dtype)
    return lambda: api.nearest(rows[0], rows, 1, 2)


def _other_calls() -> Calls:
    short, channels = np.zeros(2), np.zeros((2, 2))
    long = np.zeros(256)
    return {
        "wavefront": lambda: wavefront.distance_wavefront(short, short.copy(), *band_bounds(2, 2, None)),
        "channels": lambda: api.distance(channels, channels),
        "channels, many": lambda: api.one_to_many(channels, channels[None]),
        "plain search": lambda: WindowLibrary(long[:16], 8).nearest(long[:8], 1, 2, 8, method="scalar"),
        "search of a series": lambda: api.search(long[:8], long[:16], 2),
        "lower bounds": lambda: api.lower_bounds(short, short[None]),
        "path": lambda: api.path(short, short),
        "path of a long pair": lambda: path.alignment_path(long, long, cells_max=64),
        "stream": lambda: stream.StreamSearch(np.arange(2.0)).extend(np.arange(3.0)),
    }
