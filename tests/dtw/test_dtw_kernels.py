"""Every kernel against its slow twin, and the properties that the compiler flags must not take away."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw import (
    api,
    bounds,
    cascade,
    choice,
    columns,
    kernels,
    lanes,
    moving,
    multivariate,
    once,
    path,
    reference,
    stream,
    wavefront,
)
from dtw.bands import band_bounds
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.warmup import ENTRIES
from tests.oracles import dtw_naive

ROOM = (
    bounds,
    cascade,
    choice,
    columns,
    kernels,
    lanes,
    moving,
    multivariate,
    once,
    path,
    reference,
    stream,
    wavefront,
)
lengths = st.integers(1, 21)
bands = st.none() | st.integers(0, 22)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])


def relative_tolerance(dtype: Any) -> float:
    return 2e-5 if dtype is np.float32 else 1e-12


@settings(max_examples=150, deadline=None)
@given(lengths, lengths, bands, seeds)
def test_distance_is_the_full_matrix_to_the_last_bit(n: int, m: int, band: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal(n), rng.standard_normal(m)
    assert api.distance(a, b, band) == dtw_naive.distance(a.tolist(), b.tolist(), band)


@settings(max_examples=100, deadline=None)
@given(lengths, lengths, bands, st.integers(1, 4), seeds, dtypes)
def test_lanes_and_plain_loop_agree_with_the_full_matrix(
    n: int, m: int, band: int | None, count: int, seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(n).astype(dtype), rng.standard_normal((count, m)).astype(dtype)
    expected = [dtw_naive.distance(query.tolist(), row.tolist(), band) for row in rows]
    for method in ("lanes", "scalar"):
        found = api.one_to_many(query, rows, band, method=method)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=relative_tolerance(dtype))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), bands, st.integers(1, 2 * lanes.LANES + 3), seeds, dtypes)
def test_lanes_equal_the_plain_loop(n: int, m: int, band: int | None, count: int, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(n).astype(dtype), rng.standard_normal((count, m)).astype(dtype)
    blocks, scalar = (api.one_to_many(query, rows, band, method=method) for method in ("lanes", "scalar"))
    np.testing.assert_allclose(blocks, scalar, rtol=relative_tolerance(dtype))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 70), bands, st.integers(1, 2 * lanes.LANES + 3), st.floats(0, 1), seeds, dtypes)
def test_abandoning_never_changes_an_answer_within_the_cutoff(
    n: int, band: int | None, count: int, quantile: float, seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(n).astype(dtype), rng.standard_normal((count, n)).astype(dtype)
    rows += (5 * rng.integers(0, 2, (count, 1))).astype(dtype)
    complete = api.one_to_many(query, rows, band)
    cutoff = float(np.quantile(complete, quantile))
    cut = api.one_to_many(query, rows, band, cutoff)
    assert np.array_equal(cut, np.where(complete <= cutoff, complete, np.inf))


def test_hopeless_blocks_are_really_abandoned() -> None:
    """A cutoff that no candidate meets must save most of the work, and a cutoff of zero still finds the twin."""
    rng = np.random.default_rng(5)
    query = rng.standard_normal(256).astype(np.float32)
    rows = rng.standard_normal((20 * lanes.LANES, 256)).astype(np.float32)
    rows[777] = query

    def seconds(cutoff: float) -> tuple[float, Any]:
        out = np.empty(rows.shape[0], np.float32)
        bounds = band_bounds(256, 256, 25)
        began = time.perf_counter()
        kernels.distance_rows(query, rows, *bounds, np.float32(cutoff), out)
        return time.perf_counter() - began, out

    complete = min(seconds(np.inf)[0] for _ in range(7))
    abandoned = min(seconds(0.0)[0] for _ in range(7))
    assert abandoned < complete / 2
    assert np.flatnonzero(np.isfinite(seconds(0.0)[1])).tolist() == [777]


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 14), st.integers(2, 14), seeds)
def test_any_non_decreasing_touching_bounds_will_do(n: int, m: int, seed: int) -> None:
    """The kernels' own contract is wider than a Sakoe-Chiba band: edges may advance by several columns at once."""
    rng = np.random.default_rng(seed)
    upper = np.sort(rng.integers(1, m + 1, n))
    upper[-1] = m
    lower = np.zeros(n, np.int64)
    for i in range(1, n):
        lower[i] = rng.integers(lower[i - 1], min(upper[i - 1], upper[i] - 1) + 1)
    allowed = [[lower[i] <= j < upper[i] for j in range(m)] for i in range(n)]
    query, rows = rng.standard_normal(n), rng.standard_normal((3, m))
    expected = [dtw_naive.distance_within(query.tolist(), row.tolist(), allowed) for row in rows]
    plain, blocks = np.empty(3), np.empty(3)
    reference.distance_pairs(query, rows, lower, upper, plain)
    assert plain.tolist() == expected
    kernels.distance_rows(query, rows, lower, upper, np.inf, blocks)
    np.testing.assert_allclose(blocks, expected, rtol=1e-12)


