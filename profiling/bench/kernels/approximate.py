"""FastDTW against the exact ways: how far off, how much work, how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from dtw import api
from dtw.fastdtw import fastdtw_cells
from profiling.bench.kernels.cases import walks
from profiling.bench.peers.client import Peers
from profiling.bench.result import Result, paired_ratio

LENGTHS: Final = (512, 4_096, 32_768)
RADII: Final = (1, 10, 50)
BAND_SHARE: Final = 0.1
PAIRS: Final = 5
PEER_CELLS_MAX: Final = 500_000
"""The peer takes about a microsecond a cell."""


def measure(result: Result, peers: Peers, versions: Mapping[str, str], progress: Callable[[str], None]) -> None:
    """For each length and radius: the error of PAIRS pairs of random walks, and the time against the exact ways."""
    for length in LENGTHS:
        pairs = walks(12, PAIRS, 2, length)
        exact = [_timed(lambda a=a, b=b: api.distance(a, b)) for a, b in pairs]  # type: ignore[misc]
        band = int(BAND_SHARE * length)
        banded = [_timed(lambda a=a, b=b, r=band: api.distance(a, b, r)) for a, b in pairs]  # type: ignore[misc]
        case = f"exact within a band of {band}, length {length:,}"
        _error_row(result, case, banded, exact)
        _time_row(result, case, "exact, no band", [s for s, _ in banded], [s for s, _ in exact])
        for radius in RADII:
            progress(f"FastDTW, length {length:,}, radius {radius}")
            case = f"FastDTW radius {radius}, length {length:,}"
            ours = [_timed(lambda a=a, b=b, r=radius: api.fastdtw(a, b, r).distance) for a, b in pairs]  # type: ignore[misc]
            _error_row(result, case, ours, exact)
            for name, others in (("exact, no band", exact), (f"exact, band {band}", banded)):
                _time_row(result, case, name, [s for s, _ in ours], [s for s, _ in others])
            if fastdtw_cells(pairs[0][0], pairs[0][1], radius) <= PEER_CELLS_MAX:
                name = f"fastdtw {versions['fastdtw']}, absolute cost"
                _time_row(result, case, name, [s for s, _ in ours], _peer_seconds(peers, pairs, radius))


def _timed(call: Callable[[], float]) -> tuple[float, float]:
    """Seconds of the second call and its answer."""
    call()
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def _peer_seconds(peers: Peers, pairs: Any, radius: int) -> list[float]:
    seconds = []
    for a, b in pairs:
        peers.put("a-fast", a)
        peers.put("b-fast", b)
        seconds += peers.run("fastdtw", "fastdtw", a="a-fast", b="b-fast", radius=radius).seconds
    return seconds


def _error_row(result: Result, case: str, ours: list[tuple[float, float]], exact: list[tuple[float, float]]) -> None:
    found, right = [d for _, d in ours], [d for _, d in exact]
    excess = [100.0 * (f / r - 1.0) for f, r in zip(found, right, strict=True)]
    result.row(f"{case}: excess distance", float(np.mean(excess)), "%", "exact", 0.0, paired_ratio(found, right))


def _time_row(result: Result, case: str, peer: str, ours: list[float], theirs: list[float]) -> None:
    ratio = paired_ratio(theirs, ours)
    result.row(case, float(np.mean(ours)) * 1e3, "ms", peer, float(np.mean(theirs)) * 1e3, ratio)
