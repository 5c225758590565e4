"""Compiling, or loading from numba's disk cache, every kernel signature in use, before an agent joins the swarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtw import cascade, kernels, moving, reference
from dtw.bands import band_bounds
from dtw.library import WindowLibrary, checked_dtype

Progress = Callable[[int, int, str], None]
"""Called with (kernels ready, kernels in total, name of the one just made ready)."""


@dataclass(frozen=True)
class WarmupReport:
    """``seconds`` in total; ``kernels`` by name and dtype; ``compiled`` of them were not in the disk cache."""

    seconds: float
    kernels: tuple[str, ...]
    compiled: int


_DISPATCHERS = (
    reference.distance_pair,
    reference.distance_pairs,
    reference.normalize_windows,
    reference.choose_nearest,
    kernels.distance_rows,
    moving.window_statistics,
    moving.moving_extremes,
    moving.moving_means,
    moving.fill_spans,
    moving.fill_scales,
    cascade.window_bounds,
    cascade.nearest_windows,
)


def warmup(progress: Progress | None = None, dtypes: Sequence[Any] = (np.float32, np.float64)) -> WarmupReport:
    """Make every kernel ready, for searches in ``dtypes``. Releases the GIL only while kernels run, not while they
    compile.

    Raises ``InvalidArgument`` for a dtype other than float32 and float64.
    """
    began = time.perf_counter()
    misses_before = _cache_misses()
    tasks = _tasks([checked_dtype(dtype) for dtype in dtypes])
    for ready, (name, call) in enumerate(tasks, start=1):
        call()
        if progress is not None:
            progress(ready, len(tasks), name)
    seconds = time.perf_counter() - began
    return WarmupReport(seconds, tuple(name for name, _ in tasks), _cache_misses() - misses_before)


def _cache_misses() -> int:
    return sum(sum(dispatcher.stats.cache_misses.values()) for dispatcher in _DISPATCHERS)


def _tasks(dtypes: Sequence[np.dtype[Any]]) -> list[tuple[str, Callable[[], object]]]:
    """One tiny call per signature; float64 ones that exact distances need come first and always."""
    exact = np.dtype(np.float64)
    tasks: dict[str, Callable[[], object]] = {}
    for dtype in dict.fromkeys([exact, *dtypes]):
        for name, call in _shared_calls(dtype).items():
            tasks[f"{name}[{dtype}]"] = call
    for dtype in dict.fromkeys(dtypes):
        for name, call in _search_calls(dtype).items():
            tasks[f"{name}[{dtype}]"] = call
    tasks[f"distance_pair[{exact}]"] = _pair_call
    tasks[f"choose_nearest[{exact}]"] = _choose_call
    return list(tasks.items())


def _shared_calls(dtype: np.dtype[Any]) -> dict[str, Callable[[], object]]:
    values, starts = np.zeros(2), np.zeros(1, np.int64)
    rows = np.zeros((1, 2), dtype)
    bounds = band_bounds(2, 2, None)
    return {
        "normalize_windows": lambda: reference.normalize_windows(values, starts, rows),
        "distance_pairs": lambda: reference.distance_pairs(rows[0].copy(), rows, *bounds, np.zeros(1, dtype)),
    }


def _search_calls(dtype: np.dtype[Any]) -> dict[str, Callable[[], object]]:
    rows, out = np.zeros((1, 2), dtype), np.zeros(1, dtype)
    return {
        "distance_rows": lambda: kernels.distance_rows(
            rows[0].copy(), rows, *band_bounds(2, 2, None), dtype.type(np.inf), out
        ),
        "nearest_windows": lambda: WindowLibrary(np.arange(16.0), 8, dtype).nearest(np.arange(8.0), 1, 2, 8),
    }


def _pair_call() -> object:
    return reference.distance_pair(np.zeros(2), np.zeros(2), *band_bounds(2, 2, None))


def _choose_call() -> object:
    starts, floors = np.zeros(1, np.int64), np.zeros(1)
    bounds = band_bounds(2, 2, None)
    return reference.choose_nearest(
        np.zeros(2), np.zeros(2), starts, floors, *bounds, 0, 1.0, starts.copy(), floors.copy()
    )
