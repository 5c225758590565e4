"""Our distances, neighbours and matches are those of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from dtw import api
from dtw.errors import InvalidArgument
from profiling.bench.peers.client import Peers, peer_band
from tests.oracles import dtw_naive
from tests.oracles.dtw_cases import Case, random_cases

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]

COUNT = 10_000
CHANNEL_COUNT = 300
TOLERANCE = 1e-9
"""Relative. Observed: 5e-16 for pairs, which add up in the same order; 1e-12 for matches, whose windows wildboar
z-normalises by running sums."""
PEERS = ("aeon", "dtaidistance", "tslearn", "wildboar")
BANDS = (None, 0, 3, 12)


@cache
def cases() -> tuple[Case, ...]:
    return tuple(random_cases(COUNT, seed=2))


@cache
def expected() -> tuple[float, ...]:
    return tuple(dtw_naive.distance(case.a.tolist(), case.b.tolist(), case.band) for case in cases())


def distances(peers: Peers, peer: str, chosen: Sequence[Case]) -> Any:
    """What a peer says of many pairs, in one request."""
    for side in ("a", "b"):
        series = [getattr(case, side) for case in chosen]
        peers.put(side, np.concatenate(series))
        peers.put(f"{side}_lengths", np.array([len(values) for values in series]))
    peers.put("bands", np.array([-1 if case.band is None else case.band for case in chosen]))
    names = {name: name for name in ("a", "a_lengths", "b", "b_lengths", "bands")}
    return peers.run(peer, "cases", **names).result


def has_band(peer: str, case: Case) -> bool:
    try:
        peer_band(peer, case.band, len(case.a), len(case.b))
    except InvalidArgument:
        return False
    return True


def test_ten_thousand_pairs_equal_the_full_matrix() -> None:
    assert [api.distance(*case) for case in cases()] == list(expected())


@pytest.mark.parametrize("peer", PEERS)
def test_ten_thousand_pairs_equal_the_peer(peers: Peers, peer: str) -> None:
    shared = [index for index, case in enumerate(cases()) if has_band(peer, case)]
    assert len(shared) == COUNT or (peer == "aeon" and len(shared) > COUNT / 2), "only aeon bends unequal bands"
    found = distances(peers, peer, [cases()[index] for index in shared])
    ours = [api.distance(*cases()[index]) for index in shared]
    np.testing.assert_allclose(ours, found, rtol=TOLERANCE, atol=0)
    np.testing.assert_allclose([expected()[index] for index in shared], found, rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("peer", ["aeon", "tslearn"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels_equal_the_peer(peers: Peers, peer: str, channels: int) -> None:
    shared = [case for case in random_cases(CHANNEL_COUNT, channels, channels) if has_band(peer, case)]
    ours = [api.distance(*case) for case in shared]
    np.testing.assert_allclose(ours, distances(peers, peer, shared), rtol=TOLERANCE, atol=0)


@pytest.fixture(scope="module")
def walks() -> Any:
    """Rows ``(100, 64)`` and, last, a query ``(64,)``."""
    return np.random.default_rng(3).standard_normal((101, 64)).cumsum(axis=1)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("peer", [*PEERS, "javascript"])
def test_batches_and_pairs_equal_the_peer(peers: Peers, walks: Any, peer: str, band: int | None) -> None:
    peers.put("rows", walks[:-1])
    peers.put("query", walks[-1])
    peers.put("a", walks[0])
    ours = api.one_to_many(walks[-1], walks[:-1], band)
    found = peers.run(peer, "batch", query="query", rows="rows", band=band).result
    np.testing.assert_allclose(ours, found, rtol=TOLERANCE, atol=0)
    pair = peers.run(peer, "pair", a="query", b="a", band=band).result
    np.testing.assert_allclose([api.distance(walks[-1], walks[0], band)], pair, rtol=TOLERANCE, atol=0)


def test_a_float32_batch_equals_aeons(peers: Peers, walks: Any) -> None:
    single = walks.astype(np.float32)
    peers.put("rows", single[:-1])
    peers.put("query", single[-1])
    found = peers.run("aeon", "batch", query="query", rows="rows", band=6).result
    np.testing.assert_allclose(api.one_to_many(single[-1], single[:-1], 6), found, rtol=1e-5)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("peer", PEERS)
def test_matrices_and_neighbours_equal_the_peer(peers: Peers, walks: Any, peer: str, band: int | None) -> None:
    peers.put("rows", walks[:-1])
    peers.put("query", walks[-1])
    matrix = peers.run(peer, "pairwise", rows="rows", band=band).result
    np.testing.assert_allclose(api.pairwise(walks[:-1], window=band), matrix, rtol=TOLERANCE, atol=0)
    ours = api.nearest(walks[-1], walks[:-1], 7, band)
    starts, values = peers.run(peer, "knn", query="query", rows="rows", k=7, band=band).result
    assert ours.starts.tolist() == starts.tolist()
    np.testing.assert_allclose(ours.distances, values, rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize(("k", "exclusion"), [(1, 24), (4, 24), (4, 1)])
@pytest.mark.parametrize("band", [None, 0, 4])
@pytest.mark.parametrize("peer", ["dtaidistance", "wildboar"])
def test_matches_equal_the_peer(peers: Peers, peer: str, band: int | None, k: int, exclusion: int) -> None:
    rng = np.random.default_rng(4)
    series = rng.standard_normal(1500).cumsum()
    query = 3 * series[700:748] + rng.standard_normal(48)
    peers.put("series", series)
    peers.put("query", query)
    ours = api.search(query, series, k, band, exclusion)
    run = peers.run(peer, "search", query="query", series="series", k=k, band=band, exclusion=exclusion)
    assert ours.starts.tolist() == run.result[0].tolist()
    np.testing.assert_allclose(ours.distances, run.result[1], rtol=TOLERANCE, atol=0)
    assert ours.starts[0] == 700


def test_no_band_at_all_is_the_euclidean_distance_of_mass(peers: Peers) -> None:
    """stumpy has no DTW, but a band of 0 samples has no warping either. It works by FFT, to fewer digits."""
    rng = np.random.default_rng(5)
    series, query = rng.standard_normal(800).cumsum(), rng.standard_normal(32).cumsum()
    peers.put("series", series)
    peers.put("query", query)
    profile = peers.run("stumpy", "mass", query="query", series="series").result
    ours = api.search(query, series, 800, 0, 0)
    np.testing.assert_allclose(ours.distances, profile[ours.starts], rtol=1e-7)


@pytest.mark.parametrize("peer", ["aeon", "dtaidistance"])
def test_paths_equal_the_peer(peers: Peers, walks: Any, peer: str) -> None:
    for index in range(20):
        peers.put("a", walks[index])
        peers.put("b", walks[-1])
        for band in (None, 5):
            found = peers.run(peer, "path", a="a", b="b", band=band).result
            assert api.path(walks[index], walks[-1], band).pairs.tolist() == found.tolist()


def test_fastdtw_is_no_nearer_than_exact(peers: Peers, walks: Any) -> None:
    peers.put("a", walks[0])
    peers.put("b", walks[1])
    exact = api.distance(walks[0], walks[1])
    for cost in ("absolute", "squared"):
        found = float(peers.run("fastdtw", "fastdtw", a="a", b="b", radius=1, cost=cost).result[0])
        assert found >= exact * (1 - TOLERANCE)
    wide = float(peers.run("fastdtw", "fastdtw", a="a", b="b", radius=64, cost="squared").result[0])
    assert wide == pytest.approx(exact, rel=TOLERANCE)
