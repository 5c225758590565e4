"""What ``test_dtw_gpu.py`` runs in a process of its own, in numba's simulator and on a device where there is one:
``python -m pytest tests/dtw/gpu_cases.py``, with NUMBA_ENABLE_CUDASIM=1 for the simulator.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dtw import api, gpu, gpu_kernels
from dtw.bands import band_bounds
from dtw.errors import InvalidArgument, InvalidSeries
from tests.oracles import dtw_naive

LENGTHS = [(1, 1), (1, 9), (9, 1), (8, 8), (9, 9), (16, 40), (40, 17), (33, 33)]


@pytest.fixture(autouse=True)
def nimble_threads() -> Iterator[None]:
    """The simulator's threads wait for each other at every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def one_shared_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator looks whether a block has its shared array and then makes it, and a thread may be interrupted
    between the two: it then computes on an array that no other thread sees."""
    if not gpu_kernels.SIMULATED:
        return
    from numba.cuda.simulator import kernelapi

    array, lock = kernelapi.FakeCUDAShared.array, threading.Lock()

    def array_made_once(self: Any, shape: Any, dtype: Any) -> Any:
        with lock:
            return array(self, shape, dtype)

    monkeypatch.setattr(kernelapi.FakeCUDAShared, "array", array_made_once)


def data(seed: int, count: int, n: int, m: int, dtype: Any = np.float64) -> tuple[Any, Any]:
    """Every other pair repeats a few levels, so that ties are common."""
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(n), rng.standard_normal((count, m))
    return (np.round(query), np.round(rows)) if seed % 2 else (query.astype(dtype), rows.astype(dtype))


def naive(query: Any, rows: Any, band: int | None) -> list[float]:
    return [dtw_naive.distance(query.tolist(), row.tolist(), band) for row in rows]


def assert_same(found: Any, expected: list[float], dtype: Any, terms: int) -> None:
    """float64 to the last bit; float32 within the rounding of so many terms."""
    assert found.dtype == dtype
    if dtype == np.float64:
        assert found.tolist() == expected
    else:
        np.testing.assert_allclose(found, expected, rtol=terms * np.finfo(np.float32).eps, atol=1e-12)


@pytest.mark.parametrize("band", [None, 0, 2, 50])
@pytest.mark.parametrize(("n", "m"), LENGTHS)
def test_distances_are_the_naive_ones(n: int, m: int, band: int | None) -> None:
    query, rows = data(n + m, 3, n, m)
    assert_same(gpu.one_to_many(query, rows, band), naive(query, rows, band), np.float64, n + m)
    query, rows = query.astype(np.float32), rows.astype(np.float32)
    assert_same(gpu.one_to_many(query, rows, band), naive(query, rows, band), np.float32, 2 * (n + m))


@pytest.mark.parametrize("shift", range(6))
@pytest.mark.parametrize("band", [None, 3])
def test_any_number_of_threads_compares_a_pair(shift: int, band: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads need several passes; a single block, several rounds."""
    monkeypatch.setattr(gpu_kernels, "BORDER_BYTES_MAX", 1)
    length = min(40, (gpu_kernels.ROWS << shift) + 3)
    query, rows = data(2 * shift, 3 if shift > 1 else 34, length, 21)
    sent = gpu_kernels.to_device(query[None]), gpu_kernels.to_device(rows)
    found = gpu_kernels.compared(*sent, band_bounds(length, 21, band), shift)
    assert found.tolist() == [naive(query, rows, band)]


def test_a_pair_longer_than_a_block_owns() -> None:
    query, rows = data(4, 1, gpu_kernels.ROWS * gpu_kernels.THREADS + 5, 12)
    assert gpu.one_to_many(query, rows).tolist() == naive(query, rows, None)
    assert gpu.one_to_many(rows[0], query[None], 2).tolist() == naive(rows[0], query[None], 2)


@pytest.mark.parametrize(
    ("rows", "width", "threads"), [(1, 1, 1), (8, 99, 1), (9, 99, 2), (64, 127, 8), (1024, 2047, 32), (1024, 13, 4)]
)
def test_the_threads_per_pair_follow_the_work(rows: int, width: int, threads: int) -> None:
    assert 1 << gpu_kernels.group_shift(rows, width) == threads


