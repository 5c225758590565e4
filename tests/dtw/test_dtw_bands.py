"""The premise of the banded kernels: bounds reproduce the band exactly and never decrease."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtw.bands import band_bounds, band_cells, band_width_max
from dtw.errors import InvalidArgument
from tests.oracles import dtw_naive

lengths = st.integers(1, 24)
bands = st.none() | st.integers(0, 26)


@given(lengths, lengths, bands)
def test_bounds_are_the_dense_mask(rows: int, columns: int, band: int | None) -> None:
    bounds = band_bounds(rows, columns, band)
    mask = np.array([[dtw_naive.in_band(i, j, rows, columns, band) for j in range(columns)] for i in range(rows)])
    column = np.arange(columns)
    rebuilt = (column >= bounds[0][:, None]) & (column < bounds[1][:, None])
    assert np.array_equal(rebuilt, mask)
    assert band_cells(bounds) == mask.sum()
    assert band_width_max(bounds) == max(mask.sum(axis=0).max(), mask.sum(axis=1).max())


@given(lengths, lengths, bands)
def test_bounds_keep_what_the_kernels_rely_on(rows: int, columns: int, band: int | None) -> None:
    lower, upper = band_bounds(rows, columns, band)
    assert lower.dtype == upper.dtype == np.int64
    assert (np.diff(lower) >= 0).all()
    assert (np.diff(upper) >= 0).all()
    assert (lower < upper).all()
    assert (lower[1:] <= upper[:-1]).all()
    assert lower[0] == 0
    assert upper[-1] == columns


@pytest.mark.parametrize(("rows", "columns", "band"), [(0, 3, 1), (3, 0, 1), (3, 3, -1)])
def test_impossible_bands_are_refused(rows: int, columns: int, band: int) -> None:
    with pytest.raises(InvalidArgument):
        band_bounds(rows, columns, band)
