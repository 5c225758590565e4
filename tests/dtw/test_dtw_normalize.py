"""z-normalisation: equal to the twin, stable under offsets, constant windows zero, bad data named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw.errors import InvalidArgument, InvalidSeries
from dtw.normalize import checked_array, normalized, normalized_windows
from tests.oracles import dtw_naive

samples = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(samples, min_size=2, max_size=30), st.integers(2, 30))
def test_windows_equal_the_twin_to_the_last_bit(values: list[float], window: int) -> None:
    window = min(window, len(values))
    expected = [dtw_naive.normalized(values[s : s + window]) for s in range(len(values) - window + 1)]
    assert normalized_windows(values, window).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e3, 1e8]))
def test_mean_zero_deviation_one_whatever_the_offset(window: int, seed: int, offset: float) -> None:
    values = offset + np.random.default_rng(seed).standard_normal(60)
    windows = normalized_windows(values, window)
    np.testing.assert_allclose(windows.mean(axis=1), 0, atol=1e-12)
    raw = np.lib.stride_tricks.sliding_window_view(values, window)
    varies = raw.std(axis=1) > 2e-12 * np.abs(raw).max(axis=1)  # a window of two samples may hold nearly equal ones
    np.testing.assert_allclose(windows[varies].std(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-300, 1e149])
def test_constant_windows_are_zero(value: float) -> None:
    assert not normalized([value] * 50).any()


def test_noise_below_the_epsilon_is_constant_and_above_it_is_not() -> None:
    wiggle = np.tile([0.0, 1.0], 8)
    assert not normalized(1.0 + 1e-13 * wiggle).any()
    assert normalized(1.0 + 1e-9 * wiggle).any()


def test_a_window_does_not_depend_on_its_neighbours() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    jumped = values.copy()
    jumped[:10] += 1e12
    assert np.array_equal(normalized_windows(values, 8)[10:], normalized_windows(jumped, 8)[10:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e151])
@pytest.mark.parametrize("position", [0, 7, 19])
def test_the_first_bad_sample_is_named(bad: float, position: int) -> None:
    values = np.arange(20.0)
    values[position:] = bad
    with pytest.raises(InvalidSeries, match=f"at index {position}") as caught:
        normalized_windows(values, 4)
    assert caught.value.index == position


@pytest.mark.parametrize(
    ("values", "window", "error"),
    [
        ([], 4, InvalidSeries),
        ([1.0, 2.0, 3.0], 4, InvalidSeries),
        ([[1.0, 2.0]], 2, InvalidSeries),
        ([True, False], 2, InvalidSeries),
        ([1.0, 2.0], 1, InvalidArgument),
    ],
)
def test_unusable_input_is_refused(values: Any, window: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        normalized_windows(values, window)


def test_canonical_arrays_are_always_writeable_and_contiguous() -> None:
    frozen = np.arange(12.0).reshape(3, 4)
    frozen.flags.writeable = False
    for array in (frozen, frozen.T, frozen[:, ::2]):
        canonical = checked_array(array, 2)
        assert canonical.flags.c_contiguous
        assert canonical.flags.writeable
        assert np.array_equal(canonical, array)
