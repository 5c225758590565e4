"""Converters to other libraries' conventions, against how those turn a parameter back into samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtw import conventions
from dtw.errors import InvalidArgument

lengths = st.integers(1, 5000)


def test_roots_and_squares_are_inverse() -> None:
    values = np.array([[0.0, 2.25], [4.0, math.inf]])
    assert conventions.rooted(values).tolist() == [[0.0, 1.5], [2.0, math.inf]]
    assert conventions.squared(conventions.rooted(values)).tolist() == values.tolist()
    assert float(conventions.rooted(9.0)) == 3.0
    assert float(conventions.squared(3)) == 9.0


@pytest.mark.parametrize("value", [-1.0, math.nan, [1.0, -math.inf]])
def test_a_distance_is_not_negative(value: object) -> None:
    for convert in (conventions.rooted, conventions.squared):
        with pytest.raises(InvalidArgument):
            convert(value)  # type: ignore[arg-type]


@given(lengths, st.data())
def test_a_fraction_means_exactly_the_band(length: int, data: st.DataObject) -> None:
    """As aeon and wildboar round: the product with the length, downwards."""
    band = data.draw(st.integers(0, length - 1))
    whole = band == length - 1
    fraction = conventions.aeon_window(band, length, length)
    assert fraction is None if whole else fraction is not None and int(fraction * length) == band
    rows = conventions.wildboar_r(band, length, length)
    assert rows == 1.0 if whole else math.floor(length * rows) == band + 1
    subsequence = conventions.wildboar_subsequence_r(band, length)
    assert subsequence == 1.0 if whole else math.floor(length * subsequence) == band
    assert all(0 < value <= 1 for value in (fraction or 1.0, rows, subsequence))


def test_every_band_of_every_length_survives_rounding() -> None:
    for length in range(2, 400):
        for band in range(length - 1):
            fraction = conventions.aeon_window(band, length, length)
            assert fraction is not None
            assert int(fraction * length) == band
            assert math.floor(length * conventions.wildboar_r(band, length, length)) == band + 1


def test_bands_in_samples() -> None:
    assert conventions.dtaidistance_window(0, 10, 10) == 1
    assert conventions.dtaidistance_window(3, 10, 12) == 4
    assert conventions.tslearn_radius(3, 12, 10) == 3
    assert conventions.wildboar_r(3, 20, 10) == conventions.wildboar_r(3, 10, 10) == 0.45


@pytest.mark.parametrize("band", [None, 9, 10, 1000])
def test_a_band_that_leaves_nothing_out_is_none(band: int | None) -> None:
    for rows, columns in ((10, 10), (10, 30), (30, 10)):
        assert conventions.aeon_window(band, rows, columns) is None
        assert conventions.dtaidistance_window(band, rows, columns) is None
        assert conventions.tslearn_radius(band, rows, columns) is None
        assert conventions.wildboar_r(band, rows, columns) == 1.0
    assert conventions.wildboar_subsequence_r(band, 10) == 1.0


def test_aeon_has_no_such_band_for_unequal_lengths() -> None:
    with pytest.raises(InvalidArgument, match="unequal lengths 10 and 12"):
        conventions.aeon_window(3, 10, 12)


@pytest.mark.parametrize(
    "convert",
    [
        conventions.aeon_window,
        conventions.dtaidistance_window,
        conventions.tslearn_radius,
        conventions.wildboar_r,
        lambda band, rows, columns: conventions.wildboar_subsequence_r(band, rows),
    ],
)
def test_bad_parameters_are_refused(convert: Callable[[int, int, int], object]) -> None:
    for arguments in ((-1, 10, 10), (1, 0, 0)):
        with pytest.raises(InvalidArgument):
            convert(*arguments)
