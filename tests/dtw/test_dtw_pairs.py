"""One pair: the wavefront, the path in full and in linear memory, channels, FastDTW."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw import api, crossover, reference, wavefront
from dtw.bands import band_bounds
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.fastdtw import fastdtw, fastdtw_cells, projected
from dtw.path import alignment_path
from tests.oracles import dtw_naive

lengths = st.integers(1, 40)
bands = st.none() | st.integers(0, 42)
seeds = st.integers(0, 2**32 - 1)


def pair(seed: int, n: int, m: int, channels: int | None = None) -> tuple[Any, Any]:
    """Every third pair repeats a few levels, so that ties are common."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(size if channels is None else (size, channels)) for size in (n, m))
    return (np.round(a), np.round(b)) if seed % 3 == 0 else (a, b)


def random_bounds(rng: np.random.Generator, n: int, m: int) -> tuple[Any, Any]:
    upper = np.sort(rng.integers(1, m + 1, n))
    upper[-1] = m
    lower = np.zeros(n, np.int64)
    for i in range(1, n):
        lower[i] = rng.integers(lower[i - 1], min(upper[i - 1], upper[i] - 1) + 1)
    return lower, upper


@settings(max_examples=200, deadline=None)
@given(lengths, lengths, bands, seeds)
def test_the_wavefront_is_the_reference_to_the_last_bit(n: int, m: int, band: int | None, seed: int) -> None:
    a, b = pair(seed, n, m)
    for bounds in (band_bounds(n, m, band), random_bounds(np.random.default_rng(seed), n, m)):
        assert wavefront.distance_wavefront(a, b, *bounds) == reference.distance_pair(a, b, *bounds)


def test_either_way_gives_the_same_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(1, 300, 280)
    found = []
    for threshold in (0.0, float("inf")):
        monkeypatch.setattr(crossover, "cells_per_diagonal", lambda threshold=threshold: threshold)
        found.append(api.distance(a, b, 30))
    assert found[0] == found[1] == dtw_naive.distance(a.tolist(), b.tolist(), 30)


def check_path(path: Any, a: Any, b: Any, bounds: Any) -> None:
    rows, columns = path.pairs.T
    assert path.pairs[0].tolist() == [0, 0]
    assert path.pairs[-1].tolist() == [len(a) - 1, len(b) - 1]
    steps = np.diff(path.pairs, axis=0)
    assert ((steps >= 0) & (steps <= 1)).all()
    assert (steps.sum(axis=1) > 0).all()
    assert (bounds[0][rows] <= columns).all()
    assert (columns < bounds[1][rows]).all()
    assert np.sum((a[rows] - b[columns]) ** 2) == pytest.approx(path.distance, rel=1e-12, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(lengths, lengths, bands, st.integers(1, 60), st.none() | st.integers(1, 3), seeds)
def test_a_path_is_lawful_and_costs_the_distance(
    n: int, m: int, band: int | None, cells_max: int, channels: int | None, seed: int
) -> None:
    a, b = pair(seed, n, m, channels)
    bounds = band_bounds(n, m, band)
    expected = api.distance(a, b, band)
    whole, divided = alignment_path(a, b, band), alignment_path(a, b, band, cells_max)
    assert whole.distance == expected
    assert divided.distance == pytest.approx(expected, rel=1e-12, abs=1e-12)
    check_path(whole, a, b, bounds)
    check_path(divided, a, b, bounds)


def test_a_tie_takes_the_diagonal_first() -> None:
    assert alignment_path([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]).pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert alignment_path([0.0, 0.0], [0.0, 0.0, 0.0]).pairs.tolist() == [[0, 0], [0, 1], [1, 2]]


def test_a_long_path_needs_little_memory() -> None:
    a, b = np.random.default_rng(2).standard_normal((2, 3000)).cumsum(axis=1)
    alignment_path(a[:100], b[:100], cells_max=50)
    tracemalloc.start()
    path = alignment_path(a, b, cells_max=100_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_500_000, "the whole matrix has nine million cells"
    assert path.distance == pytest.approx(api.distance(a, b), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(lengths, lengths, bands, seeds)
def test_one_channel_is_the_plain_series(n: int, m: int, band: int | None, seed: int) -> None:
    a, b = pair(seed, n, m)
    assert api.distance(a[:, None], b[:, None], band) == api.distance(a, b, band)


@settings(max_examples=60, deadline=None)
@given(lengths, lengths, bands, st.integers(2, 4), st.floats(0, 1), seeds)
def test_channels_add_their_squares(
    n: int, m: int, band: int | None, channels: int, quantile: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    query, library = rng.standard_normal((n, channels)), rng.standard_normal((5, m, channels))
    expected = np.array([dtw_naive.distance_of_costs(cost_matrix(query, row), band) for row in library])
    found = api.one_to_many(query, library, band)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert [api.distance(query, row, band) for row in library] == found.tolist()
    cutoff = float(np.quantile(found, quantile))
    cut = api.one_to_many(query, library, band, cutoff, threads=2)
    assert cut.tolist() == np.where(found <= cutoff, found, np.inf).tolist()


def cost_matrix(a: Any, b: Any) -> list[list[float]]:
    return [[float(np.sum((x - y) ** 2)) for y in b] for x in a]


def test_channels_must_agree() -> None:
    one, two = np.zeros((3, 1)), np.zeros((3, 2))
    for call in (
        lambda: api.distance(one, two),
        lambda: api.path(one, two),
        lambda: fastdtw(one, two),
        lambda: api.one_to_many(one, np.zeros((4, 3, 2))),
        lambda: fastdtw(one, one, -1),
    ):
        with pytest.raises(InvalidArgument):
            call()
    with pytest.raises(InvalidSeries) as caught:
        api.distance([[0.0, 1.0], [np.nan, 0.0]], two)
    assert caught.value.index == 1


@settings(max_examples=100, deadline=None)
@given(lengths, lengths, st.integers(0, 3), st.none() | st.integers(1, 2), seeds)
def test_fastdtw_is_a_lawful_path_never_below_the_exact_distance(
    n: int, m: int, radius: int, channels: int | None, seed: int
) -> None:
    a, b = pair(seed, n, m, channels)
    found = fastdtw(a, b, radius)
    check_path(found, a, b, band_bounds(n, m, None))
    assert found.distance >= api.distance(a, b) * (1 - 1e-12)
    assert fastdtw(a, b, 40).distance == api.distance(a, b)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 3), seeds)
def test_a_projection_is_fit_for_the_kernels(n: int, m: int, radius: int, seed: int) -> None:
    a, b = pair(seed, n // 2, m // 2)
    lower, upper = projected(alignment_path(a, b).pairs, n, m, radius)
    assert lower[0] == 0
    assert upper[-1] == m
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) >= 0).all()
    assert (lower < upper).all()
    assert (lower[1:] <= upper[:-1]).all()


def test_fastdtw_works_in_linear_time_and_exact_dtw_does_not() -> None:
    a, b = np.random.default_rng(3).standard_normal((2, 4096)).cumsum(axis=1)
    cells = [fastdtw_cells(a[:n], b[:n], 2) for n in (1024, 2048, 4096)]
    assert cells[1] < 2.3 * cells[0]
    assert cells[2] < 2.3 * cells[1]
    assert cells[2] < 0.02 * api.cells(4096, 4096)