def test_the_door_is_the_method() -> None:
    query, rows = data(6, 9, 12, 12)
    expected = api.one_to_many(query, rows, 2, method="scalar")
    assert api.one_to_many(query, rows, 2, method="gpu").tolist() == expected.tolist()
    cutoff = float(np.median(expected))
    cut = api.one_to_many(query, rows, 2, cutoff, method="gpu")
    assert cut.tolist() == np.where(expected <= cutoff, expected, np.inf).tolist()
    assert api.one_to_many(query.astype(np.float32), rows, 2, method="gpu").dtype == np.float64
    assert api.one_to_many([1, 2, 4], [[1, 2, 3], [0, 0, 0]], method="gpu").tolist() == [1.0, 21.0]


@pytest.mark.parametrize("pairs", [1, 8, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_pairs(pairs: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PAIRS_AT_ONCE", pairs)
    _, first = data(8, 5, 1, 9, dtype)
    _, second = data(10, 4, 1, 7, dtype)
    for ours, theirs in (
        (gpu.pairwise(first, window=2), api.pairwise(first, window=2)),
        (gpu.pairwise(first, second, 1), api.pairwise(first, second, 1)),
    ):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [10, 12])
@pytest.mark.parametrize("band", [None, 1])
def test_the_nearest_are_those_of_the_brute_force(dtype: Any, length: int, band: int | None) -> None:
    query, rows = data(12, 16, length, 12, dtype)
    rows[8:] = rows[:8]
    on_device = gpu.GpuRows(rows)
    expected = naive(query, rows, band)
    assert_same(on_device.distances(query, band), expected, dtype, 2 * (length + 12))
    for k in (1, 5, 99):
        order = sorted(range(16), key=lambda index: (expected[index], index))[:k]
        found = on_device.nearest(query, k, band)
        assert found.starts.tolist() == order
        assert found.distances.tolist() == [expected[index] for index in order]
    cutoff = sorted(expected)[5]
    assert on_device.nearest(query, 16, band, cutoff).distances.tolist() == [d for d in sorted(expected) if d <= cutoff]


def test_what_float32_cannot_tell_apart_is_told_apart() -> None:
    rng = np.random.default_rng(14)
    row = rng.standard_normal(16)
    rows = row + 1e-12 * rng.standard_normal((9, 16))
    found = gpu.GpuRows(rows).nearest(row, 3, 2)
    expected = naive(row, rows, 2)
    assert found.starts.tolist() == np.argsort(expected, kind="stable")[:3].tolist()
    assert found.distances.tolist() == sorted(expected)[:3]


@pytest.mark.parametrize("of_rows", [1e-320, 1e-140, 1.0, 1e149])
@pytest.mark.parametrize("of_query", [1e-140, 1.0, 1e20, 1e149])
def test_no_magnitude_is_beyond_the_search(of_rows: float, of_query: float) -> None:
    query, rows = data(16, 9, 6, 6)
    query, rows = query * of_query, rows * of_rows
    found = gpu.GpuRows(rows).nearest(query, 2)
    expected = naive(query, rows, None)
    assert found.starts.tolist() == np.argsort(expected, kind="stable")[:2].tolist()
    assert found.distances.tolist() == sorted(expected)[:2]


def test_rows_that_are_changed_later_do_not_change_the_answers() -> None:
    query, rows = data(18, 4, 5, 5)
    on_device, expected = gpu.GpuRows(rows), naive(query, rows, None)
    rows[:] = 0.0
    assert on_device.distances(query).tolist() == expected


def test_what_cannot_be_compared_is_refused() -> None:
    rows = np.zeros((3, 4))
    on_device = gpu.GpuRows(rows)
    for call in (
        lambda: gpu.one_to_many(np.zeros((4, 2)), np.zeros((3, 4, 2))),
        lambda: gpu.one_to_many(rows[0], rows, -1),
        lambda: gpu.one_to_many(rows[0], rows, cutoff=math.nan),
        lambda: gpu.pairwise(rows, window=-1),
        lambda: on_device.distances(rows[0], -1),
        lambda: on_device.nearest(rows[0], 0),
    ):
        with pytest.raises(InvalidArgument):
            call()
    rows[2, 1] = np.nan
    for call in (lambda: gpu.one_to_many(np.zeros(4), rows), lambda: gpu.GpuRows(rows), lambda: gpu.pairwise(rows)):
        with pytest.raises(InvalidSeries) as caught:
            call()
        assert caught.value.index == 2
