"""A verifier repeats the search: honest claims pass, every kind of lie is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtw.library import WindowLibrary

WINDOW, BAND, LAST, EXCLUSION, K = 16, 2, 300, 8, 5
SERIES = np.cumsum(np.random.default_rng(7).standard_normal(400))
QUERY = SERIES[-WINDOW:]
Claim = tuple[list[Any], list[Any]]


@pytest.fixture(scope="module")
def library() -> WindowLibrary:
    return WindowLibrary(SERIES, WINDOW)


@pytest.fixture
def claim(library: WindowLibrary) -> Claim:
    found = library.nearest(QUERY, K, BAND, LAST, exclusion=EXCLUSION)
    return found.starts.tolist(), found.distances.tolist()


def label(library: WindowLibrary, claim: tuple[Any, Any], k: int | None = K) -> str:
    result = library.verify_nearest(QUERY, *claim, BAND, LAST, EXCLUSION, k=k)
    assert result.ok == (result.reason == "")
    return result.label


def test_an_honest_claim_passes_from_either_dtype(claim: Claim) -> None:
    for dtype in (np.float32, np.float64):
        assert label(WindowLibrary(SERIES, WINDOW, dtype), claim) == ""
        assert label(WindowLibrary(SERIES, WINDOW, dtype), claim, k=None) == ""


def test_a_distance_may_have_travelled_as_float32(library: WindowLibrary, claim: Claim) -> None:
    assert label(library, (claim[0], np.array(claim[1], np.float32))) == ""


def wrong_distance(starts: list[Any], distances: list[Any]) -> Claim:
    return starts, [distances[0] * 1.01, *distances[1:]]


def swapped(starts: list[Any], distances: list[Any]) -> Claim:
    return [starts[1], starts[0], *starts[2:]], [distances[1], distances[0], *distances[2:]]


def future(starts: list[Any], distances: list[Any]) -> Claim:
    return [*starts[:-1], LAST + 1], distances


def too_few(starts: list[Any], distances: list[Any]) -> Claim:
    return starts[:-1], distances[:-1]


def too_many(starts: list[Any], distances: list[Any]) -> Claim:
    far = next(s for s in range(LAST) if all(abs(s - other) >= EXCLUSION for other in starts))
    return [*starts, far], [*distances, 1.0]


def negative(starts: list[Any], distances: list[Any]) -> Claim:
    return [-1, *starts[1:]], distances


def overlapping(starts: list[Any], distances: list[Any]) -> Claim:
    return [starts[0], starts[0] + EXCLUSION - 1, *starts[2:]], distances


def repeated(starts: list[Any], distances: list[Any]) -> Claim:
    return [starts[0], *starts[:-1]], [distances[0], *distances[:-1]]


def not_a_number(starts: list[Any], distances: list[Any]) -> Claim:
    return starts, [float("nan"), *distances[1:]]


def fractional(starts: list[Any], distances: list[Any]) -> Claim:
    return [start + 0.5 for start in starts], distances


def ragged(starts: list[Any], distances: list[Any]) -> Claim:
    return [[1, 2], 3], distances


def lopsided(starts: list[Any], distances: list[Any]) -> Claim:
    return starts, distances[:-1]


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (wrong_distance, "wrong distance"),
        (swapped, "wrong order"),
        (future, "future window"),
        (too_few, "wrong count"),
        (too_many, "wrong count"),
        (negative, "unknown window"),
        (overlapping, "overlap"),
        (repeated, "overlap"),
        (not_a_number, "malformed"),
        (fractional, "malformed"),
        (ragged, "malformed"),
        (lopsided, "malformed"),
    ],
)
def test_each_lie_is_named(
    library: WindowLibrary, claim: Claim, lie: Callable[[list[Any], list[Any]], Claim], reason: str
) -> None:
    assert label(library, lie(*claim)) == reason


def test_an_empty_claim_is_a_wrong_count_when_something_is_there(library: WindowLibrary) -> None:
    assert label(library, ([], [])) == "wrong count"


def test_an_empty_claim_passes_when_nothing_is_there(library: WindowLibrary) -> None:
    assert library.verify_nearest(QUERY, [], [], BAND, -1, EXCLUSION, k=K).ok
    assert library.verify_nearest(QUERY, [3], [1.0], BAND, -1, EXCLUSION, k=K).label == "future window"


@settings(max_examples=30, deadline=None)
@given(hidden=st.integers(0, K - 1))
def test_hiding_a_nearer_window_is_caught(hidden: int) -> None:
    """True distances, true order, one neighbour left out and the next best put in its place."""
    library = WindowLibrary(SERIES, WINDOW)
    wider = library.nearest(QUERY, K + 1, BAND, LAST, exclusion=EXCLUSION)
    kept = [rank for rank in range(K + 1) if rank != hidden]
    result = library.verify_nearest(QUERY, wider.starts[kept], wider.distances[kept], BAND, LAST, EXCLUSION, k=K)
    assert result.label == "not nearest"
    assert str(wider.starts[hidden]) in result.reason


def test_other_data_is_caught(claim: Claim) -> None:
    altered = SERIES.copy()
    altered[claim[0][0] + 3] += 0.5
    assert label(WindowLibrary(altered, WINDOW), claim) == "wrong distance"
