"""Rows, subsequences and streams: the same answers as brute force, whatever was pruned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw import api, crossover
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.library import WindowLibrary
from dtw.once import PIECE
from dtw.parallel import in_threads, slices
from dtw.rows import RowLibrary
from dtw.stream import StreamSearch
from tests.oracles import dtw_naive

bands = st.none() | st.integers(0, 12)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])


def as_pairs(found: Any) -> list[tuple[float, int]]:
    return list(zip(found.distances.tolist(), found.starts.tolist(), strict=True))


def brute_force(query: Any, rows: Any, k: int, band: int | None, cutoff: float = np.inf) -> list[tuple[float, int]]:
    exact = [(api.distance(query.astype(float), row.astype(float), band), index) for index, row in enumerate(rows)]
    return [pair for pair in sorted(exact)[:k] if pair[0] <= cutoff]


@settings(max_examples=120, deadline=None)
@given(
    seed=seeds,
    count=st.integers(1, 300),
    length=st.integers(1, 40),
    band=bands,
    k=st.integers(1, 9),
    dtype=dtypes,
    scale=st.sampled_from([1.0, 1e-30, 1e12]),
    kind=st.sampled_from(["walk", "levels", "far query", "other length"]),
    threads=st.integers(1, 3),
)
def test_nearest_rows_are_the_brute_force_to_the_last_bit(
    seed: int, count: int, length: int, band: int | None, k: int, dtype: Any, scale: float, kind: str, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((count, length)).cumsum(axis=1) * scale).astype(dtype)
    query = (rows[seed % count] + rng.standard_normal(length) * scale * (seed % 2)).astype(dtype)
    if kind == "levels":
        rows, query = np.round(rows / scale).astype(dtype), np.round(query / scale).astype(dtype)
    elif kind == "far query":
        query = query + dtype(1000 * scale)
    elif kind == "other length":
        query = query[: 1 + seed % length]
    cutoff = float(brute_force(query, rows, count, band)[count // 2][0]) if seed % 5 == 0 else np.inf
    found = api.nearest(query, rows, k, band, cutoff, threads)
    assert as_pairs(found) == brute_force(query, rows, k, band, cutoff)


def test_most_rows_never_reach_the_recurrence() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5000, 64)).cumsum(axis=1)
    rows = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    library = RowLibrary(rows.astype(np.float32))
    found = library.nearest(rows[7], 3, 6)
    assert found.starts[0] == 7
    assert found.pruning.windows == 5000
    assert found.pruning.refused_share() > 0.85


@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("ratio", [1.0, 1e18])
def test_no_square_overflows_or_vanishes(scale: float, ratio: float) -> None:
    rng = np.random.default_rng(2)
    rows = (rng.standard_normal((200, 12)) * scale).astype(np.float32)
    query = rows[17].astype(float) * ratio
    assert as_pairs(api.nearest(query, rows, 3, 2)) == brute_force(query, rows, 3, 2)


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    n=st.integers(20, 900),
    length=st.integers(2, 18),
    band=bands,
    k=st.integers(1, 4),
    exclusion=st.none() | st.integers(0, 20),
    threads=st.integers(1, 3),
)
def test_a_search_is_the_brute_force(
    seed: int, n: int, length: int, band: int | None, k: int, exclusion: int | None, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    series, query = rng.standard_normal(n).cumsum(), rng.standard_normal(length).cumsum()
    if seed % 3 == 0:
        series, query = np.round(series), np.round(query)
    found = api.search(query, series, k, band, exclusion, threads=threads)
    apart = length // 2 if exclusion is None else exclusion
    assert as_pairs(found) == dtw_naive.nearest(query.tolist(), series.tolist(), k, band, n, apart)


def test_a_prepared_library_serves_many_searches() -> None:
    series = np.random.default_rng(4).standard_normal(3000).cumsum()
    library = WindowLibrary(series, 50, threads=2)
    for start in (0, 1000, 2950):
        assert api.search(series[start : start + 50], library, 1, 5).starts.tolist() == [start]


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    n=st.integers(5, 150),
    length=st.integers(2, 14),
    band=bands,
    k=st.integers(1, 5),
    exclusion=st.none() | st.integers(0, 9),
    cutoff=st.sampled_from([np.inf, 4.0]),
)
def test_a_stream_knows_at_each_sample_what_a_search_would_find(
    seed: int, n: int, length: int, band: int | None, k: int, exclusion: int | None, cutoff: float
) -> None:
    rng = np.random.default_rng(seed)
    series = rng.standard_normal(n).cumsum()
    query = series[:length] + rng.standard_normal(length) if n >= length else rng.standard_normal(length)
    if seed % 3 == 0:
        series = np.round(series / 2)
    stream = StreamSearch(query, k, band, exclusion, cutoff)
    for index, sample in enumerate(series):
        stream.push(sample)
        if index + 1 < length:
            assert len(stream.matches().starts) == 0
        elif index % 5 == 0 or index == n - 1:
            expected = api.search(query, series[: index + 1], k, band, exclusion, cutoff)
            assert as_pairs(stream.matches()) == as_pairs(expected)


def test_a_stream_prunes_and_keeps_little() -> None:
    series = np.random.default_rng(5).standard_normal(20_000).cumsum()
    stream = StreamSearch(series[100:164], 3, 6, 20)
    stream.extend(series)
    found = stream.matches()
    assert found.starts[0] == 100
    assert found.pruning.windows == 20_000 - 63
    assert found.pruning.refused_share() > 0.9
    assert len(stream._kept) <= 2 * 39 + 1


def test_a_bad_sample_is_refused_and_forgotten() -> None:
    stream = StreamSearch([0.0, 1.0, 0.0], 1)
    stream.extend([5.0, 0.0])
    for bad in (float("nan"), float("inf"), 1e200):
        with pytest.raises(InvalidSeries) as caught:
            stream.push(bad)
        assert caught.value.index == 2
    with pytest.raises(InvalidSeries):
        stream.extend([1.0, float("nan")])
    stream.extend([1.0, 0.0])
    assert stream.matches().starts.tolist() == [1]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), bands, seeds)
def test_lower_bounds_stay_below_and_envelopes_contain(n: int, band: int | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, rows = rng.standard_normal(n), rng.standard_normal((6, n))
    bounds = api.lower_bounds(query, rows, band)
    assert (bounds.best() <= api.one_to_many(query, rows, band) * (1 + 1e-12)).all()
    around = api.envelope(query, band)
    reach = n if band is None else band
    assert around.upper.tolist() == [query[max(0, i - reach) : i + reach + 1].max() for i in range(n)]
    assert around.lower.tolist() == [query[max(0, i - reach) : i + reach + 1].min() for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 90), st.integers(1, 20), bands, st.integers(1, 3), dtypes, seeds)
def test_pairwise_is_every_pair(
    n: int, m: int, length: int, band: int | None, threads: int, dtype: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((n, length)).astype(dtype), rng.standard_normal((m, length + 2)).astype(dtype)
    both = api.pairwise(left, right, band, threads)
    assert both.dtype == dtype
    assert np.array_equal(both, np.stack([api.one_to_many(row, right, band) for row in left]))
    alone = api.pairwise(left, window=band, threads=threads)
    assert np.array_equal(alone, alone.T)
    assert not alone.diagonal().any()
    np.testing.assert_allclose(
        alone, api.pairwise(left, left, band), rtol=1e-5, atol=1e-5 if dtype is np.float32 else 0
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_digit(threads: int) -> None:
    rows = np.random.default_rng(6).standard_normal((3000, 64)).astype(np.float32)
    assert np.array_equal(api.one_to_many(rows[0], rows, 6, threads=threads), api.one_to_many(rows[0], rows, 6))


@pytest.mark.parametrize(
    "call",
    [
        lambda: api.pairwise([[1.0]], threads=0),
        lambda: api.nearest([1.0], [[1.0]], 0),
        lambda: api.nearest([1.0], [[1.0]], 1, cutoff=-1.0),
        lambda: api.nearest([1.0], [[1.0]], 1, window=-1),
        lambda: api.search([1.0, 2.0], [1.0, 2.0, 3.0], 1, threads=0),
        lambda: api.search([1.0, 2.0], [1.0, 2.0, 3.0], 1, exclusion=-1),
        lambda: api.lower_bounds([1.0, 2.0], [[1.0]]),
        lambda: api.envelope([1.0], -1),
        lambda: StreamSearch([1.0, 2.0], 0),
    ],
)
def test_bad_parameters_are_refused(call: Any) -> None:
    with pytest.raises(InvalidArgument):
        call()


def test_bad_data_are_refused() -> None:
    for call in (
        lambda: api.pairwise([[1.0, np.nan]]),
        lambda: api.nearest([np.nan], [[1.0]], 1),
        lambda: api.search([1.0], [1.0, np.inf]),
        lambda: api.search([1.0, 2.0, 3.0], [1.0, 2.0]),
        lambda: api.envelope([]),
        lambda: StreamSearch([1.0, np.nan]),
    ):
        with pytest.raises((InvalidSeries, InvalidArgument)):
            call()


def test_slices_cover_everything_once() -> None:
    for count in (1, 63, 64, 65, 1000):
        for threads in (1, 2, 5):
            parts = slices(count, threads, 64)
            assert len(parts) <= threads
            assert [index for part in parts for index in range(part.start, part.stop)] == list(range(count))
            assert all(part.start % 64 == 0 for part in parts)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads([lambda: None, lambda: 1 // 0], 2)  # type: ignore[list-item, return-value]


def test_crossovers_are_measured_kept_and_never_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    crossover.current.cache_clear()
    assert crossover.current() == crossover.Crossover()
    measured = crossover.measure()
    assert json.loads((tmp_path / crossover.RECORD).read_text()).keys() == {"cells_per_diagonal", "cells_per_thread"}
    assert crossover.current() == measured
    assert 0 < measured.cells_per_diagonal < 200
    for text in ("", "[]", '{"cells_per_diagonal": "x"}'):
        (tmp_path / crossover.RECORD).write_text(text)
        crossover.current.cache_clear()
        assert crossover.current() == crossover.Crossover()
    monkeypatch.undo()
    crossover.current.cache_clear()


def test_threads_are_used_only_where_they_pay() -> None:
    assert crossover.threads_worth(2, 10) == 1
    assert crossover.threads_worth(2, 10**12) == 2
    assert crossover.threads_worth(1, 10**12) == 1


def test_a_huge_query_among_tiny_rows_is_compared_without_overflow() -> None:
    """Scaled by the rows' own magnitude the query is infinite; numpy would warn, and warnings are errors here."""
    found = api.nearest([1e149, 0.0], [[1e-300, 0.0], [2e-300, 1e-300]], 1)
    assert found.distances.tolist() == [1e149**2]


