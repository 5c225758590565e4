"""Where one way of computing overtakes another on this machine: measured once, kept beside the compiled kernels.

Every way gives the same result, so a wrong choice costs time only. ``measure`` runs with the warm-up; without its
record, or with one that cannot be read, the defaults hold.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from dtw import kernels, reference, wavefront
from dtw.bands import band_bounds, band_cells
from dtw.parallel import in_threads

RECORD: Final = "crossover.json"
_REPEATS: Final = 9


@dataclass(frozen=True)
class Crossover:
    """``cells_per_diagonal``: from this many cells per anti-diagonal on, a pair is compared along those.
    ``cells_per_thread``: a batch of fewer cells than this per thread is done by fewer threads."""

    cells_per_diagonal: float = 16.0
    cells_per_thread: float = 2_000_000.0


def cells_per_diagonal() -> float:
    """The measured value, or the default."""
    return current().cells_per_diagonal


def threads_worth(threads: int, cells: int) -> int:
    """At most ``threads``, and so few that each has enough to do."""
    if threads == 1:
        return 1
    return max(1, min(threads, int(cells / current().cells_per_thread)))


@lru_cache(maxsize=1)
def current() -> Crossover:
    """The record of this machine, or the defaults."""
    path = _record_path()
    try:
        values = json.loads(path.read_text()) if path is not None else {}
        return Crossover(float(values["cells_per_diagonal"]), float(values["cells_per_thread"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Crossover()


def measure() -> Crossover:
    """Measure, keep the record if there is a cache directory, and use it from now on. Takes a few milliseconds."""
    found = Crossover(_measured_diagonal(), _measured_thread())
    path = _record_path()
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(asdict(found)))
            scratch.replace(path)
        except OSError:
            return found  # as numba does without a cache: measured again next time
    current.cache_clear()
    return found


def _record_path() -> Path | None:
    directory = os.environ.get("NUMBA_CACHE_DIR")
    return Path(directory) / RECORD if directory else None


def _seconds(call: Callable[[], object]) -> float:
    call()
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def _measured_diagonal() -> float:
    """The smallest square pair that anti-diagonals are faster for, in cells per anti-diagonal."""
    rng = np.random.default_rng(0)
    for length in (8, 12, 16, 24, 32, 48, 64, 96, 128):
        a, b = rng.standard_normal((2, length))
        bounds = band_bounds(length, length, None)
        plain = _seconds(lambda a=a, b=b, bounds=bounds: reference.distance_pair(a, b, *bounds))  # type: ignore[misc]
        slanted = _seconds(lambda a=a, b=b, bounds=bounds: wavefront.distance_wavefront(a, b, *bounds))  # type: ignore[misc]
        if slanted < plain:
            return band_cells(bounds) / (2 * length - 1)
    return float("inf")


def _measured_thread() -> float:
    """The cells that one thread does in three times what starting and joining a thread costs."""
    rows = np.random.default_rng(0).standard_normal((1024, 64)).astype(np.float32)
    out, bounds = np.empty(1024, np.float32), band_bounds(64, 64, None)
    query = rows[0].copy()
    batch = _seconds(lambda: kernels.distance_rows(query, rows, *bounds, np.float32(np.inf), out))
    idle = _seconds(lambda: in_threads([lambda: None, lambda: None], 2))
    return 3.0 * idle / batch * 1024 * band_cells(bounds)