@pytest.mark.parametrize("count", [1, lanes.LANES - 1, lanes.LANES, lanes.LANES + 1])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9])
def test_sizes_around_block_strip_and_unrolled_columns(n: int, count: int) -> None:
    rng = np.random.default_rng(n)
    query, rows = rng.standard_normal(n), rng.standard_normal((count, n))
    for band in (None, 0, 1, n):
        expected = [dtw_naive.distance(query.tolist(), row.tolist(), band) for row in rows]
        np.testing.assert_allclose(api.one_to_many(query, rows, band), expected, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(lengths, bands, seeds)
def test_a_distance_is_symmetric_zero_to_itself_and_below_euclid(n: int, band: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal(n), rng.standard_normal(n)
    assert api.distance(a, a, band) == 0
    assert api.distance(a, b, band) == pytest.approx(api.distance(b, a, band), rel=1e-12)
    assert api.distance(a, b, band) <= api.distance(a, b, 0) * (1 + 1e-12)


def test_compiler_flags_are_explicit_and_keep_infinities() -> None:
    assert {"nsz", "arcp", "contract", "afn", "reassoc"} == lanes.FASTMATH
    dispatchers = [value for module in ROOM for value in vars(module).values() if hasattr(value, "targetoptions")]
    assert len(dispatchers) > len(ENTRIES)
    for dispatcher in dispatchers:
        options = dispatcher.targetoptions
        assert options["fastmath"] in (lanes.FASTMATH, reference.FASTMATH_NONE)
        assert options["fastmath"] is not True
        assert options["nogil"]
        assert not options.get("parallel", False)
    cached = {
        value
        for module in ROOM
        for value in vars(module).values()
        if hasattr(value, "_cache") and type(value._cache).__name__ == "FunctionCache"
    }
    assert cached == set(ENTRIES), "the warm-up must know every entry"
    for entry in ENTRIES:
        assert type(entry._cache).__name__ == "FunctionCache"


@pytest.mark.parametrize("entry", ["distance_pairs", "distance_rows"])
def test_a_long_call_lets_other_threads_run(entry: str) -> None:
    query = np.zeros(128)
    bounds = band_bounds(128, 128, None)
    count = 64 * lanes.LANES

    def plain() -> None:
        for _ in range(2):
            reference.distance_pairs(query, np.zeros((count, 128)), *bounds, np.empty(count))

    def blocks() -> None:
        for _ in range(24):
            kernels.distance_rows(query, np.zeros((count, 128)), *bounds, np.inf, np.empty(count))

    call = plain if entry == "distance_pairs" else blocks
    call()
    worker = threading.Thread(target=call)
    ticks = 0
    began = time.perf_counter()
    worker.start()
    while worker.is_alive():
        time.sleep(0.002)
        ticks += 1
    assert time.perf_counter() - began > 0.05
    assert ticks >= 10, "the kernel kept the GIL"


@pytest.mark.parametrize(
    ("values", "reason", "index"),
    [
        ([1.0, np.nan, 2.0], "nan is not finite", 1),
        ([1.0, 2.0, -np.inf], "-inf is not finite", 2),
        ([1e200, 1.0], "too large", 0),
        ([], "empty", None),
        ([[[1.0, 2.0]]], "1 dimension", None),
        (["a", "b"], "real numbers", None),
        ([1 + 2j], "real numbers", None),
    ],
)
def test_unusable_series_are_named(values: Any, reason: str, index: int | None) -> None:
    for call in (
        lambda: api.distance(values, [1.0]),
        lambda: api.distance([1.0], values),
        lambda: api.one_to_many(values, [[1.0, 2.0]]),
    ):
        with pytest.raises(InvalidSeries, match=reason) as caught:
            call()
        assert caught.value.index == index


def test_a_bad_candidate_is_named_by_its_row() -> None:
    rows = np.zeros((5, 3), np.float32)
    rows[3, 1] = np.nan
    with pytest.raises(InvalidSeries) as caught:
        api.one_to_many([0.0, 1.0], rows)
    assert caught.value.index == 3


def test_bad_parameters_are_refused() -> None:
    for call in (
        lambda: api.distance([1.0], [1.0], window=-1),
        lambda: api.one_to_many([1.0], [[1.0]], cutoff=-1.0),
        lambda: api.one_to_many([1.0], [[1.0]], cutoff=float("nan")),
        lambda: api.one_to_many([1.0], [[1.0]], method="fast"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_other_memory_layouts_and_types_give_the_same_answer() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(-9, 9, (6, 10))
    expected = api.one_to_many(rows[0].astype(float), rows.astype(float))
    frozen = rows.astype(float)
    frozen.flags.writeable = False
    compiled = len(kernels.distance_rows.signatures)
    for variant in (rows, np.asfortranarray(rows), rows.astype(np.int16), frozen, rows.astype(">f8"), rows.tolist()):
        assert np.array_equal(api.one_to_many(np.asarray(variant)[0], variant), expected)
    assert len(kernels.distance_rows.signatures) == compiled, "a variant reached the kernel uncanonical"
    assert api.one_to_many(rows[0].astype(np.float32), rows.astype(np.float32)).dtype == np.float32
    assert api.one_to_many(rows[0].astype(np.float32), rows.astype(np.float64)).dtype == np.float64
