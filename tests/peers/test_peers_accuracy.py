"""1-NN accuracy on two sets of the UCR archive, digit by digit what aeon finds; the sets lie in aeon's wheel.

Band 5 % of 150 samples is 7, of 24 samples 1: aeon rounds its fraction down, ``int(w * n)``. Euclidean is a band of 0.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtw import api
from dtw.normalize import normalized
from profiling.bench.peers.client import ENVIRONMENT, Peers

pytestmark = pytest.mark.peers

EXPECTED = {
    ("GunPoint", 0.0): 0.9133,
    ("GunPoint", 0.05): 0.9733,
    ("GunPoint", 0.10): 0.9400,
    ("GunPoint", None): 0.9067,
    ("ItalyPowerDemand", 0.0): 0.9553,
    ("ItalyPowerDemand", 0.05): 0.9543,
    ("ItalyPowerDemand", 0.10): 0.9524,
    ("ItalyPowerDemand", None): 0.9504,
}


def read(name: str, part: str) -> tuple[Any, Any]:
    """z-normalised series ``(count, length)`` and their classes ``(count,)``."""
    (folder,) = ENVIRONMENT.glob(f"lib/python*/site-packages/aeon/datasets/data/{name}")
    text = (Path(folder) / f"{name}_{part}.ts").read_text()
    lines = [line.split(":") for line in text.partition("@data\n")[2].split()]
    series = np.array([normalized(np.array(values.split(","), np.float64)) for values, _ in lines])
    return series, np.array([label for _, label in lines])


@cache
def data(name: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return read(name, "TRAIN"), read(name, "TEST")


def samples(fraction: float | None, length: int) -> int | None:
    return None if fraction is None else int(fraction * length)


@pytest.mark.parametrize(("name", "fraction"), EXPECTED)
def test_accuracy_to_every_digit(name: str, fraction: float | None) -> None:
    (train, train_classes), (test, test_classes) = data(name)
    window = samples(fraction, train.shape[1])
    library = api.RowLibrary(train)
    nearest = np.array([api.nearest(query, library, 1, window).starts[0] for query in test])
    assert round(float(np.mean(train_classes[nearest] == test_classes)), 4) == EXPECTED[name, fraction]
    ties_to_the_first = np.argmin(api.pairwise(test, train, window), axis=1)
    assert ties_to_the_first.tolist() == nearest.tolist()


def test_aeon_finds_the_same_neighbours(peers: Peers) -> None:
    (train, _), (test, _) = data("GunPoint")
    peers.put("rows", train)
    for query in test[:10]:
        peers.put("query", query)
        found = peers.run("aeon", "knn", query="query", rows="rows", k=1, band=7).result
        assert api.nearest(query, train, 1, 7).starts.tolist() == found[0].tolist()