@pytest.mark.parametrize("window", [7, 8, 50])
@pytest.mark.parametrize("band", [3, None])
def test_a_single_search_is_that_of_a_prepared_series_across_its_pieces(window: int, band: int | None) -> None:
    """A match across the border of two pieces, one in each, and one at either end; constant stretches."""
    series = np.cumsum(np.random.default_rng(3).standard_normal(2 * PIECE + 300))
    series[900:1000] = series[900]
    query = series[PIECE - window // 2 : PIECE + window - window // 2].copy()
    for start in (0, 5_000, PIECE + 3_000, len(series) - window):
        series[start : start + window] = query * (2.0 + start) - start
    prepared = WindowLibrary(series, window)
    for k, exclusion in ((1, 0), (5, window), (40, 3)):
        expected = prepared.nearest(query, k, band, prepared.count, exclusion=exclusion)
        for threads in (1, 2, 5):
            found = api.search(query, series, k, band, exclusion, threads=threads)
            assert as_pairs(found) == as_pairs(expected)
    assert sorted(expected.starts[:5]) == [0, 5_000, PIECE - window // 2, PIECE + 3_000, len(series) - window]


def test_threads_that_have_fewer_than_k_windows_spare_the_others_nothing() -> None:
    """The first part is the nearest: were it to share the cutoff of all that it has, the others would lose theirs."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((64 * 10, 20)) * 30
    rows[:64] = rows[0] + rng.standard_normal((64, 20)) * 1e-3
    for k in (64, 65, 100, 640):
        one, other = (api.nearest(rows[0], rows, k, 4, threads=threads) for threads in (1, 10))
        assert as_pairs(one) == as_pairs(other)
        assert len(other.starts) == k
    series = np.concatenate([np.sin(np.arange(256 + 29)), np.cumsum(rng.standard_normal(256 * 6))])
    for k in (200, 256, 257, 600):
        expected = api.search(series[:30], WindowLibrary(series, 30), k, 4, 0)
        assert as_pairs(api.search(series[:30], series, k, 4, 0, threads=7)) == as_pairs(expected)
