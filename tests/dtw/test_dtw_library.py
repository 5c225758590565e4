"""Exact nearest neighbours: brute force equality with ties and exclusion, past only, the error bound behind it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw import api, cascade, moving, reference
from dtw.bands import band_bounds
from dtw.bank import LibraryBank
from dtw.errors import InvalidArgument, InvalidSeries
from dtw.library import WindowLibrary
from dtw.normalize import normalized_windows
from dtw.precision import Slack, rounded_up
from tests.oracles import dtw_naive

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])
methods = st.sampled_from(["lanes", "scalar"])


def walk(seed: int, n: int) -> np.ndarray[Any, Any]:
    return np.cumsum(np.random.default_rng(seed).standard_normal(n))


def as_pairs(found: Any) -> list[tuple[float, int]]:
    return list(zip(found.distances.tolist(), found.starts.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    n=st.integers(12, 180),
    window=st.integers(2, 11),
    band=st.none() | st.integers(0, 6),
    k=st.integers(1, 9),
    exclusion=st.integers(0, 14),
    dtype=dtypes,
    method=methods,
)
def test_nearest_is_the_brute_force_to_the_last_bit(
    seed: int, n: int, window: int, band: int | None, k: int, exclusion: int, dtype: Any, method: Any
) -> None:
    series = walk(seed, n)
    last_start = seed % (n + 3) - 1
    query = walk(seed + 1, window)
    found = WindowLibrary(series, window, dtype).nearest(query, k, band, last_start, method=method, exclusion=exclusion)
    expected = dtw_naive.nearest(query.tolist(), series.tolist(), k, band, last_start, exclusion)
    assert as_pairs(found) == expected


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(0, 2), min_size=12, max_size=120),
    window=st.integers(2, 6),
    k=st.integers(1, 12),
    exclusion=st.integers(0, 7),
    dtype=dtypes,
    method=methods,
)
def test_ties_go_to_the_smaller_start(
    values: list[int], window: int, k: int, exclusion: int, dtype: Any, method: Any
) -> None:
    """Three levels repeat whole windows, constant ones among them, so most distances are shared."""
    query = values[-window:]
    library = WindowLibrary(values, window, dtype)
    found = library.nearest(query, k, 1, len(values), method=method, exclusion=exclusion)
    series = [float(value) for value in values]
    assert as_pairs(found) == dtw_naive.nearest(query, series, k, 1, len(values), exclusion)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 1), st.integers(0, 5), dtypes, methods)
def test_a_cutoff_keeps_exactly_what_lies_within(
    seed: int, quantile: float, exclusion: int, dtype: Any, method: Any
) -> None:
    series, query = walk(seed, 90), walk(seed + 1, 8)
    everything = dtw_naive.nearest(query.tolist(), series.tolist(), 90, 2, 90)
    cutoff = everything[int(quantile * (len(everything) - 1))][0]
    found = WindowLibrary(series, 8, dtype).nearest(query, 6, 2, 90, cutoff, method, exclusion)
    expected = dtw_naive.nearest(query.tolist(), series.tolist(), 6, 2, 90, exclusion, cutoff)
    assert as_pairs(found) == expected


@pytest.mark.parametrize("exclusion", [0, 1, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_blocks_with_a_shrinking_cutoff(dtype: Any, exclusion: int) -> None:
    """Long enough that blocks are abandoned; the plain float64 loop over all windows is the judge."""
    series = walk(11, 6000)
    library = WindowLibrary(series, 32, dtype)
    for end in (5999, 4000, 777):
        query = series[end - 31 : end + 1]
        exact = library.distances_at(query, np.arange(end - 62), 3)
        chosen: list[int] = []
        for start in np.lexsort((np.arange(end - 62), exact)):
            if len(chosen) < 8 and all(abs(int(start) - other) >= exclusion for other in chosen):
                chosen.append(int(start))
        found = library.nearest(query, 8, 3, end - 63, exclusion=exclusion)
        assert found.starts.tolist() == chosen
        assert found.distances.tolist() == exact[chosen].tolist()


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 40), st.none() | st.integers(0, 8), dtypes)
def test_the_error_bound_holds(seed: int, window: int, band: int | None, dtype: Any) -> None:
    """Premise of the two phases: floor <= exact, and nothing within the exact k-th best is above the ceiling."""
    rng = np.random.default_rng(seed)
    series = np.cumsum(rng.standard_normal(window + 90)) * 10.0 ** rng.integers(-6, 7)
    windows = normalized_windows(series, window)
    query = windows[int(rng.integers(len(windows)))]
    if seed % 3:
        query = query + rng.standard_normal(window) * 10.0 ** rng.integers(-17, -4)
        query = normalized_windows(query, window)[0]
    bounds = band_bounds(window, window, band)
    slack = Slack.of(window, bounds, dtype)
    exact = np.empty(len(windows))
    reference.distance_pairs(query, windows, *bounds, exact)
    computed = api.one_to_many(query.astype(dtype), windows.astype(dtype), band)
    assert (slack.floors(computed) <= exact).all()
    assert all(value <= slack.ceiling(limit) for value, limit in zip(computed.tolist(), exact.tolist(), strict=True))
    order = np.argsort(exact)
    for k in (1, 5):
        kept = np.sort(computed)[k - 1]
        assert (computed[order[:k]] <= slack.ceiling(kept)).all()


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e30, 3.4e38, 1e300, np.inf])
def test_rounding_up_never_goes_down(value: float) -> None:
    assert float(rounded_up(value, np.float32)) >= value
    assert float(rounded_up(value, np.float64)) >= value


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(20, 60), st.integers(0, 5))
def test_the_future_changes_nothing(seed: int, last_start: int, exclusion: int) -> None:
    series = walk(seed, 150)
    altered = series.copy()
    altered[last_start + 10 :] = walk(seed + 2, 150)[last_start + 10 :] * 40
    query = walk(seed + 1, 10)
    one, other = (
        WindowLibrary(data, 10).nearest(query, 5, 2, last_start, exclusion=exclusion) for data in (series, altered)
    )
    assert as_pairs(one) == as_pairs(other)
    assert one.starts.max() <= last_start


def test_no_window_in_the_past_is_an_empty_answer() -> None:
    found = WindowLibrary(walk(1, 30), 10).nearest(walk(2, 10), 3, 1, -1)
    assert found.starts.dtype == np.int64
    assert found.distances.dtype == np.float64
    assert len(found.starts) == len(found.distances) == 0


def test_the_library_keeps_its_own_copy_and_threads_may_share_it() -> None:
    series = walk(4, 2000)
    library = WindowLibrary(series, 32)
    query = series[-32:].copy()
    expected = as_pairs(library.nearest(query, 5, 3, 1900))
    series[:] = 0
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(as_pairs(library.nearest(query, 5, 3, 1900)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_one_shot_nearest_searches_the_whole_series() -> None:
    series = walk(6, 100)
    found = api.nearest_windows(series[20:30], series, 3, band=1)
    assert found.starts[0] == 20
    assert found.distances[0] == 0
    assert as_pairs(found) == dtw_naive.nearest(series[20:30].tolist(), series.tolist(), 3, 1, 99)


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"window_band": -1}, {"cutoff": -1.0}, {"cutoff": np.nan}, {"method": "gpu"}, {"exclusion": -1}],
)
def test_bad_parameters_are_refused(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"query": walk(1, 8), "k": 1, "window_band": 1, "last_start": 5} | change
    with pytest.raises(InvalidArgument):
        WindowLibrary(walk(0, 30), 8).nearest(**arguments)


def test_bad_data_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        WindowLibrary(walk(0, 30), 8, np.float16)
    with pytest.raises(InvalidSeries):
        WindowLibrary([1.0, np.nan, 2.0], 2)
    with pytest.raises(InvalidSeries, match="holds 7 samples"):
        WindowLibrary(walk(0, 30), 8).nearest(walk(1, 7), 1, 1, 5)
    with pytest.raises(InvalidSeries) as caught:
        LibraryBank([[1.0, 2.0], [np.inf, 1.0]], 2)
    assert caught.value.index == 1


@pytest.mark.parametrize("horizon", [0, 3])
def test_a_bank_searches_each_column_before_the_query(horizon: int) -> None:
    matrix = np.stack([walk(seed, 120) for seed in range(4)], axis=1)
    bank = LibraryBank(matrix, 12)
    found = bank.nearest_all(99, 3, 2, horizon, 6, columns=[2, 0])
    last_start = 99 - 24 - horizon + 1
    assert bank.last_start(99, horizon) == last_start
    for column, neighbours in zip([2, 0], found, strict=True):
        series = matrix[:, column].tolist()
        assert as_pairs(neighbours) == dtw_naive.nearest(series[88:100], series, 3, 2, last_start, 6)
        assert (neighbours.starts + 12 + horizon <= 88).all()
    assert len(bank.nearest_all(119, 3, 2, horizon, 6)) == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("band", [2, None])
def test_a_bank_answers_as_its_libraries_do_apart_whatever_the_threads(band: int | None, dtype: Any) -> None:
    """Also a constant column, one with an offset, and windows that are refined (no band) or not."""
    matrix = np.stack([walk(0, 700), np.full(700, 3.0), walk(2, 700) + 1e6, walk(3, 700) * 1e-9], axis=1)
    bank = LibraryBank(matrix, 40, dtype)
    alone = [WindowLibrary(matrix[:, column], 40, dtype) for column in range(4)]
    last_start = bank.last_start(640, 5)
    expected = [alone[c].nearest(matrix[601:641, c], 6, band, last_start, exclusion=7) for c in (3, 0, 1, 1, 2)]
    for threads in (1, 2, 3, 9):
        found = bank.nearest_all(640, 6, band, 5, 7, columns=[3, 0, 1, 1, 2], threads=threads)
        assert [as_pairs(each) for each in found] == [as_pairs(each) for each in expected]
        assert [each.pruning for each in found] == [each.pruning for each in expected]
    for column, library in enumerate(bank.libraries):  # they go on with rows of the bank's arrays
        query = matrix[601:641, column]
        one, other = (each.nearest(query, 3, band, 500, threads=2) for each in (library, alone[column]))
        assert as_pairs(one) == as_pairs(other)
        assert np.shares_memory(library.series, bank.libraries[0].series.base)
    assert bank.nearest_all(640, 6, band, 5, 7, columns=[]) == []


def test_a_banks_answer_ignores_what_follows_the_query_and_touches_no_sample_of_it() -> None:
    matrix = np.stack([walk(seed, 200) for seed in range(3)], axis=1)
    altered = matrix.copy()
    altered[121:] *= -3
    one, other = (LibraryBank(data, 16).nearest_all(120, 4, 2, 5, 8) for data in (matrix, altered))
    assert [as_pairs(a) for a in one] == [as_pairs(b) for b in other]


def test_a_bank_says_which_indices_it_knows() -> None:
    bank = LibraryBank(np.stack([walk(0, 40), walk(1, 40)], axis=1), 10)
    assert [len(found.starts) for found in bank.nearest_all(15, 2, 1, 0, 0)] == [0, 0]
    for call in (
        lambda: bank.nearest_all(8, 2, 1, 0, 0),
        lambda: bank.nearest_all(40, 2, 1, 0, 0),
        lambda: bank.nearest_all(30, 2, 1, -1, 0),
        lambda: bank.nearest_all(30, 2, 1, 0, 0, columns=[2]),
    ):
        with pytest.raises(InvalidArgument):
            call()


def search_bounds(library: WindowLibrary, query: Any, band: int | None, segment: str) -> Any:
    """What ``cascade.window_bounds`` says of every window, and the error that it may have made."""
    prepared = library._prepare(band)
    out = np.zeros(library.count, np.float32)
    size = library._segment if segment == "coarse" else 1
    spans = prepared.coarse if segment == "coarse" else library._spans(1, prepared.reach)
    pattern = normalized_windows(query, library.window)[0].astype(np.float32)
    cascade.window_bounds(pattern, size, prepared.reach, *spans, 0, library.count, np.float32(np.inf), out)
    return out, prepared.limits[2], prepared.limits[3]


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    window=st.integers(8, 70),
    band=st.none() | st.integers(0, 9),
    kind=st.sampled_from(["walk", "jump", "offset", "steps", "still", "tiny"]),
    segment=st.sampled_from(["coarse", "fine"]),
)
def test_a_lower_bound_stays_below_the_exact_distance(
    seed: int, window: int, band: int | None, kind: str, segment: str
) -> None:
    series = walk(seed, window + 400)
    if kind == "jump":
        series[window // 2 :] += 1e6
    elif kind == "offset":
        series += 1e9
    elif kind == "steps":
        series = np.round(series / 4)
    elif kind == "still":
        series[20:220] = series[20]
    elif kind == "tiny":
        series *= 1e-120
    start = seed % (window + 100)
    query = series[start : start + window] + walk(seed + 1, window) * (seed % 3) / 4
    library = WindowLibrary(series, window)
    computed, grow, shift = search_bounds(library, query, band, segment)
    exact = library.distances_at(query, np.arange(library.count), band)
    assert np.all(np.sqrt(computed) <= np.sqrt(exact) * grow + shift)


@pytest.mark.parametrize(("segment", "share"), [("coarse", 0.9), ("fine", 0.93)])
def test_most_windows_are_refused_by_their_lower_bound(segment: str, share: float) -> None:
    """Otherwise the bound would be sound but useless."""
    series = walk(5, 4000)
    library = WindowLibrary(series, 64)
    computed, _, _ = search_bounds(library, series[:64], 6, segment)
    found = library.nearest(series[:64], 8, 6, 4000, exclusion=5)
    assert np.mean(computed > found.distances[-1]) > share


@pytest.mark.parametrize("window", [8, 9, 33, 64, 130])
def test_moments_are_those_of_the_reference_and_found_once(window: int) -> None:
    series = np.concatenate([np.full(window + 3, 7.0), walk(3, 700) * 1e-3 + 1e6, np.full(window, -1.0)])
    library = WindowLibrary(series, window)
    query = series[300 : 300 + window]
    library.nearest(query, library.count, 2, library.count)  # compares all
    starts = np.arange(library.count)
    relative = np.lib.stride_tricks.sliding_window_view(series, window) - series[starts][:, None]
    rebuilt = (relative - library._means[:, None]) * library._inverses[:, None]
    np.testing.assert_allclose(rebuilt, normalized_windows(series, window), rtol=1e-15, atol=1e-15)
    prepared = WindowLibrary(series, window)
    prepared.prepare(2)
    assert np.array_equal(prepared._means, library._means)
    assert np.array_equal(prepared._inverses, library._inverses)


@pytest.mark.parametrize("window", [8, 65, 130])
@pytest.mark.parametrize("reach", [0, 1, 7, 60, 200])
def test_spans_hold_samples_means_extremes_and_moments(window: int, reach: int) -> None:
    series = walk(9, 900)
    library = WindowLibrary(series, window, threads=2)
    found = library._spans(3, reach)
    around = api.envelope(series, reach)
    for start in range(0, library.count, 41):
        span, at = divmod(start, 256)
        base = series[span * 256]
        for kind, values in enumerate((series, series, around.lower, around.upper)):
            size = 1 if kind == 0 else 3
            for t in (0, window // 2, window - size):
                expected = values[start + t : start + t + size].mean() - base
                assert found.spans[span, kind, at + t] == pytest.approx(expected, rel=1e-5, abs=1e-5)
        own = series[start : start + window]
        assert found.shifts[start] == pytest.approx(own.mean() - base, rel=1e-5, abs=1e-5)
        if found.usable[start]:
            assert found.scales[start] == pytest.approx(1 / own.std(), rel=1e-5)
    assert found.usable.mean() > 0.95


@pytest.mark.parametrize("reach", [0, 1, 2, 3, 7, 8, 300])
@pytest.mark.parametrize("n", [1, 2, 9, 200])
def test_moving_extremes_are_those_of_slices(n: int, reach: int) -> None:
    series = walk(n, n)
    lowest, highest = np.empty(n), np.empty(n)
    moving.moving_extremes(series, reach, lowest, highest)
    parts = [series[max(0, i - reach) : i + reach + 1] for i in range(n)]
    assert lowest.tolist() == [part.min() for part in parts]
    assert highest.tolist() == [part.max() for part in parts]


def test_a_repeated_past_needs_few_comparisons() -> None:
    """The search's own count of its work: most windows never reach the recurrence."""
    series = walk(8, 20_000)
    found = WindowLibrary(series, 64).nearest(series[-64:], 1, 6, 19_000)
    assert found.pruning.windows == 19_001
    assert found.pruning.compared < 0.02 * found.pruning.windows
    assert found.pruning.compared >= found.pruning.proposed >= 1
